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
# # Powers of two, powers of √2, and the table that replaces the multiplication
#
# Multiplying by a power of two is shifting bits. That is cheap, but a grid of powers of two is coarse where it hurts.
# Powers of √2 are a way out that costs one factor. After this lesson you can
#
# 1. write down the levels of POT and POST at any bit width, and count them honestly,
# 2. say at which bit widths √2 helps, and where it does not,
# 3. tell rounding to the nearest level from rounding the exponent, and say what the difference costs,
# 4. compute a layer with POST weights by shifts, additions and two multiplications for each output,
# 5. compare number formats at one budget, with the bits of their scales counted.
#
# About 30 minutes. You should have done [Start here](00-start-here.ipynb). Where it says *Predict*, commit yourself
# before you go on: a wrong guess teaches more than no guess.

# %%
import torch

import qviz
from qviz import CellBorder, Fixed, Quantizer
from qviz.export.lut import post_lut, split_accumulate, table_dot
from qviz.recipes import lsq, post_weight, pot_weight
from qviz.widgets import FormatExplorer, GridExplorer, Predict

# %% [markdown]
# ## Two grids
#
# [POT](glossary.md#pot) and [POST](glossary.md#post) differ in one number, the base ρ:
#
# $$L_\rho(b) = \{0\} \cup \{\pm\rho^{-j} : j = 0, 1, \dots, 2^{b-1} - 2\}, \qquad \rho = 2 \text{ (POT)},\quad
# \rho = \sqrt 2 \text{ (POST)}.$$
#
# The [levels](glossary.md#level) lie in [−1, 1]; a [clip](glossary.md#clip) α brings them to the weights. POST is the
# weight grid of [Zhou et al. 2025](https://arxiv.org/abs/2504.17263) (the ASQ paper; the set is that of its released
# code). The functions are `qviz.pot` and `qviz.post`.

# %%
# NBVAL_CHECK_OUTPUT
for bits in (2, 3, 4):
    for build in (qviz.pot, qviz.post):
        book = build(bits)
        print(bits, f"{book.name:5}", [round(v, 4) for v in book.levels.tolist() if v > 0])

# %% [markdown]
# These are the positive halves. Every second level of POST is a power of two. With the same number of levels POST is
# twice as dense, so it reaches only half as many octaves (factors of two) down: at 4 bits to 1/8 instead of 1/64.
#
# **How many levels do b bits have?** Not always 2^b. These grids are symmetric around 0 and use 2^b − 1 codes. The
# paper's code takes one magnitude more, 2^b + 1 levels in all: `qviz.post(4, grid="paper")` has 17, which do not fit
# into 4 bits. That this package takes the strict grid by default is its own choice (INFERRED). When somebody reports
# "4-bit POST", ask how many levels.

# %% [markdown]
# ## Predict: how far off?
#
# In [Start here](00-start-here.ipynb) both grids stood still when they got more bits: POT from 4 bits on, POST from 5.
# Why?

# %%
weights = qviz.shipped.tensor("expand").flatten(1)  # of a layer of MobileNetV2, trained on ImageNet


def largest_error(book):
    """The largest error between two neighboring levels, in percent of the value."""
    x = torch.linspace(0.5, 1, 100_001)
    y = Quantizer(book, range=Fixed(1.0))(x)
    return float(100 * ((y - x).abs() / x).max())


# %% jupyter={"source_hidden": true}
Predict(
    "x lies between two neighboring powers of two and goes to the nearer one. By how many percent of x can it be off?",
    answer=lambda: largest_error(qviz.pot(4)),
    unit="%",
    within=2,
    why="In the middle, such as at 0.75 between 0.5 and 1: 0.25 / 0.75 = 1/3. It is the same part at each bit width.",
)

# %% jupyter={"source_hidden": true}
Predict(
    "And between two neighboring powers of √2?",
    answer=lambda: largest_error(qviz.post(4)),
    unit="%",
    within=2,
    why="In the middle of 1 and ρ it is (ρ − 1) / (ρ + 1): 0.414 / 2.414. Half as large, so about 6 dB less error.",
)

# %% [markdown]
# Now move **Bits** yourself, from 4 to 6, and watch where the new levels go. In units of the clip always to the same
# place: between zero and the smallest level so far, never into the wide gaps near the clip. Look at the column **clip**,
# too: each grid gets the clip with the least error, and with the fifth bit that of POST moves outward.

