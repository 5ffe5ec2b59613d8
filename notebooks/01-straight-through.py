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
# # Uniform grids and the straight-through estimator
#
# A quantizer is a staircase. Going up it is easy; the trouble is learning through it, because a staircase has no slope.
# After this lesson you can
#
# 1. take a number through a uniform grid by hand, forward and backward,
# 2. tell the error of a grid from its step,
# 3. say why training with the true derivative of rounding changes nothing, and what is put in its place,
# 4. answer "should the gradient be cancelled outside the grid?" with numbers from a trained layer.
#
# About 25 minutes. You should have done [Start here](00-start-here.ipynb). Run a cell with Shift+Enter. Where it says
# *Predict*, commit yourself before you go on: a wrong guess teaches more than no guess.

# %%
import torch

import qviz
from qviz.core.surrogate import StraightThrough, TrueDerivative
from qviz.plot import panels
from qviz.widgets import GradientExplorer, Predict

# %% [markdown]
# ## One number through a uniform grid
#
# A uniform [grid](glossary.md#grid) has equal distances between its [levels](glossary.md#level). That distance is the
# [step](glossary.md#step) s. With b bits and no negative levels, the levels are 0, s, 2s, … (2^b − 1)s, and
#
# $$u = x / s, \qquad y = s \cdot \mathrm{clip}(\mathrm{round}(u),\ 0,\ 2^b - 1).$$
#
# In the package, `Fixed` holds s, `uniform` the levels in units of s, and `Quantizer` does the arithmetic. In the code
# below s = 0.8.

# %%
q = qviz.Quantizer(qviz.uniform(2, signed=False), range=qviz.Fixed(0.8))

# %% jupyter={"source_hidden": true}
Predict(
    "The step is 0.8 and the grid has 2 bits, without negative levels. What is Q(1.9)?",
    answer=lambda: round(q(torch.tensor(1.9)).item(), 4),
    within=0.01,
    why="u = 1.9 / 0.8 = 2.375. The nearest whole number is 2, which is inside 0 … 3, and 2 · 0.8 = 1.6.",
)

# %% [markdown]
# Now move the number. Drag the orange triangle in the first picture, or use the slider **x** with the arrow keys. The
# explorer has s = 1. The table has the arithmetic of your number: u, the [cell](glossary.md#cell) between two levels, the
# place t in the cell, the decision, the level, y. Find the x at which y jumps from 1 to 2. To which side does the jump itself belong?

# %%
walk = GradientExplorer("true derivative", show=["x"])
walk

# %% [markdown]
# The jump is at x = 1.5, the middle of the cell, and 1.5 itself goes down: t > ½ is needed for up. Beyond the last level
# every x gives y = 3. That is [clipping](glossary.md#clip), or saturation.
#
# Two bits name four levels. That sounds trivial, but "bits" and "number of levels" are often mixed up. A signed grid of
# 2 bits has −2, −1, 0, 1, one more level on the negative side. A *symmetric* one would leave out −2 and be left with three.

# %%
# NBVAL_CHECK_OUTPUT
for book in (qviz.uniform(2, signed=False), qviz.uniform(2), qviz.uniform(3)):
    print(book.bits, "bits:", [int(level) for level in book.levels])

# %% [markdown]
# ## The error of rounding
#
# If an x inside the grid is as likely to be anywhere in its cell, the error of rounding is spread evenly from −s/2 to s/2,
# and its root mean square is
#
# $$\sqrt{\frac{1}{s}\int_{-s/2}^{s/2} e^2\,de} = \frac{s}{\sqrt{12}}.$$
#
# So half the step is half the error. In [decibels](glossary.md#sqnr) that is 20 log₁₀ 2 = 6.02 dB for each bit: *if* the
# grid keeps its ends, and *if* nothing is clipped. Here are real weights, those of a layer of MobileNetV2.

# %%
weights = qviz.shipped.tensor("expand")
panels.levels(weights, {"3 bits, best step": qviz.uniform(3), "4 bits, best step": qviz.uniform(4)})

# %% [markdown]
# Each grid above has the step with the least squared error on these weights, so the finer grid reaches farther out.


# %%
def rounded(bits):
    """Return a grid with the best step, and its SQNR in dB."""
    grid = qviz.Quantizer(qviz.uniform(bits)).observe(weights)
    return grid, qviz.metrics.sqnr_db(weights, grid(weights))


