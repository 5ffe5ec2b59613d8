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
# # Lab 5: borders, or where an activation rounds up
#
# Rounding to nearest is best for a number, but not for a product. In this lab you work out where an activation should
# round up when its weight is quantized too, teach a real layer its borders, and fold them into a table:
#
# 1. the best border of one product, 2. the factor ρ of a channel, 3. a border that learns, 4. what it learns from,
# 5. the table of thresholds.
#
# After it you can say what a learned border is worth, and test such a claim with a control. 85 minutes. You need
# lesson 08. Of the paper, AQuant ([Li et al. 2022](https://arxiv.org/abs/2208.11945)), only abstracts could be obtained:
# that the border is a function of the activation, coarse and learned is theirs. Its form here is **inferred**, or
# **derived** by algebra.
#
# **How to answer.** Write your code where it says `# your code here`. Functions get torch tensors; if you would rather have
# numpy arrays, write `ARRAYS = "numpy"` as the first line of your answer to question 1. They must not change what they are
# given. Cells that are no answers are locked; add cells of your own where you like. Two functions need a **gradient**. With
# torch write what autograd can differentiate. With numpy define a second function beside the first, `NAME_backward`, that
# takes the same arguments and then the gradient of the result, and returns a tuple with the gradients that are asked for.

# %% qviz={"given": true}
import numpy as np
import torch

ARRAYS = "torch"
SEED = 5
NETWORK = "nearest"
BITS = 2
TARGET = 94.0
SHARE = 1.0


def array(values):
    """Numbers as your functions get them."""
    values = np.asarray(values, dtype=np.float64).copy()
    return torch.from_numpy(values) if ARRAYS == "torch" else values


def numbers(values):
    """Your result as a numpy array."""
    return values.detach().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def same(got, want):
    """Whether your result has these numbers."""
    got, want = numbers(got), np.asarray(want)
    return got.shape == want.shape and np.allclose(got, want, atol=1e-6)


def gradients(function, args, of, start):
    """The gradients of a function's result by the arguments at the places ``of``."""
    backward = globals().get(f"{function.__name__}_backward")
    if backward is not None:
        return backward(*args, start)
    args = [torch.as_tensor(a).detach().requires_grad_() if i in of else a for i, a in enumerate(args)]
    result = function(*args)
    assert isinstance(result, torch.Tensor), (
        f"torch, or a function {function.__name__}_backward, is needed here"
    )
    assert result.requires_grad, f"nothing that {function.__name__} was given gets a gradient"
    start = torch.as_tensor(start, dtype=result.dtype)
    return torch.autograd.grad(result, [args[i] for i in of], start)


# %% [markdown]
# ## 1. The best border of one product
#
# **Question `best_border` ({{points:best_border}} points).** A weight w is stored as w', an activation u as an integer x.
# In the cell from n to n + 1 the activation may become n or n + 1. It should go up where w'(n + 1) is nearer to w u than
# w'n is. Both are equally near where (w / w') u is in the middle of n and n + 1. So the border, as a *fraction* of the
# cell, is
#
# $$B(n) = \frac{w'}{w}\left(n + \tfrac12\right) - n$$
#
# (**derived**; it reproduces a claim of the abstract, version 2: *minimal error of multiplying two numbers*). A border
# may leave [0, 1]; return it as it is.


# %% qviz={"answer": "best_border"}
def best_border(w, w_hat, n):
    """Return the border of each cell.

    Args:
        w: a weight, not 0.
        w_hat: the quantized weight w', of the same sign.
        n: cells, shape (R,).

    Returns:
        B(n), shape (R,).
    """
    ### BEGIN SOLUTION
    return w_hat / w * (n + 0.5) - n
    ### END SOLUTION


# %% qviz={"tests": "best_border"}
found = best_border(1.0, 1.0, array([0, 1, 2]))
assert same(found, [0.5, 0.5, 0.5]), f"with w' = w the border is one half, not {found}"
found = best_border(1.0, 0.8, array([0, 1, 2, 3]))
assert same(found, [0.4, 0.2, 0.0, -0.2]), (
    f"w' is too small, so go up early: [0.4, 0.2, 0, −0.2], not {found}"
)

