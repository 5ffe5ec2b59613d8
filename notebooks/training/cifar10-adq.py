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
# # ADQ on CIFAR-10: from sensitivities to bits to training
#
# Adaptive distribution-aware quantization ([Jia et al. 2025](https://arxiv.org/abs/2510.19760)) gives the weights of a
# layer a *codebook*: levels that start at quantiles of the weights and follow them by a moving average. Sensitive layers
# get more bits than others, under an average that must hold. Inputs are quantized with learned thresholds (N2UQ,
# [Liu et al. 2022](https://arxiv.org/abs/2111.14826)). The sensitivity measure, the candidate bits, the solver and the
# moving average's constants could not be obtained; they are INFERRED, this project's choices. The first cell says what
# the run is about to do and what may be expected of it. Change `SIZE` and run it again: `"smoke"` shows that everything
# works, `"laptop"` gives a result on two cores, `"full"` is the long schedule.

# %%
import os

from qviz.nn.runs import Experiment, contract

SIZE = os.environ.get("QVIZ_SIZE") or "laptop"  # "smoke", "laptop" or "full"
experiment = Experiment(
    recipe="adq",
    w_bits=3,
    a_bits=3,
    average_bits=2.81,
    size=SIZE,
    source=None if SIZE == "full" else "sample",
)
print(contract(experiment))

# %% [markdown]
# `prepare` does all that comes before training; the next sections go through it step by step, on the network as it was
# before it was quantized.

# %%
import copy

from qviz.nn import deconvert, evaluate
from qviz.nn.runs import prepare

ready = prepare(experiment)
fp32 = deconvert(copy.deepcopy(ready.model))
print(ready.report)

# %% [markdown]
# ## Sensitivities
#
# What does it cost to quantize layer l alone to b bits? Two answers:
#
# - **Fisher**: ½ Σ F (w − Q(w))², where F is the mean square of each weight's gradient. One backward pass a batch tells
#   it for all layers and bits, but it is an estimate to second order.
# - **loss rise**: quantize the layer, measure the loss, put it back. One evaluation for each layer and number of bits.

# %%
from itertools import islice

import numpy as np
from torch.nn import functional

from qviz import recipes
from qviz.nn.allocate import exact, fisher, greedy, loss_rise
from qviz.nn.runs.prepare import CALIBRATION, quantized_layers
from qviz.plot import panels
from qviz.plot.scene import Scene

batches = list(islice(ready.train.batches(0), CALIBRATION))
layers = quantized_layers(experiment, fp32, batches[0][0])
sizes = [fp32.get_submodule(name).weight.numel() for name in layers]
candidates = experiment.candidates


def loss(net, batch):
    """Cross-entropy of a network on a batch."""
    return functional.cross_entropy(net(batch[0]), batch[1])


estimated = fisher(fp32, layers, batches, loss, recipes.adq_weight, candidates).numpy()
measured = loss_rise(fp32, layers, batches[:1], loss, recipes.adq_weight, candidates).numpy()
number = np.arange(1, len(layers) + 1)
Scene(
    "What quantizing one layer costs",
    tuple(
        panels.curve(
            {f"{bits} bits": (number, omega[:, i]) for i, bits in enumerate(candidates)},
            x="layer",
            y=y,
            title=title,
        )
        for title, omega, y in (
            ("Fisher", estimated, "estimated cost"),
            ("Loss rise", measured, "rise of the cross-entropy"),
        )
    ),
)

# %%
for i, bits in enumerate(candidates):
    a, b = (np.argsort(np.argsort(omega[:, i])) for omega in (estimated, measured))
    print(
        f"{bits} bits: rank correlation of the two answers over the {len(layers)} layers {np.corrcoef(a, b)[0, 1]:5.2f}"
    )

# %% [markdown]
# ## Allocation
#
# The bits b of all layers together are to make Σ Ω(b) least, while their average, weighted by parameters, stays below
# the budget. *Greedy* spends bit by bit where a parameter-bit gains most; dynamic programming is *exact*. `prepare` uses
# the exact one, on the Fisher sensitivities.

# %%
budget = experiment.average_bits
found = exact(estimated, sizes, budget, candidates)
quick = greedy(estimated, sizes, budget, candidates)
for what, one in (("exact", found), ("greedy", quick)):
    print(
        f"{what:18} average {one.average:.4f} (layers counted alike: {one.unweighted:.2f})   total cost {one.total:.4g}"
    )
for i, bits in enumerate(candidates):
    print(f"{f'{bits} bits everywhere':18} average {bits:.4f}{'':31}total cost {estimated[:, i].sum():.4g}")
print(f"the same bits as in prepare: {found.bits == ready.allocation.bits}")
Scene(
    "Bits",
    (
        panels.by_layer(
            {"bits": found.bits},
            names=layers,
            y="bits of the weights",
            title=f"Allocation at {budget} bits on average",
            ylim=(0, 4.5),
        ),
        panels.curve(
            {
                "exact": (
                    budgets := np.linspace(2, 4, 21),
                    [exact(estimated, sizes, b, candidates).total for b in budgets],
                )
            },
            references={"3 bits everywhere": estimated[:, candidates.index(3)].sum()},
            x="average bits",
            y="total cost (Fisher)",
            title="What a budget buys",
        ),
    ),
)

