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
# # Integers and tables: a network that you can hold
#
# In every lesson so far the quantized network computed in floating point: its weights were float32 numbers that
# happened to lie on a grid. Somebody who looks at the size of such a checkpoint is disappointed. Here the grid becomes
# real: bits on disk, integers in the accumulators, tables in place of formulas. After this lesson you can
#
# 1. pack [codes](glossary.md#code) into bytes by hand, and say what a network weighs, everything counted,
# 2. walk a dot product on codes: shifts, small products, or a table, and one multiplier for each
#    [accumulator](glossary.md#accumulator) at the end,
# 3. say what is left of a learned activation quantizer (N2UQ, AQuant, ASQ) when training is over,
# 4. check an integer network against the float one, and explain each code that differs,
# 5. count shifts, additions and multiplications, and judge a claim about them.
#
# About 35 minutes. You should have done [Start here](00-start-here.ipynb) and [Powers](03-powers.ipynb). Three methods
# appear by name that have lessons of their own: [ADQ](05-codebooks.ipynb), [N2UQ](06-thresholds.ipynb) and
# [AQuant](08-borders.ipynb); of them you need only what is said here.

# %%
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

import qviz
from qviz.export import compare_codes, costs, describe, load, pack, save, sizes
from qviz.nn import calibrate, convert, models, reestimate_batchnorm
from qviz.nn.data.augment import CIFAR10_MEAN, CIFAR10_STD, normalize
from qviz.plot import panels
from qviz.widgets import LutExplorer, Predict

torch.set_grad_enabled(False)
train, test = (
    normalize(qviz.shipped.cifar10_sample(split)[0][:count], CIFAR10_MEAN, CIFAR10_STD)
    for split, count in (("train", 64), ("test", 40))
)
about = {"shape": (3, 32, 32), "name": "resnet20", "mean": CIFAR10_MEAN, "std": CIFAR10_STD, "policy": "8bit"}


def resnet20(method, bits=4):
    """The shipped ResNet-20, quantized without training; the first and the last layer have 8 bits."""
    model = models.create("resnet20")
    model.load_state_dict(load_file(qviz.shipped.checkpoint("resnet20_fp32.safetensors")))
    model.eval()
    if method != "fp32":
        convert(model, pair=qviz.recipes.pair(method, bits), batch=train[:8], first_last="8bit")
        calibrate(model, train)
        reestimate_batchnorm(model, [(train,)])
    return model.eval()


METHODS = {"LSQ": "lsq", "POST": "post", "ADQ, N2UQ": "adq", "AQuant": "aquant"}
networks = {name: resnet20(method) for name, method in METHODS.items()}
exported = {name: describe(model, **about) for name, model in networks.items()}

# %% [markdown]
# Four networks with 4-bit weights and activations, each in a second: uniform grids (LSQ), powers of √2 with a step that
# reads the sample (POST with ASQ), a [codebook](glossary.md#codebook) with [thresholds](glossary.md#threshold) of its own
# (ADQ with N2UQ), and uniform weights with [borders](glossary.md#border) (AQuant). Nothing was trained here, so that
# levels, thresholds and borders are as [calibration](glossary.md#calibration) left them, and so is the accuracy. This lesson asks only whether they say *the same* on disk and
# in integers.
#
# ## A code is no byte
#
# A 3-bit [code](glossary.md#code) needs three bits, but files have bytes. `qviz.export.pack` lays codes one after the
# other without a gap, the lowest bit first:
#
# $$\text{stream} = \sum_i \mathrm{code}_i \cdot 2^{\,i b}, \qquad \text{byte}_j = \lfloor \text{stream} / 256^j \rfloor \bmod 256.$$

# %%
# NBVAL_CHECK_OUTPUT
codes = torch.tensor([5, 2, 7, 1], dtype=torch.uint8)
for i, code in enumerate(codes.tolist()):
    print(f"code {code} = {code:03b}, at bits {3 * i} to {3 * i + 2} of the stream")
packed = pack(codes, 3)
print("bytes:", " ".join(f"{byte:08b}" for byte in packed.tolist()), "=", packed.tolist())

