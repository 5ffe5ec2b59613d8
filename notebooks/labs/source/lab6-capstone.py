# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Lab 6: capstone, a network under a byte budget
#
# The shipped ResNet-20 has 269,722 parameters and classifies 91 % of its CIFAR-10 test images. Make it as small as your
# budget says, and keep as much of its accuracy as you can, with any method. What you hand in is a *file*; no code of
# yours decides its grade. You
#
# 1. count bytes, 2. turn codes into weights, 3. find the best step of each channel, 4. spend a budget by hand,
# 5. hand in the file, 6. report.
#
# 90 minutes, without what your method computes. You need lessons 00 and 07; labs 1 to 5 have methods that are worth a
# try here.
#
# **How to answer.** Write your code where it says `# your code here`. Functions get numpy arrays; if you would rather have
# torch tensors, write `ARRAYS = "torch"` as the first line of your answer to question 1. They may give back either, and must
# not change what they are given. Cells that are no answers are locked; add cells of your own where you like.

# %% qviz={"given": true}
import numpy as np
import torch

ARRAYS = "numpy"
SEED = 6
BUDGET = 106000
AVERAGE = 2.5
ESTIMATE = "loss rise"


def array(values):
    """Numbers as your functions get them."""
    values = np.asarray(values).copy()
    return torch.from_numpy(values) if ARRAYS == "torch" else values


def same(got, want):
    """Whether your result has these numbers."""
    got, want = np.asarray(got), np.asarray(want)
    return got.shape == want.shape and np.allclose(got, want, atol=1e-6)


# %% [markdown]
# ## 1. What a network costs
#
# **Question `size` ({{points:size}} points).** A layer with n weights on K levels has n codes. A code takes the fewest whole
# bits that name K levels, ⌈log₂ K⌉. Beside the codes a layer has a table: its levels and scales, t numbers of 32 bits.
# What stays in floating point takes 32 bits a number as well. In bytes of 8 bits, rounded up at the very end:
#
# $$\left\lceil \frac18 \Big(\sum_l \big(n_l \lceil \log_2 K_l \rceil + 32\,t_l\big) + 32\,F\Big) \right\rceil$$
#
# This is how the capstone counts. It is not how a file on disk counts, where a code has a byte to itself.


