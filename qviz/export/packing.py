"""Packing: codes of b bits, one after the other, without a gap.

Code i occupies bits i b to i b + b - 1 of a stream, its lowest bit first; bit j of the stream is bit j % 8 of
byte j // 8, counted from the lowest. So eight codes are b bytes, and the bytes are those of the number
Σ code_i 2^(i b), the lowest byte first. What is left of the last byte is 0.

>>> pack(torch.tensor([1, 2, 3, 0, 1], dtype=torch.uint8), 2).tolist()  # 00 11 10 01, then 01
[57, 1]
>>> unpack(torch.tensor([57, 1], dtype=torch.uint8), 2, (5,)).tolist()
[1, 2, 3, 0, 1]
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from torch import Tensor

from qviz.core import _check

_BLOCK = 2**15
"""Eights of codes that are worked on at a time, so that they stay in the cache."""

_LANES = ((1, "<u2"), (2, "<u4"), (4, "<u8"))
"""Integers that hold a pair of lanes of n codes; once the gap between them is closed, it is the next lane."""


def size(count: int, bits: int) -> int:
    """Return how many bytes so many codes need."""
    return -(-count * bits // 8)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Return codes as a stream of bits, uint8, of shape (ceil(codes * bits / 8),), on the CPU.

    Args:
        codes: Uint8, of any shape; read in the order of ``codes.flatten()``.
        bits: 1 to 8.

    Raises:
        TypeError: Codes are not uint8, or bits are not an int.
        ValueError: Bits are out of range, or a code needs more.
    """
    bits = _check.bits(bits, 1, 8, "pack")
    numbers = _bytes(codes, "codes").cpu().flatten().numpy()
    data, rows = _rows(numbers.size, bits)
    block, spare = np.empty((2, 8 * _BLOCK), np.uint8)
    for start in range(0, len(rows), _BLOCK):
        x = numbers[8 * start : 8 * (start + _BLOCK)]
        if (top := int(x.max())) >> bits:
            raise ValueError(f"codes include {top}, which {bits} bits do not hold")
        x = x if x.size % 8 == 0 else np.pad(x, (0, -x.size % 8))
        for n, lane in _LANES:
            x, upper = x.view(lane), spare[: x.nbytes].view(lane)
            np.right_shift(x, 8 * n, out=upper)
            upper *= _gap(n, bits)
            x = np.subtract(x, upper, out=block[: x.nbytes].view(lane))
        rows[start : start + _BLOCK] = x  # in order: the zeros that a word ends with give way to the next
    return torch.from_numpy(data[: size(numbers.size, bits)])


def unpack(data: Tensor, bits: int, shape: Sequence[int]) -> Tensor:
    """Return the codes of a stream of bits, uint8.

    Args:
        data: What :func:`pack` returned.
        bits: 1 to 8.
        shape: Of the codes.

    Raises:
        TypeError: Data is not uint8, or bits are not an int.
        ValueError: Bits are out of range, data has another size than so many codes have, or is not 0 after
            the last code.
    """
    bits = _check.bits(bits, 1, 8, "unpack")
    flat, count = _bytes(data, "data").cpu().flatten(), math.prod(shape)
    if min(shape, default=0) < 0 or flat.numel() != size(count, bits):
        raise ValueError(
            f"{flat.numel()} bytes are not those of codes of shape {tuple(shape)} with {bits} bits each, "
            f"which are {size(count, bits)}"
        )
    data, rows = _rows(count, bits)
    data[: flat.numel()] = flat.numpy()
    codes, mask = np.empty(8 * len(rows), np.uint8), np.uint64((1 << 8 * bits) - 1)
    spare = np.empty(8 * _BLOCK, np.uint8)
    for start in range(0, len(rows), _BLOCK):
        x = codes[8 * start : 8 * (start + _BLOCK)]
        np.bitwise_and(rows[start : start + _BLOCK], mask, out=x.view("<u8"))
        for n, lane in reversed(_LANES):
            x, upper = x.view(lane), spare[: x.nbytes].view(lane)
            np.right_shift(x, n * bits, out=upper)
            upper *= _gap(n, bits)
            x += upper
    if codes[count:].any():
        raise ValueError("the stream is not 0 after its last code")
    return torch.from_numpy(codes[:count]).view(*shape)


def _rows(count: int, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the bytes of a stream, 0, and its eights of codes as 64-bit words that reach into the next."""
    rows = -(-count // 8)
    data = np.zeros(rows * bits + 8, np.uint8)
    return data, as_strided(data[:8].view("<u8"), (rows,), (bits,))


def _gap(n: int, bits: int) -> int:
    """Return 2^(8 n) - 2^(n bits): times the upper lane, what closing the gap takes away."""
    return (1 << 8 * n) - (1 << n * bits)


def _bytes(values: Tensor, name: str) -> Tensor:
    if not isinstance(values, Tensor) or values.dtype != torch.uint8:
        raise TypeError(
            f"{name} must be a uint8 tensor, got {getattr(values, 'dtype', type(values).__name__)}"
        )
    return values.detach()
