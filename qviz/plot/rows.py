"""Rows: what a chart is given, looked at and turned into arrays, and the limits of its axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from qviz.core._text import article
from qviz.plot.style import ROLES

Values = Tensor | ArrayLike


def few(rows: Any, name: str) -> Mapping[str, Any]:
    """Return rows by their names; what is no mapping is one row, of the name of its axis."""
    if not isinstance(rows, Mapping):
        return {name: rows}
    if not 1 <= len(rows) <= len(ROLES):
        raise ValueError(f"a panel shows 1 to {len(ROLES)} of them, got {len(rows)}")
    return rows


def pair(name: str, row: Any, *, alone: bool = True) -> tuple[Values, Values]:
    """Return x and y of a row; where they may stand alone, numbers are y over 0, 1, 2 and so on."""
    sized = isinstance(row, Sequence) or (isinstance(row, (np.ndarray, Tensor)) and row.ndim)
    if alone and sized and len(row) and all(np.ndim(value) == 0 for value in row):
        return range(len(row)), row
    if sized and len(row) == 2 and not isinstance(row, str):
        return row[0], row[1]
    wanted = "a pair (x, y) or numbers y" if alone else "a pair (x, y)"
    got = article(type(row).__name__) + (f" of {len(row)}" if sized else "")
    raise TypeError(f"{name!r} must be {wanted}, got {got}: give a mapping from names to these, or x and y")


def array(values: Values) -> np.ndarray:
    """Return values as float64, a copy; raise TypeError for what is no array of numbers."""
    if isinstance(values, Tensor):
        values = values.detach().double().cpu().numpy()
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as problem:
        raise TypeError(
            f"give an array of numbers or a mapping from names to such, got {article(type(values).__name__)} "
            "in place of an array"
        ) from problem


def numbers(name: str, values: Values, shape: tuple[int, ...]) -> np.ndarray:
    """Return values, which must have this shape."""
    row = array(values)
    if row.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {row.shape}")
    return row


def sample(name: str, values: Values) -> np.ndarray:
    """Return values in one row, which must be finite and not empty."""
    row = array(values).ravel()
    if not row.size or not np.isfinite(row).all():
        raise ValueError(f"{name!r} is empty, or has values that are NaN or infinite")
    return row


def line(name: str, x: Values, y: Values, *, log: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return x (R,) and y (R, n)."""
    at, values = array(x), array(y)
    if log:
        values[~(values > 0)] = np.nan
    if at.ndim != 1 or values.ndim not in (1, 2) or values.shape[:1] != at.shape or not values.size:
        raise ValueError(
            f"{name!r} needs x of shape (R,) and y of shape (R,) or (R, n), got {at.shape}, {values.shape}"
        )
    if not np.isfinite(at).all() or not np.isfinite(values).any():
        raise ValueError(f"{name!r} has an x that is not finite, or no finite y")
    return at, values.reshape(len(at), -1)


def ends(arrays: Sequence[np.ndarray], what: str) -> tuple[float, float]:
    """Return the least and the largest finite number in some arrays."""
    held = np.concatenate([np.ravel(a) for a in arrays])
    held = held[np.isfinite(held)]
    if not held.size:
        raise ValueError(f"{what} has no finite number")
    return float(held.min()), float(held.max())


def limits(
    given: tuple[float, float] | None, name: str, low: float, high: float, *, margin: float, log: bool = False
) -> tuple[float, float]:
    """Return the limits that were given, after a look at them, or the ends with a margin, never equal."""
    if given is not None:
        if not -np.inf < given[0] < given[1] < np.inf:
            raise ValueError(f"{name} must be finite and increasing, got {given}")
        return float(given[0]), float(given[1])
    if log:
        low, high = limits(None, name, np.log10(low), np.log10(high), margin=margin)
        return 10.0**low, 10.0**high
    spare = margin * (high - low)
    if not high - low > 1e-9 * max(abs(low), abs(high)):
        spare = 0.5 * (abs(high) or 1.0)
    return low - spare, high + spare
