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
# # Lab 2: Soft rounding, its temperature, and what training gets wrong
#
# After this lab you can
#
# 1. write a soft rounding: the soft argmax over two levels, with its kernel,
# 2. write the controller that gives each number its own temperature,
# 3. put both together so that the forward pass rounds exactly and the backward pass is still soft,
# 4. measure the two faults of training with a quantizer: the quantizer gap and the gradient mismatch,
# 5. say why a fixed temperature is never right.
#
# About 85 minutes. You should have done Lab 1. The method is *Distance-aware Quantization*, DAQ for short
# ([Kim, Lee and Ham 2021](https://arxiv.org/abs/2108.06983)), as its released code has it. Write your answers into the cells that
# say *your code here*; the cell below each of them has tests that you can run as often as you like. Grading calls your functions
# with other numbers. Your helpers may be in any answer cell. Do not use a quantization function of any library: write it.

# %% qviz={"given": true}
import numpy as np
import torch

ARRAYS = "torch"
SEED = 1
SIGMA = 1.2
GAMMA = 3.0
GAP = 0.06

x = np.random.RandomState(SEED).uniform(0, 3, 400).astype(np.float32)


def array(values):
    """Numbers as your functions get them: a torch tensor, or a numpy array."""
    values = np.asarray(values, np.float32).copy()
    return values if ARRAYS == "numpy" else torch.from_numpy(values)


def plain(result):
    """A result as a numpy array."""
    return np.asarray(result.detach() if hasattr(result, "detach") else result)


def gradient(name, args):
    """The gradient of the sum of a function's results by its first argument, a numpy array."""
    if f"{name}_backward" in globals():
        ones = array(np.ones(np.shape(globals()[name](*args))))
        return np.asarray(globals()[f"{name}_backward"](*args, ones)[0])
    first = torch.as_tensor(args[0]).clone().requires_grad_()
    result = globals()[name](first, *args[1:]).sum()
    assert result.requires_grad, f"no gradient reaches x in {name}"
    return torch.autograd.grad(result, first)[0].numpy()


# %% [markdown]
# **numpy or torch?** Your functions get torch tensors. If you would rather have numpy arrays, write `ARRAYS = "numpy"` as the first
# line of your answer to question 1. Then you also write the gradients of questions 1 and 3 out by hand.
#
# ## 1. A soft rounding ({{points:soft_round}} points)
#
# x lies in a cell between two integers, f = floor(x) below and c = f + 1 above; t = x − f is its place in the cell. Each of the two
# levels gets a *score*, which falls with its distance from x. The score of the level that is *not* the nearer one is damped by
# a kernel:
#
# $$s_f = e^{-t}\,k_f,\qquad s_c = e^{-(1-t)}\,k_c,\qquad k = \begin{cases} 1 & \text{for the nearer level}\\
# e^{-1/\sigma^2} & \text{for the other one.}\end{cases}$$
#
# (The paper calls σ a standard deviation; its code, which we follow, divides by σ² and not by 2σ².) At t = ½ the lower level counts as
# the nearer one. The soft argmax mixes the two levels. The upper one has the share
#
# $$m = \frac{1}{1 + e^{-\beta(s_c - s_f)}},\qquad \text{so}\qquad \varphi(x) = f + m.$$
#
# β > 0 is an *inverse* temperature. The word "temperature" in this lab, as in the paper, means β.
#
# For the gradient, f and both kernels are constants; the scores depend on x through t.
#
# *With numpy* write also `soft_round_backward(x, beta, sigma, cotangent)`. It gets ∂L/∂φ as `cotangent` and returns the tuple of one
# array `(∂L/∂x,)`. The derivative of m by β(s_c − s_f) is m(1 − m).


# %% qviz={"answer": "soft_round"}
def soft_round(x, beta, sigma):
    """A mixture of the two integers around x.

    Args:
        x: The numbers, any shape, float32, of both signs.
        beta: The temperature, a float > 0.
        sigma: The width of the kernel, a float > 0.

    Returns:
        φ(x), of x's shape, with its gradient by x.
    """
    ### BEGIN SOLUTION
    floor = x.detach().floor()
    low, high = scores(x, sigma)
    return floor + torch.sigmoid(beta * (high - low))


