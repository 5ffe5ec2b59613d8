"""Codes: a layer that reads codes and gives integers: thresholds, accumulators, requantization."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from qviz.core.codebook import take
from qviz.export.exported import Step
from qviz.export.fixed import below, half, multiplier, thresholds
from qviz.export.plan import Product, sample_steps
from qviz.export.program import product
from qviz.export.tables import Adapter, InputTable

EXACT = {torch.float32: 2**24, torch.float64: 2**53}
"""Integers up to here, and so sums of them in any order that stay below, are exact in these types."""


class CodesLayer:
    """A convolution or linear layer of codes, from a map to a fixed map.

    The sums run through torch's float kernels (oneDNN's direct convolution, BLAS), in the first type of
    ``EXACT`` that the accumulators' bounds fit into. These add products of two integers, in whatever order;
    neither transforms the operands first, as a Winograd convolution would.

    Args:
        step: What it computes.
        read: How it reads its input.
        made: Its integers.
        f: Fixed maps are in units of 2^-f.

    Attributes:
        codes: What it read last, uint8, the shape of its input.
    """

    def __init__(self, step: Step, read: InputTable, made: Product, f: int) -> None:
        self.step, self.read, self.made, self.f = step, read, made, f
        self.codes = torch.empty(0, dtype=torch.uint8)
        split = made.planes
        bound = int(split.bounds.sum(0).max() if split.kind == "products" else split.bounds.max())
        highest = torch.get_float32_matmul_precision() == "highest"
        self.dtype = torch.float32 if highest and bound <= EXACT[torch.float32] else torch.float64
        self._inputs = split.planes[0].shape[1]
        self._planes = [torch.from_numpy(self._once(plane)).to(self.dtype) for plane in split.planes]
        self._tables = [torch.from_numpy(row).to(self.dtype) for row in split.tables]
        self._offset = torch.from_numpy(made.offset)
        if made.thresholds is not None:
            self._factors = [torch.from_numpy(v) for v in (made.multiplier, made.shift, half(made.shift))]

    def _once(self, plane: np.ndarray) -> np.ndarray:
        """Return an offset's plane, which is 1 everywhere, for one output and one input: the inputs' sum."""
        alone = self.step.args.get("groups", 1) == 1 and (plane == 1).all()
        return plane[:1, :1] if alone else plane

    def __call__(self, x: Tensor) -> Tensor:
        """Return the output for a map, int64, in units of 2^-f."""
        if self.read.adapter is not None:
            return self._adaptive(x, self.read.adapter)
        self.codes = self.read.codes(x) if x.is_floating_point() else _below(x, self.made.thresholds)
        times, shift, added = (self._spread(v[:, None], x.ndim) for v in self._factors)
        return self._requantized(self.accumulators(self.codes), times, shift, added)

    def accumulators(self, codes: Tensor) -> Iterator[Tensor]:
        """Yield the sum of each plane for codes, int64 (each fits into int32); one sum for "products".

        An offset's sum is the same for every output, and has one channel.
        """
        if self.made.planes.kind == "products":
            rows = zip(self._tables, self._planes, strict=True)
            yield sum(product(self.step, take(row, codes), plane, None) for row, plane in rows).long()
            return
        x = take(self._tables[0], codes)
        for plane in self._planes:
            read = x if plane.shape[1] == self._inputs else x.sum(1, keepdim=True)
            yield product(self.step, read, plane, None).long()

    def _requantized(self, sums: Iterator[Tensor], times: Tensor, shift: Tensor, added: Tensor) -> Tensor:
        total = None
        for accumulator, m, s, a in zip(sums, times, shift, added, strict=True):
            scaled = accumulator.mul_(m) if accumulator.shape[1] == len(self._offset) else accumulator * m
            scaled = scaled.add_(a).bitwise_right_shift_(s)
            total = scaled if total is None else total.add_(scaled)
        return total.add_(self._spread(self._offset[None], total.ndim))

    def _spread(self, v: Tensor, ndim: int) -> Tensor:
        """Return numbers for each channel, (..., C), in a shape that broadcasts against maps."""
        return v.reshape(*v.shape, *(1,) * (ndim - 2))

    def _adaptive(self, x: Tensor, adapter: Adapter) -> Tensor:
        """Return the output where each sample has its own step: thresholds and multipliers from it."""
        steps = sample_steps(self.step.name, adapter, x.numpy(), self.f)
        borders = np.asarray(self.read.borders, np.float64)[:, None, None] * steps
        if x.is_floating_point():
            self.codes = _below(x.double(), borders)
        else:
            self.codes = _below(x, thresholds(borders, self.f))
        times, shift = multiplier(np.ldexp(self.made.factor[:, None] * steps, self.f))
        factors = (self._spread(torch.from_numpy(v), x.ndim) for v in (times, shift, half(shift)))
        return self._requantized(self.accumulators(self.codes), *factors)


def _below(x: Tensor, borders: np.ndarray) -> Tensor:
    return torch.from_numpy(below(x.numpy(), borders))