# %% [markdown]
# Read each byte from the right: 101, 010, then 11 of the third code; its last 1 is the first bit of the next byte. (That
# a code lies across two bytes is the price of no gap.) Now eight weights of a real layer:

# %%
# NBVAL_CHECK_OUTPUT
weight = exported["LSQ"].layers["layer1.0.conv1"].weight
eight = weight.codes.flatten()[64:72]
print("codes ", eight.tolist())
print("levels", [int(weight.levels[code]) for code in eight.long()])
print("bytes ", [f"{byte:08b}" for byte in pack(eight, 4).tolist()])
print("32 bytes of floats, now", len(pack(eight, 4)))

# %% jupyter={"source_hidden": true}
Predict(
    "The shipped ResNet-20 is 1,084 kB of float32. Now the weights have 4 bits, those of the first and of the last of 20 "
    "layers 8. How many kB has the file, with everything that it needs?",
    answer=lambda: sizes(exported["LSQ"]).total / 1000,
    unit="kB",
    within=25,
    why="Codes are an eighth (the two layers with 8 bits are small). BatchNorm stays in floating point, and names, "
    "shapes and the list of steps are text, some 20 kB: the column *header* below.",
)

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
files = {name: sizes(network) for name, network in exported.items()}
print(f"{'bytes':12}{'codes':>10}{'tables':>10}{'adapter':>10}{'floats':>10}{'header':>10}{'file':>10}")
for name, size in files.items():
    parts = [
        sum(getattr(row, part) for row in size.rows) for part in ("codes", "tables", "adapter", "floats")
    ]
    parts[3] += size.others
    parts += [size.header, size.total]
    print(f"{name:12}" + "".join(f"{part:10,}" for part in parts))

# %% jupyter={"outputs_hidden": true}
tensors = {name: network.state_dict().values() for name, network in networks.items()}
panels.bars(
    {
        "4 bits a number": [size.parameters / 2000 for size in files.values()],
        "a checkpoint": [sum(value.nbytes for value in values) / 1000 for values in tensors.values()],
        "the file": [size.total / 1000 for size in files.values()],
    },
    names=list(files),
    title="What a 4-bit network weighs",
    y="kB",
)

# %% [markdown]
# A quantized network is not small by itself: a checkpoint of it (`torch.save`) holds float32 numbers, which only the
# quantizer puts on a grid, and more of them than before. The export makes it small, and its file is still more than 4-bit
# codes.
#
# The codes take as much for every method: the bits are *counted from the codes*, and 4 bits are 4 bits. What differs is
# the tables: levels, scales, thresholds. POST carries ASQ's small networks besides (the column *adapter*, in floating
# point), AQuant thresholds for each channel. A table of methods "at 4 bits" that leaves these out compares apples with pears.
#
# ## What is left of an activation quantizer
#
# LSQ divides by a learned step, N2UQ sums learned widths, AQuant computes a sigmoid of a polynomial. With none of them
# does the code fall when x grows (in AQuant's float32 arithmetic it may, for a number or two beside a border). So all
# that is left is *where the code changes*:
#
# $$\mathrm{code}(x) = \#\{\, k : T_k < x \,\}, \qquad \hat x = \mathrm{value}[\mathrm{code}].$$
#
# Two small tables. `qviz.export.layer_tables` finds each $T_k$ by asking the quantizer itself, for float32 numbers that
# are closer and closer, until two neighbors are left: one goes down, one goes up.

# %% jupyter={"source_hidden": true}
Predict(
    "AQuant's border is a sigmoid for each activation. How many exponentials does the exported network compute for one "
    "activation?",
    answer=0,
    within=0,
    why="The sigmoid only says where the code changes; the table has that already, for each channel.",
)

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
for name, network in exported.items():
    read = network.layers["layer2.1.conv1"].input
    adapts = "yes" if read.adapter else "no"
    print(f"{name:12} thresholds {tuple(read.borders.shape)!s:10} values {tuple(read.values.shape)!s:9} "
          f"step reads the sample: {adapts}")  # fmt: skip
