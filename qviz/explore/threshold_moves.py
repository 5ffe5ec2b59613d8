"""Threshold moves: N2UQ's parameters as a choice, and what moves its thresholds: a hand, values, a gradient.

Each of the functions returns another choice. Segments stay at least :data:`LEAST_WIDTH` wide.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qviz.explore.controls import Number, Pick, Slide, Tick, control
from qviz.explore.threshold_work import LOSSES

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

    @property
    def thresholds(self) -> np.ndarray:
        """The thresholds, in units of x."""
        return (self.edges[:-1] + self.edges[1:]) / 2 / self.scale


def limits(c: ThresholdChoice, low: float, high: float) -> dict[str, dict[str, Any]]:
    """Return the limits of the controls that follow the number of thresholds and the ends of the axis."""
    grain = 10.0 ** math.floor(math.log10((high - low) / 200))
    least = 2.0 / (high - low)  # there equal widths reach all values
    fine = 10.0 ** math.floor(math.log10(least) - 1)
    unit = float(f"{math.ceil(least / fine) * fine:.12g}")
    place = {"low": low, "high": high, "step": grain}
    scale = {"low": unit, "high": float(f"{10 * unit:.12g}"), "step": fine}
    return {"threshold": {"low": 1, "high": 2**c.bits - 1}, "value": place, "scale": scale, "x": place}


def moved(c: ThresholdChoice, number: int, place: float, low: float, high: float) -> ThresholdChoice:
    """Return the choice with a threshold as near to a place as widths and the ends of the axis allow.

    Its segment becomes wider or narrower. What lies above it moves along, or the next segment gives way.
    """
    i, sizes, most = number - 1, c.sizes.copy(), 2.0 * (high * c.scale - c.edges[number - 1])
    width = 2.0 * (min(max(place, low), high) * c.scale - c.edges[i])
    if number < len(sizes):
        rest = float(sizes[i] + sizes[number]) - LEAST_WIDTH
        above = high * c.scale - (c.edges[-1] - sizes[-1] / 2) + sizes[i]
        most = min(most, above if c.push else rest)
    new = min(max(width, LEAST_WIDTH), max(most, LEAST_WIDTH))
    if number < len(sizes) and not c.push:
        sizes[number] += sizes[i] - new
    sizes[i] = new
    return replace(sized(c, sizes), threshold=number)


def shared(c: ThresholdChoice, x: np.ndarray) -> ThresholdChoice:
    """Return the choice with as many of the values above t0 in each segment, where widths allow it."""
    above = x[x * c.scale > c.begin] * c.scale
    edges = np.quantile(above, np.arange(1, 2**c.bits) / (2**c.bits - 1)) if len(above) else c.edges[1:]
    return sized(c, np.diff(edges, prepend=c.begin))


def trained(c: ThresholdChoice, gradient: np.ndarray) -> ThresholdChoice:
    """Return the choice after one step of gradient descent; the largest change has a fixed size."""
    return sized(c, c.sizes - gradient / (np.abs(gradient).max() or 1.0) * LARGEST_MOVE)


def sized(c: ThresholdChoice, sizes: np.ndarray) -> ThresholdChoice:
    """Return the choice with other widths."""
    return replace(c, widths=tuple(np.maximum(sizes, LEAST_WIDTH).tolist()))


def stretched(c: ThresholdChoice, end: int, place: float) -> ThresholdChoice:
    """Return the choice with an end of all segments at a place: t0 puts the first there, s the last."""
    if end == 0:
        return replace(c, begin=place * c.scale)
    return replace(c, scale=c.edges[-1] / place) if place * c.edges[-1] > 0 else c


def checked(state: Mapping[str, Any], bits: int) -> Mapping[str, Any]:
    """Return a state with its widths as a choice has them; ``bits`` where the state has none.

    Raises:
        ValueError: They are not positive numbers, or not as many as the bits ask for.
    """
    sizes, n = tuple(state.get("widths", ())), 2 ** state.get("bits", bits) - 1
    good = all(isinstance(a, int | float) and LEAST_WIDTH <= a < math.inf for a in sizes)
    if sizes and (len(sizes) != n or not good):
        raise ValueError(f"widths must be {n} numbers of at least {LEAST_WIDTH}, got {list(sizes)}")
    return {**state, "widths": tuple(map(float, sizes))}
