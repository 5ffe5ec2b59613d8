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
# # Non-uniform in, uniform out (N2UQ)
#
# A [codebook](glossary.md#codebook) whose [levels](glossary.md#level) lie anywhere has a price: hardware multiplies
# integers, and such levels are none. N2UQ ([Liu et al. 2022](https://arxiv.org/abs/2111.14826)) turns it around: the
# outputs are uniform, and the *inputs* are divided unequally, by [thresholds](glossary.md#threshold) that are learned.
# ADQ ([Jia et al. 2025](https://arxiv.org/abs/2510.19760)) uses it for [activations](glossary.md#activation). After this
# lesson you can
#
# 1. move thresholds, and say what each of them does to the code of a number,
# 2. say what stands in for the staircase in the backward pass, and why it is a fair stand-in,
# 3. read the gradient of a threshold, and check it against what the rounded outputs really do,
# 4. say what unequal thresholds are good for, and what they cannot do.
#
# About 35 minutes. You need lessons 00 and 01. Where it asks you to **predict**, do so before you go on.

# %%
from dataclasses import replace

import numpy as np
import torch

import qviz
from qviz.explore import ThresholdModel
from qviz.widgets import Predict, ThresholdExplorer

model = ThresholdModel()  # act_depthwise: real activations of MobileNetV2 after a ReLU6

# %% [markdown]
# ## Segments and thresholds
#
# With b bits there are n = 2^b − 1 [*segments*](glossary.md#segment). The first begins at a learned start t₀, and each has a learned width. With
# v = s·x and the output distance D = 2 / n (Liu et al., section 3, and the released code):
#
# $$d_0 = t_0, \qquad d_i = d_{i-1} + a_i, \qquad T_i = \frac{d_{i-1} + d_i}{2}, \qquad y = D \cdot \#\{i : v > T_i\}.$$
#
# The threshold of a segment is its middle. The function is `qviz.recipes.n2uq_activation`; equal widths D are its start.

# %%
# NBVAL_CHECK_OUTPUT
q = qviz.recipes.n2uq_activation(2, widths=[0.2, 0.5, 1.3])
print("ends of the segments:", [round(v, 3) for v in q.codebook.knots.tolist()])
print("thresholds:          ", [round(v, 3) for v in q.codebook.borders.tolist()])
x = torch.tensor([-0.4, 0.05, 0.15, 0.4, 1.0, 1.5, 7.0])
for value, code, y in zip(x.tolist(), q.codes(x).tolist(), q(x).tolist(), strict=True):
    print(f"x = {value:5.2f}   code {code}   y = {y:.3f}")

# %% [markdown]
# Why uniform outputs are worth having: y is D times an integer. A sum of products is D times a sum of products with small
# integers, whatever the thresholds are.

# %%
# NBVAL_CHECK_OUTPUT
weights = torch.randint(-7, 8, (1000,), generator=torch.Generator().manual_seed(0))
acts = qviz.shipped.tensor("act_depthwise").flatten()[:1000]
with torch.no_grad():
    in_floats = float((weights * q(acts).double()).sum())
in_integers = int((weights * q.codes(acts).long()).sum())
print(
    f"in floating point {in_floats:.4f}; in integers {in_integers}, times D = 2/3: {in_integers * 2 / 3:.4f}"
)

# %% [markdown]
# Drag the blue thresholds in the first picture, and the purple dot, one number x, in the first three. Below the table
# stands what happens to it. (The explorer takes 4,096 quantiles of the 65,536 activations in place of all, so that it can
# answer at once.)

# %%
explorer = ThresholdExplorer(show=["threshold", "value", "push", "x"])
explorer

# %% jupyter={"source_hidden": true}
Predict(
    "All widths are 2/3, so the thresholds are at 1/3, 1 and 5/3. You drag the first to 0.6 (Push the rest is ticked). "
    "Where does the second go?",
    answer=lambda: float(model.moved(model.start, 1, 0.6).thresholds[1]),
    within=0.05,
    why="The threshold is the middle of its segment: to move it by 0.267 the width grows by 0.533, and all later segments "
    "move by the whole width.",
)

