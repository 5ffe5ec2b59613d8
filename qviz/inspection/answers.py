"""Answers: what is compared of that which a network returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

from qviz.core._text import article
from qviz.nn.train.batch import LOGITS, classes, logits


def answer(output: Any) -> Tensor:
    """Return the scores in what a network returned; without any, its first tensor of real numbers.

    Raises:
        TypeError: There is none.

    Example:
        >>> import torch
        >>> answer({"steps": torch.tensor([1]), "features": (torch.zeros(2, 3), None)}).shape
        torch.Size([2, 3])
    """
    if scored(output):
        return logits(output)
    for tensor in _tensors(output):
        return tensor.float()
    raise TypeError(
        f"the model returned {article(type(output).__name__)}, in which there is no tensor to compare"
    )


def scored(output: Any) -> bool:
    """Whether a network returned scores as far as can be told: a tensor, or what is named so."""
    if isinstance(output, Tensor):
        return True
    own = output if isinstance(output, Mapping) else getattr(output, "__dict__", {})
    return any(isinstance(own.get(name), Tensor) for name in LOGITS)


def class_axis(output: Any, labels: Tensor | None = None) -> int | None:
    """Return the axis of classes in what a network returned; None where it is not scores of classes.

    Labels decide where they are there. Without any, scores are what has the shape (N, classes), and of other
    shapes only what the network names so: (N, T, classes) or (N, classes, …). A map of numbers looks like a
    map of scores, so that shape alone says nothing.

    Args:
        output: What the network returned.
        labels: What they are judged by, whole numbers as int64.

    Example:
        >>> import torch
        >>> depths = torch.zeros(2, 3, 8, 8)
        >>> class_axis(depths), class_axis(depths, torch.zeros(2, 8, 8, dtype=torch.int64))
        (None, 1)
        >>> class_axis({"logits": torch.zeros(2, 5, 50)}), class_axis(torch.zeros(2, 3), torch.zeros(2, 3))
        (-1, None)
    """
    if not scored(output):
        return None
    y = answer(output)
    axis = -1 if labels is None and y.ndim == 3 else 1
    if labels is None:
        fits = y.ndim == 2 or (y.ndim > 2 and not isinstance(output, Tensor))
    else:
        fits = classes(y, labels)
    return axis if fits and y.shape[axis] > 1 else None


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        if output.is_floating_point() and output.ndim:
            yield output
    elif isinstance(output, Mapping):
        yield from _within(output.values())
    elif isinstance(output, (tuple, list)):
        yield from _within(output)
    elif is_dataclass(output):
        yield from _within(getattr(output, field.name) for field in fields(output))


def _within(values: Any) -> Iterator[Tensor]:
    for value in values:
        yield from _tensors(value)
