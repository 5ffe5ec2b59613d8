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
# # Lab 1: A uniform quantizer, and two gradients that training needs
#
# After this lab you can
#
# 1. find the scale and the zero point that fit a range of numbers into b bits,
# 2. turn numbers into codes and back, and say what happens at ties and outside the range,
# 3. train through a rounding: write the straight-through estimator, with the right mask,
# 4. learn the step: write LSQ's gradient of the step, with its factor,
# 5. read from a picture why the best step is neither small nor large.
#
# About 80 minutes. Write your answers into the cells that say *your code here*. The cell below each
# of them has tests that you can run as often as you like; when they pass you are nearly there. Grading calls your functions
# with other numbers. Your helpers may be in any answer cell. Do not use a quantization function of any library: write it.
#
# Questions 1 to 3 need numpy or torch, as you like. For 4 and 5, torch is the shorter way.

# %% qviz={"given": true}
import numpy as np
import torch

ARRAYS = "torch"
SEED = 1
BITS = 4
TENSOR = "expand (real)"
SQNR = 16.0

x = (0.4 * np.random.RandomState(SEED).randn(200)).astype(np.float32)


def array(values, dtype=np.float32):
    """Numbers as your functions get them: a torch tensor, or a numpy array."""
    values = np.asarray(values, dtype).copy()
    return values if ARRAYS == "numpy" else torch.from_numpy(values)


def gradient(name, args, by):
    """The gradient of the sum of a function's results by one of its arguments, a numpy array."""
    if f"{name}_backward" in globals():
        ones = array(np.ones(np.shape(globals()[name](*args))))
        return np.asarray(globals()[f"{name}_backward"](*args, ones)[0])
    args = [v if i != by else torch.as_tensor(v).clone().requires_grad_() for i, v in enumerate(args)]
    result = globals()[name](*args).sum()
    assert result.requires_grad, f"no gradient reaches argument {by} of {name}"
    return torch.autograd.grad(result, args[by])[0].numpy()


# %% [markdown]
# **numpy or torch?** Your functions get torch tensors. If you would rather have numpy arrays, write `ARRAYS = "numpy"` as
# the first line of your answer to question 1. Then you also write the two gradients out by hand; questions 4 and 5 say how.
#
# ## 1. Scale and zero point ({{points:affine}} points)
#
# b bits name 2^b codes, 0 to 2^b − 1. An affine quantizer ([Jacob et al. 2018](https://arxiv.org/abs/1712.05877),
# section 2.1) lets the code q stand for the number
#
# $$x = s\,(q - z).$$
#
# The *scale* s > 0 is the distance between two neighboring numbers, the *zero point* z is the code of the number 0. It is
# an integer and one of the codes, so 0 is represented without any error. Zeros are common: padding, and all that a ReLU
# cuts off.
#
# Given the range from `low` to `high`:
#
# - First the range is made larger, if necessary, until it contains 0.
# - Then code 0 stands for the lower end and code 2^b − 1 for the upper end, as nearly as an integer z allows: s is the
#   width of the range divided by the number of *gaps* between the codes, and z is −low / s, rounded to the nearest integer.


# %% qviz={"answer": "affine"}
def affine(low, high, bits):
    """Scale and zero point of a range.

    Args:
        low, high: The ends of the range, floats, low < high. They may both be positive or both negative.
        bits: The bit width, an integer >= 2.

    Returns:
        (scale, zero): a float and an integer.
    """
    ### BEGIN SOLUTION
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / (2**bits - 1)
    return scale, round(-low / scale)
    ### END SOLUTION