# %% [markdown]
# ## 2. One activation, many weights
#
# **Question `rho` ({{points:rho}} points).** In a convolution an activation of input channel c is rounded once and read by all
# output channels and kernel places. The best that it can do is to follow the average, in the sense of least squares:
#
# $$\rho_c = \frac{\langle w'_c, w_c\rangle}{\langle w'_c, w'_c\rangle}$$
#
# (**derived**; ⟨ , ⟩ sums products over output channels and places). It is the factor by which u is best rescaled, and
# B_c(n) = (n + ½) / ρ_c − n. For a channel whose quantized weights are all zero no border matters; return 1 for it.


# %% qviz={"answer": "rho"}
def rho(w, w_hat):
    """Return the factor of each input channel.

    Args:
        w: weights of a convolution, shape (O, C, k, k).
        w_hat: the quantized weights, same shape.

    Returns:
        Shape (C,).
    """
    ### BEGIN SOLUTION
    w, w_hat = torch.as_tensor(w), torch.as_tensor(w_hat)
    energy = (w_hat * w_hat).sum((0, 2, 3))
    both = (w_hat * w).sum((0, 2, 3))
    return torch.where(energy > 0, both / energy, torch.ones_like(energy))
    ### END SOLUTION


# %% qviz={"tests": "rho"}
w = array([[0.7, 1.0, 2.0], [-0.4, 1.0, 4.0], [0.2, 1.0, 6.0]])[:, :, None, None]
w_hat = array([[0.5, 0.0, 1.0], [-0.5, 0.0, 2.0], [0.0, 0.0, 3.0]])[:, :, None, None]
found = rho(w, w_hat)
assert same(found, [1.1, 1.0, 2.0]), f"one for each of three input channels: [1.1, 1, 2], not {found}"

# %% [markdown]
# ## 3. A border that learns
#
# **Question `bordered` ({{points:bordered}} points).** The form of the border here (**inferred**) has three coefficients for
# each channel. With R the largest level, `top`,
#
# $$v = \frac{\mathrm{clip}(u, 0, R)}{R}, \qquad B(v) = \sigma(b_0 + b_1 v + b_2 v^2), \qquad \sigma(z) = \frac{1}{1 + e^{-z}}.$$
#
# *Forward.* Clip u to [0, R]. It lies in the cell n = ⌊u⌋, but u = R in the last cell, n = R − 1. It becomes n + 1 where
# u − n exceeds B, else n. **Ties go down**: u − n = B gives n. Outside the range the result is 0 or R.
#
# *Backward*, straight through: inside the range, 0 < u < R, differentiate as if the result were u − B. So
#
# $$\frac{\partial x}{\partial u} = 1, \qquad \frac{\partial x}{\partial B} = -1, \qquad\text{and outside the range both are } 0.$$
#
# The gradient goes on from B to the three coefficients. It does *not* go on from B to u: v counts as a constant.


# %% qviz={"answer": "bordered"}
def bordered(u, b, top):
    """Round activations by a border for each channel.

    Args:
        u: activations in units of their step, shape (N, C); gradient wanted.
        b: coefficients, shape (3, C), first those of the constant; gradient wanted.
        top: R, the largest level, a whole number.

    Returns:
        Integers from 0 to R as floating point, shape (N, C).
    """
    ### BEGIN SOLUTION
    inside = (u > 0) & (u < top)
    clipped = u.detach().clamp(0, top)
    v = clipped / top
    border = torch.sigmoid(b[0] + b[1] * v + b[2] * v * v)
    n = clipped.floor().clamp(max=top - 1)
    hard = n + (clipped - n > border.detach())
    soft = inside * (u - border)
    return hard + (soft - soft.detach())
    ### END SOLUTION


