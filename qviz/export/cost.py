"""Cost: what an exported network takes, counted from its codes: bytes, and operations for one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qviz.export.arithmetic import Planes
from qviz.export.exported import Exported
from qviz.export.plan import plan
from qviz.export.program import product, run, simple
from qviz.export.size import sizes
from qviz.export.tables import WeightTable
from qviz.measure.table import aligned

HEADERS = ("layer", "w", "a", "bytes", "MACs", "arithmetic", "shifts", "adds", "look-ups", "mult.")
FLOAT = "floating point"


@dataclass(frozen=True)
class CostRow:
    """What one layer takes.

    Attributes:
        layer: Its name.
        w_bits: The bits of a weight, from its codes; 32 in floating point.
        a_bits: The bits of a code of its input; 32 in floating point.
        size: The bytes of its tensors in the file, codes packed; 0 in a layer's second row.
        macs: Products of a weight and an activation, zero or not.
        arithmetic: "whole numbers", "shifts", "even and odd", "levels", "products" (see
            :mod:`qviz.export.arithmetic`) or "floating point".
        shifts: Shifts by 1 bit or more.
        adds: Additions and subtractions.
        lookups: Look-ups in a table: of thresholds, or of products.
        multiplications: Of integers, or of float numbers in floating point.
    """

    layer: str
    w_bits: int
    a_bits: int
    size: int
    macs: int
    arithmetic: str
    shifts: int
    adds: int
    lookups: int
    multiplications: int


COUNTS = {
    "size": "bytes",
    "macs": "MACs",
    "shifts": "shifts",
    "adds": "adds",
    "lookups": "look-ups",
    "multiplications": "mult.",
}
"""What can be summed over layers, with its header."""


@dataclass(frozen=True)
class Costs:
    """What a network takes for one image; prints as a table.

    Attributes:
        rows: One for each convolution and linear layer, in the order of the program; one for each use.
        other: The bytes of all other tensors (BatchNorm's, and those of layers that no step uses).
    """

    rows: tuple[CostRow, ...]
    other: int

    def row(self, layer: str) -> CostRow:
        """Return the row of a layer.

        Raises:
            KeyError: There is none of that name.
        """
        for row in self.rows:
            if row.layer == layer:
                return row
        raise KeyError(layer)

    @property
    def totals(self) -> dict[str, int]:
        """The sum of each count over all layers; the bytes of all other tensors are in its size."""
        sums = {name: sum(getattr(row, name) for row in self.rows) for name in COUNTS}
        return sums | {"size": sums["size"] + self.other}

    def to_dict(self) -> dict[str, Any]:
        """Return rows and totals as plain numbers and strings, for JSON."""
        return {"rows": [asdict(row) for row in self.rows], "other": self.other, "totals": self.totals}

    def by_arithmetic(self) -> str:
        """Return a table with a line for each kind of arithmetic in place of one for each layer."""
        kinds = list(dict.fromkeys(row.arithmetic for row in self.rows))
        lines = [("arithmetic", "layers", *COUNTS.values())]
        for kind in kinds:
            some = [row for row in self.rows if row.arithmetic == kind]
            lines.append((kind, str(len(some)), *(f"{sum(getattr(r, n) for r in some):,}" for n in COUNTS)))
        return aligned([*lines, ("all", str(len(self.rows)), *(f"{v:,}" for v in self.totals.values()))])

    def __str__(self) -> str:
        """Align the columns for a terminal."""
        lines = [tuple(f"{v:,}" if isinstance(v, int) else v for v in astuple(row)) for row in self.rows]
        size, macs, *rest = (f"{v:,}" for v in self.totals.values())
        lines.append(("all other tensors", "", "", f"{self.other:,}", *[""] * 6))
        return aligned([HEADERS, *lines, ("all", "", "", size, macs, "", *rest)])

    __repr__ = __str__


def costs(exported: Exported, *, shape: Sequence[int] | None = None, how: str = "auto") -> Costs:
    """Count what a network takes for one image, from its codes.

    A layer has N weights, of which each is used at P places of the output (1 for a linear layer); padding
    counts as input. MACs = N P. A layer in floating point does as many multiplications and additions. A layer
    of codes is computed in planes of integers (:mod:`qviz.export.arithmetic`); with Z the entries of all
    planes that are not 0, and A the accumulators, one for each output channel of each plane that has such
    entries for it:

    - adds = (Z + A + 1 for each output channel) P: terms, accumulators, offsets;
    - shifts = (entries of magnitude 2, 4, 8, … + 1 for each output channel with accumulators) P;
    - multiplications = (entries of another magnitude above 1 + A) P: each accumulator takes one, and their
      sum one shift, to come to the unit of the output, BatchNorm in it;
    - look-ups = 1 for each value of the input, which its thresholds give a code; with ``how="products"`` Z P
      more, one for each product, and one accumulator for each output channel.

    ReLU, the sums of shortcuts, pooling, ASQ's network and a BatchNorm behind a layer in floating point are
    not counted.

    Args:
        exported: With a program.
        shape: Of one image; by default that of ``exported.about``.
        how: "auto", "levels" or "products", as in :func:`qviz.export.arithmetic.planes`.

    Raises:
        ValueError: There is no shape, or what :func:`qviz.export.plan.plan` refuses.
    """
    integers = plan(exported, how=how)
    shape = exported.about.get("shape") if shape is None else shape
    if shape is None:
        raise ValueError("the shape of an image is not known; pass shape=, such as (3, 32, 32)")
    stored = sizes(exported)
    left, rows = {row.name: row.total for row in stored.rows}, []
    for i, (read, made) in _shapes(exported, tuple(shape)).items():
        name = exported.program[i].name
        layer = exported.layers[name]
        places = made.numel() // layer.shape[0]
        bits = layer.weight.bits if isinstance(layer.weight, WeightTable) else 32
        a_bits = 32 if layer.input is None else layer.input.bits
        macs = prod(layer.shape) * places
        about = name, bits, a_bits, left.pop(name, 0), macs
        if i in integers.products:
            rows.append(_of_codes(about, integers.products[i].planes, places, prod(read[1:])))
        else:
            rows.append(CostRow(*about, FLOAT, 0, macs, 0, macs))
    return Costs(tuple(rows), stored.others + sum(left.values()))


def _shapes(exported: Exported, shape: tuple[int, ...]) -> dict[int, tuple[torch.Size, torch.Size]]:
    """Return the shapes of the input and the output of each layer for one image, by its step."""
    found = {}

    def shaped(i: int, inputs: Sequence[Tensor]) -> Tensor:
        step = exported.program[i]
        if step.op == "input":
            return torch.empty(1, *shape, device="meta")
        if step.op not in ("conv", "linear"):
            return inputs[0] if step.op == "batchnorm" else simple(step, inputs)
        y = product(step, inputs[0], torch.empty(exported.layers[step.name].shape, device="meta"), None)
        found[i] = inputs[0].shape, y.shape
        return y

    for _ in run(exported.program, shaped):
        pass
    return found


def _of_codes(about: tuple[str, int, int, int, int], split: Planes, places: int, values: int) -> CostRow:
    """Return the row of a layer of codes that has so many places of the output and values of the input."""
    magnitudes = np.abs(np.stack(split.planes).astype(np.int64))
    entries = int((magnitudes > 0).sum())
    shifted = int(((magnitudes > 1) & (magnitudes & (magnitudes - 1) == 0)).sum())
    multiplied = int((magnitudes > 1).sum()) - shifted
    used = (magnitudes.reshape(*magnitudes.shape[:2], -1) > 0).any(-1)
    looked = split.kind == "products"
    sums = int((used.any(0) if looked else used).sum())
    return CostRow(
        *about,
        split.kind,
        (shifted + int(used.any(0).sum())) * places,
        (entries + sums + used.shape[1]) * places,
        values + looked * entries * places,
        (multiplied + sums) * places,
    )