# %% jupyter={"source_hidden": true}
Predict(
    "From 6 to 8 bits, each with its best step: how many dB does one more bit bring on these weights?",
    answer=lambda: round((rounded(8)[1] - rounded(6)[1]) / 2, 2),
    unit="dB",
    within=0.3,
    why="Less than 6.02: with more levels it pays to clip fewer values, so the ends move out and the step does not halve.",
)

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
print("bits   step     s/√12    RMS error inside   of all    clipped    SQNR")
for bits in (2, 3, 4, 6, 8):
    grid, sqnr = rounded(bits)
    s, error = grid.scale.item(), grid(weights) - weights
    inside = (weights >= grid.codebook.lo * s) & (weights <= grid.codebook.hi * s)
    rms = [part.square().mean().sqrt().item() for part in (error[inside], error)]
    outside = 1 - inside.double().mean().item()
    print(
        f"{bits:3}   {s:.4f}   {s / 12**0.5:.4f}   {rms[0]:13.4f}   {rms[1]:9.4f}   {outside:7.2%}   {sqnr:5.2f} dB"
    )

# %% [markdown]
# For the values inside, s/√12 is right to four decimals at every width. Rounding is the predictable part. What the rule
# does not know is the clipping: at 2 bits 15.5 % of the weights are outside, and the RMS error of all is 29 % larger.

# %% [markdown]
# ## Forward a staircase, backward nothing
#
# Training moves a weight w against the slope of the loss L. The chain rule says
#
# $$\frac{\partial L}{\partial w} = \frac{\partial L}{\partial y}\cdot\frac{\partial y}{\partial w},\qquad y = Q(w).$$
#
# The second factor is the slope of the staircase. The second picture of the explorer above has that slope, the third one
# trains: your number and five others do gradient descent on (Q(x) − target)²/2.
#
# Let us do that to a real layer. `expand` gets real inputs: the activations `act_bottleneck` feed exactly this layer. We
# round its 55,296 weights to 2 bits and train them for 100 steps, so that the layer's outputs come back to what they were.
# 500 rows of inputs are for training, the other 182 stay unseen. ([SQNR](glossary.md#sqnr) is measured at the outputs.)

# %%
layer = weights.flatten(1).double()  # 576 outputs × 96 inputs
inputs = qviz.shipped.tensor("act_bottleneck").double()
seen, unseen = inputs[:500], inputs[500:]


def train(surrogate, bits=2, steps=100, rate=0.1, falls=True, watched=None):
    """Train rounded weights to give the layer's outputs again.

    Return the quantizer and the weights: at first, before the last step, and after it. A list `watched` gets those of
    eight outputs at every step.
    """
    q = qviz.Quantizer(qviz.uniform(bits), surrogate=surrogate).observe(layer)
    w, wanted = layer.clone().requires_grad_(), seen @ layer.T
    optimizer, path = torch.optim.SGD([w], lr=rate, momentum=0.9), [layer]
    for step in range(steps):
        loss = (seen @ q(w).T - wanted).square().mean() / wanted.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps) if falls else rate
        optimizer.step()
        path = [layer, path[-1], w.detach().clone()]
        if watched is not None:
            watched.append(path[-1][:8].clone())
    return q, path


def report(name, q, path):
    """Print how well the rounded layer does on unseen inputs, and which weights have moved."""
    first, last = path[0], path[-1]
    sqnr = [qviz.metrics.sqnr_db(unseen @ layer.T, unseen @ q(w).T) for w in (first, last)]
    moved, codes = (first != last).double().mean(), (q.codes(first) != q.codes(last)).double().mean()
    print(
        f"{name:24} output {sqnr[0]:5.2f} → {sqnr[1]:5.2f} dB   {moved:6.1%} of the weights moved, {codes:5.1%} of the codes"
    )


# %% jupyter={"source_hidden": true}
Predict(
    "The weights are trained with the true derivative of rounding. How many of the 55,296 move?",
    options=["none", "only those near a jump", "about half", "all"],
    answer="none",
    why="The true derivative is 0 wherever there is one, so every gradient is exactly 0, near a jump as well.",
)

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
runs = {"true derivative": train(TrueDerivative())}
report("true derivative", *runs["true derivative"])

# %% [markdown]
# Nothing moves, in the layer as in the third picture. Every weight sits on a flat piece of the staircase.
#
# ## Straight through
#
# The *straight-through estimator* ([STE](glossary.md#straight-through-estimator)) pretends, in the backward pass only, that
# rounding did nothing ([Bengio et al. 2013](https://arxiv.org/abs/1308.3432), section 4):
#
# $$\frac{\partial y}{\partial x} := \begin{cases}1 & \text{inside the grid}\\ 0\ \text{or}\ 1 & \text{outside}\end{cases}$$
#
# It is not a derivative of anything the forward pass computes; that is why it is called an estimator. `StraightThrough()`
# is the version with 0 outside, `StraightThrough(clipped=False)` the one with 1. In one line of PyTorch it is the sum
# `y + (x - x.detach())`: in the forward pass the bracket is 0, in the backward pass its slope is 1.
#
# Here it is for one number. The target is 1.7, which is no level. Your number starts at 1.3: where will it end?

