"""Batches: what loaders give and networks return, in the shapes that people use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from qviz.core._text import article

TARGETS = ("labels", "label", "targets", "target", "y")
"""Keys under which a mapping may hold what is to be predicted."""

ROUNDING = 0.01
"""So far from 1 the sum of shares may be: bfloat16 has 8 significant bits."""

IGNORED = -100
"""The target of a place that has no class, as torch's losses have it."""

LOGITS = ("logits", "out")
"""Where a network that returns an object or a mapping has its scores: transformers', torchvision's."""


def parts(batch: Any) -> tuple[Any, Any]:
    """Return a batch's inputs and targets.

    Args:
        batch: A pair (inputs, targets), or a mapping of which one key is in ``TARGETS``; what is left of it
            are the network's keyword arguments.

    Raises:
        TypeError: It is something else.

    Example:
        >>> parts({"pixel_values": 1, "labels": 2})
        ({'pixel_values': 1}, 2)
    """
    if isinstance(batch, Mapping):
        found = [key for key in TARGETS if key in batch]
        if len(found) == 1:
            return {key: value for key, value in batch.items() if key != found[0]}, batch[found[0]]
        raise TypeError(
            f"a batch that is a mapping needs one of the keys {', '.join(TARGETS)}, got {', '.join(batch)}"
        )
    if isinstance(batch, Sequence) and len(batch) == 2:
        return batch[0], batch[1]
    length = f" of {len(batch)}" if isinstance(batch, Sequence) else ""
    raise TypeError(
        f"a batch must be a pair (inputs, targets) or a mapping, got {type(batch).__name__}{length}"
    )


def each(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a tensor, or a tuple, list or mapping of tensors, with each tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: each(inner, change) for key, inner in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(each(inner, change) for inner in value)
    return value


def size(x: Any, y: Any) -> int:
    """Return how many samples there are: the length of the first tensor among targets, then inputs.

    Raises:
        TypeError: There is no tensor, or none with an axis.
    """
    lengths: list[int] = []
    each((y, x), lambda t: (lengths.extend(t.shape[:1]), t)[1])
    if not lengths:
        raise TypeError(f"a batch needs tensors, got {type(x).__name__} and {type(y).__name__}")
    return lengths[0]


def logits(output: Any) -> Tensor:
    """Return the scores in what a network returned, in float32.

    Raises:
        TypeError: There are none to be found.
    """
    for name in LOGITS:
        if isinstance(output, Mapping) and name in output:
            output = output[name]
        elif isinstance(getattr(output, name, None), Tensor):
            output = getattr(output, name)
    if not isinstance(output, Tensor):
        raise TypeError(
            f"the model returned {article(type(output).__name__)} without {' or '.join(LOGITS)}; give loss= "
            "and metric=, which take it as it is"
        )
    return output.float()


def cross_entropy(output: Any, y: Tensor, smoothing: float = 0.0, *, look: bool = True) -> Tensor:
    """Return the mean cross-entropy of scores (N, classes, …) and classes (N, …), or shares (N, classes, …).

    Where no place has a class it is 0, and so is its gradient.

    Args:
        output: What a network returned.
        y: The targets.
        smoothing: As of torch's ``label_smoothing``.
        look: Whether to look at the values of shares, for which an accelerator has to be waited for.

    Raises:
        ValueError: The targets are neither.
    """
    scores = logits(output)
    if not (classes(scores, y) or shares(scores, y, look=look)):
        raise ValueError(
            f"scores {tuple(scores.shape)} and targets {tuple(y.shape)}, {y.dtype}, are no classification "
            "(classes are int64, shares of classes 0 or more with the sum 1 over axis 1); give loss="
        )
    if not classes(scores, y):
        return functional.cross_entropy(scores, y, label_smoothing=smoothing)
    return taught(lambda _, y: functional.cross_entropy(scores, y, label_smoothing=smoothing), scores, y)


def taught(loss: Callable[[Any, Any], Tensor], output: Any, y: Any) -> Tensor:
    """Return a loss that is 0, and so is its gradient, where no target of a batch has a class (NaN in torch).

    Whether that is so is not read, as an accelerator would have to be waited for.
    """
    if not (isinstance(y, Tensor) and y.dtype == torch.int64):
        return loss(output, y)
    some = (y != IGNORED).any()
    return loss(output, torch.where(some, y, 0)) * some


def classes(scores: Tensor, y: Any) -> bool:
    """Whether targets are classes: whole numbers, one for each place at which there are scores."""
    return (
        isinstance(y, Tensor)
        and y.dtype == torch.int64
        and scores.ndim > 1
        and y.shape == (scores.shape[0], *scores.shape[2:])
    )


def shares(scores: Tensor, y: Any, *, look: bool) -> bool:
    """Whether targets are shares of the classes, and not just any real numbers of the scores' shape.

    Args:
        scores: What the network says.
        y: The targets.
        look: Whether to see too that none is negative and that they have the sum 1, up to half precision.
    """
    if not (isinstance(y, Tensor) and y.is_floating_point() and y.ndim > 1 and y.shape == scores.shape):
        return False
    return not look or bool((y >= 0).all() & ((y.sum(1, dtype=torch.float32) - 1).abs() < ROUNDING).all())


def counted(y: Any, count: int) -> Tensor:
    """Return how many of a batch's samples count, float64: the mean over them has that weight.

    All do, but whole numbers as targets are classes, and a place of :data:`IGNORED` has none: a sample counts
    by its share of places that have one.
    """
    if not (isinstance(y, Tensor) and y.dtype == torch.int64):
        return torch.tensor(float(count), dtype=torch.float64)
    return count * (y != IGNORED).double().mean()


def weighted(mean: Tensor, weight: Tensor) -> Tensor:
    """Return a mean times its weight: 0 where that is 0, as the mean over nothing may be NaN."""
    return torch.where(weight > 0, mean.double() * weight, 0.0)


def right(output: Any, y: Any) -> Tensor | None:
    """Return how many samples have the highest score at their class; None where targets are no classes.

    Of a sample with several places, such as a segmented image, the share of right places counts. Places
    without a class are not right; :func:`counted` has no weight for them either.
    """
    try:
        scores = logits(output)
    except TypeError:
        return None
    if not classes(scores, y):
        return None
    hits = (scores.argmax(1) == y).double()
    return hits.reshape(len(hits), -1).mean(1).sum()
