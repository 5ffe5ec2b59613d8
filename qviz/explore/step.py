"""Step: the error of a uniform grid against its step, and a learned step on its way down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from qviz.core import _check
from qviz.explore import photos, step_pictures, step_samples, tensors
from qviz.explore.descent import METHODS
from qviz.explore.model import Action, Page, changed
from qviz.explore.step_data import SAMPLES, offered
from qviz.explore.step_place import ITERATIONS, PlaceModel, StepChoice
from qviz.plot.scene import Scene

NUMBER = 2
"""The mark of the one number, among those of the panel of levels."""
ON_WEIGHTS = {"method": "LSQ", "tensor": "expand (real)", "bits": 4}
ON_STEM = {"method": "PACT", "tensor": "act_stem (real)", "bits": 4, "step": 0.05}
ON_PHOTOS = {"method": "ASQ", "bits": 4, "a": 1, "b": SAMPLES}


class StepModel(PlaceModel):
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
        self.sources = offered(x)
        if method not in METHODS:
            raise ValueError(f"unknown method {method!r}; there are {', '.join(METHODS)}")
        name = tensors.first(self.sources, tensor, "expand (real)" if method == "LSQ" else photos.NAME)
        self.start = self.begun(StepChoice(method, name, bits))
        if self.start.method != method:
            raise ValueError(f"{method} needs activations that are not negative, got {name!r}")

    def begun(self, c: StepChoice) -> StepChoice:
        """Return the choice at the start of its recipe: iteration 0, and the samples farthest apart."""
        c = c if self.fits(c) else replace(c, method="LSQ")
        about = self.curves(c)
        step = about.slider.nearest(about.begin)
        x = float(f"{1.3 * step:.3g}")
        return self.followed(replace(c, step=step, iteration=0, a=1, b=SAMPLES, x=x))

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
