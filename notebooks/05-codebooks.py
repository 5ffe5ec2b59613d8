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
# # Codebooks that follow the weights (ADQ)
#
# A uniform grid has one number to choose, its [step](glossary.md#step). A [codebook](glossary.md#codebook) has as many
# as it has [levels](glossary.md#level): each may lie anywhere. ADQ
# ([Jia et al. 2025](https://arxiv.org/abs/2510.19760)) gives every layer's weights such a codebook, and lets it follow
# them while they are trained. After this lesson you can
#
# 1. say where such a codebook should start, and how far from the best one that is,
# 2. do one update by hand, and say where many of them end,
# 3. say what moves the levels in training, and what does not,
# 4. read occupancy, entropy and perplexity, and recognize a dead level,
# 5. tell apart three details that codebooks are often got wrong by: the state after a start, the order, and smoothing.
#
# About 40 minutes. You need lesson 00. Run a cell with Shift+Enter; where it asks you to **predict**, do so first.

# %%
import torch

import qviz
from qviz.explore import CodebookModel
from qviz.measure import Measured
from qviz.methods.adq import EMACodebook
from qviz.widgets import CodebookExplorer, Predict

weights = qviz.shipped.tensor("expand").flatten()  # 55,296 weights of a layer of MobileNetV2


def error(book, w):
    """The mean squared error of a codebook's levels on some weights."""
    return qviz.metrics.mse(w, qviz.Quantizer(book, range=qviz.Fixed(1.0))(w))


# %% [markdown]
# ## Where to start
#
# With b bits ADQ has 2^b − 1 levels: zero, and m = 2^(b−1) − 1 for each sign. Each is a
# [quantile](glossary.md#quantile) of the weights of its sign (Jia et al., the codebook's initialization):
#
# $$c_0 = 0, \qquad c_{\pm i} = \pm\,\mathrm{quantile}_{p_i}\{|w| : \mathrm{sign}(w) = \pm\}, \qquad p_i = \frac{i - 1/2}{m}.$$
#
# Quantiles for each sign and the added zero are told by the published descriptions of the paper; the positions p_i could
# not be obtained and are **inferred** here. The function is `EMACodebook.observe`, when it is called first.

# %%
# NBVAL_CHECK_OUTPUT
book = EMACodebook(3)
book.observe(weights)
counts = qviz.metrics.occupancy(qviz.Quantizer(book, range=qviz.Fixed(1.0)), weights)
for level, count in zip(book.levels.tolist(), counts.tolist(), strict=True):
    print(f"level {level:7.4f}   serves {count / len(weights):5.1%} of the weights")

# %% [markdown]
# Quantiles put the levels where the weights are, so that none is idle: equal use would be 14.3 % each, and even the
# zero, between two close neighbors, serves 8.5 %. Does that make the [error](glossary.md#mse) small? The yardstick is
# the best that seven levels can do, wherever they are: *Lloyd's optimum*.

# %%
model = CodebookModel()
first = model.restored({"step": 0})

# %% jupyter={"source_hidden": true}
Predict(
    "The MSE of the quantile start on these weights, as a multiple of the least possible with seven levels?",
    answer=lambda: model.headline(first)["MSE ÷ least MSE"],
    unit="times",
    within=0.3,
    why="Equal use is not equal error: the weights far out are far from every quantile, and a square counts them most.",
)

# %% [markdown]
# Now move. **Start** chooses where the levels are at step 0: at quantiles, evenly spaced up to the largest weight
# ("uniform"), drawn at random from the weights, or where Lloyd's algorithm, also called *k-means*, comes to rest. In the
# first picture the blue ticks are the codebook, the orange ones Lloyd's optimum (the green ones, the start, matter later);
# drag the purple dot, one weight *w*, along the axis and read below the table what becomes of it. Do not touch **Step**
# yet.

# %%
explorer = CodebookExplorer(show=["start", "step", "w"])
explorer.step.value = 0
explorer

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
from dataclasses import replace

print("start      MSE ÷ least   perplexity")
for start in ("quantile", "uniform", "random", "k-means"):
    row = model.headline(replace(first, start=start))
    print(f"{start:9}  {row['MSE ÷ least MSE']:11.2f}   {row['perplexity']:10.2f}")
sse = Measured(qviz.recipes.adq_weight(3).observe(weights), weights).cells.sse
print(
    f"the two outermost quantiles make {float(sse[[0, -1]].sum() / sse.sum()):.0%} of the quantile start's error"
)