def scores(x, sigma):
    """The scores of the lower and the upper level."""
    t = x - x.detach().floor()
    damped = float(np.exp(-1 / sigma**2))
    upper = t.detach() > 0.5
    return torch.exp(-t) * torch.where(upper, damped, 1.0), torch.exp(t - 1) * torch.where(upper, 1.0, damped)
    ### END SOLUTION


# %% qviz={"tests": "soft_round"}
at = [0.25, 0.45, 0.55, 0.75]
some = array(at)
found = plain(soft_round(some, 5.0, 1.0))
assert np.allclose(found, [0.0463, 0.1065, 0.8935, 0.9537], atol=1e-4), (
    f"β = 5, σ = 1: got {found.round(4).tolist()}"
)
found = plain(soft_round(array([-1.75, 2.25]), 5.0, 1.0))
assert np.allclose(found, [-1.9537, 2.0463], atol=1e-4), (
    f"each cell is like the others: got {found.round(4).tolist()}"
)
soft, hard = (plain(soft_round(some, beta, SIGMA)) for beta in (2.0, 8.0))
assert (np.abs(hard - np.rint(at)) < np.abs(soft - np.rint(at))).all(), (
    "a larger β brings the result closer to a level"
)
slope = gradient("soft_round", (some, 5.0, 1.0))
up, down = (plain(soft_round(array(at) + h, 5.0, 1.0)) for h in (1e-3, -1e-3))
assert np.allclose(slope, (up - down) / 2e-3, rtol=0.01), (
    f"the gradient is the slope of your own function, got {slope}"
)

# %% [markdown]
# ## 2. The controller ({{points:temperature}} points)
#
# At one β for all, numbers in the middle of a cell are mixed much more than numbers close to a level. DAQ lets β depend on x
# (equation 7), so that every x is mixed to the same degree:
#
# $$\beta^*(x) = \frac{\gamma}{|s_c - s_f|}.$$
#
# γ > 0 is one constant for all numbers; the paper takes γ = 2. Nothing is added to the denominator: the kernel keeps it away from 0.


# %% qviz={"answer": "temperature"}
def temperature(x, gamma, sigma):
    """The temperature of each number.

    Args:
        x: The numbers, any shape, float32.
        gamma: How clear-cut the mixture shall be, a float > 0.
        sigma: The width of the kernel, a float > 0.

    Returns:
        β*(x), of x's shape, all positive.
    """
    ### BEGIN SOLUTION
    low, high = scores(x, sigma)
    return gamma / (high - low).abs()
    ### END SOLUTION


# %% qviz={"tests": "temperature"}
found = plain(temperature(array([0.1, 0.25, 0.4, 2.3, 0.75]), 2.0, 1.0))
wanted = [2.6481, 3.3056, 4.2696, 3.5834, 3.3056]
assert np.allclose(found, wanted, atol=2e-4), f"γ = 2, σ = 1: {wanted}, got {found.round(4).tolist()}"
found = plain(temperature(array(x), GAMMA, SIGMA))
assert (found > 0).all(), "a temperature is positive"
each = [plain(soft_round(array([v]), float(b), SIGMA))[0] for v, b in zip(x[:20], found[:20], strict=True)]
error = np.abs(each - np.rint(x[:20]))
assert np.ptp(error) < 1e-4, (
    f"with its own β every number is equally far from a level; yours are {error.round(3)}"
)

