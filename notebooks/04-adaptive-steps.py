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
# # Steps that adapt to the input
#
# The step of a uniform grid can be too small or too large, and there are two ways to be wrong. Training can find it. But
# one step for all inputs is a compromise: some images are dim. After this lesson you can
#
# 1. split the error of a grid into clipping and rounding, and say which of them a step trades for which,
# 2. read the gradient of LSQ's step as two forces, and of PACT's clip as one,
# 3. say what the factor 1/√(N p) is for,
# 4. explain how ASQ gives every input a step of its own, and what that costs,
# 5. test whether it still works on images that it has not seen.
#
# About 35 minutes. You should have done [Start here](00-start-here.ipynb);
# [uniform grids and the straight-through estimator](01-straight-through.ipynb) helps. Where it says *Predict*, commit
# yourself before you go on.

# %%
import torch

import qviz
from qviz.explore.photos import LAYER, fogged
from qviz.recipes import asq_activation, lsq
from qviz.widgets import Predict, StepExplorer

# %% [markdown]
# ## Two ways to be wrong
#
# The 55,296 weights below are those of a layer of MobileNetV2. A signed 4-bit uniform grid has the levels −8s … 7s. What
# lies beyond is *clipped*, what lies between is *rounded*:

# %%
weights = qviz.shipped.tensor("expand")


def best_clip():
    """The clip 7s of the 4-bit grid with the least error, in percent of the largest weight."""
    q = lsq(4, start="mse").observe(weights)
    return float(100 * 7 * q.range.scale / weights.abs().max())


# %% jupyter={"source_hidden": true}
Predict(
    "The largest weight in magnitude is 0.387. Where is the clip 7s of the best 4-bit grid, in percent of that?",
    answer=best_clip,
    unit="%",
    within=8,
    why="It cuts off 1 % of the weights. That costs less than a coarse step costs all the others.",
)

# %%
explorer = StepExplorer(show=["step"])
explorer

# %% [markdown]
# **Move** the slider **Step**, or drag the dot on the curve (or the clip, on the right). The first picture shows the
# mean squared error against the [step](glossary.md#step) with its two parts; both axes are logarithmic. Far to the left
# everything is clipping, far to the right everything is rounding, and the right side is a straight line. What is its
# slope? Double the step there, from 0.04 to 0.08, and read the column **now**.
#
# **Explain.** A value that is rounded ends at most s/2 away. If it falls anywhere in its cell, the mean square is s²/12:
# twice the step, four times the error, 6 dB. That is true as long as the values fill the cells evenly.

# %%
# NBVAL_CHECK_OUTPUT
twin = StepExplorer()  # the one above stays as you have left it
for step in (0.005, 0.01, 0.02, 0.04):
    twin.step.value = step
    row = twin.data()["table"]
    clipping, rounding = row["clipping"]["now"], row["rounding"]["now"]
    print(f"s = {step:5.3f}   clipping {clipping:.2e}   rounding {rounding:.2e}   s²/12 = {step**2 / 12:.2e}")

# %% [markdown]
# At 0.02 and 0.04 rounding agrees with s²/12 within 2 %. At 0.005 it is less than half of that: nearly half of the weights
# are clipped there and not rounded at all.

# %% [markdown]
# ## LSQ: two forces
#
# [LSQ](glossary.md#lsq) ([Esser et al. 2020](https://arxiv.org/abs/1902.08153)) learns the step by gradient descent. With
# u = x / s and the end codes −n and p (here −8 and 7), equation (3):
#
# $$\frac{\partial y}{\partial s} = \begin{cases} \mathrm{round}(u) - u & -n < u < p\\ -n & u \le -n\\ p & u \ge p
# \end{cases}$$
#
# `qviz.recipes.lsq` is the function. Multiply by the gradient of the squared error, 2 (y − x), and sum separately over
# the values inside and outside. Inside, y − x = s (round(u) − u) has the *same* sign as the slope: rounding always pulls
# the step down. Outside it is the other way round: clipping always pushes it up.
#
# In the explorer **Iteration** now appears. Bring **Step** to the right end, then press play: from there the optimizer
# Adam moves the step by the gradient that the recipe's own backward pass hands over.

