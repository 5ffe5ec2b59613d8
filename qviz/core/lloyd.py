"""One-dimensional k-means on a weighted, sorted summary of the samples."""

from __future__ import annotations

import numpy as np

BINS = 4096
SORT_BELOW = 1 << 15
"""Up to this many samples sorting is as cheap as a histogram, and exact."""


def lloyd_centres(x: np.ndarray, k: int, *, steps: int = 1000) -> np.ndarray:
    """Return at most ``k`` sorted centres of the samples, shape (k,), float64.

    Three starts (a companded, a quantile and a uniform grid) run briefly; the best goes on until the
    error stands still.
    """
    points, weights = _summary(x, k)
    if len(points) <= k:
        return points.copy()
    total = np.concatenate([[0.0], np.cumsum(weights)])
    moment = np.concatenate([[0.0], np.cumsum(weights * points)])
    starts = [_companded(points, weights, k, p) for p in (1 / 3, 1.0)]
    starts.append(np.linspace(points[0], points[-1], 2 * k + 1)[1::2])
    trials = [_iterate(points, total, moment, c, 30) for c in starts]
    centres = max(trials, key=lambda trial: trial[0])[1]
    return np.unique(_iterate(points, total, moment, centres, steps)[1])


def _summary(x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return sorted points and their weights: bin means of a histogram, or the distinct samples.

    A histogram whose mass sits in few bins (far outliers stretch it) is refused in favour of sorting.
    """
    low, high = float(x.min()), float(x.max())
    if len(x) > SORT_BELOW and high > low:
        index = ((x - np.float32(low)) * np.float32((BINS - 1) / (high - low))).astype(np.int32)
        count = np.bincount(index, minlength=BINS)
        used = count > 0
        if count[used].max() * 8 * k <= len(x):
            sums = np.bincount(index, weights=x, minlength=BINS)
            return sums[used] / count[used], count[used].astype(np.float64)
    points, count = np.unique(x, return_counts=True)
    return points.astype(np.float64), count.astype(np.float64)


def _companded(points: np.ndarray, weights: np.ndarray, k: int, power: float) -> np.ndarray:
    """Return k starting centres at equal shares of density**power (1/3 is Panter and Dite's rule)."""
    edges = np.concatenate([[points[0]], (points[1:] + points[:-1]) / 2, [points[-1]]])
    width = np.maximum(np.diff(edges), np.finfo(np.float64).tiny)
    share = np.cumsum((weights / width) ** power * width)
    at = np.interp((np.arange(k) + 0.5) / k * share[-1], share, points)
    return np.unique(at)


def _iterate(
    points: np.ndarray, total: np.ndarray, moment: np.ndarray, centres: np.ndarray, steps: int
) -> tuple[float, np.ndarray]:
    """Run Lloyd's step until the explained sum of squares stands still; return it and the centres.

    A cell that lost all its samples gives its centre to the heaviest cell, which is split.
    """
    before, square = -np.inf, float(points @ (np.diff(total) * points))
    for _ in range(steps):
        cut = np.searchsorted(points, (centres[1:] + centres[:-1]) / 2, side="right")
        cut = np.concatenate([[0], cut, [len(points)]])
        n, s = np.diff(total[cut]), np.diff(moment[cut])
        full = n > 0
        centres = s[full] / n[full]
        gain = float((centres * s[full]).sum())
        if not full.all():
            centres = _refill(points, cut, n, centres, int((~full).sum()))
        elif gain - before <= 1e-7 * (square - gain):
            break
        before = gain
    return gain, centres


def _refill(
    points: np.ndarray, cut: np.ndarray, n: np.ndarray, centres: np.ndarray, missing: int
) -> np.ndarray:
    """Add a centre in the middle of each of the heaviest cells that can be split."""
    splittable = np.where(np.diff(cut) > 1, n, -1.0)
    heavy = np.argsort(splittable)[::-1][:missing]
    heavy = heavy[splittable[heavy] > 0]
    middle = points[(cut[heavy] + cut[heavy + 1]) // 2]
    return np.unique(np.concatenate([centres, middle]))
