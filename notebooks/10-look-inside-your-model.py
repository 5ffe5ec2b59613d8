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
# # Look inside your model: which layer, why, and what would help
#
# "My quantized model is bad." That is where most work with quantization begins. The accuracy says *that* it is bad; this
# lesson is about *where* and *why*. After it you can
#
# 1. read the figures of a layer, and tell weight from input, and its own fault from what came before it,
# 2. say what *one layer alone* costs a network, and why these costs do not add up,
# 3. go from a cause in words to a remedy, apply it, and measure again,
# 4. inspect a transformer block, and name what in it is not quantized at all.
#
# About 40 minutes. You should have done [Start here](00-start-here.ipynb) and [Adaptive steps](04-adaptive-steps.ipynb).

# %%
import torch
from torch import nn
from torch.nn import functional

import qviz
from qviz import inspect
from qviz.inspection import panels
from qviz.nn.data.augment import CIFAR10_MEAN, CIFAR10_STD, normalize
from qviz.nn.models import create
from qviz.nn.weights import load_weights
from qviz.widgets import LayerExplorer, Predict

torch.set_grad_enabled(False)
network = load_weights(create("resnet20"), qviz.shipped.checkpoint("resnet20_fp32.safetensors")).eval()
images, labels = qviz.shipped.cifar10_sample("test")
batch = (normalize(images[:16], CIFAR10_MEAN, CIFAR10_STD).contiguous(), labels[:16])

# %% [markdown]
# ## One layer by itself
#
# A layer multiplies what it reads, x, with its weight, w. Quantized it multiplies Q(x) with Q(w). How far the output is off
# is a ratio in decibels, the [SQNR](glossary.md#sqnr) of the *output*:
#
# $$10 \log_{10} \frac{\sum y^2}{\sum (\hat y - y)^2}, \qquad y = w x, \quad \hat y = Q(w)\, Q(x).$$
#
# 20 dB are an error of a tenth, 0 dB an error as large as the signal. One [bit](glossary.md#bit-width) more is worth some
# 6 dB. With Q(w) x in place of ŷ it is the ratio of the weight alone, with w Q(x) that of the input alone.
#
# The explorer below opens the layer of the shipped ResNet-20 whose output suffers most with 4-bit
# [LSQ](glossary.md#lsq) as it is before any training. First a prediction, without looking further down.

# %%
explorer = LayerExplorer(show=["layer", "bits", "a_bits"])
opened = explorer.model.layers.fit(explorer.layer.value, explorer.choice().setting).outputs

# %% jupyter={"source_hidden": true}
Predict(
    "The weight has 36,864 values, bell-shaped. What it reads comes from a ReLU: most of it is 0, the rest has a long tail. "
    "Both get 4 bits. Which of the two spoils the output?",
    options=["the weight", "the input", "both alike"],
    answer=lambda: "the input" if opened.input < opened.weight - 3 else "the weight",
    why="The start of LSQ's step is 2 mean|x| / √15. The many zeros make the mean small, hence the step, and the levels end "
    "where the tail begins.",
)

# %%
explorer

# %% [markdown]
# The second picture has the reason: the levels end where the tail begins, and what lies beyond is [clipped](glossary.md#clip).
# (Of a long tail it shows the part near the levels; the legend says where the values end.)
# Now give the *weight* 8 bits (**Bits of w**). Almost nothing moves. Give the *input* more (**Bits of x**): now the output
# gets better. Drag the dot in the second picture to both sides of the last level: the words follow one product, from its two operands
# to the output that it is part of. Then click other rows of the table (or press Tab to a name in it, and Enter): the layers at the beginning
# of the network have the opposite trouble.

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
for name in ("layer3.2.conv2", "layer1.0.conv1"):
    explorer.layer.value = name
    for bits, a_bits in ((4, 4), (8, 4), (4, 8)):
        explorer.bits.value, explorer.a_bits.value = bits, a_bits
        db = explorer.model.headline(explorer.choice())["output, weight and input (dB)"]
        print(f"{name} W{bits}A{a_bits}: {db:3.0f} dB")
explorer.restore({})

# %% [markdown]
# ## All layers in the network
#
# The explorer hands each layer what it reads in the *float* network: the ratio of its output there is the
# [**local**](glossary.md#local-and-cumulative-ratio) one. In the quantized network a layer reads what the quantized layers
# before it give. The ratio of its output there is the **cumulative** one. `qviz.inspect` has both, for all layers, and what
# each layer costs the network's loss. (It sees 16 images here, the explorer four, so that figures differ by some dB.)