# %% [markdown]
# That is how the method is built: the parameters are *widths*, not thresholds. So thresholds can never cross, and a width
# moves everything above it. (The explorer's other mode, without **Push the rest**, takes the width from the next segment;
# it is there for your hand, training has nothing like it.)
#
# ## What the gradient sees
#
# The staircase is flat almost everywhere, so the backward pass needs something else. Imagine each number were rounded at
# random: within segment i, at the part t = (v − dᵢ₋₁) / aᵢ of it, *up* with probability t. What comes out **on average**
# is
#
# $$e(v) = D\,(i - 1) + D\,\frac{v - d_{i-1}}{a_i}$$
#
# inside, 0 below and 2 above all segments. N2UQ rounds at the thresholds in the forward pass and uses the derivatives of e
# in the backward pass: the [generalized straight-through estimator](glossary.md#generalized-straight-through-estimator) (Liu et al.,
# section 3.2).

# %% jupyter={"source_hidden": true}
Predict(
    "Two numbers, one in a narrow segment, one in a wide one. Which gets the larger gradient?",
    options=[
        "the one in the narrow segment",
        "the one in the wide segment",
        "both the same, it is straight through",
    ],
    answer="the one in the narrow segment",
    why="Its slope is D / a: a small step in x crosses more of a narrow segment, so it changes the average more.",
)

# %% [markdown]
# The derivative of e by v is D / aᵢ in segment i and 0 outside. Below, the preset "narrow below, wide above" with the
# widths 0.2, 0.5 and 1.3. Slide **Draws** from 1 to 200: the crosses in the second picture are means of so many random
# roundings, made by `qviz.Stochastic`. The third picture has the slopes; drag x through them.

# %%
draws = ThresholdExplorer(show=["draws", "x"])
draws.restore({"bits": 2, "widths": [0.2, 0.5, 1.3], "draws": 1})
draws

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
narrow = model.restored({"bits": 2, "widths": [0.2, 0.5, 1.3]})
work, at = model.work(narrow), np.linspace(0.0, 2.0, 201)
print("slope dy/dx in the three segments:", work.slope.round(3).tolist())
print("equal widths:                     ", model.work(model.start).slope.round(3).tolist())
for count in (1, 10, 100, 10_000):
    off = np.abs(work.drawn(at, count) - work.expectation(at))
    print(f"{count:6,} draws: their mean is {off.mean():.4f} away from e on average")

# %% [markdown]
# With equal widths D the slope is 1: the plain straight-through estimator is the special case. And a hundred times as many
# draws come ten times as near, as means do: e really is the expectation.
#
# ## The gradient of each width
#
# e depends on the widths too, and that is how they are learned.

# %% jupyter={"source_hidden": true}
Predict(
    "The first segment is made wider. What happens to the mean of y?",
    options=["it rises", "it falls", "nothing, the levels are fixed"],
    answer="it falls",
    why="All thresholds from the first on move up, so numbers fall to lower codes.",
)

# %% [markdown]
# For a number in segment i,
#
# $$\frac{\partial e}{\partial a_j} = -\frac{D}{a_i}\ (j < i), \qquad -\frac{D\,(v - d_{i-1})}{a_i^2}\ (j = i), \qquad 0\ (j > i).$$
#
# The fourth picture has these, from the recipe's own backward pass over the real activations, for a loss that you choose:
# the **mean of y**, or the **squared error** (y − v)². The dots are what the *rounded* outputs really do when this
# width is made larger and smaller by a fifth of D (a difference quotient).

# %%
gradients = ThresholdExplorer(show=["bits", "threshold", "value", "loss"])
gradients

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
for name, c in (("equal widths", model.start), ("narrow below, wide above", narrow)):
    work = model.work(c)
    print(f"{name}: d(mean of y) / d(width)")
    print("   backward pass      ", work.gradient.round(3).tolist())
    print("   rounded outputs    ", work.quotient.round(3).tolist())

# %% [markdown]
# Signs and order agree, and no two sizes are more than 35 % apart: a fair stand-in.
#
# ## Which thresholds have the least error?
#
# Activations are denser near zero. Do narrow segments there represent them better? Or *equal shares*, where each segment
# has as many of the positive values?

# %%
candidates = {
    "equal widths": model.start,
    "narrow below, wide above": narrow,
    "wide below, narrow above": model.restored({"bits": 2, "widths": [1.3, 0.5, 0.2]}),
    "equal shares": model.shared(model.start),
}

# %% jupyter={"source_hidden": true}
Predict(
    "Which thresholds have the least squared error (y − v)² on these activations?",
    options=list(candidates),
    answer="equal widths",
    why="The outputs are fixed at 0, D, 2D, …, and the nearest of them is best: the thresholds in the middles between "
    "them, which are equal widths.",
)

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
print("thresholds                  squared error   entropy of the codes (bits)")
for name, c in candidates.items():
    row = model.headline(replace(c, loss="squared error"))
    print(f"{name:26}  {row['squared error']:13.4f}   {row['entropy (bits)']:10.2f}")

