"""Codes: a layer that reads codes and gives integers: thresholds, accumulators, requantization."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from qviz.core.lookup import take
from qviz.export.arithmetic import EXACT
from qviz.export.exported import Step
from qviz.export.fixed import below, multiplier, thresholds
from qviz.export.plan import Product, sample_steps
from qviz.export.program import product
from qviz.export.tables import Adapter, InputTable


class CodesLayer:
    """A convolution or linear layer of codes, from a map to a fixed map.

    The sums run through torch's float kernels (oneDNN's direct convolution, BLAS), in float32 where the
    accumulators' bounds are exact in it, else in float64. These add products of two integers, in whatever
    order; neither transforms the operands first, as a Winograd convolution would.

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
        self.dtype = torch.float32 if highest and bound <= EXACT else torch.float64
        self._inputs = split.planes[0].shape[1]
        self._tables = [torch.from_numpy(row).to(self.dtype) for row in split.tables]
        self._offset = torch.from_numpy(made.offset)
        if made.multiplier is not None:
            self._times, self._shift = torch.from_numpy(made.multiplier), torch.from_numpy(made.shift)
        self._parts = [torch.from_numpy(self._once(part)).to(self.dtype) for part in made.parts]

    def _once(self, plane: np.ndarray) -> np.ndarray:
        """Return an offset's plane, which is 1 everywhere, for one output and one input: the inputs' sum."""
        alone = self.step.args.get("groups", 1) == 1 and (plane == 1).all()
        return plane[:1, :1] if alone else plane

    def __call__(self, x: Tensor) -> Tensor:
        """Return the output for a map, int64, in units of 2^-f."""
        if self.read.adapter is not None:
            return self._adaptive(x, self.read.adapter)
        self.codes = self.read.codes(x) if x.is_floating_point() else _below(x, self.made.thresholds)
        return self._requantized(self._times, self._shift)

    def _sums(self) -> Iterator[Tensor]:
        """Yield the sum of each part of the weight for the codes, int64; one sum for "products".

        An offset's sum is the same for every output, and has one channel.
        """
        if self.made.planes.kind == "products":
            rows = zip(self._tables, self._parts, strict=True)
            yield sum(product(self.step, take(row, self.codes), part, None) for row, part in rows).long()
            return
        x = take(self._tables[0], self.codes)
        for part in self._parts:
            read = x if part.shape[1] == self._inputs else x.sum(1, keepdim=True)
            yield product(self.step, read, part, None).long()

    def _requantized(self, times: Tensor, shift: Tensor) -> Tensor:
        """Return the sums times their multipliers, shifted; for each channel, or each sample and channel."""
        rest = (1,) * (self.codes.ndim - 2)
        total = None
        for accumulator, m in zip(self._sums(), times, strict=True):
            m = m.view(-1, m.shape[-1], *rest)
            scaled = accumulator.mul_(m) if accumulator.shape[1] == m.shape[1] else accumulator * m
            total = scaled if total is None else total.add_(scaled)
        shift = shift.view(-1, shift.shape[-1], *rest)
        return total.add_((1 << shift) >> 1).bitwise_right_shift_(shift).add_(self._offset.view(-1, *rest))

    def _adaptive(self, x: Tensor, adapter: Adapter) -> Tensor:
        """Return the output where each sample has its own step: thresholds and multipliers from it."""
        steps = sample_steps(self.step.name, adapter, x.numpy(), self.f)
        borders = np.asarray(self.read.borders, np.float64)[:, None, None] * steps
        if x.is_floating_point():
            self.codes = _below(x.double(), borders)
        else:
            self.codes = _below(x, thresholds(borders, self.f))
        factor = np.ldexp(self.made.factor[:, None] * steps, self.f)
        return self._requantized(*map(torch.from_numpy, multiplier(factor, self.made.planes.bounds[:, None])))


def _below(x: Tensor, borders: np.ndarray) -> Tensor:
    return torch.from_numpy(below(x.numpy(), borders))
