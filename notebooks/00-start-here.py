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
# Quantizing a tensor means replacing every number in it by one of a few allowed numbers, the
# [*levels*](glossary.md#level) of a [*grid*](glossary.md#grid). A 4-bit [code](glossary.md#code) can name at most
# 16 levels. Which ones should they be? After this lesson you can
#
# 1. say what happens to one number, from x to its level and back in the gradient,
# 2. read the error of a grid off a picture, and name the part of the values that it comes from,
# 3. explain on the weights of a trained network why powers of two (POT) waste levels near zero, and what powers
#    of √2 (POST) repair and what they do not,
# 4. place levels by hand, and say what one single bit can do.
#
# About 25 minutes. Run a cell with Shift+Enter. Where it says **Predict**, type or click an answer before you go
# on; nothing is graded, and the answer says how far off you were. The cells that ask are folded in, because the
# answers stand in them; run them like all others. Words with a link are in the [glossary](glossary.md).

# %%
import qviz
from qviz.explore import tensors
from qviz.plot import panels
from qviz.widgets import GridExplorer, Predict

explorer = GridExplorer()
explorer

# %% [markdown]
# Above: one million samples of a normal distribution, two 4-bit grids. The colored ticks are the levels. The
# staircase shows where each x is sent; the shaded area between it and the line y = x is the error. The table has
# the mean squared error ([**MSE**](glossary.md#mse)), the same as a signal-to-noise ratio
# ([**SQNR**](glossary.md#sqnr), higher is better; 6 dB more is half the error, which is a quarter of its square) and the
# [**entropy**](glossary.md#entropy), the number of bits that an ideal coder would need for each code.

# %%
normal = tensors.sources()["Gaussian, 1e6 values"].make()


def pot_gain():
    """By how many percent the MSE of POT falls from 4 to 5 bits."""
    four, five = (qviz.compare(normal, {"POT": qviz.pot(bits)})["POT"].mse for bits in (4, 5))
    return 100 * (1 - five / four)


# %% jupyter={"source_hidden": true}
Predict(
    "From 4 to 5 bits, POT gets 31 levels instead of 15. By how many percent will its MSE fall?",
    pot_gain,
    unit="%",
    within=5,
    why="Each new level goes between zero and the smallest level so far, where next to no error was left.",
)

# %% [markdown]
# Now see for yourself: click the slider **Bits** and press the arrow keys, up to 8. Move **Clip**: it decides where
# the outermost level goes, for both grids. **Undo** takes a move back, **Keep** leaves the present curves behind in
# gray, and **In words** tells what the pictures show.

# %% [markdown]
# ## One number
#
# Every quantizer in this package does the same four things to a number x. The [*range*](glossary.md#range) divides
# it by a [scale](glossary.md#scale) s: u = x / s. The [*codebook*](glossary.md#codebook) finds the
# [cell](glossary.md#cell), the gap between two neighboring [knots](glossary.md#knot) in which u lies, and the place t in
# it, from 0 to 1. (In all grids of this lesson the knots are the levels.) The [*rounding*](glossary.md#rounding) decides
# up or down. The level at that end, times s, is the result y:
#
# $$u = x / s, \qquad t = \frac{u - \text{knot}_k}{\text{knot}_{k+1} - \text{knot}_k}, \qquad
# y = s \cdot \text{level}_{k + [t > 1/2]}$$
#
# where [t > ½] is 1 if t > ½ and 0 if not.
# `qviz.probe` carries a number through and shows every step.

# %%
# NBVAL_CHECK_OUTPUT
import torch

post4 = qviz.Quantizer(qviz.post(4), range=qviz.Fixed(1.0))
p = qviz.probe(post4, torch.tensor([0.43, 0.42, -2.0]))
for x, t, up, y, slope in zip(p.x, p.t, p.up, p.y, p.dydx, strict=True):
    print(f"x = {x:5.2f}   t = {t:.3f}   up: {bool(up)!s:5}   y = {y:7.4f}   dy/dx = {slope:.0f}")

# %% [markdown]
# 0.43 lies between the levels 0.3536 and 0.5, just past the middle, so it goes up; 0.42 goes down. -2 lies
# outside the grid and is [*clipped*](glossary.md#clip) to -1. The last column is what training uses in place of the
# derivative of a staircase: 1 inside the grid and 0 outside, the
# [*straight-through estimator*](glossary.md#straight-through-estimator)
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
# - **APoT**: sums of two powers of two ([Li et al. 2020](https://arxiv.org/abs/1909.13144)). At 3 bits they are still
#   POT's levels; from 4 bits on they are not.
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
# of bits. Where does its error come from?