read = exported["LSQ"].layers["layer2.1.conv1"].input
x = torch.tensor([[float(read.borders[4])]])
up = torch.nextafter(x, torch.tensor(torch.inf))
print(
    "a threshold itself has code", int(read.codes(x)), "and the next float32 number has", int(read.codes(up))
)

# %% [markdown]
# **One exception.** ASQ's step reads the sample ([lesson 04](04-adaptive-steps.ipynb)): a small network answers with a
# factor β for each image, and the step is s·β, with s learned. Its thresholds are in units of s·β, and the small network stays in floating point. Codes and
# sums are integers all the same.
#
# ## The dot product
#
# A layer is dot products. With codes the same sum is made of integers, and how depends on where the
# [levels](glossary.md#level) are (a is the activation's code, a whole number):
#
# | levels | one term adds | accumulators |
# |---|---|---|
# | multiples of one unit (LSQ, DAQ, APoT) | a small whole number times a | one |
# | powers of two (POT) | a, shifted | one |
# | powers of √2 (POST) | a, shifted | two, even and odd |
# | anywhere (ADQ, NF4) | a itself | one for each level |
# | anywhere, by a table | a product that is looked up | one |
#
# POST and its two accumulators are [lesson 03](03-powers.ipynb)'s equation ([Zhou et al. 2025](https://arxiv.org/abs/2504.17263);
# that its authors' [look-up table](glossary.md#look-up-table) holds products is INFERRED, this project's reading). Begin with numbers that can be
# done in the head.

# %%
easy = LutExplorer(show=["term", "weight", "activation"])
easy.numbers.value = "easy numbers"

# %% jupyter={"source_hidden": true}
Predict(
    "w = 0.7071 = 2^(−1/2) is level number 6 of 7 magnitudes, a = 2. In units of 1/8 a weight of 1/8, the smallest "
    "magnitude, adds a itself. What is added to the odd sum?",
    answer=lambda: easy.model.walk(easy.choice()).added[2],
    within=0,
    why="w = 2^(−j/2) with j = 1, which is odd: 2^(−1/2) = 2^0 / √2, in eighths a shift by 3: 2 << 3 = 16. The 1/√2 comes at the end, once.",
)

# %% [markdown]
# Press play, or move **Term**. In the fourth picture the bits of the activation move to the left; the sums are in
# [two's complement](glossary.md#twos-complement). Then type another weight.

# %%
easy

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
easy.term.value = 8
for number, row in easy.data()["table"].items():
    print(f"{number}: w {row['w']:7.4f}, a {row['a']:2}: {row['added']:4} to {row['accumulator']}")
print("sums:", easy.model.walk(easy.choice()).accumulators(8), "of eighths")
easy.term.value = 1

# %% [markdown]
# Now real numbers: eight weights of a layer of MobileNetV2, and what they read. Step through **Method** at the last term,
# and look at the line *Multipliers and shift* under the table, which the next section explains. (Multipliers are short
# here, to be readable.)

# %%
explorer = LutExplorer(show=["method", "bits", "a_bits", "term", "weight", "activation"])
explorer.term.value = 8
explorer

# %% jupyter={"source_hidden": true}
Predict(
    "Choose codebook with 3 bits. How many multiplications does the whole dot product of eight terms take?",
    options=["none", "one", "two", "one for each level in use", "eight"],
    answer="one for each level in use",
    why="Activations of equal levels are added first. That pays when a layer has many more inputs than levels.",
)

# %% [markdown]
# ## Back to one unit
#
# An accumulator counts in units of scale × step, different for each channel. The next layer wants its own codes. So the
# accumulator A is brought to one unit 2^(−f) for the whole network, by a whole multiplier of 31 bits and a shift:
#
# $$v = \left( A \cdot m + 2^{\,n-1} \right) \gg n, \qquad m \, 2^{-n} \approx \text{scale} \cdot \text{step} \cdot 2^f,$$
#
# with the factor of [batch normalization](glossary.md#batch-normalization) in m, and its rest as an integer that is added
# after the shift. Several accumulators have a multiplier each, and their sum is shifted once. (This is fixed-point
# requantization as in [Jacob et al. 2018](https://arxiv.org/abs/1712.05877), section 2.2.) And a threshold becomes an
# integer as well: v·2^(−f) > T exactly where v > ⌊T·2^f⌋. From the second layer on no float number is needed, but for
# ASQ's small network and what depends on its β. `qviz.export.integer` is this forward pass, with f up to 40; it proves
# from the codes that no accumulator of 32 bits overflows.

