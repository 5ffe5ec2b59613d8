"""Lab 5, borders: right answers, hidden cases and typical mistakes. Not for students."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qviz.explore import BorderModel
from qviz.labs.model import Case, Function, Lab, Mistake, State, Variant, Written

Array = np.ndarray


def best_border(w: float, w_hat: float, n: Array) -> Array:
    """The border of each cell with which w' x is nearest to w u."""
    return w_hat / w * (n + 0.5) - n


def rho(w: Array, w_hat: Array) -> Array:
    """The factor of each input channel; 1 where its quantized weights are all zero."""
    return _least_squares(w, w_hat, 1.0)


def bordered(u: Tensor, b: Tensor, top: int) -> Tensor:
    """The integers of activations, by a border for each channel that learns straight through."""
    return _bordered(u, b, top)


def output_loss(x: Tensor, u: Tensor, w: Tensor, w_hat: Tensor) -> Tensor:
    """The squared error of the outputs, summed over them, the mean over samples."""
    return (x @ w_hat.T - u @ w.T).square().sum(1).mean()


def thresholds(b: Array, top: int) -> Array:
    """The places T, for each channel and cell, with T - n = B(T), by bisection."""
    n = np.arange(top)
    low, high = n + np.zeros((b.shape[1], 1)), n + np.ones((b.shape[1], 1))
    for _ in range(60):
        middle = (low + high) / 2
        down = middle - n <= _border(b, middle / top)
        low, high = np.where(down, middle, low), np.where(down, high, middle)
    return (low + high) / 2


def _least_squares(w: Array, w_hat: Array, idle: float) -> Array:
    energy, both = (w_hat * w_hat).sum((0, 2, 3)), (w_hat * w).sum((0, 2, 3))
    return np.where(energy > 0, both / np.where(energy > 0, energy, 1.0), idle)


def _ratio(a: Array, b: Array, axes: tuple[int, ...] = (0, 2, 3)) -> Array:
    """A quotient of sums, one where it has no denominator."""
    a, b = a.sum(axes), b.sum(axes)
    return np.where(b == 0, 1.0, a / np.where(b == 0, 1.0, b))


def _border(b: Array, v: Array) -> Array:
    b = b[:, :, None]
    return 1 / (1 + np.exp(-(b[0] + b[1] * v + b[2] * v * v)))


def _bordered(
    u: Tensor,
    b: Tensor,
    top: int,
    *,
    follow: bool = False,
    scale: bool = True,
    squash: Callable[[Tensor], Tensor] = torch.sigmoid,
    up: Callable[[Tensor, Tensor], Tensor] = torch.gt,
    clip: bool = True,
    soft: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda u, border, inside: inside * (u - border),
) -> Tensor:
    """The right answer; the options are the ways to be wrong."""
    inside = ((u > 0) & (u < top)).to(u)
    held = u.clamp(0, top) if clip else u
    seen = (held if follow else held.detach()) / (top if scale else 1)
    border = squash(b[0] + b[1] * seen + b[2] * seen * seen)
    cell = held.detach().floor()
    cell = cell.clamp(max=top - 1) if clip else cell
    hard = cell + up(held.detach() - cell, border.detach()).to(u)
    relaxed = soft(u, border, inside)
    return hard + (relaxed - relaxed.detach())


def _border_cases(v: Variant) -> list[Case]:
    rng, cases = v.rng(1), []
    for low, high in ((0.7, 0.8), (0.92, 0.98), (1.25, 1.4)):
        w = rng.uniform(0.5, 3.0) * rng.choice([-1.0, 1.0])
        cases.append(Case((float(w), float(w * rng.uniform(low, high)), np.arange(7.0))))
    return cases


