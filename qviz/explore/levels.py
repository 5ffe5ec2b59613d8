"""Levels moved by hand: one at a time, without breaking the order of the others."""

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
    """Return a copy with one level moved as near to ``value`` as its neighbors allow.

    Args:
        levels: Strictly increasing levels, shape (K,).
        index: Which of them moves.
        value: Where it moves to; NaN leaves it.
        low: The lower end of the span that levels may move in.
        high: The upper end of the span.
        mirror: Whether the level of the opposite sign moves along; the middle one of an odd number then
            stays at 0.

    Raises:
        IndexError: There is no such level.
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
