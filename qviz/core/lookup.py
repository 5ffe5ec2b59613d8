"""Lookup: reading ``values[#{borders < u}]`` for many u, exactly, without comparing with every border."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

SHIFTS = (20, 17)
"""Bits of a float32 that are cut off to get its bucket: 4096 buckets, or 32768 for dense borders."""

FEW = 4
"""Up to so many borders, adding up comparisons is faster."""


@dataclass(frozen=True)
class Lookup:
    """A table over the leading bits of a float32: sign, exponent and the first bits of the mantissa.

    A bucket holds at most one border, so one comparison decides between its two codes: one read and one
    comparison for each u, whatever the number of borders, and then one read for each table of values. The
    result is exact.

    Attributes:
        shift: bits that do not count.
        border: in each bucket, infinity where there is none; float32, shape (2^(32 - shift),).
        code: #{borders < u} in each bucket below and above its border, alternating, int32, shape
            (2^(33 - shift),).
    """

    shift: int
    border: Tensor
    code: Tensor

    def place(self, u: Tensor) -> Tensor:
        """Return where each u stands in the table, int32.

        Args:
            u: float32, a contiguous vector.
        """
        key = u.view(torch.int32) >> self.shift
        key += 1 << (31 - self.shift)
        above = self.border.index_select(0, key)
        above = torch.gt(u, above, out=above).view(torch.int32)
        above >>= 29  # the bits of 1.0 become 1
        return above.add_(key, alpha=2)

    def of(self, values: Tensor) -> Tensor:
        """Return ``values[code]``, the value at each place; floats are NaN at the places of NaN.

        A NaN has such a place if it is quiet, and so is every NaN that arithmetic returns.
        """
        read = values.detach().index_select(0, self.code)
        if read.is_floating_point():  # the first bucket of the last exponent holds infinity, the others NaN
            half, first = len(read) // 2, 2 * ((0xFF << (23 - self.shift)) + 1)
            read[half + first :] = torch.nan
            read[first:half] = torch.nan
        return read


def select(u: Tensor, borders: Tensor, values: Tensor) -> Tensor:
    """Return ``values[#{borders < u}]``; floats are NaN where u is NaN.

    A tree of ``where`` when compiled, which fuses; else a :class:`Lookup` (without it POST takes 1.3 x as
    long at 1e6 values), or comparisons where that is not worth it.

    Args:
        u: Any shape.
        borders: (K - 1,), sorted.
        values: (K,).
    """
    if torch.compiler.is_compiling():
        read = _tree(u, borders, values, 0, values.numel() - 1)
    else:
        made = table(borders, u.numel())
        if made is not None:
            return take(made.of(values), laid_out(made.place, u))
        read = take(values, count_below(u, borders))
    if not read.is_floating_point():
        return read
    nothing = u.clamp(-1.0, 1.0)  # cheap passes, where a mask costs a slow one
    return read.add_(nothing.sub_(nothing))


def _tree(u: Tensor, borders: Tensor, values: Tensor, low: int, high: int) -> Tensor:
    if low == high:  # a book of one cell has no border that could give u's shape
        return values[low] if len(borders) else values[low].expand_as(u).clone()
    middle = (low + high) // 2
    right = _tree(u, borders, values, middle + 1, high)
    return torch.where(u > borders[middle], right, _tree(u, borders, values, low, middle))


def table(borders: Tensor, size: int) -> Lookup | None:
    """Return the table for ``size`` values of u, or None where comparisons or a search serve better.

    Args:
        borders: sorted, shape (K - 1,).
        size: how many u will be looked up.
    """
    if borders.dtype != torch.float32 or borders.device.type != "cpu" or borders.numel() <= FEW:
        return None
    for shift in SHIFTS:
        if size < 1 << (36 - shift):  # building would cost more than it saves
            return None
        made = _build(borders, shift)
        if made is not None:
            return made
    return None


def _build(borders: Tensor, shift: int) -> Lookup | None:
    """Return the table, or None where two borders share a bucket."""
    buckets = 1 << (32 - shift)
    half = buckets // 2
    borders = borders.detach() + 0.0  # -0 would stand in another bucket than 0
    key = (borders.view(torch.int32) >> shift).long() + half
    rank = torch.where(key >= half, key, half - 1 - key)  # negative floats count downwards
    if bool((rank[1:] == rank[:-1]).any()):
        return None
    has = torch.zeros(buckets, dtype=torch.int32).index_fill_(0, rank, 1)
    below = has.cumsum(0, dtype=torch.int32).sub_(has)
    code = torch.stack([below, below + has], 1)
    code = torch.cat([code[:half].flip(0), code[half:]]).view(-1)
    border = torch.full((buckets,), torch.inf).index_copy_(0, key, borders)
    return Lookup(shift, border, code)


def count_below(u: Tensor, borders: Tensor) -> Tensor:
    """Count the borders strictly below each value: ``#{borders < u}``, the one definition of a code.

    Never builds an N x K array. Up to 64 borders it adds up comparisons, written as floats into
    one reused buffer (several times faster than a search); above that it searches.

    Args:
        u: any shape, without gradient. NaN counts as 0 or K - 1; callers put NaN back.
        borders: sorted, shape (K - 1,), the dtype of ``u``.

    Returns:
        Whole numbers 0 … K - 1 with the shape of ``u``: its float dtype up to 64 borders, else int32.
    """
    if borders.numel() > 64:
        return laid_out(lambda flat: torch.bucketize(flat, borders, out_int32=True), u)
    if torch.compiler.is_compiling():  # fuses by itself, and has no out= for channels_last
        return sum(((u > border).to(u.dtype) for border in borders.unbind()), torch.zeros_like(u))
    total, above = torch.zeros_like(u), torch.empty_like(u)
    for border in borders.unbind():
        total += torch.gt(u, border, out=above)
    return total


def take(levels: Tensor, code: Tensor) -> Tensor:
    """Read ``levels[code]`` with the shape of ``code``; ``code`` may hold whole floats."""
    # int32 index_select is three times faster than advanced indexing
    return laid_out(lambda flat: levels.index_select(0, flat.int()), code)


def laid_out(fn: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply an elementwise function of vectors to x in its memory order (channels_last stays that)."""
    if x.is_contiguous():
        return fn(x.view(-1)).view(x.shape)
    if not torch.compiler.is_compiling() and x.untyped_storage().nbytes() == x.numel() * x.element_size():
        return fn(x.as_strided((x.numel(),), (1,))).as_strided(x.shape, x.stride())
    values = fn(x.contiguous().view(-1)).view(x.shape)
    return torch.empty_like(x, dtype=values.dtype).copy_(values)