# %% qviz={"tests": "affine"}
scale, zero = affine(-1.0, 2.0, 2)
assert abs(scale - 1.0) < 1e-6, f"4 codes have 3 gaps, and the range is 3 wide: the scale is 1, got {scale}"
assert zero == 1, f"code 0 is for −1, so code 1 is for 0; got {zero}"
scale, zero = affine(0.5, 1.5, 4)
assert abs(scale - 0.1) < 1e-6, f"the range must contain 0 and then is 1.5 wide, for 15 gaps; got {scale}"
assert zero == 0, f"no number is below 0, so code 0 is for 0; got {zero}"
scale, zero = affine(-0.96, 0.54, 4)
assert zero == 10, f"−low / scale is 9.6, and the nearest integer 10; got {zero}"

# %% [markdown]
# ## 2. From numbers to codes ({{points:quantize}} points)
#
# $$q = \mathrm{clip}\big(\mathrm{round}(x / s) + z,\; 0,\; 2^b - 1\big).$$
#
# Numbers outside the range *saturate*: they get the first or the last code. Two things are easy to get wrong.
#
# - **Order.** First x / s is rounded, then z is added, and last comes the clip.
# - **Ties.** A number just in the middle of two integers goes to the even one: 0.5 → 0, 1.5 → 2, 2.5 → 2, −0.5 → 0.
#   `np.rint`, `np.round` and `torch.round` do that. Half of all ties go up, half of them down, so that sums do not drift.


# %% qviz={"answer": "quantize"}
def quantize(x, scale, zero, bits):
    """The codes of some numbers.

    Args:
        x: The numbers, any shape, float32.
        scale: The scale, a float > 0.
        zero: The zero point, an integer of 0 … 2^bits − 1.
        bits: The bit width.

    Returns:
        The codes, of x's shape and of an integer type (any that holds them).
    """
    ### BEGIN SOLUTION
    return (torch.round(x / scale) + zero).clip(0, 2**bits - 1).long()
    ### END SOLUTION


# %% qviz={"tests": "quantize"}
codes = np.asarray(quantize(array([0.0, 0.6, -0.3, 5.0, -5.0]), 0.5, 3, 3))
assert codes.tolist() == [3, 4, 2, 7, 0], f"expected [3, 4, 2, 7, 0], got {codes.tolist()}"
assert codes.dtype.kind in "iu", f"codes are integers, yours are {codes.dtype}"
ties = np.asarray(quantize(array([0.25, 0.75, 1.25, -0.25]), 0.5, 3, 4)).tolist()
assert ties == [3, 5, 5, 3], f"0.5, 1.5, 2.5 and −0.5 steps go to the even integer: [3, 5, 5, 3], got {ties}"
codes = np.asarray(quantize(array(x), *affine(x.min().item(), x.max().item(), BITS), BITS))
assert codes.shape == x.shape, f"one code for each number: {x.shape}, got {codes.shape}"
assert codes.min() >= 0, "no code is negative"
assert codes.max() <= 2**BITS - 1, f"the last code of {BITS} bits is {2**BITS - 1}, got {codes.max()}"

# %% [markdown]
# ## 3. And back ({{points:dequantize}} points)
#
# Back is x = s (q − z). Codes are stored in as few bits as possible, so the type of `codes` may be `uint8`: eight bits
# without a sign. Before you subtract, think of what that type can hold.


# %% qviz={"answer": "dequantize"}
def dequantize(codes, scale, zero):
    """The numbers that codes stand for.

    Args:
        codes: The codes, any shape, uint8 or int64.
        scale: The scale, a float > 0.
        zero: The zero point, an integer.

    Returns:
        The numbers, of the shape of ``codes`` and of a floating-point type.
    """
    ### BEGIN SOLUTION
    return (codes.float() - zero) * scale
    ### END SOLUTION


# %% qviz={"tests": "dequantize"}
values = np.asarray(dequantize(array([0, 3, 7], np.int64), 0.5, 3))
assert np.allclose(values, [-1.5, 0.0, 2.0]), f"expected [−1.5, 0, 2], got {values.tolist()}"
values = np.asarray(dequantize(array([0, 3, 7], np.uint8), 0.5, 3))
assert np.allclose(values, [-1.5, 0.0, 2.0]), f"the same for codes stored as uint8, got {values.tolist()}"
found = affine(x.min().item(), x.max().item(), BITS)
codes = array(quantize(array(x), *found, BITS), np.int64)
error = np.abs(np.asarray(dequantize(codes, *found)) - x).max()
assert error <= found[0] * 1.001, (
    f"there and back costs one step of {found[0]:.3g} at most, yours {error:.3g}"
)

