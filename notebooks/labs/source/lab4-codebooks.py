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
# # Lab 4: codebooks that follow the weights
#
# A codebook is a short list of levels, and a weight is stored as the index of the level nearest to it. In this lab you
# write the four parts of a codebook that follows its weights, and the allocation of bits to layers:
#
# 1. where the levels start, 2. which level a weight gets, 3. how levels follow by a moving average, 4. the same with
# counts and sums, as in VQ-VAE, 5. how many bits each layer gets under a limit.
#
# After it you can say what moves a codebook, in which order, and what becomes of a level that nobody needs. 75 minutes.
# You need lesson 05, and lesson 07 for the last function.
#
# **How to answer.** Write your code where it says `# your code here`. Functions get numpy arrays; if you would rather have
# torch tensors, write `ARRAYS = "torch"` as the first line of your answer to question 1. They may give back either, and must
# not change what they are given. Run the cell below each answer: it holds a few tests that everybody has. More tests,
# with other numbers, decide the points. Cells that are no answers are locked; add cells of your own where you like.

# %% qviz={"given": true}
import numpy as np
import torch

ARRAYS = "numpy"
SEED = 4
BITS = 3
SPEED = 0.5
LIMIT = 1.3


def array(values):
    """Numbers as your functions get them."""
    values = np.asarray(values, dtype=np.float64).copy()
    return torch.from_numpy(values) if ARRAYS == "torch" else values


def same(got, want):
    """Whether your result has these numbers."""
    got, want = np.asarray(got), np.asarray(want)
    return got.shape == want.shape and np.allclose(got, want, atol=1e-6)


# %% [markdown]
# ## 1. Where the levels start
#
# **Question `quantile_start` ({{points:quantile_start}} points).** ADQ
# ([Jia et al. 2025](https://arxiv.org/abs/2510.19760)) starts with zero and with m levels for each sign, quantiles of the
# weights of that sign:
#
# $$c_0 = 0, \qquad c_{\pm i} = \pm\,\mathrm{quantile}_{p_i}\{|w| : \mathrm{sign}(w) = \pm\}, \qquad p_i = \frac{i - 1/2}{m}, \quad i = 1 \dots m.$$
#
# That there are quantiles for each sign and an added zero is told by published descriptions of the paper; the positions
# p_i are inferred. The p-quantile of n sorted numbers stands at position p (n − 1), counted from 0, and is interpolated
# linearly between its two neighbors: this is what `np.quantile` and `torch.quantile` do. Weights that are exactly
# zero have no sign.


# %% qviz={"answer": "quantile_start"}
def quantile_start(w, m):
    """Return the 2m + 1 levels of the start, increasing.

    Args:
        w: weights, shape (n,), some of them exactly zero; at least m of each sign.
        m: levels for each sign.

    Returns:
        Shape (2m + 1,); the level in the middle is 0.
    """
    ### BEGIN SOLUTION
    w = np.asarray(w)
    positions = (np.arange(1, m + 1) - 0.5) / m
    above = np.quantile(w[w > 0], positions)
    below = np.quantile(-w[w < 0], positions)
    return np.concatenate([-below[::-1], [0.0], above])
    ### END SOLUTION


# %% qviz={"tests": "quantile_start"}
found = quantile_start(array([-2.0, -1.0, 0.0, 1.0, 3.0]), 1)
assert same(found, [-1.5, 0.0, 2.0]), f"medians of both signs around zero: [-1.5, 0, 2], not {found}"
found = quantile_start(array([-4.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, -8.0]), 2)
assert same(found, [-7.0, -5.0, 0.0, 2.0, 4.0]), f"positions 1/4 and 3/4 of each sign, not {found}"

# %% [markdown]
# ## 2. Which level a weight gets
#
# **Question `nearest` ({{points:nearest}} points).** The code of a weight is the index k of the level nearest to it,
#
# $$k(w) = \arg\min_k |w - c_k|,$$
#
# counted from 0. **Ties go down**: exactly in the middle between two levels a weight gets the lower one. Levels are not
# evenly spaced.


# %% qviz={"answer": "nearest"}
def nearest(w, levels):
    """Return the code of each weight.

    Args:
        w: weights, shape (n,).
        levels: shape (K,), increasing.

    Returns:
        Whole numbers 0 … K − 1, shape (n,).
    """
    ### BEGIN SOLUTION
    levels = np.asarray(levels)
    middles = (levels[1:] + levels[:-1]) / 2
    return np.searchsorted(middles, np.asarray(w))
    ### END SOLUTION


# %% qviz={"tests": "nearest"}
levels = array([-1.0, 0.0, 3.0])
found = nearest(array([-9.0, -0.6, -0.4, 1.4, 1.6, 9.0]), levels)
assert same(found, [0, 0, 1, 1, 2, 2]), f"[0, 0, 1, 1, 2, 2], not {found}"
found = nearest(array([-0.5, 1.5]), levels)
assert same(found, [0, 1]), f"both lie in the middle between two levels and go down: [0, 1], not {found}"

