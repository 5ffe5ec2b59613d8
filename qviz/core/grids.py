"""Grids: functions that build a Codebook."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from qviz.core import _check
from qviz.core.codebook import Codebook
from qviz.core.lloyd import lloyd_centers

Grid = Literal["strict", "paper"]


def uniform(bits: int, *, signed: bool = True, narrow: bool = False) -> Codebook:
    """Build consecutive integers: -2^(b-1) … 2^(b-1) - 1 signed, 0 … 2^b - 1 unsigned.

    Levels are integers, so the scale of the range is the step. Signed 1 bit is {-1, +1}.

    Args:
        bits: The bit width, 1 to 8.
        signed: Whether the grid has negative levels.
        narrow: Whether to drop the lowest level, so that a signed grid is symmetric (2^b - 1 levels).

    Raises:
        ValueError: bits out of range; narrow without sign or at 1 bit.

    Example:
        >>> uniform(2, narrow=True).levels.tolist(), uniform(2, signed=False).levels.tolist()
        ([-1.0, 0.0, 1.0], [0.0, 1.0, 2.0, 3.0])
    """
    bits = _check.bits(bits, 1, 8, "uniform")
    if narrow and (not signed or bits == 1):
        raise ValueError(
            f"narrow drops the lowest of a signed grid of 2 or more bits, got bits={bits}, signed={signed}"
        )
    if signed and bits == 1:
        return Codebook([-1.0, 1.0], name="uniform")
    low = -(2 ** (bits - 1)) if signed else 0
    return Codebook(torch.arange(low + narrow, low + 2**bits), name="uniform")


def pot(bits: int, *, signed: bool = True, grid: Grid = "strict") -> Codebook:
    """Build the powers of two {0, ±2^-j} in [-1, 1], or {0, 2^-j} in [0, 1] where unsigned.

    Args:
        bits: The bit width: 2 to 8 (to 7 for "paper"), or 1 to 7 unsigned.
        signed: Whether the grid has negative levels. The unsigned one has all 2^b levels, j = 0 … 2^b - 2.
        grid: "strict" keeps j = 0 … 2^(b-1) - 2, that is 2^b - 1 levels, what b bits can index;
            "paper" has one magnitude more, 2^b + 1 levels, which needs b + 1 bits to store.

    Raises:
        ValueError: bits out of range or an unknown grid; "paper" at 8 bits has 257 levels; "paper" unsigned,
            which no paper defines; unsigned at 8 bits, where 2^-254 is no number of float32.

    References:
        Level sets as in Zhou et al., "Precision Neural Network Quantization via Learnable Adaptive
        Modules" (ASQ), arXiv:2504.17263 (released code, post.py) for "paper", and as in Li et al.,
        "Additive Powers-of-Two Quantization", arXiv:1909.13144 (released code, additive=False; with one
        bit more for unsigned activations) for "strict". Taking "strict" as the default is this project's
        choice.

    Example:
        >>> pot(3).levels.tolist(), pot(2, signed=False).levels.tolist()
        ([-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0], [0.0, 0.25, 0.5, 1.0])
    """
    return _geometric(bits, signed, grid, 1.0, "POT")


def post(bits: int, *, signed: bool = True, grid: Grid = "strict") -> Codebook:
    """Build the powers of the square root of two {0, ±2^(-j/2)} in [-1, 1], or [0, 1] where unsigned.

    Every second magnitude is a power of two, so the grid is twice as fine as :func:`pot` in
    relative terms and reaches only the square root as near to zero.

    Args:
        bits: The bit width, as in :func:`pot`. At 2 strict bits the grid is ternary, the same as POT's.
        signed: Whether the grid has negative levels. The unsigned one, 2^b levels, is INFERRED: the paper
            quantizes weights with it, which have both signs.
        grid: As in :func:`pot`.

    Raises:
        ValueError: As in :func:`pot`.

    References:
        Zhou et al., "Precision Neural Network Quantization via Learnable Adaptive Modules" (ASQ),
        arXiv:2504.17263 (released code, post.py, with base = sqrt(2) as its text has it).

    Example:
        >>> [round(v, 5) for v in post(3).levels.tolist()]
        [-1.0, -0.70711, -0.5, 0.0, 0.5, 0.70711, 1.0]
    """
    return _geometric(bits, signed, grid, 0.5, "POST")


def _geometric(bits: int, signed: bool, grid: str, octaves: float, name: str) -> Codebook:
    """Build {0, ±2^(-j * octaves)}; whole octaves come out as exact powers of two."""
    bits = _check.bits(bits, 2, 8, name) if signed else _check.bits(bits, 1, 7, f"unsigned {name}")
    if grid not in ("strict", "paper"):
        raise ValueError(f'{name}: grid must be "strict" or "paper", got {grid!r}')
    if grid == "paper" and not signed:
        raise ValueError(f"{name}: the paper grid is signed; got signed={signed}")
    if grid == "paper" and bits == 8:
        raise ValueError(f"{name}: the paper grid at 8 bits has 257 levels, one more than a byte can index")
    count = 2 ** (bits - signed) - (grid == "strict")
    j = torch.arange(count, dtype=torch.float64)
    magnitudes = torch.pow(2.0, -j * octaves)
    return _with_zero(magnitudes, signed, name if grid == "strict" else f"{name} paper")


def apot(bits: int, *, signed: bool = True) -> Codebook:
    """Build the additive powers of two: sums of one power from each of several sets, largest = 1.

    Args:
        bits: The bit width: 2 to 8 signed, 1 to 8 unsigned. Signed there are 2^b - 1 levels, and 2 bits
            are ternary.
        signed: Whether the grid has negative levels. The unsigned one has the 2^b magnitudes that a signed
            grid of one bit more has, as the paper's activations.

    Raises:
        ValueError: bits out of range.

    References:
        Li, Dong and Wang, "Additive Powers-of-Two Quantization", ICLR 2020, arXiv:1909.13144
        (released code, build_power_value). The code stops at 6 bits of magnitude; 7 and 8 continue its
        rule (INFERRED).

    Example:
        >>> [round(v, 4) for v in apot(3, signed=False).levels.tolist()]
        [0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0]
    """
    bits = _check.bits(bits, 1 + bool(signed), 8, "APoT" if signed else "unsigned APoT")
    pairs, odd = divmod(bits - bool(signed), 2)
    terms: list[list[float]] = [[0.0] for _ in range(pairs + odd)]
    exponent = 0
    for turn in range(3 if pairs else 1):  # a two-bit term holds 0 and three powers
        if odd and turn == (2 if pairs else 0):  # the one-bit term takes its only power here
            exponent += 1
            terms[-1].append(2.0**-exponent)
        for term in terms[:pairs]:
            exponent += 1
            term.append(2.0**-exponent)
    sums = torch.zeros(1, dtype=torch.float64)
    for term in terms:
        sums = (sums[:, None] + torch.tensor(term, dtype=torch.float64)).flatten()
    magnitudes = sums.sort().values[1:]
    return _with_zero(magnitudes / magnitudes[-1], signed, "APoT")


def _with_zero(magnitudes: Tensor, signed: bool, name: str) -> Codebook:
    """Return the codebook of 0, the magnitudes and, where signed, their negatives."""
    m = magnitudes.sort().values
    negative = -m.flip(0) if signed else m[:0]
    return Codebook(torch.cat([negative, torch.zeros(1, dtype=m.dtype), m]), name=name)


def quantile(samples: Tensor | np.ndarray, bits: int) -> Codebook:
    """Build 2^b levels that an equal share of the samples uses: the (i + 1/2) / 2^b quantiles.

    Args:
        samples: The values, any shape, finite. Levels have their unit and signs.
        bits: The bit width, 1 to 8. Where samples repeat, quantiles coincide and fewer levels are left.

    Raises:
        TypeError, ValueError: samples are not floating point, empty, NaN or infinite; bits out of range.

    Example:
        >>> import torch
        >>> quantile(torch.arange(9.0), 1).levels.tolist()
        [2.0, 6.0]
    """
    bits = _check.bits(bits, 1, 8, "quantile")
    x = _check.finite(_check.float_tensor(samples, "samples"), "samples")
    share = (np.arange(2**bits) + 0.5) / 2**bits
    values = np.quantile(x.detach().cpu().double().numpy(), share)
    return Codebook(np.unique(values), name="quantile")


def lloyd(samples: Tensor | np.ndarray, bits: int) -> Codebook:
    """Build the 2^b levels with the least mean squared error (Lloyd-Max, one-dimensional k-means).

    Up to 8192 distinct values it is the optimum, found by dynamic programming; above that it is within 1 %
    of it at every bit width.

    Args:
        samples: The values, any shape, finite. Levels have their unit and signs.
        bits: The bit width, 1 to 8. Fewer levels are left when the samples hold fewer distinct values.

    Raises:
        TypeError, ValueError: samples are not floating point, empty, NaN or infinite; bits out of range.

    References:
        Lloyd, "Least squares quantization in PCM", IEEE Trans. Inf. Theory 28(2), 1982; the optimum as in
        Wang and Song, "Ckmeans.1d.dp: Optimal k-means Clustering in One Dimension by Dynamic Programming",
        The R Journal 3(2), 2011.

    Example:
        >>> import torch
        >>> lloyd(torch.tensor([0.0, 1.0, 1.0, 10.0, 12.0]), 1).levels.round(decimals=3).tolist()
        [0.667, 11.0]
    """
    bits = _check.bits(bits, 1, 8, "lloyd")
    x = _check.finite(_check.float_tensor(samples, "samples"), "samples")
    x = x.detach().cpu().to(_check.compute_dtype(x))
    return Codebook(lloyd_centers(x.numpy().ravel(), 2**bits), name="Lloyd")
