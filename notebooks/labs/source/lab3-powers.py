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
# # Lab 3: Powers of two, powers of √2, and a layer without multiplications
#
# After this lab you can
#
# 1. write down the levels of POT and POST, and count them honestly,
# 2. bring weights to the nearest level: in the linear domain, not in that of the exponents,
# 3. compute a layer with shifts and additions in two accumulators, and one multiplication at the end,
# 4. build the table that replaces the multiplications altogether,
# 5. say when √2 is worth its price.
#
# About 80 minutes. The method is POST, the weight grid of [Zhou et al. 2025](https://arxiv.org/abs/2504.17263). Write your answers
# into the cells that say *your code here*; the cell below each of them has tests that you can run as often as you like. Grading
# calls your functions with other numbers. Your helpers may be in any answer cell. Functions must not change their arguments.
# Do not use a quantization function of any library: write it.

# %% qviz={"given": true}
import numpy as np
import torch

ARRAYS = "numpy"
SEED = 1
TENSOR = "expand (real)"
LEAD = 0.5

w = (0.1 * np.random.RandomState(SEED).randn(12, 12)).astype(np.float32)


def array(values, dtype=np.float32):
    """Numbers as your functions get them: a numpy array, or a torch tensor."""
    values = np.asarray(values, dtype).copy()
    return values if ARRAYS == "numpy" else torch.from_numpy(values)


# %% [markdown]
# **numpy or torch?** Your functions get numpy arrays. If you would rather have torch tensors, write `ARRAYS = "torch"` as the first
# line of your answer to question 1. They may return either.
#
# ## 1. The levels ({{points:powers}} points)
#
# A weight that is a power of two turns a multiplication into a shift. With b bits, one of them for the sign, the levels are
#
# $$L_\rho(b) = \{0\} \cup \{\pm\rho^{-j} : j = 0, 1, \dots, 2^{b-1} - 2\},$$
#
# with the ratio ρ = 2 for POT (powers of two) and ρ = √2 for POST (powers of √2). These are 2^b − 1 levels, so each has a code of its own. (The paper's code takes one
# exponent more. Then there are 2^b + 1 levels, which do not fit into b bits. This lab counts honestly; that choice is not the
# paper's.)


# %% qviz={"answer": "powers"}
def powers(bits, ratio):
    """The levels of a power grid.

    Args:
        bits: The bit width b, an integer >= 2.
        ratio: The ratio ρ of two neighboring magnitudes, a float > 1.

    Returns:
        The 2^b − 1 levels in increasing order, from −1 to 1, (2^b − 1,).
    """
    ### BEGIN SOLUTION
    magnitudes = ratio ** -np.arange(2 ** (bits - 1) - 1.0)
    return np.concatenate([-magnitudes, [0.0], magnitudes[::-1]])
    ### END SOLUTION


# %% qviz={"tests": "powers"}
found = np.asarray(powers(3, 2.0))
assert found.shape == (7,), f"3 bits have 7 levels, got the shape {found.shape}"
assert np.allclose(found, [-1, -0.5, -0.25, 0, 0.25, 0.5, 1]), (
    f"±1, ±1/2, ±1/4 and 0, increasing; got {found.tolist()}"
)
found = np.asarray(powers(3, 2**0.5))
assert np.allclose(found[4:], [0.5, 0.70711, 1], atol=1e-5), (
    f"above 0: 1/2, 1/√2, 1; got {found[4:].tolist()}"
)
assert len(powers(4, 2**0.5)) == 15, f"4 bits have 15 levels, got {len(powers(4, 2**0.5))}"

# %% [markdown]
# ## 2. The nearest level ({{points:nearest}} points)
#
# The rows of w are output channels, each with its own *clip* α > 0, which says where its outermost level is:
#
# $$\hat w_{oi} = \alpha_o\,\cdot\,\text{the level nearest to}\; w_{oi} / \alpha_o.$$
#
# *Nearest* means the least distance |w/α − level|: the border between two levels is in the middle between them, at 0.75 between 0.5 and 1.
# Rounding the exponent (the logarithm) is something else: it has its border at 0.7071. What is equally near to two levels
# goes to the **lower** of them, also below 0: −0.75 goes to −1. Weights beyond the clip get the outermost level.


# %% qviz={"answer": "nearest"}
def nearest(w, alpha, levels):
    """The nearest level for each weight.

    Args:
        w: The weights, (O, I), float32.
        alpha: The clip of each output channel, (O,), float32, > 0.
        levels: The levels, increasing, (K,), float32.

    Returns:
        The quantized weights, (O, I), in units of w.
    """
    ### BEGIN SOLUTION
    d = w / alpha[:, None]
    borders = (levels[1:] + levels[:-1]) / 2
    return alpha[:, None] * levels[np.searchsorted(borders, d)]
    ### END SOLUTION


