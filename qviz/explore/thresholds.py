"""Thresholds: non-uniform in, uniform out, with thresholds that are dragged and gradients that move them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from qviz.core import _check
from qviz.core._text import count
from qviz.core.quantizer import Quantizer
from qviz.core.summary import Summary
from qviz.explore import tensors
from qviz.explore import threshold_panels as panels
from qviz.explore.controls import Number, Pick, Slide, Tick, control
from qviz.explore.drift import values
from qviz.explore.model import Action, Model, changed
from qviz.explore.threshold_work import LOSSES, Bench, Work
from qviz.measure import metrics
from qviz.methods.n2uq import n2uq_activation
from qviz.plot.panels import limits
from qviz.plot.scene import Scene

LEAST_WIDTH = 0.01
"""Of a segment that is dragged or trained, in units of v; the method's own floor is 0.001."""
LARGEST_MOVE = 0.05
"""What one step of training changes a width by at most, in units of v."""


@dataclass(frozen=True)
class ThresholdChoice:
    """N2UQ's thresholds on one tensor, and the number that is followed."""

    tensor: str = control("", Pick("Tensor", "The activations that are quantized."))
    bits: int = control(2, Slide("Bits", "The bit width b; there are 2^b codes.", low=1, high=4, step=1))
    threshold: int = control(1, Number("Threshold", "The number of the threshold that moves.", low=1, high=3))
    value: float = control(0.0, Number("At", "Where that threshold is, in units of x.", step=0.01))
    push: bool = control(
        True, Tick("Push the rest", "Thresholds above move along; else the next segment gives way.")
    )
    begin: float = control(
        0.0,
        Slide("Start t0", "Where the first segment begins, in units of v.", low=-1.0, high=1.0, step=0.02),
    )
    scale: float = control(1.0, Slide("Scale s", "What x is multiplied by: v = s x."))
    draws: int = control(
        20, Slide("Draws", "How often each x is rounded at random for the mean.", low=1, high=200, step=1)
    )
    loss: str = control(LOSSES[0], Pick("Loss", "Whose gradient the widths get.", options=LOSSES))
    x: float = control(0.5, Number("Number x", "A number to follow; drag its dot.", step=0.01))
    widths: tuple[float, ...] = ()

    @property
    def sizes(self) -> np.ndarray:
        """The widths of the segments, in units of v: those that were moved, or equal ones."""
        n = 2**self.bits - 1
        return np.array(self.widths) if self.widths else np.full(n, 2.0 / n)

    @property
    def edges(self) -> np.ndarray:
        """The ends of the segments, in units of v."""
        return self.begin + np.concatenate([[0.0], np.cumsum(self.sizes)])


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
        self.sources, self._works = tensors.offered(x), {}
        first = tensors.first(self.sources, tensor, "act_depthwise (real)")
        self.start = self.followed(ThresholdChoice(first, bits))
        self.start = replace(self.start, x=float(f"{0.3 * self.ends(self.start)[1]:.2g}"))

    def data(self, c: ThresholdChoice) -> Summary:
        """Return the summary of the activations, of large ones that of their quantiles."""
        return values(self.sources[c.tensor])

    def ends(self, c: ThresholdChoice) -> tuple[float, float]:
        """Return what the x axis shows: zero and the values, but not the far end of a long tail."""
        data = self.data(c)
        low, high = limits(data)
        tail = float(data.rows.flatten()[int(0.995 * (data.numel - 1))])
        high = min(high, 1.25 * tail) if tail > 0 else high
        return min(low, -0.02 * high if high > 0 else low), max(high, -0.02 * low)

    def quantizer(self, c: ThresholdChoice) -> Quantizer:
        """Return the method's quantizer with these parameters, in float64."""
        q = n2uq_activation(c.bits, start=c.begin, widths=c.sizes.tolist()).double()
        with torch.no_grad():
            q.range.scale_in.fill_(c.scale)
            q.codebook.start.fill_(c.begin)
            q.codebook.widths.copy_(torch.from_numpy(c.sizes))
        return q

    def limits(self, c: ThresholdChoice) -> dict[str, dict[str, Any]]:
        """Return limits that follow the tensor and the number of thresholds."""
        low, high = self.ends(c)
        grain = 10.0 ** math.floor(math.log10((high - low) / 200))
        least = 2.0 / (high - low)  # there equal widths reach all values
        fine = 10.0 ** math.floor(math.log10(least) - 1)
        unit = float(f"{math.ceil(least / fine) * fine:.12g}")
        return {
            "threshold": {"low": 1, "high": 2**c.bits - 1},
            "value": {"low": low, "high": high, "step": grain},
            "scale": {"low": unit, "high": float(f"{10 * unit:.12g}"), "step": fine},
            "x": {"low": low, "high": high, "step": grain},
        }

    def settled(self, before: ThresholdChoice, after: ThresholdChoice) -> ThresholdChoice:
        """Move a threshold to a new value; another tensor or bit width begins with equal widths."""
        moves, c = changed(before, after), after
        if moves & {"bits", "tensor"} and "widths" not in moves:
            c = replace(c, widths=())
        if "value" in moves and not moves & {"threshold", "bits", "tensor"}:
            c = self.moved(c, c.threshold, c.value)
        return self.followed(c)

    def followed(self, c: ThresholdChoice) -> ThresholdChoice:
        """Bring the numbers into their limits, and the value to where the threshold is."""
        c = self.inside(c, "threshold", "scale", "x")
        place = float(f"{self.thresholds(c)[c.threshold - 1]:.6g}")
        return self.inside(replace(c, value=place), "value")

    def thresholds(self, c: ThresholdChoice) -> np.ndarray:
        """Return the thresholds, in units of x."""
        return (c.edges[:-1] + c.edges[1:]) / 2 / c.scale

    def moved(self, c: ThresholdChoice, number: int, place: float) -> ThresholdChoice:
        """Return the choice with a threshold as near to a place as the widths allow.

        Its segment becomes wider or narrower. What lies above it moves along, or the next segment gives way.
        """
        i, sizes, ends = number - 1, c.sizes.copy(), self.ends(c)
        width = 2.0 * (min(max(place, ends[0]), ends[1]) * c.scale - c.edges[i])
        most = 2.0 * (ends[1] * c.scale - c.edges[i])
        if i + 1 < len(sizes):
            rest = float(sizes[i] + sizes[i + 1]) - LEAST_WIDTH
            above = ends[1] * c.scale - (c.edges[-1] - sizes[-1] / 2) + sizes[i]
            most = min(most, above if c.push else rest)
        new = min(max(width, LEAST_WIDTH), max(most, LEAST_WIDTH))
        if not c.push and i + 1 < len(sizes):
            sizes[i + 1] = max(sizes[i + 1] + sizes[i] - new, LEAST_WIDTH)
        sizes[i] = new
        return replace(c, widths=tuple(sizes.tolist()), threshold=number)

    def dragged(
        self, c: ThresholdChoice, panel: int, mark: int, index: int, x: float, y: float
    ) -> ThresholdChoice:
        """Move a threshold, or the one number."""
        if getattr(self.scene(c).panels[panel].marks[mark], "role", "") == "d":
            return self.followed(replace(c, x=float(f"{x:.4g}")))
        seen = np.flatnonzero(self.bench(c).visible)
        return self.followed(self.moved(c, int(seen[index]) + 1, x))

    def actions(self, c: ThresholdChoice) -> dict[str, Action[ThresholdChoice]]:
        """Return the buttons: two ways to place the thresholds, and a step along the gradient."""
        return {
            "equal": Action(
                "Equal widths", "Uniform quantization, where N2UQ starts", self.evened, bool(c.widths)
            ),
            "shares": Action("Equal shares", "As many values in each segment", self.shared),
            "follow": Action("Follow the gradient", "One step of training of the widths", self.trained),
        }

    def evened(self, c: ThresholdChoice) -> ThresholdChoice:
        """Return the choice with equal widths, 2 / n each."""
        return self.followed(replace(c, widths=()))

    def shared(self, c: ThresholdChoice) -> ThresholdChoice:
        """Return the choice with as many of the values above t0 in each segment, where widths allow it."""
        v = self.data(c).x.numpy() * c.scale
        above = v[v > c.begin]
        edges = np.quantile(above, np.arange(1, 2**c.bits) / (2**c.bits - 1)) if len(above) else c.edges[1:]
        sizes = np.maximum(np.diff(edges, prepend=c.begin), LEAST_WIDTH)
        return self.followed(replace(c, widths=tuple(sizes.tolist())))

    def trained(self, c: ThresholdChoice) -> ThresholdChoice:
        """Return the choice after one step of gradient descent; the largest change has a fixed size."""
        slope = self.work(c).gradient
        change = slope / (np.abs(slope).max() or 1.0) * LARGEST_MOVE
        sizes = np.maximum(c.sizes - change, LEAST_WIDTH)
        return self.followed(replace(c, widths=tuple(sizes.tolist())))

    def parsed(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the state with its widths as such.

        Raises:
            ValueError: They are not positive numbers, or not as many as the bits ask for.
        """
        sizes = tuple(state.get("widths", ()))
        n = 2 ** state.get("bits", self.start.bits) - 1
        good = all(isinstance(a, int | float) and LEAST_WIDTH <= a < math.inf for a in sizes)
        if sizes and (len(sizes) != n or not good):
            raise ValueError(f"widths must be {n} numbers of at least {LEAST_WIDTH}, got {list(sizes)}")
        return {**state, "widths": tuple(map(float, sizes))}

    def paged(self, c: ThresholdChoice) -> dict[str, tuple[Any, ...]]:
        """Return every bit width with both losses."""
        return {"bits": (1, 2, 3, 4), "loss": LOSSES}

    def work(self, c: ThresholdChoice) -> Work:
        """Return what the quantizer does with the values; the last ones are kept."""
        key = c.tensor, c.bits, c.begin, c.widths, c.scale, c.loss
        if key not in self._works:
            while len(self._works) > 7:
                self._works.pop(next(iter(self._works)))
            self._works[key] = Work(self.quantizer(c), self.data(c), c.scale, c.loss)
        return self._works[key]

    def bench(self, c: ThresholdChoice) -> Bench:
        """Return what the panels share."""
        return Bench(self.work(c), c.x, c.threshold - 1, c.draws, self.ends(c))

    def headline(self, c: ThresholdChoice) -> dict[str, float]:
        """Return loss and entropy of the codes."""
        work = self.work(c)
        return {work.loss: work.value(), "entropy (bits)": metrics.entropy_bits(work.counts)}

    def scene(self, c: ThresholdChoice) -> Scene:
        """Return thresholds over values, staircase, slopes, the gradient of each width, use of the codes."""
        b = self.bench(c)
        source = self.sources[c.tensor]
        what = f"{count(2**c.bits - 1, 'threshold')} on {c.tensor}, {count(c.bits, 'bit')}"
        title = f"{what}, v = {c.scale:.3g} x"
        parts = (panels.over_values, panels.staircase, panels.slopes, panels.widths, panels.use)
        about = f"{c.tensor}: {source.about}. {panels.arithmetic(b)}"
        return Scene(title, tuple(part(b) for part in parts), panels.table(b), about)
