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
# # Soft rounding: mismatch against gap
#
# The straight-through estimator of [lesson 01](01-straight-through.ipynb) hands on a slope that the forward pass does not
# have. One can also make the forward pass smooth, so that it has an honest slope. Then training and test no longer compute
# the same. *Distance-aware quantization* ([DAQ](https://arxiv.org/abs/2108.06983), Kim, Lee and Ham, ICCV 2021) wants
# neither fault. After this lesson you can
#
# 1. tell the *gradient mismatch* from the *quantizer gap*, and say which method has which,
# 2. say what the temperature of a soft argmax does to both,
# 3. take a number through DAQ's scores, controller and rescaling by hand,
# 4. say why its temperature control moves the gradient and never the staircase,
# 5. judge, from numbers, how much of this is felt in training.
#
# About 30 minutes. You need lesson 01.

# %%
import math

import torch

import qviz
from qviz import recipes
from qviz.core.surrogate import StraightThrough
from qviz.measure import gradient_mismatch, quantizer_gap, slopes
from qviz.methods.daq import SoftArgmax
from qviz.widgets import GradientExplorer, Predict

# %% [markdown]
# ## Two ways to be wrong
#
# - The [quantizer gap](glossary.md#quantizer-gap) is |what training computes − what a test computes|. A test always rounds.
# - The [gradient mismatch](glossary.md#gradient-mismatch) is |slope that the backward pass uses − slope that the forward
#   pass has|.
#
# Both are shaded in the explorer, and their means over the grid stand above the pictures. (The words are the paper's; the
# measures, as means over data, are this package's: `quantizer_gap` and `gradient_mismatch`.)
#
# Straight-through has no gap, because its forward pass rounds, and a mismatch of 1, because it claims a slope of 1 where
# there is none.

# %% jupyter={"source_hidden": true}
Predict(
    "Suppose training computes with a smooth curve near the staircase, and hands on that curve's own derivative.",
    options=["gap > 0, mismatch 0", "gap 0, mismatch > 0", "both > 0", "both 0"],
    answer="gap > 0, mismatch 0",
    why="The backward pass is the derivative of the forward pass, so nothing is claimed falsely; but a test rounds.",
)

# %% [markdown]
# ## A soft argmax
#
# One such curve goes like this. In a cell with the lower level at t = 0 and the upper one at t = 1, each level gets a
# *score* that falls with its distance, and is damped by a kernel if it is not the nearer one:
#
# $$s_f = e^{-t}\,k_f,\qquad s_c = e^{-(1-t)}\,k_c,\qquad k = 1\ \text{(nearer)}\ \text{or}\ e^{-1/\sigma^2}\ \text{(other)}.$$
#
# The [soft argmax](glossary.md#soft-argmax) then mixes the two levels. The upper one has the share
#
# $$m = \mathrm{sigmoid}\big(\beta\,(s_c - s_f)\big),$$
#
# where β is an inverse temperature, "temperature" for short in the paper. `SoftArgmax(sigma=…, beta=…).scores(t)` computes
# all of it. (f and c are for floor and ceiling.)

# %%
fixed = GradientExplorer("soft argmax, fixed β", show=["x", "beta"])
fixed.beta.value = 2.0
fixed

# %% [markdown]
# Move **β** from end to end. Small: the orange curve of training is far from the blue staircase of the test. Large: it
# hugs the staircase, the gap goes, and with it the gradient in the second picture. Watch the third picture: which numbers
# still learn at β = 30? (The curve keeps a jump in the middle of each cell, where the kernel changes sides, and one at
# each level, where the next cell begins. A derivative sees neither.)
#
# Here are real weights, the 55,296 of `expand`, standardized as DAQ does it: mean 0, standard deviation 1. The grid of 2
# bits goes from −3 to 3.

# %%
weights = qviz.shipped.tensor("expand").double()
standard = (weights - weights.mean()) / weights.std()


def mean_slope(beta):
    return slopes(recipes.soft_argmax(2, beta=beta, bounds=(-3.0, 3.0)), standard).backward.mean().item()


