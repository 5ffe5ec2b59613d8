"""Bit budget: how many bits each layer of the shipped ResNet-20 gets under a limit of size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from qviz.explore import bit_budget_panels as panels
from qviz.explore import bit_budget_walk as walk
from qviz.explore.bit_budget_data import Bits, Trial, checked, costs
from qviz.explore.bit_budget_plan import EQUAL, RIVALS, YOURS, Plan
from qviz.explore.controls import Number, Pick, Slide, control
from qviz.explore.model import Action, Model, Progress, changed
from qviz.plot.scene import Scene

HAND = "by hand"
DOTS, HANDLE = 2, 1
"""The marks of the layers' dots in the first panel, and of the budget's in the planes."""


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


class BudgetModel(Model[BudgetChoice]):
    """Bits for each layer under a limit of size: what to expect of them, and what they give when run."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "2.5 bits, all equal": {"budget": 2.5, "way": EQUAL},
        "2.5 bits, spent well": {"budget": 2.5, "way": "exact"},
        "2.5 bits, spent well by Fisher": {"budget": 2.5, "way": "exact", "estimate": "Fisher"},
        "3 bits, spent well": {"budget": 3.0, "way": "exact"},
    }
    rescales = ("estimate",)

    def __init__(self) -> None:
        self.costs = costs()
        self.start = self.followed(BudgetChoice())

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
        if "width" in moves and "layer" not in moves:
            after = self._by_hand(after, after.layer - 1, after.width)
        return self.followed(after)

    def followed(self, c: BudgetChoice) -> BudgetChoice:
        """Spend the budget as chosen; bring the width to that of the layer."""
        c = replace(c, budget=min(self.costs.budgets, key=lambda budget: abs(budget - c.budget)))
        if c.way != HAND or not c.bits:
            c = replace(c, bits=self.costs.spent(c.way, c.estimate, c.budget))  # a hand begins with all equal
        return replace(c, width=c.bits[c.layer - 1])

    def dragged(self, c: BudgetChoice, panel: int, mark: int, index: int, x: float, y: float) -> BudgetChoice:
        """Give a layer the bits to which its dot was dragged, in any picture; or move the budget."""
        if panel > 1 and mark == HANDLE:
            return self.followed(replace(c, budget=8000.0 * x / float(self.costs.sizes.sum())))
        layer = index if panel == 0 and mark == DOTS else c.layer - 1
        if panel > 0:
            y = walk.nearest(self.plan(c), panel, x, y)
        return self.followed(self._by_hand(replace(c, layer=layer + 1), layer, round(y)))

    def _by_hand(self, c: BudgetChoice, layer: int, bits: int) -> BudgetChoice:
        bits = min(max(bits, self.costs.bits[0]), self.costs.bits[-1])
        return replace(c, way=HAND, bits=(*c.bits[:layer], bits, *c.bits[layer + 1 :]))

    def actions(self, c: BudgetChoice) -> dict[str, Action[BudgetChoice]]:
        """Return the button that runs the network, where its accuracy is not known yet."""
        text = "Run the network with these bits on 2,000 test images"
        known = c.bits in self.plan(c).trials
        return {"measure": Action("Measure", text, work=self.measured, shown=not known)}

    def measured(self, c: BudgetChoice) -> Iterator[Progress]:
        """Yield how far the run of an allocation is, and at last what adds its trial to a choice."""
        if c.bits in self.plan(c).trials:
            yield lambda now: now
            return
        for found in self.costs.run(c.bits):
            yield found.added if isinstance(found, Trial) else found

    def parsed(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the state with bits and trials as such; refuse those of other layers."""
        return checked(state, self.costs)

    def plan(self, c: BudgetChoice) -> Plan:
        """Return all that the panels show."""
        rows = {YOURS: c.bits, **{way: self.costs.spent(way, c.estimate, c.budget) for way in RIVALS}}
        trials = {**self.costs.trials, **{t.bits: t for t in c.trials}}
        return Plan(self.costs, c.estimate, c.budget, c.layer - 1, rows, trials, c.trials)

    def paged(self, c: BudgetChoice) -> dict[str, tuple[Any, ...]]:
        """Return ways to spend, and the smaller budgets: what a page has by default."""
        return {"way": tuple(RIVALS), "budget": self.costs.budgets[:9]}

    def headline(self, c: BudgetChoice) -> dict[str, float]:
        """Return size, expected rise of the loss, and the accuracy if it was measured."""
        return panels.headline(self.plan(c))

    def scene(self, c: BudgetChoice) -> Scene:
        """Return bits and sensitivity of each layer, and both planes: expected and measured."""
        p = self.plan(c)
        shown = tuple(part(p) for part in panels.PARTS)
        about = f"{panels.about(p)} {walk.told(p)}"
        return Scene(f"ResNet-20 at {c.budget:.4g} bits a weight: {c.way}", shown, panels.table(p), about)
