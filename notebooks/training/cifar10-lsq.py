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
# # LSQ on CIFAR-10: learn the step
#
# Every convolution of a ResNet-20, but the first, gets 2-bit weights and 2-bit inputs, four levels each. How far apart
# the levels lie, the *step* s, is a parameter of the network that gradient descent moves like any other
# ([Esser et al. 2020](https://arxiv.org/abs/1902.08153)). The first cell says what this run is about to do and what may
# be expected of it. Change `SIZE` and run it again: `"smoke"` shows that everything works, `"laptop"` gives a result on
# two cores, `"full"` is the long schedule.

# %%
import os

from qviz.nn.runs import Experiment, contract

SIZE = os.environ.get("QVIZ_SIZE") or "laptop"  # "smoke", "laptop" or "full"
experiment = Experiment(recipe="lsq", w_bits=2, size=SIZE, source=None if SIZE == "full" else "sample")
print(contract(experiment))

# %% [markdown]
# ## What is quantized
#
# `prepare` loads the data and the FP32 weights, puts a quantizer before the weight and the input of each layer, and
# sets every step from the first *training* batch: s = 2 mean|x| / √q, q the largest level.

# %%
from qviz.nn.runs import prepare

ready = prepare(experiment)
print(ready.report)

# %% [markdown]
# ## One layer before training
#
# The bars are the layer's weights, and its inputs for the first batch; the ticks are the levels that LSQ starts with.
# Inputs come from a ReLU, so their levels start at zero.

# %%
from qviz.nn.capture import inputs
from qviz.plot import panels
from qviz.plot.scene import Scene

LAYER = "layer2.1.conv1"
layer = ready.model.get_submodule(LAYER)
images = next(iter(ready.train.batches(0)))[0]
x = inputs(ready.model, [LAYER], images)[LAYER]
w_before, s_before = layer.weight.detach().clone(), layer.weight_quantizer.range.scale.item()
Scene(
    f"{LAYER}: weights and inputs before training",
    (
        panels.levels(w_before, {"weights": layer.weight_quantizer}),
        panels.levels(x, {"inputs": layer.input_quantizer}),
    ),
)

# %% [markdown]
# Figures to hold against the result: the network in floating point, and the same weights with quantizers that nobody
# has trained yet. Of these there are two kinds: batch normalization still has the FP32 network's statistics, which is a
# part of the loss. A few forward passes over training images, no training, restate them for the quantized network.

# %%
import copy
from itertools import islice

from torch.optim.swa_utils import update_bn

from qviz.nn import deconvert, evaluate

restated = copy.deepcopy(ready.model)
update_bn(islice(ready.train.batches(0), 4), restated)
top1 = {
    "FP32, the start": evaluate(deconvert(copy.deepcopy(ready.model)), ready.test)["top1"],
    "2 bits, untrained": evaluate(ready.model, ready.test)["top1"],
    "2 bits, statistics restated": evaluate(restated, ready.test)["top1"],
}
for what, share in top1.items():
    print(f"{what:27} {share:7.2%} of {ready.test.samples:,} test images")

# %% [markdown]
# The start is also *chaotic*. Change every pixel by about a millionth of its value. In floating point the gradient hardly
# notices; with 2-bit rounding before every layer a few values fall on the other side of a border, the next layer sees
# that, and so on. Sums that are added up in another order (another number of threads, another processor) do the same. So
# a seed fixes this run on one machine with one number of threads and no further, and a result far from the expected one
# is no surprise.

# %%
import torch
from torch.nn import functional


def gradient(net, images, classes):
    """The gradient of the cross-entropy to all weights, as one vector."""
    net = copy.deepcopy(net).train()
    functional.cross_entropy(net(images), classes).backward()
    return torch.cat([p.grad.flatten() for name, p in net.named_parameters() if "quantizer" not in name])


images, classes = next(iter(ready.train.batches(0)))
noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
for what, net in (("FP32", deconvert(copy.deepcopy(ready.model))), ("2 bits, untrained", ready.model)):
    pair = [gradient(net, x, classes) for x in (images, images * (1 + 1e-6 * noise))]
    print(f"{what:18} cosine between the two gradients {functional.cosine_similarity(*pair, dim=0):.4f}")

# %% [markdown]
# ## Training
#
# The forward pass rounds; the backward pass pretends that it did not (straight-through). The step gets
#
# $$\frac{\partial y}{\partial s} = \begin{cases}\mathrm{round}(x/s) - x/s & \text{inside the grid}\\ \text{the end level} & \text{outside}\end{cases}$$
#
# times $1/\sqrt{n\,q}$, which brings its size near that of the weights' gradients. The run may be interrupted (the stop
# button) or killed: the same cell goes on from the last checkpoint. A smoke run starts anew each time.
#
# The held-out images are new to this run, but not to the shipped checkpoint that it starts from: that was trained on all
# 50,000 training images. Only the test images are unseen, and only on them is a comparison with the start fair; it
# stands at the end.

# %%
from qviz.nn import fit
from qviz.nn.runs import run_folder