# %% jupyter={"source_hidden": true}
Predict(
    "β rises from 5 to 20. By which factor does the mean gradient of the weights fall?",
    answer=lambda: round(mean_slope(5.0) / mean_slope(20.0)),
    within=120,
    why="In the cells m comes close to 0 or 1 like e^(−β·difference), and the slope β m (1 − m) (s_f + s_c) with it.",
)

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
print("  β    quantizer gap   mean gradient   weights with a gradient below 0.01")
for beta in (1.0, 2.0, 5.0, 10.0, 20.0, 40.0):
    q = recipes.soft_argmax(2, beta=beta, bounds=(-3.0, 3.0))
    gap = quantizer_gap(q, standard).mean / (2 / 3)  # in steps: DAQ puts out levels from -1 to 1, 2/3 apart
    slope = slopes(q, standard).backward
    print(f"{beta:4.0f}   {gap:10.5f}   {slope.mean():13.5f}   {(slope < 0.01).double().mean():22.1%}")

# %% [markdown]
# There is no good place to stop. At β = 5 training and test differ by a twentieth of a step on average; at β = 20 the gap
# is gone and so is the gradient, for every single weight.
#
# What does the gap do to a network? The shipped ResNet-20, its weights rounded to 2 bits, tested on 500 images twice: once
# with the soft weights that training would compute with, once with the rounded ones. Nothing is trained here. It is the
# *same* network at the same moment.

# %%
from qviz.nn import calibrate, convert, evaluate, load_weights
from qviz.nn.data import CifarLoader, cifar10
from qviz.nn.models import create

images = CifarLoader(cifar10("test", source="sample"), batch_size=250)
batches = [batch for _, batch in zip(range(2), images.batches(0), strict=False)]


def tested(surrogate, soft):
    """Return the accuracy and the loss of ResNet-20 with weights of 2 bits."""
    net = load_weights(create("resnet20"), qviz.shipped.checkpoint("resnet20_fp32.safetensors"))

    def weight(layer):
        return qviz.Quantizer(qviz.uniform(2), surrogate=surrogate, soft=soft)

    convert(net, pair=qviz.Pair("mine", 2, 32, weight=weight, act=None))
    calibrate(net, batches[0][0])
    found = evaluate(net, batches)
    return found["top1"], found["loss"]


# %%
# NBVAL_CHECK_OUTPUT
rounded = tested(StraightThrough(), soft=False)
for name, surrogate in {"β = 2": SoftArgmax(beta=2.0), "β = 5": SoftArgmax(beta=5.0)}.items():
    top1, loss = tested(surrogate, soft=True)
    print(
        f"{name}: in training {top1:.1%} right, loss {loss:.2f}; in a test {rounded[0]:.1%} right, loss {rounded[1]:.2f}"
    )

# %% [markdown]
# At β = 2 training would work on a network that is much worse than the one that is tested, at β = 5 on one that is better.
# What it learns is fitted to the wrong network.
#
# ## The controller
#
# DAQ's first idea: let β depend on x, so that the mixture is always equally clear-cut. Equation (7) of the paper:
#
# $$\beta^*(x) = \frac{\gamma}{|s_c - s_f|}.$$
#
# Put it into the soft argmax: β*(s_c − s_f) is +γ or −γ, so m is one of two constants, λ or 1 − λ, wherever x is:
#
# $$\lambda = \frac{1}{1+e^{\gamma}}.$$

# %% jupyter={"source_hidden": true}
Predict(
    "The paper takes γ = 2. How far is the soft argmax under the controller from the nearest level, in steps?",
    answer=lambda: round(SoftArgmax(2.0).scores(torch.tensor(0.3)).m.item(), 4),
    within=0.005,
    why="λ = 1 / (1 + e²) = 0.1192, at every x: below the jump m = λ, above it m = 1 − λ.",
)

# %% [markdown]
# The second idea is to undo this constant error. Equations (10) and (11) stretch the mixture about the middle of the cell,
#
# $$f(m) = \frac{m - \frac12}{1 - 2\lambda} + \frac12.$$

# %% jupyter={"source_hidden": true}
Predict(
    "In the explorer below γ goes from 2 to 4. What changes?",
    options=["the staircase", "the gradient", "both", "neither"],
    answer="the gradient",
    why="The rescaled soft argmax is a level, whatever γ is. The dash-dotted line, before the rescale, does move.",
)

# %%
controlled = GradientExplorer("DAQ, controller", show=["x", "gamma", "sigma"])
controlled

