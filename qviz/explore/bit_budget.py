"""Bit budget: how many bits each layer of the shipped ResNet-20 gets under a limit of size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from qviz.explore import bit_budget_panels as panels
from qviz.explore.bit_budget_data import Bits, Trial, costs, trial
from qviz.explore.bit_budget_panels import EQUAL, RIVALS, YOURS, Plan
from qviz.explore.controls import Number, Pick, Slide, control
from qviz.explore.model import Action, Model, Progress, changed
from qviz.plot.scene import Scene

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
        if c.way != HAND:
            c = replace(c, bits=self.costs.spent(c.way, c.estimate, c.budget))
        elif not c.bits:
            c = replace(c, bits=self.costs.spent(EQUAL, c.estimate, c.budget))
        return replace(c, width=c.bits[c.layer - 1])

    def dragged(self, c: BudgetChoice, panel: int, mark: int, index: int, x: float, y: float) -> BudgetChoice:
        """Give a layer the bits to which its dot was dragged."""
        return self.followed(self._by_hand(replace(c, layer=index + 1), index, round(y)))

    def _by_hand(self, c: BudgetChoice, layer: int, bits: int) -> BudgetChoice:
        bits = min(max(bits, self.costs.bits[0]), self.costs.bits[-1])
        return replace(c, way=HAND, bits=(*c.bits[:layer], bits, *c.bits[layer + 1 :]))

    def actions(self, c: BudgetChoice) -> dict[str, Action[BudgetChoice]]:
        """Return the button that runs the network, where its accuracy is not known yet."""
        text = "Run the network with these bits on 2,000 test images"
        return {"measure": Action("Measure", text, work=self.measured, shown=not self._known(c))}

    def _known(self, c: BudgetChoice) -> bool:
        return c.bits in self.costs.trials or c.bits in {t.bits for t in c.trials}

    def measured(self, c: BudgetChoice) -> Iterator[Progress]:
        """Yield how far the run of an allocation is, and at last what adds its trial to a choice."""
        if self._known(c):
            yield lambda now: now
            return
        for found in self.costs.run(c.bits):
            yield _adds(found) if isinstance(found, Trial) else found

    def parsed(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the state with bits and trials as such.

        Raises:
            ValueError: There are other layers, or bits that are no candidates.
        """
        bits, trials = tuple(state.get("bits", ())), tuple(map(trial, state.get("trials", ())))
        for some in (*([bits] if bits else []), *(t.bits for t in trials)):
            if len(some) != len(self.costs.names) or not set(some) <= set(self.costs.bits):
                raise ValueError(f"{len(self.costs.names)} layers need bits of {self.costs.bits}, got {some}")
        return {**state, "bits": bits, "trials": trials}

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
        plan = self.plan(c)
        found = {"size (kB)": self.costs.kilobytes(c.bits), "Σ Ω": plan.rise(c.bits)}
        return found | ({"top-1 (%)": plan.trials[c.bits].top1} if c.bits in plan.trials else {})

    def scene(self, c: BudgetChoice) -> Scene:
        """Return bits and sensitivity of each layer, and both planes: expected and measured."""
        p = self.plan(c)
        over = self.costs.kilobytes(c.bits) * (1 - c.budget / self.costs.average(c.bits))
        about = (
            "Only weights are quantized, on uniform grids with a step for each output channel. Sensitivities "
            "come from 1,000 training images, loss rise and accuracy from 2,000 test images (an accuracy "
            "near 90 % has a standard error of 0.7 points)."
        )
        about += f" Your allocation is {over:.2g} kB over the budget." if over > 1e-9 else ""
        shown = panels.bits(p), panels.shares(p), panels.expected(p), panels.measured(p)
        return Scene(f"ResNet-20 at {c.budget:.4g} bits a weight: {c.way}", shown, panels.table(p), about)


def _adds(found: Trial) -> Any:
    return lambda now: replace(now, trials=(*now.trials, found))
