"""Places: where a quantizer's levels, borders and steps lie on the axis of x."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from qviz.core.quantizer import Quantizer
from qviz.core.range import Range
from qviz.core.summary import Summary
from qviz.measure.positions import border_positions, level_positions
from qviz.measure.positions import on_x as on_x

Function = Quantizer | Callable[[Tensor], Tensor]


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


def borders_or_knots(q: Quantizer) -> Tensor:
    """Return what divides the values into cells, in units of u: borders, or knots where none are fixed."""
    borders = q.rounding.borders(q.codebook)
    return q.codebook.knots if borders is None else borders


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
    if y.shape != (n,):
        raise ValueError(
            f"{name} gives the shape {y.shape} for a row of {n} values, so it has no one staircase"
        )
    start = np.concatenate([[0], np.nonzero(np.diff(y))[0] + 1])
    left = x.numpy()[start]
    return left, np.concatenate([left[1:], [high]]), y[start]