# %% [markdown]
# With these uniform outputs, unequal thresholds can only make y a *worse* copy of x. What they change is the function: y
# becomes a bent version of x, with more [entropy](glossary.md#entropy) perhaps, and the layers after it have to make use
# of that. So they make no sense without training, and an error between x and y says nothing of their worth.
#
# **An honest limit.** At equal widths the squared error is least, so its derivative by each width is zero. (The difference
# quotients of a second, finer kind change a width by a fiftieth of D.)

# %%
# NBVAL_CHECK_OUTPUT
for tensor in ("act_depthwise (real)", "act_pooled (real)"):
    work = model.work(model.settled(model.start, replace(model.start, tensor=tensor, loss="squared error")))
    print(f"{tensor}: d(squared error) / d(width) at equal widths")
    print("   backward pass      ", (work.gradient + 0.0).round(4).tolist())
    print("   rounded outputs    ", (work.quotient + 0.0).round(4).tolist())
    c, finer = replace(model.start, tensor=tensor, loss="squared error"), []
    for nudge in np.eye(3) * work.unit / 50:
        up, down = (replace(c, widths=tuple((c.sizes + side * nudge).tolist())) for side in (1, -1))
        change = model.headline(up)["squared error"] - model.headline(down)["squared error"]
        finer.append(round(float(change / (2 * nudge.max())), 4) + 0.0)
    print("   the same, finer    ", finer)

# %% [markdown]
# What the rounded outputs do comes to zero, as it must (for the first width of "act_pooled" only in fine steps); the
# backward pass does not. The second width of "act_depthwise" would go on moving where nothing is to be won: the backward
# pass multiplies the error of the *rounded* output by the slope of the *average* one, and these belong to
# two functions. It is an estimate, with a bias that does not vanish at the optimum.
#
# ## On a network
#
# The shipped ResNet-20 with 2-bit activations (N2UQ at its start: equal widths, scales 1) and full-precision weights that
# stay as they are. Only the quantizers' own parameters learn, 12 steps of 64 images, to make the same probabilities as
# the full-precision network. One run learns the two scales of each layer (s, and one for the output), the other
# starts and widths besides.

# %%
import copy

from qviz.nn import calibrate, convert, load_weights
from qviz.nn.data.augment import CIFAR10_MEAN, CIFAR10_STD, normalize
from qviz.nn.models import create

train, _ = qviz.shipped.cifar10_sample("train")
test, labels = (part[:500] for part in qviz.shipped.cifar10_sample("test"))
train, test = (normalize(images, CIFAR10_MEAN, CIFAR10_STD) for images in (train[: 20 * 64], test))
fp32 = load_weights(create("resnet20"), qviz.shipped.checkpoint("resnet20_fp32.safetensors")).eval()
SCALES, THRESHOLDS = ("scale_in", "scale_out"), ("start", "widths")


def learned(kinds, steps=12):
    """A network with 2-bit activations whose quantizers' parameters of some kinds have learned."""
    network = copy.deepcopy(fp32)
    convert(network, pair=qviz.recipes.pair("adq", 32, 2), batch=train[:64])
    calibrate(network, train[:64])
    network.eval().requires_grad_(False)
    named = network.named_parameters()
    own = [p.requires_grad_(True) for name, p in named if name.split(".")[-1] in kinds]
    optimizer = torch.optim.Adam(own, lr=0.02) if own else None
    for batch in train.split(64)[:steps] if own else ():
        optimizer.zero_grad()
        for part in batch.split(16):  # the same gradient with a quarter of the memory
            with torch.no_grad():
                wanted = fp32(part).softmax(1)
            loss = torch.nn.functional.kl_div(network(part).log_softmax(1), wanted, reduction="sum")
            (loss / len(batch)).backward()
        optimizer.step()
    return network


@torch.no_grad()
def accuracy(network):
    """The share of 500 test images that a network names rightly."""
    found = torch.cat([network(part).argmax(1) for part in test.split(100)])
    return float((found == labels).double().mean())


# %% jupyter={"source_hidden": true}
Predict(
    "Full precision has 92 % on these images. 2-bit activations, nothing learned yet?",
    answer=lambda: 100 * accuracy(learned(())),
    unit="%",
    within=8,
    why="Four levels from 0 to 2 stand for every activation in 18 layers, and no layer knows of it; yet for most images "
    "the largest of the ten outputs stays the largest.",
)

