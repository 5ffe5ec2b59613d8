"""ONNX file: one that somebody gives, read without trust, measured, and run piece by piece by onnxruntime."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from qviz.core._text import count, some
from qviz.export.check import check_about
from qviz.export.exported import Exported, Step
from qviz.export.onnx import KEY, as_onnx
from qviz.export.onnx_bits import measured
from qviz.export.onnx_guard import limit, refusals, refuse, session
from qviz.export.program import as_rows
from qviz.export.subject import Bits, steps_of
from qviz.export.tables import Adapter, InputTable, WeightTable

if TYPE_CHECKING:
    import onnx

_LARGEST = torch.finfo(torch.float32).max
SLACK = 2
"""Float32 numbers beside a border that are a tie to onnxruntime's division."""


class OnnxFile:
    """An ONNX file.

    Only operators that qviz writes are run, without loops or numbers outside of the file, and maps have a
    limit; that holds for those whose shape can be told before, as onnxruntime itself sets none.

    Args:
        path: The file, with all its numbers in it.

    Raises:
        ValueError: It is no ONNX model, fails ``onnx.checker``, keeps numbers in other files, needs
            operators that qviz does not write, or makes absurdly large maps; (in use)
            onnxruntime does not run it.
    """

    kind, exact = "onnx", False

    def __init__(self, path: Path) -> None:
        import onnx

        try:
            self.path = path
            self.model = onnx.load_model_from_string(path.read_bytes())
            refuse(self.model)
            onnx.checker.check_model(self.model, full_check=True)
            limit(self.model)
            said = {entry.key: entry.value for entry in self.model.metadata_props}.get(KEY, "{}")
            told = json.loads(said)
            self.about, self.ties = dict(told.get("about", {})), told.get("ties", "down")
            check_about(self.about)
            self.steps = [(op, tuple(inputs), name) for op, inputs, name, _ in told.get("steps", [])]
            self._tensors = [str(tensor) for *_, tensor in told.get("steps", [])]
        except (ValueError, TypeError, AttributeError, RecursionError, onnx.checker.ValidationError) as error:
            raise ValueError(f"{path} is no ONNX file that can be verified: {error!s:.300}") from error
        except Exception as error:  # protobuf and shape inference raise errors of their own
            first = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(f"{path} is no ONNX file that can be verified: {first:.300}") from error
        self._made = {out: node for node in self.model.graph.node for out in node.output}
        self._held = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self._sessions: dict[tuple[Sequence[str], Sequence[str]], Any] = {}

    def bits(self) -> list[Bits]:
        """Return the bits of each product's weight, from the integers (or floats) that it is made of."""
        return measured(self.model)

    def differences(self, reference: Exported) -> tuple[dict[str, str], list[str]]:
        """Compare each weight, each input beside all its borders, and then all nodes with those of qviz.

        With these nodes an input can differ nowhere else, so that this holds for all images.
        """
        found, remarks = {}, []
        walked = list(self.steps) == steps_of(reference)
        used = {step.name for step in reference.program}  # not a head for training, which no file has
        for name, layer in reference.layers.items():
            if used and name not in used:
                continue
            if f"{name}.weight" not in self._made and f"{name}.weight" not in self._held:
                found[name] = "not in the file"
                continue
            weight = layer.weight.value() if isinstance(layer.weight, WeightTable) else layer.weight
            own = self.run({}, [f"{name}.weight"])[0]
            what = []
            if own.shape != weight.shape:
                what.append(f"weight of shape {tuple(own.shape)} instead of {tuple(weight.shape)}")
            elif wrong := int((own != weight).sum()):
                what.append(f"{wrong} of {count(weight.numel(), 'weight')} differ")
            if layer.input is not None and walked:
                wrong, ties = self._borders(name, layer.input, weight.ndim)
                what += [f"its input differs beside {count(wrong, 'border')}"] if wrong else []
                remarks += [f"{name}: ties go to even at {count(ties, 'border')}"] if ties else []
            if what:
                found[name] = "; ".join(what)
        return found or self._unlike(reference), remarks

    def _unlike(self, reference: Exported) -> dict[str, str]:
        """Return which nodes and numbers are not those that qviz writes for the reference."""
        shape = self.about.get("shape") or reference.about.get("shape")
        reference = replace(reference, about={**reference.about, "shape": shape})
        try:
            expected, _ = as_onnx(reference, self.ties, self.model.opset_import[0].version)
        except ValueError as reason:
            return {"graph": f"qviz would not write the reference as ONNX: {reason}"}
        own, right = _pieces(self.model), _pieces(expected)
        names = sorted(name for name in own.keys() | right.keys() if own.get(name) != right.get(name))
        what = f"{some(names, 4)} not as qviz writes it, so that nothing follows for other images"
        return {"graph": what} if names else {}

    def _borders(self, name: str, table: InputTable, rank: int) -> tuple[int, int]:
        """Return at how many borders the input's values differ, and at how many only within a tie."""
        ends = (f"{name}.u", f"{name}.read_level") if table.adapter is not None else ("", f"{name}.read")
        if ends[1] not in self._made:
            return table.borders.numel(), 0
        table = replace(table, adapter=None)
        start = ends[0] or self._tensors[self._reads(name)]
        channels = 1 if table.borders.ndim == 1 else table.borders.shape[1]
        borders = table.borders.reshape(len(table.borders), channels)

        def wrong(slack: int) -> Tensor:
            low, high = borders.numpy(), np.nextafter(borders.numpy(), np.float32(np.inf))
            for _ in range(slack):
                low, high = np.nextafter(low, np.float32(-np.inf)), np.nextafter(high, np.float32(np.inf))
            shape = (-1, channels, *(1,) * (rank - 2))
            x = torch.from_numpy(np.concatenate([low, high])).view(shape)
            far = torch.tensor([-_LARGEST, _LARGEST]).view(2, *(1,) * (rank - 1)).expand(2, *x.shape[1:])
            x = torch.cat([x, far])
            same = self.run({start: x}, [ends[1]])[0] == table.value(x)
            bad = ~same.flatten(1)
            return (bad[: len(low)] | bad[len(low) : 2 * len(low)]).sum() + bad[-2:].sum()

        exact = int(wrong(0))
        beyond = int(wrong(SLACK)) if exact and self._rounds_to_even(ends[1]) else exact
        return beyond, 0 if beyond else exact

    def _rounds_to_even(self, name: str) -> bool:
        """Whether a tensor is made by QuantizeLinear alone."""
        for kind in ("DequantizeLinear", "Clip", "QuantizeLinear"):
            node = self._made.get(name)
            if node is not None and node.op_type == kind:
                name = node.input[0]
            elif kind != "Clip":
                return False
        return name not in self._made or self._made[name].op_type != "Ceil"

    def _reads(self, name: str) -> int:
        return next(
            inputs[0] for op, inputs, layer in self.steps if layer == name and op in ("conv", "linear")
        )

    def outputs(self, images: Tensor, steps: Sequence[int]) -> dict[int, Tensor]:
        """Run the network, all optimizations of onnxruntime on."""
        made = self.run({self.input: images}, [self._tensors[i] for i in steps])
        return dict(zip(steps, made, strict=True))

    def step(self, number: int, inputs: Sequence[Tensor], adapter: Adapter | None = None) -> Tensor:
        """Run the nodes of one step; a sample's own step that is right to 1e-5 gives way to the exact one."""
        names = [self._tensors[i] for i in self.steps[number][1]]
        given = dict(zip(names, inputs, strict=True))
        divided = self._made.get(f"{self.steps[number][2]}.u")
        if adapter is not None and divided is not None:
            own, right = self.run(given, [divided.input[1]])[0], adapter.steps(inputs[0])
            given |= {divided.input[1]: right} if torch.allclose(own, right, rtol=1e-5, atol=0) else {}
        return self.run(given, [self._tensors[number]])[0]

    def codes(self, step: Step, table: InputTable, x: Tensor) -> Tensor:
        """Return the codes that a layer reads of a map; of an adaptive step, with the one of onnxruntime."""
        if table.adapter is not None and f"{step.name}.u" in self._made:
            x = self.run({self._tensors[step.inputs[0]]: x}, [f"{step.name}.u"])[0]
            table = replace(table, adapter=None)
        return table.codes(as_rows(step, x)).view(x.shape)

    def answer(self, images: Tensor) -> Tensor:
        """Run the network."""
        return self.run({self.input: images}, [self.model.graph.output[0].name])[0]

    @property
    def input(self) -> str:
        """The name of the images."""
        return next(value.name for value in self.model.graph.input if value.name not in self._held)

    def run(self, given: Mapping[str, Tensor], wanted: Sequence[str]) -> list[Tensor]:
        """Return some tensors of the graph, given others."""
        key = tuple(given), tuple(wanted)
        if key not in self._sessions:
            self._sessions[key] = session(self._part(given, wanted))
        with refusals():
            found = self._sessions[key].run(None, {name: x.contiguous().numpy() for name, x in given.items()})
        return [torch.from_numpy(np.array(value)) for value in found]

    def _part(self, given: Mapping[str, Tensor], wanted: Sequence[str]) -> onnx.ModelProto:
        """Return the part of the graph that leads from some tensors to others, as a model."""
        import onnx
        from onnx import TensorProto, helper

        needed, queue = set(), [name for name in wanted if name not in given]
        while queue:
            name = queue.pop()
            if name in needed or name in given:
                continue
            needed.add(name)
            queue.extend(self._made[name].input if name in self._made else ())
        nodes = [node for node in self.model.graph.node if needed & set(node.output)]
        held = [tensor for name, tensor in self._held.items() if name in needed]
        ends = [
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
            for names in (given, wanted)
        ]
        model = onnx.ModelProto(ir_version=self.model.ir_version, opset_import=self.model.opset_import)
        model.graph.CopyFrom(helper.make_graph(nodes, "part", *ends, held))
        return model


def _pieces(model: onnx.ModelProto) -> dict[str, bytes]:
    """Return the nodes and the numbers of a graph by their names, and what goes in and out."""
    graph = model.graph
    pieces = {node.output[0]: node.SerializeToString(deterministic=True) for node in graph.node}
    pieces |= {tensor.name: tensor.SerializeToString(deterministic=True) for tensor in graph.initializer}
    ends = [[value.name for value in values] for values in (graph.input, graph.output)]
    return pieces | {"its ends": json.dumps(ends).encode()}
