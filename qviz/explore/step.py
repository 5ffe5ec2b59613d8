"""Step: the error of a uniform grid against its step, and the histogram that the step cuts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qviz import shipped
from qviz.core import _check
from qviz.core.grids import uniform
from qviz.core.quantizer import Quantizer
from qviz.core.range import Fixed, search_scale
from qviz.core.summary import Summary
from qviz.explore.controls import Slide, control
from qviz.explore.model import Model
from qviz.measure import Measured
from qviz.plot import panels
from qviz.plot.scene import Axis, Line, Panel, Points, Rule, Scene


@dataclass(frozen=True)
class StepChoice:
    """The step of the grid, in units of x."""

    step: float = control(1.0, Slide("Step", "The distance between neighboring levels, in units of x."))


class StepModel(Model[StepChoice]):
    """The error of a uniform grid against its step, with the least error marked.

    Args:
        tensor: The name of a shipped tensor.
        bits: The bit width, 2 to 8.

    Raises:
        ValueError: There is no such tensor, or bits are out of range.
    """

    def __init__(self, tensor: str = "expand", bits: int = 4) -> None:
        bits = _check.bits(bits, 2, 8, "StepModel")
        self.tensor, self.data = tensor, Summary(shipped.tensor(tensor))
        self.book = uniform(bits, signed=bool((self.data.x < 0).any()))
        self.best = float(search_scale(self.data, self.book)[0])
        self.steps = self.best * np.geomspace(0.1, 8.0, 161)
        scales = torch.from_numpy(self.steps)[None]
        sse = self.data.sse(self.book.levels, self.book.borders, scales)
        self.mse = sse[0].numpy() / self.data.numel
        grain = float(f"{self.best / 50:.1g}")  # a round number
        self.slider = Slide("Step", low=5 * grain, high=200 * grain, step=grain)
        self.start = StepChoice(self.slider.nearest(self.best))

    def limits(self, choice: StepChoice) -> dict[str, dict[str, Any]]:
        """Return the ends of the slider."""
        return {"step": {"low": self.slider.low, "high": self.slider.high, "step": self.slider.step}}

    def dragged(
        self, choice: StepChoice, panel: int, mark: int, index: int, x: float, y: float
    ) -> StepChoice:
        """Bring the step to where its dot was dropped."""
        return StepChoice(self.slider.nearest(x))

    def scene(self, choice: StepChoice) -> Scene:
        """Return the error against the step, and the levels over the values."""
        q = Quantizer(self.book, range=Fixed(choice.step))
        here = Measured(q, self.data).mse
        marks = (
            Line("data", self.steps, self.mse, label="MSE of every step"),
            Rule("ideal", self.best, label=f"least MSE, at {self.best:.3g}"),
            Points("a", np.array([choice.step]), np.array([here]), "x", label="your step"),
        )
        text = (
            f"At the step {choice.step:.4g} the MSE is {here:.4g}; "
            f"it is least, {self.mse.min():.4g}, at {self.best:.4g}. Smaller steps cut off the ends of the "
            "data, larger ones round more coarsely."
        )
        x = Axis("step", self.steps[0], self.steps[-1], log=True)
        y = Axis("MSE", 0.5 * self.mse.min(), 2.0 * self.mse.max(), log=True)
        levels = panels.levels(self.data, {"uniform": q})
        title = f"{len(self.book)} uniform levels on {self.tensor}"
        return Scene(title, (Panel("Error against the step", x, y, marks, text), levels))