# %% [markdown]
# The quantiles have almost twice the least error, 86 % of it at the two ends, and still the highest *perplexity*
# (below we see what that is). The uniform start is worse. "k-means" is where the next section ends, so it is nearly
# perfect.
#
# (The explorer takes 4,096 quantiles of the 55,296 weights in place of all of them, so that it can answer at once; the
# cells with `weights` take all.)
#
# ## How the levels follow
#
# After each optimizer step, every level is drawn to the mean of the weights that it serves, by an
# [exponential moving average](glossary.md#exponential-moving-average) with the decay d:
#
# $$c_k \leftarrow d\,c_k + (1 - d)\,\mathrm{mean}\{w : k(w) = k\}, \qquad k(w) = \text{the nearest level}.$$
#
# A level that serves no weight stays, and zero is *pinned*: it stays exactly zero. That ADQ adapts its codebook by a
# moving average is published; the decay, the rule for unused levels and the pinned zero are **inferred**. The function is
# `EMACodebook.observe`, every time after the first. One update by hand:

# %%
# NBVAL_CHECK_OUTPUT
book = EMACodebook(2, decay=0.9)
book.observe(torch.tensor([-1.0, -1.0, 1.0, 1.0]))
print("start           ", book.levels.tolist())
moved = torch.tensor([-1.0, 2.0, 2.0])  # the weights have changed: the right cell's mean is 2 now
for step in range(1, 4):
    book.observe(moved)
    print(f"after update {step}  {[round(v, 4) for v in book.levels.tolist()]}")

# %% [markdown]
# 1.1 = 0.9 · 1 + 0.1 · 2. A tenth of the way that is left is made in every update.
#
# If the weights are at rest and you update again and again, each level ends as the mean of its cell. That is the
# condition of [Lloyd's algorithm](glossary.md#lloyds-algorithm): with d = 0 the update *is* a step of Lloyd's algorithm.

# %% jupyter={"source_hidden": true}
Predict(
    "The weights are at rest, and you update 100 times with d = 0.9. Where do the four starts end?",
    options=[
        "all exactly in Lloyd's optimum",
        "near Lloyd's optimum, but not all in the same place",
        "each near where it started",
    ],
    answer="near Lloyd's optimum, but not all in the same place",
    why="Every update makes a tenth of the way to the means of the cells, and the cells change on the way: the uniform "
    "start is still walking after 100 updates. The last exercise has a start that ends somewhere else altogether.",
)

# %% [markdown]
# Press play beside **Step** in the explorer above, with the start "random". Watch the third picture: the distance to
# Lloyd's optimum.

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
print("MSE ÷ least MSE with d = 0.9      " + "".join(f"{step:8}" for step in (0, 10, 30, 100)))
for start in ("quantile", "uniform", "random", "k-means"):
    at = [
        model.headline(replace(model.start, start=start, step=s))["MSE ÷ least MSE"] for s in (0, 10, 30, 100)
    ]
    print(f"{start:34}" + "".join(f"{ratio:8.3f}" for ratio in at))
at = [
    model.headline(replace(model.start, start="random", decay=0.0, step=s))["MSE ÷ least MSE"]
    for s in (0, 10, 30, 100)
]
print(f"{'random, d = 0: Lloyd, step by step':34}" + "".join(f"{ratio:8.3f}" for ratio in at))

# %% [markdown]
# ## What moves the levels in training?
#
# In PyTorch a module's numbers are *parameters*, which an optimizer moves, or *buffers*, which are only stored. A step of
# training has three lines: `loss.backward()`, `optimizer.step()`, and for a quantizer `q.after_step(w)`, which calls
# `observe`.

# %% jupyter={"source_hidden": true}
Predict(
    "One step of SGD on a layer with an ADQ codebook. What moves the levels?",
    options=[
        "optimizer.step(), along their gradient",
        "optimizer.step() a little, and after_step the rest",
        "after_step alone",
    ],
    answer="after_step alone",
    why="The levels are buffers: they get no gradient, and the optimizer does not know them. Adapted, not trained.",
)

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
w = torch.nn.Parameter(weights[:4096].clone())
x, target = torch.randn(64, 4096, generator=torch.Generator().manual_seed(0)), torch.zeros(64)
q = qviz.recipes.adq_weight(3, decay=0.9).observe(w)
optimizer = torch.optim.SGD([w, *q.parameters()], lr=0.01)
levels, before = q.codebook.levels.clone(), w.detach().clone()
torch.nn.functional.mse_loss(x @ q(w), target).backward()
optimizer.step()
print("parameters of the quantizer:  ", len(list(q.parameters())))
print("gradient reaches the weights: ", bool((w.grad != 0).all()))
print(f"step moved the weights by at most {(w.detach() - before).abs().max():.4f}")
print(f"step moved the levels by at most  {(q.codebook.levels - levels).abs().max():.4f}")
q.after_step(w)
print(f"then observe moved the levels by  {(q.codebook.levels - levels).abs().max():.4f}")