# %% [markdown]
# ## 4. Straight through ({{points:straight_through}} points)
#
# From here on there is no zero point: a level is an integer from `low` to `high` times the scale s, as weights have it
# (−8 … 7) or activations after a ReLU (0 … 15).
#
# $$y = s\,\mathrm{round}\big(\mathrm{clip}(x / s,\; \mathrm{low},\; \mathrm{high})\big).$$
#
# Ties go to the even integer again. A staircase has the slope 0, so nothing would learn. The *straight-through estimator*
# ([Bengio et al. 2013](https://arxiv.org/abs/1308.3432), section 3.1) takes the rounding for the identity in the backward
# pass, and only the rounding. The clip keeps its own gradient:
#
# $$\frac{\partial y}{\partial x} = \begin{cases} 1 & \text{if low} \le x / s \le \text{high}\\ 0 & \text{otherwise.}
# \end{cases}$$
#
# Both ends belong to the range. In torch there are two ways: a `torch.autograd.Function`, or the sum of a value and
# of something that is 0 but has a gradient. `v.detach()` is v without its gradient.
#
# *With numpy* write also `straight_through_backward(x, scale, low, high, cotangent)`. It gets ∂L/∂y as `cotangent` and returns
# the tuple of one array `(∂L/∂x,)`.


# %% qviz={"answer": "straight_through"}
def straight_through(x, scale, low, high):
    """Quantize, and let the gradient straight through the rounding.

    Args:
        x: The numbers, any shape, float32.
        scale: The scale, a float > 0.
        low, high: The lowest and the highest integer.

    Returns:
        y, of x's shape, in units of x. Its gradient by x is 1 inside the range (ends included) and 0 outside.
    """
    ### BEGIN SOLUTION
    u = (x / scale).clamp(low, high)
    return scale * (u.round() + u - u.detach())
    ### END SOLUTION


# %% qviz={"tests": "straight_through"}
some = array([-3.0, -1.0, -0.2, 0.0, 0.6, 0.75, 0.9])
y = straight_through(some, 0.25, -4, 3)
y = np.asarray(y.detach() if hasattr(y, "detach") else y)
assert np.allclose(y, [-1, -1, -0.25, 0, 0.5, 0.75, 0.75]), (
    f"[−1, −1, −0.25, 0, 0.5, 0.75, 0.75], got {y.tolist()}"
)
slope = gradient("straight_through", (some, 0.25, -4, 3), 0)
assert not np.allclose(slope, 0), "the gradient is 0 everywhere: nothing would learn"
assert slope[[0, 6]].tolist() == [0, 0], f"−3 and 0.9 saturate, so their gradient is 0, got {slope[[0, 6]]}"
assert np.allclose(slope[2:5], 1), f"inside the range the gradient is 1, got {slope[2:5]}"
assert np.allclose(slope[[1, 5]], 1), (
    f"−1 and 0.75 are the ends, which belong to the range: 1, got {slope[[1, 5]]}"
)

# %% [markdown]
# ## 5. A step that learns ({{points:lsq}} points)
#
# Which scale is best? *Learned Step Size Quantization* ([Esser et al. 2020](https://arxiv.org/abs/1902.08153)) makes it a
# parameter, the *step* s, and gives it the gradient that follows from the straight-through estimator. The step occurs
# twice in y = s · round(clip(x / s, n, p)), where n = `low` and p = `high`. Equation (3) of the paper, with u = x / s:
#
# $$\frac{\partial y}{\partial s} = \begin{cases} \mathrm{round}(u) - u & \text{if } n \le u \le p\\ n & \text{if } u < n\\
# p & \text{if } u > p. \end{cases}$$
#
# All N values of x share one step, so their gradients are added up, and the sum grows with N. Section 2.2 multiplies the
# gradient of the step (and nothing else: not the output, not the gradient of x) by
#
# $$g = \frac{1}{\sqrt{N p}}.$$
#
# N is the number of values in x. (The paper's text counts the features of one sample; released code, which we follow, counts all
# values of the tensor.)
#
# *With numpy* write also `lsq_backward(x, step, low, high, cotangent)`, which returns the tuple of one number `(∂L/∂s,)`.


