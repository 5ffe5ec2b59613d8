"""Batches: what a model takes, however it is given."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Batch = Tensor | np.ndarray | tuple | list | Mapping
"""What a model takes: a tensor or array, a mapping of keyword arguments, or a loader's (inputs, labels)."""

BATCHES = 8
"""So many batches of a loader are looked at."""


def batches_of(batch: Batch | Iterable[Batch]) -> Iterator[Batch]:
    """Return one batch as it is; of a loader, an iterator, or a list of pairs or mappings the first batches.

    Raises:
        TypeError: It is neither.
        ValueError: The loader is empty.
    """
    many = isinstance(batch, list) and batch and isinstance(batch[0], (tuple, list, Mapping))
    if not many and isinstance(batch, (Tensor, np.ndarray, tuple, list, Mapping)):
        yield batch
        return
    if not isinstance(batch, Iterable):
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
    """Run the model on one batch, whose labels, if it is a pair, are left out; return its output."""
    if isinstance(batch, Mapping):
        return model(**{key: tensor_of(value) for key, value in batch.items()})
    if isinstance(batch, (tuple, list)):
        if not batch:
            raise ValueError("the batch is empty: it must hold the inputs first")
        batch = batch[0]
        if isinstance(batch, Mapping):
            return forward(model, batch)
    return model(tensor_of(batch))


def tensor_of(value: Any) -> Any:
    """Return an array as a tensor, and anything else as it is."""
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def samples(batch: Batch) -> int:
    """Return how many samples the batch holds: the length of its first tensor; 0 where there is none."""
    if isinstance(batch, Mapping):
        batch = tuple(batch.values())
    values = batch if isinstance(batch, (tuple, list)) else (batch,)
    for value in values:
        if isinstance(value, Mapping):
            return samples(value)
        if isinstance(value, (Tensor, np.ndarray)) and value.ndim:
            return len(value)
    return 0
