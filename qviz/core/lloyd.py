"""One-dimensional k-means: exact for a few thousand points, within one percent for any number."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

EXACT = 8192
"""Distinct values up to which the optimum is exact, and groups that stand for more of them."""
STEPS = 1000
"""Lloyd's steps at most; from the optimum of the groups they are few."""


def lloyd_centers(x: np.ndarray, k: int) -> np.ndarray:
    """Return the ``k`` sorted centers with the least squared error, float64; fewer if x has fewer values.

    Up to 8192 distinct values this is the optimum (:func:`optimal_centers`). More of them are merged into
    some thousand groups, whose optimum is the start of Lloyd's iteration on all values: each center moves
    to the mean of its cell until no value changes its cell.

    Args:
        x: The samples, shape (n,), finite.
        k: The number of centers, at least 1.
    """
    points, counts = np.unique(x, return_counts=True)
    points, weights = points.astype(np.float64), counts.astype(np.float64)
    if len(points) <= k:
        return points
    if len(points) <= EXACT:
        return optimal_centers(points, weights, k)
    middle = np.searchsorted(np.cumsum(weights), len(x) / 2)
    total, moment = (_sums(v, middle) for v in (weights, weights * (points - points[middle])))
    cut = _groups(points, weights)
    share = np.diff(total[cut])
    centers, before = optimal_centers(np.diff(moment[cut]) / share + points[middle], share, k), None
    for _ in range(STEPS):
        inner = np.searchsorted(points, (centers[1:] + centers[:-1]) / 2, side="right")
        cut = np.concatenate([[0], inner, [len(points)]])
        if (np.diff(cut) == 0).any() or np.array_equal(cut, before):
            break  # an emptied cell would lose its center: the step before is kept
        centers, before = np.diff(moment[cut]) / np.diff(total[cut]) + points[middle], cut
    return np.unique(centers)


def lloyd_rest(
    x: np.ndarray, centers: np.ndarray, *, pinned: int | None = None, steps: int = STEPS
) -> np.ndarray:
    """Return where Lloyd's steps lead from given centers: each moves to the mean of its cell, until all rest.

    That is a local optimum, which depends on the start; :func:`lloyd_centers` finds the global one. A center
    whose cell has no values stays where it is.

    Args:
        x: The samples, shape (n,), finite.
        centers: Where to start, sorted, shape (k,).
        pinned: The index of a center that stays at its place, or None.
        steps: How many steps are made at most.

    Example:
        >>> lloyd_rest(np.array([0.0, 1.0, 4.0, 6.0]), np.array([0.0, 1.0])).tolist()
        [0.5, 5.0]
    """
    points, centers, before = np.sort(x).astype(np.float64), centers.astype(np.float64), None
    total = np.concatenate([[0.0], np.cumsum(points)])
    for _ in range(steps):
        inner = np.searchsorted(points, (centers[1:] + centers[:-1]) / 2, side="right")
        cut = np.concatenate([[0], inner, [len(points)]])
        if np.array_equal(cut, before):
            break
        count, before = np.diff(cut), cut
        moved = np.where(count > 0, np.diff(total[cut]) / np.maximum(count, 1), centers)
        if pinned is not None:
            moved[pinned] = centers[pinned]
        centers = moved
    return centers


def _groups(points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return where groups of the sorted points begin, and their number: the finer of two divisions.

    One has equal shares of the weight. The other has equal shares of Σ weight^(1/3) gap^(2/3), the measure
    in which the cells of a fine optimal quantizer are equally large; a gap wider than a group counts as one.

    References:
        Panter and Dite, "Quantization Distortion in Pulse-Count Modulation with Nonuniform Spacing of
        Levels", Proc. IRE 39(1), 1951.
    """
    half = EXACT // 2
    fine = np.cbrt(weights * np.gradient(points) ** 2)
    for _ in range(8):  # each round lets far outliers take less of the groups
        fine = np.minimum(fine, fine.sum() / half)
    cut = [np.array([0, len(points)])]
    for share in (np.cumsum(weights), np.cumsum(fine)):
        cut.append(np.searchsorted(share, np.linspace(0.0, share[-1], half + 1)[1:-1]))
    return np.unique(np.concatenate(cut))


def _sums(values: np.ndarray, middle: int) -> np.ndarray:
    """Return prefix sums, shape (n + 1,), that are 0 at ``middle``: outliers take no digits from the rest."""
    return np.concatenate([-np.cumsum(values[:middle][::-1])[::-1], [0.0], np.cumsum(values[middle:])])


def optimal_centers(points: np.ndarray, weights: np.ndarray, k: int) -> np.ndarray:
    """Return the ``k`` centers with the least weighted squared error, exactly, by dynamic programming.

    best[m][j] = min over i of best[m - 1][i] + cost(i, j); the minimizing i grows with j, so each layer is
    filled by halving: every second j searches between the answers of its neighbors. O(k n log n).

    Args:
        points: The values, sorted and distinct, shape (n,).
        weights: How often each occurs, > 0, shape (n,).
        k: The number of centers, at most n.
    """
    middle = np.searchsorted(np.cumsum(weights), weights.sum() / 2)
    p = points - points[middle]  # small numbers: the cost is a difference of squares
    sums = [_sums(v, middle) for v in (weights, weights * p, weights * p * p)]

    def cost(i: np.ndarray, j: np.ndarray) -> np.ndarray:
        n, s, q = (v[j] - v[i] for v in sums)
        return np.maximum(q - s * s / n, 0.0)

    last = len(p)
    every = np.arange(1, last + 1)
    best = np.concatenate([[0.0], cost(np.zeros_like(every), every)])
    cuts = []
    for m in range(2, k + 1):
        best, cut = _layer(best, cost, m, last)
        cuts.append(cut)
    ends = [last]
    for cut in reversed(cuts):
        ends.append(int(cut[ends[-1]]))
    bounds = np.array([0, *reversed(ends)])
    return np.diff(sums[1][bounds]) / np.diff(sums[0][bounds]) + points[middle]


def _layer(
    best: np.ndarray, cost: Callable[[np.ndarray, np.ndarray], np.ndarray], m: int, last: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the best cost of the first j points in m cells, and where the last cell begins, for each j."""
    value = np.full(last + 1, np.inf)
    cut = np.full(last + 2, m - 1)
    cut[-1] = last
    step = 1 << (last - m + 1).bit_length()
    while step:
        j = np.arange(m - 1 + step, last + 1, 2 * step)  # their neighbors at this distance are known
        step //= 2
        if not len(j):
            continue
        above = j + 2 * step if step else j + 1
        low = np.maximum(cut[np.maximum(j - (2 * step or 1), m - 1)], m - 1)
        high = np.minimum(np.where(above <= last, cut[np.minimum(above, last)], last), j - 1)
        size = high - low + 1
        begin = np.concatenate([[0], np.cumsum(size)[:-1]])
        i = np.arange(size.sum()) + np.repeat(low - begin, size)
        total = best[i] + cost(i, np.repeat(j, size))
        value[j] = np.minimum.reduceat(total, begin)
        cut[j] = np.maximum.reduceat(np.where(total == np.repeat(value[j], size), i, 0), begin)
    return value, cut[:-1]