# %% [markdown]
# So there are two learners. The **weights** (the [master weights](glossary.md#master-weights), in full precision) get
# the gradient: ADQ passes it on unchanged, dL/dw = dL/dQ(w), also beyond the outermost level (**inferred**: the usual
# [straight-through estimator](glossary.md#straight-through-estimator) for codebooks). The **levels** get
# statistics. In a network `qviz.nn.adapt(model)` does the second after each optimizer step; a loop that forgets it keeps
# the start for ever.
#
# ## Weights that drift
#
# While the levels follow, the weights go on moving. Below they grow by 1 % a step. The green curve in the third picture
# is the start, frozen: what a codebook without the average would have. Play, then change **Decay**.

# %%
drifting = CodebookExplorer(show=["decay", "drift", "speed", "step"])
drifting.drift.value, drifting.step.value = "grow", 0
drifting

# %% jupyter={"source_hidden": true}
Predict(
    "The weights grow by 1 % a step, d = 0.99. At step 60, the MSE of the moving levels is how many times the least?",
    answer=lambda: model.headline(replace(model.start, drift="grow", decay=0.99, step=60))["MSE ÷ least MSE"],
    unit="times",
    within=0.5,
    why="With d = 0.99 a level makes a hundredth of the way in a step; so the weights run away from it.",
)

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
growing = replace(model.start, drift="grow", step=60)
print("weights grow by 1 % a step; MSE ÷ least MSE at step 60")
for decay in (0.0, 0.5, 0.9, 0.99):
    print(f"d = {decay:4}   {model.headline(replace(growing, decay=decay))['MSE ÷ least MSE']:.2f}")
print(f"frozen     {model.scene(growing).table.values['frozen']['ratio']:.2f}")

# %% [markdown]
# Why not d = 0 then? Here it is best: these weights move smoothly, and all of them are seen at every step, so there is
# no noise that an average would have to suppress. Weights in training move less evenly. ADQ's own d could not be
# obtained; our default 0.99 is a choice (**inferred**). The training notebook named at the end lets you try.
#
# ## Dead levels, and what perplexity means
#
# Now the weights are halved at once at step 20, as if another checkpoint had been loaded. The start
# is uniform with 15 levels.

# %%
halved = model.restored(model.presets["weights halve, outer levels die"])

# %% jupyter={"source_hidden": true}
Predict(
    "15 levels, uniform start, weights halved at step 20, d = 0.9. How many levels serve no weight at step 40?",
    answer=lambda: model.headline(halved)["dead levels"],
    within=1,
    why="No weight reaches the outer levels' cells any more, and a level without weights has no mean that could draw it.",
)

# %%
dying = CodebookExplorer(bits=4, show=["start", "step"])
dying.restore({**model.presets["weights halve, outer levels die"], "step": 19})
dying

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
for step in (19, 20, 40, 100):
    row = model.scene(replace(halved, step=step)).table.values["moving"]
    print(
        f"step {step:3}   dead {row['dead']} of 15   entropy {row['entropy']:.2f} bits   "
        f"perplexity {row['perplexity']:5.2f}   MSE ÷ least {row['ratio']:5.2f}"
    )

# %% [markdown]
# The [dead levels](glossary.md#dead-level) stay where they are, for ever: the same rule that keeps them from becoming
# NaN keeps them dead. [Perplexity](glossary.md#perplexity) is 2 to the [entropy](glossary.md#entropy) of the codes: so
# many levels *in equal use* would have this entropy. At step 40 nine levels are alive, and used so unequally that they count as
# about four.
#
# High perplexity is no aim in itself. The quantile start above has 6.85 of 7 with twice the least error; Lloyd's optimum
# has 6.07. A perplexity far *below* the number of levels is the alarm.
#
# ## Three details that go wrong
#
# **The state after a start.** The best known codebook in a network is that of VQ-VAE
# ([van den Oord et al. 2017](https://arxiv.org/abs/1711.00937), appendix A.1), whose levels are vectors. It averages two
# things for each level, the count N of what it serves and the sum M of that, and computes c = M / N. If the levels are
# then placed by k-means, N and M have to be set to match. Below, one update with d = 0.99 after a start at k-means, in
# numpy; it sees a batch of 140 of the weights, so that a level serves 20 of them on average.

