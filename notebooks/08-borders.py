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
# # Rounding is a choice: borders
#
# Every lesson so far rounded to the nearest level. For a product that is not always the best choice, because the weight
# it is multiplied with was rounded too. **AQuant** moves the [border](glossary.md#border) between rounding down and
# rounding up. After this lesson you can
#
# 1. say which integer serves a product best, and where the border belongs,
# 2. split the error of a layer into three terms, and say whose it is,
# 3. judge a learned border by a control, a learned bias, and by the room that an oracle finds.
#
# About 40 minutes. You need lesson 00. Run a cell with Shift+Enter.
#
# Of the paper, [Li et al. 2022](https://arxiv.org/abs/2208.11945), only three abstracts could be obtained: that the
# border is a function of the activation, coarse, and learned, is theirs. Its form and what follows from it are this
# project's: **inferred**, or **derived** by algebra, and marked so.

# %% [markdown]
# ## One product
#
# A weight w and an activation u meet in a product. In units of their [steps](glossary.md#step), the weight is stored as
# an integer w' and the activation as an integer x'. What comes out is w'x' where wu was wanted.

# %%
from qviz.explore import BorderModel
from qviz.explore.border_data import BIAS, BOTH, FORMULA, HALF, LEARNED, ORACLE
from qviz.widgets import BorderExplorer, Predict

model = BorderModel()

# %% jupyter={"source_hidden": true}
Predict(
    "w = 0.7 and u = 1.6 are both rounded to the nearest integer. What is the error w'x' − wu?",
    answer=lambda: model.product(model.restored({"weight": 0.7, "activation": 1.6})).error,
    unit="steps",
    within=0.01,
    why="w' = 1 and x' = 2, so 2 instead of 1.12: the two errors push in one direction.",
)

# %% jupyter={"source_hidden": true}
Predict(
    "The weight stays at w' = 1. Which integer x' gives the least error?",
    options=["0", "1", "2", "3"],
    answer="1",
    why="1 · 1 = 1 misses 1.12 by 0.12 only. The weight was rounded up, so the activation had better go down.",
)

# %% [markdown]
# The map below has the error |w'x' − wu| of every product: dark is good. Drag the red triangle, or type into **Weight w**
# and **Input u**; the lines under the table have the arithmetic. The gray lines are the
# [thresholds](glossary.md#threshold): an activation above one goes up. (The other pictures come later.)

# %%
explorer = BorderExplorer(show=("weight", "activation"))
explorer.compare.value = False
explorer

# %% [markdown]
# ## Where the border belongs
#
# Let u lie in the [cell](glossary.md#cell) from n to n + 1. The best integer is the one nearest to (w / w') u, so that
# u should go up where its fraction u − n exceeds
#
# $$B(n) = \frac{w'}{w}\left(n + \tfrac12\right) - n$$
#
# and not ½. This is **derived** for this project; it reproduces what the abstract of AQuant (version 2) claims: a border
# function gives *the minimal error of multiplying two numbers* and *removes the bias of its expected value*. The
# functions are `optimal_border` and `expected_bias` of `qviz.methods.aquant_border`.

# %%
# NBVAL_CHECK_OUTPUT
from qviz.methods.aquant_border import expected_bias, optimal_border

cells = range(3)
border = optimal_border(0.9, 1.0, cells)
print("w = 0.9, w' = 1          cell 0   cell 1   cell 2")
print("border B(n)           ", *(f"{v:8.3f}" for v in border.tolist()))
print("mean error, B = 1/2   ", *(f"{v:8.3f}" for v in expected_bias(0.9, 1.0, cells).tolist()))
print(
    "mean error, B(n)      ", *(f"{v:8.3f}" for v in expected_bias(0.9, 1.0, cells, border=border).tolist())
)

# %% [markdown]
# The bias of rounding to nearest grows with the activation; the border takes most of it away. Beyond [0, 1] a border
# can do no more: the best integer is then neither floor nor ceiling.

# %%
import numpy as np

from qviz.plot.scene import Heat


def mean_error(**how):
    """The mean over the map: every weight and every activation once."""
    panel = model.scene(model.restored(how)).panels[0]
    return next(mark for mark in panel.marks if isinstance(mark, Heat)).values.mean()


# %% jupyter={"source_hidden": true}
Predict(
    "Each weight gets its own best border. By how many percent does the mean error over the map fall (3 bits)?",
    answer=lambda: 100 * (1 - mean_error(bits=3, border=FORMULA) / mean_error(bits=3)),
    unit="%",
    within=5.0,
    why="The rest is the weights' own error, which no rounding of the activation can reach.",
)