# %% qviz={"tests": "bordered"}
u = array([[-1.0], [0.5], [0.6], [1.4], [2.9], [9.0]])
flat = array([[0.0], [0.0], [0.0]])
found = bordered(u, flat, 3)
assert same(found, [[0], [0], [1], [1], [3], [3]]), (
    f"with zeros this is rounding to nearest, ties down: {found}"
)
found = bordered(u, array([[0.4], [-1.8], [1.35]]), 3)
assert same(found, [[0], [0], [1], [1], [3], [3]]), f"B(0.5) = 0.53, B(1.4) = 0.46: {found}"
du, db = gradients(bordered, (u, flat, 3), (0, 1), array(np.ones((6, 1))))
assert same(du, [[0], [1], [1], [1], [1], [0]]), f"the slope is 1 inside the range, 0 outside: {du}"
assert same(db[0], [-1.0]), f"four activations are inside the range, B(1 − B) = ¼ for each: −1, not {db[0]}"
assert same(db[1], [-0.25 * (0.5 + 0.6 + 1.4 + 2.9) / 3]), f"the same with v for each: {db[1]}"

# %% [markdown]
# ## 4. What it learns from
#
# **Question `output_loss` ({{points:output_loss}} points).** A border is good if the layer's *output* is near that of the
# layer in floating point. The quantized network has the weights w' and the integers x, the other one w and u. With N
# samples and O outputs,
#
# $$L = \frac1N \sum_{i=1}^{N} \sum_{o=1}^{O} \Big(\sum_c w'_{oc}\, x_{ic} - \sum_c w_{oc}\, u_{ic}\Big)^2.$$


# %% qviz={"answer": "output_loss"}
def output_loss(x, u, w, w_hat):
    """Return the loss.

    Args:
        x: rounded activations, shape (N, C); gradient wanted.
        u: activations, shape (N, C).
        w: weights, shape (O, C).
        w_hat: the quantized weights, shape (O, C).

    Returns:
        One number.
    """
    ### BEGIN SOLUTION
    return ((x @ w_hat.T - u @ w.T) ** 2).sum(1).mean()
    ### END SOLUTION


# %% qviz={"tests": "output_loss"}
x, u = array([[1.0, 2.0], [0.0, 1.0]]), array([[1.5, 2.0], [0.0, 1.0]])
w, w_hat = array([[1.0, 1.0], [0.5, 0.0], [0.0, 2.0]]), array([[1.0, 1.0], [1.0, 0.0], [0.0, 2.0]])
found = output_loss(x, u, w, w_hat)
assert same(found, 0.15625), f"errors −0.5, 0.25 and 0 in the first sample, none in the second: not {found}"
(dx,) = gradients(output_loss, (x, u, w, w_hat), (0,), 1.0)
assert same(dx, [[-0.25, -0.5], [0.0, 0.0]]), f"the gradient of x is wrong: {dx}"

# %% [markdown]
# ### On a real layer
#
# `project_early` of MobileNetV2 is a convolution of one pixel with 32 inputs and 16 outputs, so that each row of its
# input is a sample. The cell below quantizes weights and activations to `BITS` bits. The largest level stands for `SHARE`
# times the largest activation; what is above it is clipped. Then the cell learns the borders by 200 steps of gradient
# descent with *your* functions, on half of the samples. The other half is held out. Nothing is graded here, but you need
# the numbers for the last question.

# %%
import qviz

activations = qviz.shipped.tensor("act_depthwise").double()
weights = qviz.shipped.tensor("project_early").flatten(1).double()
TOP, HALF = 2**BITS - 1, 2 ** (BITS - 1) - 1
scaled = activations / (SHARE * activations.max() / TOP)
size = 0.8 * weights.abs().amax(1, keepdim=True) / HALF
on_grid = array((weights / size).round().clamp(-HALF, HALF) * size)
fit, held_out, weights = array(scaled[:1024]), array(scaled[1024:]), array(weights)


def learned(steps=200, rate=1.0):
    """Coefficients after gradient descent on the loss of the fitted half."""
    b = array(np.zeros((3, 32)))
    for _ in range(steps):
        (dx,) = gradients(output_loss, (bordered(fit, b, TOP), fit, weights, on_grid), (0,), 1.0)
        _, db = gradients(bordered, (fit, b, TOP), (0, 1), dx)
        b = b - rate * db
    return b