# %% [markdown]
# ## 3. One step of training
#
# **Question `step` ({{points:step}} points).** A forward pass quantizes the weights with the codebook *as it is*. Then
# each level is drawn to the mean of the weights that it serves, by a moving average with the decay d:
#
# $$c_k \leftarrow d\,c_k + (1 - d)\,\mathrm{mean}\{w : k(w) = k\}.$$
#
# A level that serves no weight stays where it is. The level in the middle is *pinned*: it stays as zero. The moving
# average is published for ADQ; decay, order, idle levels and the pinned zero are inferred.


# %% qviz={"answer": "step"}
def step(w, levels, decay):
    """Return the quantized weights of this forward pass, and the levels for the next.

    Args:
        w: weights, shape (n,).
        levels: shape (K,), increasing, K odd, 0 in the middle.
        decay: d, from 0 to 1.

    Returns:
        Two arrays: shape (n,), each weight replaced by its level; and shape (K,), the new levels.
    """
    ### BEGIN SOLUTION
    w, levels = np.asarray(w), np.asarray(levels)
    codes = nearest(w, levels)
    new = levels.copy()
    for k in range(len(levels)):
        mine = w[codes == k]
        if len(mine) and k != len(levels) // 2:
            new[k] = decay * levels[k] + (1 - decay) * mine.mean()
    return levels[codes], new
    ### END SOLUTION


# %% qviz={"tests": "step"}
quantized, levels = step(array([-1.0, 2.0, 2.0]), array([-1.0, 0.0, 1.0]), 0.9)
assert same(quantized, [-1.0, 1.0, 1.0]), f"the forward pass has the old levels, not {quantized}"
assert same(levels, [-1.0, 0.0, 1.1]), f"1.1 = 0.9 · 1 + 0.1 · 2, not {levels}"
_, levels = step(array([0.2, 0.3, 1.0]), array([-5.0, 0.0, 1.0]), 0.5)
assert same(levels, [-5.0, 0.0, 1.0]), (
    f"one level is idle, one is pinned, one is where it should be: {levels}"
)

# %% [markdown]
# ## 4. The same with counts and sums
#
# **Question `moving` ({{points:moving}} points).** VQ-VAE
# ([van den Oord et al. 2017](https://arxiv.org/abs/1711.00937), appendix A.1) keeps two numbers for each level, and
# averages both: the count N of what it serves, and their sum M. With n and S, count and sum of the weights of this step,
#
# $$N_k \leftarrow d\,N_k + (1 - d)\,n_k, \qquad M_k \leftarrow d\,M_k + (1 - d)\,S_k.$$
#
# The codes are those of the levels M / N *before* the step, as in question 2. After it the levels are the new M divided
# by *smoothed* counts, as common implementations do, so that no count is zero (K levels, total T = Σ N after the step, a
# small ε):
#
# $$c_k = \frac{M_k}{\tilde N_k}, \qquad \tilde N_k = \frac{N_k + \varepsilon}{T + K \varepsilon}\; T.$$
#
# Smoothing serves the division only: N itself goes into the next step as it is. No level is pinned here.


# %% qviz={"answer": "moving"}
def moving(counts, sums, w, decay, eps):
    """Return counts, sums and levels after one step.

    Args:
        counts: N, shape (K,), all positive.
        sums: M, shape (K,); the levels sums / counts increase.
        w: weights, shape (n,).
        decay: d, from 0 to 1.
        eps: ε, positive.

    Returns:
        Three arrays of shape (K,): N and M after the step, and the levels.
    """
    ### BEGIN SOLUTION
    counts, sums, w = np.asarray(counts), np.asarray(sums), np.asarray(w)
    codes = nearest(w, sums / counts)
    counts = decay * counts + (1 - decay) * np.bincount(codes, minlength=len(counts))
    sums = decay * sums + (1 - decay) * np.bincount(codes, w, minlength=len(sums))
    total = counts.sum()
    smoothed = (counts + eps) / (total + len(counts) * eps) * total
    return counts, sums, sums / smoothed
    ### END SOLUTION


# %% qviz={"tests": "moving"}
counts, sums, levels = moving(array([10.0, 10.0]), array([-10.0, 10.0]), array([-2.0, 1.0, 3.0]), 0.9, 1e-9)
assert same(counts, [9.1, 9.2]), f"9.2 = 0.9 · 10 + 0.1 · 2, not {counts}"
assert same(sums, [-9.2, 9.4]), f"9.4 = 0.9 · 10 + 0.1 · 4, not {sums}"
assert same(levels, [-9.2 / 9.1, 9.4 / 9.2]), f"with so small an ε the levels are M / N, not {levels}"
counts, _, levels = moving(array([1.0, 3.0]), array([-1.0, 3.0]), array([]), 0.5, 1.0)
assert same(counts, [0.5, 1.5]), f"nothing was served, so all counts are halved, not {counts}"
assert same(levels, [-0.5 / 0.75, 1.5 / 1.25]), f"T = 2, so Ñ = (0.75, 1.25); your levels are {levels}"

