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
from torch import Tensor

from qviz.core import _check


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
    flat = _bytes(codes, "codes").cpu().flatten()
    if flat.numel() and (top := int(flat.max())) >> bits:
        raise ValueError(f"codes go up to {top}, which {bits} bits do not hold")
    words = _words(flat.numpy())
    for low, high, gap in _halves(bits):
        words = words & low | (words & high) >> gap
    packed = words.view(np.uint8).reshape(-1, 8)[:, :bits]
    return torch.from_numpy(packed.reshape(-1)[: size(flat.numel(), bits)].copy())


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
    rows = np.zeros((-(-count // 8), 8), np.uint8)
    whole = flat.numel() // bits
    rows[:whole, :bits] = flat[: whole * bits].numpy().reshape(whole, bits)
    rest = flat[whole * bits :].numpy()
    if len(rest):
        rows[whole, : len(rest)] = rest
    words = rows.view("<u8").reshape(-1)
    for low, high, gap in reversed(_halves(bits)):
        words = words & low | words << gap & high
    codes = words.view(np.uint8)
    if codes[count:].any():
        raise ValueError("the stream is not 0 after its last code")
    return torch.from_numpy(codes[:count]).view(*shape)


def _bytes(values: Tensor, name: str) -> Tensor:
    if not isinstance(values, Tensor) or values.dtype != torch.uint8:
        raise TypeError(
            f"{name} must be a uint8 tensor, got {getattr(values, 'dtype', type(values).__name__)}"
        )
    return values.detach()


def _words(codes: np.ndarray) -> np.ndarray:
    """Return eight codes a word, the first in the lowest byte."""
    padded = np.zeros(-(-len(codes) // 8) * 8, np.uint8)
    padded[: len(codes)] = codes
    return padded.view("<u8")


def _halves(bits: int) -> list[tuple[np.uint64, np.uint64, np.uint64]]:
    """Return, for lanes of 1, 2 and 4 codes: masks of even and odd lanes, and the gap between their codes."""
    found = []
    for n in (1, 2, 4):
        lane = ((1 << n * bits) - 1) * sum(1 << i for i in range(0, 64, 16 * n))
        found.append((np.uint64(lane), np.uint64(lane << 8 * n), np.uint64(n * (8 - bits))))
    return found
