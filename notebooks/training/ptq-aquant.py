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
# # After training: from rounding to nearest to AQuant
#
# Post-training quantization has a trained network, some hundred images without labels, and minutes. This notebook takes
# the shipped ResNet-20 to 2-bit weights and 2-bit activations by one method after the other, each of which removes an
# error that the one before leaves, up to **AQuant**
# ([Li et al. 2022](https://arxiv.org/abs/2208.11945)): it learns *where an activation rounds up*, a border that depends
# on the value, instead of rounding at one half. Of that paper only three abstracts could be obtained. That its border is
# a function of the activation, coarse, and learned, is theirs; its form here is INFERRED, this project's choice.
#
# The first cell says what is about to be done. Change `SIZE` and run it again: `"smoke"` shows that everything works,
# `"laptop"` takes some minutes on two cores, `"full"` is what the ledger's rows are computed with.

# %%
import os

from qviz.nn.runs import PTQExperiment, ptq_contract

SIZE = os.environ.get("QVIZ_SIZE") or "laptop"  # "smoke", "laptop" or "full"
IMAGES, ITERATIONS, TESTED = {
    "smoke": (16, 2, 100),
    "laptop": (256, 300, 2_000),
    "full": (1_024, 1_000, 10_000),
}[SIZE]
experiment = PTQExperiment(
    method="aquant",
    w_bits=2,
    images=IMAGES,
    iterations=ITERATIONS,
    source=None if SIZE == "full" else "sample",
)
print(ptq_contract(experiment))
if SIZE == "smoke":
    print("\nA smoke run shows that everything works; its figures and pictures mean nothing.")

# %% [markdown]
# ## What is quantized
#
# First BatchNorm is folded into the convolutions, which changes nothing. Then each convolution gets four levels for its
# weights (a step and an offset for each output channel) and four for its input (one step). The first and the last layer
# get 8 bits. The sums at the shortcuts stay in floating point.
#
# The images are training images of this very network. Labels are read only at the end, of test images, to measure.

# %%
import copy
import time

import torch

from qviz.nn.data import cifar10
from qviz.nn.data.augment import CIFAR10_MEAN, CIFAR10_STD, normalize
from qviz.nn.ptq import Options, ptq
from qviz.nn.runs import prepare_ptq

ready = prepare_ptq(experiment)
data = cifar10("test", source=ready.source)
device = ready.images.device
test = normalize(data.images[:TESTED], CIFAR10_MEAN, CIFAR10_STD).to(device)
labels = data.labels[:TESTED].to(device)
nets, reports, seconds, top1 = {}, {}, {}, {}


@torch.no_grad()
def accuracy(net):
    """Top-1 of the test images, in percent."""
    found = torch.cat([net(x).argmax(1) for x in test.split(500)])
    return 100 * (found == labels).double().mean().item()


def climb(rung, **how):
    """Quantize the network and keep it, with what it reaches and the CPU time that it took."""
    began, net = time.process_time(), copy.deepcopy(ready.model)
    reports[rung] = ptq(net, ready.images, w_bits=2, source=ready.origin, show=SIZE == "full", **how)
    nets[rung], seconds[rung], top1[rung] = net, time.process_time() - began, accuracy(net)
    print(f"{rung:22} {top1[rung]:6.2f} % of {len(labels):,} test images, {seconds[rung]:6.1f} CPU-seconds")


top1["floating point"] = accuracy(ready.model)
climb("nearest", method="nearest")
print(reports["nearest"].conversion)

# %% [markdown]
# ## The ladder
#
# Nothing is learned by *nearest*: every step is set where the squared error of what it rounds is least. The next rungs
# take away one error each:
#
# | rung | what it does | the error that it removes |
# |---|---|---|
# | nearest | steps of the least squared error | what a badly chosen step would add |
# | nearest + BN | scales each channel so that its output has mean and standard deviation as in floating point | the *systematic* part: a shift and a shrinkage of whole channels, which the layers behind pass on |
# | closed form | GPTQ's sweep, descent, steps and biases by least squares | the part of a layer's error, from weights and from before, that other weights of the same output can make good |
# | AdaRound | learns for each weight whether it goes down or up, layer by layer | the same, without the restriction to one weight after the other |
# | BRECQ | the same for a residual block at once, with the activations' steps | errors of two layers that can cancel each other |
# | QDrop | the same while half of the activations stay unquantized at random | what fits the rounding errors of the calibration images, and of no others |
# | AQuant | learns a rounding border for each channel too | a part of the activations' rounding error |
#
# The first three need no learning rate. AdaRound sets biases too, as the closed form does.

# %%
from qviz.nn.ptq.adaround import adaround
from qviz.nn.ptq.bias import bias_correction
from qviz.nn.ptq.gptq import gptq


