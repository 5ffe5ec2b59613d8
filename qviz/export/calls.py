"""Calls: the functions and methods of a traced network that steps stand for."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx

Made = tuple[tuple[Any, ...], list[tuple[str, dict[str, Any]]]] | None
"""What is read and the steps made of it, or None where no step stands for these arguments."""


def _add(x: Any, other: Any, *, alpha: float = 1) -> Made:
    both = isinstance(x, fx.Node) and isinstance(other, fx.Node) and alpha == 1
    return ((x, other), [("add", {})]) if both else None


def _relu(x: Any, inplace: bool = False) -> Made:
    return (x,), [("relu", {})]


def _relu6(x: Any, inplace: bool = False) -> Made:
    return (x,), [("clip", {"low": 0.0, "high": 6.0})]


def _clamp(x: Any, min: Any = None, max: Any = None) -> Made:
    numbers = isinstance(min, int | float) and isinstance(max, int | float)
    return ((x,), [("clip", {"low": float(min), "high": float(max)})]) if numbers else None


def _dropout(x: Any, p: float = 0.5, training: bool = False, inplace: bool = False) -> Made:
    return None if training else ((x,), [])


def _flatten(x: Any, start_dim: int = 0, end_dim: int = -1) -> Made:
    return ((x,), [("flatten", {})]) if (start_dim, end_dim) == (1, -1) else None


def _view(x: Any, *shape: Any) -> Made:
    rows, rest = shape if len(shape) == 2 else (None, None)
    whole = isinstance(rows, fx.Node) and of_a_shape(rows) and rest == -1
    return ((x,), [("flatten", {})]) if whole else None


def _mean(x: Any, dim: Any = None, keepdim: bool = False) -> Made:
    if not isinstance(dim, tuple | list) or sorted(axis % 4 for axis in dim) != [2, 3]:
        return None
    return (x,), [("mean", {})] if keepdim else [("mean", {}), ("flatten", {})]


def _average(x: Any, output_size: Any) -> Made:
    return ((x,), [("mean", {})]) if output_size in (1, (1, 1), [1, 1]) else None


def _pad(x: Any, pad: Any, mode: str = "constant", value: float | None = None) -> Made:
    if (
        not isinstance(pad, tuple | list)
        or mode != "constant"
        or value not in (None, 0)
        or len(pad) != 6
        or any(pad[:4])
        or min(pad) < 0
    ):
        return None
    return (x,), [("pad_channels", {"before": pad[4], "after": pad[5]})]


def _slice(x: Any, index: Any) -> Made:
    parts = index if isinstance(index, tuple) else ()
    if len(parts) != 4 or not all(isinstance(part, slice) and not part.start for part in parts):
        return None
    steps = [part.step or 1 for part in parts]
    cut = any(part.stop is not None for part in parts) or steps[:2] != [1, 1] or steps[2] != steps[3]
    return None if cut else ((x,), [("subsample", {"step": steps[2]})])


def of_a_shape(node: fx.Node) -> bool:
    """Whether a node is the number of samples, x.size(0) or x.shape[0], or the shape that it is read from."""
    if node.target == "size" and node.args[1:] == (0,):
        return True
    if node.target is getattr and node.args[1] == "shape":
        return all(user.target is operator.getitem for user in node.users)
    of_shape = node.target is operator.getitem and isinstance(node.args[0], fx.Node)
    return of_shape and node.args[0].target is getattr and node.args[1] == 0


def called(node: fx.Node) -> str:
    """Return the name of the function or the method that a node calls."""
    return node.target if isinstance(node.target, str) else node.target.__name__


def changes_its_input(node: fx.Node) -> bool:
    """Whether a call works in place."""
    second = node.args[1] if node.target in (F.relu, F.relu6) and len(node.args) > 1 else False
    named = called(node).endswith("_") or node.target is operator.iadd
    return named or bool(node.kwargs.get("inplace", second))


CALLS: Mapping[Any, Callable[..., Made]] = {
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), _add),
    **dict.fromkeys((F.relu, torch.relu, torch.relu_, "relu", "relu_"), _relu),
    F.relu6: _relu6,
    **dict.fromkeys((torch.clamp, torch.clamp_, "clamp", "clamp_"), _clamp),
    **dict.fromkeys((F.dropout, F.dropout2d), _dropout),
    **dict.fromkeys((torch.flatten, "flatten"), _flatten),
    **dict.fromkeys(("view", "reshape"), _view),
    **dict.fromkeys((torch.mean, "mean"), _mean),
    F.adaptive_avg_pool2d: _average,
    F.pad: _pad,
    operator.getitem: _slice,
}
"""By what is called: takes the arguments of the call."""
