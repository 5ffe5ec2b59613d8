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
# # CIFAR-10 in floating point: where every other notebook starts
#
# A ResNet-20 for 32 × 32 pixels ([He et al. 2016](https://arxiv.org/abs/1512.03385), section 4.2), trained from random
# weights. The other notebooks here fine-tune the checkpoint that this project trained in the same way on all of
# CIFAR-10. The first cell says what this run is about to do and what may be expected of it. Change `SIZE` and run it
# again: `"smoke"` shows that everything works, `"laptop"` gives a result on two cores, `"full"` is the long schedule.

# %%
import os

from qviz.nn.runs import Experiment, contract

SIZE = os.environ.get("QVIZ_SIZE") or "laptop"  # "smoke", "laptop" or "full"
experiment = Experiment(recipe="fp32", size=SIZE, source=None if SIZE == "full" else "sample")
print(contract(experiment))

# %% [markdown]
# ## Data and network
#
# A training image is shifted by up to 4 pixels and mirrored every second time, then normalized: zero mean and unit
# variance over the data set. Which images a step sees, and how they are shifted, depends on the seed, the epoch and
# the step alone, so that an interrupted run goes on exactly where it stopped. The held-out images are training images
# that are not trained on; the test images are looked at once, after the last step.

# %%
from qviz.nn.runs import prepare

ready = prepare(experiment)
x, y = next(iter(ready.train.batches(0)))
print(f"one batch: {tuple(x.shape)}, mean {x.mean():.2f}, standard deviation {x.std():.2f}")
for name, part in ready.model.named_children():
    print(f"{name:8} {sum(p.numel() for p in part.parameters()):8,} parameters")
print(f"{'in all':8} {sum(p.numel() for p in ready.model.parameters()):8,}")
LAYER = "layer2.1.conv1"
random_weights = ready.model.get_submodule(LAYER).weight.detach().clone()

# %% [markdown]
# ## Training
#
# The learning rate climbs for 30 % of the steps and falls to almost nothing in the rest ("one cycle"). The run may be
# interrupted (the stop button) or killed: the same cell goes on from the last checkpoint. A smoke run starts anew each
# time.

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
from qviz.plot import panels
from qviz.plot.scene import Scene

loss = panels.curve(history.lines("loss"), y="cross-entropy", title="Loss")
accuracy = panels.curve(
    history.lines("top1"),
    references={"guessing": 0.1},
    y="top-1 (share)",
    title="Accuracy",
)
rate = panels.curve({"learning rate": history["lr"]}, y="learning rate", title="One cycle")
weights = panels.histogram(
    {"random": random_weights, "trained": ready.model.get_submodule(LAYER).weight},
    x="weight",
    title=f"Weights of {LAYER}",
)
Scene("ResNet-20, FP32", (loss, accuracy, rate, weights))

# %% [markdown]
# ## This run and the shipped checkpoint
#
# The shipped one has seen all 50,000 training images. Both are tested on the same images here.

# %%
from qviz import shipped
from qviz.nn import evaluate, load_weights
from qviz.nn.models import create

fp32 = load_weights(create("resnet20"), shipped.checkpoint("resnet20_fp32.safetensors"))
top1 = {
    "this run": history.epochs[-1]["test_top1"],
    "the shipped checkpoint": evaluate(fp32, ready.test)["top1"],
}
for what, share in top1.items():
    print(f"{what:24} {share:7.2%} of {ready.test.samples:,} test images")

# %% [markdown]
# ## Why the other notebooks train
#
# What if the shipped network's weights and inputs were simply rounded, without any training? Here with uniform levels,
# each layer's range searched for the least squared error on a training batch; first and last layer stay as they are.

# %%
import copy

from qviz import recipes
from qviz.nn import calibrate, convert

rounded = {}
for bits in (8, 4, 3, 2):
    net = copy.deepcopy(fp32)
    convert(net, pair=recipes.pair("ste", bits), batch=x)
    calibrate(net, x)
    rounded[bits] = evaluate(net, ready.test)["top1"]
    print(f"{bits} bits: {rounded[bits]:7.2%}")
panels.curve(
    {"rounded, not trained": (list(rounded), list(rounded.values()))},
    references={"FP32": top1["the shipped checkpoint"]},
    x="bits of weights and inputs",
    y="top-1 (share)",
    ylim=(0, 1),
    title="Rounding without training",
)

# %% [markdown]
# ## The full schedule
#
# The same notebook with `SIZE = "full"`, or the command `qviz train --recipe fp32 --size full --seeds 0,1,2` (add
# `--resume` after an interruption), which also writes a row of the ledger; `qviz results` prints the ledger.

# %%
from dataclasses import replace

print(contract(replace(experiment, size="full", source=None)))

# %% [markdown]
# ## Questions
#
# 1. Which part of the gap between the two networks above is due to fewer images, which to fewer steps? `images=900`
#    halves the images of this run, `overrides={"epochs": 60}` doubles its steps.
# 2. Leave the learning rate constant: `overrides={"schedule": "constant"}`. What does its fall at the end buy?
# 3. From how many bits downwards is rounding not enough? What else could be done before training the weights anew?