def stage(rung, function, **how):
    """Apply a stage to a copy of the network that rounds to nearest."""
    began, net = time.process_time(), copy.deepcopy(nets["nearest"])
    function(net, ready.images, reference=reports["nearest"].reference, **how)
    nets[rung], seconds[rung] = net, seconds["nearest"] + time.process_time() - began
    top1[rung] = accuracy(net)
    print(f"{rung:22} {top1[rung]:6.2f} % of {len(labels):,} test images, {seconds[rung]:6.1f} CPU-seconds")


stage("nearest + BN", bias_correction, std=True)
stage("closed form", gptq)
stage("AdaRound", adaround, iterations=ITERATIONS)

# %% [markdown]
# AdaRound's steps run no network: matrices of moments stand for the images. From here on the steps do, block by block,
# against what the block gives in floating point. Inputs come from the network as it is quantized so far, so each block
# also works against what was lost before it. A quarter of the images is held out: where a block, or the network's
# output, is worse on these than before, the block is put back.

# %%
climb("BRECQ", method="brecq", options=Options(iterations=ITERATIONS))

# %%
climb("QDrop", method="qdrop", options=Options(iterations=ITERATIONS, drop=0.5))
climb("AQuant", method="aquant", options=Options(iterations=ITERATIONS, drop=0.5))

# %% [markdown]
# The control belongs on the ladder too. A border moves the mean of what is rounded, and so does a bias. What is a border
# worth to a network whose biases are learned as well? So the last two rungs learn the convolutions' biases.

# %%
BIAS = 1e-2  # the learning rate of biases, as a share of the spread of their layer's output
climb("QDrop + biases", method="qdrop", options=Options(iterations=ITERATIONS, drop=0.5, bias_lr=BIAS))
climb("AQuant + biases", method="aquant", options=Options(iterations=ITERATIONS, drop=0.5, bias_lr=BIAS))

# %%
from qviz.plot import ptq as pictures

families = {
    "nearest, + BN": ("nearest", "nearest + BN"),
    "closed form": ("closed form",),
    "AdaRound": ("AdaRound",),
    "BRECQ": ("BRECQ",),
    "QDrop, + biases": ("QDrop", "QDrop + biases"),
    "AQuant, + biases": ("AQuant", "AQuant + biases"),
}
pictures.ladder(
    {name: [(seconds[rung], top1[rung]) for rung in rungs] for name, rungs in families.items()},
    references={"floating point": top1["floating point"]},
    title=f"2-bit weights and activations, {IMAGES:,} images, {ITERATIONS:,} steps a block",
)

# %% [markdown]
# One run each with one seed. So many test images leave a standard error, and another seed gives another figure: smaller
# differences say nothing. The control, as a table:

# %%
share = top1["QDrop"] / 100
print(f"standard error of QDrop's figure: {100 * (share * (1 - share) / len(labels)) ** 0.5:.2f} points")
print(f"{'':14}{'biases kept':>14}{'biases learned':>16}")
for name in ("QDrop", "AQuant"):
    border = "a border" if name == "AQuant" else "no border"
    print(f"{border:14}{top1[name]:14.2f}{top1[f'{name} + biases']:16.2f}")

# %% [markdown]
# ## Whose error is it?
#
# The error of a layer's product splits into three terms. With w' the quantized weight, x' the quantized input, ũ the
# input before it was quantized, and u the input in the floating-point network:
#
# $$w'x' - wu = \underbrace{(w'-w)\,x'}_{\text{weights}} + \underbrace{w\,(x'-ũ)}_{\text{activations}} + \underbrace{w\,(ũ-u)}_{\text{from before}}$$
#
# The picture has the mean squares of each, summed over a block's layers, on held-out images. They are not the parts of a
# cake: terms can cancel. Learning uses that. A term of the weights that *grows* while the whole falls is a block that
# makes good with its weights what rounding activations and the blocks before it did.

# %%
from qviz.plot.scene import Scene

results = reports["AQuant"].results


def parts(when):
    """The terms of the error of each block, before or after it was learned."""
    names = {
        "weight": "weights",
        "activation": "activations",
        "propagated": "from before",
        "total": "the whole",
    }
    return {
        name: [getattr(getattr(result, when), term) for result in results] for term, name in names.items()
    }


both = [value for when in ("before", "after") for row in parts(when).values() for value in row]
limits = 0.7 * min(value for value in both if value > 0), 1.4 * max(both)
blocks = [result.name for result in results]
Scene(
    "AQuant: error of each block's layers, on held-out images",
    tuple(
        pictures.parts_by_block(
            parts(when), names=blocks, title=f"{when.capitalize()} the block is learned", ylim=limits
        )
        for when in ("before", "after")
    ),
)