# %% jupyter={"source_hidden": true}
Predict(
    "The levels were placed by k-means, but M and N = 20 are still those of other levels. One update with d = 0.99: "
    "what is left of k-means?",
    options=["nearly all of it, the update is small", "about half", "next to nothing"],
    answer="next to nothing",
    why="The levels are computed anew as M / N, and M and N remember the other levels. Where k-means had put them is not in it.",
)

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
import numpy as np

w, d = weights.double().numpy(), 0.99
placed = EMACodebook(3, init="k-means")
placed.observe(weights)
c = placed.levels.numpy()


def served(w):
    """How many of some weights each level of k-means serves, and the sum of these."""
    codes = np.searchsorted((c[1:] + c[:-1]) / 2, w)
    return np.bincount(codes, minlength=7), np.bincount(codes, w, minlength=7)


n, s = served(np.random.default_rng(1).choice(w, 140))  # of the batch
usual = served(w)[0] * 140 / len(w)  # of a batch on average
stale = np.random.default_rng(0).normal(0.0, w.std(), 7) * 20.0  # M as it was before k-means, N = 20
after = {}
for name, (count, total) in {
    "N, M of k-means": (usual, usual * c),
    "N, M of other levels": (np.full(7, 20.0), stale),
    "N = M = 0": (np.zeros(7), np.zeros(7)),
}.items():
    new = (d * total + (1 - d) * s) / (d * count + (1 - d) * n)
    after[name] = qviz.Quantizer(qviz.Codebook(np.sort(new)), range=qviz.Fixed(1.0))
    ratio = qviz.metrics.mse(weights, after[name](weights)) / error(placed, weights)
    print(f"{name:20} MSE after one update {ratio:6.2f} times that of k-means")

# %% [markdown]
# The picture has the levels behind these numbers: from below, where k-means put them, and where each state has them after
# the update.

# %% jupyter={"outputs_hidden": true}
from qviz.plot import panels

start = {"k-means": qviz.Quantizer(placed, range=qviz.Fixed(1.0))}
panel = panels.levels(weights, start | after)
replace(panel, title="Levels after one update", x=replace(panel.x, label="weight"))

# %% [markdown]
# The second has forgotten k-means. The third has no memory at all: its levels are the means of this one batch, the
# outermost ones of few weights. So it is the first: the average begins at the counts and sums of k-means. In qviz a level is
# its own state, so there is nothing that could be out of step.
#
# **The order.** "Quantize, then update" uses levels that have not seen the present weights; "update, then quantize" uses
# levels that have. In a layer of qviz, `adapt` comes after the optimizer, so the next forward pass has levels that have
# seen exactly these weights. What does the other order cost while the weights grow?


# %%
def errors(behind):
    """Steps 1 to 60, and MSE ÷ least at each, with levels that are some steps behind the weights."""
    moving, run, steps = model.moving(growing), model.run(growing), np.arange(1, 61)
    return steps, np.array([moving.mse(run.levels(k - behind), k) / moving.least(7)[k] for k in steps])


# %% jupyter={"source_hidden": true}
Predict(
    "The weights grow by 1 % a step, d = 0.9. By how many percent is the error larger if you quantize first, then update?",
    answer=lambda: 100 * (errors(1)[1].mean() / errors(0)[1].mean() - 1),
    unit="%",
    within=3,
    why="The levels are one step behind. With d = 0.9 they lag by several steps anyway, so one more adds little.",
)

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
print("mean MSE ÷ least over 60 steps:", end=" ")
print(f"update, then quantize {errors(0)[1].mean():.3f}; quantize, then update {errors(1)[1].mean():.3f}")

# %% jupyter={"outputs_hidden": true}
panels.curve(
    {"update, then quantize": errors(0), "quantize, then update": errors(1)},
    references={"least": 1.0},
    title="The order, while the weights grow",
    x="step",
    y="MSE ÷ least",
    ylim=(0.9, 2.1),
)

# %% [markdown]
# One step of lag, two percent of error. Little, but two programs that differ in it never agree: fix an order and say which.
#
# **Laplace smoothing.** To avoid 0 / 0 for a dead level, some implementations of VQ-VAE
# ([one of them](https://github.com/zalandoresearch/pytorch-vq-vae)) add a small ε to every N, and divide by a factor that
# is nearly 1. Take a level that dies: of the uniform start with 15 levels the one at 0.276 serves two of the weights, and
# none once they are halved.