# %% [markdown]
# Now more controls. Set **Bits** to 3 and **Border** to "formula". The thresholds bend with the weight, and the map
# gets darker.

# %%
best = BorderExplorer(show=("weight", "activation", "bits", "border"))
best.compare.value = False
best.bits.value = 3
best.border.value = "formula"
best

# %% [markdown]
# ## A real layer: one activation, many weights
#
# In a convolution an activation is rounded once, and multiplied with the weights of all output channels and places.
# They cannot each have their border. The best that input channel c can do is to follow the average
#
# $$\rho_c = \frac{\langle w'_c, w_c\rangle}{\langle w'_c, w'_c\rangle}, \qquad B_c(n) = \frac{n + \tfrac12}{\rho_c} - n$$
#
# (**derived**; ⟨ , ⟩ sums products over output channels and places; that "coarse-grained" in version 3 of the abstract
# means one border for a channel is **inferred**). The library has
# `ratio` and `coarse_border`. We take `layer2.1.conv2`, with 32 input channels, of the shipped ResNet-20 with
# 2-bit weights and activations, everything rounded to nearest ([post-training
# quantization](glossary.md#post-training-quantization)). Its input comes from test images, and from layers that are
# quantized too.

# %%
# NBVAL_CHECK_OUTPUT
layer = model.layers["nearest", 2]
least, median, largest = layer.rho.clamp(min=0).sort().values[[0, 16, -1]].tolist()
print(f"ρ of the 32 channels: least {least:.2f}, median {median:.2f}, largest {largest:.2f}")
print(f"mean activation, quantized network / floating point: {layer.x.mean() / layer.u.mean():.2f}")
print(f"activations that are exactly 0: {(layer.x == 0).double().mean():.0%}")

# %% jupyter={"source_hidden": true}
Predict(
    "By how many percent does the formula lower the error of the layer's output? (Negative: it raises it.)",
    answer=lambda: 100 * (1 - layer.known[FORMULA] / layer.known[HALF]),
    unit="%",
    within=1.0,
    why="The formula mends what the layer's own weights did. The next table says how much of the error that is.",
)

# %% [markdown]
# ## Whose error is it?
#
# With ũ the layer's input in the quantized network, x' the same after rounding, and u the input in floating point:
#
# $$w'x' - wu = \underbrace{(w' - w)\,x'}_{\text{weights}} + \underbrace{w\,(x' - ũ)}_{\text{activations}} + \underbrace{w\,(ũ - u)}_{\text{from before}}$$
#
# These are the three kinds of error that the abstract (version 1) names; the split is **derived**, as
# `error_decomposition`. The mean squares, in percent of the whole with borders at ½ (terms can
# cancel, so they need not add up to the whole):

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
from dataclasses import astuple


def whose(network, ways, bits=2):
    """Print the terms of the error by way of rounding."""
    one = model.layers[network, bits]
    unit = one.judged(one.rounding(HALF))[1].total / 100
    print(f"{network:14} weights   activations   from before   the whole")
    for way in ways:
        terms = [part / unit for part in astuple(one.judged(one.rounding(way))[1])]
        print(f"{way:12} {terms[0]:9.1f} {terms[1]:13.1f} {terms[2]:13.1f} {terms[3]:11.1f}")


whose("nearest", (HALF, FORMULA))

# %% [markdown]
# Nearly everything comes from before: layers further up have shrunk the activations. Against that the weights' term is
# small, and mending it changes nothing that one could see.
#
# ## A border that is learned
#
# So let the border learn from what the layer's *output* should be, whatever spoiled it. AQuant learns it; the form here
# (**inferred**) is a curve with three numbers for each channel,
#
# $$B(v) = \sigma(b_0 + b_1 v + b_2 v^2), \qquad v = u / u_{\max}$$
#
# with the sigmoid σ(z) = 1 / (1 + e⁻ᶻ), which keeps it between 0 and 1. `AdaptiveBorder` computes it. It was
# learned by 300 steps on 128 training images. Below, **Border** is at "learned"; step through the channels.

# %%
learned = BorderExplorer(show=("border", "channel"))
learned.compare.value = False
learned.border.value = "learned"
learned

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
whose("nearest", (HALF, LEARNED))
cuts = layer.rounding(LEARNED).freeze(layer.layer(layer.rounding(HALF)).input_quantizer.codebook).border
print(
    "thresholds, mean over the channels:",
    *(f"{v:.2f}" for v in cuts.mean(1).tolist()),
    "instead of 0.50 1.50 2.50",
)