# %% [markdown]
# ## 3. Rounding, with a soft gradient ({{points:daq_round}} points)
#
# Under the controller β*(s_c − s_f) is γ or −γ, so m is one of two numbers only, λ or 1 − λ, with
#
# $$\lambda = \frac{1}{1 + e^{\gamma}}.$$
#
# So every result misses its level by λ. Equations (10) and (11) undo that: they stretch the mixture about the middle of the cell,
#
# $$f(m) = \frac{m - \tfrac12}{1 - 2\lambda} + \tfrac12,\qquad Q(x) = \mathrm{floor}(x) + f(m).$$
#
# The result is a level, exactly: the forward pass rounds. The backward pass goes through the rescale and the soft argmax, with
# **the temperature held constant** (`.detach()` in the authors' code). Written out, inside the range:
#
# $$\frac{\partial Q}{\partial x} = \frac{\gamma}{2\sinh\gamma}\,\coth\Big(\big|t - \tfrac12\big| + \frac{1}{2\sigma^2}\Big).$$
#
# Before all that, x is clipped to [0, top], where top is the highest level. Outside that range the gradient is 0.
#
# *With numpy* write also `daq_round_backward(x, gamma, sigma, top, cotangent)`, which returns the tuple of one array `(∂L/∂x,)`. With
# torch, let autograd find the gradient: then the formula is your test.


# %% qviz={"answer": "daq_round"}
def daq_round(x, gamma, sigma, top):
    """Round to 0 … top, with the gradient of a soft argmax under a temperature controller.

    Args:
        x: The numbers, any shape, float32.
        gamma: The controller's constant, a float > 0.
        sigma: The width of the kernel, a float > 0.
        top: The highest level, an integer; the lowest is 0.

    Returns:
        The nearest level (ties go down), of x's shape, with its gradient by x.
    """
    ### BEGIN SOLUTION
    x = x.clamp(0, top)
    low, high = scores(x, sigma)
    m = torch.sigmoid(temperature(x, gamma, sigma).detach() * (high - low))
    share = 1 / (1 + float(np.exp(gamma)))
    return x.detach().floor() + (m - 0.5) / (1 - 2 * share) + 0.5
    ### END SOLUTION


# %% qviz={"tests": "daq_round"}
found = plain(daq_round(array([0.2, 0.6, 1.5, 2.9, 3.4, 8.0, -1.2]), 2.0, 1.0, 3))
assert np.allclose(found, [0, 1, 1, 3, 3, 3, 0], atol=1e-5), (
    f"[0, 1, 1, 3, 3, 3, 0], got {found.round(4).tolist()}"
)
slope = gradient("daq_round", (array([0.25, 0.4, 1.25, 2.7]), 2.0, 1.0, 3))
assert not np.allclose(slope, 0), "the gradient is 0: nothing would learn"
wanted = [0.4341, 0.5134, 0.4341, 0.4562]
assert np.allclose(slope, wanted, atol=2e-4), f"γ = 2, σ = 1: {wanted}, got {slope.round(4).tolist()}"
slope = gradient("daq_round", (array([-0.4, 3.2]), 2.0, 1.0, 3))
assert np.allclose(slope, 0), f"outside the range nothing moves: 0, got {slope}"

# %% [markdown]
# ## 4. The quantizer gap ({{points:gap}} points)
#
# In training a layer computes with the soft values, in a test with the rounded ones. The paper calls the difference the *quantizer
# gap*. Two numbers tell how large it is, over all x: the mean and the maximum of
#
# $$|\,\mathrm{soft} - \mathrm{round}(x)\,|.$$


# %% qviz={"answer": "gap"}
def gap(soft, x):
    """How far training is from a test.

    Args:
        soft: What training computes with, (N,), float32.
        x: The numbers before the rounding, (N,), float32, none of them a tie.

    Returns:
        (mean, max) of the size of the difference between soft and the rounded x.
    """
    ### BEGIN SOLUTION
    size = (soft - x.round()).abs()
    return size.mean(), size.max()
    ### END SOLUTION


# %% qviz={"tests": "gap"}
mean, top = gap(array([0.1, 0.8, 2.0, 2.7]), array([0.2, 0.7, 1.9, 2.8]))
assert abs(float(mean) - 0.15) < 1e-6, (
    f"the differences are 0.1, 0.2, 0 and 0.3 in size: mean 0.15, got {float(mean):.4f}"
)
assert abs(float(top) - 0.3) < 1e-6, f"the largest is 0.3, got {float(top):.4f}"

