"""Tables in ONNX: a layer's codes, levels and borders as initializers and standard operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from qviz.export.tables import Adapter, InputTable, WeightTable

if TYPE_CHECKING:
    from qviz.export.onnx_graph import Graph

DIRECT, CEILING, COMPARED = "QuantizeLinear", "ceil, QuantizeLinear", "Where"


@dataclass(frozen=True)
class Form:
    """How a layer stands in the file.

    Attributes:
        name: The layer.
        weight: "DequantizeLinear", "Gather" or "float32".
        stored: The type of the codes there, "UINT4" say; "FLOAT" without codes.
        input: "QuantizeLinear" with or without "ceil" before it, "Where" or "float32".
        ties: Borders at which a few float32 numbers get another code than in qviz; 0 unless ``ties="even"``.
    """

    name: str
    weight: str
    stored: str
    input: str
    ties: int


def weight(
    graph: Graph, name: str, table: WeightTable | Tensor, *, plain: bool
) -> tuple[str, tuple[str, str]]:
    """Append a weight, by DequantizeLinear where it can and ``plain`` allows; return its tensor and form."""
    if isinstance(table, Tensor):
        return graph.constant(table, f"{name}.weight"), ("float32", "FLOAT")
    zero = _zero(table.levels)
    plain = (
        plain and zero is not None and table.scale is not None and table.offset is None and not table.group
    )
    bits = max(table.bits, zero.bit_length() if plain else 1)
    codes, kind = graph.codes(table.codes.numpy(), bits, f"{name}.codes")
    if plain:
        made = _dequantized(graph, name, codes, table, zero, bits)
    else:
        made = _gathered(graph, name, codes, table)
    last = ("Identity",) if table.factor is None else ("Mul", graph.constant(table.factor, f"{name}.factor"))
    made = graph.add(last[0], made, *last[1:], out=f"{name}.weight")
    return made, ("DequantizeLinear" if plain else "Gather", kind)


def _zero(levels: Tensor) -> int | None:
    """Return the code of level 0 where levels are whole numbers one apart, else None."""
    zero = -float(levels[0])
    fits = zero.is_integer() and 0 <= zero < len(levels)
    return int(zero) if fits and torch.equal(levels, torch.arange(len(levels)) - zero) else None


def _dequantized(graph: Graph, name: str, codes: str, table: WeightTable, zero: int, bits: int) -> str:
    """Append (code - zero) × scale as one operator."""
    scale = graph.constant(table.scale, f"{name}.step")
    origin = np.full(tuple(table.scale.shape), zero, np.uint8)
    more = [graph.codes(origin, bits, f"{name}.zero")[0]] if zero else []
    axis = {} if table.scale.ndim == 0 else {"axis": int(table.axis) % table.codes.ndim}
    return graph.add("DequantizeLinear", codes, scale, *more, out=f"{name}.dequantized", **axis)


def _gathered(graph: Graph, name: str, codes: str, table: WeightTable) -> str:
    """Append levels[code] × scale + offset."""
    from onnx import TensorProto

    index = graph.add("Cast", codes, out=f"{name}.index", to=TensorProto.INT32)
    made = graph.add("Gather", graph.constant(table.levels, f"{name}.levels"), index, out=f"{name}.level")
    shape = list(table.codes.shape)
    axis = None if table.axis is None else table.axis % len(shape)
    if table.group:
        split = [*shape[:axis], shape[axis] // table.group, table.group, *shape[axis + 1 :]]
        made = graph.add("Reshape", made, graph.constant(split, f"{name}.groups"), out=f"{name}.grouped")
    for op, what, v in (("Mul", "step", table.scale), ("Add", "offset", table.offset)):
        if v is not None:
            if table.group:
                v = v.movedim(-1, axis).unsqueeze(axis + 1)
            elif v.ndim:
                v = v.view(*(-1 if i == axis else 1 for i in range(len(shape))))
            made = graph.add(op, made, graph.constant(v, f"{name}.{what}"), out=f"{name}.{op.lower()}")
    if table.group:
        made = graph.add("Reshape", made, graph.constant(shape, f"{name}.shape"), out=f"{name}.whole")
    return made


def read(
    graph: Graph, name: str, table: InputTable, x: str, rank: int, conv: bool, ties: str
) -> tuple[str, str, int]:
    """Append what a layer reads instead of x; return its tensor, the form, and the borders that differ."""
    out, step = f"{name}.read", None
    if table.adapter is not None:
        if rank != (4 if conv else 2):
            raise ValueError(f"layer {name!r} reads {rank} axes; a step for each sample is known for 2 and 4")
        step = _step_of_sample(graph, name, table.adapter, x, rank)
        x = graph.add("Div", x, step, out=f"{name}.u")
    form, differing = _form(table, ties)
    last = out if step is None else f"{name}.read_level"
    made = _compared(graph, name, table, x, rank if conv else 2, last) if form == COMPARED else ""
    made = made or _rounded(graph, name, table, x, form == CEILING, last)
    return (made if step is None else graph.add("Mul", made, step, out=out)), form, differing


def _form(table: InputTable, ties: str) -> tuple[str, int]:
    """Return the simplest operators that give the table's codes, and at how many borders they do not."""
    even = _even(table)
    if even is None:
        return COMPARED, 0
    zero, step = even
    borders, k = table.borders.numpy(), np.arange(len(table.borders))
    below, above = borders, np.nextafter(borders, np.float32(np.inf))

    def wrong(ceiling: bool, slack: int = 0) -> int:
        down, up = below, above
        for _ in range(slack):
            down, up = np.nextafter(down, np.float32(-np.inf)), np.nextafter(up, np.float32(np.inf))
        codes = [_code(v, zero, step, len(k), ceiling) for v in (down, up)]
        return int((~((codes[0] <= k) & (codes[1] > k))).sum())

    if not wrong(ceiling=False):
        return DIRECT, 0
    if ties == "even" and not wrong(ceiling=False, slack=2):
        return DIRECT, wrong(ceiling=False)
    return (COMPARED if wrong(ceiling=True) else CEILING), 0