# %%
explorer = GridExplorer(tensor="expand (real)", show=["bits", "grid_a", "grid_b"])
explorer

# %% [markdown]
# The numbers behind it, with the paper's larger grids:

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
print("SQNR in dB (levels)")
print("bits         " + "".join(f"{bits:>14}" for bits in range(2, 7)))
grids = {
    "POT": lambda b: qviz.pot(b),
    "POT, paper": lambda b: qviz.pot(b, grid="paper"),
    "POST": lambda b: qviz.post(b),
    "POST, paper": lambda b: qviz.post(b, grid="paper"),
    "uniform": lambda b: qviz.uniform(b, narrow=True),
}
for name, build in grids.items():
    rows = [qviz.compare(weights, {name: build(bits)})[name] for bits in range(2, 7)]
    print(f"{name:13}" + "".join(f"{row.sqnr_db:9.2f} ({row.levels:2})" for row in rows))

# %% [markdown]
# Explain it to yourself before you read on. Between two neighboring powers of ρ the largest error is a fixed *part* of
# the value, whatever the bit width. So the large weights have large errors, and no further bit is spent on them. √2
# makes that part smaller, once: from about 14 dB to about 20 dB. POST needs the fifth bit to get there: only with the new
# small levels can it afford a clip that cuts off nothing. Then it stands still as POT did.
#
# **An honest limit.** At 3 bits POST is *behind*: 11.1 dB against 12.8 dB of POT and 12.7 dB of the uniform grid. Its
# three magnitudes 1, 0.71 and 0.5 leave a wide gap on both sides of zero, where most weights are. With the nine levels
# of the paper's grid POT is still ahead on this layer. At 2 bits both grids are the same three levels. Training may
# change the order; these are rounding errors without training.
#
# If √2 helps at 4 bits, would a base still nearer to 1 help with more?


# %%
def powers(root, bits):
    """The strict grid of b bits with the base 2^(1/root)."""
    magnitudes = [2 ** (-j / root) for j in range(2 ** (bits - 1) - 1)]
    return qviz.Codebook([-m for m in magnitudes] + [0.0] + magnitudes[::-1])


def sqnr(root, bits):
    """The SQNR of that grid on the weights, in dB."""
    return qviz.compare(weights, {"grid": powers(root, bits)})["grid"].sqnr_db


# %% jupyter={"source_hidden": true}
Predict(
    "The base is the cube root of 2. At 4 and at 5 bits: is it ahead of √2?",
    options=["at both", "only at 4 bits", "only at 5 bits", "at neither"],
    answer=lambda: ("at neither", "only at 4 bits", "only at 5 bits", "at both")[
        (sqnr(3, 4) > sqnr(2, 4)) + 2 * (sqnr(3, 5) > sqnr(2, 5))
    ],
    why="Dense levels need many codes to reach down to the small weights. At 4 bits the gap around zero is too wide.",
)

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
print("SQNR in dB" + "".join(f"{bits:3} bits" for bits in range(3, 7)))
for root in (1, 2, 3, 4, 6):
    print(f"ρ = 2^(1/{root})" + "".join(f"{sqnr(root, bits):8.2f}" for bits in range(3, 7)))

# %% [markdown]
# Of these five bases each bit width has a best one of its own: 2 at 3 bits, √2 at 4, 2^(1/3) at 5, 2^(1/6) at 6. But √2
# costs only one extra factor; 2^(1/3) needs two, 2^(1/6) five.

# %% [markdown]
# ## The clip is learned
#
# `post_weight` gives every output channel a clip α of its own, which training moves. With u = w / α the released code
# has
#
# $$\frac{\partial y}{\partial \alpha} = \begin{cases} \mathrm{level}(u) - u & |u| \le 1\\ \mathrm{sign}(u) & |u| > 1
# \end{cases}$$
#
# times 1/√N, N the number of weights in the channel: the rule by which [LSQ](glossary.md#lsq) learns its step
# ([lesson 04](04-adaptive-steps.ipynb)), with the clip in place of the step. Let the package compute it.

# %%
# NBVAL_CHECK_OUTPUT
q = post_weight(4, alpha=1.0)
print("     w   level   dy/dα")
for w in (-2.0, -0.6, 0.05, 0.3, 0.43, 1.3):
    y = q(torch.tensor([w]))  # one weight: N = 1
    (slope,) = torch.autograd.grad(y.sum(), q.range.clip)
    print(f"{w:6.2f}  {y.item():6.4f}  {slope.item():6.3f}")

