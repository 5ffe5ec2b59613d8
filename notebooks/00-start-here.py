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
# # Start here: what a grid is
#
# Quantizing a tensor means replacing every number in it by one of a few allowed numbers, the *levels* of a
# *grid*. A 4-bit code can name at most 16 levels. Which ones should they be? In this lesson you
#
# 1. move two grids over a million numbers and watch the error,
# 2. see what happens to one number,
# 3. find out on the weights of a trained network why powers of two (POT) waste levels near zero,
# 4. move the levels by hand, and see what powers of √2 (POST) repair and what they do not.
#
# About 15 minutes. Run a cell with Shift+Enter.

# %%
import qviz
from qviz.plot import panels
from qviz.widgets import GridExplorer

explorer = GridExplorer()
explorer

# %% [markdown]
# Above: one million samples of a normal distribution, two 4-bit grids. The coloured ticks are the levels. The
# staircase shows where each x is sent; the shaded area between it and the line y = x is the error. The table has
# the mean squared error (**MSE**), the same as a signal-to-noise ratio (**SQNR**, higher is better) and the
# **entropy**, the number of bits that an ideal coder would need for each code.
#
# Click the slider **Bits** and press the arrow keys. Before you go from 4 to 5: how much will the MSE of POT
# fall? Then go on to 8. Move **Clip**: it decides where the outermost level goes, for both grids. **Undo** takes
# a move back, **Hold axes** keeps the scales of all pictures, and **In words** tells what the pictures show.

# %% [markdown]
# ## One number
#
# Every quantizer in this package does the same four things to a number x. The *range* divides it by a scale s:
# u = x / s. The *codebook* finds the cell, the gap between two neighboring knots in which u lies, and the place
# t in it, from 0 to 1. The *rounding* decides up or down. The level at that end, times s, is the result.

# %%
# NBVAL_CHECK_OUTPUT
import torch

post4 = qviz.Quantizer(qviz.post(4), range=qviz.Fixed(1.0))
p = qviz.probe(post4, torch.tensor([0.43, 0.42, -2.0]))
for x, t, up, y, slope in zip(p.x, p.t, p.up, p.y, p.dydx, strict=True):
    print(f"x = {x:5.2f}   t = {t:.3f}   up: {bool(up)!s:5}   y = {y:7.4f}   dy/dx = {slope:.0f}")

# %% [markdown]
# 0.43 lies between the levels 0.3536 and 0.5, just past the middle, so it goes up; 0.42 goes down. -2 lies
# outside the grid and is *clipped* to -1. The last column is what training uses in place of the derivative of a
# staircase: 1 inside the grid and 0 outside, the *straight-through estimator*
# ([Bengio et al. 2013](https://arxiv.org/abs/1308.3432)).

# %% [markdown]
# ## Grids are lists of numbers

# %%
# NBVAL_CHECK_OUTPUT
for book in (qviz.uniform(3), qviz.pot(3), qviz.post(3), qviz.apot(3)):
    print(f"{book.name:8}", len(book), "levels:", [round(v, 4) for v in book.levels.tolist()])

# %% [markdown]
# - **uniform**: equal steps. Multiplying by a code is an integer multiplication.
# - **POT**: powers of two. Multiplying by one is a shift, which is why hardware likes them.
# - **POST**: powers of √2 ([Zhou et al. 2025](https://arxiv.org/abs/2504.17263)). Every second one is a power of
#   two; the others share a single factor √2.
# - **APoT**: sums of two powers of two ([Li et al. 2020](https://arxiv.org/abs/1909.13144)).
#
# Three bits can name eight levels; the symmetric grids use seven of them. (The published POST code uses nine,
# which needs a fourth bit: `qviz.post(3, grid="paper")`. Always ask for levels *and* bits.)

# %% [markdown]
# ## Real weights
#
# These are the 55,296 weights of a layer of MobileNetV2, trained on ImageNet: the 1 × 1 convolution that expands
# 96 channels to 576.

# %%
weights = qviz.shipped.tensor("expand")
panels.levels(weights, {"uniform": qviz.uniform(4), "POT": qviz.pot(4), "POST": qviz.post(4)})

# %%
# NBVAL_CHECK_OUTPUT
table = qviz.compare(weights, bits=4)
for row in table.rows:
    print(
        f"{row.method:9} {row.levels:3} levels {row.bits} bits   SQNR {row.sqnr_db:5.2f} dB   entropy {row.entropy:.2f}"
    )

# %% [markdown]
# Each grid was stretched to the clip that suits it best. POT is more than 4 dB behind the rest at the same number
# of bits. Where does its error come from? Guess from the picture above, then run the next two cells (their saved
# outputs are folded in). The first draws one step for each level: from where to where x is sent to it, and as height
# what these x add to the MSE.

# %% jupyter={"outputs_hidden": true}
panels.contribution(weights, {"POT": qviz.pot(4), "POST": qviz.post(4)})

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
data, strip = qviz.Summary(weights), 0.034
for book in (qviz.pot(4), qviz.post(4)):
    q = qviz.Quantizer(book).observe(weights)
    stats = data.cells(book.levels, book.borders, q.range.scale)
    inner = (book.levels * q.range.scale).abs() <= strip
    print(
        f"{book.name:5} levels within {strip} of zero: {int(inner.sum()):2} of {len(book)},"
        f" they serve {stats.count[inner].sum() / stats.count.sum():.0%} of the weights"
        f" and make {stats.sse[inner].sum() / stats.sse.sum():.0%} of the error"
    )

