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
# # Watch a network learn to be quantized
#
# Quantization-aware training keeps two weights for each weight. The [*master weight*](glossary.md#master-weights) is a
# real number, and it is what the optimizer moves. The *quantized weight* is the level that the master is sent to, and
# it is what the network computes with. In this lesson you travel through recorded trainings, step by step. After it
# you can
#
# 1. tell the two weights apart, and say which of them a training step moves,
# 2. recognize [*oscillation*](glossary.md#oscillation), and say why it does not stop by itself,
# 3. tell a codebook that follows the weights from one that stays,
# 4. say why a quantized network may fail although its weights are fine, and mend it by re-estimating
#    [*BatchNorm*](glossary.md#batch-normalization),
# 5. record a training of your own and scrub through it.
#
# About 30 minutes. You need [lesson 00](00-start-here.ipynb); the straight-through estimator is the subject of
# [lesson 01](01-straight-through.ipynb), DAQ of [lesson 02](02-soft-rounding.ipynb), and ADQ's codebook of
# [lesson 05](05-codebooks.ipynb).

# %% [markdown]
# ## Two weights in one
#
# In the forward pass the master w becomes the level of the cell that it lies in. In the backward pass the
# [straight-through estimator](glossary.md#straight-through-estimator) acts as if it had not
# ([Bengio et al. 2013](https://arxiv.org/abs/1308.3432)):
#
# $$\hat w = Q(w), \qquad w \leftarrow w - \eta\,\frac{\partial L}{\partial \hat w} \qquad \text{(inside the grid)}$$
#
# So steps of any size add up in w, while ŵ stands still, until w passes the middle between two levels and ŵ jumps.
# `qviz.ste(bits)` is such a quantizer, and `q.codes(w)` says in which cell w lies.
#
# Four trainings come with this lesson. All start from the same trained ResNet-20, have weights and activations of 3
# bits, and see the same 2,000 images of CIFAR-10 for six epochs. 256 of the 9,216 weights of one layer were written
# down after each step.

# %%
import numpy as np
import torch

import qviz
from qviz.widgets import Predict, TimeMachine

machine = TimeMachine(show=["step"])
runs = machine.model.runs
ste = runs["STE"]


def moved(run):
    """The share of the recorded weights whose code is not the one that they started with."""
    return 100 * float((run.codes[-1] != run.codes[0]).mean())


# %% jupyter={"source_hidden": true}
Predict(
    f"{ste.steps[-1]} steps of STE. What share of the weights ends in another cell than it began in?",
    lambda: moved(ste),
    unit="%",
    within=5,
    why="Fine-tuning moves a master weight by a small part of a cell; only those near a border cross it.",
)

# %% [markdown]
# Now press play beside **Step**, or drag the dot in one of the lower pictures. Above, each stroke is a weight: its
# master is where it stands on the x axis, its level is the tread that it stands on. Strokes in red changed their
# code within the last ten steps. (DAQ quantizes weights less their mean, divided by their standard deviation, so its axes
# are in other units.) Below on the left one weight is followed in units of codes: 1.5 is the middle between the levels of
# the codes 1 and 2.

# %%
machine

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
print("run                     loss, first and last ten steps   in another cell   moved, in cells")
for name, run in runs.items():
    loss = [float(np.nanmean(part)) for part in (run.loss[1:11], run.loss[-10:])]
    way = float(np.abs(run.in_cells[-1] - run.in_cells[0]).mean())
    print(f"{name:22}  {loss[0]:17.2f}  {loss[1]:9.2f} {moved(run):17.1f} % {way:13.3f}")

# %% [markdown]
# The loss falls, and yet on grids that stand still most weights end in the cell that they began in. What changed is the few
# others, and whatever is learned besides the quantized weights (BatchNorm, the first and the last layer, scales). The last
# run is another case: there the levels themselves move, and with them the cells.

# %% [markdown]
# ## Oscillation
#
# The picture of the followed weight shows a master that hardly moves, and a code that jumps there and back. A weight
# *oscillates* at a step when its code changes in the direction opposite to the change before
# ([Nagel et al. 2022](https://arxiv.org/abs/2203.11086)). Why should it? Take a network of one weight,
# with levels at the whole numbers, whose loss is least at 0.3: L = ½ (ŵ − 0.3)². The best level is 0.

# %%
q = qviz.Quantizer(qviz.uniform(3), range=qviz.Fixed(1.0))