# %% [markdown]
# The stretching turns λ into 0 and 1 − λ into 1. So the forward pass of DAQ *is* rounding, exactly, for every γ and σ. What
# is left of all the softness is the backward pass.
#
# Press **Keep**, then move **γ** and **σ**. Gray is what was kept; the sentence below the controls says what changed and
# what did not. The table goes through scores, β*, m and the rescale for your x. Drag x across a jump and watch β*.
#
# Do not take the pictures' word for it. Here the *soft* forward pass of DAQ, no rounding anywhere, is held against
# rounding, for 200 random pairs of γ and σ on all the weights:

# %%
# NBVAL_CHECK_OUTPUT
draw = torch.Generator().manual_seed(0)
book, unit = qviz.uniform(2, signed=False), qviz.Fixed(1.0)
x = torch.linspace(-0.5, 3.5, 4001, dtype=torch.float64)
largest = 0.0
for gamma, sigma in (torch.rand(200, 2, generator=draw) * 3.5 + 0.4).tolist():
    soft = qviz.Quantizer(book, surrogate=SoftArgmax(gamma, sigma), range=unit, soft=True)
    largest = max(largest, quantizer_gap(soft, x).max)
print(
    f"largest quantizer gap of all: {largest:.0e}"
    if largest > 1e-12
    else "largest quantizer gap of all: below 1e-12"
)

# %% [markdown]
# ## Where the gradient comes from
#
# If the forward pass is constant in each half of a cell, why is its derivative not 0? Because β* is *detached*: the backward
# pass takes it as a constant, though it depends on x. One more estimator, hidden in one line. Take the detaching away and
# see:

# %%
# NBVAL_CHECK_OUTPUT
t = torch.tensor([0.1, 0.25, 0.4, 0.75], dtype=torch.float64, requires_grad=True)
surrogate = SoftArgmax(gamma=2.0, sigma=1.0)
low, high, detached, _ = surrogate.scores(t)
for name, beta in (("detached", detached), ("not detached", surrogate.gamma / (high - low).abs())):
    m = torch.sigmoid(beta * (high - low))
    y = (m - 0.5) / math.tanh(surrogate.gamma / 2) + 0.5  # 1 − 2λ = tanh(γ/2)
    (slope,) = torch.autograd.grad(y.sum(), t, retain_graph=True)
    print(
        f"β* {name:13} y = {[abs(round(v, 6)) for v in y.tolist()]}   slope = {[round(v, 6) for v in slope.abs().tolist()]}"
    )

# %% [markdown]
# Carried through, the backward pass has a closed form. (It is derived in this package, not printed in the paper; the tests
# hold it to the graph.) With t from 0 to 1 in the cell,
#
# $$\frac{dy}{dx} = \frac{\gamma}{2\sinh\gamma}\,\coth\!\Big(\big|t - \tfrac12\big| + \frac{1}{2\sigma^2}\Big)\ \text{inside the grid, else } 0.$$
#
# It is largest at the jump, where a small move may change the level, smallest on the levels, and never 0 inside. γ makes
# all of it larger or smaller; σ sets how peaked it is, and with the peak the mean grows, too.
#
# A note on σ: the paper calls it a standard deviation, which would make the kernel's exponent 1/(2σ²); the authors'
# released code has 1/σ². This package follows the code, with σ = 1 for weights and 2 for activations.