# %% jupyter={"source_hidden": true}
Predict(
    "The level at 0.276 with N = 2 serves no weight any more. d = 0.9 and ε = 0.00001: where is it after 200 updates?",
    options=["at 0.276, as ε is so small", "near 0.2", "at 0"],
    answer="at 0",
    why="A dead level's N and M both shrink by d in each update, so M / N stays; but as soon as N is smaller than ε, "
    "M / (N + ε) falls to zero.",
)

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
uniform, epsilon = EMACodebook(4, init="uniform"), 1e-5
uniform.observe(weights)
level = float(uniform.levels[12])
count = qviz.metrics.occupancy(qviz.Quantizer(uniform, range=qviz.Fixed(1.0)), weights)[12]
left = int(count) * 0.9 ** np.arange(201)  # N after so many updates
smoothed = level * left / (left + epsilon)
for updates in (0, 50, 100, 130, 160, 200):
    print(f"{updates:3} updates: M / N = {level:.3f}   M / (N + ε) = {smoothed[updates]:.3f}")

# %% jupyter={"outputs_hidden": true}
panels.curve(
    {"M / N": np.full(201, level), "M / (N + ε)": smoothed},
    references={"the largest weight": float(weights.max() / 2)},
    title="A dead level, with and without smoothing",
    x="update",
    y="where the level is",
)

# %% [markdown]
# With smoothing a dead level wanders to zero: past the largest of the halved weights, dotted in the picture, to where most
# weights are, and may come to life there. Without, it stays. What
# ADQ does could not be obtained; qviz has no smoothing (**inferred**).
#
# ## On a network
#
# The shipped ResNet-20 (trained on CIFAR-10, full precision). The weights of its 18 inner convolutions and no
# activations are quantized to 3 bits, without any training; accuracy is on 500 test images.

# %%
import copy

from qviz.nn import load_weights
from qviz.nn.data.augment import CIFAR10_MEAN, CIFAR10_STD, normalize
from qviz.nn.models import create

images, labels = (part[:500] for part in qviz.shipped.cifar10_sample("test"))
images = normalize(images, CIFAR10_MEAN, CIFAR10_STD)
fp32 = load_weights(create("resnet20"), qviz.shipped.checkpoint("resnet20_fp32.safetensors")).eval()


@torch.no_grad()
def quantized(start, updates):
    """The relative error of all weights, and the accuracy with them."""
    network, noise, energy = copy.deepcopy(fp32), 0.0, 0.0
    for layer in [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)][1:]:
        w = layer.weight
        q = qviz.recipes.adq_weight(3, decay=0.9, init=start, generator=torch.Generator().manual_seed(0))
        for _ in range(1 + updates):
            q.observe(w)
        y = q(w)
        noise, energy = noise + float((y - w).square().sum()), energy + float(w.square().sum())
        w.copy_(y)
    return noise / energy, float((network(images).argmax(1) == labels).double().mean())


with torch.no_grad():
    accuracy = float((fp32(images).argmax(1) == labels).double().mean())
print(f"full precision: {accuracy:.0%}")

# %% jupyter={"source_hidden": true}
Predict(
    "Accuracy with the quantile start, no update (chance is 10 %)?",
    answer=lambda: 100 * quantized("quantile", 0)[1],
    unit="%",
    within=10,
    why="The outermost quantiles lie far inside, so that every large weight is cut down, in all 18 layers: 16 % of the "
    "weights' energy, the sum of their squares, is lost.",
)

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
results = {(start, n): quantized(start, n) for start in ("quantile", "uniform", "k-means") for n in (0, 100)}
print("start      updates   error (% of the weights' energy)   accuracy")
for (start, updates), (share, accuracy) in results.items():
    print(f"{start:9}  {updates:7}   {share:32.1%}   {accuracy:8.0%}")

# %% [markdown]
# 100 updates lift the quantile start from chance to three quarters of the images: that is what the average is for.
#
# **An honest limit.** Compare the uniform start after its updates with k-means: the error is *larger*, and the accuracy
# is *higher*. The squared error of the weights is what this whole lesson made small, and it is not what counts. And
# training evens most of it out. From the ledger that comes with the package: 3 bits for weights and activations, three
# epochs on 10,000 images, one seed each.

# %%
# NBVAL_CHECK_OUTPUT
import json

