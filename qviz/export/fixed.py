"""Fixed point: real factors, biases and borders as integers; numpy alone, float64 in and int64 out.

A map between layers is held in integers v that stand for v × 2^-f, one f for the whole network. The
accumulators A_p of an output, int32, are brought to that unit by a *multiplier* each, of at most 31 bits, and
one *shift*:

    v = (sum over p of A_p × multiplier_p + 2^(shift - 1)) >> shift    (int64; to nearest, halves upward)
"""

from __future__ import annotations

from typing import Any

import numpy as np

LARGEST_SHIFT = 62
FARTHEST = 2**62
"""The largest magnitude of a border; no map reaches it."""


def multiplier(factor: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return integers with factor = multiplier × 2^-shift, to within 2^-31 of an output's largest factor.

    Args:
        factor: What one count of each accumulator is worth, below 2^31 in magnitude, shape (P, ...).
        bounds: The largest magnitude of each accumulator, of a shape that broadcasts against it.

    Returns:
        Multipliers of magnitude up to 2^31, (P, ...), and shifts from 0 to 62, one for all P, (...), int64.
        Where the largest factor is below 2^-31, or the sum might not fit into int64, multipliers have fewer
        bits.

    Example:
        >>> [v.tolist() for v in multiplier(np.array([0.75, 0.5]), np.array([100, 100]))]
        [[1610612736, 1073741824], 31]
    """
    size = np.abs(np.asarray(factor, np.float64))
    largest, total = (np.frexp(v)[1] for v in (size.max(0), (size * bounds).sum(0)))
    shift = np.minimum(np.minimum(31 - largest, 61 - total), LARGEST_SHIFT)
    return np.rint(np.ldexp(factor, shift)).astype(np.int64), shift.astype(np.int64)


def half(shift: np.ndarray) -> np.ndarray:
    """Return what is added before a shift, so that it rounds: 2^(shift - 1), or 0 for no shift."""
    return (np.int64(1) << shift) >> 1


def fixed(x: np.ndarray, f: int) -> np.ndarray:
    """Return x in units of 2^-f, rounded to nearest (halves to even), int64."""
    return np.rint(np.ldexp(np.asarray(x, np.float64), f)).astype(np.int64)


def thresholds(borders: np.ndarray, f: int) -> np.ndarray:
    """Return borders in units of 2^-f, rounded down: x > border exactly where v > threshold, for x = v 2^-f.

    Args:
        borders: Float32 or float64, of any shape; infinite ones become ±2^62.
        f: The unit's exponent.

    Example:
        >>> thresholds(np.array([0.3, -0.3, np.inf]), 2).tolist()
        [1, -2, 4611686018427387904]
    """
    scaled = np.floor(np.ldexp(np.asarray(borders, np.float64), f))
    return np.clip(scaled, -FARTHEST, FARTHEST).astype(np.int64)


def below(v: np.ndarray, borders: np.ndarray) -> np.ndarray:
    """Return how many borders are below each value, uint8: the code.

    Args:
        v: (N, C, …).
        borders: Of the dtype of v, nondecreasing: (K - 1,), or (K - 1, C) for each channel, or (K - 1, N, 1)
            for each sample.
    """
    if borders.ndim == 1 and len(borders) > 64:
        return np.searchsorted(borders, v).astype(np.uint8)
    total, above = np.zeros(v.shape, np.uint8), np.empty(v.shape, bool)
    for border in borders:
        total += np.greater(v, channels(border, v.ndim), out=above)
    return total


def channels(v: np.ndarray, ndim: int) -> np.ndarray:
    """Return a number, or numbers (C,) or (N, C), in a shape that broadcasts against maps."""
    return v.reshape(*(v.shape if v.ndim == 2 else (1, -1)), *(1,) * (ndim - 2))


def mean(v: np.ndarray) -> np.ndarray:
    """Return floor((2 sum + n) / 2n) over rows and columns, int64, (N, C, 1, 1), n values each.

    The whole numbers v // n are summed apart from what these leave, so that no sum is larger than a value of
    the map, plus n^2.
    """
    n = v.shape[2] * v.shape[3]
    parts, left = np.divmod(v, n)
    parts, left = (part.sum((2, 3), keepdims=True) for part in (parts, left))
    return parts + (2 * left + n) // (2 * n)


def adaptive_steps(adapter: Any, z: np.ndarray) -> np.ndarray:
    """Return the step of each sample, float64, shape (N, 1).

    Args:
        adapter: ASQ's network.
        z: What it reads, see :func:`channel_means`; sample by sample, so that a batch changes no bit.
    """
    for i, (weight, bias) in enumerate(adapter.layers):
        w = np.asarray(weight, np.float64)
        rows = [w @ row for row in (np.maximum(z, 0) if i else z)]
        z = np.reshape(rows, (len(z), len(w))) + np.asarray(bias, np.float64)
    b = np.maximum(z, 0) if adapter.mode == "paper" else np.logaddexp(0, z)
    return float(adapter.step) * np.maximum(b, 1e-8)


def channel_means(v: np.ndarray, f: int) -> np.ndarray:
    """Return the mean of each channel of a map, (N, C), float64; of a fixed map as :func:`mean` has it."""
    if v.dtype == np.int64:
        return np.ldexp((mean(v)[:, :, 0, 0] if v.ndim == 4 else v).astype(np.float64), -f)
    return np.ascontiguousarray(v, np.float64).reshape(*v.shape[:2], -1).mean(2)