def one_weight(targets, rates, steps=1500):
    """Train one weight with STE, once for each target and rate; return masters and quantized weights by step."""
    targets, rates = (torch.tensor(numbers, dtype=torch.float64) for numbers in (targets, rates))
    w = torch.full_like(rates, 0.45, requires_grad=True)
    path = []
    for _ in range(steps):
        y = q(w)
        (gradient,) = torch.autograd.grad((y - targets).square().sum() / 2, w)
        path.append(torch.stack([w, y]).detach().clone())
        with torch.no_grad():
            w -= rates * gradient
    return torch.stack(path[500:]).movedim(1, 0).numpy()  # without the way to the border


# %% jupyter={"source_hidden": true}
Predict(
    "In which share of 1,000 steps is the quantized weight at 1, the worse of the two levels next to 0.3?",
    lambda: 100 * float((one_weight([0.3], [0.01])[1] == 1).mean()),
    unit="%",
    within=5,
    why="At 0 the gradient is −0.3, at 1 it is 0.7: the master goes up seven steps for each three down it takes.",
)

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
rates = [0.1, 0.01, 0.001]
master, quantized_weight = one_weight([0.3] * 3, rates)
for rate, w, y in zip(rates, master.T, quantized_weight.T, strict=True):
    print(
        f"rate {rate:5}: at 1 in {100 * (y == 1).mean():.0f} % of 1,000 steps, "
        f"{int((np.diff(y) != 0).sum())} changes of code, master within {np.ptp(w):.4f}"
    )

# %% [markdown]
# The mean of the quantized weight is 0.3, which no level can be. A smaller rate makes the master's path narrower, but
# the code jumps as often: with a smaller rate the border is nearer too. What ends the jumps in a training is that
# the rate falls to zero: look at the last steps in the fourth picture of the time machine. The next cell gives it more
# controls: another **Weight**, another **Curve**, another **Run B**.

# %%
machine.reveal("weight", "curve", "run_b")

# %% jupyter={"source_hidden": true}
Predict(
    "Of all changes of code in the STE run, which share took the last change of the same weight back?",
    lambda: 100 * float(ste.returned.sum() / ste.changed.sum()),
    unit="%",
    within=10,
    why="A weight's first change takes nothing back; after it, a weight near a border goes down if it went up.",
)

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
for name, run in runs.items():
    changes, returns = 9216 * run.changed.sum(), 9216 * run.returned.sum()
    thirds = [100 * part.mean() for part in np.array_split(run.changed[1:], 3)]
    print(
        f"{name:22} {changes:6.0f} changes, {returns / changes:.0%} of them back;"
        f" a step, by thirds of the run: {thirds[0]:.2f} %, {thirds[1]:.2f} %, {thirds[2]:.2f} %"
    )

# %% [markdown]
# ## A codebook that stays, a codebook that follows
#
# ADQ's levels are no parameters: no gradient reaches them. After each step every level is drawn to the mean of the
# weights in its cell ([Jia et al. 2025](https://arxiv.org/abs/2510.19760); the decay d and the order of update are
# **inferred**, the paper's abstract says "exponential moving average" only):
#
# $$c_k \leftarrow d\,c_k + (1 - d)\,\operatorname{mean}\{w : k(w) = k\}$$
#
# In `qviz.recipes.adq_weight` that is `codebook.after_step`. One of the two ADQ runs does it (d = 0.9), in the other
# the levels stay at the quantiles that they start with.

# %%
stays, follows = runs["ADQ, codebook stays"], runs["ADQ, codebook follows"]

# %% jupyter={"source_hidden": true}
Predict(
    "Which of the two has the smaller quantization error in the recorded layer at the end?",
    "the one that follows",
    options=["the one that stays", "the one that follows", "both have the same"],
    why="The mean of a cell is the level with the least squared error for the weights in it (Lloyd's condition).",
)

# %%
codebooks = TimeMachine(show=["step", "curve"])
codebooks.presets.value = "codebook that stays, codebook that follows"
codebooks

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
for run in (stays, follows):
    error = [
        np.linalg.norm(run.quantized[r] - run.master[r]) / np.linalg.norm(run.master[r]) for r in (0, -1)
    ]
    print(
        f"{run.name:22} error {error[0]:.1%} → {error[1]:.1%}   "
        f"top-1 on 2,000 test images {run.about['start_top1']:.1%} → {run.about['end_top1']:.1%}"
    )

# %% [markdown]
# ## BatchNorm remembers another network
#
# A [BatchNorm](glossary.md#batch-normalization) layer subtracts a mean and divides by a standard deviation. In eval
# mode it takes both from memory ([Ioffe and Szegedy 2015](https://arxiv.org/abs/1502.03167), algorithm 2):
#
# $$y = \gamma\,\frac{x - \mu_{\text{run}}}{\sqrt{\sigma^2_{\text{run}} + \varepsilon}} + \beta$$
#
# These running statistics are those of the network in floating point. Once the layers before it are quantized, x has
# another mean and another spread. `qviz.nn.reestimate_batchnorm` sets the memory anew from a few batches: no weight
# is touched, nothing is trained. `qviz.nn.calibrate` does it by itself, unless it is told `batchnorm=False`.
#
# DAQ at 4 bits, on the trained ResNet-20, with its grids set and nothing else done, is right on about one test image in
# ten, and that is guessing.

