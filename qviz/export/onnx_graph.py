"""Graph: nodes and initializers of an ONNX file that grow, and the operators that there are in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    import onnx

LOWEST_OPSET = 21
"""The first with 4-bit integers."""

WIDTHS = {"UINT2": (2, 25), "UINT4": (4, 21), "UINT8": (8, LOWEST_OPSET)}
"""Types of initializers that hold codes: their bits, and the opset that has them."""

_NAMES = """
    Add BatchNormalization Cast Ceil Clip Conv DequantizeLinear Div Flatten Gather Gemm GlobalAveragePool
    Greater Identity MatMul Max MaxPool Mul Pad QuantizeLinear Relu Reshape Slice Softplus Sub Transpose Where
"""
OPERATORS = frozenset(_NAMES.split())
"""All that are written, and all that are run of a file that somebody gives."""

INPUT, OUTPUT = "images", "output"


class Graph:
    """Nodes and initializers that grow; each tensor has the name that it was given.

    Args:
        opset: Of the operators.
    """

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.rank: dict[str, int] = {}
        self._names = {INPUT, OUTPUT}

    def unique(self, name: str) -> str:
        """Return the name, numbered where another tensor has it."""
        number, free = 1, name
        while free in self._names:
            number, free = number + 1, f"{name}_{number + 1}"
        self._names.add(free)
        return free

    def add(self, op: str, *inputs: str, out: str, **attributes: Any) -> str:
        """Append a node and return its output, named ``out`` or nearly so."""
        from onnx import helper

        name = out if out == OUTPUT else self.unique(out)
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, value: Tensor | np.ndarray | Sequence[int] | float, name: str) -> str:
        """Keep a tensor: floats as float32, integers as int64."""
        from onnx import numpy_helper

        array = value.numpy() if isinstance(value, Tensor) else np.asarray(value)
        array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), self.unique(name)))
        return self.initializers[-1].name

    def codes(self, values: np.ndarray, bits: int, name: str) -> tuple[str, str]:
        """Keep codes in the narrowest integers that hold ``bits``; return their name and type."""
        from onnx import TensorProto, helper

        kind = next(k for k, (width, since) in WIDTHS.items() if bits <= width and self.opset >= since)
        made = helper.make_tensor(self.unique(name), getattr(TensorProto, kind), values.shape, values.ravel())
        self.initializers.append(made)
        return made.name, kind
