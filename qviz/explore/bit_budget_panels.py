"""Bit budget panels: bits and sensitivity by layer, what to expect of a size, and what was measured."""

from __future__ import annotations

import numpy as np

from qviz.explore import bit_budget_walk as walk
from qviz.explore.bit_budget_plan import RIVALS, YOURS, Plan
from qviz.plot.scene import Axis, Band, Bars, Line, Mark, Panel, Points, Rule, Steps, Table

COLUMNS = {"bits": ".3f", "kB": ".1f", "Σ Ω": ".3g", "loss rise": ".3f", "top-1 (%)": ".2f"}
"""The columns of the table, and how their numbers are written."""


def bits(p: Plan) -> Panel:
    """Show the bits of each layer, with dots that can be dragged, and those of the exact solution."""
    own, best = (np.array(p.rows[name], dtype=float) for name in (YOURS, "exact"))
    at, edges, k = np.arange(1.0, len(own) + 1.0), np.arange(len(own) + 1) + 0.5, p.layer
    marks = (
        Bars("a", edges, own, label=YOURS),
        Steps("d", edges, best, label="exact"),
        Points("a", at, own, "y"),
        Points("e", at[k : k + 1], own[k : k + 1], "y", label="the layer that is set"),
    )
    text = (
        f"Your bits go from {own.min():.0f} to {own.max():.0f}. Layer {k + 1}, {p.costs.names[k]}, has "
        f"{p.costs.sizes[k]:,} of {p.costs.sizes.sum():,} weights, at {own[k]:.0f} bits. The exact solution "
        f"has other bits in {int((own != best).sum())} of {len(own)} layers."
    )
    return Panel(
        "Bits of each layer", p.layers, Axis("bits of a weight", 0.0, p.costs.bits[-1] + 0.5), marks, text
    )


def shares(p: Plan) -> Panel:
    """Show the sensitivity of each layer over all bit widths, and at the bits that it has."""
    omega = np.maximum(p.costs.omega[p.estimate], p.floor)
    at = np.arange(1.0, len(omega) + 1.0)
    low, high = omega.min(1), omega.max(1)
    marks: list[Mark] = [
        Band("data", at, low, high, label=f"from {p.costs.bits[0]} to {p.costs.bits[-1]} bits")
    ]
    for name, role in (("exact", "d"), (YOURS, "a")):
        row = np.maximum(p.costs.shares(p.rows[name], p.estimate), p.floor)
        marks += [Line(role, at, row, label=name), Points(role, at, row)]
    own = p.costs.shares(p.rows[YOURS], p.estimate)
    marks.append(walk.cost(p))
    worst = int(own.argmax())
    text = (
        f"By {p.estimate}, layer {worst + 1}, {p.costs.names[worst]}, costs most at your bits, "
        f"{own[worst]:.3g} of {own.sum():.3g} in all. Values below {p.floor:.2g} are drawn there."
    )
    y = Axis(f"Ω ({p.estimate})", p.floor / 2, 2.0 * float(omega.max()), log=True)
    return Panel("What each layer costs", p.layers, y, tuple(marks), text)


def expected(p: Plan) -> Panel:
    """Show the sum of sensitivities against the size: yours, and the curves of the others."""
    own, best, y = p.rows[YOURS], p.rows["exact"], p.sums
    marks: list[Mark] = [*_limit(p, 1.3 * y.low)]
    for way, role in RIVALS.items():
        curve = p.curve(way)
        marks.append(Line(role, p.sizes(curve), np.maximum([p.rise(b) for b in curve], p.floor), label=way))
    marks += [*walk.way(p)]
    marks.append(Points("a", p.sizes([own]), np.array([max(p.rise(own), p.floor)]), "xy", label=YOURS))
    text = (
        f"Your allocation takes {p.costs.kilobytes(own):.1f} kB and has Σ Ω {p.rise(own):.3g}; the exact one "
        f"takes {p.costs.kilobytes(best):.1f} kB and has {p.rise(best):.3g}."
    )
    return Panel("Expected: sum of costs", p.size, y, tuple(marks), text)


def measured(p: Plan) -> Panel:
    """Show the accuracy against the size, of all allocations that were run."""
    marks: list[Mark] = [*_limit(p, 3.0), Rule("ideal", p.costs.floating.top1, "y", label="floating point")]
    for way, role in RIVALS.items():
        curve = p.curve(way)
        y = np.array([p.trials[b].top1 for b in curve])
        marks += [Line(role, p.sizes(curve), y, label=way), Points(role, p.sizes(curve), y)]
    now = p.trials.get(p.rows[YOURS])
    own = list(dict.fromkeys((*p.own, now) if now else p.own))
    tops = np.array([t.top1 for t in own])
    marks.append(Points("a", p.sizes([t.bits for t in own]), tops, label=YOURS))
    said = f"Your allocation has {now.top1:.2f} %" if now else "Your allocation was not measured yet"
    best = p.trials[p.rows["exact"]].top1
    text = f"{said}; the exact one {best:.2f} %, floating point {p.costs.floating.top1:.2f} %."
    return Panel("Measured accuracy", p.size, Axis("top-1 (%)", 0.0, 100.0), tuple(marks), text)


def _limit(p: Plan, y: float) -> tuple[Rule, Points]:
    """Return the budget as a size, and the dot by which it is dragged."""
    return Rule("data", p.limit, label="the budget"), Points("data", np.array([p.limit]), np.array([y]), "x")


def table(p: Plan) -> Table:
    """Return the figures of the allocations at this budget."""
    cells, values = [], {}
    for name, own in p.rows.items():
        t = p.trials.get(own)
        found = (t.loss - p.costs.floating.loss, t.top1) if t else (None, None)
        row = (p.costs.average(own), p.costs.kilobytes(own), p.rise(own), *found)
        values[name] = dict(zip(COLUMNS, row, strict=True))
        shown = zip(row, COLUMNS.values(), strict=True)
        cells.append((name, *("not measured" if v is None else format(v, d) for v, d in shown)))
    size = f"{p.costs.sizes[p.layer]:,} of {p.costs.sizes.sum():,} weights"
    notes = (f"Layer {p.layer + 1} is {p.costs.names[p.layer]}, {size}",)
    return Table(("allocation", *COLUMNS), tuple(cells), ("a", *RIVALS.values()), values, notes)


def headline(p: Plan) -> dict[str, float]:
    """Return what a picture is compared by."""
    own = p.rows[YOURS]
    found = {"size (kB)": p.costs.kilobytes(own), "Σ Ω": p.rise(own)}
    return found | ({"top-1 (%)": p.trials[own].top1} if own in p.trials else {})


def about(p: Plan) -> str:
    """Return where the figures come from, and whether your allocation is over the budget."""
    over = p.costs.kilobytes(p.rows[YOURS]) - p.limit
    return (
        "Only weights are quantized, on uniform grids with a step for each output channel. Sensitivities "
        "come from 1,000 training images, loss rise and accuracy from 2,000 test images (an accuracy "
        "near 90 % has a standard error of 0.7 points)."
    ) + (f" Your allocation is {over:.2g} kB over the budget." if over > 1e-9 else "")


PARTS = bits, shares, expected, measured
"""All panels, in order."""
