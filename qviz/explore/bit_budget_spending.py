"""Bit budget spending: a budget and who spends it, a solver or a hand that sets one layer after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from qviz.explore.bit_budget_data import Bits, Costs, Trial, checked
from qviz.explore.bit_budget_plan import EQUAL, RIVALS, YOURS, Plan
from qviz.explore.controls import Number, Pick, Slide, control
from qviz.explore.model import Model, changed

HAND = "by hand"


@dataclass(frozen=True)
class BudgetChoice:
    """A budget, and the bits of each layer."""

    budget: float = control(3.0, Slide("Budget", "The most bits that a weight may have on average."))
    way: str = control(EQUAL, Pick("Allocation", "Who spends the budget.", options=(*RIVALS, HAND)))
    estimate: str = control("loss rise", Pick("Costs by", "How it is known what a layer's bits cost."))
    layer: int = control(1, Number("Layer", "The layer whose bits are set, from the first.", low=1, high=20))
    width: int = control(3, Slide("Its bits", "The bits of that layer's weights.", low=2, high=6, step=1))
    bits: Bits = ()
    trials: tuple[Trial, ...] = ()


class SpendingModel(Model[BudgetChoice]):
    """A budget that is spent on layers; a subclass sets ``costs`` and draws."""

    costs: Costs

    def limits(self, c: BudgetChoice) -> dict[str, dict[str, Any]]:
        """Return budgets and estimates as they were measured."""
        at = self.costs.budgets
        return {
            "budget": {"low": at[0], "high": at[-1], "step": at[1] - at[0]},
            "estimate": {"options": tuple(self.costs.omega)},
            "layer": {"high": len(self.costs.names)},
        }

    def settled(self, before: BudgetChoice, after: BudgetChoice) -> BudgetChoice:
        """Set the bits of the layer whose bits were moved."""
        moves = changed(before, after)
        by_hand = "width" in moves and "layer" not in moves
        return self.handed(after, after.layer, after.width) if by_hand else self.followed(after)

    def followed(self, c: BudgetChoice) -> BudgetChoice:
        """Spend the budget as chosen; bring the width to that of the layer."""
        c = replace(c, budget=min(self.costs.budgets, key=lambda budget: abs(budget - c.budget)))
        if c.way != HAND or not c.bits:
            c = replace(c, bits=self.costs.spent(c.way, c.estimate, c.budget))  # a hand begins with all equal
        return replace(c, width=c.bits[c.layer - 1])

    def handed(self, c: BudgetChoice, layer: int, bits: int) -> BudgetChoice:
        """Return the choice with that layer opened, from 1, and given bits by hand: the nearest possible."""
        bits = min(max(bits, self.costs.bits[0]), self.costs.bits[-1])
        new = (*c.bits[: layer - 1], bits, *c.bits[layer:])
        return self.followed(replace(c, way=HAND, layer=layer, bits=new))

    def parsed(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the state with bits and trials as such; refuse those of other layers."""
        return checked(state, self.costs)

    def plan(self, c: BudgetChoice) -> Plan:
        """Return all that the panels show."""
        rows = {YOURS: c.bits, **{way: self.costs.spent(way, c.estimate, c.budget) for way in RIVALS}}
        trials = {**self.costs.trials, **{t.bits: t for t in c.trials}}
        return Plan(self.costs, c.estimate, c.budget, c.layer - 1, rows, trials, c.trials)
