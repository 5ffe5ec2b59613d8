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
# # ASQ and POST on CIFAR-10: a step for every image, powers of √2 for the weights
#
# [Zhou et al. 2025](https://arxiv.org/abs/2504.17263) bring two things together. **POST**: the levels of the weights are
# powers of √2, where POT has powers of two. **ASQ**: the step of the inputs is s·β, with β from a small network that
# looks at the image's own activations. Two ResNet-20 are trained here at W4A4, with POT and with POST weights; both
# have ASQ inputs. The first cell says what the runs are about to do and what may be expected of them. Change `SIZE` and
# run it again: `"smoke"` shows that everything works, `"laptop"` gives a result on two cores, `"full"` is the long
# schedule.

# %%
import os

from qviz.nn.runs import Experiment, contract

SIZE = os.environ.get("QVIZ_SIZE") or "laptop"  # "smoke", "laptop" or "full"
source = None if SIZE == "full" else "sample"
experiments = {
    name: Experiment(recipe=name.lower(), w_bits=4, size=SIZE, source=source) for name in ("POT", "POST")
}
print("\n\n".join(contract(experiment) for experiment in experiments.values()))

# %% [markdown]
# ## The levels
#
# Both grids have 15 levels within a clip α, one α for each output channel, learned. (The paper's level set has 17, one
# more than four bits can name: `weight_options={"grid": "paper"}`.)

# %%
# NBVAL_CHECK_OUTPUT
import qviz

for book in (qviz.pot(4), qviz.post(4)):
    print(
        f"{book.name:5}{len(book)} levels, {book.bits} bits; positive ones:",
        [round(v, 4) for v in book.levels.tolist() if v > 0],
    )

# %%
from qviz.nn.runs import prepare

ready = {name: prepare(experiment) for name, experiment in experiments.items()}
print(ready["POST"].report)

# %% [markdown]
# ## One layer before training
#
# The clips start where the squared error of their channel is least (INFERRED; the released code takes the 0.99 quantile
# of |w|, which at three bits is a poor start). Drawn are the levels of the channel with the median clip. The table has
# the error of the whole layer, each channel with its own clip.

# %%
from qviz.nn.capture import inputs
from qviz.plot import panels
from qviz.plot.scene import Scene

LAYER = "layer2.1.conv1"
layers = {name: prepared.model.get_submodule(LAYER) for name, prepared in ready.items()}
weight = layers["POST"].weight.detach().clone()
print(qviz.compare(weight, {name: layer.weight_quantizer for name, layer in layers.items()}))
panels.levels(weight, {name: layer.weight_quantizer for name, layer in layers.items()})

# %% [markdown]
# ## β, before training
#
# In each layer the small network pools an image's activations to one mean a channel and turns these into one number
# β ≥ 0. It is made to start near 1, so that training starts as plain LSQ.

# %%
import torch

images, labels = next(iter(ready["POST"].val.batches(0)))
adapted = [row.name for row in ready["POST"].report.rows if row.quantized]  # all inputs are non-negative here


def betas(prepared):
    """One β for each held-out image, in each quantized layer."""
    with torch.no_grad():
        seen = inputs(prepared.model, adapted, images)
        return {
            name: prepared.model.get_submodule(name).input_quantizer.range.beta(x).flatten()
            for name, x in seen.items()
        }


before = betas(ready["POST"])
least, most = (min(b.min() for b in before.values()), max(b.max() for b in before.values()))
print(f"β from {least:.3f} to {most:.3f} over {len(images)} images in {len(before)} layers")

# %% [markdown]
# Untrained networks come in two kinds. Batch normalization still has the FP32 network's statistics; a few forward passes
# over training images, no training, restate them for the network as it now is. What is left is for training to mend.

# %%
import copy
from itertools import islice

from torch.optim.swa_utils import update_bn

from qviz.nn import deconvert, evaluate