# %%
# NBVAL_CHECK_OUTPUT
print("σ    t = 0   t = 0.25   t = 0.5   mean over a cell")
for sigma in (0.5, 1.0, 2.0, 3.0):
    slope = SoftArgmax(2.0, sigma).slope
    at = slope(torch.tensor([0.0, 0.25, 0.5], dtype=torch.float64))
    mean = slope((torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000).mean()
    print(f"{sigma}   {at[0]:.3f}   {at[1]:8.3f}   {at[2]:7.3f}   {mean:13.3f}")

# %% [markdown]
# ## Which gradient is the right one?
#
# DAQ with σ = 1 has a mismatch of 0.45 where straight-through has 1. But 0 is easy to have: the true derivative has it, and
# learns nothing. A slope at a point cannot see a jump. If weights move by a good part of a cell during training, what counts
# is the slope *averaged over a window* of that size. The explorers' slider **Window** does that, and so does
# `gradient_mismatch(q, x, window=…)`, in units of a cell.

# %% jupyter={"source_hidden": true}
Predict(
    "With a window of exactly one cell, which has the smaller gradient mismatch?",
    options=["straight-through", "DAQ, σ = 1", "DAQ, σ = 2"],
    answer="straight-through",
    why="Averaged over one cell, the staircase rises by one step per step: its slope is 1, the straight-through slope.",
)

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
DAQ = {sigma: recipes.daq_weight(2, sigma=sigma, bounds=(-3.0, 3.0)) for sigma in (1.0, 2.0)}
contestants = {
    "straight-through": qviz.Quantizer(DAQ[1.0].codebook, range=DAQ[1.0].range),
    "DAQ, σ = 1": DAQ[1.0],
    "DAQ, σ = 2": DAQ[2.0],
    "soft argmax, β = 5": recipes.soft_argmax(2, beta=5.0, bounds=(-3.0, 3.0)),
}
windows = (None, 0.1, 0.25, 0.5, 1.0)
print("gradient mismatch, window:" + "".join(f"{'none' if w is None else w:>7}" for w in windows))
for name, q in contestants.items():
    print(f"{name:26}" + "".join(f"{gradient_mismatch(q, standard, window=w).mean:7.2f}" for w in windows))

# %% [markdown]
# The order turns around with the window. No single number says which gradient trains better. So train.
#
# ## What training feels of it
#
# The layer of lesson 01 again: 2-bit weights, trained for 60 steps to give the layer's outputs back, measured on 182 unseen
# inputs. "In training" uses what the forward pass of training computes, "in a test" the rounded weights. As gradients of
# different size ask for different learning rates, each method gets two.

# %%
layer = weights.flatten(1)
inputs = qviz.shipped.tensor("act_bottleneck").double()
seen, unseen = inputs[:500], inputs[500:]


def train(surrogate, soft, rate, steps=60):
    """Return the SQNR of the layer's outputs on unseen inputs in dB: as in training, and as in a test."""
    q = qviz.Quantizer(qviz.uniform(2), surrogate=surrogate, soft=soft).observe(layer)
    w, wanted = layer.clone().requires_grad_(), seen @ layer.T
    optimizer = torch.optim.SGD([w], lr=rate, momentum=0.9)
    for step in range(steps):
        loss = (seen @ q(w).T - wanted).square().mean() / wanted.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        optimizer.step()
    rounding = qviz.Quantizer(q.codebook, range=q.range)
    with torch.no_grad():
        return [qviz.metrics.sqnr_db(unseen @ layer.T, unseen @ found(w).T) for found in (q, rounding)]


# %% jupyter={"source_hidden": true}
Predict(
    "At its better rate, which is best in a test?",
    options=[
        "straight-through",
        "DAQ, σ = 1",
        "soft argmax, β = 5",
        "less than 0.1 dB between the first two",
    ],
    answer="less than 0.1 dB between the first two",
    why="Both round in the forward pass, and a gradient that is half as large is made good by a larger learning rate.",
)

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
methods = {
    "straight-through": (StraightThrough(), False),
    "DAQ, σ = 1": (SoftArgmax(sigma=1.0), False),
    "DAQ, σ = 2": (SoftArgmax(sigma=2.0), False),
    "soft argmax, β = 5": (SoftArgmax(beta=5.0), True),
    "soft argmax, β = 20": (SoftArgmax(beta=20.0), True),
}
print(f"not trained: {train(StraightThrough(), False, 0.1, steps=0)[1]:.2f} dB")
print(" " * 22 + "rate 0.1: in training, in a test     rate 0.3: in training, in a test")
for name, (surrogate, soft) in methods.items():
    found = [train(surrogate, soft, rate) for rate in (0.1, 0.3)]
    print(f"{name:22}" + " ".join(f"{a:18.2f} {b:13.2f} dB" for a, b in found))

# %% [markdown]
# - **Soft argmax, β = 5** looks best in training, 11.26 dB, and loses 0.9 dB in a test. That is the quantizer gap in dB.
# - **β = 20** has no gap and hardly learns: 8.96 dB after training, 8.89 before.
# - **DAQ** has neither fault. What training reports is what a test finds.
# - **Straight-through** has no gap either, and on this layer its mismatch does no harm that could be seen: 10.53 against
#   10.57 dB.
#
# That is the honest limit of this lesson: on one layer, in 60 steps, we cannot show that DAQ's gradient trains better than
# straight-through, only that it trains as well and that a fixed temperature does not. The paper's own table 2 has whole
# networks: ResNet-18 on ImageNet at 2 bits has 66.9 % with DAQ and 66.8 % with LSQ, which is straight-through.

# %% [markdown]
# ## Exercises
#
# **1.** γ = 2, σ = 1. Take t = 0.25 through DAQ by hand: both scores, β*, m, the rescaled m, and the slope.
#
# <details><summary>Answer</summary>
#
# The lower level is nearer, so s_f = e^(−0.25) = 0.7788 and s_c = e^(−0.75) · e^(−1) = 0.1738. β* = 2 / 0.6050 = 3.3056.
# m = sigmoid(−2) = 0.1192, rescaled (0.1192 − 0.5) / 0.7616 + 0.5 = 0. The slope is
# 2 / (2 sinh 2) · coth(0.25 + 0.5) = 0.2757 · 1.5744 = 0.4341. The first folded cell below has the same from the package.
#
# </details>
#
# **2.** [DSQ](https://arxiv.org/abs/1908.05033) (Gong et al., ICCV 2019) puts a tanh in each cell instead, and rounds in
# the forward pass as well. Open `GradientExplorer("tanh (DSQ)")` and bring **x** to the jump at 1.5: the last row of the
# table has the slope. About which **k** gives the same slope there as DAQ with σ = 2, which is 2.217? What happens on the
# levels, such as x = 2, compared with DAQ?
#
# <details><summary>Answer</summary>
#
# The slider has 2.07 at k = 4 and 2.30 at 4.5; the formula is k / (2 tanh(k/2)), and gives 2.21 at k = 4.3. On the levels
# the tanh has a slope of only 0.12 then, DAQ 0.50: a tanh forgets weights that sit on their levels, DAQ does not. Tick
# **Soft forward**: with the tanh as forward pass there is a gap again. The second folded cell has the numbers.
#
# And the sigmoid? sigmoid(2z) = (1 + tanh z) / 2, so a sigmoid that is normalized to reach both levels *is* this tanh, with
# the temperature T = 2k. `GradientExplorer("sigmoid, fixed T")` has the plain one of
# [quantization networks](https://arxiv.org/abs/1911.09464) (Yang et al., CVPR 2019): soft in training, it has a gap even on
# the levels, sigmoid(−T/2) of a step.
#
# </details>
#
# **3.** Straight-through with a soft forward pass is no quantizer at all while it trains. What are its gap and its
# mismatch, and what would `train(StraightThrough(), True, 0.3)` give in training and in a test? Guess, then run it.
#
# <details><summary>Answer</summary>
#
# Its forward pass is y = x, clipped: the mismatch is 0 and the gap is the whole rounding error, a quarter of a step on
# average. In training 13.9 dB, in a test 9.9: the largest gap of all. The third folded cell has it.
#
# </details>

# %% jupyter={"source_hidden": true, "outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
daq, t = SoftArgmax(gamma=2.0, sigma=1.0), torch.tensor(0.25, dtype=torch.float64)
print("s_f, s_c, β*, m:", *(round(v.item(), 4) for v in daq.scores(t)))
print("rescaled:", round(daq.relax(t).item(), 4), "  slope:", round(daq.slope(t).item(), 4))

# %% jupyter={"source_hidden": true, "outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
from qviz.methods.dsq import SoftTanh

ends = torch.tensor([0.5, 0.0], dtype=torch.float64)
for name, one in (("tanh, k = 4.3", SoftTanh(4.3)), ("DAQ, σ = 2", SoftArgmax(sigma=2.0))):
    at = one.slope(ends)
    gap = quantizer_gap(qviz.Quantizer(book, surrogate=one, range=unit, soft=True), x[500:3500]).mean
    print(
        f"{name:14} slope at the jump {at[0]:.3f}, on a level {at[1]:.3f}; gap of a soft forward pass {abs(gap):.3f}"
    )

# %% jupyter={"source_hidden": true, "outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
soft = qviz.Quantizer(book, surrogate=StraightThrough(), range=unit, soft=True)
inside = x[(x > 0) & (x < 3)]
print(
    f"gap {quantizer_gap(soft, inside).mean:.2f} of a step, mismatch {gradient_mismatch(soft, inside).mean:.2f};",
    end=" ",
)
print("in training {:.1f} dB, in a test {:.1f} dB".format(*train(StraightThrough(), True, 0.3)))

# %% [markdown]
# ## Next
#
# So far the levels were even and the step was given. [Lesson 03](03-powers.ipynb) moves the levels,
# [lesson 04](04-adaptive-steps.ipynb) learns the step.