# %% [markdown]
# A weight of 1.3 is cut off: its output *is* α, so it moves with α at the slope 1. Inside, the slope is the rounding
# error in units of α: small, and of either sign. A clip for every channel also fits better than one for all:

# %%
# NBVAL_CHECK_OUTPUT
for name, recipe in (("POT", pot_weight), ("POST", post_weight)):
    one = recipe(4).observe(weights)
    many = recipe(4, channels=len(weights)).observe(weights)
    db = [qviz.metrics.sqnr_db(weights, quantizer(weights)) for quantizer in (one, many)]
    print(f"{name:5} one clip {db[0]:.2f} dB, a clip per channel {db[1]:.2f} dB")

# %% [markdown]
# ## Nearest level, or nearest exponent?
#
# POST sends a weight to the *nearest level*. RepQ-ViT ([Li et al., ICCV 2023](https://arxiv.org/abs/2212.08254)) had used
# powers of √2 before, for the outputs of a softmax, and rounds the *exponent* (its class `LogSqrt2Quantizer`):
#
# $$k = \mathrm{round}(-2\log_2(x/\Delta)), \qquad \hat x = \Delta\, 2^{-\lceil k/2\rceil}\cdot
# \begin{cases}\sqrt 2 & k \text{ odd}\\ 1 & k \text{ even}\end{cases}$$
#
# which is Δ·2^(−k/2), written with one shift and one factor. Both have the same levels. They differ in the
# [border](glossary.md#border) between two levels: the arithmetic mean or the geometric mean.

# %% jupyter={"source_hidden": true}
Predict(
    "Two neighboring levels are 1 and 0.7071. Below which x does the rounding of the exponent go down?",
    answer=lambda: float(CellBorder.logarithmic(qviz.post(4)).border[-1]),
    within=0.003,
    why="The geometric mean, √(1 · 0.7071) = 2^(−1/4) = 0.8409. The nearest level changes at 0.8536, the mean of both.",
)

# %% [markdown]
# What does it cost in squared error? In this package log rounding is the same grid with other borders,
# `CellBorder.logarithmic`. The tensors are activations after a ReLU, so the grids are unsigned.

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
book = qviz.post(4, signed=False)
for name in ("act_stem", "act_depthwise", "act_expand"):
    x = qviz.shipped.tensor(name)
    nearest = Quantizer(book).observe(x)
    log = Quantizer(book, rounding=CellBorder.logarithmic(book)).observe(x)
    even = Quantizer(qviz.uniform(4, signed=False)).observe(x)
    db = [qviz.metrics.sqnr_db(x, quantizer(x)) for quantizer in (nearest, log, even)]
    print(f"{name:14} √2 nearest {db[0]:.2f} dB, √2 exponent {db[1]:.2f} dB, uniform {db[2]:.2f} dB")

# %% [markdown]
# Rounding the exponent costs less than 0.1 dB here, and buys hardware that needs no comparison with midpoints, only a
# rounded logarithm. Zero is another matter: it has no exponent. RepQ-ViT sends what is too small to 0 by a rule of its own;
# with "nearest level" zero is simply one of the levels.
#
# Look at the last column, too: on these activations the *uniform* grid is as good or better. √2 is for values that
# spread over many octaves, such as a softmax, and for weights that have to become shifts.

# %% [markdown]
# ## The table
#
# A POST weight is 0 or ±α·2^(−j/2), an activation its step s times a whole number, the code a. An even j = 2k is a shift
# by k. An odd j = 2k + 1 is a shift by k and one factor 1/√2, which all odd terms of a sum share:
#
# $$\sum_i w_i x_i = \alpha s \left( A_\mathrm{even} + A_\mathrm{odd} / \sqrt 2 \right), \qquad
# A_\mathrm{even} = \sum_{j_i \text{ even}} \pm\, 2^{-j_i / 2}\, a_i, \quad
# A_\mathrm{odd} = \sum_{j_i \text{ odd}} \pm\, 2^{-(j_i - 1)/2}\, a_i.$$
#
# Or one looks every product up. The README of the authors' code speaks of a [look-up table](glossary.md#look-up-table) below
# 0.002 % of the parameters. That it holds products of weight and activation codes, and its layout, is INFERRED. The size
# agrees: 128 entries are 0.0011 % of the 11.69 million parameters of ResNet-18.

