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
# # ImageNet: any recipe, any of three networks
#
# The same steps as on CIFAR-10, for a ResNet-18, a ResNet-34 or a MobileNetV2 that starts from torchvision's published
# weights. `"full"` needs ImageNet (ILSVRC 2012) as `train/<wnid>/*.JPEG` and `val/<wnid>/*.JPEG` in the folder `imagenet`
# of the cache (`$QVIZ_DATA`, else `~/.cache/qviz`), and an accelerator. `"smoke"` and `"laptop"` run on a stand-in of
# the same shape that is made on the spot: 10 classes of CIFAR-10, enlarged. Its accuracies say nothing about ImageNet;
# it shows that everything works, on the real network. The first cell says what this run is about to do.

# %%
import os

from qviz.nn import cache_dir
from qviz.nn.runs import Experiment, contract
from qviz.nn.weights import PUBLISHED

SIZE = os.environ.get("QVIZ_SIZE") or "laptop"  # "smoke", "laptop" or "full"
RECIPE, BITS = "lsq", 4  # or ste, pact, daq, asq, pot, post, adq, aquant
MODEL = "mobilenet_v2"  # or resnet18, resnet34

here = (cache_dir() / "weights" / PUBLISHED[MODEL].rpartition("/")[2]).is_file()
START = (
    "published" if here or SIZE == "full" else "scratch"
)  # "published" downloads the file where it is missing
experiment = Experiment(recipe=RECIPE, w_bits=BITS, model=MODEL, data="imagenet", size=SIZE, start=START)
print(contract(experiment))
print(
    f"\ntorchvision's file of weights is {'here' if here else 'not here'}, so this run starts from {START} weights"
)

# %% [markdown]
# ## What is quantized
#
# Inputs of a *linear bottleneck* (MobileNetV2) may be negative and need a signed grid; recipes whose grid starts at zero
# take LSQ's there, and the report says so. Signs are found by looking at a training batch.

# %%
from collections import Counter

from qviz.nn.runs import prepare

ready = prepare(experiment)
rows = Counter((row.kind, row.w_bits, row.w_levels, row.a_levels, row.note) for row in ready.report.rows)
for (kind, w_bits, w_levels, a_levels, note), count in rows.items():
    weights = f"{w_bits} bits, {w_levels} levels" if w_levels else "in floating point"
    print(
        f"{count:3} {kind:17} weights {weights:18} inputs {f'{a_levels} levels' if a_levels else 'in floating point':18} {note}"
    )
print(str(ready.report).splitlines()[-1])

# %% [markdown]
# ## Two layers before training
#
# The first two quantized layers. In a MobileNetV2 the first of them is a *depthwise* convolution, one small filter for
# each channel, whose channels may differ widely in size: one step for all of them is too coarse for the small ones.

# %%
from qviz.nn.capture import inputs
from qviz.plot import panels
from qviz.plot.scene import Scene

quantized = [row for row in ready.report.rows if row.quantized][:2]
images = next(iter(ready.train.batches(0)))[0]
seen = inputs(ready.model, [row.name for row in quantized], images)
pictures = []
for row in quantized:
    layer = ready.model.get_submodule(row.name)
    largest = layer.weight.detach().abs().flatten(1).amax(1)
    print(
        f"{row.name} ({row.kind}): the largest |w| of a channel runs from {largest.min():.3g} to {largest.max():.3g}"
    )
    pictures += [
        panels.levels(layer.normalized_weight().detach(), {f"{row.name} weights": layer.weight_quantizer}),
        panels.levels(seen[row.name], {f"{row.name} inputs": layer.input_quantizer}),
    ]
Scene("Weights and inputs before training", tuple(pictures))

# %% [markdown]
# ## Training
#
# Photos are decoded by worker processes. A file that cannot be decoded is named and skipped. The run may be interrupted
# (the stop button) or killed: the same cell goes on from the last checkpoint. A smoke run starts anew each time.

# %%
from qviz.nn import evaluate, fit
from qviz.nn.runs import run_folder

untrained = evaluate(ready.model, ready.test)
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
STEP = "weight_quantizer.range.step"
pictures = [
    panels.curve(history.lines("loss"), y="cross-entropy", title="Loss"),
    panels.curve(history.lines("top1"), y="top-1 (share)", title="Accuracy"),
]
if any(name.endswith(STEP) for name in history.names):  # recipes with one learned step a layer
    pictures.append(
        panels.curve(
            {"weights, one line a layer": history.layers(STEP, relative=True)},
            references={"start": 1.0},
            y="step / its start",
            title="Steps of the weights",
        )
    )
Scene(f"{MODEL}, {RECIPE}, {BITS} bits", tuple(pictures))

# %% [markdown]
# The loss must fall, whatever the recipe: the mean over the last quarter of the steps lies below that over the first.

# %%
import numpy as np

loss = history["loss"][1]
quarter = max(1, len(loss) // 4)
first, last = float(np.mean(loss[:quarter])), float(np.mean(loss[-quarter:]))
print(
    f"training loss, mean of {quarter} steps: first {first:.3f}, last {last:.3f}; it fell by {first - last:.3f}"
)
assert last < first, "the loss did not fall"

# %% [markdown]
# ## What came out

# %%
row = history.epochs[-1]
for what, found in (("untrained", untrained["top1"]), ("trained", row["test_top1"])):
    print(f"{RECIPE}, {BITS} bits, {what:10} {found:7.2%} of {ready.test.samples:,} test images")
print(f"{row['minutes']:.1f} minutes; data: {ready.description}")

# %% [markdown]
# ## The full schedule
#
# The same notebook with `SIZE = "full"`, or the command (on several GPUs through `python -m torch.distributed.run`)
#
#     qviz train --recipe lsq --bits 4 --model mobilenet_v2 --data imagenet --size full --precision bf16
#
# (add `--resume` after an interruption), which also writes a row of the ledger; `qviz results` prints the ledger.

# %%
from dataclasses import replace

print(contract(replace(experiment, size="full", start="published")))

# %% [markdown]
# ## Questions
#
# 1. `RECIPE = "asq"` gives every channel of a weight its own step. For which of the two layers above does that matter?
# 2. `first_last="quantized"` quantizes the first and the last layer, as DAQ's paper does for MobileNetV2. How large a
#    part of the weights is the last layer in each of the three networks?
# 3. Which of the three networks would you expect to lose most at two bits, and why?
