"""Passes: what a quantizer computes forward and what it hands on backward, with the areas between."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qviz.core.probe import probe
from qviz.core.quantizer import Quantizer
from qviz.measure.mismatch import Deviation, slopes
from qviz.methods.daq import SoftArgmax
from qviz.plot.places import treads
from qviz.plot.scene import Axis, Band, Line, Mark, Panel

SAMPLES, EVENLY, HAIR = 360, 1200, 1e-5


@dataclass(frozen=True, eq=False)
class Passes:
    """Forward and backward pass of a quantizer over an interval of x.

    Attributes:
        low, high: The ends of the interval.
        x: Where the curves below are known, each continuous piece between two NaN.
        trained: The forward pass in training.
        tested: The forward pass of a test, which rounds.
        unscaled: The soft argmax before DAQ's rescale; None where there is none.
        backward: The slope that the surrogate hands on.
        forward: The slope of the forward pass in training.
        tread: Left ends, right ends and heights of the staircase of a test.
        gap: The quantizer gap over numbers spread evenly over the grid.
        mismatch: The gradient mismatch over the same.
        window: The width over which slopes are averaged, in cells, or None.
    """

    low: float
    high: float
    x: np.ndarray
    trained: np.ndarray
    tested: np.ndarray
    unscaled: np.ndarray | None
    backward: np.ndarray
    forward: np.ndarray
    tread: tuple[np.ndarray, np.ndarray, np.ndarray]
    gap: Deviation
    mismatch: Deviation
    window: float | None

    def forward_panel(self) -> Panel:
        """Return y = Q(x) of a test and of training, the quantizer gap shaded between them."""
        ends, seen = np.array([self.low, self.high]), np.isfinite(self.x)
        left, right, y = self.tread
        none = np.full_like(left, np.nan)
        stairs = [np.column_stack([*sides, none]).ravel()[:-1] for sides in ((left, right), (y, y))]
        marks: list[Mark] = [
            Line("ideal", ends, ends, label="y = x"),
            _between("b", self.x[seen], self.trained[seen], self.tested[seen]),
            Line("a", *stairs, label="Q(x) in a test"),
        ]
        if self.gap.max > 1e-9:
            marks.append(Line("b", self.x, self.trained, label="Q(x) in training"))
        if self.unscaled is not None:
            marks.append(Line("c", self.x, self.unscaled, label="before DAQ's rescale"))
        gap = f"Quantizer gap, the shaded area: mean {said(self.gap.mean)}, largest {said(self.gap.max)}."
        same = " Training computes what a test computes." if self.gap.max <= 1e-9 else ""
        axes = Axis("x", *ends), Axis("y", *ends)
        return Panel("Forward: y = Q(x)", *axes, tuple(marks), f"{gap}{same}")

    def backward_panel(self) -> Panel:
        """Return the gradient that is handed on and the slope of the forward pass, the mismatch shaded."""
        seen = np.isfinite(self.x)
        band = _between("a", self.x[seen], self.backward[seen], self.forward[seen])
        top = _round_up(1.1 * max(1.0, float(band.high.max())))
        over = f" over {self.window:.3g} cells" if self.window else ""
        marks = (
            band,
            Line("data", self.x, self.forward, label=f"slope of the forward pass{over}"),
            Line("a", self.x, self.backward, label="gradient handed on"),
        )
        miss = f"mean {said(self.mismatch.mean)}, largest {said(self.mismatch.max)}"
        text = f"Gradient mismatch, the shaded area inside the grid{over and f', slopes{over}'}: {miss}."
        axes = Axis("x", self.low, self.high), Axis("dy/dx", -0.05 * top, top)
        return Panel("Backward: dy/dx", *axes, marks, text)


def passes(q: Quantizer, low: float, high: float, *, window: float | None = None) -> Passes:
    """Return the forward and the backward pass of a quantizer over an interval of x.

    Args:
        q: A calibrated quantizer with one scale and no offset, whose outputs are in units of x and whose
            rounding is not random.
        low: Where x begins.
        high: Where it ends.
        window: As in :func:`~qviz.measure.gradient_mismatch`.

    Example:
        >>> from qviz import Fixed, recipes
        >>> p = passes(recipes.ste(2, signed=False, range=Fixed(1.0)), -1.0, 4.0)
        >>> p.mismatch, p.gap
        (Deviation(mean=1.0, max=1.0), Deviation(mean=0.0, max=0.0))
    """
    book, s = q.codebook, float(q.range.scale)
    knots, borders = book.knots.detach().double(), q.rounding.borders(book).detach()
    sides = torch.tensor([-window / 2, 0.0, window / 2] if window else [0.0], dtype=torch.float64)
    jumps = (torch.cat([knots, borders])[:, None] + sides).flatten() * s
    x = _pieces(jumps.numpy(), low, high)
    seen = np.isfinite(x)
    evenly = knots[0] + (knots[-1] - knots[0]) * (torch.arange(EVENLY, dtype=torch.float64) + 0.5) / EVENLY
    at = torch.cat([torch.from_numpy(x[seen]), evenly * s])
    hard = Quantizer(book, q.rounding, q.surrogate, q.range)
    pair, p, tested = slopes(q, at, window=window), probe(q, at), hard(at)
    unscaled = None
    if isinstance(q.surrogate, SoftArgmax) and q.surrogate.beta is None:
        unscaled = book.emit(p.cell, q.surrogate.scores(p.t).m) * s

    def drawn(values: Tensor) -> np.ndarray:
        full = np.full(len(x), np.nan)
        full[seen] = values[:-EVENLY].numpy(force=True)
        return full

    return Passes(
        low,
        high,
        x,
        drawn(p.y),
        drawn(tested),
        None if unscaled is None else drawn(unscaled),
        *map(drawn, pair),
        treads("q", hard, low, high, 2),
        Deviation.of((p.y - tested)[-EVENLY:]),
        Deviation.of((pair.backward - pair.forward)[-EVENLY:]),
        window,
    )


def said(value: float) -> str:
    """Return a number with four digits; what is only a rounding error is 0."""
    return f"{0.0 if abs(value) < 1e-6 else value:.4g}"


def _between(role: str, x: np.ndarray, one: np.ndarray, two: np.ndarray) -> Band:
    return Band(role, x, np.minimum(one, two), np.maximum(one, two))


def _pieces(jumps: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return x from low to high with NaN at the jumps, and numbers close to both sides of each."""
    cuts = np.unique(np.concatenate([[low, high], jumps[(jumps > low) & (jumps < high)]]))
    made = []
    for a, b in itertools.pairwise(cuts):
        hair = HAIR * (b - a)
        made += [np.linspace(a + hair, b - hair, max(3, round(SAMPLES * (b - a) / (high - low)))), [np.nan]]
    return np.concatenate(made[:-1])


def _round_up(value: float) -> float:
    decade = 10.0 ** np.floor(np.log10(value))
    return float(
        next(m * decade for m in (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0, 10.0) if m * decade >= value)
    )
