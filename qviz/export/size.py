"""Size: where the bytes of a file go, with the bits of each layer as its codes have them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from qviz.core._text import table
from qviz.export.exported import Exported
from qviz.export.file import contents, read
from qviz.export.layout import tensors_of
from qviz.export.tables import LayerTables, WeightTable

_PARTS = ("codes", "tables", "adapter", "floats")
_HEAD = ("layer", "weights", "bits", "levels used", "input bits", *_PARTS, "bytes")


@dataclass(frozen=True)
class SizeRow:
    """The bytes of one layer.

    Attributes:
        name: The layer's.
        weights: How many it has.
        bits: Of a code, counted from the codes; 32 where the weight is not quantized.
        used: How many different codes there are; None where the weight is not quantized.
        levels: How many there could be; None likewise.
        a_bits: Of a code of the input; 32 where it stays in floating point.
        codes: Bytes of the packed codes: weights × bits / 8, rounded up.
        tables: Bytes of levels, scales, offsets, factor, borders and values.
        adapter: Bytes of ASQ's network, C (C // 4 + 1) weights for C channels; these stay float32, as they
            have no levels and the step would not be the trained one with fewer digits.
        floats: Bytes of the weight where it is not quantized, and of the bias.
    """

    name: str
    weights: int
    bits: int
    used: int | None
    levels: int | None
    a_bits: int
    codes: int
    tables: int
    adapter: int
    floats: int

    @property
    def total(self) -> int:
        """All its bytes."""
        return self.codes + self.tables + self.adapter + self.floats


@dataclass(frozen=True)
class Sizes:
    """The bytes of a file, all of them; ``print`` shows a table.

    Attributes:
        rows: One for each layer.
        others: Bytes of all other tensors, such as BatchNorm's.
        header: Bytes of what is no number of the network: names, shapes, steps, recipes, the hash.
        parameters: Numbers that the same network in float32 has.
    """

    rows: tuple[SizeRow, ...]
    others: int
    header: int
    parameters: int

    @property
    def total(self) -> int:
        """The size of the file."""
        return sum(row.total for row in self.rows) + self.others + self.header

    @property
    def average_bits(self) -> float | None:
        """Bits of a quantized weight, averaged over these weights; None if there is none."""
        rows = [row for row in self.rows if row.used is not None]
        n = sum(row.weights for row in rows)
        return sum(row.weights * row.bits for row in rows) / n if n else None

    def __str__(self) -> str:
        """Return the table, with lines for the other tensors, the header and the sum."""
        rows = [_cells(row) for row in self.rows]
        sums = [sum(getattr(row, key) for row in self.rows) for key in _PARTS]
        rows += [
            ("other tensors", *[""] * 7, f"{self.others:,}", f"{self.others:,}"),
            ("header", *[""] * 8, f"{self.header:,}"),
            ("sum", *[""] * 4, *(f"{n:,}" for n in (*sums[:3], sums[3] + self.others, self.total))),
        ]
        shown = [i for i, name in enumerate(_HEAD) if name != "adapter" or sums[2]]
        rows, head = [[row[i] for i in shown] for row in rows], [_HEAD[i] for i in shown]
        average, floats = self.average_bits, 4 * self.parameters
        text = f"{self.total:,} bytes, {floats / self.total:.1f} times less than the {floats:,} of float32"
        text += "" if average is None else f"; a quantized weight has {average:.2f} bits on average"
        return f"{table(head, rows, right=range(1, len(head)))}\n{text}"


def sizes(source: Exported | str | Path) -> Sizes:
    """Return where the bytes of a file go.

    Args:
        source: A file of :func:`~qviz.export.save`, or what would be written into one.

    Raises:
        FileNotFoundError, ValueError: As :func:`~qviz.export.read`.

    Example:
        >>> import torch
        >>> from qviz import recipes
        >>> from qviz.export import describe
        >>> from qviz.nn import calibrate, convert
        >>> net = torch.nn.Sequential(torch.nn.Linear(64, 32, bias=False))
        >>> _ = convert(net, pair=recipes.pair("lsq", 3, 32), first_last="quantized")
        >>> calibrate(net, torch.rand(4, 64))
        >>> row = sizes(describe(net)).rows[0]
        >>> row.weights, row.bits, row.codes, row.tables  # 8 levels and a step
        (2048, 3, 768, 36)
    """
    exported = source if isinstance(source, Exported) else read(source)
    written = len(contents(exported)) if isinstance(source, Exported) else Path(source).stat().st_size
    rows = tuple(row(name, layer) for name, layer in exported.layers.items())
    others = _bytes(exported.tensors.values())
    held = [layer.shape.numel() for layer in exported.layers.values()]
    held += [layer.bias.numel() for layer in exported.layers.values() if layer.bias is not None]
    parameters = sum(held) + sum(value.numel() for value in exported.tensors.values())
    header = written - sum(row.total for row in rows) - others
    return Sizes(rows, others, header, parameters)


def row(name: str, layer: LayerTables) -> SizeRow:
    """Return where the bytes of a layer go."""
    weight, tensors = layer.weight, tensors_of(layer)
    codes = _bytes(v for key, v in tensors.items() if key == "codes")
    floats = _bytes(v for key, v in tensors.items() if key in ("weight", "bias"))
    adapter = _bytes(v for key, v in tensors.items() if key.startswith("adapter."))
    coded = isinstance(weight, WeightTable)
    return SizeRow(
        name,
        layer.shape.numel(),
        weight.bits if coded else 32,
        len(weight.codes.unique()) if coded else None,
        len(weight.levels) if coded else None,
        32 if layer.input is None else layer.input.bits,
        codes,
        _bytes(tensors.values()) - codes - adapter - floats,
        adapter,
        floats,
    )


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(value.numel() * value.element_size() for value in tensors)


def _cells(row: SizeRow) -> tuple[str, ...]:
    used = "" if row.used is None else f"{row.used} of {row.levels}"
    parts = (*(getattr(row, key) for key in _PARTS), row.total)
    return (row.name, f"{row.weights:,}", f"{row.bits}", used, f"{row.a_bits}", *(f"{n:,}" for n in parts))