rows = json.loads((qviz.shipped.data_dir() / "results.json").read_text())["rows"]
for row in rows:
    if (
        row["method"] == "adq"
        and row["w_bits"] == row["a_bits"] == 3
        and row["note"].startswith("weights init")
    ):
        start, *frozen = row["note"].removeprefix("weights init ").split(", ")
        print(f"{start:9} {'frozen' if frozen else 'moving':7} {row['top1_mean']:.2f} %")

# %% [markdown]
# The quantile start with moving levels is the best of the six, the random start with frozen ones the worst, and between
# them lie 1.3 points. Each start is better with moving levels, by 0.2 to 0.9 points. One seed cannot tell such differences from
# chance. (These are our numbers; the paper's own on CIFAR-10 could not be obtained.)
#
# ## Exercises
#
# 1. Start at k-means and untick **Zero pinned** in a new explorer (`CodebookExplorer()`), for "expand (real)" and for
#    "depthwise_stride (real)". What does the pinned zero cost in error after 100 updates, and what is it good for?
# 2. In the first explorer, how many updates does it take with d = 0.9 until half of the excess error of the quantile start
#    (what is above 1) is gone? About how many will it take with 0.99, where **Step** ends too soon to show it?
# 3. Choose the tensor "depthwise_early (real)", 5 bits, start "uniform". How many of the 31 levels are dead at step 0?
#    Does the average revive any in 100 steps? Which start would you take instead?
#
# The next cell computes the answers; its source and output are folded in.

# %% jupyter={"source_hidden": true, "outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
for tensor in ("expand (real)", "depthwise_stride (real)"):
    free = replace(model.start, tensor=tensor, start="k-means", step=100, pinned=False)
    pinned = model.headline(replace(free, pinned=True))["MSE"] / model.headline(free)["MSE"]
    middle = model.run(free).levels(100)[3] / model.moving(free).std
    print(
        f"1. {tensor:24} pinned ÷ free {pinned:.2f}; the free zero ends at {middle:5.2f} standard deviations"
    )
for decay in (0.9, 0.99):
    book, least, ratios = EMACodebook(3, decay=decay), model.moving(model.start).least(7)[0], [2.0]
    values = model.moving(model.start).at(0)
    while len(ratios) < 3 or ratios[-1] > (ratios[1] + 1) / 2:
        book.observe(values)
        ratios.append(error(book, values) / least)
    print(
        f"2. d = {decay}: from {ratios[1]:.2f} to {ratios[-1]:.2f} times the least in {len(ratios) - 2} updates"
    )
early = replace(model.start, tensor="depthwise_early (real)", bits=5)
for start in ("uniform", "quantile", "k-means"):
    dead = [model.headline(replace(early, start=start, step=s))["dead levels"] for s in (0, 100)]
    ratio = [model.headline(replace(early, start=start, step=s))["MSE ÷ least MSE"] for s in (0, 100)]
    print(f"3. {start:8}  dead {dead[0]} → {dead[1]}   MSE ÷ least {ratio[0]:.1f} → {ratio[1]:.1f}")

# %% [markdown]
# <details><summary>Answer 1</summary>
#
# On "expand" next to nothing: its weights are symmetric, and the free level ends almost at zero anyway. On
# "depthwise_stride", whose weights lean to one side, the error is 28 % larger with the pinned zero. What it is good for: a
# weight that is exactly zero can be left out of the computation, and a channel that was pruned stays exactly zero.
#
# </details>
#
# <details><summary>Answer 2</summary>
#
# 18 updates with 0.9. With 0.99 about ten times as many, because each makes a hundredth of the way instead of a tenth;
# counted, they are 178. A short training can have too few updates for d = 0.99.
#
# </details>
#
# <details><summary>Answer 3</summary>
#
# Ten of 31, and none is ever revived. Even so keep it: it ends with the *least* error of the three. The quantiles
# have no dead level, but lie where most of these weights are, near zero, and the tails are very long. And "k-means", which
# starts from the quantiles, rests at 18 times the least error: Lloyd's steps end in a *local* optimum. The yardstick
# itself, `qviz.lloyd`, searches all divisions (dynamic programming), which is possible in one dimension only.
#
# </details>
#
# ## What to read next
#
# - Lesson 06, the other half of ADQ: activations, whose *thresholds* are learned and whose levels are uniform.
# - The training notebook `training/cifar10-adq.ipynb`: codebooks that follow a whole training, with mixed precision.
# - [Lloyd 1982](https://doi.org/10.1109/TIT.1982.1056489), nine pages that are still the best introduction.