test = ready["POST"].test
top1 = {"FP32, the start": evaluate(deconvert(copy.deepcopy(ready["POST"].model)), test)["top1"]}
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
# The loss reaches β through the step, and through β the activations that it was made from: the gradient of β is that of
# the step, without LSQ's scaling. The runs may be interrupted (the stop button) or killed: the same cell goes on from
# the last checkpoints. Smoke runs start anew each time.
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
    "POT and POST, four bits",
    (
        panels.curve(losses, y="cross-entropy", title="Loss"),
        panels.curve(accuracies, y="top-1 (share)", title="Accuracy"),
    ),
)

# %% [markdown]
# ## β, after training
#
# Left: the β of each layer, on average over the held-out images; the band reaches from the smallest to the largest. Where
# it is thin, β has become one more factor of the layer's step, the same for every image. Right: what β makes of an image
# in the layer where images differ most. A large β is a coarse step that reaches far, so one would expect it where
# activations are large; the correlation says whether the network found it so.

# %%
after = betas(ready["POST"])
widest = max(after, key=lambda name: (after[name].max() - after[name].min()).item())
mean = inputs(ready["POST"].model, [widest], images)[widest].flatten(1).mean(1)
dead = sum(int((beta <= 1e-8).sum()) for beta in after.values())
print(f"β stuck at its floor (ReLU's dead zone): {dead} of {len(after) * len(images):,}")
print(
    f"{widest}: β from {after[widest].min():.3f} to {after[widest].max():.3f}, correlation with the mean activation "
    f"{torch.corrcoef(torch.stack([mean, after[widest]]))[0, 1]:.2f}"
)
number = range(1, len(after) + 1)
Scene(
    "β over the held-out images",
    (
        panels.curve(
            {
                when: (number, [beta.mean().item() for beta in found.values()])
                for when, found in (("before", before), ("after", after))
            },
            bands={
                when: (
                    [beta.min().item() for beta in found.values()],
                    [beta.max().item() for beta in found.values()],
                )
                for when, found in (("before", before), ("after", after))
            },
            references={"LSQ": 1.0},
            x="layer",
            y="β",
            title="β of each layer, and how far images differ",
        ),
        panels.scatter(
            {"after": (mean, after[widest])},
            x="mean activation of the image",
            y="β",
            title=f"β in {widest}",
        ),
    ),
)

# %% [markdown]
# ## What clips and steps did
#
# One line a layer, each divided by what it started with; of the clips of a layer's channels the mean.

# %%
import numpy as np

Scene(
    "What training moved",
    (
        panels.curve(
            {
                name: history.layers("weight_quantizer.range.clip.mean", relative=True)
                for name, history in histories.items()
            },
            references={"start": 1.0},
            y="mean clip α / its start",
            title="Clips of the weights",
        ),
        panels.curve(
            {
                name: history.layers("input_quantizer.range.step", relative=True)
                for name, history in histories.items()
            },
            references={"start": 1.0},
            y="step s / its start",
            title="Steps of the inputs",
        ),
    ),
)

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
p, n = top1["POST, trained"], test.samples
print(
    f"standard error that {n:,} test images leave: {100 * np.sqrt(p * (1 - p) / n):.2f} points; the spread over seeds comes on top"
)

# %% [markdown]
# ## The full schedule
#
# The same notebook with `SIZE = "full"`, or the command `qviz train --recipe post --bits 4 --size full --seeds 0,1,2`
# (add `--resume` after an interruption), which also writes a row of the ledger; `qviz results` prints the ledger. The
# released code has an ImageNet schedule only; the one for CIFAR-10 is INFERRED.

# %%
from dataclasses import replace

for experiment in experiments.values():
    print(contract(replace(experiment, size="full", source=None)), end="\n\n")

# %% [markdown]
# ## Questions
#
# 1. Try three bits. Which of the two grids would you expect to lose more, and where in `00-start-here` is the reason?
# 2. `recipe="asq"` keeps the inputs and gives the weights uniform levels (LSQ per channel). Is √2 worth it then?
# 3. `act_options={"mode": "softplus"}` has no dead zone. Would it change anything in the run above? (See the counts.)
