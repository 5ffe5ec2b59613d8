"""Positions: where a quantizer's levels and borders lie on the axis of x."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from qviz.core.quantizer import Quantizer


def typical(q: Quantizer) -> tuple[float, float]:
    """Return scale and offset; per channel those of the channel with the median scale."""
    scale = q.range.scale.flatten()
    middle = int(scale.argsort()[(len(scale) - 1) // 2])
    offset = 0.0 if q.range.offset is None else float(q.range.offset.flatten()[middle])
    return float(scale[middle]), offset


def on_x(q: Quantizer, u: Tensor) -> np.ndarray:
    """Return where numbers in units of u lie on the x axis; per channel with the median scale."""
    scale, offset = typical(q)
    return u.numpy(force=True) * scale + offset


def level_positions(q: Quantizer) -> np.ndarray:
    """Return the levels on the x axis, shape (K,); per channel those of the median scale.

    Where outputs are in another unit than x (DAQ, N2UQ, DoReFa), a level's place is its knot.
    """
    return on_x(q, q.codebook.levels if q.range.rescale else q.codebook.knots)


def border_positions(q: Quantizer) -> np.ndarray:
    """Return the borders on the x axis, shape (K - 1,); per channel those of the median scale."""
    return on_x(q, q.rounding.borders(q.codebook))