# %% jupyter={"source_hidden": true}
Predict(
    "4-bit POST weights (8 magnitudes, the sign is handled apart) times unsigned 4-bit activations: how many products "
    "does one table for all layers hold?",
    answer=lambda: post_lut(4).entries,
    within=0,
    why="8 · 16 = 128. Clip and step are the same for all products of an output, so they are left out of the table.",
)

# %%
# NBVAL_CHECK_OUTPUT
lut = post_lut(4)
print("code  value   exponent j   products with the activations 0 to 5")
for m, (value, j) in enumerate(zip(lut.value.tolist(), lut.exponent.tolist(), strict=True)):
    print(
        f"{m:4}  {value:.4f}  {'–' if j < 0 else j:>10}   "
        + " ".join(f"{p:6.3f}" for p in lut.products[m, :6])
    )

# %% [markdown]
# ### A real layer by shifts and additions
#
# `project_early` is a 1 × 1 convolution of MobileNetV2 with 32 inputs and 16 outputs, and `act_depthwise` is what it
# reads. Weights become POST codes, activations 4-bit codes of a uniform grid. Then the same outputs are computed three
# times: by floating-point multiplication of the quantized numbers, from the table, and by shifts and additions.

# %%
# NBVAL_CHECK_OUTPUT
layer, x = qviz.shipped.tensor("project_early").flatten(1), qviz.shipped.tensor("act_depthwise")
qw = post_weight(4, channels=len(layer)).observe(layer)
qx = lsq(4, signed=False, start="mse").observe(x)
codes, activations = qw.codes(layer), qx.codes(x)

with torch.no_grad():
    direct = qx(x).double() @ qw(layer).double().T
alpha, step = qw.range.scale.double().numpy(), float(qx.range.scale)
looked_up = table_dot(lut, codes.long(), activations[:200].long()).numpy() * alpha * step
sums = split_accumulate(lut, codes, activations)
print("one output: even", sums.even[0, 0], " odd", sums.odd[0, 0], f" in units of 1/{2**sums.shift}")
largest = direct.abs().max().item()
print(
    "table, largest difference:",
    f"{abs(looked_up - direct[:200].numpy()).max() / largest < 1e-6}",
    "below 1e-6",
)
difference = abs(sums.value(alpha, step) - direct.numpy()).max() / largest
print("shifts, largest difference:", f"{difference < 1e-6}", "below 1e-6")

# %% [markdown]
# The two integers are exact: no rounding happens in them. The tiny difference comes from the float32 numbers of the
# direct computation. One multiplication by 1/√2 and one by α·s remain for each *output*, not for each product.
#
# Is the output any good? Compare it with the layer in floating point, when only the weights are quantized:

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
full = x @ layer.T
recipes = {
    "POT": pot_weight(4, channels=16),
    "POST": post_weight(4, channels=16),
    "uniform": lsq(4, channels=16, start="mse"),
}
for name, recipe in recipes.items():
    recipe.observe(layer)
    with torch.no_grad():
        print(f"{name:8} {qviz.metrics.sqnr_db(full, x @ recipe(layer).T):.2f} dB at the layer's output")

# %% [markdown]
# POST brings 5 dB over POT. It stays 0.9 dB behind the uniform grid, which has one level more: that is the price of doing
# without a multiplier.

# %% [markdown]
# ## At one budget
#
# A grid is not alone: its scale takes bits as well. With one 16-bit scale for each [group](glossary.md#group) of 64
# weights, 4-bit codes cost 4 + 16/64 = 4.25 bits a weight. The explorer has POST beside the formats of today's hardware:
# INT4, NF4 (levels at the quantiles of a normal distribution), FP4, MXFP4 and NVFP4 (FP4 with scales that are powers of
# two, or FP8 numbers), and FP8.


# %%
def least_error():
    """Name the 4-bit format with the least error at 4.25 bits."""
    rows = {name: row for name, row in FormatExplorer().data()["table"].items() if row["fits"]}
    return max(rows, key=lambda name: rows[name]["sqnr_db"]).split()[0]