# %% [markdown]
# ## 5. The gradient mismatch ({{points:mismatch}} points)
#
# The other fault: the slope that the backward pass uses is not that of the forward pass. A staircase has no useful slope at a point,
# but it has one over a window of width w around x, the difference quotient, which sees the jumps
# (Q is what the forward pass computes):
#
# $$\frac{Q(x + w/2) - Q(x - w/2)}{w}.$$
#
# The mismatch is the mean, over all x, of the size of the difference between the two slopes. (The term is the paper's; this measure of it, with
# a window, is that of the package that this lab belongs to.)


# %% qviz={"answer": "mismatch"}
def mismatch(slope, below, above, width):
    """How far the slope of the backward pass is from that of the forward pass.

    Args:
        slope: The gradient that the backward pass hands on at each x, (N,), float32.
        below: Q(x − width / 2), (N,), float32.
        above: Q(x + width / 2), (N,), float32.
        width: The width of the window, a float > 0.

    Returns:
        The mean size of the difference of the two slopes.
    """
    ### BEGIN SOLUTION
    return (slope - (above - below) / width).abs().mean()
    ### END SOLUTION


# %% qviz={"tests": "mismatch"}
found = float(mismatch(array([1.0, 1.0]), array([0.0, 1.0]), array([1.0, 1.0]), 0.5))
assert abs(found - 1.0) < 1e-6, (
    f"slopes of the staircase 2 and 0, of the gradient 1 and 1: mismatch 1, got {found:.4f}"
)
found = float(mismatch(array([0.5, 0.9]), array([0.0, 1.0]), array([1.0, 2.0]), 1.0))
assert abs(found - 0.3) < 1e-6, f"sizes 0.5 and 0.1: mismatch 0.3, got {found:.4f}"

# %% [markdown]
# Now measure with your own functions. A soft rounding at a fixed temperature against DAQ:

# %%
inside = x[(x > 0.3) & (x < 2.7)]


def row(name, function, *args):
    soft, slope = plain(globals()[function](array(inside), *args)), gradient(function, (array(inside), *args))
    ends = [plain(globals()[function](array(inside + side * 0.25), *args)) for side in (-1, 1)]
    faults = gap(array(soft), array(inside))[0], mismatch(array(slope), *map(array, ends), 0.5)
    print(
        f"{name:10} gap {float(faults[0]):.4f}   mismatch {float(faults[1]):.4f}   mean slope {slope.mean():.4f}"
    )


for beta in (2.0, 5.0, 20.0):
    row(f"β = {beta:g}", "soft_round", beta, SIGMA)
row("DAQ", "daq_round", GAMMA, SIGMA, 3)

# %% [markdown]
# Read the columns: as β grows, the gap goes, and the slope goes with it. DAQ has no gap and keeps a slope.
#
# ## 6. How large must β be? ({{points:smallest_beta}} points)
#
# The explorer draws the soft rounding at a fixed β. The gap is shaded in the first picture and its mean is in the title.

# %%
from qviz.widgets import GradientExplorer

explorer = GradientExplorer("soft argmax, fixed β", show=["kind", "beta", "sigma"])
explorer.sigma.value = SIGMA
explorer

# %%
print(
    f"Leave σ at {SIGMA}. Find the smallest β of the slider with which the mean quantizer gap is {GAP} or less."
)

# %% [markdown]
# Then run the next cell and copy what it prints between the quotes of your answer.

# %%
import json

print(json.dumps(explorer.state, ensure_ascii=False))

# %% qviz={"answer": "smallest_beta"}
### BEGIN SOLUTION
smallest_beta = """{"kind": "soft argmax, fixed β", "soft": true, "sigma": 1.2, "beta": 6.0}"""
### END SOLUTION

# %% [markdown]
# ## 7. In words ({{points:why}} points)
#
# Somebody trains with `soft_round` and asks you for the right β. Why is there none, neither small nor large? What does DAQ do
# instead, and where is the softness in the end? Four or five sentences.

# %% [markdown] qviz={"answer": "why"}
# Your answer here.