# %%
from qviz.nn import calibrate, convert, evaluate, fit, load_weights, reestimate_batchnorm
from qviz.nn.data import CifarLoader, cifar10
from qviz.nn.models import create

test = CifarLoader(cifar10("test", source="sample"), 250, limit=300)
train = CifarLoader(cifar10("train", source="sample"), 256, augment=False)
images, _ = next(train.batches(epoch=0))


def quantized(method, bits, batchnorm=True):
    """The shipped ResNet-20, quantized, with its grids set on 256 images."""
    net = load_weights(create("resnet20"), qviz.shipped.checkpoint("resnet20_fp32.safetensors")).train()
    convert(net, pair=qviz.recipes.pair(method, bits), batch=images)
    calibrate(net, images, batchnorm=batchnorm)
    return net


def accuracy(net):
    """The share of 300 test images that are right, in percent."""
    return 100 * evaluate(net.eval(), test)["top1"]


daq = quantized("daq", 4, batchnorm=False)
without = {"daq": accuracy(daq)}
statistics = daq.layer2[0].bn2
remembered = statistics.running_mean.clone(), statistics.running_var.clone()
reestimate_batchnorm(daq, images)
mended = {"daq": accuracy(daq)}

# %% jupyter={"source_hidden": true}
Predict(
    "And once BatchNorm's statistics are re-estimated on 256 training images? Its top-1:",
    lambda: mended["daq"],
    unit="%",
    within=10,
    why="The quantized weights and activations were good all the time; the network normalized by wrong numbers.",
)

# %% jupyter={"outputs_hidden": true}
for method in ("ste", "pact", "adq"):
    net = quantized(method, 4, batchnorm=False)
    without[method] = accuracy(net)
    reestimate_batchnorm(net, images)
    mended[method] = accuracy(net)
print("top-1 (%) of 300 test images, 4 bits, not trained")
for method, before in without.items():
    print(f"{method:5} BatchNorm of the float network {before:5.1f}   re-estimated {mended[method]:5.1f}")

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
print("better with BatchNorm re-estimated:", [name for name in mended if mended[name] > without[name]])

# %% [markdown]
# The next picture has a dot for each channel behind the recorded layer: the variance that BatchNorm remembered, and
# the one that it sees once the layers before it are DAQ's.

# %% jupyter={"outputs_hidden": true}
from qviz.plot import panels

pair = (remembered[1].log10(), statistics.running_var.log10())
wider = (statistics.running_var / remembered[1]).median()
shift = ((statistics.running_mean - remembered[0]).abs() / remembered[1].sqrt()).median()
print(
    f"median over the channels: variance {wider:.2f} times as large, mean {shift:.2f} standard deviations away"
)
panels.scatter(
    {"a channel": pair},
    title="Variance before BatchNorm, layer2.0.bn2",
    x="log10 of the remembered variance",
    y="log10 of the re-estimated one",
)

# %% [markdown]
# In the middle of the channels the variance is 1.4 times the remembered one, and the mean is 0.7 remembered standard
# deviations away; and the network has 19 BatchNorm layers, one after the other.
#
# STE hardly needs it: its grids put out values in the unit of what they take in. The weights of PACT's partner DoReFa
# end between −1 and 1, DAQ's levels too, whatever the trained weights were; DAQ's output scale corrects the mean size of
# a layer's output, not that of each channel. ADQ's N2UQ activations have a unit of their own.
#
# Training does the same by the way: in train mode BatchNorm normalizes by the batch and updates its memory, a tenth
# at each step. But weights that oscillate to the very end change what it should remember faster than it does; Nagel
# et al. therefore re-estimate it after training.

# %% [markdown]
# ## Record a training of your own
#
# A `LayerRecorder` writes down one layer. `fit` calls it after each step; in a loop of your own call
# `recorder(step, loss=...)`.

# %%
import tempfile
from pathlib import Path

from qviz.nn import LayerRecorder, TrainConfig

net = quantized("lsq", 3)
before = accuracy(net)
recorder = LayerRecorder(net, "layer3.0.conv1", name="LSQ, 3 bits")
batches = CifarLoader(cifar10("train", source="sample"), 64, limit=1280)
config = TrainConfig(epochs=1, batch_size=64, lr=0.005, q_lr=3e-3)
fit(net, batches, config, on_step=recorder, progress=False)
own = Path(tempfile.gettempdir()) / "my-training.safetensors"
recorder.recording().save(own)
TimeMachine(own)