# %% jupyter={"source_hidden": true}
Predict(
    "expand (real) at 4.25 bits a weight, groups of 64, the largest weight of a group on the outermost level: which "
    "has the least error?",
    options=["INT4", "NF4", "FP4", "POST", "APoT", "MXFP4"],
    answer=least_error,
    why="Within a group the weights are nearly normal, and NF4's levels were made for that. POST has no level between 0 "
    "and 1/8 of the largest weight, and wide gaps above one half.",
)

# %%
formats = FormatExplorer(show=["budget", "a", "b"])
formats.a.value = "POST groups"
formats

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
for budget in ("4.125 bits", "4.25 bits", "4.5 bits", "5 bits"):
    formats.budget.value = budget
    rows = {name: row for name, row in formats.data()["table"].items() if row["fits"]}
    best = max(rows, key=lambda name: rows[name]["sqnr_db"])
    post = rows["POST groups"]
    print(f"{budget:10}  best: {best:11} {rows[best]['sqnr_db']:.2f} dB   POST: {post['sqnr_db']:.2f} dB")
formats.budget.value = "4.25 bits"

# %% [markdown]
# A larger budget buys smaller groups, and they help every grid; at 5 bits, groups of 16, INT4 has caught up with NF4. Set
# **Budget** to 8 bits: which of FP8 and INT8 is ahead on these weights? (FP8's three mantissa bits give every value the
# same *relative* precision, here 31.6 dB; INT8 spends its levels evenly, which suits weights that do not spread over many
# octaves, and has 35.7 dB.) Then paste numbers of your own: `formats.reveal("numbers")` shows the box.

# %% [markdown]
# ## Exercises
#
# 1. Without the package: what are the positive levels of POST with 3 bits and the paper's grid, and how many levels are
#    there in all?
# 2. On `expand` POST is ahead of the uniform grid with as many levels, at 4 bits. The weights `depthwise_stride` are
#    flatter than a normal distribution: more of them are large. Which grid do you expect to be ahead there?
# 3. A softmax spreads its values over many octaves. Compare √2 with the uniform grid, both unsigned and 4 bits, on the
#    softmax of real scores: `torch.softmax(act_pooled @ classifier.T, 1)`, both from `qviz.shipped.tensor`. Put the
#    largest level on the largest value: `range=Fixed(float(soft.max()) / grid.hi)`. Which is ahead in squared error, and
#    how many of the values become exactly 0?
#
# The next cell has the figures for 2 and 3; its source and its output are folded in.

# %% jupyter={"source_hidden": true, "outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
for name in ("depthwise_stride", "expand"):
    table = qviz.compare(
        qviz.shipped.tensor(name), {"POST": qviz.post(4), "uniform": qviz.uniform(4, narrow=True)}
    )
    print(f"{name:16} POST {table['POST'].sqnr_db:.2f} dB, uniform {table['uniform'].sqnr_db:.2f} dB")
scores = qviz.shipped.tensor("act_pooled") @ qviz.shipped.tensor("classifier").T
soft = torch.softmax(scores, 1)
for name, grid in (("√2", qviz.post(4, signed=False)), ("uniform", qviz.uniform(4, signed=False))):
    at_top = Quantizer(grid, range=Fixed(float(soft.max()) / grid.hi))
    zero = (at_top(soft) == 0).float().mean()
    print(
        f"softmax, {name:8} {qviz.metrics.sqnr_db(soft, at_top(soft)):.2f} dB, {zero:.0%} of the values become 0"
    )

# %% [markdown]
# <details><summary>Answer 1</summary>
#
# 1, 0.7071, 0.5 and 0.3536: j = 0 … 3. With their negatives and 0 these are nine levels, one more than 3 bits can name.
#
# </details>
#
# <details><summary>Answer 2</summary>
#
# The uniform grid, by 0.7 dB: large values are where POST's gaps are widest. The cell above has the figures.
#
# </details>
#
# <details><summary>Answer 3</summary>
#
# √2 is ahead by 5.5 dB. The uniform grid sends every value below half of its first step to 0, 88 % of them; √2 keeps its
# relative precision down to 2^(−7) and sends 68 % to 0. Squared error alone does not decide what is better for a network.
#
# </details>

# %% [markdown]
# ## What to read next
#
# [Steps that adapt to the input](04-adaptive-steps.ipynb): the other half of the paper, for activations. To train a
# network with both: [training/cifar10-asq-post](training/cifar10-asq-post.ipynb). The terms are in the
# [glossary](glossary.md).
