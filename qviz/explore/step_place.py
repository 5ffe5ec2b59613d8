"""Step place: where a learned step starts and how far it has gone, and what it does there to one number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from qviz import recipes
from qviz.core.quantizer import Quantizer
from qviz.core.range import Fixed
from qviz.explore import photos, tensors
from qviz.explore.controls import Number, Pick, Slide, control
from qviz.explore.descent import METHODS, Descent, Place
from qviz.explore.model import Model
from qviz.explore.step_data import SAMPLES, Curves, Samples, curves, descent, samples
from qviz.explore.tensors import Source

ITERATIONS = 120


@dataclass(frozen=True)
class StepChoice:
    """Where the step starts, and how far it has gone."""

    method: str = control("LSQ", Pick("Method", "How the step is learned.", options=METHODS))
    tensor: str = control("", Pick("Tensor", "The values that are quantized."))
    bits: int = control(4, Slide("Bits", "The bit width.", low=2, high=8, step=1))
    step: float = control(1.0, Slide("Step", "Where the step starts, in units of x."))
    iteration: int = control(
        0, Slide("Iteration", "How far the learned step has gone.", low=0, high=ITERATIONS, step=1, play=True)
    )
    decay: float = control(
        0.0, Slide("Decay λ", "PACT's regularizer λ α²; 0 is none.", low=0.0, high=0.002, step=0.0001)
    )
    a: int = control(1, Slide("Sample A", "Its place, by its own best step.", low=1, high=SAMPLES, step=1))
    b: int = control(1, Slide("Sample B", "Its place, by its own best step.", low=1, high=SAMPLES, step=1))
    x: float = control(0.0, Number("Number x", "Its gradient is worked out in words.", step=0.01))


class PlaceModel(Model[StepChoice]):
    """A learned step at a choice's place, and what the controls take there; a subclass draws it."""

    def source(self, c: StepChoice) -> Source:
        """Return the tensor."""
        return self.sources[c.tensor]

    def curves(self, c: StepChoice) -> Curves:
        """Return what does not depend on the step."""
        return curves(self.source(c), c.method, c.bits)

    def samples(self, c: StepChoice) -> Samples:
        """Return the samples that ASQ is shown on."""
        return samples(self.source(c), c.bits)

    def descent(self, c: StepChoice) -> Descent:
        """Return the descent from the choice's step."""
        return descent(self.source(c), c.method, c.bits, c.step, c.decay if c.method == "PACT" else 0.0)

    def place(self, c: StepChoice) -> Place:
        """Return where the step is at the choice's iteration."""
        return self.descent(c).at(c.iteration)

    def quantizer(self, c: StepChoice) -> Quantizer:
        """Return the grid at the present step."""
        return Quantizer(self.curves(c).book, range=Fixed(float(self.place(c).steps[0])))

    def number(self, c: StepChoice) -> dict[str, float]:
        """Return how the one number goes through the quantizer: u, code, y, dy/dx and dy/ds (PACT: dy/dα)."""
        place = self.place(c)
        q = recipes.lsq(c.bits, signed=self.curves(c).book.lo < 0, step=float(place.steps[0]))
        if c.method == "PACT":
            q = recipes.pact_activation(c.bits, alpha=place.learned)
        x, own = torch.tensor([c.x], dtype=torch.float64, requires_grad=True), next(q.range.parameters())
        with torch.enable_grad():
            y = q(x)
            dydx, slope = torch.autograd.grad(y, (x, own))
        factor = 1.0 if c.method == "PACT" else self.curves(c).book.hi ** -0.5  # LSQ's, for one value
        scale = float(q.range.scale)
        values = {"u": c.x / scale, "code": round(float(y.detach()) / scale), "y": float(y.detach())}
        return values | {"dydx": float(dydx), "slope": float(slope) / factor}

    def limits(self, c: StepChoice) -> dict[str, dict[str, Any]]:
        """Return the ends of the sliders, and which controls the method has."""
        slider, asq = self.curves(c).slider, c.method == "ASQ"
        high = len(self.samples(c).data) if asq else SAMPLES
        return {
            "step": {"low": slider.low, "high": slider.high, "step": slider.step},
            "decay": {"shown": c.method == "PACT"},
            "a": {"shown": asq, "high": high},
            "b": {"shown": asq, "high": high},
            "x": {"shown": not asq, "step": slider.step},
        }

    def fits(self, c: StepChoice) -> bool:
        """Return whether the method can be used: PACT and ASQ are for activations, ASQ needs samples."""
        if c.method == "LSQ" or c.tensor == photos.NAME:
            return True
        data = tensors.summary(self.source(c))
        return not bool((data.rows[:, 0] < 0).any()) and (c.method == "PACT" or data.x.ndim > 1)
