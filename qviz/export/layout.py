"""Layout: what stands where in a file of ``qviz.export``, schema 1.

It is one safetensors file (8 bytes with the length of a JSON header, the header, the tensors), so any reader
of safetensors opens it, and nothing in it is run. For a layer L (the module's name, such as
"layer1.0.conv1") it has

    L.codes      uint8     the codes of the weight as a stream of bits, see ``qviz.export.pack``
    L.levels     float32   (K,) what each code stands for
    L.scale      float32   (), (C,) one for each channel, or with one for each group; absent for 1
    L.offset     float32   as L.scale; absent for 0
    L.factor     float32   () DAQ's output scale; absent for 1
    L.weight     float32   instead of the five above, where the weight is not quantized
    L.bias       float32   (out,); absent where there is none
    L.borders    float32   (K - 1,) or (K - 1, C) code of an input x = how many borders are below x
    L.values     float32   (K,) or (K, C) what each code of the input stands for
                           (both absent where the input stays in floating point)
    L.adapter.step, L.adapter.0.weight, L.adapter.0.bias, L.adapter.1.weight, …
                 float32   ASQ's network; borders and values are then in units of the sample's step

and every other tensor of the model's state under its key there (BatchNorm's: N.running_mean, N.running_var,
N.weight, N.bias). The weight is factor × (scale × levels[code] + offset), in this order, in float32.

The header's ``__metadata__`` has texts:

    format       "qviz.export"
    schema       "1"
    layers       JSON: layer -> its record, of which absent entries are null, 0 or ""
                     shape          of the weight, where it has codes
                     bits           of a code, from the largest code
                     axis           the axis that scale and offset run along
                     group          how many neighbors along the axis share a scale
                     mode           of the adapter, "paper" or "softplus"
                     weight_recipe, input_recipe     the calls that made the quantizers
    program      JSON: the steps, each [op, numbers of earlier steps, module's name, arguments]; see ``OPS``
    untraceable  why there are no steps
    about        JSON: model, shape (of one image), mean and std (by channel), policy (of first and last
                 layer), and what else was given to ``describe``
    sha256       over all other texts and all tensors: of the JSON of the texts with sorted keys (as
                 json.dumps(texts, sort_keys=True) has it), and then, by name, of "name dtype [shape]" with a
                 line end, and the bytes; a reader compares it before it believes anything
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from reprlib import repr
from typing import Any

import numpy as np
from torch import Tensor

from qviz.export.exported import Exported, Step
from qviz.export.numpy_file import digest
from qviz.export.packing import pack, unpack
from qviz.export.shapes import whole
from qviz.export.tables import Adapter, InputTable, LayerTables, WeightTable

FORMAT, SCHEMA = "qviz.export", "1"
_WEIGHT = ("levels", "scale", "offset", "factor")


def flatten(exported: Exported) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the texts of a file, its hash among them.

    Raises:
        ValueError: A layer's tensor has the name of another tensor.
    """
    tensors = {
        f"{n}.{key}": v for n, layer in exported.layers.items() for key, v in tensors_of(layer).items()
    }
    records = {name: _record(layer) for name, layer in exported.layers.items()}
    if both := tensors.keys() & exported.tensors.keys():
        raise ValueError(f"two tensors have the name {min(both)!r}")
    tensors |= exported.tensors
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    texts = {
        "format": FORMAT,
        "schema": SCHEMA,
        "layers": _json(records),
        "program": _json([[step.op, list(step.inputs), step.name, step.args] for step in exported.program]),
        "untraceable": exported.untraceable,
        "about": _json(exported.about),
    }
    return tensors, texts | {"sha256": digest(arrays(tensors), texts)}


def unflatten(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> Exported:
    """Return the network of tensors and texts of which the hash is right.

    Raises:
        ValueError, KeyError, TypeError: They are not those of a network.
    """
    left = dict(tensors)
    layers = {name: _take(left, name, record) for name, record in json.loads(texts["layers"]).items()}
    program = tuple(
        Step(op, tuple(read), name, args) for op, read, name, args in json.loads(texts["program"])
    )
    return Exported(layers, left, program, texts["untraceable"], json.loads(texts["about"]))


def arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Return tensors as arrays of numpy, which share their memory."""
    return {name: value.numpy() for name, value in tensors.items()}


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def tensors_of(layer: LayerTables) -> dict[str, Tensor]:
    """Return the tensors of a layer by what follows its name in the file; codes are packed."""
    weight, read = layer.weight, layer.input
    named: dict[str, Tensor | None] = {"bias": layer.bias}
    if isinstance(weight, WeightTable):
        named["codes"] = pack(weight.codes, weight.bits)
        named |= {key: getattr(weight, key) for key in _WEIGHT}
    else:
        named["weight"] = weight
    if read is not None:
        named |= {"borders": read.borders, "values": read.values}
        if read.adapter is not None:
            named["adapter.step"] = read.adapter.step
            for i, pair in enumerate(read.adapter.layers):
                named |= dict(zip((f"adapter.{i}.weight", f"adapter.{i}.bias"), pair, strict=True))
    return {key: value for key, value in named.items() if value is not None}


def _record(layer: LayerTables) -> dict[str, Any]:
    """Return what a file says of a layer besides its tensors."""
    weight, read = layer.weight, layer.input
    record: dict[str, Any] = {}
    if isinstance(weight, WeightTable):
        record |= {"shape": list(weight.codes.shape), "bits": weight.bits, "axis": weight.axis}
        record |= {"group": weight.group or None, "weight_recipe": weight.recipe}
    if read is not None:
        record |= {"mode": None if read.adapter is None else read.adapter.mode, "input_recipe": read.recipe}
    return {key: value for key, value in record.items() if value not in (None, "")}


def _take(tensors: dict[str, Tensor], name: str, record: Mapping[str, Any]) -> LayerTables:
    """Return the tables of a layer, and take its tensors away."""
    own = _Own(tensors, name)
    weight: WeightTable | Tensor | None = own.may("weight")
    if weight is None:
        shape = record["shape"]
        if not (isinstance(shape, list) and all(map(whole(1), shape))):
            raise ValueError(f"layer {name!r} has the shape {repr(shape)}")
        weight = WeightTable(
            codes=unpack(own.must("codes"), record["bits"], shape),
            levels=own.must("levels"),
            scale=own.may("scale"),
            offset=own.may("offset"),
            axis=record.get("axis"),
            group=record.get("group", 0),
            factor=own.may("factor"),
            recipe=record.get("weight_recipe", ""),
        )
    read = _input(own, record) if f"{name}.borders" in tensors else None
    return LayerTables(weight, read, own.may("bias"))


def _input(own: _Own, record: Mapping[str, Any]) -> InputTable:
    adapter = None
    if (step := own.may("adapter.step")) is not None:
        pairs = []
        while (weight := own.may(f"adapter.{len(pairs)}.weight")) is not None:
            pairs.append((weight, own.must(f"adapter.{len(pairs)}.bias")))
        adapter = Adapter(record["mode"], tuple(pairs), step)
    return InputTable(own.must("borders"), own.must("values"), adapter, record.get("input_recipe", ""))


class _Own:
    """The tensors of one layer, which are taken away from all."""

    def __init__(self, tensors: dict[str, Tensor], name: str) -> None:
        self.tensors, self.name = tensors, name

    def must(self, key: str) -> Tensor:
        return self.tensors.pop(f"{self.name}.{key}")

    def may(self, key: str) -> Tensor | None:
        return self.tensors.pop(f"{self.name}.{key}", None)