# %%
found = inspect(network, batch, recipe="lsq", bits=4, first_last="quantized", top=3, name="ResNet-20")

# %% jupyter={"source_hidden": true}
Predict(
    "layer1.1.conv1 has 15 dB by itself. The layers before it have 7 to 9 dB. How many dB has its output in the quantized "
    "network?",
    answer=lambda: found["layer1.1.conv1"].outputs.cumulative,
    unit="dB",
    within=3,
    why="What comes in is off already, and a layer multiplies what is wrong as well as what is right. No remedy at this layer "
    "would help.",
)

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
print(f"{'layer':16}{'weight':>8}{'input':>8}{'local':>8}{'cumulative':>12}   dB")
for layer in found.quantized:
    o = layer.outputs
    print(f"{layer.name:16}{o.weight:8.0f}{o.input:8.0f}{o.local:8.0f}{o.cumulative:12.0f}")

# %% jupyter={"outputs_hidden": true}
panels.ratios(found.quantized)

# %% [markdown]
# One would think that a layer has in the network what it has by itself, the solid line. It has the dashed one: from the
# third layer on 1 to 5 dB, whatever it does itself.
#
# **Its own fault, or what came before?** Read both together. Where both are low, the layer itself is bad:
# layer3.1.conv2, number 17. Where local is high and cumulative low, look further up: layer1.1.conv1, number 4. A shortcut
# brings what was added long before, so that errors pass around a good layer, too.
#
# ## What a layer costs
#
# Ratios say nothing about the answer of the network: an error that the next layers ignore costs nothing. Two figures do. *Alone*: quantize
# this layer and no other; how far does the loss rise? *Without*: quantize all but this one; how much of the loss is saved?

# %%
saved = sum(layer.sensitivity.off for layer in found.quantized)

# %% jupyter={"source_hidden": true}
Predict(
    "For each of the 20 layers: how much of the loss is saved if this one alone stays in floating point? Add that up. How "
    "does the sum compare with the rise of the loss with all of them quantized?",
    options=["less than half of it", "about equal", "more than twice as much"],
    answer=lambda: (
        "less than half of it"
        if saved < found.whole.loss / 2
        else ("more than twice as much" if saved > 2 * found.whole.loss else "about equal")
    ),
    why="Where 19 layers are bad, one good one saves little, and some nothing at all: what it hands on intact is spoiled "
    "behind it. Errors meet on the way; costs are not parts of a whole.",
)

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
costs = {layer.name: layer.sensitivity for layer in found.quantized}
dear = sorted(costs, key=lambda name: -costs[name].on)[:3]
print("the dearest three alone:", sorted(dear))
print("all 20 quantized:", round(found.whole.loss, 1))
print("sum of what each costs alone:", round(sum(cost.on for cost in costs.values()), 1))
print("sum of what each saves:", round(saved, 1))
helped = [name for name, cost in costs.items() if cost.on > 0.1 and cost.off < -0.1]
print("some cost more than 0.1 alone, and to leave them in floating point makes it worse:", len(helped) > 0)
least = min(found.quantized, key=lambda layer: layer.outputs.local).name
print(
    f"least dB by itself: {least}; to leave it in floating point makes the loss worse:", costs[least].off < 0
)

# %% jupyter={"outputs_hidden": true}
panels.costs(found.quantized, found.loss)

# %% [markdown]
# If costs were parts of a whole, the two lines would be one. Look where one would begin to mend: layer3.2.conv2, number 19,
# has the least dB of all, by itself and in the network. Quantized alone it costs as one would think. But left in floating
# point, with the 19 others quantized, it makes the loss *worse*.
#
# That the sum of the costs alone comes close is luck (exercise 4): nothing makes costs add up. The
# [bit budget](07-bit-budget.ipynb) lives on such a sum as an estimate, and therefore measures what it has chosen.
#
# **An honest limit.** Sixteen images are few, and in a network that gives most of them another class
# (`found.whole.agreement`), one layer set right may turn some answers the wrong way. So do not rank layers by a difference
# of a few tenths. These costs are those of the first 16 images that `inspect` is given, however many there are: call it again
# with others (it is a matter of seconds), and believe what several figures agree on.
#
# ## Causes and remedies
#
# For the worst layers `inspect` names causes. Each is a figure that passed its threshold, in a sentence. Under it is what
# was *tried* on the layer by itself, and what that gains:

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
worst = found["layer3.1.conv2"]
print("kinds of causes:", [cause.kind for cause in worst.causes][:1])
best = max((trial for trial in worst.trials if trial.gain is not None), key=lambda trial: trial.gain)
print(f"best: {best.what}, {best.gain:+.0f} dB")

