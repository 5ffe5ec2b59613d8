"""Step: the error of a uniform grid against its step, and a learned step on its way down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from qviz import recipes
from qviz.core import _check
from qviz.core.quantizer import Quantizer
from qviz.core.range import Fixed
from qviz.explore import photos, step_pictures, step_samples, tensors
from qviz.explore.controls import Number, Pick, Slide, control
from qviz.explore.descent import METHODS, Descent, Place
from qviz.explore.model import Action, Model, Page, changed
from qviz.explore.step_data import SAMPLES, Curves, Samples, curves, descent, samples
from qviz.explore.tensors import YOURS, Source
from qviz.plot.scene import Scene

ITERATIONS = 120
LARGEST = 1e15
"""The largest value: Adam squares gradients in float32, and they grow with the square of the values."""
NUMBER = 2
"""The mark of the one number, among those of the panel of levels."""
ON_WEIGHTS = {"method": "LSQ", "tensor": "expand (real)", "bits": 4}
ON_STEM = {"method": "PACT", "tensor": "act_stem (real)", "bits": 4, "step": 0.05}
ON_PHOTOS = {"method": "ASQ", "bits": 4, "a": 1, "b": SAMPLES}


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


class StepModel(Model[StepChoice]):
    """The error of a uniform grid against its step, and LSQ's, PACT's or ASQ's step learned on it.

    The arguments, and what is refused, are those of :class:`~qviz.widgets.StepExplorer`.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "LSQ from too small a step": {**ON_WEIGHTS, "step": 0.004},
        "LSQ from too large a step": {**ON_WEIGHTS, "step": 0.07},
        "PACT without a regularizer": {**ON_STEM, "decay": 0.0},
        "PACT with one": {**ON_STEM, "decay": 0.0003},
        "ASQ: clear and in fog": {**ON_PHOTOS, "tensor": photos.NAME, "step": 0.07},
        "ASQ: position by position": {**ON_PHOTOS, "tensor": "act_expand (real)", "step": 0.02},
    }
    rescales = ("tensor", "method", "bits")

    def __init__(
        self,
        x: Tensor | np.ndarray | None = None,
        *,
        tensor: str | None = None,
        bits: int = 4,
        method: str = "LSQ",
    ) -> None:
        bits = _check.bits(bits, 2, 8, "StepExplorer")
        self.sources = tensors.offered(x)
        if YOURS in self.sources and (top := float(self.sources[YOURS].make().abs().max())) > LARGEST:
            self.sources = tensors.offered()
            self.sources.problem = f"Your tensor is left out: {top:.3g} is too large to descend in float32."
        self.sources[photos.NAME] = photos.SOURCE
        if method not in METHODS:
            raise ValueError(f"unknown method {method!r}; there are {', '.join(METHODS)}")
        name = tensors.first(self.sources, tensor, "expand (real)" if method == "LSQ" else photos.NAME)
        self.start = self.begun(StepChoice(method, name, bits))
        if self.start.method != method:
            raise ValueError(f"{method} needs activations that are not negative, got {name!r}")

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

    def begun(self, c: StepChoice) -> StepChoice:
        """Return the choice at the start of its recipe: iteration 0, and the samples farthest apart."""
        c = replace(c, iteration=0) if self.fits(c) else replace(c, method="LSQ", iteration=0)
        about = self.curves(c)
        step = about.slider.nearest(about.begin)
        return self.followed(replace(c, step=step, a=1, b=SAMPLES, x=float(f"{1.3 * step:.3g}")))

    def followed(self, c: StepChoice) -> StepChoice:
        """Bring the step onto its slider, the method to one that the tensor allows, the samples inside."""
        c = c if self.fits(c) else replace(c, method="LSQ")
        return self.inside(c, "step", "a", "b")

    def settled(self, before: StepChoice, after: StepChoice) -> StepChoice:
        """Start anew where the tensor or the method changes; another step starts at iteration 0."""
        moves = changed(before, after)
        if "method" in moves and "tensor" not in moves and not self.fits(after):
            after = replace(after, tensor=photos.NAME)
        if moves & {"tensor", "method", "bits"}:
            return self.begun(after)
        anew = moves & {"step", "decay"} and "iteration" not in moves
        return self.followed(replace(after, iteration=0) if anew else after)

    def actions(self, c: StepChoice) -> dict[str, Action[StepChoice]]:
        """Return the buttons that move the step."""
        text = "Where the recipe starts: LSQ and ASQ at 2 mean|x| / sqrt(p), PACT at the largest x"
        return {
            "begin": Action("Recipe's start", text, self.begun),
            "least": Action("Least error", "Start at the step with the least error", self._at_best),
        }

    def _at_best(self, c: StepChoice) -> StepChoice:
        return self.followed(replace(c, step=self.curves(c).best, iteration=0))

    def dragged(self, c: StepChoice, panel: int, mark: int, index: int, x: float, y: float) -> StepChoice:
        """Bring the step, the clip or the one number to where its dot was dropped."""
        if panel == 1 and mark == NUMBER:
            return replace(c, x=float(f"{x:.4g}"))
        step = x / self.curves(c).book.hi if panel == 1 else x
        return self.followed(replace(c, step=step, iteration=0))

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

    def paged(self, c: StepChoice) -> dict[str, tuple[Any, ...]]:
        """Return three starts and some iterations."""
        slider, best = self.curves(c).slider, self.curves(c).best
        starts = {slider.nearest(part * best) for part in (0.15, 3.5)} | {c.step}
        return {"step": tuple(sorted(starts)), "iteration": (0, 5, 10, 20, 40, 80, ITERATIONS)}

    def page(self, c: StepChoice, names: tuple[str, ...] = ()) -> Page:
        """Return a page of some controls' values; by default it begins at iteration 0."""
        return super().page(c if names else replace(c, iteration=0), names)

    def headline(self, c: StepChoice) -> dict[str, float]:
        """Return step, MSE and SQNR; of ASQ the SQNR of both samples."""
        return (step_samples if c.method == "ASQ" else step_pictures).headline(self, c)

    def scene(self, c: StepChoice) -> Scene:
        """Return the error against the step, the levels over the values, and what is learned."""
        return (step_samples if c.method == "ASQ" else step_pictures).scene(self, c)