def _weights(rng: np.random.RandomState, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Weights, and the same on a coarse grid; no channel and no output is left without any."""
    w = rng.randn(*shape)
    w[np.abs(w) < 0.1] = 0.3
    step = rng.uniform(0.6, 0.9)
    return w, np.rint(w / step) * step


def _rho_cases(v: Variant) -> list[Case]:
    rng = v.rng(2)
    cases = [Case(_weights(rng, shape)) for shape in ((6, 4, 3, 3), (5, 5, 1, 1))]
    w, w_hat = _weights(rng, (4, 3, 3, 3))
    w_hat[:, rng.randint(3)] = 0.0
    return [*cases, Case((w, w_hat), "a channel whose quantized weights are all zero")]


def _coefficients(rng: np.random.RandomState, channels: int) -> Array:
    return rng.uniform(-1, 1, (3, channels)) * np.array([[1.0], [2.0], [1.5]])


def _bordered_cases(v: Variant) -> list[Case]:
    rng, cases = v.rng(3), []
    for top, spread, group in ((3, (0.02, 2.98), "inside the range"), (7, (-3, 12), "outside the range")):
        b = _coefficients(rng, 5)
        u = rng.uniform(*spread, (40, 5))
        cell = np.clip(np.floor(u), 0, top - 1)
        near = np.abs(u - cell - _border(b, np.clip(u, 0, top).T / top).T) < 1e-3
        near |= np.abs(u - np.rint(u)) < 1e-3
        u = np.where(near, cell + 0.01 + 0.98 * (u - cell > 0.5), u)
        cases.append(Case((u, b, top), group, wrt=(0, 1), cotangent=rng.randn(40, 5)))
    ties = np.arange(7)[rng.permutation(7)][:, None] + 0.5
    return [*cases, Case((np.tile(ties, 2), np.zeros((3, 2)), 7), "ties")]


def _loss_cases(v: Variant) -> list[Case]:
    rng, cases = v.rng(4), []
    for samples, outputs, channels in ((7, 4, 3), (5, 2, 6)):
        u = rng.uniform(0, 3, (samples, channels))
        w, w_hat = _weights(rng, (outputs, channels))
        cotangent = np.array(rng.uniform(0.5, 2.0))
        cases.append(Case((np.rint(u), u, w, w_hat), wrt=(0,), cotangent=cotangent))
    return cases


def _threshold_cases(v: Variant) -> list[Case]:
    rng = v.rng(5)
    return [Case((_coefficients(rng, 4) * [[1], [1.5], [1.5]], top)) for top in (3, 7)]


def _loss(
    residual: Callable[..., Tensor], over: Callable[[Tensor], Tensor] = lambda r: r.square().sum(1).mean()
) -> Callable[..., Tensor]:
    return lambda x, u, w, w_hat: over(residual(x, u, w, w_hat))


def _outputs(x: Tensor, u: Tensor, w: Tensor, w_hat: Tensor) -> Tensor:
    return x @ w_hat.T - u @ w.T


@cache
def _explorer() -> BorderModel:
    return BorderModel()


def _bent(v: Variant, state: Mapping[str, Any]) -> dict[str, bool]:
    c = _explorer().restored(state)
    asked = (c.network, c.bits, c.border) == (v.params["NETWORK"], v.params["BITS"], "by hand")
    return {
        "network and bits are those of the question, and the border is bent by hand": asked,
        "the error on held-out images is at most the target": asked
        and round(_explorer().error(c), 1) <= v.params["TARGET"],  # as the explorer shows it
    }


TARGETS = {
    ("nearest", 2): (94.0, (0.2, 0.3, 0.3)),
    ("nearest", 3): (90.0, (0.2, 0.3, 0.3)),
    ("nearest", 4): (94.5, (0.3, 0.3, 0.3)),
    ("least squares", 2): (92.0, (0.3, 0.8, 0.9)),
    ("least squares", 3): (94.0, (0.3, 0.8, 0.7)),
}
"""Errors that a border bent by hand can reach, in percent, and one that does."""


def _bent_answer(v: Variant) -> dict[str, Any]:
    network, bits = v.params["NETWORK"], v.params["BITS"]
    low, middle, high = TARGETS[network, bits][1]
    how = {"border": "by hand", "low": low, "middle": middle, "high": high}
    return {"network": network, "bits": bits, **how}


BORDER = Function(
    "best_border",
    3,
    best_border,
    _border_cases,
    {
        "upside down": Mistake(
            lambda w, w_hat, n: w / w_hat * (n + 0.5) - n,
            "Right for w' = w, else bent the wrong way. If the quantized weight is too large: should activations go "
            "up more often, or less?",
        ),
        "half left out": Mistake(
            lambda w, w_hat, n: w_hat / w * n - n + 0.5,
            "In cell 0 your border is ½ whatever the weights are. Which activation is as well served by n as by n + 1?",
        ),
        "place for fraction": Mistake(
            lambda w, w_hat, n: w_hat / w * (n + 0.5),
            "Your numbers grow from cell to cell by about 1. Is a border a place on the axis or a fraction of its cell?",
        ),
        "unbiased": Mistake(
            lambda w, w_hat, n: n + 1 - w / w_hat * (n + 0.5),
            "This border makes the mean error of a cell zero. Which error was to be as small as possible?",
        ),
        "mirrored": Mistake(
            lambda w, w_hat, n: n + 1 - w_hat / w * (n + 0.5),
            "Your border is right for 1 minus the fraction. Does an activation above the border go up or down?",
        ),
        "clipped": Mistake(
            lambda w, w_hat, n: np.clip(best_border(w, w_hat, n), 0, 1),
            "Inside the cell all is right. What was to be done with borders that leave it?",
        ),
    },
)
RHO = Function(
    "rho",
    3,
    rho,
    _rho_cases,
    {
        "upside down": Mistake(
            lambda w, w_hat: _ratio(w_hat * w_hat, w_hat * w),
            "If w' = w / 2 everywhere, by what has the activation to be multiplied to make up for it? Yours says ½.",
        ),
        "by the float weights": Mistake(
            lambda w, w_hat: np.where((w_hat == 0).all((0, 2, 3)), 1.0, _ratio(w_hat * w, w * w)),
            "Try w' = w / 2: it should give 2. Which weights multiply the rescaled activation?",
        ),
        "one for each output": Mistake(
            lambda w, w_hat: _ratio(w_hat * w, w_hat * w_hat, (1, 2, 3)),
            "You have one number for each output channel. What is rounded once, and read by all outputs?",
        ),
        "one for each place": Mistake(
            lambda w, w_hat: _ratio(w_hat * w, w_hat * w_hat, (0,)),
            "Your result still has the kernel's axes. An activation is rounded once for all places: what is summed?",
        ),
        "mean of quotients": Mistake(
            lambda w, w_hat: np.divide(w, w_hat, out=np.ones_like(w), where=w_hat != 0).mean((0, 2, 3)),
            "The mean of many quotients gives small weights as much say as large ones. Which of them makes more error?",
        ),
        "lost channels": Mistake(
            lambda w, w_hat: _least_squares(w, w_hat, np.nan),
            "Right, except for channels whose quantized weights are all zero. What did the text say of them?",
        ),
        "silenced channels": Mistake(
            lambda w, w_hat: _least_squares(w, w_hat, 0.0),
            "Right, except for channels whose quantized weights are all zero. Which factor leaves things as they are?",
        ),
    },
    apart=("a channel whose quantized weights are all zero",),
)
BORDERED = Function(
    "bordered",
    6,
    bordered,
    _bordered_cases,
    {
        "no gradient": Mistake(
            lambda u, b, top: _bordered(u, b, top).detach(),
            "The integers are right, nothing gets a gradient. What is the slope of a staircase?",
        ),
        "border gets no gradient": Mistake(
            lambda u, b, top: _bordered(u, b.detach(), top) + 0 * b.sum(),
            "Activations get their gradient, the coefficients none, so that they never learn. Where is the thread cut?",
        ),
        "border pushes the wrong way": Mistake(
            lambda u, b, top: _bordered(u, b, top, soft=lambda u, border, inside: inside * (u + border)),
            "The gradient of the coefficients has the wrong sign. If a border rises, do integers get larger or smaller?",
        ),
        "border's own slope": Mistake(
            lambda u, b, top: _bordered(u, b, top, follow=True),
            "Values and coefficients are right, the gradient of u is a little off. The border too depends on u: was "
            "that to be followed?",
        ),
        "no mask for the border": Mistake(
            lambda u, b, top: _bordered(u, b, top, soft=lambda u, border, inside: inside * u - border),
            "The coefficients get a gradient from activations outside the range. Move their border: does the output "
            "move?",
        ),
        "no mask": Mistake(
            lambda u, b, top: _bordered(u, b, top, soft=lambda u, border, inside: u - border),
            "Gradients are right inside the range. Move an activation that is far outside: does the output move?",
        ),
        "not divided by the top": Mistake(
            lambda u, b, top: _bordered(u, b, top, scale=False),
            "Your curve is far too steep over the range. From where to where does v run?",
        ),
        "no sigmoid": Mistake(
            lambda u, b, top: _bordered(u, b, top, squash=lambda z: z),
            "With all coefficients zero your border is 0. Where should it be then?",
        ),
        "rounds the wrong way": Mistake(
            lambda u, b, top: _bordered(u, b, top, up=torch.lt),
            "Your integers go up where they should go down. Take u = 0.9 with all coefficients zero.",
        ),
        "ties go up": Mistake(
            lambda u, b, top: _bordered(u, b, top, up=torch.ge),
            "Only activations exactly on their border are off. Read the sentence on ties.",
        ),
        "not clipped": Mistake(
            lambda u, b, top: _bordered(u, b, top, clip=False),
            "Some of your integers are below 0 or above the top. Which integers are there?",
        ),
    },
    arrays="torch",
    apart=("ties",),
)
LOSS = Function(
    "output_loss",
    3,
    output_loss,
    _loss_cases,
    {
        "weight error left out": Mistake(
            _loss(lambda x, u, w, w_hat: (x - u) @ w_hat.T),
            "Your loss is zero if the activations are not rounded, though the weights still are. What should come out?",
        ),
        "float weights everywhere": Mistake(
            _loss(lambda x, u, w, w_hat: (x - u) @ w.T),
            "Your outputs are made with weights that the quantized network does not have. Which does it use?",
        ),
        "activations compared": Mistake(
            _loss(lambda x, u, w, w_hat: x - u),
            "You compare activations. Rounding them to nearest is best for that: what was to be learned instead?",
        ),
        "weights compared": Mistake(
            lambda x, u, w, w_hat: (w_hat - w).square().sum(1).mean(),
            "Your loss does not depend on the activations, so no border can learn from it. Whose error matters?",
        ),
        "mean over outputs too": Mistake(
            _loss(_outputs, lambda r: r.square().mean()),
            "Direction right, length off by a whole number. What is summed, and over what is the mean?",
        ),
        "sum over samples": Mistake(
            _loss(_outputs, lambda r: r.square().sum()),
            "Your loss grows with the number of samples. What is summed, and over what is the mean?",
        ),
        "root": Mistake(
            _loss(_outputs, lambda r: r.square().sum(1).sqrt().mean()),
            "The larger errors count too little. Was the length asked for, or its square?",
        ),
    },
    arrays="torch",
)
TABLE = Function(
    "thresholds",
    4,
    thresholds,
    _threshold_cases,
    {
        "border of the cell's lower end": Mistake(
            lambda b, top: np.arange(top) + _border(b, np.arange(top) / top + np.zeros((b.shape[1], 1))),
            "Close, but your T does not satisfy the equation. Put it back in: is T − n equal to B at T?",
        ),
        "border of the cell's middle": Mistake(
            lambda b, top: (
                np.arange(top) + _border(b, (np.arange(top) + 0.5) / top + np.zeros((b.shape[1], 1)))
            ),
            "Very close, but your T does not satisfy the equation. Put it back in: is T − n equal to B at T?",
        ),
        "put back once": Mistake(
            lambda b, top: (
                np.arange(top)
                + _border(
                    b, (np.arange(top) + _border(b, np.arange(top) / top + np.zeros((b.shape[1], 1)))) / top
                )
            ),
            "You put T back in once, and it moved. What if you do it again?",
        ),
        "fractions": Mistake(
            lambda b, top: thresholds(b, top) - np.arange(top),
            "All your numbers are between 0 and 1. With what is an activation compared that is in cell 2?",
        ),
        "channels last": Mistake(
            lambda b, top: thresholds(b, top).T,
            "The right numbers with their axes exchanged. Which shape was asked for?",
        ),
        "coefficients in reverse": Mistake(
            lambda b, top: thresholds(b[::-1], top),
            "Your curve has its coefficients in another order. Which one is the border at 0?",
        ),
    },
    atol=1e-5,
)
RUBRIC = """\
- 1 point: the missing control is named: learned biases (or any shift of the outputs' mean) on the same data.
- 1 point: the student's own numbers for this layer are given, border and bias both, and compared truly.
- 1 point: a conclusion that they bear: most of the gain may be a shift of the mean; what a border is worth is what
  is left beside the bias, on samples that nothing was learned from.
"""
MODEL_ANSWER = """\
The control is missing: a bias for each output, found on the same samples. A border that rounds most things one way
moves the mean of the outputs, and a bias does that too, for nothing at run time. Here the border brought the
held-out error to 55 %, the bias alone to 48 %, both to 51 %. So in this layer the border is worth nothing beyond a bias, and
I would report all three. (The values of other variants differ; at 3 bits the border can be ahead.)
"""
VARIANTS = tuple(
    {"NETWORK": network, "BITS": bits, "TARGET": target, "SHARE": share}
    for (network, bits), (target, _) in TARGETS.items()
    for share in (1.0, 0.8)
)
LAB = Lab(
    name="lab5-borders",
    title="Borders: where an activation rounds up",
    version=1,
    minutes=85,
    questions=(
        BORDER,
        RHO,
        BORDERED,
        LOSS,
        TABLE,
        State("bent", 3, _bent, _bent_answer),
        Written("control", 3, RUBRIC, MODEL_ANSWER),
    ),
    variants=VARIANTS,
)
