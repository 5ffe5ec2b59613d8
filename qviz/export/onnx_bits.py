"""Bits of an ONNX file: measured from the initializers that its products read, whoever wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from qviz.export.subject import Bits

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

_PRODUCTS = ("Conv", "Gemm", "MatMul")
_CODES = ("UINT2", "INT2", "UINT4", "INT4", "UINT8", "INT8")
_ADAPTER = ".adapter"


def measured(model: ModelProto) -> list[Bits]:
    """Return the bits of each product's weight and input, in the order of the graph.

    A layer has the name of its codes (of its weight, where that is in floating point) up to the last dot.
    """
    from onnx import TensorProto, numpy_helper

    made = {out: node for node in model.graph.node for out in node.output}
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    rows = []
    for node in model.graph.node:
        found = _weight(node.input[1], made, held) if node.op_type in _PRODUCTS else None
        if found is None or found.name.rsplit("_", 1)[0].endswith(_ADAPTER) or found.name.endswith(_ADAPTER):
            continue
        values, kind = numpy_helper.to_array(found), TensorProto.DataType.Name(found.data_type)
        width = _width(values.astype(np.int64)) if kind in _CODES else 32
        read = _input_bits(node.input[0], made, held)
        name = found.name.rsplit(".", 1)[0]
        rows.append(Bits(name, values.size, width, len(np.unique(values)), kind, read))
    return rows


def _weight(name: str, made: Mapping[str, NodeProto], held: Mapping[str, TensorProto]) -> TensorProto | None:
    """Return the largest tensor of codes that a weight is made of, else the largest of floats."""
    from onnx import TensorProto

    found, queue, seen = [], [name], {name}
    while queue:
        at = queue.pop()
        if at in held:
            found.append(held[at])
        elif at in made:
            queue += [read for read in made[at].input if read not in seen]
            seen |= set(made[at].input)
        else:
            return None
    coded = [t for t in found if TensorProto.DataType.Name(t.data_type) in _CODES]
    return max(coded or found, key=lambda tensor: np.prod(tensor.dims), default=None)


def _input_bits(name: str, made: Mapping[str, NodeProto], held: Mapping[str, TensorProto]) -> int:
    """Return the bits of an input by the operators that made it; 32 where it is in floating point."""
    from onnx import numpy_helper

    node = made.get(name)
    if node is not None and node.op_type == "Mul":
        name, node = node.input[0], made.get(node.input[0])
    steps = 0
    while node is not None and node.op_type == "Where":
        steps, node = steps + 1, made.get(node.input[2])
    if steps:
        return steps.bit_length()
    if node is None or node.op_type != "DequantizeLinear":
        return 32
    before = made.get(node.input[0])
    if before is None or before.op_type != "Clip" or not all(end in held for end in before.input[1:]):
        return 8
    return _width(np.array([int(numpy_helper.to_array(held[end])) for end in before.input[1:]]))


def _width(codes: np.ndarray) -> int:
    """Return the bits that hold all these codes; of signed ones, in two's complement."""
    low, high = int(codes.min(initial=0)), int(codes.max(initial=0))
    return max(1, high.bit_length() if low >= 0 else 1 + max(high.bit_length(), (-low - 1).bit_length()))
