"""The loader protocol: batches that depend on (seed, epoch, step) alone, so a run can resume anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from qviz.nn.data.augment import ORDER, generator


@runtime_checkable
class Loader(Protocol):
    """What ``qviz.nn.train.fit`` and ``evaluate`` read images from.

    The order of images and the augmentation of each batch depend on (seed, epoch, step) alone, never on what
    ran before. A training loader leaves out the last, partial batch; an evaluation loader keeps it and has no
    randomness.

    Attributes:
        num_classes: Labels run from 0 to num_classes − 1.
        samples: Images an epoch.
        batch_size: Images a batch, over all processes together.
    """

    num_classes: int
    samples: int
    batch_size: int

    def __len__(self) -> int:
        """Steps an epoch."""
        ...

    def batches(
        self,
        epoch: int,
        *,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield x, float32 (N, C, H, W), and y, int64 (N,), from step ``start`` on.

        Of each batch, process ``rank`` of ``world`` gets the rows rank, rank + world, …: together they have
        the batch of one process, bit for bit.
        """
        ...


class Steps:
    """What every loader of qviz has in common: sizes, the order of an epoch, checked requests.

    Args:
        count: Images in the set.
        batch_size: Images a batch.
        train: Shuffle, and leave out the last partial batch.
        seed: The seed of the order.

    Raises:
        ValueError: A number is out of range, or a training set is smaller than one batch.
    """

    def __init__(self, count: int, batch_size: int, train: bool, seed: int) -> None:
        if batch_size < 1 or seed < 0:
            raise ValueError(
                f"batch_size must be at least 1 and seed at least 0, got {batch_size} and {seed}."
            )
        if count < (batch_size if train else 1):
            raise ValueError(f"batch_size is {batch_size}, but there are only {count} images.")
        self.count, self.batch_size, self.train, self.seed = count, batch_size, train, seed
        self.steps = count // batch_size if train else -(-count // batch_size)
        self.samples = self.steps * batch_size if train else count

    def rows(self, epoch: int) -> list[Tensor]:
        """Return the rows of the set that each batch of an epoch has: int64, one tensor a step."""
        if self.train:
            order = torch.randperm(self.count, generator=generator(self.seed, ORDER, epoch))
        else:
            order = torch.arange(self.count)
        return list(order[: self.samples].split(self.batch_size))

    def check(self, epoch: int, start: int, rank: int, world: int) -> None:
        """Refuse a request that no epoch has.

        Raises:
            ValueError: An argument is out of range, or the processes would get training batches of
                different sizes.
        """
        if epoch < 0 or not 0 <= start <= self.steps:
            raise ValueError(
                f"epoch must be at least 0 and start in 0..{self.steps}, got {epoch} and {start}."
            )
        if not 0 <= rank < world:
            raise ValueError(f"rank must be in 0..world - 1, got {rank} of {world}.")
        if self.train and self.batch_size % world:
            raise ValueError(f"batch_size {self.batch_size} cannot be shared evenly by {world} processes.")


def balanced(labels: Tensor, limit: int | None) -> Tensor:
    """Return the rows of the first ``limit`` images when classes take turns: int64, increasing.

    Counts of two classes differ by one at most, while both last. None gives every row.

    Raises:
        ValueError: There are fewer images, or ``limit`` is not positive.
    """
    if limit is None:
        return torch.arange(len(labels))
    if not 1 <= limit <= len(labels):
        raise ValueError(f"limit must be in 1..{len(labels)}, got {limit}.")
    by_class = torch.argsort(labels, stable=True)
    counts = torch.bincount(labels)
    first = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    turn = torch.empty_like(by_class)
    turn[by_class] = torch.arange(len(labels)) - first  # its rank within its class
    chosen = torch.argsort(turn * (int(labels.max()) + 1) + labels)[:limit]
    return chosen.sort().values


def describe(value: object) -> str:
    """Name what a transform returned, for error messages."""
    return (
        f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
    )