def _code(x: np.ndarray, zero: int, step: np.float32, top: int, ceiling: bool) -> np.ndarray:
    u = x / step
    u = np.ceil(u - np.float32(0.5)) if ceiling else np.rint(u)
    return np.clip(u + zero, 0, top)


def _even(table: InputTable) -> tuple[int, np.float32] | None:
    """Return the code of 0 and the step where values are its multiples to the last bit, else None."""
    if table.values.ndim > 1 or table.borders.ndim > 1:
        return None
    values = table.values.numpy()
    zeros = np.flatnonzero(values == 0)
    if len(zeros) != 1 or not 2 <= len(values) <= 256:
        return None
    zero = int(zeros[0])
    step = values[zero + 1] if zero + 1 < len(values) else -values[zero - 1]
    same = np.array_equal(values, (np.arange(len(values)) - zero).astype(np.float32) * step)
    return (zero, step) if same else None


def _rounded(graph: Graph, name: str, table: InputTable, x: str, ceiling: bool, out: str) -> str:
    """Append QuantizeLinear, Clip of the codes, and DequantizeLinear; with ``ceiling``, ties go down."""
    zero, step = _even(table)
    scale = graph.constant(step, f"{name}.input_step")
    origin = graph.codes(np.array(zero, np.uint8), 8, f"{name}.input_zero")[0]
    by = scale
    if ceiling:
        u = x if step == 1 else graph.add("Div", x, scale, out=f"{name}.u")
        half = graph.constant(0.5, f"{name}.half")
        x = graph.add("Ceil", graph.add("Sub", u, half, out=f"{name}.shifted"), out=f"{name}.rounded")
        by = graph.constant(1.0, f"{name}.one")
    codes = graph.add("QuantizeLinear", x, by, origin, out=f"{name}.input_codes")
    if len(table.values) < 256:
        ends = [graph.codes(np.array(v, np.uint8), 8, f"{name}.end")[0] for v in (0, len(table.values) - 1)]
        codes = graph.add("Clip", codes, *ends, out=f"{name}.clipped")
    return graph.add("DequantizeLinear", codes, scale, origin, out=out)


def _compared(graph: Graph, name: str, table: InputTable, x: str, rank: int, out: str) -> str:
    """Append one comparison for each border, the highest that x exceeds deciding.

    A table of one value gets a border that nothing exceeds, which gives the value the shape of x.
    """
    borders, values = table.borders, table.values
    if not len(borders):
        borders, values = values.new_full(values.shape, np.inf), values.repeat(2, *(1,) * (values.ndim - 1))

    def constant(v: Tensor, what: str) -> str:
        return graph.constant(v.view(-1, *(1,) * (rank - 2)) if v.ndim else v, f"{name}.{what}")

    made = constant(values[0], "value")
    for k, border in enumerate(borders, 1):
        above = graph.add("Greater", x, constant(border, "border"), out=f"{name}.above")
        after = out if k == len(borders) else f"{name}.chosen"
        made = graph.add("Where", above, constant(values[k], "value"), made, out=after)
    return made


def _step_of_sample(graph: Graph, name: str, adapter: Adapter, x: str, rank: int) -> str:
    """Append ASQ's adapter: the step of each sample, (N, 1, …)."""
    z = x
    if rank == 4:
        z = graph.add("Flatten", graph.add("GlobalAveragePool", x, out=f"{name}.mean"), out=f"{name}.means")
    for i, (w, b) in enumerate(adapter.layers):
        z = graph.add("Relu", z, out=f"{name}.adapter_relu") if i else z
        numbers = [graph.constant(w, f"{name}.adapter"), graph.constant(b, f"{name}.adapter_bias")]
        z = graph.add("Gemm", z, *numbers, out=f"{name}.adapter_{i}", transB=1)
    z = graph.add("Relu" if adapter.mode == "paper" else "Softplus", z, out=f"{name}.adapter_out")
    z = graph.add("Max", z, graph.constant(1e-8, f"{name}.floor"), out=f"{name}.beta")
    z = graph.add("Mul", z, graph.constant(adapter.step, f"{name}.input_step"), out=f"{name}.sample_step")
    if rank == 2:
        return z
    shape = graph.constant([-1, 1, 1, 1], f"{name}.step_shape")
    return graph.add("Reshape", z, shape, out=f"{name}.steps")
