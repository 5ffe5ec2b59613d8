"""Gradient: rounding forward, its stand-in backward, and where that gradient takes a number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from qviz.explore.backward import KINDS, Backward
from qviz.explore.controls import Slide, Tick, control
from qviz.explore.gradient_panels import BESIDE, STEPS, curves, descent, dotted, ended, table
from qviz.explore.model import Model, changed
from qviz.plot.passes import Passes, said
from qviz.plot.scene import Scene


@dataclass(frozen=True)
class GradientChoice(Backward):
    """A surrogate with its constants, the grid, one number and what it should become."""

    soft: bool = control(
        False, Tick("Soft forward", "Training computes with the soft value; a test rounds all the same.")
    )
    target: float = control(1.7, Slide("Target", "What Q(x) should become in the third picture.", step=0.01))
    bits: int = control(2, Slide("Bits", "The bit width: 2^bits levels, 0, s, 2 s, …", low=1, high=4, step=1))
    step: float = control(
        1.0, Slide("Step s", "The distance between two levels.", low=0.5, high=1.2, step=0.1)
    )
    window: float = control(
        0.0,
        Slide("Window", "0: slopes at x; else averaged over so many cells.", low=0.0, high=1.0, step=0.05),
    )


class GradientModel(Model[GradientChoice]):
    """Forward and backward side by side: what rounding computes, and the gradient that stands in for it."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "nothing learns": {"kind": "true derivative"},
        "clipped: outside stays": {"kind": "STE, clipped", "x": 3.6, "target": 2.4},
        "unclipped: outside returns": {"kind": "STE, unclipped", "x": 3.6, "target": 2.4},
        "unclipped: drifts on": {"kind": "STE, unclipped", "x": 2.2, "target": 3.6},
        "soft argmax, cool": {"kind": "soft argmax, fixed β", "beta": 2.0, "soft": True},
        "soft argmax, hot": {"kind": "soft argmax, fixed β", "beta": 30.0, "soft": True},
        "DAQ, weights": {"kind": "DAQ, controller", "sigma": 1.0},
        "DAQ, activations": {"kind": "DAQ, controller", "sigma": 2.0},
        "sigmoid, soft": {"kind": "sigmoid, fixed T", "temperature": 4.0},
        "tanh, sharp": {"kind": "tanh (DSQ)", "k": 12.0},
        "N2UQ, fine near zero": {"kind": "N2UQ, learned widths", "ratio": 2.0},
    }

    rescales = ("bits",)
    start = GradientChoice()

    def of(self, kind: str) -> GradientChoice:
        """Return the start with another surrogate.

        Raises:
            ValueError: There is no such surrogate.
        """
        return self.settled(self.start, self.restored({"kind": kind}))

    def ends(self, c: GradientChoice) -> tuple[float, float]:
        """Return the ends of the axis of x: the same at every step s."""
        top = 2**c.bits - 1
        return float(f"{-0.4 * top:.3g}"), float(f"{1.4 * top:.3g}")

    def limits(self, c: GradientChoice) -> dict[str, dict[str, Any]]:
        """Return the constants that the surrogate has, and where x can be."""
        low, high = self.ends(c)
        place = {"low": low, "high": high, "step": {1: 0.01, 2: 0.02, 3: 0.05, 4: 0.1}[c.bits]}
        return {**c.limits(), "x": place, "target": place}

    def settled(self, before: GradientChoice, after: GradientChoice) -> GradientChoice:
        """Give another surrogate the forward pass that it is published with."""
        moves = changed(before, after)
        c = replace(after, soft=KINDS[after.kind].soft) if "kind" in moves and "soft" not in moves else after
        return super().settled(before, c)

    def followed(self, c: GradientChoice) -> GradientChoice:
        """Keep x and the target on their sliders."""
        return self.inside(c, "x", "target")

    def dragged(
        self, c: GradientChoice, panel: int, mark: int, index: int, x: float, y: float
    ) -> GradientChoice:
        """Move the end of the grid, x with its dots, or the target with its own."""
        if panel == 0 and mark == len(self.passes(c).forward_panel().marks):
            return self.inside(replace(c, step=x / (2**c.bits - 1)), "step")
        target = panel == 2 and x > STEPS / 2
        return self.followed(replace(c, **{"target" if target else "x": x if panel < 2 else y}))

    def paged(self, c: GradientChoice) -> dict[str, tuple[Any, ...]]:
        """Return every surrogate, with x and some other numbers."""
        place = self.controls(c)["x"]
        numbers = {c.x, *(place.nearest(part * (2**c.bits - 1)) for part in BESIDE)}
        return {"kind": tuple(KINDS), "x": tuple(sorted(numbers))}

    def passes(self, c: GradientChoice) -> Passes:
        """Return the curves, which do not depend on x and target."""
        return curves(replace(c, x=0.0, target=0.0), *self.ends(c))

    def headline(self, c: GradientChoice) -> dict[str, float]:
        """Return the few numbers that tell two pictures apart."""
        both, at = self.passes(c), table(c).values
        found = {"gradient mismatch": both.mismatch.mean, "quantizer gap (units of x)": both.gap.mean}
        return found | {"y at your x": at["y"]["value"], "dy/dx at your x": at["dy/dx"]["value"]}

    def scene(self, c: GradientChoice) -> Scene:
        """Return the forward pass, the backward pass, a small training, and the arithmetic of x."""
        both, numbers = self.passes(c), table(c)
        y, slope = (numbers.values[name]["value"] for name in ("y", "dy/dx"))
        panels = (
            dotted(ended(both.forward_panel(), c.step * (2**c.bits - 1)), c.x, y),
            dotted(both.backward_panel(), c.x, slope),
            descent(c, *self.ends(c)),
        )
        what = f"gradient mismatch {said(both.mismatch.mean)}, quantizer gap {said(both.gap.mean)}"
        return Scene(f"{c.kind}: {what}", panels, numbers, KINDS[c.kind].about)