# %%
# NBVAL_CHECK_OUTPUT
from qviz.export.fixed import multiplier, thresholds

(m,), n = (v.tolist() for v in multiplier(np.array([0.0123 * 2**8]), bounds=np.array([2**20])))
print(f"0.0123 * 2^8 = {m} / 2^{n}, off by {abs(m / 2**n - 0.0123 * 2**8):.0e}")
print("A = 1000:", (1000 * m + 2 ** (n - 1)) >> n, "in units of 2^-8; exact:", 1000 * 0.0123 * 2**8)
print("thresholds 0.3 and -0.3 in quarters:", thresholds(np.array([0.3, -0.3]), 2).tolist())

# %% [markdown]
# ## Do they agree?
#
# The network in floating point ([fake quantization](glossary.md#fake-quantization)) adds float32 products, and each sum is
# rounded. The integer network rounds nothing in its sums, and then once for each output, to 2^(−f), which is finer
# than float32's seven digits. A value that lies within that rounding of a threshold may fall on the other side.

# %%
found = {name: compare_codes(network, [test]) for name, network in exported.items()}

# %% jupyter={"source_hidden": true}
Predict(
    "LSQ, 40 test images, 7.5 million codes. At how many of them does a difference *begin*: the two sums lie on the two "
    "sides of a threshold, though everything before agrees?",
    options=["fewer than 100", "some thousands", "some hundred thousands"],
    answer=lambda: (
        "fewer than 100"
        if found["LSQ"].total("border") < 100
        else ("some thousands" if found["LSQ"].total("border") < 1e5 else "some hundred thousands")
    ),
    why="Float32 sums of a few hundred small products are good to six digits; few values are that near to a threshold.",
)

# %% jupyter={"outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
for name, agreement in found.items():
    print(f"{name:12} {agreement.total('codes'):,} codes, "
          f"99 % equal: {agreement.codes_equal > 0.99}, unexplained: {agreement.total('other')}")  # fmt: skip

# %%
for name, agreement in found.items():
    print(f"{name}: {agreement}.")

# %% [markdown]
# These are the exact counts; they may differ a little on your processor, as float sums depend on their order. Each
# difference is explained: *on a border* (a threshold of this lesson) *within float rounding*, or it *follows* from one
# before in the same image: one code that flips may move hundreds behind it, and a logit by a few tenths. (The classes
# stay.) Here are the logits of LSQ's 40 images, the largest difference of each:

# %% jupyter={"outputs_hidden": true}
from qviz.export.integer import IntegerModel

apart = (IntegerModel(exported["LSQ"])(test) - networks["LSQ"](test)).abs().amax(1).sort().values
panels.curve(
    {"each image": (range(1, 41), apart)},
    references={"the mean of all": float(apart.mean())},
    title="Integers and the float network, LSQ",
    x="image, sorted",
    y="difference of the logits",
    log=True,
)

# %% [markdown]
# One would think that all images agree exactly, or that all are off by a little, as the mean says. Neither: nearly all agree
# to float32's last digit, and the few in which a code flips are off by up to some tenths. The mean, dotted, describes none.
#
# Which of the two is off? Compute the network once more in float64, nothing rounded to float32 on the way:

# %%
# NBVAL_CHECK_OUTPUT
for name in ("LSQ", "ADQ, N2UQ", "AQuant"):
    real = compare_codes(exported[name], [test], reference="real")
    print(
        f"{name:12} codes that differ from those in float64: {round((1 - real.codes_equal) * real.total('codes'))}"
    )

