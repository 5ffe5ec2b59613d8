"""Backward: gradients that stand in for rounding, with their controls and the arithmetic of one number."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qviz.core.codebook import Codebook
from qviz.core.grids import uniform
from qviz.core.surrogate import StraightThrough, Surrogate, TrueDerivative
from qviz.explore.controls import Pick, Slide, control
from qviz.methods.daq import SoftArgmax
from qviz.methods.dsq import SoftTanh
from qviz.methods.n2uq import LearnedKnots
from qviz.methods.quantization_networks import SoftSigmoid


class Row(NamedTuple):
    """One step of an arithmetic: its name, how it is computed, with numbers, and what comes out."""

    step: str
    how: str
    value: float


@dataclass(frozen=True)
class Kind:
    """A way to hand a gradient through rounding.

    Attributes:
        make: From a choice (a :class:`Backward`) to the surrogate.
        formula: From the surrogate, the coordinate t and the gap of levels over the gap of knots to the slope
            inside the grid, in words with numbers.
        about: What it is, with its source.
        constants: The fields of the choice that it has.
        soft: Whether its forward pass is soft, as published.
        grid: From a choice to the codebook; by default uniform.
        rows: From the surrogate and t to the steps before the gradient that it alone has.
    """

    make: Callable[[Any], Surrogate]
    formula: Callable[[Any, Tensor, float], str]
    about: str
    constants: tuple[str, ...] = ()
    soft: bool = False
    grid: Callable[[Any], Codebook] = field(default=lambda c: uniform(c.bits, signed=False))
    rows: Callable[[Any, Tensor], list[Row]] = field(default=lambda s, t: [])


def widths(bits: int, ratio: float) -> Tensor:
    """Return the widths of N2UQ's cells, each ``ratio`` times the last, with the mean 1."""
    widths = ratio ** torch.arange(2**bits - 1, dtype=torch.float64)
    return widths / widths.mean()


def _argmax_rows(s: SoftArgmax, t: Tensor) -> list[Row]:
    low, high, beta, m = (float(v) for v in s.scores(t))
    t, kappa = float(t), math.exp(-1.0 / s.sigma**2)
    near = (kappa, 1.0) if t > 0.5 else (1.0, kappa)
    rows = [
        Row("score s_f", f"lower level: e^−t · k = {math.exp(-t):.4g} · {near[0]:.4g}", low),
        Row("score s_c", f"upper level: e^−(1−t) · k = {math.exp(t - 1.0):.4g} · {near[1]:.4g}", high),
    ]
    if s.beta is None:
        rows.append(Row("β", f"controller: γ / |s_c − s_f| = {s.gamma:.4g} / {abs(high - low):.4g}", beta))
    return [
        *rows,
        Row("share m", f"sigmoid(β (s_c − s_f)) = sigmoid({beta * (high - low):.4g})", m),
    ]


def _daq_rows(s: SoftArgmax, t: Tensor) -> list[Row]:
    share = 1.0 / (1.0 + math.exp(s.gamma))
    how = f"(m − ½) / (1 − 2λ) + ½, λ = 1 / (1 + e^γ) = {share:.4g}"
    return [*_argmax_rows(s, t), Row("rescaled m", how, float(s.relax(t)))]


def _argmax(s: SoftArgmax, t: Tensor, gap: float) -> str:
    low, high, beta, m = (float(v) for v in s.scores(t))
    return f"β m (1 − m) (s_f + s_c) = {beta:.4g} · {m:.4g} · {1 - m:.4g} · {low + high:.4g}"


def _daq(s: SoftArgmax, t: Tensor, gap: float) -> str:
    g, at = s.gamma / (2.0 * math.sinh(s.gamma)), abs(float(t) - 0.5) + 1.0 / (2.0 * s.sigma**2)
    return f"γ / (2 sinh γ) · coth(|t − ½| + 1 / (2σ²)) = {g:.4g} · coth({at:.4g})"


def _tanh(s: SoftTanh, t: Tensor, gap: float) -> str:
    bent, k = math.tanh(s.k * (float(t) - 0.5)) ** 2, s.k
    return f"k / (2 tanh(k / 2)) · (1 − tanh²(k (t − ½))) = {k / (2 * math.tanh(k / 2)):.4g} · {1 - bent:.4g}"


