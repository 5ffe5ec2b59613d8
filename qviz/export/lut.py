"""LUT: POST weights without multiplications, by a table of products or by two accumulators of shifts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qviz.core import _check
from qviz.core.grids import Grid, post

Ints = int | np.ndarray
"""A Python int, or an object array of them: exact at any size."""


@dataclass(frozen=True, eq=False)
class PostLUT:
    """What integer hardware needs to know about POST weights; M magnitudes (0 among them), K levels.

    A level index (what ``Quantizer.codes`` returns) splits into a sign and a magnitude code m; magnitude m >
    0 is 2^(-j / 2) with the exponent j. An even j = 2 s is a shift by s; an odd j = 2 s + 1 is that shift and
    one factor 1 / sqrt(2), which all odd terms of a sum share.

    Attributes:
        bits_w, bits_a: of weights and (unsigned) activations.
        sign: -1, 0 or 1 of each level, int8, (K,).
        magnitude: magnitude code of each level, 0 … M - 1, uint8, (K,); 0 for the level 0.
        value: what each magnitude code stands for at clip α = 1, float64, (M,).
        exponent: j of each magnitude code, int16, (M,); -1 for the value 0.
        products: value × activation code, float64, (M, 2^bits_a).
    """

    bits_w: int
    bits_a: int
    sign: Tensor
    magnitude: Tensor
    value: Tensor
    exponent: Tensor
    products: Tensor

    @property
    def entries(self) -> int:
        """Number of products in the table."""
        return self.products.numel()

    @property
    def shift(self) -> int:
        """The largest shift S; sums are kept in units of 2^-S."""
        return int(self.exponent.max()) // 2


def post_lut(bits_w: int, bits_a: int | None = None, *, grid: Grid = "strict") -> PostLUT:
    """Return the tables of POST weights at ``bits_w`` bits against unsigned ``bits_a``-bit activations.

    One table serves every layer, as clip α and step s factor out; the sign is one XOR (or subtraction) away.
    On the strict grid it has 2^(bits_w - 1) × 2^bits_a entries.

    Args:
        bits_w: 2 to 8 (to 7 for "paper").
        bits_a: 1 to 8; default bits_w.
        grid: as in :func:`qviz.post`; "paper" has one magnitude more.

    Raises:
        ValueError: bits out of range or an unknown grid.

    References:
        Zhou et al., "Precision Neural Network Quantization via Learnable Adaptive Modules" (ASQ),
        arXiv:2504.17263: a look-up table of less than 0.002 % of the parameters (released code's README).
        INFERRED: that it holds products, and its layout; the bound agrees (128 entries at 4 bits are 0.0011 %
            of ResNet-18).

    Example:
        >>> lut = post_lut(4)
        >>> lut.entries, lut.magnitude[[0, 7, 14]].tolist(), lut.exponent.tolist()
        (128, [7, 0, 7], [-1, 6, 5, 4, 3, 2, 1, 0])
        >>> [round(v, 4) for v in lut.products[:4, 3].tolist()]
        [0.0, 0.375, 0.5303, 0.75]
    """
    bits_a = _check.bits(bits_w if bits_a is None else bits_a, 1, 8, "activations")
    levels = post(bits_w, grid=grid).levels
    top = len(levels) // 2
    index = torch.arange(-top, top + 1)
    value = levels[top:].clone()
    exponent = torch.arange(top, -1, -1)
    exponent[0] = -1
    return PostLUT(
        bits_w=bits_w,
        bits_a=bits_a,
        sign=index.sign().to(torch.int8),
        magnitude=index.abs().to(torch.uint8),
        value=value,
        exponent=exponent.to(torch.int16),
        products=value[:, None] * torch.arange(2**bits_a, dtype=torch.float64),
    )


def table_dot(lut: PostLUT, codes: Tensor, activations: Tensor) -> Tensor:
    """Return Σ_j w_j a_j at α = s = 1 by looking every product up and adding, float64.

    Args:
        lut: from :func:`post_lut`.
        codes: level indices of the weights, (J,) or (O, J), integers.
        activations: activation codes, (J,) or (N, J), integers.

    Returns:
        (), (O,), (N,) or (N, O), as ``activations @ weights.mT``. Memory is that of N O J products.

    Raises:
        TypeError, ValueError: not integers, shapes that do not fit, or a code outside the table.

    References:
        INFERRED; see :func:`post_lut`.

    Example:
        >>> table_dot(post_lut(4), torch.tensor([14, 1, 7]), torch.tensor([3, 2, 9])).round(decimals=6).item()
        1.585786
    """
    codes, activations = _operands(lut, codes, activations)
    sign, row = lut.sign[codes].double(), lut.magnitude[codes].long()
    if codes.ndim == 2 and activations.ndim == 2:
        activations = activations[:, None]
    return (sign * lut.products[row, activations]).sum(-1)


@dataclass(frozen=True, eq=False)
class Accumulators:
    """Two sums of shifted integers: Σ_j w_j a_j = 2^-shift (even + odd / sqrt 2), exactly.

    Attributes:
        even, odd: Python ints, or object arrays of them; what even and odd exponents j added up to.
        shift: S.
    """

    even: Ints
    odd: Ints
    shift: int

    def value(self, alpha: float | np.ndarray = 1.0, step: float = 1.0) -> float | np.ndarray:
        """Return α s 2^-S (even + odd / sqrt 2): the only multiplications, a few for each output.

        Args:
            alpha: the weights' clip, a number or one for each output channel (last axis).
            step: of the activations.
        """
        even, odd = (float(v) if isinstance(v, int) else v.astype(np.float64) for v in (self.even, self.odd))
        return alpha * step * 2.0**-self.shift * (even + odd * 0.5**0.5)


def split_accumulate(lut: PostLUT, codes: Tensor, activations: Tensor) -> Accumulators:
    """Return the two integer accumulators of Σ_j w_j a_j, made by shifts and additions alone.

    In units of 2^-S a weight ±2^-s adds ±(a << (S - s)) to the even sum, ±2^-s / sqrt 2 adds the same to the
    odd sum. Terms with equal shift are added first (int64), so each sum costs S + 1 shifts (Horner's rule, in
    Python integers: 8 bits need S = 63).

    Args:
        lut: from :func:`post_lut`.
        codes: level indices of the weights, as ``q.codes(w)`` of a POST quantizer has them, (J,) or (O, J).
        activations: unsigned activation codes, (J,) or (N, J), integers.

    Returns:
        Sums of shape (), (O,), (N,) or (N, O), as ``activations @ weights.mT``.

    Raises:
        TypeError, ValueError: not integers, shapes that do not fit, or a code outside the table.

    References:
        The identity is exact arithmetic [checked here]; that ASQ computes this way (arXiv:2504.17263) is
        INFERRED.

    Example:
        >>> sums = split_accumulate(post_lut(4), torch.tensor([14, 1, 7]), torch.tensor([3, 2, 9]))
        >>> sums.even, sums.odd, sums.shift, round(sums.value(), 6)  # 3 - 2 / sqrt 2, in eighths
        (24, -16, 3, 1.585786)
    """
    codes, activations = _operands(lut, codes, activations)
    sign, exponent = lut.sign[codes].long(), lut.exponent[lut.magnitude[codes].long()].long()
    sums: list[Any] = []
    for odd in (0, 1):
        total: Any = 0
        for s in range(lut.shift + 1):
            picked = sign * (exponent == 2 * s + odd)
            part = activations @ (picked.mT if picked.ndim == 2 else picked)
            total = (total << 1) + (part.numpy().astype(object) if part.ndim else int(part))
        sums.append(total)
    return Accumulators(sums[0], sums[1], lut.shift)


def _operands(lut: PostLUT, codes: Tensor, activations: Tensor) -> tuple[Tensor, Tensor]:
    """Return both as int64 on the host, after the checks."""
    checked = []
    for name, v, size in (("codes", codes, len(lut.sign)), ("activations", activations, 2**lut.bits_a)):
        if not isinstance(v, Tensor) or v.is_floating_point() or v.is_complex() or v.dtype == torch.bool:
            raise TypeError(f"{name} must be an integer tensor, got {getattr(v, 'dtype', type(v).__name__)}")
        if v.numel() and not 0 <= int(v.min()) <= int(v.max()) < size:
            raise ValueError(f"{name} must be 0 … {size - 1}, got {int(v.min())} to {int(v.max())}")
        checked.append(v.detach().cpu().long())
    codes, activations = checked
    if codes.ndim not in (1, 2) or activations.ndim not in (1, 2) or codes.shape[-1] != activations.shape[-1]:
        shapes = f"{tuple(codes.shape)} and {tuple(activations.shape)}"
        raise ValueError(f"codes (J,) or (O, J) need activations (J,) or (N, J), got {shapes}")
    return codes, activations