# %%
for layer in found.worst(3):
    print(layer.name)
    for cause in layer.causes:
        print("   because", cause.text)
    for trial in layer.trials:
        if trial.gain is not None and trial.gain > 3:
            print(f"   tried: {trial.what}: {trial.gain:+.1f} dB")

# %% [markdown]
# One bit more is a remedy that costs something. The step of least squared error costs nothing: it is another start of the
# same quantizer. So apply it, to all inputs and weights, and inspect again.

# %%
pair = qviz.recipes.pair("lsq", 4, weight_options={"start": "mse"}, act_options={"start": "mse"})
mended = inspect(network, batch, pair=pair, first_last="quantized", sensitivity=False, top=0)

# %% jupyter={"source_hidden": true}
Predict(
    "layer3.1.conv2 had 4 dB by itself, and the whole network 2 dB. With the steps of least squared error the layer has 19 dB. "
    "How many dB has the network's output now?",
    answer=lambda: mended.whole.db,
    unit="dB",
    within=3,
    why="The first three layers have 9 to 15 dB by themselves, and behind them are 6 dB. All others hand that on, good as they "
    "are. A remedy for one layer is not yet one for the network.",
)

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
for name, one in (("before", found), ("after", mended)):
    local = one["layer3.1.conv2"].outputs.local
    print(
        f"{name:7} layer3.1.conv2 {local:3.0f} dB, network {one.whole.db:2.0f} dB, loss {one.whole.loss:+.1f}"
    )
for layer in mended.quantized[:3]:
    o = layer.outputs
    print(f"after   {layer.name:14} local {o.local:3.0f} dB, cumulative {o.cumulative:3.0f} dB")

# %% [markdown]
# What is left is the first layers' weights. A look at their channels tells more: go back to the explorer, open
# `layer1.0.conv2`, and set **Range** to *per channel* (`explorer.reveal("ranges")` puts the list on the page). The output
# gains some 7 dB, and the third picture shows why: with one step for all, set by the mean of all, the levels end where nine
# of 16 channels go on; a step for each channel follows them. `qviz inspect --per-channel` does that to all layers. After that
# comes training ([lesson 09](09-time-machine.ipynb)) or [PTQ](glossary.md#post-training-quantization), which choose steps
# and levels by what the network answers.
#
# ## A transformer block
#
# The same tools take any torch model. Here is a transformer block, small enough to read: six linear layers, four for the
# attention and two for the MLP. Its weights are random, but for one thing that trained transformers have and a random one
# lacks: a few *channels* of what the LayerNorm gives are far larger than all others (that is so in language models:
# [Dettmers et al. 2022](https://arxiv.org/abs/2208.07339), section 4; here 2 of 64 channels, 30 times, made by hand).


# %%
class Block(nn.Module):
    """Attention and MLP with four heads, LayerNorm before each."""

    def __init__(self, width=64, heads=4):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        n, tokens, width = x.shape
        h = self.norm1(x)
        q, k, v = (
            f(h).view(n, tokens, self.heads, -1).transpose(1, 2) for f in (self.query, self.key, self.value)
        )
        attention = (q @ k.transpose(2, 3) / (width / self.heads) ** 0.5).softmax(-1)
        x = x + self.out((attention @ v).transpose(1, 2).reshape(n, tokens, width))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


torch.manual_seed(0)
block, tokens = Block().eval(), torch.randn(16, 32, 64)
READS = ((block.norm1, (block.query, block.key, block.value)), (block.norm2, (block.up,)))
for norm, layers in READS:
    norm.weight[:2] *= 30
    for layer in layers:
        layer.weight[:, :2] /= 30
seen = inspect(block, tokens, pair=pair, first_last="quantized", sensitivity=False, top=1)