# %% [markdown]
# ## The codebook
#
# For each sign the levels start at quantiles of the layer's weights, with zero between them: every level serves as many
# weights as the next. That is not where the squared error is least. The moving average draws each level to the mean of
# the weights that it serves, which is what Lloyd's algorithm does in whole steps. Here the weights stand still, and the
# average forgets quickly (0.9 instead of the 0.99 of training).

# %%
import qviz
from qviz.methods.adq import EMACodebook

LAYER = max(layers, key=lambda name: (found.bits[layers.index(name)], -layers.index(name)))
bits = found.bits[layers.index(LAYER)]
layer = ready.model.get_submodule(LAYER)
weight = layer.weight.detach().clone()
book, errors = EMACodebook(bits, decay=0.9), []
for _ in range(100):
    book.observe(weight)
    nearest = book.levels[(weight.double().flatten()[:, None] - book.levels).abs().argmin(1)]
    errors.append((weight.double().flatten() - nearest).square().mean().item())
best = qviz.lloyd(weight, bits)
grids = {
    "quantiles": layer.weight_quantizer,
    "100 averages later": qviz.Quantizer(qviz.Codebook(book.levels), range=qviz.Fixed(1.0)),
    "Lloyd": best,
}
Scene(
    f"{LAYER}, {bits} bits",
    (
        panels.levels(weight, grids),
        panels.curve(
            {"moving average": (np.arange(1, 101), errors)},
            references={"Lloyd": qviz.compare(weight, {"Lloyd": best})["Lloyd"].mse},
            x="averages",
            y="mean squared error",
            title="From quantiles to Lloyd",
        ),
    ),
)

# %% [markdown]
# ## Training
#
# Thresholds of the inputs learn by gradient: in a cell of width a the derivative of the output is the level gap over a,
# that of rounding up at random with the right expectation (the *generalized* straight-through estimator). Codebooks do
# not learn by gradient; they are averaged once a step. The run may be interrupted (the stop button) or killed: the same
# cell goes on from the last checkpoint. A smoke run starts anew each time.
#
# The held-out images are new to this run, but not to the shipped checkpoint that it starts from: that was trained on all
# 50,000 training images. Only the test images are unseen, and only on them is a comparison with the start fair; it
# stands at the end.
#
# Untrained networks come in two kinds. Batch normalization still has the FP32 network's statistics; a few forward passes
# over training images, no training, restate them for the network as it now is.

# %%
from torch.optim.swa_utils import update_bn

restated = copy.deepcopy(ready.model)
update_bn(batches, restated)
top1 = {
    "FP32, the start": evaluate(fp32, ready.test)["top1"],
    "ADQ, untrained": evaluate(ready.model, ready.test)["top1"],
    "ADQ, statistics restated": evaluate(restated, ready.test)["top1"],
}
for what, share in top1.items():
    print(f"{what:26} {share:7.2%} of {ready.test.samples:,} test images")
untrained = copy.deepcopy(layer.input_quantizer)

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
Scene(
    f"ADQ, {ready.allocation.average:.2f} bits on average",
    (
        panels.curve(history.lines("loss"), y="cross-entropy", title="Loss"),
        panels.curve(history.lines("top1"), y="top-1 (share)", title="Accuracy"),
    ),
)

# %% [markdown]
# ## What codebooks and thresholds did

# %%
Scene(
    f"{LAYER} while training",
    (
        panels.curve(
            {"levels": history[f"{LAYER}.weight_quantizer.codebook.levels"]},
            y="level",
            title="Codebook of the weights",
        ),
        panels.curve(
            {"knots": history[f"{LAYER}.input_quantizer.codebook.knots"]},
            y="knot",
            title="Knots of the inputs",
        ),
        panels.staircase((-0.2, 2.4), {"untrained": untrained, "trained": layer.input_quantizer}),
    ),
)

# %% [markdown]
# ## What came out

# %%
last = history.epochs[-1]
top1["ADQ, trained"] = last["test_top1"]
for what, share in top1.items():
    print(f"{what:26} {share:7.2%} of {ready.test.samples:,} test images")
print(
    f"weights {ready.allocation.average:.4f} bits on average, inputs {experiment.a_bits} bits; {last['minutes']:.1f} minutes"
)

# %% [markdown]
# ## The full schedule
#
# The same notebook with `SIZE = "full"`, or the command
#
#     qviz train --recipe adq --bits 3,3 --average-bits 2.81 --size full --seeds 0,1,2
#
# (add `--resume` after an interruption), which also writes a row of the ledger; `qviz results` prints the ledger. The
# paper reports 71.512 % on ImageNet for a ResNet-18 at 2.81 bits on average; its CIFAR-10 figures could not be obtained.

# %%
from dataclasses import replace

print(contract(replace(experiment, size="full", source=None)))

# %% [markdown]
# ## Questions
#
# 1. `sensitivity="loss_rise"` allocates by the other answer. Do the same layers get four bits?
# 2. `average_bits=None` gives every layer `w_bits` bits. Does mixed precision at 2.81 bits beat three bits everywhere?
# 3. `weight_options={"init": "uniform"}` or `{"init": "random"}` starts the codebook elsewhere, `{"decay": 0.0}` takes
#    whole Lloyd steps. What is left of the difference after training?
