"""Formats: the small floating-point formats that hardware and checkpoints use, as codebooks.

A format's codes are all its finite values, sorted; +0 and -0 are one level. A value beyond the largest level
saturates, as the formats' own conversions for neural networks do. Rounding follows the quantizer: to the
nearest level, ties down (the standards' conversions send ties to the even code).
"""

from __future__ import annotations

import torch
from torch import Tensor

from qviz.core.codebook import Codebook


def nf4() -> Codebook:
    """Build NormalFloat 4: 16 levels in [-1, 1] for normally distributed weights, 0 among them.

    The scale is the largest magnitude of a block of 64 weights (``Grouped(64)`` of :mod:`qviz.core.groups`).

    References:
        Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs", arXiv:2305.14314, appendix E,
        which lists the levels.

    Example:
        >>> book = nf4()
        >>> len(book), round(float(book.levels[8]), 4), float(book.levels[7])
        (16, 0.0796, 0.0)
    """
    negative = [
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
    ]
    positive = [
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ]
    return Codebook([*negative, 0.0, *positive], name="NF4")


def fp4() -> Codebook:
    """Build FP4 (E2M1): {0, ±0.5, ±1, ±1.5, ±2, ±3, ±4, ±6}, without infinity or NaN.

    References:
        Open Compute Project, "OCP Microscaling Formats (MX) Specification", version 1.0, section 5.3.3.

    Example:
        >>> fp4().levels[8:].tolist()
        [0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    """
    return Codebook(_minifloats(exponent_bits=2, mantissa_bits=1), name="FP4 E2M1")


def fp8_e4m3() -> Codebook:
    """Build FP8 (E4M3): 253 levels up to ±448; no infinity, and the one code of NaN is left out.

    References:
        Open Compute Project, "OCP 8-bit Floating Point Specification (OFP8)", revision 1.0, section 5;
        Micikevicius et al., "FP8 Formats for Deep Learning", arXiv:2209.05433. As ``torch.float8_e4m3fn``.

    Example:
        >>> len(fp8_e4m3()), fp8_e4m3().hi
        (253, 448.0)
    """
    magnitudes = _minifloats(exponent_bits=4, mantissa_bits=3)
    return Codebook(magnitudes[1:-1], name="FP8 E4M3")  # the outermost code of each sign is NaN


def fp8_e5m2() -> Codebook:
    """Build FP8 (E5M2): 247 levels up to ±57344; the topmost exponent, infinity and NaN, is left out.

    References:
        As for :func:`fp8_e4m3`. As ``torch.float8_e5m2``.

    Example:
        >>> len(fp8_e5m2()), fp8_e5m2().hi
        (247, 57344.0)
    """
    magnitudes = _minifloats(exponent_bits=5, mantissa_bits=2)
    return Codebook(magnitudes[4:-4], name="FP8 E5M2")


def _minifloats(*, exponent_bits: int, mantissa_bits: int) -> Tensor:
    """Return every value of a sign, an exponent and a mantissa, sorted, float64; the exponent 0 is subnormal.

    value = ±2^(max(e, 1) - bias) (m / 2^M + [e > 0]) with bias = 2^(E-1) - 1.
    """
    e = torch.arange(2.0**exponent_bits, dtype=torch.float64)[:, None]
    m = torch.arange(2.0**mantissa_bits, dtype=torch.float64) / 2.0**mantissa_bits
    bias = 2 ** (exponent_bits - 1) - 1
    magnitudes = (torch.exp2(e.clamp(min=1) - bias) * (m + (e > 0))).flatten()
    return torch.cat([-magnitudes[1:].flip(0), magnitudes])


def to_e8m0(scale: Tensor) -> Tensor:
    """Return the power of two at or below each positive scale: MX's scale format, 2^-127 … 2^127.

    References:
        OCP Microscaling Formats (MX) Specification, version 1.0, sections 5.4 and 6.3.

    Example:
        >>> to_e8m0(torch.tensor([0.3, 1.0, 7.9])).tolist()
        [0.25, 1.0, 4.0]
    """
    exponent = torch.frexp(scale.double()).exponent - 1  # exact, where log2 may round up
    return torch.exp2(exponent.double().clamp(-127, 127))


def to_e4m3(value: Tensor) -> Tensor:
    """Return each non-negative value rounded to FP8 (E4M3): to the nearest, ties to even, at most 448.

    Example:
        >>> to_e4m3(torch.tensor([0.3, 17.0, 1000.0])).tolist()
        [0.3125, 16.0, 448.0]
    """
    value = value.double()
    step = torch.exp2((torch.frexp(value).exponent - 4).double().clamp(min=-9))
    return (torch.round(value / step) * step).clamp(max=448.0)