# %% jupyter={"source_hidden": true}
Predict(
    "Weights and inputs have 4 bits, with the steps of least squared error. Which of the six layers keep a usable output "
    "(more than 15 dB by themselves)?",
    options=["all six", "all but query, key, value and up", "none"],
    answer=lambda: {6: "all six", 2: "all but query, key, value and up", 0: "none"}[
        sum(layer.outputs.local > 15 for layer in seen.quantized)
    ],
    why="Query, key, value and up read the large channels: the step that holds them is so wide that the 62 others are "
    "read as 0. The two others read nothing so uneven. But their steps were set on what the spoiled layers before them hand "
    "on, and that is far smaller than what they read in the float network.",
)

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
for layer in seen.quantized:
    o = layer.outputs
    cut = layer.input.codes.saturated
    print(
        f"{layer.name:6} weight {o.weight:3.0f}, input {o.input:3.0f}, local {o.local:3.0f} dB, saturated {cut:4.0%}"
    )
print(*seen.notes, sep="\n")

# %% [markdown]
# Look at the last column: what `out` and `down` read in the float network lies beyond their levels. A float network is
# calibrated layer by layer, each on what the quantized layers before it give. So a low *local* ratio, too, can come from
# further up: mend the first bad layer first.
#
# The last line is what a table of layers hides. A quantized *layer* is a product of a weight and an input. The two
# products of attention, q·k and attention·v, have *no weight*: both factors are activations. They stay in floating point
# here, and so do softmax, LayerNorm, GELU and the sums of the shortcuts.
#
# How much is that? A token is multiplied once with each weight of the six layers; every *pair* of tokens takes 64
# multiplications, the width, in q·k and 64 more in attention·v. (The rest is not counted.)

# %%
weights = sum(part.weight.numel() for part in block.modules() if isinstance(part, nn.Linear))


def share(tokens):
    """How many percent of the block's multiplications have two factors of 4 bits."""
    return 100 * weights / (weights + 2 * 64 * tokens)


# %% jupyter={"source_hidden": true}
Predict(
    "With 32 tokens 92 % of the block's multiplications have two factors of 4 bits. How many percent have with 2,048 tokens?",
    answer=lambda: share(2048),
    unit="%",
    within=10,
    why="The work of the layers grows as the number of tokens, that of attention as its square.",
)

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
for count in (32, 384, 2048):
    print(f"{count:5,} tokens: {share(count):.0f} % of the multiplications have two factors of 4 bits")

# %% jupyter={"outputs_hidden": true}
many = torch.arange(32, 2049, 32)
qviz.plot.panels.curve(
    {"two factors of 4 bits": (many, share(many))},
    references={"what the name says": 100.0},
    title='A "4-bit" transformer block of width 64',
    x="tokens",
    y="share of multiplications (%)",
    ylim=(0.0, 106.0),
)

# %% [markdown]
# The share is half where there are six times as many tokens as the block is wide: 384 here, 24,576 in a block of width 4,096
# that is built like this one. So whoever says "4-bit transformer" should say what is included.
#
# Back to the four bad layers: the cause, in words, and what was tried:

# %%
print(*[cause.text for cause in seen.worst(1)[0].causes], sep="\n")
print(
    "best of what was tried:", f"{max(t.gain for t in seen.worst(1)[0].trials if t.gain is not None):+.1f} dB"
)

# %% [markdown]
# No other grid helps, no better step, not even a bit more. The trouble is *between* two layers: LayerNorm multiplies a channel by 30, and the
# next layer's weight divides it by 30. The network's function is the same if neither does. So move the factor g over, from
# LayerNorm into the weights that read it:
#
# $$w\,(g \odot \hat x + b) = (w \cdot \mathrm{diag}(g))\,(\hat x + b / g).$$
#
# This is what SmoothQuant does ([Xiao et al. 2023](https://arxiv.org/abs/2211.10438), section 4), with a part of the
# factor; here all of it is moved.

# %%
# NBVAL_CHECK_OUTPUT
before = block(tokens)
for norm, layers in READS:
    factor = norm.weight.clone()
    norm.weight /= factor
    norm.bias /= factor
    for layer in layers:
        layer.weight *= factor
print("the same function:", torch.allclose(block(tokens), before, atol=1e-4))
moved = inspect(block, tokens, pair=pair, first_last="quantized", sensitivity=False, top=0)
for layer in moved.quantized:
    o = layer.outputs
    print(f"{layer.name:6} {seen[layer.name].outputs.local:3.0f} -> {o.local:3.0f} dB")
