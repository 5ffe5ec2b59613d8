"""One-dimensional k-means on a weighted, sorted summary of the samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

BINS = 4096
SORT_BELOW = 1 << 15
"""Up to this many samples sorting is as cheap as a histogram, and exact."""
EXACT_UP_TO = 32
"""Centres; above this a companded start is as good and faster."""
GROUPS = 300
"""Groups of equal share, and of equal width, that the exact start sees."""
RELAXATION = 1.8
"""Factor on each step of the smooth phase; Lloyd's steps contract at positive rates: below 2 is stable."""


@dataclass(frozen=True)
class Masses:
    """Weighted points with what Lloyd's step asks of them.

    Attributes:
        points: sorted, shape (n,). weights: > 0, shape (n,).
        total, moment: prefix sums of weight and weight * point, shape (n + 1,).
        edges: where each point's mass begins and ends when it is spread out, shape (n + 1,).
    """

    points: np.ndarray
    weights: np.ndarray
    total: np.ndarray
    moment: np.ndarray
    edges: np.ndarray

    @classmethod
    def of(cls, points: np.ndarray, weights: np.ndarray) -> Masses:
        """Compute the prefix sums."""
        total = np.concatenate([[0.0], np.cumsum(weights)])
        moment = np.concatenate([[0.0], np.cumsum(weights * points)])
        edges = np.concatenate([points[:1], (points[1:] + points[:-1]) / 2, points[-1:]])
        return cls(points, weights, total, moment, edges)

    def cells(self, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return weight and moment of each centre's cell, and where the cells begin among the points."""
        cut = np.searchsorted(self.points, (centres[1:] + centres[:-1]) / 2, side="right")
        cut = np.concatenate([[0], cut, [len(self.points)]])
        return np.diff(self.total[cut]), np.diff(self.moment[cut]), cut


def lloyd_centres(x: np.ndarray, k: int) -> np.ndarray:
    """Return at most ``k`` sorted centres of the samples, shape (k,), float64.

    Up to 32 centres start from the exact optimum of at most some hundred groups of the samples, more from
    the better of two companded grids. A border that lies between two points can move without
    changing anything, which stops Lloyd's iteration early; so it first runs with every point's mass
    spread out evenly, and ends on the points themselves.
    """
    data = Masses.of(*_summary(x, k))
    if len(data.points) <= k:
        return data.points.copy()
    if k <= EXACT_UP_TO:
        start = optimal_centres(*_groups(data), k)
    else:
        starts = (_filled(data, _companded(data, k, power), k) for power in (1 / 3, 1.0))
        start = max((_iterate(data, c, 30) for c in starts), key=lambda trial: trial[0])[1]
    ends = (_iterate(data, _spread(data, start, 500), 1000), _iterate(data, start, 1000))
    return np.unique(max(ends, key=lambda end: end[0])[1])


def optimal_centres(points: np.ndarray, weights: np.ndarray, k: int) -> np.ndarray:
    """Return the ``k`` centres with the least weighted squared error, exactly, by dynamic programming.

    best[m][j] = min over i of best[m - 1][i] + cost(i, j); the minimising i grows with j, so each layer is
    filled by halving: every second j searches between the answers of its neighbours. O(k n log n).

    Args:
        points: sorted and distinct, shape (n,).
        weights: > 0, shape (n,).
        k: at most n.
    """
    p = points - np.average(points, weights=weights)  # small numbers: the cost is a difference of squares
    sums = [np.concatenate([[0.0], np.cumsum(v)]) for v in (weights, weights * p, weights * p * p)]

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
    return np.diff(sums[1][bounds]) / np.diff(sums[0][bounds]) + np.average(points, weights=weights)


def _layer(
    best: np.ndarray, cost: Callable[[np.ndarray, np.ndarray], np.ndarray], m: int, last: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the best cost of the first j points in m cells, and where the last cell begins, for each j."""
    value = np.full(last + 1, np.inf)
    cut = np.full(last + 2, m - 1)
    cut[-1] = last
    step = 1 << (last - m + 1).bit_length()
    while step:
        j = np.arange(m - 1 + step, last + 1, 2 * step)  # their neighbours at this distance are known
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


def _groups(data: Masses) -> tuple[np.ndarray, np.ndarray]:
    """Return means and weights of groups of points: equal shares and equal widths, whichever is finer."""
    if len(data.points) <= 2 * GROUPS:
        return data.points, data.weights
    equal = np.linspace(data.points[0], data.points[-1], GROUPS + 1)[1:-1]
    cut = np.concatenate(
        [
            np.searchsorted(data.total[1:], np.linspace(0, data.total[-1], GROUPS + 1)[1:-1]),
            np.searchsorted(data.points, equal),
        ]
    )
    cut = np.unique(np.concatenate([[0], cut, [len(data.points)]]))
    weights = np.diff(data.total[cut])
    return np.diff(data.moment[cut]) / weights, weights


def _summary(x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return sorted points and their weights: bin means of a histogram, or the distinct samples.

    A histogram whose mass sits in few bins (far outliers stretch it) is refused in favour of sorting.
    """
    low, high = float(x.min()), float(x.max())
    if len(x) > SORT_BELOW and high > low:
        index = ((x - x.dtype.type(low)) * x.dtype.type((BINS - 1) / (high - low))).astype(np.int32)
        count = np.bincount(index, minlength=BINS)
        used = count > 0
        if count[used].max() * 8 * k <= len(x):
            sums = np.bincount(index, weights=x, minlength=BINS)
            return sums[used] / count[used], count[used].astype(np.float64)
    points, count = np.unique(x, return_counts=True)
    return points.astype(np.float64), count.astype(np.float64)


def _companded(data: Masses, k: int, power: float) -> np.ndarray:
    """Return k starting centres at equal shares of density**power (1/3 is Panter and Dite's rule)."""
    width = np.maximum(np.diff(data.edges), np.finfo(np.float64).tiny)
    share = np.cumsum((data.weights / width) ** power * width)
    return np.unique(np.interp((np.arange(k) + 0.5) / k * share[-1], share, data.points))


def _filled(data: Masses, centres: np.ndarray, k: int) -> np.ndarray:
    """Return ``k`` centres: where some coincided, the heaviest cells are split."""
    while len(centres) < k:
        n, _, cut = data.cells(centres)
        more = _refill(data.points, cut, n, centres, k - len(centres))
        if len(more) == len(centres):
            break
        centres = more
    return centres


def _iterate(data: Masses, centres: np.ndarray, steps: int) -> tuple[float, np.ndarray]:
    """Run Lloyd's step until nothing changes; return the explained sum of squares and the centres.

    A cell that lost all its samples gives its centre to the heaviest cell, which is split.
    """
    gain, before = -np.inf, None
    for _ in range(steps):
        n, s, cut = data.cells(centres)
        if before is not None and np.array_equal(cut, before):
            break
        full, before = n > 0, cut
        centres = s[full] / n[full]
        gain = float((centres * s[full]).sum())
        if not full.all():
            centres = _refill(data.points, cut, n, centres, int((~full).sum()))
    return gain, centres


def _spread(data: Masses, centres: np.ndarray, steps: int) -> np.ndarray:
    """Run over-relaxed Lloyd steps with each point's mass spread evenly between the edges around it."""
    span = data.points[-1] - data.points[0]
    width = np.diff(data.edges)
    for _ in range(steps):
        border = (centres[1:] + centres[:-1]) / 2
        i = np.clip(np.searchsorted(data.edges, border) - 1, 0, len(width) - 1)
        part = (border - data.edges[i]) / width[i] * data.weights[i]
        n = np.diff(np.concatenate([[0.0], data.total[i] + part, data.total[-1:]]))
        inside = data.moment[i] + part * (data.edges[i] + border) / 2
        s = np.diff(np.concatenate([[0.0], inside, data.moment[-1:]]))
        if (n <= 0).any():
            break
        new = centres + RELAXATION * (s / n - centres)
        if (np.diff(new) <= 0).any():
            new = s / n
        step, centres = np.abs(new - centres).max(), new
        if step <= 1e-6 * span / len(centres):
            break
    return centres


def _refill(
    points: np.ndarray,
    cut: np.ndarray,
    n: np.ndarray,
    centres: np.ndarray,
    missing: int,
) -> np.ndarray:
    """Add a centre in the middle of each of the heaviest cells that can be split."""
    splittable = np.where(np.diff(cut) > 1, n, -1.0)
    heavy = np.argsort(splittable)[::-1][:missing]
    heavy = heavy[splittable[heavy] > 0]
    middle = points[(cut[heavy] + cut[heavy + 1]) // 2]
    return np.unique(np.concatenate([centres, middle]))