# %%
explorer.reveal("iteration")
explorer

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
for start in (0.004, 0.08):
    twin.step.value = start
    for iteration in (0, 20, 120):
        twin.iteration.value = iteration
        place = twin.model.place(twin.choice())
        print(
            f"start {start:5.3f}  iteration {iteration:3}   s = {place.learned:.3f}"
            f"   rounding pulls with {place.rounding:7.1e}, clipping with {place.clipping:8.1e}"
        )
print(f"least error at s = {twin.model.curves(twin.choice()).best:.3f}")

# %% [markdown]
# From both sides it ends where the two forces cancel, next to the least error. Next to, not at: LSQ's slope inside is
# that of the [straight-through estimator](glossary.md#straight-through-estimator), not the true
# derivative of the error. With few levels one can see it (exercise 2).
#
# ### What is 1/√(N p) for?
#
# The gradient above is already multiplied by 1/√(N p), with N the number of values that share the step (section 2.2 of
# the paper).

# %% jupyter={"source_hidden": true}
Predict(
    "55,296 weights share one step, and p is 7. How many times as large is the gradient of the step without the factor?",
    answer=(55_296 * 7) ** 0.5,
    unit="times",
    within=100,
    why="√(55,296 · 7) = 622. Every weight adds its part to one and the same sum.",
)

# %% [markdown]
# That would be far too large for the learning rate of the weights:

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
q = lsq(4, step=0.08)
y = q(weights)
(scaled,) = torch.autograd.grad((y - weights).square().sum(), q.range.step)
factor = (weights.numel() * 7) ** -0.5
print(f"factor 1/√(55,296 · 7) = {factor:.5f}")
print(
    f"gradient of the summed error: {scaled / factor:.0f} without the factor, {scaled:.1f} with it; s = 0.08"
)

# %% [markdown]
# It changes how *fast* the step moves, not where it should end. Adam divides by the size of the gradient anyway, so in the
# explorer you cannot see it. With plain gradient descent you do: here are both at one learning rate, 0.0005.


# %%
def descent(times, updates=20):
    """The step after each update of gradient descent, its gradient taken so many times."""
    q = lsq(4, step=0.08)
    path = [0.08]
    for _ in range(updates):
        (slope,) = torch.autograd.grad((q(weights) - weights).square().sum(), q.range.step)
        q.range.step.data -= 0.0005 * times * slope
        path.append(float(q.range.step.detach()))
    return path


# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
paths = {"with the factor": descent(1.0), "without": descent(1 / factor)}
for name, path in paths.items():
    print(f"{name:15} s = " + ", ".join(f"{s:.3f}" for s in path[:5]), "…")

# %% jupyter={"outputs_hidden": true}
qviz.plot.panels.curve(
    paths,
    references={"least error": twin.model.curves(twin.choice()).best},
    title="The step in gradient descent",
    x="update",
    y="step s",
)

# %% [markdown]
# With the factor the step goes down slowly, and would end near the dotted line. Without, one update throws it past 0, to a
# step that is no step, and the next ones back and forth.

# %% [markdown]
# ## PACT: one force
#
# [PACT](glossary.md#pact) ([Choi et al. 2018](https://arxiv.org/abs/1805.06085), section 3) learns the clip α = p s of
# activations after a ReLU instead, with ∂y/∂α = 1 above α and 0 below. It is older than LSQ and looks nearly the same.

# %% jupyter={"source_hidden": true}
Predict(
    "Without a regularizer PACT's clip minimizes the squared error, from a small start. Where is it after 120 iterations?",
    options=["below the best clip", "at the best clip", "beyond it, and still growing", "where it began"],
    answer="beyond it, and still growing",
    why="Below α the slope is 0: rounding errors do not reach the clip. Only clipped values pull, and always up.",
)