# %% [markdown]
# Look what it did. The term of the activations *grew*, and the whole fell: the border rounds up where rounding to
# nearest would go down, because everything that arrives here is too small. It works against the error from before.
#
# **By hand.** Take one of the three dots on the curve, or move **B at 0**, **B middle** and **B at top**, and bend it. This is one border for all
# channels. How far below 100 % can you bring the fourth picture?

# %%
by_hand = BorderExplorer(show=("border", "low", "middle", "high"))
by_hand.compare.value = False
by_hand.border.value = "by hand"
by_hand

# %% [markdown]
# ## The control
#
# A border that rounds most things up moves the mean of what is rounded. But a *bias*, 32 numbers, one for each output
# channel, moves a mean too, and costs nothing at run time. Whoever says that borders help must say what they are worth
# beyond that. So the same learning, on the same images, with borders at ½ and biases instead:

# %% jupyter={"source_hidden": true}
Predict(
    "In this network at 2 bits: which has the lower error on held-out images?",
    options=["the learned border", "rounding at one half, with learned biases"],
    answer=lambda: (
        "the learned border"
        if layer.known[LEARNED] < layer.known[BIAS]
        else "rounding at one half, with learned biases"
    ),
    why="At two bits in this network most of what the border mends is a shift of the mean.",
)

# %% [markdown]
# The table has the errors of the output, on 8 test images, in percent of rounding at one half. There are two networks. In "nearest"
# nothing was learned. In "least squares" weights, steps and biases were fitted to each layer's output first (`ptq`
# with `method="closed-form"`).

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
ways = (FORMULA, LEARNED, BIAS, BOTH)
print(f"{'network':16}bits" + "".join(f"{way:>17}" for way in ways))
for (name, bits), one in model.layers.items():
    print(f"{name:16}{bits:4}" + "".join(f"{100 * one.known[way] / one.known[HALF]:17.1f}" for way in ways))

# %% [markdown]
# - In "nearest" at 2 bits the bias is the better of the two, and at 3 and 4 bits the border. Both together are better
#   than either: a border is *not only* a bias.
# - In "least squares" the biases were right before, so that learning them again changes nothing. Now at 2 bits the
#   border takes 9 % off, and the formula, which learns nothing, does nearly as well as the learned one.
# - At 4 bits next to nothing is left to be won by a border there.
#
# These eight images are few. The second column of the explorer's table has the same for 256 others, and the third for
# those that was learned from. How far apart are they at most?

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
ways = (FORMULA, LEARNED, BIAS, BOTH)
for name, other in (("256 more", "others"), ("those that was learned from", "learned_from")):
    apart = [
        100 * abs(one.known[way] / one.known[HALF] - getattr(one, other)[way] / getattr(one, other)[HALF])
        for one in model.layers.values()
        for way in ways
    ]
    print(f"8 images against {name}: {max(apart):.1f} points at most")

# %% [markdown]
# ## How much room is there?
#
# An [*oracle*](glossary.md#oracle) has the floating-point output before its eyes, and chooses floor or ceiling for every single activation
# (`qviz.nn.ptq.room.choices`). Weights and biases stay. No network can run so, as nobody has that output at run time; but
# it says how much there is to be won by *any* way of rounding to one of the two neighbors.


# %%
def gain(network, bits, way):
    """How much of the error at one half a way of rounding takes away, in percent."""
    one = model.layers[network, bits].known
    return 100 * (1 - one[way] / one[HALF])


# %% jupyter={"source_hidden": true}
Predict(
    "In 'least squares' at 2 bits the learned border takes away 9 % of the error. How much does the oracle take away?",
    answer=lambda: gain("least squares", 2, ORACLE),
    unit="%",
    within=10.0,
    why="It knows what the other activations of the same output do, and lets their errors cancel.",
)

# %% [markdown]
# The last bar of the fourth picture is the oracle's.

# %% jupyter={"outputs_hidden": true}
controlled = BorderExplorer(show=("network", "bits", "border", "channel"))
controlled.network.value = "least squares"
controlled.border.value = "learned"
controlled


# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
print(f"{'network':16}bits   taken away by: border   oracle   the border's share")
for network, bits in model.layers:
    border, most = (gain(network, bits, way) for way in (LEARNED, ORACLE))
    print(f"{network:16}{bits:4}{border:20.1f} %{most:7.1f} %{border / most:18.0%}")

# %% [markdown]
# In "least squares" the oracle takes away more than half of the error at every bit width, where a border takes 9, 5 and
# 1 %. The room is large; a function of the activation alone sees little of it. And it is not everything: in "nearest" at 2
# bits even the oracle (80.7 %) stays behind a border with biases (77.3 %), for it has no biases to learn, and at an
# activation that is exactly 0 there is nothing to choose.

