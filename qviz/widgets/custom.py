"""Custom grids: moving one level by hand without breaking the order of the others."""

from __future__ import annotations

import numpy as np

MIN_GAP = 1e-3
"""Levels keep this distance, as a share of the span they may move in."""


def moved(
    levels: np.ndarray,
    index: int,
    value: float,
    low: float,
    high: float,
    *,
    mirror: bool = False,
) -> np.ndarray:
    """Return a copy with one level moved as near to ``value`` as its neighbours allow.

    Args:
        levels: strictly increasing, shape (K,).
        index: which one moves.
        value: where to; NaN leaves it.
        low: the lower end of the span.
        high: its upper end.
        mirror: the level of the opposite sign moves along; the middle one of an odd number stays at 0.

    Raises:
        IndexError: no such level.
    """
    count = len(levels)
    if not 0 <= index < count:
        raise IndexError(f"there are {count} levels, got index {index}")
    new = mirrored(levels) if mirror else levels.copy()
    twin = count - 1 - index
    if np.isnan(value) or (mirror and twin == index):
        return new
    gap = MIN_GAP * (high - low)
    bounding = [i for i in (index - 1, index + 1) if not (mirror and i == twin)]  # a twin moves along
    left = new[index - 1] + gap if index and index - 1 in bounding else low
    right = new[index + 1] - gap if index + 1 < count and index + 1 in bounding else high
    if mirror:  # a level keeps its sign, or it would meet its twin
        left, right = (max(left, gap / 2), right) if index > twin else (left, min(right, -gap / 2))
    if left <= right:
        new[index] = min(max(value, left), right)
        if mirror:
            new[twin] = -new[index]
    return new


def mirrored(levels: np.ndarray) -> np.ndarray:
    """Return the nearest levels that are symmetric about zero (each the mean of itself and its mirror)."""
    return (levels - levels[::-1]) / 2


def displaced(before: np.ndarray, after: np.ndarray) -> int | None:
    """Return the index of the level that differs most between two states; None when none does."""
    if len(before) != len(after):
        return None
    distance = np.abs(after - before)
    k = int(np.nanargmax(distance)) if len(distance) and not np.isnan(distance).all() else 0
    return k if len(distance) and distance[k] > 0 else None