# %% [markdown]
# None. The integers are right, and float32 is what strays. That is what "agrees" has to mean: not a small average, but a
# reason for every code. (`qviz verify FILE --data cifar10` gives the same account of any exported file.)
#
# ## The file is enough
#
# `save` writes one safetensors file, and `load` gives a network that answers bit for bit as the one that was saved. Another
# program reads the same file with numpy alone, in another process, where torch is never loaded. And the file carries a
# SHA-256 of its contents, which is compared before anything in it is believed:

# %%
# NBVAL_CHECK_OUTPUT
folder = Path(tempfile.mkdtemp())
file = save(networks["LSQ"], folder / "resnet20.safetensors", **about)
print("same output, bit for bit:", torch.equal(load(file)(test), networks["LSQ"](test)))
np.save(folder / "images.npy", test[:20].numpy())
command = [sys.executable, "-m", "qviz.export.run_numpy", str(file), str(folder / "images.npy")]
classes = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
print(
    "numpy alone, 20 images, same classes:",
    [int(c) for c in classes] == networks["LSQ"](test[:20]).argmax(1).tolist(),
)
damaged = bytearray(file.read_bytes())
damaged[-1000] ^= 1
(folder / "damaged.safetensors").write_bytes(damaged)
try:
    load(folder / "damaged.safetensors")
except ValueError as refused:
    print(f"one bit of {8 * len(damaged):,} flipped is refused:", type(refused).__name__)

# %% [markdown]
# ## What does it cost?
#
# `costs` counts, from the codes, what the layers of the integer network do for one image. A weight of 0 costs nothing; any
# other costs an addition, with a shift before it for ±2, ±4, ±8 …, or a multiplication for what is no power of two. In a
# codebook each weight on a level other than 0 costs one addition. At the end each accumulator costs one multiplication
# and each output one shift; a look-up gives an activation its code. MACs (multiply-accumulate operations) are the
# products of the float layer. Shortcuts, the mean at the end and ASQ's networks are not counted.

# %% jupyter={"source_hidden": true}
Predict(
    "Which of the four networks takes the fewest multiplications?",
    options=list(exported),
    answer=lambda: min(exported, key=lambda name: costs(exported[name]).totals["multiplications"]),
    why="Every product of a POST layer is a shift; only the two accumulators of each output are multiplied. Four in ten of "
    "its multiplications are those of the two uniform layers with 8 bits.",
)

# %% jupyter={"outputs_hidden": true}
for name, network in exported.items():
    print(name, costs(network).by_arithmetic(), sep="\n", end="\n\n")

# %% [markdown]
# Are these networks as much faster, then? Time our integer forward pass for each of them, and the float network.

# %%
from time import perf_counter

runs = {"float32": resnet20("fp32")} | {name: IntegerModel(network) for name, network in exported.items()}
multiplications = {name: costs(network).totals["multiplications"] for name, network in exported.items()}
multiplications["float32"] = costs(exported["LSQ"]).totals["macs"]


def seconds(network):
    """The shortest time of three that 20 images take."""
    times = []
    for _ in range(3):
        start = perf_counter()
        network(test[:20])
        times.append(perf_counter() - start)
    return min(times)


times = {name: seconds(run) for name, run in runs.items()}

# %% jupyter={"source_hidden": true}
Predict(
    "POST takes a ninth of the multiplications of LSQ. How long does its integer forward pass take, beside that of LSQ?",
    options=["about a ninth", "about half", "as long or longer"],
    answer=lambda: ["about a ninth", "about half", "as long or longer"][
        sum(times["POST"] > limit * times["LSQ"] for limit in (0.25, 0.75))
    ],
    why="For this processor a shift is no cheaper than a product. Two accumulators are two passes over the weights.",
)

# %% jupyter={"outputs_hidden": true}
panels.bars(
    {
        what: [values[name] / values["float32"] for name in runs]
        for what, values in {"multiplications": multiplications, "time": times}.items()
    },
    names=list(runs),
    title="Multiplications and time",
    y="times those of float32",
)