# %%
pact = StepExplorer(method="PACT", tensor="act_stem (real)", show=["step", "iteration", "decay"])
pact.step.value = 0.05
pact

# %% [markdown]
# Play it from a small step: the clip walks through the least error and goes on. The paper's answer is the regularizer
# λα², which pulls α down. Move **Decay λ** and play again. Is there a λ with which α ends near the least error?

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
twin = StepExplorer(method="PACT", tensor="act_stem (real)")
twin.step.value = 0.05
for decay in (0.0, 0.0001, 0.0003, 0.001, 0.002):
    twin.decay.value = decay
    twin.iteration.value = 120
    place, row = twin.model.place(twin.choice()), twin.data()["table"]["SQNR (dB)"]
    print(
        f"λ = {decay:.4f}   α = {place.learned:.2f}   {row['now']:.2f} dB, at best {row['least error']:.2f} dB"
    )

# %% [markdown]
# There is one, 0.0003, within 0.01 dB. But it is a *knob*: nothing tells you its value, and it differs from layer to
# layer. LSQ has the second force built in. (In a network the loss of the task pulls as well; here you see the quantizer
# alone.)

# %% [markdown]
# ## One step for a clear day and for fog
#
# Now activations of the shipped ResNet-20: what a layer reads of 20 images of CIFAR-10. Of every second image the
# contrast was lowered to 15 %, as fog does it. The images are real, the fog is ours.
#
# ASQ ([Zhou et al. 2025](https://arxiv.org/abs/2504.17263)) keeps one learned step s and multiplies it by a factor that
# depends on the input:
#
# $$s_a[n] = s\cdot\beta(x_n), \qquad \beta(x) = \mathrm{ReLU}(W_2\,\mathrm{ReLU}(W_1 z + b_1) + b_2),\quad
# z = \text{the mean of each channel}.$$
#
# One number for each image and layer, from two small linear layers, C → C/4 → 1 (the layout is that of the released code).
# It starts near β = 1, so training starts as LSQ. The function is `qviz.recipes.asq_activation`. Its gradients are
# ∂L/∂s = Σ β[n] G[n] / √(N p) and ∂L/∂β[n] = s G[n]. G[n] is the gradient that LSQ would have for image n alone, without
# its factor: the sum of ∂L/∂y · ∂y/∂s over the values of that image.

# %%
asq = StepExplorer(method="ASQ", show=["step", "iteration", "a", "b"])
asq.least.click()
asq

# %% [markdown]
# A is the image with the smallest best step of the 20, B the one with the largest. First be ASQ's opponent: with
# **Step** look for one step that serves both. The button **Least error** brings back the one that is best for all 20
# together.


# %%
def gain_of_a():
    """By how many dB the SQNR of image A grows with 120 iterations."""
    twin = StepExplorer(method="ASQ")
    twin.least.click()
    twin.iteration.value = 120
    row = twin.data()["table"]["A"]
    return row["SQNR, s β"] - row["SQNR"]


# %% jupyter={"source_hidden": true}
Predict(
    "At the one step with the least error of all images A has 22.2 dB. By how many dB will its own step be better?",
    answer=gain_of_a,
    unit="dB",
    within=1.0,
    why="Its best step is little more than half as large: the one step is chosen by the images with large values.",
)

# %% [markdown]
# Press play. In the third picture every image has a green triangle, its β (A a blue dot, B an orange square), and a
# gray dot, the β that would bring it to its own best step. Watch them go to the gray dots.

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
twin = StepExplorer(method="ASQ")
twin.least.click()
for iteration in (0, 20, 120):
    twin.iteration.value = iteration
    rows, whole = twin.data()["table"], twin.model.headline(twin.choice())
    told = "   ".join(f"{n}: β = {r['β']:.2f}, {r['SQNR, s β']:.1f} dB" for n, r in rows.items())
    print(f"iteration {iteration:3}   {told}   all: {whole['SQNR with s β(x) (dB)']:.1f} dB")