# %% qviz={"answer": "lsq"}
def lsq(x, step, low, high):
    """Quantize with a step that learns.

    Args:
        x: The numbers, any shape, float32.
        step: The step, > 0, a tensor (or array) without dimensions.
        low, high: The lowest and the highest integer, low <= 0 < high.

    Returns:
        y, of x's shape, in units of x. Its gradient by the step is the formula above, times g.
    """
    ### BEGIN SOLUTION
    scaled = step * (x.numel() * high) ** -0.5
    step = step.detach() + scaled - scaled.detach()
    u = (x / step).clamp(low, high)
    return step * (u.round() + u - u.detach())
    ### END SOLUTION


# %% qviz={"tests": "lsq"}
some, step = array([0.3, 0.6, 2.0, -3.0]), array(0.25)
y = lsq(some, step, -4, 4)
y = np.asarray(y.detach() if hasattr(y, "detach") else y)
assert np.allclose(y, [0.25, 0.5, 1.0, -1.0]), (
    f"the output is that of question 4: [0.25, 0.5, 1, −1], got {y.tolist()}"
)
for value, slope in ((0.3, 1 - 1.2), (0.6, 2 - 2.4), (2.0, 4.0), (-3.0, -4.0)):
    one = float(gradient("lsq", (array([value]), step, -4, 4), 1))
    assert abs(one - slope / 2) < 1e-4, (
        f"x = {value}: {slope:.3g} times 1/√(1·4), that is {slope / 2:.3g}; got {one:.3g}"
    )
four = float(gradient("lsq", (some, step, -4, 4), 1))
assert abs(four - (-0.6 / 4)) < 1e-4, f"four values: their sum −0.6, times 1/√(4·4), is −0.15; got {four:.4g}"

# %% [markdown]
# ## 6. Small or large? ({{points:largest_step}} points)
#
# The explorer quantizes the weights of a real layer. The first picture has the error against the step, in two parts: values that
# are cut off, and rounding. Move the slider **Step** and watch the table. The SQNR, the signal-to-quantization-noise ratio, is
# 10 log10(mean of w² / mean of (ŵ − w)²) in dB, with the weights w and what they become, ŵ: the larger, the better.


# %%
from qviz.widgets import StepExplorer

explorer = StepExplorer(tensor=TENSOR, bits=BITS)
explorer

# %%
print(f"Find the largest step of the slider with which the SQNR is at least {SQNR:.2f} dB.")

# %% [markdown]
# Leave the tensor, the bits, the method and the iteration (0) as they are: it is the slider **Step** that you move. The SQNR is in the
# last row of the table, column *now*. Then run the next cell and copy what it prints between the quotes of your answer.

# %%
import json

print(json.dumps(explorer.state))

# %% qviz={"answer": "largest_step"}
### BEGIN SOLUTION
largest_step = """{"method": "LSQ", "tensor": "expand (real)", "bits": 4, "step": 0.0292, "iteration": 0}"""
### END SOLUTION

# %% [markdown]
# ## 7. In words ({{points:why}} points)
#
# A weight x is far above the range of a quantizer, so it saturates. The loss would be smaller if the output were larger.
#
# Training can change x, by the gradient of question 4, and the step, by that of question 5. Which of the two can help here, and
# why? What changes for x after some time? Three or four sentences.

# %% [markdown] qviz={"answer": "why"}
# Your answer here.