# %%
learn = GradientExplorer("STE, clipped", show=["x", "target"])
learn

# %% [markdown]
# It goes up to the jump at 1.5 and stays there, swinging from side to side: below the jump y = 1 is too small and it is
# pulled up, above the jump y = 2 is too large and it is pulled down. Drag the green target (at the
# right edge) to 1.2 and to 2. It is only when the target is a level that the number comes to rest.
#
# So the number that training moves is not the number that the network computes with. There are two: the
# [master weight](glossary.md#master-weights) w in floating point, which takes small steps, and its level Q(w), which stays
# for a long time and then jumps. Only Q(w) reaches the output, only w is updated. After training w is thrown away.

# %%
# NBVAL_CHECK_OUTPUT
watched = [layer[:8]]
q, path = runs["STE, clipped"] = train(StraightThrough(), watched=watched)
report("STE, clipped", q, path)
rows = torch.stack(watched)  # the weights of eight outputs, at every step
jumps = (q.codes(rows[1:]) != q.codes(rows[:-1])).sum(0)
busiest = divmod(int(jumps.argmax()), rows.shape[2])
print(f"Of 768 weights, the one at {busiest} jumps most often: {int(jumps.max())} times in 100 steps.")

# %%
one = rows[:, busiest[0], busiest[1]]
at = range(len(one))
panels.curve(
    {"master weight w": (at, one), "its level Q(w)": (at, q(one))}, x="step", y="w", title="One weight"
)

# %% [markdown]
# One hundred steps win 1.6 dB on inputs that training has not seen, with the same 2 bits. The learning rate falls to 0, and
# the swinging with it.

# %% [markdown]
# ## Cancel the gradient outside the grid?
#
# A weight beyond the last level has the same Q(w) wherever it is. Should its gradient be *cancelled*, as in
# [Courbariaux et al. 2016](https://arxiv.org/abs/1602.02830), section 1.3, or should it pass? The list **Preset** shows
# what is at stake. Take **clipped: outside stays**, then **unclipped: outside returns**: a number that starts
# outside never comes back when its gradient is cancelled. Now **unclipped: drifts on**: the target is beyond the last
# level. Without cancelling, the number runs away, though Q(x) has long been as near as it can be.

# %%
cancel = GradientExplorer("STE, clipped", show=["kind", "x", "target"])
cancel.presets.value = "unclipped: drifts on"
cancel

# %% [markdown]
# Now the layer. Below is its grid of 2 bits over its weights. 15.5 % of them are outside, most of them beyond the only
# positive level. Clipped STE can never move those.

# %%
q2 = qviz.Quantizer(qviz.uniform(2)).observe(layer)
panels.levels(layer, {"2 bits, best step": q2})


# %%
def beyond(q, path):
    """How many steps the weights that begin outside the grid are beyond it, on average: first and last."""
    low, high = q.codebook.lo * q.scale.item(), q.codebook.hi * q.scale.item()
    outside = (layer < low) | (layer > high)
    return [
        (w - w.clamp(low, high)).abs()[outside].mean().item() / q.scale.item() for w in (path[0], path[-1])
    ]


def direction():
    """Where the weights outside go without clipping, in words."""
    before, after = beyond(*train(StraightThrough(clipped=False)))
    return (
        "they stay" if abs(after - before) < 0.05 else "farther out" if after > before else "back to the grid"
    )


# %% jupyter={"source_hidden": true}
Predict(
    "Unclipped STE moves the weights outside, too. Where do they go in 100 steps, on average?",
    options=["back to the grid", "they stay", "farther out"],
    answer=direction,
    why="There a weight's level does not answer to it: the pull goes on in one direction, and more of them are pulled out.",
)

# %% jupyter={"source_hidden": true}
Predict(
    "Both versions are trained on the layer. Which has the better outputs on unseen inputs, by more than 0.1 dB?",
    options=["clipped", "unclipped", "neither"],
    answer="neither",
    why="All weights move without clipping, but those outside move outward or inward without reaching another cell.",
)


# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
runs["STE, unclipped"] = train(StraightThrough(clipped=False))
runs["nothing inside, 1 outside"] = train(TrueDerivative(clipped=False))
for name, run in runs.items():
    report(name, *run)
print()
for name, (q, path) in runs.items():
    before, after = beyond(q, path)
    print(f"{name:26} weights outside: {before:.2f} → {after:.2f} steps beyond the grid, on average")