# %% [markdown]
# ## The whole network
#
# A lower error of a layer is not yet a higher accuracy. The ledger of this project has whole networks, quantized with
# 1,024 training images, three times with other random draws, and tested on all 10,000 test images. **QDrop** learns the
# rounding of weights, **AQuant** here is the same with borders; each also with learned biases. What is not there was not
# measured.

# %%
from qviz.nn.runs import Ledger
from qviz.shipped import data_dir

rows = [
    row
    for row in Ledger(data_dir() / "results.json")
    if row.kind == "PTQ" and (row.w_bits, row.a_bits, row.n_seeds, row.iterations) == (2, 2, 3, 1000)
]
found = {(row.method, "biases learned" in row.note): row for row in rows if row.method in ("qdrop", "aquant")}
print(f"{'2-bit weights and activations':32}{'biases kept':>18}{'biases learned':>18}")
for method in ("qdrop", "aquant"):
    texts = []
    for bias in (False, True):
        row = found.get((method, bias))
        spread = "" if row is None or row.top1_std is None else f" ± {row.top1_std:.2f}"
        texts.append("not measured" if row is None else f"{row.top1_mean:.2f}{spread} %")
    print(f"{method:32}{texts[0]:>18}{texts[1]:>18}")
for bias in (False, True):
    pair = [found.get((method, bias)) for method in ("qdrop", "aquant")]
    if None not in pair:
        gain = pair[1].top1_mean - pair[0].top1_mean
        print(f"a border is worth {gain:+.2f} points, biases {'learned' if bias else 'kept'}")

# %% [markdown]
# One standard error of an accuracy near 86 % on 10,000 images is 0.35 points; differences of that size say nothing.
# The paper reports 60.3 % for a ResNet-18 with 2-bit weights and activations on ImageNet; that is its authors' claim,
# and no other reproduction of it was found.
#
# ## Exercises
#
# 1. w = 1.25, w' = 1. What are the borders of the cells 0 to 3? What does the last one do?
# 2. In "least squares" at 2 bits every ρ is below 1. Which way must a border for all channels be bent, and how far
#    below 100 % does it come? Try it in the last explorer: **Border** "by hand", and drag the three dots.
# 3. In "least squares" the formula is worth less at 4 bits than at 2. Is it the weights, or the cells? Compare the ρ
#    (`model.layers["least squares", 4].rho`).
#
# <details><summary>Answer 1</summary>
#
# 0.4, 0.2, 0 and −0.2. A border below 0 acts as 0: everything in the cell goes up. The best integer may then be n + 2,
# which a border cannot reach.
# </details>
#
# <details><summary>Answer 2</summary>
#
# ρ < 1 means that w' is too large, so activations should go down more often: B above ½, and more so for large
# activations, since B − ½ = (1 − ρ) u. Of 36 bends that the
# next cell tries, 0.4, 0.8 and 0.95 come lowest, to 90.7 %: as low as the 32 learned borders.
# </details>
#
# <details><summary>Answer 3</summary>
#
# The weights: with more bits w' is nearer to w, and the median ρ goes from 0.79 to 0.98. More cells would make a border worth
# more, since B − ½ grows with u.
# </details>

# %% jupyter={"source_hidden": true, "outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
import itertools

from qviz.methods.aquant import AdaptiveBorder

print("1:", [round(b, 2) + 0.0 for b in optimal_border(1.25, 1.0, range(4)).tolist()])
one = model.layers["least squares", 2]
bends = itertools.product((0.4, 0.5, 0.6), (0.5, 0.6, 0.7, 0.8), (0.6, 0.8, 0.95))
errors = {bend: one.judged(AdaptiveBorder(one.steps).through(*bend))[0] / one.known[HALF] for bend in bends}
least = min(errors, key=errors.get)
print(f"2: B = {least} at the ends and in the middle: {100 * errors[least]:.1f} %")
for bits in (2, 3, 4):
    print(f"3: {bits} bits, median ρ {np.median(model.layers['least squares', bits].rho.numpy()):.2f}")

# %% [markdown]
# ## What to read next
#
# - [Look inside your model](10-look-inside-your-model.ipynb): which layer of a network needs a remedy at all, and why.
# - `notebooks/training/ptq-aquant.ipynb`: the whole ladder from rounding to nearest to AQuant, with its own control,
#   on the whole network.
# - `qviz.methods.aquant`: the border, and the table of thresholds that it folds to, so that nobody computes a sigmoid
#   at run time.
# - [Nagel et al. 2020, AdaRound](https://arxiv.org/abs/2004.10568): the same thought for weights, which can be decided
#   once and for all.