# %%
near, strip = qviz.Summary(weights), 0.034


def inside(book):
    """Levels within the strip, and their share of the weights and of the squared error."""
    q = qviz.Quantizer(book).observe(weights)
    cells = near.cells(book.levels, book.borders, q.range.scale)
    inner = (book.levels * q.range.scale).abs() <= strip
    return int(inner.sum()), *(float(n[inner].sum() / n.sum()) for n in (cells.count, cells.sse))


# %% jupyter={"source_hidden": true}
Predict(
    "Two thirds of the weights are rounded to one of POT's nine levels within 0.034 of zero, an eighth of its clip. "
    "Which part of its squared error do these weights make?",
    lambda: 100 * inside(qviz.pot(4))[2],
    unit="%",
    within=10,
    why="Where levels are dense the error is small: four fifths of it come from the few, far levels.",
)

# %% [markdown]
# Run the next two cells (their saved outputs are folded in). The first draws one step for each level: from where to
# where x is sent to it, and as height what these x add to the MSE. The second looks at the *same* strip, ±0.034, for
# three grids: like with like.

# %% jupyter={"outputs_hidden": true}
panels.contribution(weights, {"POT": qviz.pot(4), "POST": qviz.post(4)})

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
for book in (qviz.uniform(4), qviz.pot(4), qviz.post(4)):
    levels, share, error = inside(book)
    print(
        f"{book.name:8} levels within {strip} of zero: {levels} of {len(book)},"
        f" they serve {share:.0%} of the weights and make {error:.0%} of the error"
    )

# %% [markdown]
# That is the waste. Nine of POT's fifteen levels crowd into a strip of an eighth of its clip, where a fifth of its
# error arises; the six others have to serve everything beyond, and make four fifths of it. In the same strip POST has
# five levels and the uniform grid three.

# %%
grids = {"uniform": qviz.uniform, "POT": qviz.pot, "POST": qviz.post, "APoT": qviz.apot}


def sqnr(name, bits):
    """The SQNR of a grid on the weights, in dB."""
    return qviz.compare(weights, {name: grids[name](bits)})[name].sqnr_db


# %% jupyter={"source_hidden": true}
Predict(
    "And POST? By how many dB is it better at 8 bits than at 5?",
    lambda: sqnr("POST", 8) - sqnr("POST", 5),
    unit="dB",
    within=0.5,
    why="Its new levels go next to zero as POT's do; near the clip they stay a factor of √2 apart.",
)

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
print("SQNR (dB) on the same weights")
print("bits     " + "".join(f"{bits:8}" for bits in range(2, 9)))
for name in grids:
    print(f"{name:9}" + "".join(f"{sqnr(name, bits):8.2f}" for bits in range(2, 9)))

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
# ## One bit
#
# Bits and levels are two things: b bits name up to 2^b levels. A symmetric grid with a zero has an odd number of
# levels and leaves one code unused. So all grids above but the uniform one begin at 2 bits, with three levels. With
# one bit there is no zero any more: two levels, −c and c, and nothing left to choose but c.

# %%
mean = float(weights.abs().mean())

# %% jupyter={"source_hidden": true}
Predict(
    "Which c gives one bit the least squared error on these weights?",
    "the mean of |w|",
    options=["the largest |w|", "the mean of |w|", "the standard deviation of w"],
    why="Every weight goes to the level of its sign, so the error is the sum of (|w| − c)², least at the mean.",
)

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
one_bit = qviz.Quantizer(qviz.uniform(1)).observe(weights)
print(f"c found by the search: {float(one_bit.scale):.4f}   mean |w|: {mean:.4f}")
for c in (float(weights.abs().max()), mean, float(weights.std())):
    mse = ((weights.abs() - c) ** 2).mean()
    print(f"c = {c:.4f}   SQNR {10 * torch.log10((weights**2).mean() / mse):6.2f} dB")

# %% [markdown]
# That c, the mean of |w|, is the scale of XNOR-Net's binary weights
# ([Rastegari et al. 2016](https://arxiv.org/abs/1603.05279), section 3.1). The clip of a grid is not the largest
# value: with few levels it lies far inside.