# %% [markdown]
# **An honest limit.** Fewer multiplications are no speed by themselves. If they were, the two bars of each network would be
# alike. But POST, with a ninth of LSQ's multiplications, takes longer than LSQ, and all four take longer than float32, which
# does all of them. (Times are those of the machine that ran this; they say something only if it has nothing else to do.)
# On a CPU or a GPU a multiplication takes as long as an addition, and all four networks do some 20 to 40 million additions.
# Our integer forward pass is moreover a reference, written to be read. Shifts and tables pay in hardware that is built for
# them. What every machine gets from the codes is the bytes: a file of a sixth to a fourth, by the size of its
# tables, and weights that take an eighth of the memory traffic.

# %% [markdown]
# ## What ONNX can hold
#
# A file for other runtimes has to be made of standard operators. `qviz export RUN --to net.onnx` writes
#
# | what | as |
# |---|---|
# | uniform weights | 4-bit or 8-bit integers and `DequantizeLinear` |
# | any other codebook | codes, and `Gather(levels, codes)` times the scale |
# | uniform activations | `QuantizeLinear`, `DequantizeLinear`; a `Ceil` before them where ties would round otherwise |
# | thresholds of any kind | a `Where(x > T, …)` for each of them |
#
# (RUN is a folder that `qviz train` or `qviz ptq` wrote.) No standard operator adds shifted codes: POST's levels are
# multiplied as floats. Evenly spaced ones a runtime may fuse into integers, but the file does not promise it. The bits on
# disk are real. `qviz verify FILE --against RUN` counts them, and compares each step and each answer with the network
# that the file was made of.
#
# ## Exercises
#
# 1. By hand: which bytes are the 3-bit codes 6, 1, 4?
# 2. A layer has 576 inputs, weights −8 … 7 and activation codes 0 … 15. How large can its accumulator become, and how
#    many bits does that take with the sign? Is a 16-bit accumulator safe?
# 3. Look at POST once more, with every product looked up: `costs(exported["POST"], how="products")`. What goes away, what
#    comes in its place, and why may the table still be of use?
#
# The next cell has the figures; its source and its output are folded in.

# %% jupyter={"source_hidden": true, "outputs_hidden": true}
# NBVAL_CHECK_OUTPUT
print("1:", pack(torch.tensor([6, 1, 4], dtype=torch.uint8), 3).tolist())
largest = 576 * 8 * 15
print(f"2: {largest:,}, {largest.bit_length() + 1} bits")
ways = {how: costs(exported["POST"], how=how) for how in ("auto", "products")}
for how, counted in ways.items():
    totals = {what: counted.totals[what] / 1e6 for what in ("shifts", "lookups", "multiplications")}
    print(f"3: {how:9}" + ", ".join(f"{count:.1f} million {what}" for what, count in totals.items()))

# %% [markdown]
# <details><summary>Answer 1</summary>
#
# 6 + 1·8 + 4·64 = 270 = 1·256 + 14: the bytes 14 and 1.
#
# </details>
#
# <details><summary>Answer 2</summary>
#
# 576 · 8 · 15 = 69,120, which takes 18 bits with the sign. 16 bits hold 32,767 at most, so the sum may overflow; whether it
# does depends on the weights. The export bounds it by the codes that are there, and not by the worst weights.
#
# </details>
#
# <details><summary>Answer 3</summary>
#
# The shifts of the products go, and one look-up for each weight that is not 0 comes in their place. The additions stay. One
# accumulator for each output remains instead of two, so that half of the multiplications at the end go as well; and those
# of the two layers with 8 bits go, whose products are looked up, too. The entries of the table are rounded, so it is the only arithmetic here that is not exact. It is of use where there is no shifter, or where the
# levels are no powers of anything: any two codes have a product, whatever they stand for.
#
# </details>

# %% [markdown]
# ## What to read next
#
# The docstring of `qviz.export.layout` is the whole file format, and `qviz.export.run_numpy` the forward pass in some 200 lines
# of numpy: read it as a check of what you have learned. To train what you export:
# [training/cifar10-asq-post](training/cifar10-asq-post.ipynb); to find out first which of its layers is bad, and why:
# [Look inside your model](10-look-inside-your-model.ipynb). The terms are in the [glossary](glossary.md).
