"""Threshold moves: what moves N2UQ's thresholds: a hand, the values that they divide, a gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from qviz.core.summary import Summary
from qviz.explore.controls import between
from qviz.explore.drift import values
from qviz.explore.model import Action, Model, changed
from qviz.explore.threshold_choice import LEAST_WIDTH, ThresholdChoice, checked
from qviz.explore.threshold_work import Work, shown, work

LARGEST_MOVE = 0.05
"""What one step of training changes a width by at most, in units of v."""


class MovesModel(Model[ThresholdChoice]):
    """Thresholds on activations, and all that moves them; a subclass sets ``start`` and draws them."""

    def ends(self, c: ThresholdChoice) -> tuple[float, float]:
        """Return what the x axis shows."""
        return shown(self.sources[c.tensor])

    def data(self, c: ThresholdChoice) -> Summary:
        """Return the summary of the activations, of large ones that of their quantiles."""
        return values(self.sources[c.tensor])

    def work(self, c: ThresholdChoice) -> Work:
        """Return what the quantizer does with the values."""
        return work(self.sources[c.tensor], c.bits, c.begin, tuple(c.sizes.tolist()), c.scale, c.loss)

    def limits(self, c: ThresholdChoice) -> dict[str, dict[str, Any]]:
        """Return limits that follow the number of thresholds and the ends of the axis."""
        low, high = self.ends(c)
        least = 2.0 / (high - low)  # there equal widths reach all values
        fine = 10.0 ** math.floor(math.log10(least) - 1)
        unit = float(f"{math.ceil(least / fine) * fine:.12g}")
        scale = {"low": unit, "high": float(f"{10 * unit:.12g}"), "step": fine}
        place = between(low, high)
        return {"threshold": {"low": 1, "high": 2**c.bits - 1}, "value": place, "scale": scale, "x": place}

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

    def moved(self, c: ThresholdChoice, number: int, place: float) -> ThresholdChoice:
        """Return the choice with a threshold as near to a place as widths and the ends of the axis allow.

        Its segment becomes wider or narrower. What lies above it moves along, or the next segment gives way.
        """
        (low, high), i, sizes = self.ends(c), number - 1, c.sizes.copy()
        width = 2.0 * (min(max(place, low), high) * c.scale - c.edges[i])
        most = 2.0 * (high * c.scale - c.edges[i])
        if number < len(sizes):
            rest = float(sizes[i] + sizes[number]) - LEAST_WIDTH
            above = high * c.scale - (c.edges[-1] - sizes[-1] / 2) + sizes[i]
            most = min(most, above if c.push else rest)
        new = min(max(width, LEAST_WIDTH), max(most, LEAST_WIDTH))
        if number < len(sizes) and not c.push:
            sizes[number] += sizes[i] - new
        sizes[i] = new
        return replace(c.sized(sizes), threshold=number)

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
        v = self.data(c).x.numpy() * c.scale
        above, n = v[v > c.begin], len(c.sizes)
        edges = np.quantile(above, np.arange(1, n + 1) / n) if len(above) else c.edges[1:]
        return self.followed(c.sized(np.diff(edges, prepend=c.begin)))

    def trained(self, c: ThresholdChoice) -> ThresholdChoice:
        """Return the choice after one step of gradient descent; the largest change has a fixed size."""
        gradient = self.work(c).gradient
        return self.followed(c.sized(c.sizes - gradient / (np.abs(gradient).max() or 1.0) * LARGEST_MOVE))

    def parsed(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the state with its widths as a choice has them."""
        return checked(state, self.start.bits)