print(
    f"one step: A {rows['A']['SQNR']:.1f} dB, B {rows['B']['SQNR']:.1f} dB, all {whole['SQNR with one step (dB)']:.1f} dB"
)

# %% [markdown]
# A wins more than 4 dB, B a little more than 1 dB, all images together 1.1 dB. The sum is dominated by images with
# large values, which one step serves well anyway.

# %% [markdown]
# ## An honest limit: images it has not seen
#
# The small network has 1,057 parameters for this layer's 64 channels, and has seen 20 images. Does it know fog, or does
# it know these images? The same training on other images, and a test on 100 that were not used:

# %%
from qviz.nn import load_weights
from qviz.nn.capture import inputs
from qviz.nn.data.augment import CIFAR10_MEAN, CIFAR10_STD, normalize
from qviz.nn.models import create

net = load_weights(create("resnet20"), qviz.shipped.checkpoint("resnet20_fp32.safetensors"))
photos = qviz.shipped.cifar10_sample("train")[0]


def activations(first, count, fog):
    """What the layer reads of some images, every second one in fog if asked for."""
    images = photos[first : first + count].clone()
    if fog:
        images[1::2] = fogged(images[1::2])
    return inputs(net, [LAYER], normalize(images, CIFAR10_MEAN, CIFAR10_STD))[LAYER]


def trained(x, iterations=80):
    """ASQ's quantizer after some steps of Adam; every image counts the same."""
    torch.manual_seed(0)
    start = float(lsq(4, signed=False, start="mse").observe(x).range.scale)
    q = asq_activation(4, x.shape[1], step=start)
    groups = [
        {"params": [q.range.step], "lr": 0.02 * start},
        {"params": q.range.adapter.parameters(), "lr": 0.01},
    ]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.95))
    energy = x.flatten(1).square().sum(1)
    for _ in range(iterations):
        optimizer.zero_grad()
        loss = ((q(x) - x).flatten(1).square().sum(1) / energy).mean()
        loss.backward()
        optimizer.step()
    return q


# %% jupyter={"source_hidden": true}
Predict(
    "Trained on 20 clear images, without fog: what is left of ASQ's advantage over one step on 100 other clear images?",
    options=["all of it", "about half", "nothing to speak of"],
    answer="nothing to speak of",
    why="Clear images differ little in scale, and the network has learned the 20 images by heart. Fog is a difference "
    "that can be seen in the means of the channels, so there more is left.",
)

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
print("advantage over one step, in dB       on its images   on 100 others")
for fog in (False, True):
    others = activations(200, 100, fog)
    for count in (20, 100):
        x = activations(0, count, fog)
        one, q = lsq(4, signed=False, start="mse").observe(x), trained(x)
        with torch.no_grad():
            gains = [qviz.metrics.sqnr_db(v, q(v)) - qviz.metrics.sqnr_db(v, one(v)) for v in (x, others)]
        name = f"{count} images, {'half of them in fog' if fog else 'all clear'}"
        print(f"{name:36}{gains[0]:14.1f}{round(gains[1], 1) + 0.0:16.1f}")  # no minus zero

# %% [markdown]
# With fog the advantage is there on images that it has not seen. Without fog nothing is left: what it gained it had
# learned by heart. This is rounding error, not accuracy, and the training was short; but it shows what to check before
# you believe an adaptive quantizer: the advantage on *other* inputs, and how much inputs differ at all.
#
# Two more prices. The step is known only when the input is there: codes alone do not hold it, so `q.dequantize` refuses to
# turn them back into values (a `ValueError`).
# And the released network ends in a ReLU. Where its sum is negative, β is the floor of 1e-8, the output nearly 0, and
# the gradient exactly 0: it cannot come back. `mode="softplus"` is this project's remedy (INFERRED, not the paper's).