# %% qviz={"answer": "size"}
def size(layers, floats):
    """Return the bytes of a network.

    Args:
        layers: a list of lists [n, K, t]: weights, levels (at least 2), numbers in the table.
        floats: F, how many numbers stay in floating point.

    Returns:
        A whole number.
    """
    ### BEGIN SOLUTION
    bits = 32 * floats
    for n, k, t in layers:
        width = 1
        while 2**width < k:
            width += 1
        bits += n * width + 32 * t
    return -(-bits // 8)
    ### END SOLUTION


# %% qviz={"tests": "size"}
found = size([[1000, 8, 20]], 10)
assert found == 495, f"3,000 bits of codes and 30 numbers: 375 + 120 = 495 bytes, not {found}"
found = size([[1000, 9, 20], [3, 2, 0]], 10)
assert found == 621, f"nine levels need a bit more, and the last 3 bits begin a byte: 621, not {found}"

# %% [markdown]
# ## 2. From codes to weights
#
# **Question `decode` ({{points:decode}} points).** A code is the index of a level, from 0. Levels are one table for the whole
# tensor, or one for each output channel (axis 0 of the weight). If there are scales, one for each output channel, its
# levels are multiplied by it.


# %% qviz={"answer": "decode"}
def decode(codes, levels, scale):
    """Return the weights that codes stand for.

    Args:
        codes: whole numbers, shape (O, …): two axes for a linear layer, four for a convolution.
        levels: shape (K,), or (O, K) for a table of each output channel.
        scale: shape (O,), or None for no scales.

    Returns:
        Weights, the shape of ``codes``.
    """
    ### BEGIN SOLUTION
    codes, levels = np.asarray(codes), np.asarray(levels)
    weights = np.empty(codes.shape)
    for o in range(len(codes)):
        table = levels if levels.ndim == 1 else levels[o]
        weights[o] = table[codes[o]] * (1.0 if scale is None else float(scale[o]))
    return weights
    ### END SOLUTION


# %% qviz={"tests": "decode"}
codes = array([[0, 1, 2], [2, 2, 0]])
found = decode(codes, array([-1.0, 0.0, 2.0]), None)
assert same(found, [[-1, 0, 2], [2, 2, -1]]), f"one table for all, code 0 is its first level: {found}"
found = decode(codes, array([[-1.0, 0.0, 2.0], [0.0, 4.0, 5.0]]), array([10.0, 1.0]))
assert same(found, [[-10, 0, 20], [5, 5, 0]]), (
    f"each output channel has its own table and its own scale: {found}"
)

# %% [markdown]
# ## 3. The best step of each channel
#
# **Question `best_step` ({{points:best_step}} points).** The plainest grid with b bits has the levels s · {−2^(b−1), …,
# 2^(b−1) − 1}, with a step s for each output channel. A step that reaches the largest weight wastes its levels; a smaller
# one clips. Try **21 candidates** for each channel,
#
# $$s = f\,\frac{\max_i |w_i|}{2^{b-1}}, \qquad f = 0.20,\ 0.25,\ 0.30,\ \dots,\ 1.20,$$
#
# and take the one with the least squared error $\sum_i (s\,q_i - w_i)^2$, where
# $q_i = \mathrm{clip}(\mathrm{round}(w_i / s),\, -2^{b-1},\, 2^{b-1} - 1)$. Return codes that begin at 0, q + 2^(b−1). No
# weight of the tests lies in the middle between two levels, and no two candidates are equally good.


# %% qviz={"answer": "best_step"}
def best_step(w, bits):
    """Return codes and steps of the grid with the least squared error.

    Args:
        w: weights, shape (O, …).
        bits: b, 2 or more.

    Returns:
        Two arrays: codes, whole numbers 0 … 2^b − 1, the shape of ``w``; and the steps, shape (O,).
    """
    ### BEGIN SOLUTION
    w, half = np.asarray(w), 2 ** (bits - 1)
    codes, steps = np.empty(w.shape, dtype=int), np.empty(len(w))
    for o, row in enumerate(w):
        least = np.inf
        for f in np.arange(20, 121, 5) / 100:
            step = f * np.abs(row).max() / half
            q = np.clip(np.round(row / step), -half, half - 1)
            error = np.square(step * q - row).sum()
            if error < least:
                least, steps[o], codes[o] = error, step, q + half
    return codes, steps
    ### END SOLUTION


# %% qviz={"tests": "best_step"}
codes, steps = best_step(array([[-2.0, 1.0, 0.0, -1.0], [0.2, -0.4, 0.2, 0.01]]), 2)
assert same(steps, [1.0, 0.2]), f"both channels are (nearly) on a grid: steps [1, 0.2], not {steps}"
assert same(codes, [[0, 3, 2, 1], [3, 0, 3, 2]]), f"four levels, so codes 0 … 3: {codes}"
_, steps = best_step(array([[0.9, -1.1, 0.95, -1.0, 1.05, -0.9, 0.92, 4.0]]), 2)
assert steps[0] < 1.9, f"one large weight is better clipped than served: a step below 1.9, not {steps}"

# %% [markdown]
# ## 4. Spend a budget by hand
#
# **Question `spent` ({{points:spent}} points).** Set **Budget** to `AVERAGE`, **Costs by** to `ESTIMATE` and **Allocation** to
# "by hand". Then drag the dots of the first picture (or choose a **Layer** and move **Its bits**) until the sum of costs,
# Σ Ω (rows "yours" and "exact" of the table), is **at most 1.5 times** that of "exact", within the budget. Try before you
# look at what "exact" does. Print `explorer.state` and paste the text between the quotes of the answer.

# %%
import qviz.widgets

print(f"budget {AVERAGE}, costs by {ESTIMATE}")
explorer = qviz.widgets.BitBudgetExplorer()
explorer

# %%
import json

print(json.dumps(explorer.state))

# %% qviz={"answer": "spent"}
### BEGIN SOLUTION
spent = """{"budget": 2.5, "way": "by hand", "estimate": "loss rise", "bits": [4, 4, 4, 3, 3, 4, 3, 4, 2, 3, 2, 2, 2, 3, 2, 3, 2, 3, 2, 5]}"""
### END SOLUTION

# %% [markdown]
# ## 5. The file
#
# **Question `network` ({{points:network}} points).** Hand in `network.safetensors` beside this notebook.
# For each of the 20 layers the file has `NAME.codes` and `NAME.levels`, and `NAME.scale` if you like; `help(capstone)` has
# the format, once the next cell has run. Batch normalization and the last bias stay in floating point. They may be
# other ones than the shipped network's, and count the same whether they are in the file or not.
#
# **How it is graded.** A file over `BUDGET` bytes (as counted above) earns nothing. Within it, a file that can be read
# earns 3 points. The other 9 go by accuracy, on 500 of the 2,000 embedded test images that only the grader knows, against
# two reference curves: 0 for what *equal bits* for all layers lose at this size, 9 for what *bits allocated by cost* lose,
# in proportion between. Both curves round as in question 3 and do nothing else. Better than the second curve earns no more
# points, but a place further up on the leaderboard.
#
# **Fair play.** Learn from the training images, and look at the test images only to see how you do. A network that has
# learned the test images shows it in the report, where you have to say what you did.

# %%
from qviz.explore import network
from qviz.labs import capstone, leaderboard

plain, spent_well = leaderboard.reference(BUDGET)
print(f"{BUDGET:,} bytes: equal bits lose {plain:.1f} points of top-1, allocated bits {spent_well:.1f}")
for name, shape in capstone.layers().items():
    print(f"{name:16} {shape}")

# %% [markdown]
# Here is a start: your `best_step`, and the same bits everywhere. Copy the next two cells to new ones and go on there. Which
# bits fit? Make it better: other bits for each layer (question 4), other levels (labs 3 and 4), rounding that looks at outputs, statistics of batch normalization estimated
# again (`qviz.nn.reestimate_batchnorm`), training.

# %%
weights = {name: network.resnet20().get_submodule(name).weight.detach().numpy() for name in capstone.layers()}
bits = dict.fromkeys(weights, 2)


def packed(w, b):
    """One layer on its grid."""
    codes, steps = best_step(array(w), b)
    return capstone.Packed(np.asarray(codes), np.arange(-(2 ** (b - 1)), 2 ** (b - 1)), np.asarray(steps))


handed = capstone.Handed({name: packed(w, bits[name]) for name, w in weights.items()}, floats={})
print(f"{handed.bytes:,} bytes of {BUDGET:,}")
capstone.write("network.safetensors", handed, name="a name for the leaderboard", method="2 bits everywhere")

# %%
images, labels = network.sample("test")
first = slice(0, 500)  # the grader takes others
top1 = (
    100
    * capstone.right(capstone.read("network.safetensors").network(), images[first], labels[first])
    .double()
    .mean()
)
floating = 100 * capstone.right(network.resnet20(), images[first], labels[first]).double().mean()
print(f"top-1 {top1:.1f} %, in floating point {floating:.1f} %")

# %% [markdown]
# ## 6. The report
#
# **Question `report` ({{points:report}} points).** Half a page. What did you do, so that somebody else could do it again? Give
# one comparison in which a single thing differs, with size and accuracy of both. On which images was anything chosen or
# learned? How far can you trust an accuracy on 500 images?

# %% [markdown] qviz={"answer": "report"}
# *Your answer here.*

# %% [markdown]
# ## Before you hand in
#
# Restart the kernel and run all cells from the top. Hand in two files in one folder: this notebook and
# `network.safetensors`, by that name. The leaderboard of a folder with many of them is
# `print(leaderboard.text(leaderboard.ranked("FOLDER")))`; it measures files on the first 500 test images.
