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
# # DAQ on CIFAR-10: round in the forward pass, look at the distance in the backward pass
#
# Distance-aware quantization ([Kim et al. 2021](https://arxiv.org/abs/2108.06983)) trains networks of very few bits,
# down to one bit for weights and inputs. Its forward pass is plain rounding; what is new is the derivative that stands
# in for it. Two ResNet-20 are trained here, W2A2 and W1A1. The first cell says what the runs are about to do and what
# may be expected of them. Change `SIZE` and run it again: `"smoke"` shows that everything works, `"laptop"` gives a
# result on two cores, `"full"` is the paper's schedule.

# %%
import os

from qviz.nn.runs import Experiment, contract

SIZE = os.environ.get("QVIZ_SIZE") or "laptop"  # "smoke", "laptop" or "full"
source = None if SIZE == "full" else "sample"
experiments = {f"W{b}A{b}": Experiment(recipe="daq", w_bits=b, size=SIZE, source=source) for b in (2, 1)}
print("\n\n".join(contract(experiment) for experiment in experiments.values()))

# %% [markdown]
# ## The slope
#
# Between two levels let t run from 0 to 1. Straight-through training takes the derivative of rounding to be 1 all over
# the cell. DAQ derives one: it scores both levels by their distance to x, prefers the nearer one with a Gaussian kernel
# of width σ, and takes a soft argmax. Its *temperature controller* makes the argmax as sharp as needed for the rescaled
# result to be the nearest level itself, and is a constant in the backward pass. The derivative that remains is
#
# $$\frac{\gamma}{2\sinh\gamma}\,\coth\!\left(\left|t-\tfrac12\right|+\frac{1}{2\sigma^2}\right),\qquad \gamma = 2,$$
#
# with σ = 1 for weights and 2 for inputs (the kernel's exponent is 1/σ², as in the released code; the text of the paper
# calls σ a standard deviation). So weights that are about to change their level get the largest gradient.

# %%
import torch

from qviz import Fixed, Quantizer, StraightThrough, probe, uniform
from qviz.methods.daq import SoftArgmax
from qviz.plot import panels
from qviz.plot.scene import Scene

u = torch.linspace(-0.5, 3.5, 1601, dtype=torch.float64)
surrogates = {
    "straight-through": StraightThrough(),
    "DAQ, σ = 1": SoftArgmax(sigma=1.0),
    "DAQ, σ = 2": SoftArgmax(sigma=2.0),
}
grid = uniform(2, signed=False)
probes = {name: probe(Quantizer(grid, surrogate=s, range=Fixed(1.0)), u) for name, s in surrogates.items()}
forward = panels.curve(
    {name: (u, p.y) for name, p in probes.items()}, x="x", y="y", title="Forward: one staircase"
)
backward = panels.curve(
    {name: (u, p.dydx) for name, p in probes.items()}, x="x", y="dy/dx", title="Backward: three slopes"
)
Scene("What DAQ changes", (forward, backward))

# %%
# NBVAL_CHECK_OUTPUT
same = all(torch.equal(p.y, probes["straight-through"].y) for p in probes.values())
print(f"the three outputs are the same, bit for bit: {same}")
t = torch.tensor([0.0, 0.1, 0.25, 0.4, 0.5], dtype=torch.float64)
print("t      " + "".join(f"{v:8.2f}" for v in t))
for sigma in (1.0, 2.0):
    print(f"σ = {sigma:.0f}  " + "".join(f"{v:8.4f}" for v in SoftArgmax(sigma=sigma).slope(t)))

# %% [markdown]
# A soft argmax at a *fixed* temperature β is another thing: its forward pass is not rounding, so the network that is
# trained is not the one that is tested. The controller is what closes this gap.

# %%
soft = {
    f"β = {beta:g}": Quantizer(grid, surrogate=SoftArgmax(beta=beta), range=Fixed(1.0), soft=True)
    for beta in (1, 5, 20)
}
panels.curve(
    {"rounding (DAQ)": (u, probes["DAQ, σ = 1"].y)} | {name: (u, q(u)) for name, q in soft.items()},
    x="x",
    y="y",
    title="Soft argmax at fixed temperatures",
)

# %% [markdown]
# ## What is quantized
#
# A layer standardizes its weights (mean 0, standard deviation 1, over the whole layer), cuts them off at learned bounds
# l and u that start at -3 and 3, and rounds to 2ᵇ even levels between -1 and 1: no zero among them, and only a sign at
# one bit. Inputs are cut off at 0 and a learned u that starts at 3 standard deviations. The layer's output is
# multiplied by a learned scale.

# %%
from qviz.nn.runs import prepare

ready = {name: prepare(experiment) for name, experiment in experiments.items()}
for name, prepared in ready.items():
    print(f"{name}: {str(prepared.report).splitlines()[-1]}\n")
print("\n".join(str(ready["W2A2"].report).splitlines()[:4]))

# %%
from qviz.nn.capture import inputs

LAYER = "layer2.1.conv1"
images = next(iter(ready["W2A2"].train.batches(0)))[0]
pictures = []
for name, prepared in ready.items():
    layer = prepared.model.get_submodule(LAYER)
    x = inputs(prepared.model, [LAYER], images)[LAYER]
    pictures += [
        panels.levels(layer.normalized_weight().detach(), {f"{name} weights": layer.weight_quantizer}),
        panels.levels(x, {f"{name} inputs": layer.input_quantizer}),
    ]
