"""Bit budget panels: bits and sensitivity by layer, what to expect of a size, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qviz.explore.bit_budget_data import Bits, Costs, Trial
from qviz.plot.scene import Axis, Band, Bars, Line, Mark, Panel, Points, Rule, Steps, Table

YOURS = "yours"
EQUAL = "all equal"
RIVALS = {EQUAL: "b", "greedy": "c", "exact": "d"}
"""Ways to spend a budget without looking, and their roles."""
FLOOR = 1e-6
"""Sensitivities below this share of the largest are drawn there: a logarithm has no zero."""
COLUMNS = {"bits": ".3f", "kB": ".1f", "Σ Ω": ".3g", "loss rise": ".3f", "top-1 (%)": ".2f"}
"""The columns of the table, and how their numbers are written."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What is on show.

    Attributes:
        costs: What is known of the network.
        estimate: The name of the sensitivity.
        budget: Average bits.
        layer: The index of the layer that is set.
        rows: The allocations at this budget, yours first.
        trials: All allocations that were run, by their bits.
        own: Those that were run here.
    """

    costs: Costs
    estimate: str
    budget: float
    layer: int
    rows: Mapping[str, Bits]
    trials: Mapping[Bits, Trial]
    own: tuple[Trial, ...]

    @property
    def floor(self) -> float:
        """The least sensitivity that is drawn."""
        return FLOOR * float(self.costs.omega[self.estimate].max())

    def rise(self, bits: Bits) -> float:
        """Return Σ Ω_l(b_l)."""
        return float(self.costs.shares(bits, self.estimate).sum())

    def curve(self, way: str) -> list[Bits]:
        """Return what a way makes of all budgets, each allocation once."""
        return list(dict.fromkeys(self.costs.spent(way, self.estimate, b) for b in self.costs.budgets))

    def sizes(self, some: list[Bits]) -> np.ndarray:
        """Return the sizes of allocations, in kB."""
        return np.array([self.costs.kilobytes(bits) for bits in some])

    def limit(self) -> Rule:
        """Return the budget as a size."""
        return Rule("data", self.budget * float(self.costs.sizes.sum()) / 8000.0, label="the budget")

    @property
    def size(self) -> Axis:
        """The axis of sizes."""
        low, high = self.sizes(
            [(b,) * len(self.costs.names) for b in (self.costs.bits[0], self.costs.bits[-1])]
        )
        return Axis("size of all weights (kB)", 0.95 * low, 1.02 * high)

    @property
    def layers(self) -> Axis:
        """The axis of layers."""
        return Axis("layer, from the first to the last", 0.5, len(self.costs.names) + 0.5)


def bits(p: Plan) -> Panel:
    """Show the bits of each layer, with dots that can be dragged, and those of the exact solution."""
    own, best = (np.array(p.rows[name], dtype=float) for name in (YOURS, "exact"))
    at, edges, k = np.arange(1.0, len(own) + 1.0), np.arange(len(own) + 1) + 0.5, p.layer
    marks = (
        Bars("a", edges, own, label=YOURS),
        Steps("d", edges, best, label="exact"),
        Points("a", at, own, "y"),
        Points("e", at[k : k + 1], own[k : k + 1], label="the layer that is set"),
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
    worst = int(own.argmax())
    text = (
        f"By {p.estimate}, layer {worst + 1}, {p.costs.names[worst]}, costs most at your bits, "
        f"{own[worst]:.3g} of {own.sum():.3g} in all. Values below {p.floor:.2g} are drawn there."
    )
    y = Axis(f"Ω ({p.estimate})", p.floor / 2, 2.0 * float(omega.max()), log=True)
    return Panel("What each layer costs", p.layers, y, tuple(marks), text)


def expected(p: Plan) -> Panel:
    """Show the sum of sensitivities against the size: yours, and the curves of the others."""
    marks: list[Mark] = [p.limit()]
    for way, role in RIVALS.items():
        curve = p.curve(way)
        marks.append(Line(role, p.sizes(curve), np.maximum([p.rise(b) for b in curve], p.floor), label=way))
    own, best = p.rows[YOURS], p.rows["exact"]
    marks.append(Points("a", p.sizes([own]), np.array([max(p.rise(own), p.floor)]), label=YOURS))
    text = (
        f"Your allocation takes {p.costs.kilobytes(own):.1f} kB and has Σ Ω {p.rise(own):.3g}; the exact one "
        f"takes {p.costs.kilobytes(best):.1f} kB and has {p.rise(best):.3g}."
    )
    least = min(p.rise(bits) for way in RIVALS for bits in p.curve(way))
    most = p.rise((p.costs.bits[0],) * len(own))
    y = Axis(f"Σ Ω ({p.estimate})", max(0.5 * least, p.floor / 2), 2.0 * most, log=True)
    return Panel("Expected: sum of costs", p.size, y, tuple(marks), text)


def measured(p: Plan) -> Panel:
    """Show the accuracy against the size, of all allocations that were run."""
    marks: list[Mark] = [p.limit(), Rule("ideal", p.costs.floating.top1, "y", label="floating point")]
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
