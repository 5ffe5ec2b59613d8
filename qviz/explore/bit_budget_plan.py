"""Bit budget plan: what is on show, the allocations at one budget and what is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qviz.explore.bit_budget_data import Bits, Costs, Trial
from qviz.plot.scene import Axis

YOURS = "yours"
EQUAL = "all equal"
RIVALS = {EQUAL: "b", "greedy": "c", "exact": "d"}
"""Ways to spend a budget without looking, and their roles."""
FLOOR = 1e-6
"""Sensitivities below this share of the largest are drawn there: a logarithm has no zero."""


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

    @property
    def limit(self) -> float:
        """The budget as a size, in kB."""
        return self.budget * float(self.costs.sizes.sum()) / 8000.0

    @property
    def size(self) -> Axis:
        """The axis of sizes."""
        low, high = self.sizes(
            [(b,) * len(self.costs.names) for b in (self.costs.bits[0], self.costs.bits[-1])]
        )
        return Axis("size of all weights (kB)", 0.95 * low, 1.02 * high)

    @property
    def sums(self) -> Axis:
        """The axis of Σ Ω."""
        least = min(self.rise(bits) for way in RIVALS for bits in self.curve(way))
        most = self.rise((self.costs.bits[0],) * len(self.costs.names))
        return Axis(f"Σ Ω ({self.estimate})", max(0.5 * least, self.floor / 2), 2.0 * most, log=True)

    @property
    def layers(self) -> Axis:
        """The axis of layers."""
        return Axis("layer, from the first to the last", 0.5, len(self.costs.names) + 0.5)
