"""Threshold choice: N2UQ's parameters on one tensor, as controls and as places on the axis."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from qviz.explore.controls import Number, Pick, Slide, Tick, control
from qviz.explore.threshold_work import LOSSES

LEAST_WIDTH = 0.01
"""Of a segment that is dragged or trained, in units of v; the method's own floor is 0.001."""


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

    def sized(self, sizes: np.ndarray) -> Self:
        """Return the choice with other widths, none below :data:`LEAST_WIDTH`."""
        return replace(self, widths=tuple(np.maximum(sizes, LEAST_WIDTH).tolist()))

    def stretched(self, end: int, place: float) -> Self:
        """Return the choice with an end of all segments at a place: t0 puts the first there, s the last."""
        if end == 0:
            return replace(self, begin=place * self.scale)
        return replace(self, scale=self.edges[-1] / place) if place * self.edges[-1] > 0 else self


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