# %%
# NBVAL_CHECK_OUTPUT
mine = recorder.recording()
print(f"{len(mine)} frames of {mine.codes.shape[1]} weights in {own.stat().st_size / 1000:.0f} kB")

# %% [markdown]
# Is the network better now? The accuracy is measured with BatchNorm's memory, so look at it twice:

# %%
after = accuracy(net)
reestimate_batchnorm(net, images)
print(
    f"top-1 of 300 test images: {before:.0f} % at the start, {after:.0f} % after {mine.steps[-1]} steps, ",
    end="",
)
print(f"{accuracy(net):.0f} % with BatchNorm re-estimated")

# %% [markdown]
# After twenty steps 0.9²⁰ = 12 % of the memory is still that of the network before, and the rest is a mixture of networks
# that are gone. Here that costs nothing that 300 images could show; without the second look you would not know. So before
# you judge a short training, let BatchNorm look again.

# %% [markdown]
# ## What these recordings do not show
#
# They are four runs of one network on 2,000 images, with one seed and one learning rate. That STE's loss is lower
# than DAQ's here says that DAQ starts farther away (its grids have no zero and its output scales have to be
# learned), not that it ends behind after the 400 epochs of its authors. The codebook that follows has a quarter less error in
# this layer, and both ADQ runs end at 86.7 %: the error of a layer's weights is not the accuracy. And the 256 weights
# are a sample: *changes* and *returns* are counted over the whole layer, the pictures are not.

# %% [markdown]
# ## Exercises
#
# 1. In the experiment with one weight let the target be 0.5, and then 1.0. In which share of the steps is the
#    quantized weight at 1? Does it oscillate in both cases? (The two cells below the answers have the figures of all
#    exercises; source and output are folded in.)
#
# <details><summary>Answer</summary>
#
# At 0.5 in half of the steps: both levels are equally wrong, and it changes at nearly every step. At 1.0 the gradient
# vanishes as soon as the weight is there; it stays, and nothing oscillates. Oscillation needs a best value between levels.
#
# </details>
#
# 2. In the run "ADQ, codebook follows" some codes change although the master stands still. How can that be? Count the
#    changes of code at which the master moved by less than a thousandth of a cell. (`follows.codes` and `follows.master` have
#    a row for each step, `follows.levels` the levels at each step.)
#
# <details><summary>Answer</summary>
#
# The levels move, and with them the borders: a border can pass a weight. Such are 50 of 212 changes in the pictures. With
# the codebook that stays only 5 of 140 are, by weights so near a border that less than a thousandth of a cell suffices.
#
# </details>
#
# 3. How many images does the re-estimation need? Give `reestimate_batchnorm` the first 8, 32 and 128 of `images` in
#    turn, and look at the accuracy of DAQ.
#
# <details><summary>Answer</summary>
#
# From 8 images 73 %, from 32 79 %, from 128 78 %, from all 256 82 % (a processor that adds in another order gives a point
# or two more or fewer): a handful of images is a poor estimate of a variance. Whether it grows beyond 32 cannot be said:
# one standard error of 80 % on 300 test images is 2.3 points. `calibrate` re-estimates from 64 images on.
#
# </details>

# %% jupyter={"source_hidden": true, "outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
targets = [0.5, 1.0]
for target, y in zip(targets, one_weight(targets, [0.01] * 2)[1].T, strict=True):
    print(
        f"target {target}: at 1 in {100 * (y == 1).mean():.0f} % of the steps, {(np.diff(y) != 0).sum()} changes"
    )
for run in (stays, follows):
    changed = np.diff(run.codes.astype(int), axis=0) != 0
    sigma = np.diff(run.levels, axis=1).mean()
    still = np.abs(np.diff(run.master, axis=0)) < sigma / 1000
    print(
        f"{run.name}: {changed.sum()} changes of code in the pictures, {(changed & still).sum()} with the master at rest"
    )

# %% jupyter={"outputs_hidden": true, "source_hidden": true}
for count in (8, 32, 128, 256):
    reestimate_batchnorm(daq, images[:count])
    print(f"DAQ, BatchNorm re-estimated on {count:3} images: {accuracy(daq):.0f} %")

# %% [markdown]
# ## Read next
#
# The notebooks in `training/` run whole schedules and draw the same curves from their History
# (`qviz.nn.History`), of all layers at once. Nagel et al. ([2022](https://arxiv.org/abs/2203.11086)) dampen
# oscillations, and freeze the weights that oscillate most. [Look inside your model](10-look-inside-your-model.ipynb), the
# next lesson, asks of a network that is bad which layer is to blame, and why.
