"""Shapes: what each step makes of one image, without computing it; refuses steps that do not fit together.

Needs neither torch nor numpy: a network may have the arrays of either.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from reprlib import repr
from typing import TYPE_CHECKING, Any

from qviz.export.exported import OPS, Exported, Step

if TYPE_CHECKING:
    from qviz.export.tables import LayerTables

LIMIT = 2**27
"""The most numbers that a step may make of one image, or read with its padding: half a GB of float32."""

Shape = tuple[int, ...]


def whole(least: int) -> Callable[[Any], bool]:
    """Return a test for a whole number from ``least`` on, and below 2^20."""
    return lambda v: isinstance(v, int) and not isinstance(v, bool) and least <= v < 2**20


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2.0**128


def _pair(least: int) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, list) and len(v) == 2 and all(map(whole(least), v))


ARGUMENTS: Mapping[str, Mapping[str, Callable[[Any], bool]]] = {
    "conv": {"stride": _pair(1), "padding": _pair(0), "dilation": _pair(1), "groups": whole(1)},
    "batchnorm": {"eps": _number},
    "clip": {"low": _number, "high": _number},
    "maxpool": {"kernel": _pair(1), "stride": _pair(1), "padding": _pair(0)},
    "subsample": {"step": whole(1)},
    "pad_channels": {"before": whole(0), "after": whole(0)},
}
"""The arguments of each step that has any, and what they must be."""


def check_steps(exported: Exported) -> None:
    """See that each step is known, reads earlier steps, and has its arguments and its tensors.

    Raises:
        ValueError: One does not; names it.
    """
    uses: dict[str, Step] = {}
    for i, step in enumerate(exported.program):
        wanted = ARGUMENTS.get(step.op, {})
        reads = {"input": 0, "add": 2}.get(step.op, 1)
        if not (isinstance(step.op, str) and isinstance(step.name, str) and isinstance(step.args, dict)):
            raise ValueError(f"step {i} is not made of a name, numbers, a name and arguments")
        if step.op not in OPS or (step.op == "input") != (i == 0):
            raise ValueError(f"step {i} is {repr(step.op)}")
        if len(step.inputs) != reads or not all(whole(0)(n) and n < i for n in step.inputs):
            raise ValueError(f"step {i} ({step.op}) reads {list(step.inputs)}")
        if set(step.args) != set(wanted) or not all(fits(step.args[key]) for key, fits in wanted.items()):
            raise ValueError(f"step {i} ({step.op}) has the arguments {repr(step.args)}")
        if step.op in ("conv", "linear"):
            layer = exported.layers.get(step.name)
            found = layer is not None and len(layer.shape) == {"conv": 4, "linear": 2}[step.op]
        elif step.op == "batchnorm":
            found = all(f"{step.name}.{key}" in exported.tensors for key in ("running_mean", "running_var"))
        else:
            found = step.name == ""
        if not found:
            raise ValueError(f"step {i} ({step.op}) names {repr(step.name)}, which the file does not have")
        first = uses.setdefault(step.name, step) if step.name else step
        if (first.op, first.args) != (step.op, step.args):
            raise ValueError(
                f"step {i} ({step.op}) uses {repr(step.name)} in another way than an earlier one"
            )
    for name in uses:
        if outer := [name[:k] for k, sign in enumerate(name) if sign == "." and name[:k] in uses]:
            raise ValueError(f"{repr(name)} lies inside of {repr(outer[0])}, which is a step's too")


def shapes(exported: Exported, shape: Sequence[int]) -> list[Shape]:
    """Return the shape of what each step makes of one image, the image's axis left out.

    Args:
        exported: Steps that :func:`check_steps` finds right.
        shape: Of the image, such as (3, 32, 32).

    Raises:
        ValueError: A step does not fit what it reads, or makes more than ``LIMIT`` numbers.

    Example:
        >>> from torch import nn
        >>> from qviz.export import describe
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
        >>> shapes(describe(net), (3, 8, 8))
        [(3, 8, 8), (4, 6, 6), (4, 6, 6), (144,), (2,)]
    """
    found: list[Shape] = []
    for i, step in enumerate(exported.program):
        read = [found[n] for n in step.inputs]
        made = tuple(shape) if step.op == "input" else _shape(exported, step, read)
        if made is None or min(made, default=1) < 1:
            name = f"{step.op} {step.name!r}" if step.name else step.op
            raise ValueError(f"step {i} ({name}) does not fit what it reads, {' and '.join(map(str, read))}")
        largest = max([made, *(_padded(x, step) for x in read)], key=math.prod)
        if math.prod(largest) > LIMIT:
            raise ValueError(
                f"step {i} ({step.op}) makes {largest} of one image, more than {LIMIT:,} numbers"
            )
        found.append(made)
    return found


def _shape(exported: Exported, step: Step, read: list[Shape]) -> Shape | None:
    """Return the shape that a step makes, or None where it does not fit."""
    x, a = read[0], step.args
    if step.op in ("relu", "clip"):
        return x
    if step.op == "add":
        return x if read[0] == read[1] else None
    if step.op == "flatten":
        return (math.prod(x),)
    if step.op == "linear":
        out, columns = exported.layers[step.name].shape
        return (
            (*x[:-1], out) if x[-1:] == (columns,) and _reads(exported.layers[step.name], columns) else None
        )
    if len(x) != 3:
        return None
    channels, *size = x
    if step.op == "conv":
        out, rows, *kernel = exported.layers[step.name].shape
        fits = channels == rows * a["groups"] and out % a["groups"] == 0
        fits &= _reads(exported.layers[step.name], channels)
        return (out, *_windows(size, kernel, a, a["dilation"])) if fits else None
    if step.op == "batchnorm":
        return x if len(exported.tensors[f"{step.name}.running_mean"]) == channels else None
    if step.op == "maxpool":
        half = all(2 * p <= k for p, k in zip(a["padding"], a["kernel"], strict=True))
        return (channels, *_windows(size, a["kernel"], a, [1, 1])) if half else None
    if step.op == "subsample":
        return (channels, *(-(-n // a["step"]) for n in size))
    if step.op == "pad_channels":
        return (channels + a["before"] + a["after"], *size)
    return (channels, 1, 1)


def _padded(x: Shape, step: Step) -> Shape:
    """Return the shape of x with what a step puts around it."""
    around = step.args.get("padding", [0] * (len(x) - 1))
    return (*x[:1], *(n + 2 * p for n, p in zip(x[1:], around, strict=True)))


def _reads(layer: LayerTables, channels: int) -> bool:
    """Whether borders and adapter are for so many channels."""
    table = layer.input
    if table is None:
        return True
    adapts = table.adapter is None or table.adapter.layers[0][0].shape[1] == channels
    return adapts and (table.borders.ndim == 1 or table.borders.shape[1] == channels)


def _windows(size: Sequence[int], kernel: Sequence[int], a: Mapping[str, Any], gaps: Sequence[int]) -> Shape:
    rows = zip(size, kernel, a["stride"], a["padding"], gaps, strict=True)
    return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in rows)