# %% qviz={"tests": "nearest"}
levels = array(powers(3, 2.0))
found = np.asarray(
    nearest(array([[0.74, 0.76, 0.1, -0.3], [1.4, -9.0, 0.3, 0.8]]), array([1.0, 2.0]), levels)
)
wanted = [[0.5, 1.0, 0.0, -0.25], [1.0, -2.0, 0.5, 1.0]]
assert np.allclose(found, wanted), f"clips 1 and 2: {wanted}, got {found.tolist()}"
found = np.asarray(nearest(array([[0.75, -0.75, 0.125, -0.125]]), array([1.0]), levels))
wanted = [[0.5, -1.0, 0.0, -0.25]]
assert np.allclose(found, wanted), f"ties go to the lower level: {wanted}, got {found.tolist()}"
alpha = np.quantile(np.abs(w), 0.99, axis=1).astype(np.float32)
again = nearest(array(np.asarray(nearest(array(w), array(alpha), levels))), array(alpha), levels)
assert np.allclose(np.asarray(nearest(array(w), array(alpha), levels)), np.asarray(again)), (
    "a level stays where it is"
)

# %% [markdown]
# ## 3. Two accumulators ({{points:split}} points)
#
# A layer adds up products of weights and activations. With POST weights ±(√2)^−j and activation codes a (integers, not negative),
#
# $$\sum \pm\,(\sqrt 2)^{-j}\,a = \underbrace{\sum_{j = 2s} \pm\,2^{-s}\,a}_{\text{even}} +
# \frac{1}{\sqrt 2}\,\underbrace{\sum_{j = 2s + 1} \pm\,2^{-s}\,a}_{\text{odd}}.$$
#
# In both sums a is only shifted, by s = ⌊j/2⌋ places. Shifting to the right would lose bits, so the hardware keeps its sums in units of
# 2^−S, where S is the largest shift that occurs, and shifts to the left, by S − s places. Everything is an integer. (That the identity
# holds is arithmetic; that POST is computed like this is INFERRED, the paper does not tell.)


