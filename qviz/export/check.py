"""Check: what must hold of a network before it is written, and before one that was read is believed.

A network may have the arrays of torch or of numpy; neither is needed here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qviz.export.exported import Exported
from qviz.export.shapes import check_steps, shapes, whole

if TYPE_CHECKING:
    from qviz.export.tables import Adapter, InputTable, LayerTables, WeightTable

_PART = r"(?!__)[^\s./\\\x00-\x1f\x7f]+"
_NAME = re.compile(rf"{_PART}(\.{_PART})*")
DTYPES = ("float32", "int64", "int32", "uint8", "bool")
"""What a tensor that belongs to no convolution or linear layer may be."""

_LEVELS = 256


def check(exported: Exported, taken: Collection[str] = ()) -> None:
    """See that tables, tensors and steps are what they should be and fit together.

    Args:
        exported: The network.
        taken: What no part of a name may be.

    Raises:
        ValueError: Something does not, in one sentence.
    """
    for name in (*exported.layers, *exported.tensors):
        if not _NAME.fullmatch(name) or len(name) > _LEVELS or any(part in taken for part in name.split(".")):
            raise ValueError(f"{name[:_LEVELS]!r} is no name of a layer or a tensor")
    for name, layer in exported.layers.items():
        try:
            _layer(layer)
        except ValueError as problem:
            raise ValueError(f"layer {name!r}: {problem}") from problem
    for name, value in exported.tensors.items():
        if dtype_of(value) not in DTYPES:
            raise ValueError(f"the tensor {name!r} is {value.dtype}")
    check_about(exported.about)
    check_steps(exported)
    _norms(exported)
    if exported.program and exported.about.get("shape") is not None:
        shapes(exported, exported.about["shape"])


def dtype_of(value: Any) -> str:
    """Return the name of the type of an array's numbers, such as "float32"."""
    return str(value.dtype).removeprefix("torch.")


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
    for name, value in (("mean", mean), ("std", std)):
        if value and shape and len(value) != shape[0]:
            raise ValueError(f"{name} has {len(value)} numbers, and an image {shape[0]} channels")
    if std is not None and not all(v > 0 for v in std):
        raise ValueError(f"std is {std!r}")
    for name in ("model", "policy"):
        if not isinstance(about.get(name, ""), str):
            raise ValueError(f"{name} is {about[name]!r}")


def _finite(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _norms(exported: Exported) -> None:
    """See that the tensors of each BatchNorm have one shape, and that variances have a root."""
    for step in [step for step in exported.program if step.op == "batchnorm"]:
        keys = [f"{step.name}.{key}" for key in ("running_var", "running_mean", "weight", "bias")]
        found = {key: exported.tensors[key] for key in keys if key in exported.tensors}
        for key, value in found.items():
            _vector(key, value, len(found[keys[0]].flatten()))
        if not (found[keys[0]] + step.args["eps"] > 0).all():
            raise ValueError(f"the BatchNorm {step.name!r} has a variance below 0")


def _layer(layer: LayerTables) -> None:
    weight = layer.weight
    if hasattr(weight, "codes"):
        _weight(weight)
    elif dtype_of(weight) != "float32":
        raise ValueError(f"its weight is {weight.dtype}")
    if len(layer.shape) not in (2, 4) or min(layer.shape) < 1:
        raise ValueError(f"its weight has the shape {tuple(layer.shape)}")
    if layer.bias is not None:
        _vector("bias", layer.bias, layer.shape[0])
    if layer.input is not None:
        _input(layer.input)


def _weight(table: WeightTable) -> None:
    codes, axis, group = table.codes, table.axis, table.group
    if dtype_of(codes) != "uint8" or not math.prod(codes.shape):
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


def _scales(codes: Any, axis: int | None, group: int) -> list[tuple[int, ...]]:
    """Return the shapes that a scale may have."""
    if axis is None:
        return [()]
    if not group:
        return [(), (codes.shape[axis],)]
    others = list(codes.shape)
    last = others.pop(axis)
    return [(*others, last // group)]


def _input(table: InputTable) -> None:
    borders, values = table.borders, table.values
    fits = borders.ndim in (1, 2) and borders.ndim == values.ndim and len(values) - 1 == len(borders)
    if not fits or borders.shape[1:] != values.shape[1:] or not 1 <= len(values) <= _LEVELS:
        raise ValueError(
            f"its borders and values have the shapes {tuple(borders.shape)}, {tuple(values.shape)}"
        )
    _shaped("values", values, [tuple(values.shape)])
    if dtype_of(borders) != "float32" or not (
        (borders[1:] >= borders[:-1]).all() and (abs(borders) <= math.inf).all()
    ):
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


def _vector(name: str, value: Any, length: int | None, most: int | None = None) -> None:
    if value.ndim != 1 or (length is None and not 1 <= len(value) <= most):
        raise ValueError(f"{name} has the shape {tuple(value.shape)}")
    _shaped(name, value, [(len(value) if length is None else length,)])


def _shaped(name: str, value: Any, allowed: Sequence[tuple[int, ...]]) -> None:
    if tuple(value.shape) not in allowed:
        raise ValueError(
            f"{name} has the shape {tuple(value.shape)} and not {' or '.join(map(str, allowed))}"
        )
    if dtype_of(value) != "float32" or not (abs(value) < math.inf).all():
        raise ValueError(f"{name} is not made of finite float32 numbers")