print(f"the block {seen.whole.db:3.0f} -> {moved.whole.db:3.0f} dB")

# %% [markdown]
# `LayerExplorer(block, tokens)` opens any of these layers; so it does with a model of yours. On the command line the
# same report is `qviz inspect MODEL --recipe lsq --bits 4`, as text, with `--json FILE` or as a page with `--html FILE`.
#
# ## Exercises
#
# 1. A layer has 22 dB with the weight alone quantized and 12 dB with the input alone. Estimate, without a computer, what it
#    has with both. (The errors are independent: their squares add.)
# 2. In the explorer open layer2.2.conv1. Which of weight and input is to blame, and what does **Range** *per channel*
#    (`explorer.reveal("ranges")`) change? Why? Look at the ranges of the channels, and at where the levels end.
# 3. LayerNorm's factor went into query, key, value and up. Nothing was moved into `out` and `down`. Could it be?
# 4. Inspect ResNet-20 once more as in *All layers in the network*, on the images 32 to 47. Does the sum of what layers cost
#    alone still come close? Does the loss still get worse where layer3.2.conv2 is left in floating point?
#
# The next cell has the figures; its source and its output are folded in.

# %% jupyter={"source_hidden": true, "outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
noise = 10 ** (-22 / 10) + 10 ** (-12 / 10)
print(f"1: {-10 * torch.tensor(noise).log10():.1f} dB")
explorer.restore({"layer": "layer2.2.conv1"})
for ranges in ("per tensor", "per channel"):
    explorer.ranges.value = ranges
    figures = explorer.model.headline(explorer.choice())
    parts = [figures[f"output, {what} (dB)"] for what in ("weight alone", "input alone", "weight and input")]
    print(
        f"2: {ranges:11} weight alone {parts[0]:3.0f}, input alone {parts[1]:3.0f}, both {parts[2]:3.0f} dB"
    )
    fit = explorer.model.layers.fit(explorer.layer.value, explorer.choice().setting)
    dead, all_, widest = fit.weight.dead, fit.weight.channels, fit.weight.widest
    print(
        f"   {dead} of {all_} channels hold next to nothing, the widest {widest:.3f}; levels reach {fit.reach.max():.3f}"
    )
explorer.restore({})
others = (normalize(images[32:48], CIFAR10_MEAN, CIFAR10_STD).contiguous(), labels[32:48])
again = inspect(network, others, recipe="lsq", bits=4, first_last="quantized", top=0)
alone = sum(layer.sensitivity.on for layer in again.quantized)
print(f"4: sum {alone:.1f}, all quantized {again.whole.loss:.1f}; worse:", again[least].sensitivity.off < 0)

# %% [markdown]
# <details><summary>Answer 1</summary>
#
# 22 dB are a noise of 0.0063 of the energy, 12 dB one of 0.063: together 0.069, or 11.6 dB. The worse of the two decides;
# to mend the better one is wasted work.
#
# </details>
#
# <details><summary>Answer 2</summary>
#
# The weight. 28 of its 32 channels are as good as 0. They make the mean of |w| small, and with it the step of LSQ's start:
# the levels end at 0.011, and the widest channel reaches 0.127. It is the trouble of the many zeros behind a ReLU once more.
# With a step for each channel, a channel that counts has a step by its own mean.
#
# </details>
#
# <details><summary>Answer 3</summary>
#
# That takes something before the layer that a factor can be moved *out of*: a LayerNorm's gain, or another linear layer with
# nothing nonlinear in between. Before `down` there is a GELU, and GELU(g x) is not g GELU(x). For `out` it can be done, with
# another partner: v is linear, attention·v keeps a factor of each channel, so the rows of `value` can take it.
#
# </details>
#
# <details><summary>Answer 4</summary>
#
# The sum is about a third of the whole here. The loss still gets worse, but by 0.05 instead of 0.27: a sign that holds (on
# the images 16 to 31 and 48 to 63 too), and a size that says little.
#
# </details>

# %% [markdown]
# ## What to read next
#
# [Bit budget](07-bit-budget.ipynb) spends bits where a layer's cost is high; [Borders](08-borders.ipynb) and
# [training/ptq-aquant](training/ptq-aquant.ipynb) mend a layer after training; [Integers and
# tables](11-integers-and-tables.ipynb) exports what you have mended. The terms are in the [glossary](glossary.md).