Scene(f"{LAYER} before training: standardized weights, and inputs", tuple(pictures))

# %% [markdown]
# The ticks mark the values that are sent to a level unchanged. What follows them is the level, not the value: the
# output lies in [-1, 1], or [0, 1], whatever the bounds are.

# %% [markdown]
# Untrained networks come in two kinds. Batch normalization still has the FP32 network's statistics; a few forward passes
# over training images, no training, restate them for the network as it now is. What is left is for training to mend.

# %%
import copy
from itertools import islice

from torch.optim.swa_utils import update_bn

from qviz.nn import deconvert, evaluate

test = ready["W2A2"].test
top1 = {"FP32, the start": evaluate(deconvert(copy.deepcopy(ready["W2A2"].model)), test)["top1"]}
for name, prepared in ready.items():
    restated = copy.deepcopy(prepared.model)
    update_bn(islice(prepared.train.batches(0), 4), restated)
    top1[f"{name}, untrained"] = evaluate(prepared.model, test)["top1"]
    top1[f"{name}, statistics restated"] = evaluate(restated, test)["top1"]
for what, share in top1.items():
    print(f"{what:26} {share:7.2%} of {test.samples:,} test images")

# %% [markdown]
# ## Training
#
# Weights learn with SGD, bounds and scales with Adam. The runs may be interrupted (the stop button) or killed: the same
# cell goes on from the last checkpoints. Smoke runs start anew each time.
#
# The held-out images are new to this run, but not to the shipped checkpoint that it starts from: that was trained on all
# 50,000 training images. Only the test images are unseen, and only on them is a comparison with the start fair; it
# stands at the end.

# %%
from qviz.nn import fit
from qviz.nn.runs import run_folder

histories = {}
for name, prepared in ready.items():
    histories[name] = fit(
        prepared.model,
        prepared.train,
        prepared.config,
        val=prepared.val,
        test=prepared.test,
        folder=run_folder(experiments[name], prepared.source),
        resume=True,
    )

# %%
losses, accuracies = {}, {}
for name, history in histories.items():
    losses |= history.lines("loss", name)
    accuracies |= history.lines("top1", name)
Scene(
    "DAQ, two bits and one bit",
    (
        panels.curve(losses, y="cross-entropy", title="Loss"),
        panels.curve(accuracies, y="top-1 (share)", title="Accuracy"),
    ),
)

# %% [markdown]
# ## What the bounds and scales did
#
# One line a layer, each divided by what it started with. The lower and upper bounds of the weights start at -3 and 3
# standard deviations. An output scale acts as its magnitude |s|; where its line dips, s ran through zero.

# %%
Scene(
    "Bounds and scales",
    (
        *(
            panels.curve(
                {
                    end: history.layers(f"weight_quantizer.range.{end}", relative=True)
                    for end in ("upper", "lower")
                },
                references={"start": 1.0},
                y="bound / its start",
                title=f"{name}: bounds of the weights",
            )
            for name, history in histories.items()
        ),
        panels.curve(
            {
                name: history.layers("input_quantizer.range.upper", relative=True)
                for name, history in histories.items()
            },
            references={"start": 1.0},
            y="bound / its start",
            title="Upper bounds of the inputs",
        ),
        panels.curve(
            {name: history.layers("output_scale", relative=True) for name, history in histories.items()},
            references={"start": 1.0},
            y="|s| / its start",
            title="Output scales",
            ylim=(0.1, 20),
            log=True,
        ),
    ),
)

# %%
upper = histories["W1A1"].layers("weight_quantizer.range.upper")[1][-1]
print(
    f"W1A1, upper bounds of the weights after {histories['W1A1'].steps} steps: {upper.min():.2f} to {upper.max():.2f}"
)
print("the authors' released W1A1 checkpoint, after 400 epochs:    2.48 to 2.87")

# %% [markdown]
# ## What came out

# %%
for name, history in histories.items():
    top1[f"{name}, trained"] = history.epochs[-1]["test_top1"]
for what, share in top1.items():
    print(f"{what:26} {share:7.2%} of {test.samples:,} test images")
minutes = ", ".join(
    f"{name} {history.epochs[-1]['minutes']:.1f} minutes" for name, history in histories.items()
)
print(f"{minutes}; the last epoch is what counts, whatever came before it")

# %% [markdown]
# ## The full schedule
#
# The same notebook with `SIZE = "full"`, or the command `qviz train --recipe daq --bits 1 --size full --seeds 0,1,2`
# (add `--resume` after an interruption), which also writes a row of the ledger; `qviz results` prints the ledger.

# %%
from dataclasses import replace

for experiment in experiments.values():
    print(contract(replace(experiment, size="full", source=None)), end="\n\n")

# %% [markdown]
# ## Questions
#
# 1. `act_options={"sigma": 1.0}` gives the inputs the weights' flatter slope. Does it matter more at one bit or at two?
# 2. With σ → ∞ the slope at t = ½ has no limit. What would a weight do that comes to lie there?
# 3. The output scale stands where LSQ multiplies by its step. Why can bounds and scale be learned apart here, and what
#    does the gradient of the bounds not see any more?