# %% [markdown]
# Four answers to one question:
#
# - **Take the estimator away** (true derivative): nothing moves, nothing is learned.
# - **Cancel outside** (clipped): 84 % of the weights learn. Those outside stay exactly where they are, for ever.
# - **Pass outside** (unclipped): everything moves. The outputs are the same to a hundredth of a dB, because the weights
#   outside wander, on average outward, and their level does not change.
# - **Pass only outside**: 16 % of the weights move and no code changes. What is learned is learned inside.
#
# On this layer, with this step, cancelling costs nothing and prevents the drift. The price is different where many values
# are outside, or where the step is learned too: lesson 04 comes back to it.

# %% [markdown]
# ## What it cannot do
#
# STE hands on a slope of 1 although the forward pass has none. As long as steps are small, that is a fair average. With a
# larger learning rate that does not fall, weights are thrown back and forth across the jumps:

# %%
# NBVAL_CHECK_OUTPUT
for rate, falls in ((0.1, True), (0.1, False), (1.0, False)):
    q, path = train(StraightThrough(), rate=rate, falls=falls)
    sqnr = qviz.metrics.sqnr_db(unseen @ layer.T, unseen @ q(path[-1]).T)
    flips = (q.codes(path[-1]) != q.codes(path[-2])).double().mean()
    print(
        f"rate {rate}, {'falling to 0' if falls else 'constant':12}   output {sqnr:5.2f} dB   {flips:5.1%} of the codes change in the last step"
    )

# %% [markdown]
# Without any training the output has 8.89 dB. So the last run has made the layer *worse*, although each of its steps went
# down the estimated slope. Training with STE ends in such [oscillations](glossary.md#oscillation) around the jumps unless something calms them
# ([Nagel et al. 2022](https://arxiv.org/abs/2203.11086) study this in whole networks).

# %% [markdown]
# ## Exercises
#
# **1.** A signed grid of 3 bits has the step 0.05. By hand: what are u, the code from −4 to 3, Q(x) and the clipped STE's
# gradient for x = 0.08, x = −0.13 and x = 0.21?
#
# <details><summary>Answer</summary>
#
# x = 0.08: u = 1.6, code 2, Q = 0.10, gradient 1.
# x = −0.13: u = −2.6, code −3, Q = −0.15, gradient 1.
# x = 0.21: u = 4.2 is beyond 3; code 3, Q = 0.15, gradient 0.
# `qviz.probe(qviz.Quantizer(qviz.uniform(3), range=qviz.Fixed(0.05)), torch.tensor([0.08, -0.13, 0.21]))` has all of it.
#
# </details>
#
# **2.** What brings more on this layer, 100 steps of training at 2 bits, or a third bit without training? And the third
# bit *with* training? Guess first, then call `report("3 bits", *train(StraightThrough(), bits=3))`.
#
# <details><summary>Answer</summary>
#
# Training at 2 bits brings 1.6 dB, the third bit 5.4 dB, and training at 3 bits another 1.5 dB. Training makes good use of
# the levels that are there; it does not replace levels. The figures are in the first folded cell below.
#
# </details>
#
# **3.** In the explorer take **STE, clipped** and let **Target** be 1.5. Where do the numbers end, and why there? What is
# their average y over many steps?
#
# <details><summary>Answer</summary>
#
# They end at the jump, x = 1.5, but for the two that begin outside the grid and stay there; y alternates between 1 and 2. Both are 0.5 away from the target, so the pulls up and
# down are equally strong and y is 1.5 on average. With a target of 1.7 the pull up (0.7) is stronger than the pull down
# (0.3), so y is 2 in about seven steps of ten: the average follows the target although no level does. The second folded
# cell below counts it.
#
# </details>

# %% jupyter={"source_hidden": true, "outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
report("2 bits", *runs["STE, clipped"])
report("3 bits", *train(StraightThrough(), bits=3))

# %% jupyter={"source_hidden": true, "outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
from qviz.measure import descend

unit = qviz.Quantizer(qviz.uniform(2, signed=False), range=qviz.Fixed(1.0))
for target in (1.5, 1.7):
    y = unit(descend(unit, torch.tensor([1.3], dtype=torch.float64), target, steps=2000, rate=0.01)[500:])
    print(
        f"target {target}: y is 2 in {(y == 2).double().mean():.0%} of the steps, {y.mean():.2f} on average"
    )

# %% [markdown]
# ## Next
#
# The estimator's slope is 1 where the staircase has 0. Could the backward pass fit the forward pass better?
# [Lesson 02](02-soft-rounding.ipynb) softens the staircase, and finds that this has a price too.
