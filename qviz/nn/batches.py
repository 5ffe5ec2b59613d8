"""Batches: what a model takes, however it is given."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qviz.core._text import some

Batch = Tensor | np.ndarray | tuple | list | Mapping
"""One batch: a tensor or array, a mapping of keyword arguments, or a pair (inputs, labels).

The inputs of a pair are such a tensor, array or mapping, or a tuple of positional arguments. A tuple is a
pair, or inputs alone where it has one element. So is a list, as DataLoaders make it of a pair, but one of
pairs or mappings is several batches. A list of tensors that are alike could be batches, samples or a pair and
is refused: ``iter(batches)`` gives them as batches, ``torch.cat(batches)`` as one.
"""

BATCHES = 8
"""So many batches of a loader are looked at."""

REMEDY = "give several batches as iter(batches), one batch as one tensor, a pair as a tuple (inputs, labels)"


def batches_of(batch: Batch | Iterable[Batch]) -> Iterator[Batch]:
    """Return one batch as it is; of a loader, an iterator, or a list of pairs or mappings the first batches.

    Raises:
        TypeError: It is neither, or a list that could be a pair as well as two batches.
        ValueError: The loader is empty.
    """
    many = isinstance(batch, list) and batch and all(isinstance(b, (tuple, list, Mapping)) for b in batch)
    if not many and isinstance(batch, (Tensor, np.ndarray, tuple, list, Mapping)):
        if isinstance(batch, list) and len(batch) == 2 and _alike(*batch):
            raise TypeError(f"{_told(batch)}, could be a pair or two batches: {REMEDY}")
        yield batch
        return
    if isinstance(batch, (str, bytes)) or not isinstance(batch, Iterable):
        raise TypeError(
            "batch must be a tensor, an array, a mapping, a pair (inputs, labels) or a loader of these, "
            f"got {type(batch).__name__}"
        )
    count = 0
    for count, one in enumerate(itertools.islice(batch, BATCHES), 1):  # noqa: B007 (counts what came)
        yield one
    if count == 0:
        raise ValueError("the loader gives no batch: it is empty, or an iterator that was used up before")


def forward(model: nn.Module, batch: Batch) -> Any:
    """Run the model on one batch, whose labels, if it is a pair, are left out; return its output.

    Raises:
        TypeError: The batch is a tuple or a list of more than two.
        ValueError: It is an empty one.
    """
    if isinstance(batch, (tuple, list)):
        if not batch:
            raise ValueError("the batch is empty: it must hold the inputs first")
        if len(batch) > 2:
            raise TypeError(
                f"a batch must be its inputs or a pair (inputs, labels), got {_told(batch)}: {REMEDY}"
            )
        batch = batch[0]
    return call(model, batch)


def call(net: nn.Module, x: Any) -> Any:
    """Run a network on a tensor or an array, a tuple of arguments, or a mapping of keyword arguments."""
    if isinstance(x, Mapping):
        return net(**{key: tensor_of(value) for key, value in x.items()})
    return net(*map(tensor_of, x)) if isinstance(x, (tuple, list)) else net(tensor_of(x))


def tensor_of(value: Any) -> Any:
    """Return an array as a tensor, and anything else as it is."""
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def samples(batch: Batch) -> int:
    """Return how many samples the batch holds: the length of its first tensor; 0 where there is none."""
    if isinstance(batch, (Tensor, np.ndarray)):
        return len(batch) if batch.ndim else 0
    if isinstance(batch, Mapping):
        batch = tuple(batch.values())
    return next(filter(None, map(samples, batch)), 0) if isinstance(batch, (tuple, list)) else 0


def _alike(one: Any, other: Any) -> bool:
    """Return whether two tensors may be the same thing twice: batches, or images that may differ in size."""
    if type(one) is not type(other) or not isinstance(one, (Tensor, np.ndarray)) or one.dtype != other.dtype:
        return False
    return one.ndim == other.ndim and (one.shape[1:] == other.shape[1:] or one.ndim == 3)


def _told(batch: tuple | list) -> str:
    """Return what a tuple or list is, with the shapes of the tensors in it."""
    sizes = [str(tuple(one.shape)) for one in batch if isinstance(one, (Tensor, np.ndarray))]
    which = f", which are of {some(list(dict.fromkeys(sizes)))}" if sizes else ""
    return f"a {type(batch).__name__} of {len(batch)}{which}"
