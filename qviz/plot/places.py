"""Places: where a quantizer's levels, borders and steps lie on the axis of x."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from qviz.core.quantizer import Quantizer
from qviz.core.range import Range
from qviz.core.summary import Summary

Function = Quantizer | Callable[[Tensor], Tensor]


def level_positions(q: Quantizer) -> np.ndarray:
    """Return the levels on the x axis, shape (K,); per channel those of the median scale.

    Where outputs are in another unit than x (DAQ, N2UQ, DoReFa), a level's place is its knot.
    """
    scale, offset = _typical(q)
    on_x = q.codebook.levels if q.range.rescale else q.codebook.knots
    return on_x.numpy(force=True) * scale + offset


def places(q: Quantizer, data: Summary) -> np.ndarray:
    """Return :func:`level_positions`, brought back to x where the grid sees a (rising) function of x."""
    at = level_positions(q)
    if not transforms(q):
        return at
    x = data.x.detach().flatten().double().sort().values
    return np.interp(at, q.range.transform(x).numpy(force=True), x.numpy(force=True))


def outputs(q: Quantizer) -> np.ndarray:
    """Return what the quantizer puts out for each code, shape (K,); per channel with the median scale."""
    if q.range.rescale:
        return level_positions(q)
    with torch.no_grad():
        return q.range.output(q.codebook.levels.double()).numpy(force=True)


def border_positions(q: Quantizer) -> np.ndarray:
    """Return the borders on the x axis, shape (K - 1,); per channel those of the median scale."""
    return on_x(q, q.rounding.borders(q.codebook))


def borders_or_knots(q: Quantizer) -> Tensor:
    """Return what divides the values into cells, in units of u: borders, or knots where none are fixed."""
    borders = q.rounding.borders(q.codebook)
    return q.codebook.knots if borders is None else borders


def on_x(q: Quantizer, u: Tensor) -> np.ndarray:
    """Return where numbers in units of u lie on the x axis; per channel with the median scale."""
    scale, offset = _typical(q)
    return u.numpy(force=True) * scale + offset


def in_units_of_x(q: Function) -> bool:
    """Return whether Q(x) - x is an error, which it is not for DAQ, N2UQ and DoReFa."""
    return not isinstance(q, Quantizer) or (q.range.rescale and not transforms(q))


def transforms(q: Quantizer) -> bool:
    """Return whether x is changed, as a whole, before the grid sees it (DoReFa)."""
    return type(q.range).transform is not Range.transform


def treads(
    name: str, q: Function, low: float, high: float, n: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return left end, right end and height of each step that is visible in [low, high]."""
    exact = isinstance(q, Quantizer) and q.rounding.borders(q.codebook) is not None
    if exact and not q.soft and not transforms(q):
        cuts, y = border_positions(q), outputs(q)
        first, last = np.searchsorted(cuts, low, side="right"), np.searchsorted(cuts, high, side="left")
        edges = np.concatenate([[low], cuts[first:last], [high]])
        return edges[:-1], edges[1:], y[first : last + 1]
    x = torch.linspace(low, high, n, dtype=torch.float64)
    try:
        with torch.no_grad():
            y = q(x.float()).double().numpy(force=True)
    except (RuntimeError, ValueError) as problem:
        raise ValueError(
            f"{name} takes no row of {n} values, so it has no one staircase: {problem}"
        ) from problem
    start = np.concatenate([[0], np.nonzero(np.diff(y))[0] + 1])
    left = x.numpy()[start]
    return left, np.concatenate([left[1:], [high]]), y[start]


def _typical(q: Quantizer) -> tuple[float, float]:
    scale = q.range.scale.flatten()
    middle = int(scale.argsort()[(len(scale) - 1) // 2])
    offset = 0.0 if q.range.offset is None else float(q.range.offset.flatten()[middle])
    return float(scale[middle]), offset