# %% [markdown]
# ## One border
#
# One layer of QDrop's network gets a border for each input channel, and nothing else is learned: weights, biases and step
# stay. A value between two levels goes up where its fraction lies above the border,
#
# $$B(v) = \sigma(b_0 + b_1 v + b_2 v^2), \qquad v = \text{activation} / \text{largest level}$$
#
# (INFERRED). The gate only measures here, so that there is a border to look at. Where the saw-tooth of the fractions
# crosses the border lies the *threshold* of the cell.

# %%
from qviz.methods.aquant import thresholds
from qviz.nn.capture import inputs
from qviz.nn.layers import QuantLayer
from qviz.nn.ptq import Block, Gate, add_borders, fold_borders, reconstruct

LAYER = "layer2.1.conv2"
held, learned_from = ready.images[: IMAGES // 4], ready.images[IMAGES // 4 :]
one = copy.deepcopy(nets["QDrop"])
others = [name for name, module in one.named_modules() if isinstance(module, QuantLayer) and name != LAYER]
add_borders(one, skip=others)
(result,) = reconstruct(
    one,
    learned_from,
    Gate(one, reports["QDrop"].reference, held, strict=False),
    blocks=[Block(LAYER, (LAYER,))],
    options=Options(iterations=ITERATIONS, weights=False, step_lr=0.0),
    show=False,
)
q = one.get_submodule(LAYER).input_quantizer
table = thresholds(q.rounding, q.codebook)  # (cells, channels)
print(
    f"{LAYER}: error on the images that it learned from {result.learned.first:.4g} -> {result.learned.hard:.4g}"
)
print("on held-out images,", result)

# %%
u = inputs(one, [LAYER], held)[LAYER] / q.range.scale.item()
channels = table.mean(0).argsort()[[0, table.shape[1] // 2, -1]].tolist()
at = torch.linspace(0, len(q.codebook) - 1, 301, device=device)
height = q.rounding.element(at.expand(1, table.shape[1], -1), q.codebook)[0].detach()
pictures.border(
    u,
    {f"channel {c}": (at, height[c]) for c in channels},
    {f"channel {c}": table[:, c] for c in channels},
    levels=len(q.codebook),
    title=f"{LAYER}: the borders of three of {table.shape[1]} channels",
)

# %% [markdown]
# Nobody computes a sigmoid at run time. As long as the activation minus its border rises, which the training guards, the
# border function is the same as a table: three thresholds for each channel, for four levels. The codes are the same.

# %%
before = q.codes(u * q.range.scale)
fold_borders(one)
print(f"codes that the table gives otherwise: {(q.codes(u * q.range.scale) != before).sum().item()}")
print("threshold of cell", *(f"{n:>8}" for n in range(len(table))))
print("nearest          ", *(f"{n + 0.5:8.3f}" for n in range(len(table))))
for c in range(0, table.shape[1], 4):
    print(f"channel {c:<9}", *(f"{cut:8.3f}" for cut in table[:, c].tolist()))

# %% [markdown]
# ## How much room is there?
#
# AQuant's abstract says that an activation should be rounded for the least error of the output, and not to the nearest
# level. How much is there to be won? For some test images an *oracle* chooses, for each single activation, floor or
# ceiling: layer after layer, so that each layer's output comes nearest to what it is in floating point. Weights and steps stay as AQuant left them. No network
# can run so, as the oracle looks at the answer of the very image; it is the room that any way of rounding moves in.

# %%
from qviz.nn.ptq import room
from qviz.plot.charts import scatter

few = {"smoke": 2, "laptop": 100, "full": 200}[SIZE]
found = room(nets["AQuant"], reports["AQuant"].reference, test[:few])
ways = {"nearest": "rounded to nearest", "own": "by the learned borders", "chosen": "chosen one by one"}
shares = {
    way: 100 * (getattr(found, way).argmax(1) == labels[:few]).double().mean().item()
    for way in (*ways, "floating")
}
sqnr, agreement = found.sqnr(), found.agreement()
for way, words in ways.items():
    print(
        f"{words:24} SQNR of the output {sqnr[way]:5.1f} dB, class as in floating point "
        f"{agreement[way]:6.1%}, top-1 {shares[way]:5.1f} %"
    )
print(f"{found.flipped:.0%} of the activations between two levels were not chosen to be the nearest")
scatter(
    {words: ([sqnr[way]], [shares[way]]) for way, words in ways.items()},
    references={"floating point": shares["floating"]},
    title=f"The room of activation rounding, {few} test images",
    x="SQNR of the output (dB)",
    y="top-1 (%)",
)

# %% [markdown]
# On networks that were learned for longer than a moment the room is large, and a border takes little of it. The oracle
# decides by what the *other* activations of the same output do, in this very image. A border sees the value alone: what
# it changes is, for each channel, a function of the value. A part of that is a shift of the mean, which a bias can give
# too, and that is why learned biases are the control.
#
# ## What did not work
#
# Blocks that the gate put back, if there are any: their own error, or that of the network's output, was larger on held-out images than
# before. A block's loss can fall while the network gets worse.

# %%
for rung, report in reports.items():
    taken = [result for result in report.results if not result.verdict.accepted]
    print(f"{rung}: {len(taken)} of {len(report.results)} put back" if report.results else f"{rung}: no gate")
    for result in taken:
        print(f"    {result}")
    if report.results:
        undecided = max(result.learned.undecided for result in report.results)
        print(f"    weights not decided before they were made hard: at most {undecided:.1%} of a block")

# %% [markdown]
# ## A network that is hard to quantize
#
# MobileNetV2 has depthwise convolutions, in which nine weights a channel are all that could make an error good, and no
# ReLU at the end of its blocks. At size `"full"`, where its published weights and the twenty photos are in the data
# folder, this cell shows how far the methods without learning get (about ten minutes). *Twenty photos measure no
# accuracy*: what is counted is how often the first class differs from the network's own in floating point.
#
# The photos are those that the methods looked at, and the closed form shows what that means. Its last layer has 1,280
# inputs and one place a photo, so least squares can meet the answers of twenty photos almost exactly. That is memory and
# no quality. Look at the blocks before it.

# %%
from qviz.nn.data import photo
from qviz.nn.models import create
from qviz.nn.weights import cache_dir, load_weights

file = cache_dir() / "weights" / "mobilenet_v2-b0353104.pth"
paths = sorted((cache_dir() / "imagenet-photos").glob("*.jpg"))
mobile = {}
if SIZE != "full" or not file.is_file() or len(paths) < 20:
    print("left out: not the full size, or no weights or photos in the data folder")
else:
    from qviz.measure.metrics import sqnr_db
    from qviz.nn.capture import tap
    from qviz.nn.ptq import find_blocks

    network = load_weights(create("mobilenet_v2"), file).eval()
    photos = torch.stack([photo(path) for path in paths])
    for w_bits in (8, 4):
        nearest = copy.deepcopy(network)
        report = ptq(nearest, photos, w_bits=w_bits, a_bits=8, method="nearest", show=False)
        reference = report.reference
        ends = [block.name for block in find_blocks(reference, photos[:2])[0]]
        with torch.no_grad(), tap(reference, ends) as wanted:
            out = reference(photos)
        for method, function in (
            ("nearest", None),
            ("bias correction", bias_correction),
            ("closed form", gptq),
        ):
            net = copy.deepcopy(nearest)
            if function is not None:
                function(net, photos, reference=reference)
            with torch.no_grad(), tap(net, ends) as seen:
                flips = (net(photos).argmax(1) != out.argmax(1)).sum().item()
            mobile[f"W{w_bits}A8 {method}"] = [
                sqnr_db(wanted[end].outputs[0], seen[end].outputs[0]) for end in ends
            ]
            print(
                f"W{w_bits}A8 {method:16} SQNR of the output {mobile[f'W{w_bits}A8 {method}'][-1]:5.1f} dB, "
                f"another first class for {flips} of {len(photos)} photos"
            )

# %%
from qviz.plot.charts import curve

if mobile:
    at = list(range(1, len(ends) + 1))
    shown = curve(
        {name: (at, values) for name, values in mobile.items()},
        title="MobileNetV2: from block to block",
        x="block",
        y="SQNR of the block's output (dB)",
    )
shown if mobile else None

# %% [markdown]
# ## What the ledger has
#
# All of CIFAR-10, more images, more steps, and more seeds: `qviz ptq --queue notebooks/training/ptq.toml` computes these
# rows, `qviz results` prints them. Here are those of this network at these bits.

# %%
from qviz.nn.runs import Ledger
from qviz.nn.runs.ledger import with_shipped
from qviz.nn.runs.tables import PTQ, table

rows = [
    row
    for row in with_shipped(Ledger())
    if row.kind == PTQ and (row.model, row.w_bits, row.a_bits) == (experiment.model, 2, 2)
]
print(table(rows) if rows else "the ledger has no such row yet")

# %% [markdown]
# ## The full schedule
#
# The same notebook with `SIZE = "full"`. Its contract:

# %%
from dataclasses import replace

print(ptq_contract(replace(experiment, images=1_024, iterations=1_000, source=None)))

# %% [markdown]
# ## Questions
#
# 1. `border="layer"` in the AQuant rung gives all channels one border, `"cell"` a number for each cell and channel. Which
#    part of the gain is the channels' own?
# 2. Give `gate=False` to the rung with the most blocks put back. Does the network end better or worse? Look at the
#    test images, then at the held-out error that the report has.
# 3. `w_bits=4` everywhere: which rungs are still worth their seconds?