history = fit(
    ready.model,
    ready.train,
    ready.config,
    val=ready.val,
    test=ready.test,
    folder=run_folder(experiment, ready.source),
    resume=True,
)

# %%
loss = panels.curve(history.lines("loss"), y="cross-entropy", title="Loss")
accuracy = panels.curve(history.lines("top1"), y="top-1 (share)", title="Accuracy")
Scene("LSQ, 2 bits", (loss, accuracy))

# %% [markdown]
# ## What the steps did
#
# Each line is one layer's step, divided by what it started with. Above 1 the levels moved apart: fewer values are cut
# off, the others are rounded more coarsely.

# %%
Scene(
    "Steps over their start",
    tuple(
        panels.curve(
            {f"{kind}s, one line a layer": history.layers(f"{kind}_quantizer.range.step", relative=True)},
            references={"start": 1.0},
            y="step / its start",
            title=f"Steps of the {kind}s",
        )
        for kind in ("weight", "input")
    ),
)

# %% [markdown]
# ## Weights that cannot decide
#
# The optimizer moves a *master* weight in floating point; the network sees its rounded twin. Left, in units of the
# step: of the few weights that are recorded in each layer, the two that changed their level most often. A master weight
# near a border between two levels (at a half) makes its twin jump there and back. Right: how often that happened so far,
# for each watched weight, on average over a layer (*oscillations*, [Nagel et al. 2022](https://arxiv.org/abs/2203.11086)).

# %%
import numpy as np


def in_steps(layer, kind):
    """A layer's recorded weights, "master" or "quantized", over its step at that time."""
    return (
        history[f"{layer}.weight.{kind}"][1]
        / np.abs(history[f"{layer}.weight_quantizer.range.step"][1])[:, None]
    )


jumps = {}
for row in ready.report.rows:
    if row.quantized:
        changed = (np.diff(np.rint(in_steps(row.name, "quantized")), axis=0) != 0).sum(0)
        jumps[row.name, int(changed.argmax())] = int(changed.max())
restless = sorted(jumps, key=jumps.get)[-2:]
print("changes of level:", ", ".join(f"{jumps[at]} of a weight of {at[0]}" for at in restless))
at = history[f"{LAYER}.weight.master"][0]
weights = panels.curve(
    {
        "master": (at, np.stack([in_steps(name, "master")[:, i] for name, i in restless], axis=1)),
        "level": (at, np.stack([np.rint(in_steps(name, "quantized")[:, i]) for name, i in restless], axis=1)),
    },
    y="weight / step",
    title="Two restless weights",
)
watched = ("layer1.0.conv1", LAYER, "layer3.2.conv2")
flips = panels.curve(
    {name: history[f"{name}.oscillations"] for name in watched},
    y="oscillations a weight",
    title="Oscillations so far",
)
Scene("Rounded weights while training", (weights, flips))

# %% [markdown]
# Did training move the weights towards the levels or towards the borders? In units of the layer's own step the levels
# are whole numbers and the borders lie in the middle between them.

# %%
s_after = layer.weight_quantizer.range.scale.item()
spread = {"before": w_before / s_before, "after": layer.weight.detach() / s_after}
for when, u in spread.items():
    inside = u[(u > -2) & (u < 1)]
    near = ((inside % 1 - 0.5).abs() < 0.1).float().mean().item()
    print(
        f"{when:6}  cut off {1 - inside.numel() / u.numel():5.1%}   within 0.1 steps of a border {near:5.1%}"
    )
print(f"evenly spread weights: 20.0%; the step went from {s_before:.4f} to {s_after:.4f}")
panels.histogram(
    spread,
    x="weight / step",
    xlim=(-3.5, 2.5),
    title=f"{LAYER}: weights in units of the step; levels at -2, -1, 0, 1",
)

# %% [markdown]
# ## What came out

# %%
last = history.epochs[-1]
top1["2 bits, trained"] = last["test_top1"]
for what, share in top1.items():
    print(f"{what:27} {share:7.2%} of {ready.test.samples:,} test images")
print(
    f"{last['epoch']} epoch(s), {last['minutes']:.1f} minutes; the last epoch is what counts, whatever came before it"
)

# %% [markdown]
# ## The full schedule
#
# The same notebook with `SIZE = "full"`, or the command `qviz train --recipe lsq --bits 2 --size full --seeds 0,1,2`
# (add `--resume` after an interruption), which also writes a row of the ledger. `qviz results` prints the ledger. The
# CIFAR-10 schedule is not the paper's, which has ImageNet only; where it comes from stands below.

# %%
from dataclasses import replace

print(contract(replace(experiment, size="full", source=None)))

# %% [markdown]
# ## Questions
#
# 1. Change `w_bits=2` to 3, then to 4. Which part of the gap to FP32 closes first?
# 2. `first_last="quantized"` quantizes the first and the last layer as well. What does that cost, for how many weights?
# 3. `w_bits=2, a_bits=32` quantizes weights only, `w_bits=32, a_bits=2` inputs only. Which of the two hurts more?