def missed(samples, b):
    """What each output misses."""
    return numbers(bordered(samples, b, TOP)) @ numbers(on_grid).T - numbers(samples) @ numbers(weights).T


nearest, coefficients = array(np.zeros((3, 32))), learned()
whole = np.square(missed(held_out, nearest)).sum(1).mean()
print(f"{BITS} bits; error on held-out samples, rounding to nearest = 100 %")
for name, b, corrected in (
    ("learned borders", coefficients, False),
    ("nearest, and a bias for each output", nearest, True),
    ("learned borders, and a bias", coefficients, True),
):
    bias = missed(fit, b).mean(0) if corrected else 0.0
    print(f"{name:36} {100 * np.square(missed(held_out, b) - bias).sum(1).mean() / whole:5.1f} %")

# %% [markdown]
# ## 5. The table
#
# **Question `thresholds` ({{points:thresholds}} points).** At run time nobody computes a sigmoid. As long as u − B(u) grows
# with u, the border in cell n is one fixed place, the threshold T_n, and rounding means to count the thresholds below u
# (**derived**). T_n is the solution of
#
# $$T_n - n = B(T_n), \qquad n \le T_n \le n + 1,$$
#
# with B at v = T_n / R. There is one solution in each cell. Bisection finds it; so do fifty rounds of putting T back
# into the right side. Errors up to 0.00001 are forgiven.


# %% qviz={"answer": "thresholds"}
def thresholds(b, top):
    """Return the table of thresholds.

    Args:
        b: coefficients, shape (3, C).
        top: R, the largest level and the number of cells.

    Returns:
        T, shape (C, R), increasing in each row.
    """
    ### BEGIN SOLUTION
    b = torch.as_tensor(b)[:, :, None]
    n = torch.arange(top, dtype=b.dtype)
    t = (n + 0.5).expand(b.shape[1], top)
    for _ in range(100):
        v = t / top
        t = n + torch.sigmoid(b[0] + b[1] * v + b[2] * v * v)
    return t
    ### END SOLUTION


# %% qviz={"tests": "thresholds"}
found = thresholds(array([[0.0, 0.4], [0.0, -1.8], [0.0, 1.35]]), 3)
want = [[0.5, 1.5, 2.5], [0.530896, 1.460975, 2.457964]]
assert numbers(found).shape == (2, 3), f"a row for each channel: shape (2, 3), not {numbers(found).shape}"
assert np.allclose(numbers(found), want, atol=1e-5), f"{want}, not {found}"

# %% [markdown]
# ## 6. Bent by hand
#
# **Question `bent` ({{points:bent}} points).** The explorer has a layer of a ResNet-20, `layer2.1.conv2`, that was quantized
# with its whole network. Set **Network** to `NETWORK`, **Bits** to `BITS` and **Border** to "by hand". Then bend one border
# for all channels with **B at 0**, **B middle** and **B at top** until the error on held-out images (the bar "on show" in
# the last picture, and that row of the table, column "8 images"; 100 % is one half everywhere) is **at most `TARGET`
# percent**. Print `explorer.state` and paste the text between the quotes of the answer.

# %%
import qviz.widgets

print(f"network: {NETWORK}, bits: {BITS}, at most {TARGET} %")
explorer = qviz.widgets.BorderExplorer()
explorer

# %%
import json

print(json.dumps(explorer.state))

# %% qviz={"answer": "bent"}
### BEGIN SOLUTION
bent = """{"network": "nearest", "bits": 2, "border": "by hand", "low": 0.2, "middle": 0.3, "high": 0.3}"""
### END SOLUTION

# %% [markdown]
# ## 7. The control
#
# **Question `control` ({{points:control}} points).** A report says: *"Learned borders lower the error of `project_early` on
# held-out samples by a good part; so where to round matters a lot."* Which control is missing, what does it say for your layer
# (your numbers from above), and what would you write instead?

# %% [markdown] qviz={"answer": "control"}
# *Your answer here.*

# %% [markdown]
# ## Before you hand in
#
# Restart the kernel and run all cells from the top. A cell of tests that says nothing is content.
