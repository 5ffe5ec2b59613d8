"""Gradient panels: the small training, and one number's arithmetic, of :mod:`qviz.explore.gradient`."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from qviz.core.probe import probe
from qviz.core.quantizer import Quantizer
from qviz.core.range import Fixed
from qviz.explore.backward import KINDS, Row
from qviz.measure import descend
from qviz.plot.passes import Passes, passes, said
from qviz.plot.scene import Axis, Line, Panel, Points, Rule, Table

if TYPE_CHECKING:
    from qviz.explore.gradient import GradientChoice

HEADERS = ("One number", "How", "Value")
TRAINING = "Training to the target"
STEPS, RATE = 24, 0.125
BESIDE = (-0.2, 0.13, 0.57, 0.86, 1.2)
"""Where other numbers start beside the reader's, in units of the last level."""


def quantizer(c: GradientChoice) -> Quantizer:
    """Return the quantizer on show."""
    kind = KINDS[c.kind]
    return Quantizer(kind.grid(c), surrogate=kind.make(c), range=Fixed(c.step), soft=c.soft)


@functools.lru_cache(maxsize=8)
def curves(c: GradientChoice, low: float, high: float) -> Passes:
    """Return both passes from low to high; the last ones are kept."""
    return passes(quantizer(c), low, high, window=c.window or None)


def arithmetic(c: GradientChoice) -> list[Row]:
    """Return x on its way through the quantizer, forward and backward."""
    q, kind = quantizer(c), KINDS[c.kind]
    p, book, s = probe(q, torch.tensor([c.x], dtype=torch.float64)), q.codebook, q.surrogate
    u, t, cell, up = float(p.u), p.t[0], int(p.cell), int(p.up)
    (a, b), (low, high) = (v.detach()[cell : cell + 2].tolist() for v in (book.knots, book.levels))
    outside = u < book.lo or u > book.hi or (book.open and u <= book.lo)
    formula = kind.formula(s, t, (high - low) / (b - a))
    soft = Row("soft level", f"{low:.4g} + {float(s.relax(t)):.4g} · ({high:.4g} − {low:.4g})", float(p.soft))
    out = float(p.soft if c.soft else p.hard)
    return [
        Row("u", f"x / s = {c.x:.4g} / {c.step:.4g}", u),
        Row("t", f"cell {cell}, from {a:.4g} to {b:.4g}: {_place(u, a, b)}", float(t)),
        *kind.rows(s, t),
        Row(
            "level",
            f"t > ½? {'yes, up' if up else 'no, down'} to {cell + up} of 0 … {len(book) - 1}",
            float(p.hard),
        ),
        *([soft] if c.soft else []),
        Row("y", f"{'soft level' if c.soft else 'level'} · s = {out:.4g} · {c.step:.4g}", float(p.y)),
        Row("dy/dx", "u is outside the grid" if outside and s.clipped else formula, float(p.dydx)),
    ]


def table(c: GradientChoice) -> Table:
    """Return the arithmetic of x as a table."""
    rows = arithmetic(c)
    cells = tuple((row.step, row.how, said(row.value)) for row in rows)
    return Table(HEADERS, cells, (), {row.step: {"value": row.value} for row in rows})


def _place(u: float, low: float, high: float) -> str:
    """Return how t is computed in the cell from low to high, in words with numbers."""
    if not low <= u <= high:
        return f"u is {'below' if u < low else 'above'}, so t is {0 if u < low else 1}"
    return f"({u:.4g} − {low:.4g}) / ({high:.4g} − {low:.4g})"


def descent(c: GradientChoice, low: float, high: float) -> Panel:
    """Return where gradient descent on (Q(x) - target)² / 2 takes x and some others."""
    starts = [c.x, *(part * (2**c.bits - 1) for part in BESIDE)]
    path = descend(
        quantizer(c), torch.tensor(starts, dtype=torch.float64), c.target, steps=STEPS, rate=RATE
    ).numpy()
    at = np.arange(STEPS + 1.0)
    marks = (
        Rule("ideal", c.target, "y", label="target of Q(x)"),
        Line.of("data", at[:, None], path[:, 1:], "other numbers"),
        Line("e", at, path[:, 0], label="your x"),
        Points("e", at[:1], path[:1, 0], "y"),
        Points("c", at[-1:], np.array([c.target]), "y", label="target"),
    )
    still = int(np.sum(np.ptp(path, axis=0) == 0))
    text = (
        f"In {STEPS} steps of descent on (Q(x) − {c.target:.4g})² / 2, x goes from {c.x:.4g} to "
        f"{path[-1, 0]:.4g}; {still} of {path.shape[1]} numbers never move."
    )
    return Panel(TRAINING, Axis("step", -0.5, STEPS + 0.5), Axis("x", low, high), marks, text)


def dotted(panel: Panel, x: float, y: float) -> Panel:
    """Return a panel with the reader's number on it."""
    dot = Points("e", np.array([x]), np.array([y]), "x", label="your x")
    return replace(panel, marks=(*panel.marks, dot), text=f"Your x = {x:.4g} is at {y:.4g}. {panel.text}")


def ended(panel: Panel, x: float) -> Panel:
    """Return a panel with a handle where the grid ends."""
    y = panel.y.low + 0.05 * (panel.y.high - panel.y.low)
    handle = Points("f", np.array([x]), np.array([y]), "x", label="end of the grid")
    return replace(panel, marks=(*panel.marks, handle), text=f"The grid ends at {x:.4g}. {panel.text}")
