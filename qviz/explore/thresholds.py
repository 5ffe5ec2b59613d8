"""Thresholds: non-uniform in, uniform out, with thresholds that are dragged and gradients that move them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from qviz.core import _check
from qviz.core._text import count
from qviz.core.summary import Summary
from qviz.explore import tensors
from qviz.explore import threshold_moves as moves
from qviz.explore import threshold_panels as panels
from qviz.explore.drift import values
from qviz.explore.model import Action, Model, changed
from qviz.explore.threshold_moves import ThresholdChoice
from qviz.explore.threshold_work import LOSSES, Bench, Work, shown, work
from qviz.measure import metrics
from qviz.plot.scene import Scene


class ThresholdModel(Model[ThresholdChoice]):
    """Thresholds over activations: uniform codes, the expectation of random rounding, each width's gradient.

    The arguments, and what is refused, are those of :class:`~qviz.widgets.ThresholdExplorer`.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "equal widths": {},
        "narrow below, wide above": {"bits": 2, "widths": [0.2, 0.5, 1.3]},
        "wide below, narrow above": {"bits": 2, "widths": [1.3, 0.5, 0.2]},
        "one bit, one threshold": {"bits": 1},
    }

    def __init__(
        self, x: Tensor | np.ndarray | None = None, *, tensor: str | None = None, bits: int = 2
    ) -> None:
        bits = _check.bits(bits, 1, 4, "ThresholdExplorer")
        self.sources = tensors.offered(x)
        self.start = ThresholdChoice(tensors.first(self.sources, tensor, "act_depthwise (real)"), bits)
        self.start = self.followed(replace(self.start, x=float(f"{0.3 * self.ends(self.start)[1]:.2g}")))

    def ends(self, c: ThresholdChoice) -> tuple[float, float]:
        """Return what the x axis shows."""
        return shown(self.sources[c.tensor])

    def limits(self, c: ThresholdChoice) -> dict[str, dict[str, Any]]:
        """Return limits that follow the tensor and the number of thresholds."""
        return moves.limits(c, *self.ends(c))

    def settled(self, before: ThresholdChoice, after: ThresholdChoice) -> ThresholdChoice:
        """Move a threshold to a new value; another tensor or bit width begins with equal widths."""
        new = changed(before, after)
        c = replace(after, widths=()) if new & {"bits", "tensor"} and "widths" not in new else after
        if "value" in new and not new & {"threshold", "bits", "tensor"}:
            c = self.moved(c, c.threshold, c.value)
        return self.followed(c)

    def followed(self, c: ThresholdChoice) -> ThresholdChoice:
        """Bring the numbers into their limits, and the value to where the threshold is."""
        c = self.inside(c, "threshold", "begin", "scale", "x")
        place = float(f"{c.thresholds[c.threshold - 1]:.6g}")
        return self.inside(replace(c, value=place), "value")

    def data(self, c: ThresholdChoice) -> Summary:
        """Return the summary of the activations, of large ones that of their quantiles."""
        return values(self.sources[c.tensor])

    def thresholds(self, c: ThresholdChoice) -> np.ndarray:
        """Return the thresholds, in units of x."""
        return c.thresholds

    def moved(self, c: ThresholdChoice, number: int, place: float) -> ThresholdChoice:
        """Return the choice with a threshold as near to a place as the widths allow."""
        return moves.moved(c, number, place, *self.ends(c))

    def dragged(
        self, c: ThresholdChoice, panel: int, mark: int, index: int, x: float, y: float
    ) -> ThresholdChoice:
        """Move the one number, an end of the segments, or a threshold."""
        role, b = self.scene(c).panels[panel].marks[mark].role, self.bench(c)
        if role == "d":
            return self.followed(replace(c, x=float(f"{x:.4g}")))
        if role == "b":
            return self.followed(moves.stretched(c, int(np.flatnonzero(b.outer)[index]), x))
        return self.followed(self.moved(c, int(np.flatnonzero(b.visible)[index]) + 1, x))

    def actions(self, c: ThresholdChoice) -> dict[str, Action[ThresholdChoice]]:
        """Return the buttons: two ways to place the thresholds, and a step along the gradient."""
        equal = "Equal widths", "Uniform quantization, where N2UQ starts", self.evened, bool(c.widths)
        shares = "Equal shares", "As many values in each segment", self.shared
        follow = "Follow the gradient", "One step of training of the widths", self.trained
        return {"equal": Action(*equal), "shares": Action(*shares), "follow": Action(*follow)}

    def evened(self, c: ThresholdChoice) -> ThresholdChoice:
        """Return the choice with equal widths, 2 / n each."""
        return self.followed(replace(c, widths=()))

    def shared(self, c: ThresholdChoice) -> ThresholdChoice:
        """Return the choice with as many of the values above t0 in each segment, where widths allow it."""
        return self.followed(moves.shared(c, self.data(c).x.numpy()))

    def trained(self, c: ThresholdChoice) -> ThresholdChoice:
        """Return the choice after one step of gradient descent."""
        return self.followed(moves.trained(c, self.bench(c).work.gradient))

    def parsed(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the state with its widths as a choice has them."""
        return moves.checked(state, self.start.bits)

    def paged(self, c: ThresholdChoice) -> dict[str, tuple[Any, ...]]:
        """Return every bit width with both losses."""
        return {"bits": (1, 2, 3, 4), "loss": LOSSES}

    def work(self, c: ThresholdChoice) -> Work:
        """Return what the quantizer does with the values."""
        return work(self.sources[c.tensor], c.bits, c.begin, tuple(c.sizes.tolist()), c.scale, c.loss)

    def bench(self, c: ThresholdChoice) -> Bench:
        """Return what the panels share."""
        return Bench(self.work(c), c.x, c.threshold - 1, c.draws, self.ends(c))

    def headline(self, c: ThresholdChoice) -> dict[str, float]:
        """Return loss and entropy of the codes."""
        done = self.bench(c).work
        return {done.loss: done.value(), "entropy (bits)": metrics.entropy_bits(done.counts)}

    def scene(self, c: ThresholdChoice) -> Scene:
        """Return thresholds over values, staircase, slopes, the gradient of each width, use of the codes."""
        b, about = self.bench(c), f"{c.tensor}: {self.sources[c.tensor].about}."
        many = f"{count(2**c.bits - 1, 'threshold')} on {c.tensor}, {count(c.bits, 'bit')}"
        drawn, title = tuple(part(b) for part in panels.PARTS), f"{many}, v = {c.scale:.3g} x"
        return Scene(title, drawn, panels.table(b), f"{about} {panels.arithmetic(b)}")