# %%
# NBVAL_CHECK_OUTPUT
x = activations(0, 4, fog=False)
for mode in ("paper", "softplus"):
    torch.manual_seed(0)
    q = asq_activation(4, x.shape[1], mode=mode, step=0.08)
    with torch.no_grad():
        q.range.adapter[-1].bias.fill_(-1.0)
    y = q(x)
    (slope,) = torch.autograd.grad((y - x).square().sum(), q.range.adapter[-1].bias)
    print(
        f"{mode:9} β = {float(q.range.beta(x).detach().mean()):.2g}   gradient is zero: {float(slope) == 0}"
    )

# %% [markdown]
# ## Exercises
#
# 1. By hand: x = (−0.2, 0.3, 0.9, 3), s = 0.25, β = 1.2, 3 bits without sign. What are the codes and the outputs? With
#    an upstream gradient of 1 for every output, what is ∂L/∂β?
# 2. Open `StepExplorer(bits=2)` and let LSQ run for 120 iterations. How far from the step with the least error does it
#    end, and what does that cost?
# 3. Choose the tensor `act_expand (real)` with ASQ. Each sample is one position of an image with 960 channels. By which
#    factor do the samples' best steps differ at most, and does β find them after 120 iterations?
#
# The next cell has the figures; its source and its output are folded in.

# %% jupyter={"source_hidden": true, "outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
q = lsq(3, signed=False, step=0.25 * 1.2)
x = torch.tensor([-0.2, 0.3, 0.9, 3.0])
(slope,) = torch.autograd.grad(q(x).sum(), q.range.step)
total = float(slope) * (4 * 7) ** 0.5
print(
    f"1: codes {q.codes(x).tolist()}, outputs {[round(v, 2) for v in q(x).tolist()]}, G = {total:.1f}, s G = {0.25 * total:.2f}"
)
two = StepExplorer(bits=2)
two.iteration.value = 120
row, curves = two.data()["table"]["SQNR (dB)"], two.model.curves(two.choice())
ratio = two.model.place(two.choice()).learned / curves.best
print(f"2: {ratio:.2f} times the best step, {row['least error'] - row['now']:.2f} dB")
three = StepExplorer(method="ASQ", tensor="act_expand (real)")
three.least.click()
three.iteration.value = 120
found, place = three.model.samples(three.choice()), three.model.place(three.choice())
whole = three.model.headline(three.choice())
ratio = float(found.best.max() / found.best.min())
print(
    f"3: best steps from {found.best.min():.3f} to {found.best.max():.3f}, a factor {ratio:.1f}; s β from",
    end=" ",
)
print(f"{float(place.steps.min()):.3f} to {float(place.steps.max()):.3f};", end=" ")
print(", ".join(f"{name.removesuffix(' (dB)')} {value:.1f} dB" for name, value in whole.items()))

# %% [markdown]
# <details><summary>Answer 1</summary>
#
# s β = 0.3, so u = (−0.67, 1, 3, 10), the codes are 0, 1, 3, 7 and the outputs 0, 0.3, 0.9, 2.1. Below the grid the slope
# is −n = 0, at u = 1 and 3 round(u) − u = 0, above it is p = 7. So G = 7, and ∂L/∂β = s G = 0.25 · 7 = 1.75.
#
# </details>
#
# <details><summary>Answer 2</summary>
#
# It ends at 1.04 times the best step and loses about 0.02 dB. With four levels the values do not fill the cells evenly,
# so the slope round(u) − u is not the true derivative on average.
#
# </details>
#
# <details><summary>Answer 3</summary>
#
# By a factor of 2.1. β finds them to within a few percent, and all samples together gain 1.2 dB. A position has no map to
# average over, so here the small network sees every value, not only means: 960 numbers a sample, and 20 samples to learn
# them from.
#
# </details>

# %% [markdown]
# ## What to read next
#
# [Powers of two](03-powers.ipynb) are the same paper's half for weights. In
# [training/cifar10-asq-post](training/cifar10-asq-post.ipynb) both are trained together, and in
# [training/cifar10-lsq](training/cifar10-lsq.ipynb) LSQ alone. The terms are in the [glossary](glossary.md).
