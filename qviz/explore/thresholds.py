"""Thresholds: non-uniform in, uniform out, with thresholds that are dragged and gradients that move them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from qviz.core import _check
from qviz.core._text import count
from qviz.explore import tensors
from qviz.explore import threshold_panels as panels
from qviz.explore.threshold_choice import ThresholdChoice
from qviz.explore.threshold_moves import MovesModel
from qviz.explore.threshold_work import LOSSES, Bench
from qviz.measure import metrics
from qviz.plot.scene import Scene


class ThresholdModel(MovesModel):
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

    def bench(self, c: ThresholdChoice) -> Bench:
        """Return what the panels share."""
        return Bench(self.work(c), c.x, c.threshold - 1, c.draws, self.ends(c))

    def dragged(
        self, c: ThresholdChoice, panel: int, mark: int, index: int, x: float, y: float
    ) -> ThresholdChoice:
        """Move the one number, an end of the segments, or a threshold."""
        role, b = self.scene(c).panels[panel].marks[mark].role, self.bench(c)
        if role == "d":
            return self.followed(replace(c, x=float(f"{x:.4g}")))
        if role == "b":
            return self.followed(c.stretched(int(np.flatnonzero(b.outer)[index]), x))
        return self.followed(self.moved(c, int(np.flatnonzero(b.visible)[index]) + 1, x))

    def paged(self, c: ThresholdChoice) -> dict[str, tuple[Any, ...]]:
        """Return every bit width with both losses."""
        return {"bits": (1, 2, 3, 4), "loss": LOSSES}

    def headline(self, c: ThresholdChoice) -> dict[str, float]:
        """Return loss and entropy of the codes."""
        done = self.work(c)
        return {done.loss: done.value(), "entropy (bits)": metrics.entropy_bits(done.counts)}

    def scene(self, c: ThresholdChoice) -> Scene:
        """Return thresholds over values, staircase, slopes, the gradient of each width, use of the codes."""
        b, about = self.bench(c), f"{c.tensor}: {self.sources[c.tensor].about}."
        many = f"{count(2**c.bits - 1, 'threshold')} on {c.tensor}, {count(c.bits, 'bit')}"
        drawn, title = tuple(part(b) for part in panels.PARTS), f"{many}, v = {c.scale:.3g} x"
        return Scene(title, drawn, panels.table(b), f"{about} {panels.arithmetic(b)}")
