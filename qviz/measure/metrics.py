"""Metrics: how far Q(x) is from x, and how well the codes are used."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from qviz.core import _check
from qviz.core.quantizer import Quantizer


def _pair(x: Tensor | np.ndarray, y: Tensor | np.ndarray) -> tuple[Tensor, Tensor]:
    x, y = _check.float_tensor(x), _check.float_tensor(y, "y")
    if x.shape != y.shape:
        raise ValueError(f"x and y must have one shape, got {tuple(x.shape)} and {tuple(y.shape)}")
    return x.detach().double(), y.detach().double()


def mse(x: Tensor | np.ndarray, y: Tensor | np.ndarray) -> float:
    """Return the mean of (y - x)², in float64.

    Example:
        >>> mse([0.0, 1.0], [0.5, 1.0])
        0.125
    """
    x, y = _pair(x, y)
    return float((y - x).square_().mean())


def sqnr_db(x: Tensor | np.ndarray, y: Tensor | np.ndarray) -> float:
    """Return the signal-to-quantization-noise ratio 10 log10(Σx² / Σ(y - x)²), in dB.

    Infinite when there is no error; -inf when the signal is zero and the error is not.
    """
    x, y = _pair(x, y)
    return sqnr_from(float(x.square().sum()), float((y - x).square_().sum()))


def sqnr_from(energy: float, sse: float) -> float:
    """Return 10 log10(energy / sse) with the two limits of :func:`sqnr_db`."""
    if math.isnan(sse) or math.isnan(energy):
        return math.nan
    if sse == 0.0:
        return math.inf
    if math.isinf(sse):
        return math.nan if math.isinf(energy) else -math.inf
    return 10.0 * math.log10(energy / sse) if energy > 0.0 else -math.inf


def max_error(x: Tensor | np.ndarray, y: Tensor | np.ndarray) -> float:
    """Return the largest |y - x|."""
    x, y = _pair(x, y)
    return float((y - x).abs().max())


def occupancy(q: Quantizer, x: Tensor | np.ndarray) -> Tensor:
    """Return how many values each level gets: int64, shape (K,).

    Raises:
        ValueError: x holds NaN.
    """
    return torch.bincount(q.codes(_check.float_tensor(x)).flatten(), minlength=len(q.codebook))


def entropy_bits(counts: Tensor | np.ndarray) -> float:
    """Return the entropy -Σ p log2 p of the codes: what an ideal coder would need for each.

    Args:
        counts: non-negative, shape (K,), as from :func:`occupancy`.

    Raises:
        ValueError: a count is negative, or all are zero.

    Example:
        >>> entropy_bits(np.array([4, 4, 8, 0]))
        1.5
    """
    c = torch.as_tensor(counts).double()
    if c.numel() == 0 or bool((c < 0).any()) or not float(c.sum()) > 0:
        raise ValueError(f"counts must be non-negative with a positive sum, got {c.tolist()}")
    p = c[c > 0] / c.sum()
    return max(0.0, float(-(p * p.log2()).sum()))


def perplexity(counts: Tensor | np.ndarray) -> float:
    """Return 2 to the entropy of the codes: that many levels in equal use would have the same entropy.

    Args:
        counts: As for :func:`entropy_bits`.

    Example:
        >>> perplexity(np.array([4, 4, 4, 4, 0])), round(perplexity(np.array([97, 1, 1, 1])), 2)
        (4.0, 1.18)
    """
    return 2.0 ** entropy_bits(counts)


def dead_levels(counts: Tensor | np.ndarray) -> int:
    """Return the number of levels that no value uses.

    Example:
        >>> dead_levels(np.array([4, 4, 8, 0]))
        1
    """
    return int((torch.as_tensor(counts) == 0).sum())
