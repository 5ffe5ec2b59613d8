"""Format data: the number formats, and a tensor in each of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from qviz.core import formats, grids, groups
from qviz.core.codebook import Codebook
from qviz.core.quantizer import Quantizer
from qviz.core.range import MinMax
from qviz.explore import paste, tensors
from qviz.explore.tensors import Source
from qviz.measure import Measured


@dataclass(frozen=True)
class Format:
    """A number format: a codebook, and how values share scales.

    Attributes:
        book: Builds the levels.
        bits: What a code takes.
        size: The values that share a scale; 0 means the whole tensor, None what the budget allows.
        make: Builds the quantizer of values in rows of ``size``, where the format has a rule of its own.
    """

    book: Callable[[], Codebook]
    bits: int = 4
    size: int | None = None
    make: Callable[[], Quantizer] | None = None


FORMATS = {
    "INT4 per tensor": Format(lambda: grids.uniform(4), size=0),
    "INT4 groups": Format(lambda: grids.uniform(4)),
    "NF4 groups": Format(formats.nf4),
    "FP4 groups": Format(formats.fp4),
    "POST groups": Format(lambda: grids.post(4)),
    "APoT groups": Format(lambda: grids.apot(4)),
    "MXFP4": Format(formats.fp4, size=32, make=groups.mxfp4),
    "NVFP4": Format(formats.fp4, size=16, make=groups.nvfp4),
    "FP8 E4M3": Format(formats.fp8_e4m3, bits=8, size=0),
    "INT8 per tensor": Format(lambda: grids.uniform(8), bits=8, size=0),
}

PASTED = "pasted numbers"


@dataclass(frozen=True, eq=False)
class Coded:
    """A tensor in a format.

    Attributes:
        q: The quantizer, of values in rows of ``size``.
        size: How many values share a scale.
        bits: The bits of a value, its part of the scales counted.
        measured: Its figures.
    """

    q: Quantizer
    size: int
    bits: float
    measured: Measured

    def scale(self, i: int) -> float:
        """Return the scale of the i-th value."""
        return float(self.q.range.scale.flatten()[i // self.size if self.q.range.scale.numel() > 1 else 0])


def in_rows(x: Tensor, size: int) -> Tensor:
    """Return values in rows of ``size``, in the order of memory; the last row is filled up with zeros."""
    return torch.nn.functional.pad(x.flatten(), (0, -x.numel() % size)).view(-1, size)


@functools.lru_cache(maxsize=48)
def coded(source: Source, name: str, group: int) -> Coded:
    """Return a tensor in a format; ``group`` is the size of groups that the format leaves open."""
    data, spec = tensors.summary(source), FORMATS[name]
    if spec.size == 0:
        q = Quantizer(spec.book(), range=MinMax()).observe(data.x)
        return Coded(q, data.numel, groups.bits_per_value(q, data.numel), Measured(q, data, name))
    size = min(spec.size or group, spec.size or data.numel)
    rows = in_rows(data.x, size)
    made = spec.make() if spec.make else _grouped(spec, size)
    q = made.observe(rows)

    def run(x: Tensor) -> Tensor:
        return q(in_rows(x, size)).flatten()[: x.numel()].view(x.shape)

    return Coded(q, size, groups.bits_per_value(q, data.numel), Measured(run, data, name))


def _grouped(spec: Format, size: int) -> Quantizer:
    return Quantizer(spec.book(), range=groups.Grouped(size, stored=torch.float16))


@functools.lru_cache(maxsize=4)
def pasted(text: str) -> tuple[Source, str]:
    """Return the numbers of a text as a source, and what could not be read."""
    values, problem = paste.read(text)
    return Source(lambda: torch.from_numpy(values), None, f"{len(values):,} shown"), problem


def allowed(budget: str) -> float:
    """Return what a value may take within a budget, in bits: a little more, for the one scale of a tensor."""
    return float(budget.split()[0]) + 0.01