# %% jupyter={"outputs_hidden": true}
networks = {
    "nothing": learned(()),
    "scales": learned(SCALES),
    "scales and thresholds": learned(SCALES + THRESHOLDS),
}
for name, network in networks.items():
    print(f"learned: {name:22} accuracy {accuracy(network):.0%}")

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
print("learned scales help:", accuracy(networks["scales"]) > accuracy(networks["nothing"]))

# %% jupyter={"outputs_hidden": true}
books = [
    m for m in networks["scales and thresholds"].modules() if isinstance(m, qviz.methods.n2uq.LearnedKnots)
]
shown = torch.stack([book.widths.detach() for book in books]).T
qviz.plot.panels.curve(
    {f"width {i + 1}": (np.arange(1, 19), row) for i, row in enumerate(shown)},
    references={"equal widths": 2 / 3},
    title="Widths of the 18 layers after 12 steps",
    x="layer, from the first to the last",
    y="width (v)",
)

# %% [markdown]
# The scales gain some points. With the thresholds learned along it is a few points more or fewer, although the widths do
# move. Is that a finding? The standard error of an accuracy of 75 % on 500 images is √(0.75 · 0.25 / 500) = 1.9 points, and
# a processor that adds in another order ends with other weights: on one computer the thresholds gained a point, on another
# they lost four. A few points of difference after 12 steps are no proof either way. What thresholds are worth shows where
# the weights learn along, as in the training notebook.
#
# ## Exercises
#
# 1. One bit: there is one segment and one threshold. Where is it at the start? Move it (`ThresholdExplorer(bits=1)`) until both
#    codes are used equally. Which threshold is that?
# 2. 3 bits: by how much does the button **Equal shares** raise the entropy (**In words** has it)? Why not to 3 bits?
# 3. Start from the preset "narrow below, wide above" with the loss "squared error" and press **Follow the gradient** 40
#    times. Do the widths become equal? What does the squared error do?
#
# The next cell computes the answers; its source and output are folded in.

# %% jupyter={"source_hidden": true, "outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
one = model.settled(model.start, replace(model.start, bits=1))
half = float(np.median(model.data(one).x.numpy()))
there = model.headline(model.moved(one, 1, half))["entropy (bits)"]
print(
    f"1. at the start {one.thresholds[0]:.2f}, entropy {model.headline(one)['entropy (bits)']:.2f}; at the median {half:.2f}: {there:.2f}"
)
three = model.settled(model.start, replace(model.start, bits=3))
shared = model.shared(three)
zeros = float((model.data(shared).x == 0).double().mean())
print(
    f"2. entropy {model.headline(three)['entropy (bits)']:.2f} → {model.headline(shared)['entropy (bits)']:.2f} bits; "
    f"share of the lowest code {model.work(shared).counts[0] / model.data(shared).numel:.0%}, of zeros {zeros:.0%}"
)
c = replace(narrow, loss="squared error")
errors = [model.headline(c)["squared error"]]
for _ in range(40):
    c = model.trained(c)
    errors.append(model.headline(c)["squared error"])
print(
    f"3. squared error {errors[0]:.4f} → {errors[-1]:.4f} (equal widths {model.headline(replace(model.start, loss='squared error'))['squared error']:.4f}); widths {c.sizes.round(2).tolist()}"
)

# %% [markdown]
# <details><summary>Answer 1</summary>
#
# At x = 1, the middle of a segment from 0 to 2; few activations are above it. At their median both codes are used
# equally and the entropy is 1 bit, all that one bit can carry.
#
# </details>
#
# <details><summary>Answer 2</summary>
#
# From 2.44 to 2.53 bits. The button gives every *segment* as many of the positive values; but a threshold is in the
# middle of its segment, so the lowest code gets half a segment and all the zeros that the ReLU made, about a third of the
# values. No threshold can divide equal numbers. At 2 bits the button even lowers the entropy.
#
# </details>
#
# <details><summary>Answer 3</summary>
#
# Nearly: the first two come to 0.67 and 0.70, and the error falls from 0.163 to 0.066, almost the 0.064 of equal widths.
# The third comes to 0.97: few activations lie so high, so it hardly counts, and its gradient is biased as shown above.
#
# </details>
#
# ## What to read next
#
# - Lesson 07: how many bits each layer should get.
# - Lesson 08: thresholds that depend on the input itself (AQuant's borders).
# - The training notebook `training/cifar10-adq.ipynb`: codebooks for weights and these thresholds for activations, together.