def _share(s: SoftSigmoid, t: Tensor) -> list[Row]:
    how = f"sigmoid(T (t − ½)) = sigmoid({s.temperature * (float(t) - 0.5):.4g})"
    return [Row("share m", how, float(s.relax(t)))]


def _sigmoid(s: SoftSigmoid, t: Tensor, gap: float) -> str:
    m = float(s.relax(t))
    return f"T m (1 − m) = {s.temperature:.4g} · {m:.4g} · {1 - m:.4g}"


KINDS: dict[str, Kind] = {
    "true derivative": Kind(
        lambda c: TrueDerivative(),
        lambda s, t, gap: "a step is flat",
        "What calculus says: 0 wherever there is one.",
    ),
    "STE, clipped": Kind(
        lambda c: StraightThrough(),
        lambda s, t, gap: "as if Q were y = x inside the grid",
        "Straight-through estimator (Bengio et al. 2013): 1 inside the grid, 0 outside.",
    ),
    "STE, unclipped": Kind(
        lambda c: StraightThrough(clipped=False),
        lambda s, t, gap: "as if Q were y = x everywhere",
        "Straight-through estimator (Bengio et al. 2013) that passes outside the grid too.",
    ),
    "sigmoid, fixed T": Kind(
        lambda c: SoftSigmoid(c.temperature),
        _sigmoid,
        "A sigmoid in each cell (quantization networks, Yang et al. 2019); it does not reach the levels.",
        ("temperature",),
        soft=True,
        rows=_share,
    ),
    "tanh (DSQ)": Kind(
        lambda c: SoftTanh(c.k),
        _tanh,
        "The slope of a tanh in each cell (DSQ, Gong et al. 2019): a sigmoid stretched to reach both levels.",
        ("k",),
    ),
    "soft argmax, fixed β": Kind(
        lambda c: SoftArgmax(sigma=c.sigma, beta=c.beta),
        _argmax,
        "Kernel soft argmax at a fixed temperature: the soft forward pass that DAQ's controller replaces.",
        ("beta", "sigma"),
        soft=True,
        rows=_argmax_rows,
    ),
    "DAQ, controller": Kind(
        lambda c: SoftArgmax(c.gamma, c.sigma),
        _daq,
        "DAQ (Kim et al. 2021): a controller sets β for each x, and the rescaled forward pass is rounding.",
        ("gamma", "sigma"),
        rows=_daq_rows,
    ),
    "N2UQ, learned widths": Kind(
        lambda c: StraightThrough(),
        lambda s, t, gap: f"gap of levels / width of the cell = 1 / {1 / gap:.4g}",
        "Generalized STE (N2UQ, Liu et al. 2022): learned cells, even levels; narrow cells are steep.",
        ("ratio",),
        grid=lambda c: LearnedKnots(c.bits, widths=widths(c.bits, c.ratio), step=1.0),
    ),
}


@dataclass(frozen=True)
class Backward:
    """A kind of gradient with the constants of all kinds, and the number that gets it."""

    kind: str = control(
        "STE, clipped",
        Pick("Gradient", "What stands in for the derivative of rounding.", options=tuple(KINDS)),
    )
    x: float = control(1.3, Slide("x", "The number that walks through the picture.", step=0.01))
    gamma: float = control(2.0, Slide("γ", "How sure DAQ's controller is.", low=0.1, high=6.0, step=0.1))
    sigma: float = control(
        1.0, Slide("σ", "The width of the kernel that favors the nearer knot.", low=0.4, high=3.0, step=0.1)
    )
    beta: float = control(
        5.0, Slide("β", "The fixed temperature: a larger one is harder.", low=0.5, high=40.0, step=0.5)
    )
    temperature: float = control(
        8.0, Slide("T", "The sigmoid's temperature: a larger one is harder.", low=1.0, high=40.0, step=1.0)
    )
    k: float = control(4.0, Slide("k", "How sharp the tanh is.", low=0.5, high=20.0, step=0.5))
    ratio: float = control(
        1.6,
        Slide("Width ratio", "How much wider each cell is than the one below.", low=0.5, high=2.0, step=0.1),
    )

    def limits(self) -> dict[str, dict[str, bool]]:
        """Return which constants the kind has."""
        named = {name for kind in KINDS.values() for name in kind.constants}
        return {name: {"shown": name in KINDS[self.kind].constants} for name in named}
