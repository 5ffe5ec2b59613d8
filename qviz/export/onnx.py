"""ONNX: a network as a file of standard operators, its codes packed, its tables beside them.

Weights are integer initializers that ``DequantizeLinear`` reads where their levels are whole numbers one
apart with 0 among them, times a scale, without offsets or groups; and else ``Gather(levels, codes)`` times
the scale (so that DAQ's -1 and 1 are gathered). Inputs pass ``QuantizeLinear`` and ``DequantizeLinear`` where
values are evenly spaced too, and else comparisons, ``Where(x > border, …)`` for each border. Nothing is left
to a custom operator, so that any runtime computes what the codebook says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qviz.core._files import write_atomically
from qviz.export.exported import Exported, Step
from qviz.export.onnx_graph import INPUT, LOWEST_OPSET, OUTPUT, Graph
from qviz.export.onnx_tables import Form, read, weight

if TYPE_CHECKING:
    import onnx

KEY = "qviz"
LAST = np.iinfo(np.int64).max


def to_onnx(
    exported: Exported, path: str | Path, *, ties: str = "down", opset: int = LOWEST_OPSET
) -> tuple[Form, ...]:
    """Write a network as an ONNX file, checked by ``onnx.checker``, and say how each layer stands in it.

    The graph takes float32 images (N, C, H, W), normalized. Step by step its tensors have the names of the
    modules that made them; ``NAME.weight`` and ``NAME.read`` are a layer's weight and its quantized input.
    A value that is NaN has no code there, whereas qviz passes it on.

    Args:
        exported: The network; its program must not be empty.
        path: Where to write, atomically.
        ties: What becomes of a value on the border between two codes. "down", as everywhere in qviz: where
            ``QuantizeLinear``, which rounds a tie to the even code, would answer otherwise, it reads
            ceil(x / step - 1/2). "even": ``QuantizeLinear`` alone, which hardware fuses; the borders where a
            few float32 numbers get the other code are counted in :class:`Form`.
        opset: 21 or more; from 25 on, codes of 1 and 2 bits take 2 bits instead of 4.

    Raises:
        ImportError: onnx is not installed.
        ValueError: There is no program, no shape of the images, another ``ties`` or an opset without 4-bit
            integers; a layer's tables have no form there.
    """
    import onnx

    made, forms = as_onnx(exported, ties, opset)
    onnx.checker.check_model(made, full_check=True)
    write_atomically(Path(path), made.SerializeToString())
    return forms


def as_onnx(exported: Exported, ties: str, opset: int) -> tuple[onnx.ModelProto, tuple[Form, ...]]:
    """Return what :func:`to_onnx` checks and writes; the same network gives the same nodes each time."""
    import onnx
    from onnx import TensorProto, helper

    if ties not in ("down", "even"):
        raise ValueError(f'ties must be "down" or "even", got {ties!r}')
    if not LOWEST_OPSET <= opset <= onnx.defs.onnx_opset_version():
        raise ValueError(f"opset must be {LOWEST_OPSET} to {onnx.defs.onnx_opset_version()}, got {opset!r}")
    if not exported.program:
        raise ValueError(
            f"the network has no list of steps to write: {exported.untraceable or 'it is empty'}"
        )
    shape = [int(n) for n in exported.about.get("shape") or ()]
    if not shape:
        raise ValueError('about["shape"] is missing: ONNX needs the shape of an image')
    graph, forms, names = Graph(opset), {}, [INPUT]
    graph.rank[INPUT] = 1 + len(shape)
    for number, step in enumerate(exported.program[1:], 1):
        name = step.name or step.op
        out = OUTPUT if number == len(exported.program) - 1 else name + "_" * (name == OUTPUT)
        names.append(_step(graph, exported, step, [names[i] for i in step.inputs], out, ties, forms))
    about = {
        "about": dict(exported.about),
        "ties": ties,
        "steps": [
            [s.op, list(s.inputs), s.name, name] for s, name in zip(exported.program, names, strict=True)
        ],
        "forms": [asdict(form) for form in forms.values()],
    }
    rows = ["N"] + [None] * (graph.rank[names[-1]] - 1)
    made = helper.make_model(
        helper.make_graph(
            graph.nodes,
            str(exported.about.get("model") or "network"),
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", *shape])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, rows)],
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=helper.find_min_ir_version_for([helper.make_opsetid("", opset)]),
        producer_name="qviz",
    )
    helper.set_model_props(made, {KEY: json.dumps(about)})
    return made, tuple(forms.values())


def _step(
    graph: Graph,
    exported: Exported,
    step: Step,
    inputs: list[str],
    out: str,
    ties: str,
    forms: dict[str, Form],
) -> str:
    """Append a step's nodes and return the tensor that it makes."""
    if step.op in ("conv", "linear"):
        name = _layer(graph, exported, step, inputs[0], out, ties, forms)
    else:
        name = _plain(graph, exported, step, inputs, out)
    graph.rank[name] = 2 if step.op == "flatten" else graph.rank[inputs[0]]
    return name