# %% [markdown]
# ## 5. Bits where they matter
#
# **Question `allocate` ({{points:allocate}} points).** Layer l has n_l weights and loses Ω_l(b) if it gets b bits. Choose
# bits so that Σ Ω_l(b_l) becomes small while the average, weighted by parameters, keeps a limit:
#
# $$\sum_l n_l b_l \;\le\; \bar B \sum_l n_l.$$
#
# **Greedy**: begin with the fewest bits everywhere. Again and again, among the raises of one layer to its next
# candidate that still fit into the budget, take the one with the largest fall for each parameter-bit,
#
# $$\frac{\Omega_l(b) - \Omega_l(b')}{n_l\,(b' - b)},$$
#
# until none fits. A budget may be spent to the last bit. That ADQ allocates bits by sensitivity is published; this solver
# is inferred. You may take it that no two raises fall equally, and that the falls of a layer get smaller with more bits.


# %% qviz={"answer": "allocate"}
def allocate(omega, sizes, bits, budget):
    """Return the bits of each layer, by the greedy rule.

    Args:
        omega: shape (L, B), what layer l loses with the bits of column j.
        sizes: n_l, a list of L whole numbers.
        bits: the candidates, a list of B whole numbers, increasing.
        budget: the largest average, weighted by parameters.

    Returns:
        A list of L whole numbers, each from ``bits``.
    """
    ### BEGIN SOLUTION
    omega = np.asarray(omega)
    at = [0] * len(sizes)
    left = budget * sum(sizes) - bits[0] * sum(sizes)
    while True:
        raises = []
        for layer, size in enumerate(sizes):
            j = at[layer]
            if j + 1 < len(bits):
                cost = size * (bits[j + 1] - bits[j])
                if cost <= left:
                    raises.append(((omega[layer, j] - omega[layer, j + 1]) / cost, cost, layer))
        if not raises:
            return [bits[j] for j in at]
        _, cost, layer = max(raises)
        at[layer] += 1
        left -= cost
    ### END SOLUTION


# %% qviz={"tests": "allocate"}
omega = array([[8, 2, 0.5], [4, 1, 0.25], [2, 0.5, 0.125], [1, 0.25, 0.0625]])
found = allocate(omega, [100, 400, 400, 100], [2, 3, 4], 2.8)
assert [int(b) for b in found] == [4, 3, 2, 4], f"[4, 3, 2, 4] spends 2,800 parameter-bits, not {found}"
found = allocate(omega, [100, 400, 400, 100], [2, 3, 4], 2.0)
assert [int(b) for b in found] == [2, 2, 2, 2], f"with two bits on average there is nothing to spend: {found}"

# %% [markdown]
# ## 6. How slow may it be?
#
# **Question `decay` ({{points:decay}} points).** A large decay averages more noise away, and follows more slowly. Here are
# the weights of a layer of MobileNetV2 that grow by `SPEED` percent a step, and a codebook of `BITS` bits that starts at
# quantiles. **What is the largest decay with which, at step 60, the MSE is at most `LIMIT` times the least?** (The column
# "÷ least" of the table, row "moving"; the slider has steps of 0.01.)
#
# **Bits** is set. Set **Drift** to "grow", **Speed** to `SPEED` and **Step** to 60, and find **Decay**; leave the other
# controls alone. Then print `explorer.state` as the cell after the next one does, and paste the text between the
# quotes of the answer.

# %%
import qviz.widgets

explorer = qviz.widgets.CodebookExplorer(bits=BITS)
explorer

# %%
import json

print(json.dumps(explorer.state))

# %% qviz={"answer": "decay"}
### BEGIN SOLUTION
decay = """{"bits": 3, "start": "quantile", "decay": 0.87, "drift": "grow", "speed": 0.5, "step": 60}"""
### END SOLUTION

# %% [markdown]
# ## 7. What a number says
#
# **Question `perplexity` ({{points:perplexity}} points).** A classmate writes: *"My codebook has 63 levels and a perplexity
# of 40, so 23 levels are dead. I registered the levels in the module, so the optimizer will bring them back."* What is
# wrong with each of the two sentences, and what does move the levels? Five sentences are enough.

# %% [markdown] qviz={"answer": "perplexity"}
# *Your answer here.*

# %% [markdown]
# ## Before you hand in
#
# Restart the kernel and run all cells from the top. A cell of tests that says nothing is content.