# %% [markdown]
# ## By hand
#
# Now you. Grid A is a copy of POT that you can edit. Drag its green triangles outward, or choose one with **Level** and
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
# ## What this lesson does not show
#
# The MSE of the weights is not the accuracy of the network. POST is behind the uniform grid at every width of the
# table but 4 bits, where both are level, and yet it is proposed because a factor √2 is cheap in hardware and networks
# trained with it do well ([Zhou et al. 2025](https://arxiv.org/abs/2504.17263)). Whether that holds is a question for
# training, not for a histogram.

# %% [markdown]
# ## Exercises
#
# 1. In the first explorer set **Tensor** to "with outliers" and **Grid A** to "uniform". Under **Range** compare
#    "min–max" with "MSE search". Which values does the better rule give up, and what is won?
#
# <details><summary>Answer</summary>
#
# The largest ones. One value in 200 is eight times as large as the others. With min–max the levels go from −32.7 to
# 28.6, and the grid is so coarse that the SQNR is 1.9 dB. With the search they go from −7.2 to 6.3 and 0.2 % of the values
# are clipped: 9.6 dB. (The table's *clip* is the larger end.)
#
# </details>
#
# 2. Stay with the uniform grid and "MSE search". Choose "depthwise_early (real)" and tick **Per channel**. Why does that
#    help this layer so much more than "expand (real)"?
#
# <details><summary>Answer</summary>
#
# Its channels differ more: the widest reaches 741 times as far as the narrowest, in "expand" 32 times. One step for
# all rounds the narrow channels to zero. With a step for each channel the uniform grid gains 7.3 dB there and 1.7 dB here.
#
# </details>
#
# 3. Choose "act_expand (real)": activations after a ReLU, none negative. So every grid leaves out its negative side.
#    How many of the fifteen levels of the symmetric POT would serve no value there? What is won in SQNR by the levels
#    that take their place?
#
# <details><summary>Answer</summary>
#
# Seven, all negative ones. And next to nothing is won, 0.01 dB: the seven new levels of POT go between zero and its
# smallest level, as new levels of POT always do.
#
# </details>
#
# 4. Bring your own: `GridExplorer(my_array, {"mine": qviz.Codebook([-1, -0.4, 0, 0.4, 1])})`.
#
# The next cell computes the figures of the answers; its source and its saved output are folded in.

# %% jupyter={"source_hidden": true, "outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
outliers = tensors.sources()["with outliers"].make()
for rule in (qviz.MinMax(), qviz.MSE()):
    q = qviz.Quantizer(qviz.uniform(4), range=rule).observe(outliers)
    low, high, db = (
        q.scale * q.codebook.lo,
        q.scale * q.codebook.hi,
        qviz.compare(outliers, {"q": q})["q"].sqnr_db,
    )
    lost = ((outliers < low) | (outliers > high)).float().mean()
    print(f"with outliers, {type(rule).__name__:6}: {low:.1f} to {high:.1f}, {lost:.1%} beyond, {db:.1f} dB")
early = qviz.shipped.tensor("depthwise_early")
for name, tensor in (("depthwise_early", early), ("expand", weights)):
    whole = qviz.compare(tensor, ["uniform"])["uniform"].sqnr_db
    split = qviz.compare(tensor, ["uniform"], range=qviz.MSE(axis=0))["uniform"].sqnr_db
    reach = tensor.flatten(1).abs().amax(1)
    print(
        f"{name:16} widest channel / narrowest: {reach.max() / reach.min():.0f};"
        f" uniform, 4 bits: {whole:5.2f} dB per tensor, {split:5.2f} dB per channel"
    )
positive = qviz.shipped.tensor("act_expand")
symmetric = qviz.Quantizer(qviz.pot(4)).observe(positive)
unused = qviz.metrics.dead_levels(qviz.metrics.occupancy(symmetric, positive))
both = [qviz.compare(positive, {"POT": symmetric})["POT"], qviz.compare(positive, ["POT"])["POT"]]
print(f"act_expand: {unused} of {len(symmetric.codebook)} levels unused;", end=" ")
print("POT with a negative side {:.2f} dB, without {:.2f} dB".format(*(row.sqnr_db for row in both)))

# %% [markdown]
# ## Read next
#
# [Lesson 01](01-straight-through.ipynb): uniform grids and the straight-through estimator. Powers of two and of √2 have
# [a lesson of their own](03-powers.ipynb), and levels that follow the weights [another](05-codebooks.ipynb).