def _layer(
    graph: Graph, exported: Exported, step: Step, x: str, out: str, ties: str, forms: dict[str, Form]
) -> str:
    layer = exported.layers[step.name]
    if step.name in forms:
        raise ValueError(f"layer {step.name!r} is used twice; one name would stand for two layers")
    rank = graph.rank[x]
    # onnxruntime makes DequantizeLinear and MatMul one operator, which may round the input to 8 bits
    plain = step.op == "conv" or rank == 2
    w, held = weight(graph, step.name, layer.weight, plain=plain)
    if layer.input is not None:
        x, how, differing = read(graph, step.name, layer.input, x, rank, step.op == "conv", ties)
    else:
        how, differing = "float32", 0
    forms[step.name] = Form(step.name, *held, how, differing)
    bias = [] if layer.bias is None else [graph.constant(layer.bias, f"{step.name}.bias")]
    if step.op == "linear" and rank == 2:
        return graph.add("Gemm", x, w, *bias, out=out, transB=1)
    if step.op == "linear":
        w = graph.add("Transpose", w, out=f"{step.name}.weight.T", perm=[1, 0])
        made = graph.add("MatMul", x, w, out=f"{step.name}.product" if bias else out)
        return graph.add("Add", made, *bias, out=out) if bias else made
    args: Mapping[str, Any] = step.args
    return graph.add(
        "Conv",
        x,
        w,
        *bias,
        out=out,
        strides=list(args["stride"]),
        pads=[*args["padding"]] * 2,
        dilations=list(args["dilation"]),
        group=int(args["groups"]),
    )


def _plain(graph: Graph, exported: Exported, step: Step, inputs: list[str], out: str) -> str:
    """Append a step without tables."""
    args, constant = step.args, graph.constant
    if step.op == "batchnorm":
        return _batchnorm(graph, exported, step, inputs[0], out)
    if step.op == "maxpool":
        shape = {"kernel_shape": args["kernel"], "strides": args["stride"], "pads": [*args["padding"]] * 2}
        return graph.add("MaxPool", *inputs, out=out, **shape)
    more: list[str] = []
    if step.op == "clip":
        more = [constant(float(args[end]), f"{out}.{end}") for end in ("low", "high")]
    elif step.op == "subsample":
        ends = ([0, 0], [LAST, LAST], [2, 3], [args["step"]] * 2)
        more = [constant(v, f"{out}.slice") for v in ends]
    elif step.op == "pad_channels":
        more = [constant([0, args["before"], 0, 0, 0, args["after"], 0, 0], f"{out}.pads")]
    operator = {
        "relu": "Relu",
        "clip": "Clip",
        "add": "Add",
        "mean": "GlobalAveragePool",
        "flatten": "Flatten",
        "subsample": "Slice",
        "pad_channels": "Pad",
    }.get(step.op)
    if operator is None:
        raise ValueError(f"no operator of ONNX is known for the step {step.op!r}")
    return graph.add(operator, *inputs, *more, out=out)


def _batchnorm(graph: Graph, exported: Exported, step: Step, x: str, out: str) -> str:
    held = exported.tensors
    mean = held[f"{step.name}.running_mean"]
    numbers = [
        held.get(f"{step.name}.weight", mean.new_ones(mean.shape)),
        held.get(f"{step.name}.bias", mean.new_zeros(mean.shape)),
        mean,
        held[f"{step.name}.running_var"],
    ]
    names = ("scale", "shift", "mean", "variance")
    given = [graph.constant(v, f"{step.name}.{n}") for n, v in zip(names, numbers, strict=True)]
    return graph.add("BatchNormalization", x, *given, out=out, epsilon=float(step.args["eps"]))
