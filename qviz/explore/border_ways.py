"""Ways: how a layer's input is rounded, by rule, as learned or by hand; the border that is, and its worth."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from qviz.core.grids import uniform
from qviz.core.rounding import CellBorder, Rounding
from qviz.explore.border_data import FORMULA, HALF, LEARNED, Layer, layers
from qviz.explore.controls import Number, Pick, Slide, Tick, control
from qviz.methods.aquant import AdaptiveBorder
from qviz.nn.ptq.errors import Errors

HAND = "by hand"
WAYS = (HALF, FORMULA, LEARNED, HAND)
BENDS = {"low": 0.0, "middle": 0.5, "high": 1.0}
"""The controls that bend a border by hand, and where each does, as a share of the largest level."""


def _bend(short: str, where: str) -> Slide:
    return Slide(f"B {short}", f"The border {where}, by hand.", low=0.02, high=0.98, step=0.01)


class Way(NamedTuple):
    """All that decides how a layer's input is rounded; ``bends`` are heights of the border, by hand alone."""

    layer: Layer
    border: str
    bends: tuple[float, ...]

    @property
    def rounding(self) -> Rounding:
        """How its input is rounded."""
        if self.border == HAND:
            return AdaptiveBorder(self.layer.steps).through(*self.bends)
        return self.layer.rounding(self.border)


@dataclass(frozen=True)
class BorderChoice:
    """A border on one layer, and one product of a weight and an activation."""

    network: str = control("nearest", Pick("Network", "How the network was quantized."))
    bits: int = control(2, Slide("Bits", "The bits of weights and activations.", low=2, high=4, step=1))
    border: str = control(HALF, Pick("Border", "Where an activation rounds up.", options=WAYS))
    low: float = control(0.5, _bend("at 0", "at the lowest level"))
    middle: float = control(0.5, _bend("middle", "in the middle"))
    high: float = control(0.5, _bend("at top", "at the top level"))
    channel: int = control(
        1, Slide("Channel", "The input channel whose border is shown.", low=1, high=32, step=1)
    )
    weight: float = control(0.7, Number("Weight w", "The weight of one product, in steps.", step=0.05))
    activation: float = control(1.6, Number("Input u", "Its activation, in steps.", step=0.05))
    compare: bool = control(True, Tick("Compare", "Show what formula, learning, a bias and an oracle give."))

    @property
    def way(self) -> Way:
        """All that decides how the layer's input is rounded."""
        bends = (self.low, self.middle, self.high) if self.border == HAND else ()
        return Way(layers()[self.network, self.bits], self.border, bends)


@dataclass(frozen=True, eq=False)
class Border:
    """A border over the range of a grid.

    Attributes:
        u: Activations in steps, (n,).
        height: B there, (n,).
        thresholds: Where rounding changes, one a cell, (R,).
    """

    u: Tensor
    height: Tensor
    thresholds: Tensor

    @property
    def bends(self) -> np.ndarray:
        """B where it can be bent."""
        u = self.u.double().numpy()
        return np.interp(np.array([*BENDS.values()]) * u[-1], u, self.height.double().numpy())


@lru_cache(maxsize=256)
def judged(way: Way) -> tuple[float, Errors]:
    """Return the error of the layer's output, in percent of that at one half, and the terms of the error."""
    error, errors = way.layer.judged(way.rounding)
    return 100 * error / way.layer.known[HALF], errors


@lru_cache(maxsize=256)
@torch.no_grad()
def border(way: Way, channel: int) -> Border:
    """Return the border of one channel over the range of the grid."""
    steps, rounding, book = way.layer.steps, way.rounding, uniform(way.layer.bits, signed=False)
    if isinstance(rounding, AdaptiveBorder):
        v = torch.linspace(0.0, steps, 121)
        u = v if rounding.channels is None else v.expand(1, rounding.channels, -1)
        height, cuts = rounding.element(u, book), rounding.freeze(book).border
        return Border(v, height, cuts) if u is v else Border(v, height[0, channel], cuts[:, channel])
    cells = torch.arange(steps, dtype=torch.float64)
    cuts = rounding.border[:, channel] if isinstance(rounding, CellBorder) else cells + 0.5
    ends = torch.stack([cells, cells + 1.0], 1).flatten()
    return Border(ends, (cuts - cells).repeat_interleave(2), cuts)
