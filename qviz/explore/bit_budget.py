"""Bit budget: how many bits each layer of the shipped ResNet-20 gets under a limit of size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from qviz.explore import bit_budget_panels as panels
from qviz.explore import bit_budget_walk as walk
from qviz.explore.bit_budget_data import Trial, costs
from qviz.explore.bit_budget_plan import EQUAL, RIVALS
from qviz.explore.bit_budget_spending import BudgetChoice, SpendingModel
from qviz.explore.model import Action, Progress
from qviz.plot.scene import Scene

DOTS, HANDLE = 2, 1
"""The marks of the layers' dots in the first panel, and of the budget's in the planes."""


class BudgetModel(SpendingModel):
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

    def dragged(self, c: BudgetChoice, panel: int, mark: int, index: int, x: float, y: float) -> BudgetChoice:
        """Give a layer the bits to which its dot was dragged, in any picture; or move the budget."""
        if panel > 1 and mark == HANDLE:
            return self.followed(replace(c, budget=8000.0 * x / float(self.costs.sizes.sum())))
        layer = index + 1 if panel == 0 and mark == DOTS else c.layer
        bits = walk.nearest(self.plan(c), panel, x, y) if panel else round(y)
        return self.handed(c, layer, bits)

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