# %% [markdown]
# That is the waste. Nine of POT's fifteen levels crowd into a strip of an eighth of its clip, where a fifth of its error
# arises; the six others have to serve everything beyond, and make four fifths of it. POST has five levels in that strip.
#
# More bits do not help, because each new POT level goes between zero and the smallest level so far:

# %%
# NBVAL_CHECK_OUTPUT
print("SQNR (dB) on the same weights")
print("bits     " + "".join(f"{bits:8}" for bits in range(2, 9)))
grids = {"uniform": qviz.uniform, "POT": qviz.pot, "POST": qviz.post, "APoT": qviz.apot}
for name, build in grids.items():
    rows = [qviz.compare(weights, {name: build(bits)})[name] for bits in range(2, 9)]
    print(f"{name:9}" + "".join(f"{row.sqnr_db:8.2f}" for row in rows))

# %% [markdown]
# Read the table row by row.
#
# - **POT stands still** from 4 bits on.
# - **POST** is 4 dB ahead of POT at 4 bits. At 3 bits it is *behind*: its three magnitudes 1, 0.71, 0.5 leave a wide
#   gap around zero. At 2 bits both are the same three levels. From 5 bits on it gains next to nothing: near the clip
#   its levels stay a factor √2 apart, and no further bit is spent there.
# - **uniform** gains 4.4 to 5.3 dB with every bit. Half the step at the same clip would be 6 dB, but a finer grid
#   also does well to move its clip outward.
#
# √2 repairs the gaps between large levels once. It does not make a geometric grid a fine one.

# %% [markdown]
# ## By hand
#
# Now you. Grid A is a copy of POT that you can edit. Drag its green points outward, or choose one with **Level** and
# type into **Value**; with **Mirror signs** the opposite level follows. Get the MSE in row A as low as you can. Row B
# is Lloyd's grid: 16 levels, each the mean of the weights that it serves. **Reset to POT** starts again.

# %%
by_hand = GridExplorer(weights, tensor="your tensor")
by_hand.grid_b.value = "Lloyd"
by_hand.mirror.value = True
by_hand.grid_a.value = "custom"
by_hand

# %% [markdown]
# The controls are also there for code. This moves the two innermost pairs of POT's levels into its two widest
# gaps: between half the clip and the clip, and between a quarter and a half.

# %%
# NBVAL_CHECK_OUTPUT
clip = by_hand.quantizers()["A: custom"].codebook.hi


def set_magnitudes(explorer, parts):
    """Set the positive levels, as parts of the clip, from the outside in; their mirror images follow."""
    for i, part in enumerate(sorted(parts, reverse=True)):
        explorer.level.value = explorer.level.max - i
        explorer.value.value = part * clip


def report(explorer, what):
    """Print the custom grid's row of the table."""
    row = explorer.data()["table"]["A: custom"]
    print(f"{what:34} {row['levels']} levels   SQNR {row['sqnr_db']:.2f} dB")


report(by_hand, "POT")
set_magnitudes(by_hand, [1, 0.75, 0.5, 0.375, 0.25, 0.125, 0.0625])
report(by_hand, "two pairs moved into the wide gaps")
by_hand.reset.click()
report(by_hand, "after Reset")
best = by_hand.data()["table"]["B: Lloyd"]
print(f"{'Lloyd':34} {best['levels']} levels   SQNR {best['sqnr_db']:.2f} dB")

# %% [markdown]
# ## Questions
#
# 1. In the first explorer choose the tensor "with outliers" and compare the range rules "min–max" and "MSE search"
#    for the uniform grid. Which values does the better rule give up?
# 2. Choose "depthwise_early (real)" and tick **Per channel**. Why does that help this layer so much more than
#    "expand (real)"?
# 3. Choose "act_expand (real)": activations after a ReLU, none negative. So every grid leaves out its negative side.
#    How many of the fifteen levels of the symmetric POT would serve no value there? What is won in SQNR by the levels
#    that take their place?
# 4. Bring your own: `GridExplorer(my_array, {"mine": qviz.Codebook([-1, -0.4, 0, 0.4, 1])})`.
#
# The next cell has the figures for 2 and 3; its saved output is folded in.

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
early = qviz.shipped.tensor("depthwise_early")
for name, tensor in (("depthwise_early", early), ("expand", weights)):
    whole = qviz.compare(tensor, ["uniform"])["uniform"].sqnr_db
    split = qviz.compare(tensor, ["uniform"], range=qviz.MSE(axis=0))["uniform"].sqnr_db
    print(f"{name:16} uniform, 4 bits: {whole:5.2f} dB per tensor, {split:5.2f} dB per channel")
positive = qviz.shipped.tensor("act_expand")
symmetric = qviz.Quantizer(qviz.pot(4)).observe(positive)
unused = qviz.metrics.dead_levels(qviz.metrics.occupancy(symmetric, positive))
both = [qviz.compare(positive, {"POT": symmetric})["POT"], qviz.compare(positive, ["POT"])["POT"]]
print(f"act_expand: {unused} of {len(symmetric.codebook)} levels unused;", end=" ")
print("POT with a negative side {:.2f} dB, without {:.2f} dB".format(*(row.sqnr_db for row in both)))
