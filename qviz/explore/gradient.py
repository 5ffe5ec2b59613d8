"""Gradient: rounding forward, its stand-in backward, and where that gradient takes a number."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from qviz.core.probe import probe
from qviz.explore.backward import KINDS
from qviz.explore.controls import Pick, Slide, Tick, control
from qviz.explore.gradient_panels import BESIDE, STEPS, arithmetic, descent, dotted, quantizer
from qviz.explore.model import Model, changed
from qviz.plot.passes import Passes, passes, said
from qviz.plot.scene import Scene, Table

HEADERS = ("One number", "How", "Value")


@dataclass(frozen=True)
class GradientChoice:
    """A surrogate with its constants, the grid, one number and what it should become."""

    kind: str = control(
        "STE, clipped",
        Pick("Gradient", "What stands in for the derivative of rounding.", options=tuple(KINDS)),
    )
    x: float = control(1.3, Slide("x", "The number that walks through the picture.", step=0.01))
    gamma: float = control(2.0, Slide("γ", "How sure DAQ's controller is.", low=0.1, high=6.0, step=0.1))
    sigma: float = control(
        1.0, Slide("σ", "The width of the kernel that favors the nearer knot.", low=0.4, high=3.0, step=0.1)
    )
    beta: float = control(
        5.0, Slide("β", "The fixed temperature: a larger one is harder.", low=0.5, high=40.0, step=0.5)
    )
    k: float = control(4.0, Slide("k", "How sharp the tanh is.", low=0.5, high=20.0, step=0.5))
    ratio: float = control(
        1.6,
        Slide("Width ratio", "How much wider each cell is than the one below.", low=0.5, high=2.0, step=0.1),
    )
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
        Slide(
            "Window", "0: slopes at x alone; else averaged over so many cells.", low=0.0, high=1.0, step=0.05
        ),
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
        names = ("gamma", "sigma", "beta", "k", "ratio")
        return {n: {"shown": n in KINDS[c.kind].constants} for n in names} | {"x": place, "target": place}

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
        """Move x with its dots, or the target with its own."""
        target = panel == 2 and x > STEPS / 2  # kept curves shift the numbers of the marks
        return self.followed(replace(c, **{"target" if target else "x": x if panel < 2 else y}))

    def paged(self, c: GradientChoice) -> dict[str, tuple[Any, ...]]:
        """Return every surrogate, with x and some other numbers."""
        place = self.controls(c)["x"]
        numbers = {c.x, *(place.nearest(part * (2**c.bits - 1)) for part in BESIDE)}
        return {"kind": tuple(KINDS), "x": tuple(sorted(numbers))}

    def passes(self, c: GradientChoice) -> Passes:
        """Return the curves, which do not depend on x and target."""
        return _passes(replace(c, x=0.0, target=0.0), *self.ends(c))

    def headline(self, c: GradientChoice) -> dict[str, float]:
        """Return the few numbers that tell two pictures apart."""
        curves, p = self.passes(c), probe(quantizer(c), torch.tensor([c.x], dtype=torch.float64))
        found = {"gradient mismatch": curves.mismatch.mean, "quantizer gap (units of x)": curves.gap.mean}
        return found | {"y at your x": float(p.y), "dy/dx at your x": float(p.dydx)}

    def scene(self, c: GradientChoice) -> Scene:
        """Return the forward pass, the backward pass, a small training, and the arithmetic of x."""
        curves, rows = self.passes(c), arithmetic(c)
        at = {row.step: row.value for row in rows}
        panels = (
            dotted(curves.forward_panel(), c.x, at["y"]),
            dotted(curves.backward_panel(), c.x, at["dy/dx"]),
            descent(c, *self.ends(c)),
        )
        cells = tuple((row.step, row.how, said(row.value)) for row in rows)
        table = Table(HEADERS, cells, (), {step: {"value": value} for step, value in at.items()})
        what = f"gradient mismatch {said(curves.mismatch.mean)}, quantizer gap {said(curves.gap.mean)}"
        return Scene(f"{c.kind}: {what}", panels, table, KINDS[c.kind].about)


@functools.lru_cache(maxsize=8)
def _passes(c: GradientChoice, low: float, high: float) -> Passes:
    return passes(quantizer(c), low, high, window=c.window or None)
