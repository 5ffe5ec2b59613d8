"""Guard: what of an ONNX file that somebody gives is not run, and the errors of what is run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from qviz.export.onnx_graph import OPERATORS
from qviz.export.shapes import LIMIT

if TYPE_CHECKING:
    import onnx


def refuse(model: onnx.ModelProto) -> None:
    """See that a model is one graph of operators that qviz writes, with all its numbers in it.

    Raises:
        ValueError: It is not.
    """
    from onnx import TensorProto

    graph = model.graph
    held = {t.name for t in graph.initializer}
    if not graph.node or not graph.output or all(value.name in held for value in graph.input):
        raise ValueError("it has no nodes, no input or no output")
    if outside := [t.name for t in graph.initializer if t.data_location == TensorProto.EXTERNAL]:
        raise ValueError(f"the numbers of {outside[0]!r} are in another file")
    if graph.sparse_initializer or model.functions or [o.domain for o in model.opset_import] != [""]:
        raise ValueError("it has sparse numbers, functions, or operators of several sets")
    if other := [node for node in graph.node if node.domain or node.op_type not in OPERATORS]:
        raise ValueError(
            f"{other[0].domain}{other[0].op_type} is no operator that qviz writes; it is not run"
        )


def session(model: onnx.ModelProto) -> Any:
    """Return a session of onnxruntime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised, in one line; fatal ones are logged
    options.intra_op_num_threads = torch.get_num_threads()
    with refusals():
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )


def limit(model: onnx.ModelProto) -> None:
    """See that no map of one image is absurdly large, as far as shapes can be told before it is run.

    Raises:
        ValueError: One is.
    """
    from onnx import shape_inference

    for value in shape_inference.infer_shapes(model, data_prop=True).graph.value_info:
        shape = [max(axis.dim_value, 1) for axis in value.type.tensor_type.shape.dim]
        if math.prod(shape) > LIMIT:
            raise ValueError(f"{value.name!r} has the shape {shape}")


@contextmanager
def refusals() -> Iterator[None]:
    """Turn the errors of onnxruntime, which derive from Exception alone, into ValueError."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"onnxruntime does not run it: {str(error).splitlines()[0]:.300}") from error
