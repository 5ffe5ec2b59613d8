"""Samples: images, in whatever form they are given, as chunks of one shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qviz.core._text import article, some
from qviz.nn.batches import Batch, batches_of, tensor_of
from qviz.nn.train.batch import TARGETS, each, size


@dataclass(frozen=True)
class Chunk:
    """Some samples: what the network takes, and their labels where they are known."""

    inputs: Any
    labels: Tensor | None = None


def chunks(images: Batch | Iterable[Batch], length: int) -> list[Chunk]:
    """Return images in chunks of at most so many samples.

    Args:
        images: A tensor or an array, samples in axis 0; a pair (images, labels); a mapping of keyword
            arguments, with or without labels; or a loader of these, or a list of pairs or mappings, of which
            the first eight batches count.
        length: Of a chunk.

    Raises:
        TypeError: They are nothing of that.
        ValueError: There are none, some of them are NaN or infinite, they are of several sizes, or there are
            more or fewer labels than samples.
    """
    if isinstance(images, (str, Path)):
        raise TypeError(f"images must be tensors or arrays, got the path {str(images)!r}")
    found = [part for one in batches_of(images) for part in _split(one, length)]
    if not found:
        raise ValueError("there are no images: the batch has no samples")
    for chunk in found:
        each(chunk.inputs, _check)
    kinds = list(dict.fromkeys(shapes(chunk.inputs) for chunk in found))
    if len(kinds) > 1:
        raise ValueError(f"images must be of one size, got {some(kinds)}: resize, crop or pad them")
    return found


def joined(some: list[Chunk]) -> Any:
    """Return the inputs of some chunks as one batch; what is no tensor with samples is that of the first."""
    inputs = [chunk.inputs for chunk in some]
    if isinstance(inputs[0], Mapping):
        return {key: _joined([one[key] for one in inputs]) for key in inputs[0]}
    return _joined(inputs)


def _joined(values: list[Any]) -> Any:
    many = isinstance(values[0], Tensor) and values[0].ndim > 0
    return torch.cat(values) if many else values[0]


def shapes(inputs: Any) -> str:
    """Return the shape of one sample of what a network takes, in words."""
    if isinstance(inputs, Mapping):
        return ", ".join(f"{key} {shapes(value)}" for key, value in inputs.items())
    if isinstance(inputs, (tuple, list)):
        return f"[{', '.join(map(shapes, inputs))}]"
    return str(tuple(inputs.shape[1:])) if isinstance(inputs, Tensor) else repr(inputs)


def _split(batch: Batch, length: int) -> list[Chunk]:
    inputs, labels = parts(batch)
    n = size(inputs, None)
    if labels is not None and len(labels) != n:
        raise ValueError(f"there are {n:,} images and {len(labels):,} labels")
    places = [slice(at, at + length) for at in range(0, n, length)]

    def cut(part: slice) -> Any:
        return each(inputs, lambda t: t[part] if t.ndim and len(t) == n else t)

    return [Chunk(cut(part), None if labels is None else labels[part]) for part in places]


def parts(batch: Batch) -> tuple[Any, Tensor | None]:
    """Return the inputs of a batch and its labels, None where there are none.

    Raises:
        TypeError: It is neither a tensor nor a pair or mapping of them, or its labels are no numbers.
        ValueError: It is empty.
    """
    if isinstance(batch, Mapping):
        found = [key for key in TARGETS if key in batch]
        labels = batch[found[0]] if len(found) == 1 else None
        return {key: tensor_of(value) for key, value in batch.items() if key not in found}, _labels(labels)
    if not isinstance(batch, (tuple, list)):
        return tensor_of(batch), None
    many = [tuple(one.shape) for one in batch if isinstance(one, (Tensor, np.ndarray)) and one.ndim == 3]
    if len(batch) > 2 or (len(set(many)) == 2 and isinstance(batch, list)):
        sizes = f", which are of {some([str(s) for s in dict.fromkeys(many)])}" if many else ""
        raise TypeError(
            f"images must be one tensor (samples in axis 0) or a pair (images, labels), got a "
            f"{type(batch).__name__} of {len(batch)}{sizes}: stack images of one size"
        )
    if not batch:
        raise ValueError(f"there are no images: the {type(batch).__name__} is empty")
    if isinstance(batch[0], (tuple, list)):
        raise TypeError(
            "of a network with several inputs they are given as a mapping from the names of its arguments, "
            f"got a {type(batch[0]).__name__} of samples {shapes([tensor_of(one) for one in batch[0]])}"
        )
    inputs = {k: tensor_of(v) for k, v in batch[0].items()} if isinstance(batch[0], Mapping) else batch[0]
    return tensor_of(inputs), _labels(batch[1]) if len(batch) == 2 else None


def _labels(labels: Any) -> Tensor | None:
    """Return labels as a tensor, whole numbers as int64, and those of shape (N, 1) as (N,)."""
    if labels is None:
        return None
    try:
        labels = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as problem:
        raise TypeError(
            f"labels must be numbers, got {article(type(labels).__name__)}: {problem}"
        ) from problem
    if labels.ndim == 0:
        raise TypeError(f"there must be a label for each image, got {labels.item()!r}")
    whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if not whole:
        return labels
    return labels.long().flatten() if labels.shape[1:] == (1,) else labels.long()


def _check(x: Tensor) -> Tensor:
    if x.is_floating_point() and not bool(x.isfinite().all()):
        bad = int((~x.isfinite()).sum())
        raise ValueError(f"images must be finite; {bad:,} of {x.numel():,} values are NaN or infinite")
    return x
