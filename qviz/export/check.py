"""Check: what must hold of a network before it is written, and before one that was read is believed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qviz.export.exported import Exported
from qviz.export.shapes import check_steps, shapes, whole
from qviz.export.tables import Adapter, InputTable, LayerTables, WeightTable

_PART = r"(?!__)[^\s./\\\x00-\x1f\x7f]+"
_NAME = re.compile(rf"{_PART}(\.{_PART})*")
DTYPES = (torch.float32, torch.int64, torch.int32, torch.uint8, torch.bool)
"""What a tensor that belongs to no convolution or linear layer may be."""

_LEVELS = 256


def check(exported: Exported) -> None:
    """See that tables, tensors and steps are what they should be and fit together.

    Raises:
        ValueError: Something does not, in one sentence.
    """
    taken = set(dir(nn.Module()))  # "forward" cannot be the name of a module inside of another
    for name in (*exported.layers, *exported.tensors):
        if not _NAME.fullmatch(name) or len(name) > _LEVELS or not taken.isdisjoint(name.split(".")):
            raise ValueError(f"{name[:_LEVELS]!r} is no name of a layer or a tensor")
    for name, layer in exported.layers.items():
        try:
            _layer(layer)
        except ValueError as problem:
            raise ValueError(f"layer {name!r}: {problem}") from problem
    for name, value in exported.tensors.items():
        if value.dtype not in DTYPES:
            raise ValueError(f"the tensor {name!r} is {value.dtype}")
    check_about(exported.about)
    check_steps(exported)
    _norms(exported)
    if exported.program and exported.about.get("shape") is not None:
        shapes(exported, exported.about["shape"])


def check_about(about: Mapping[str, Any]) -> None:
    """See that what a file says of its images and its network is of the right kind.

    Raises:
        ValueError: It is not.
    """
    shape, mean, std = (about.get(key) for key in ("shape", "mean", "std"))
    if shape is not None and not (isinstance(shape, list) and len(shape) < 4 and all(map(whole(1), shape))):
        raise ValueError(f"the shape of an image is {shape!r}")
    for name, value in (("mean", mean), ("std", std)):
        if value is not None and not (isinstance(value, list) and all(map(_finite, value))):
            raise ValueError(f"{name} is {value!r}")
    if std is not None and not all(v > 0 for v in std):
        raise ValueError(f"std is {std!r}")
    for name in ("model", "policy"):
        if not isinstance(about.get(name, ""), str):
            raise ValueError(f"{name} is {about[name]!r}")


def _finite(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _norms(exported: Exported) -> None:
    """See that the tensors of each BatchNorm have one shape."""
    for name in {step.name for step in exported.program if step.op == "batchnorm"}:
        keys = [f"{name}.{key}" for key in ("running_mean", "running_var", "weight", "bias")]
        found = {key: exported.tensors[key] for key in keys if key in exported.tensors}
        for key, value in found.items():
            _vector(key, value, len(found[keys[0]].flatten()))


def _layer(layer: LayerTables) -> None:
    weight = layer.weight
    if isinstance(weight, WeightTable):
        _weight(weight)
    elif weight.dtype != torch.float32:
        raise ValueError(f"its weight is {weight.dtype}")
    if len(layer.shape) not in (2, 4) or min(layer.shape) < 1:
        raise ValueError(f"its weight has the shape {tuple(layer.shape)}")
    if layer.bias is not None:
        _vector("bias", layer.bias, layer.shape[0])
    if layer.input is not None:
        _input(layer.input)


def _weight(table: WeightTable) -> None:
    codes, axis, group = table.codes, table.axis, table.group
    if codes.dtype != torch.uint8 or not codes.numel():
        raise ValueError(f"its codes are {codes.dtype} of shape {tuple(codes.shape)}")
    _vector("levels", table.levels, None, _LEVELS)
    if int(codes.max()) >= len(table.levels):
        raise ValueError(f"its codes go up to {int(codes.max())}, but it has {len(table.levels)} levels")
    if not (axis is None or (isinstance(axis, int) and -codes.ndim <= axis < codes.ndim)):
        raise ValueError(f"axis is {axis!r}")
    if not whole(0)(group) or (group and (axis is None or codes.shape[axis] % group)):
        raise ValueError(f"group is {group!r} along axis {axis!r} of codes of shape {tuple(codes.shape)}")
    for name in ("scale", "offset"):
        if (value := getattr(table, name)) is not None:
            _shaped(name, value, _scales(codes, axis, group))
    if table.factor is not None:
        _shaped("factor", table.factor, [()])


def _scales(codes: Tensor, axis: int | None, group: int) -> list[tuple[int, ...]]:
    """Return the shapes that a scale may have."""
    if axis is None:
        return [()]
    if not group:
        return [(), (codes.shape[axis],)]
    *others, last = codes.movedim(axis, -1).shape
    return [(*others, last // group)]


def _input(table: InputTable) -> None:
    borders, values = table.borders, table.values
    if borders.ndim not in (1, 2) or borders.ndim != values.ndim or len(values) - 1 != len(borders):
        raise ValueError(
            f"its borders and values have the shapes {tuple(borders.shape)}, {tuple(values.shape)}"
        )
    if borders.shape[1:] != values.shape[1:] or not 1 <= len(values) <= _LEVELS:
        raise ValueError(
            f"its borders and values have the shapes {tuple(borders.shape)}, {tuple(values.shape)}"
        )
    _shaped("values", values, [tuple(values.shape)])
    if borders.dtype != torch.float32 or borders.isnan().any() or (borders.diff(dim=0) < 0).any():
        raise ValueError("its borders fall, or are not float32 numbers")
    if table.adapter is not None:
        _adapter(table.adapter)


def _adapter(adapter: Adapter) -> None:
    if adapter.mode not in ("paper", "softplus") or not adapter.layers:
        raise ValueError(f"its adapter has the mode {adapter.mode!r} and {len(adapter.layers)} layers")
    _shaped("adapter.step", adapter.step, [()])
    width = None
    for i, (weight, bias) in enumerate(adapter.layers):
        if weight.ndim != 2 or width not in (None, weight.shape[1]):
            raise ValueError(f"adapter.{i}.weight has the shape {tuple(weight.shape)}")
        width = len(weight)
        _shaped(f"adapter.{i}.weight", weight, [tuple(weight.shape)])
        _vector(f"adapter.{i}.bias", bias, width)
    if width != 1:
        raise ValueError(f"its adapter gives {width} numbers")


def _vector(name: str, value: Tensor, length: int | None, most: int | None = None) -> None:
    if value.ndim != 1 or (length is None and not 1 <= len(value) <= most):
        raise ValueError(f"{name} has the shape {tuple(value.shape)}")
    _shaped(name, value, [(len(value) if length is None else length,)])


def _shaped(name: str, value: Tensor, allowed: Sequence[tuple[int, ...]]) -> None:
    if tuple(value.shape) not in allowed:
        raise ValueError(
            f"{name} has the shape {tuple(value.shape)} and not {' or '.join(map(str, allowed))}"
        )
    if value.dtype != torch.float32 or not value.isfinite().all():
        raise ValueError(f"{name} is not made of finite float32 numbers")