# %% qviz={"answer": "split"}
def split(sign, exponent, activations, shift):
    """The two accumulators of one output.

    Args:
        sign: The sign of each weight, 1 or −1, (I,), integers.
        exponent: The exponent j of each weight, (I,), integers; −1 for a weight that is 0, whatever its sign.
        activations: The activation codes a >= 0, (I,), integers.
        shift: S, an integer, at least as large as every shift.

    Returns:
        (even, odd): two integers, both sums in units of 2^−S.
    """
    ### BEGIN SOLUTION
    even = odd = 0
    for plus, j, a in zip(sign.tolist(), exponent.tolist(), activations.tolist(), strict=True):
        if j >= 0:
            term = plus * (a << (shift - j // 2))
            even, odd = (even, odd + term) if j % 2 else (even + term, odd)
    return even, odd
    ### END SOLUTION


# %% qviz={"tests": "split"}
def one(j, a=1, sign=1, shift=3):
    return tuple(split(*(array([v], np.int64) for v in (sign, j, a)), shift))


assert one(0) == (8, 0), f"j = 0 is 1, that is 8 eighths, even: (8, 0), got {one(0)}"
assert one(6, a=5) == (5, 0), f"j = 6 is 1/8: (5, 0) for the activation 5, got {one(6, a=5)}"
assert one(1) == (0, 8), f"j = 1 is 1 times the outstanding 1/√2: (0, 8), got {one(1)}"
assert one(3, a=2, sign=-1) == (0, -8), (
    f"j = 3 is 1/2 times 1/√2; −2 of them: (0, −8), got {one(3, a=2, sign=-1)}"
)
assert one(-1, a=7) == (0, 0), f"a weight of 0 adds nothing: (0, 0), got {one(-1, a=7)}"

# %% [markdown]
# ## 4. One number ({{points:combine}} points)
#
# What is left to do is once for each output, not once for each weight: put the two sums together, undo the unit 2^−S, and multiply by the
# scales, the clip α of the weights and the step s of the activations.


# %% qviz={"answer": "combine"}
def combine(even, odd, shift, alpha, step):
    """The output that two accumulators stand for.

    Args:
        even, odd: The sums of question 3, integers in units of 2^−shift.
        shift: S, an integer.
        alpha: The clip of the weights, a float.
        step: The step of the activations, a float.

    Returns:
        The sum of weight times activation over all inputs, a float.
    """
    ### BEGIN SOLUTION
    return alpha * step * 2.0**-shift * (even + odd / 2**0.5)
    ### END SOLUTION


# %% qviz={"tests": "combine"}
found = float(combine(24, -16, 3, 1.0, 1.0))
assert abs(found - 1.585786) < 1e-5, f"3 − 2/√2 = 1.5858 in eighths, got {found:.4f}"
rng = np.random.RandomState(SEED)
sign, exponent, a = rng.choice([-1, 1], 50), rng.randint(-1, 7, 50), rng.randint(0, 16, 50)
weights = np.where(exponent < 0, 0.0, sign * 2.0 ** (-exponent / 2))
found = float(combine(*split(*(array(v, np.int64) for v in (sign, exponent, a)), 3), 3, 0.2, 0.1))
wanted = float(0.2 * 0.1 * weights @ a)
assert abs(found - wanted) < 1e-5, f"as the plain sum of products: {wanted:.5f}, got {found:.5f}"

# %% [markdown]
# ## 5. The table ({{points:products}} points)
#
# Weights have few values and so have activations, thus all their products fit into a small table, computed once:
#
# - a row for each magnitude of a level (the levels that are not negative, 0 among them), from small to large,
# - a column for each activation code 0, 1, …, 2^b − 1.
#
# The sign is put on afterwards, and the scales α and s after the sum; so one table serves all layers. At 4 bits it has 8 × 16 = 128
# entries. (The authors give a bound for the size of their table, which this one keeps; its layout is INFERRED.)


# %% qviz={"answer": "products"}
def products(levels, bits):
    """The table of products.

    Args:
        levels: The levels of question 1, increasing, (K,).
        bits: The bit width of the activations.

    Returns:
        The products, ((K + 1) / 2, 2^bits).
    """
    ### BEGIN SOLUTION
    levels = np.asarray(levels)
    return levels[levels >= 0][:, None] * np.arange(2**bits)
    ### END SOLUTION


# %% qviz={"tests": "products"}
table = np.asarray(products(array(powers(3, 2.0)), 2))
assert table.shape == (4, 4), f"0, 1/4, 1/2, 1 times the codes 0 to 3: the shape is (4, 4), got {table.shape}"
assert np.allclose(table[3], [0, 1, 2, 3]), (
    f"the last row is that of the level 1: [0, 1, 2, 3], got {table[3].tolist()}"
)
assert np.allclose(table[0], 0), f"the first row is that of the level 0, got {table[0].tolist()}"
table = np.asarray(products(array(powers(4, 2**0.5)), 4))
assert table.size == 128, f"at 4 bits the table has 128 entries, got {table.size}"
rng = np.random.RandomState(SEED)
sign, exponent, a = rng.choice([-1, 1], 50), rng.randint(-1, 7, 50), rng.randint(0, 16, 50)
weights = np.where(exponent < 0, 0.0, sign * 2.0 ** (-exponent / 2))
looked_up = (sign * table[np.where(exponent < 0, 0, 7 - exponent), a]).sum()
assert abs(looked_up - weights @ a) < 1e-4, "the sum over the table is the sum of the products"

# %% [markdown]
# ## 6. POST or POT? ({{points:largest_clip}} points)
#
# The explorer quantizes the weights of a real layer to 4 bits with both grids. Both have the same clip, which you move with the slider
# **Clip** (**Range** then says *manual clip*). The SQNR of both is in the table
# (in dB, as in Lab 1: the larger, the smaller the error).

# %%
from qviz.widgets import GridExplorer

explorer = GridExplorer(tensor=TENSOR, bits=4, show=["clip", "rule"])
explorer

# %%
print(f"Find the largest clip of the slider with which POST's SQNR is at least {LEAD} dB above POT's.")

# %% [markdown]
# Then run the next cell and copy what it prints between the quotes of your answer.

# %%
import json

print(json.dumps(explorer.state, ensure_ascii=False))

# %% qviz={"answer": "largest_clip"}
### BEGIN SOLUTION
largest_clip = """{"tensor": "expand (real)", "bits": 4, "clip": 0.315, "grid_a": "POT", "grid_b": "POST", "rule": "manual clip"}"""
### END SOLUTION

# %% [markdown]
# ## 7. In words ({{points:why}} points)
#
# From 4 bits to 5 POT gets hardly any better, although it gets twice as many levels. Why? What does POST do about it, what does it
# pay, and why does it pay off at 4 bits but not at 3? Four or five sentences.

# %% [markdown] qviz={"answer": "why"}
# Your answer here.
