"""Batches of photos: decoded and cropped in worker processes, normalized on the training device."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from qviz.nn.data.augment import CROP, IMAGENET_MEAN, IMAGENET_STD, ORDER, OWN, generator, normalize, seeded
from qviz.nn.data.imagenet import ImageFolder
from qviz.nn.data.loader import Steps, balanced, describe
from qviz.nn.data.photos import Undecodable, center_crop, decode, random_resized_crop, to_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

ON_ERROR = ("skip", "raise")
_NEIGHBORS = 100
_Failures = list[tuple[str, str]]  # path, reason
_Sample = tuple[Tensor | None, int, _Failures]


class ImageLoader:
    """Batches of photos: a random resized crop and flip in training, the central crop in evaluation.

    A :class:`~qviz.nn.data.Loader`. The crop of an image depends on (seed, epoch, image) alone, so batches
    do not depend on the number of workers, and resuming costs nothing. x is channels_last. Workers live as
    long as the loader; only one pass can run at a time.

    A file that cannot be decoded is named in a warning and in ``skipped``. In training the next good image
    takes its place, so batches keep their size; in evaluation it is left out, so a batch is smaller.

    Args:
        data: What ``imagenet`` returned.
        batch_size: Over all processes together.
        train: Random order and crops, and no last partial batch; None: where the split is "train".
        size: Height and width of x, pixels; evaluation first resizes the shorter side to 256/224 of it.
        seed: The seed of order, crops and ``transform``; at least 0.
        workers: Processes that decode, for each training process; None: as many as CPUs, at most 8; 0: none.
        transform: Your own, PIL image (RGB) -> float tensor (C, H, W), instead of crop, flip and
            normalization. It may draw from the global generators of torch, numpy and Python: they are
            seeded for it. In evaluation it should not draw at all. Where processes are not forked (macOS,
            Windows) it must be picklable.
        on_error: "skip", or "raise" to stop at the first file that cannot be decoded.
        limit: Use only so many images, classes taking turns.

    Attributes:
        skipped: Path -> reason, of the files that could not be decoded so far.

    Raises:
        ValueError: An argument is out of range, or a training set is smaller than one batch.
    """

    def __init__(
        self,
        data: ImageFolder,
        batch_size: int = 256,
        *,
        train: bool | None = None,
        size: int = 224,
        seed: int = 0,
        workers: int | None = None,
        transform: Callable[[Image], Tensor] | None = None,
        on_error: str = "skip",
        limit: int | None = None,
    ) -> None:
        if on_error not in ON_ERROR:
            raise ValueError(f"on_error is {on_error!r}; choose one of {', '.join(ON_ERROR)}.")
        workers = min(8, _cpus()) if workers is None else workers
        if size < 1 or workers < 0:
            raise ValueError(f"size must be at least 1 and workers at least 0, got {size} and {workers}.")
        train = data.split == "train" if train is None else train
        rows = balanced(data.labels, limit)
        self._steps = Steps(len(rows), batch_size, train, seed)
        tries = _NEIGHBORS if train and on_error == "skip" else 1
        self._photos = _Photos(data, rows, train, size, seed, transform, tries)
        self._on_error, self._workers = on_error, workers
        self._ready: tuple[bool, _Plan, DataLoader] | None = None
        self._turn = 0
        self.skipped: dict[str, str] = {}
        self.num_classes = len(data.classes)
        self.samples, self.batch_size, self.train, self.seed = self._steps.samples, batch_size, train, seed

    def __len__(self) -> int:
        return self._steps.steps

    def batches(
        self,
        epoch: int,
        *,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield x, float32 (N, 3, size, size), and y, int64 (N,), from step ``start`` on.

        In evaluation the last batch may have fewer images than there are processes; some then get no row.

        Raises:
            ValueError: An argument is out of range, or ``world`` does not divide the batch of a training
                loader; with on_error="raise" also, while iterating: a file cannot be decoded.
            RuntimeError: While iterating: another pass was begun.
        """
        self._steps.check(epoch, start, rank, world)
        device = torch.device("cpu" if device is None else device)
        plan = [rows[rank::world].tolist() for rows in self._steps.rows(epoch)[start:]]
        return self._iterate([[(epoch, row) for row in rows] for rows in plan], device)

    def _iterate(
        self, plan: list[list[tuple[int, int]]], device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        self._turn += 1
        mine = self._turn
        try:
            for wanted, decoded in zip(plan, self._loader(plan, pinned=device.type == "cuda"), strict=True):
                yield self._finish(len(wanted), *decoded, device)
                if mine != self._turn:
                    raise RuntimeError(
                        "Another pass over this ImageLoader was begun; use one loader for each."
                    )
        except GeneratorExit:  # nobody wants the rest; the workers can go on with another pass
            raise
        except BaseException:
            if mine == self._turn:  # an interrupt may have left the workers anywhere: new ones for the next
                self._ready = None
            raise

    def _finish(
        self, wanted: int, x: Tensor, y: Tensor, failures: _Failures, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        self._report(failures)
        if self.train and len(y) < wanted:
            tried = min(_NEIGHBORS, self._steps.count)
            raise ValueError(f"{tried} files in a row cannot be decoded, one of them is {failures[-1][0]}.")
        x, y = (v.to(device, non_blocking=True) for v in (x, y))
        return (normalize(x, IMAGENET_MEAN, IMAGENET_STD) if self._photos.transform is None else x), y

    def _loader(self, plan: list[list[tuple[int, int]]], *, pinned: bool) -> DataLoader:
        if self._ready is None or self._ready[0] != pinned:
            batches = _Plan()
            loader = DataLoader(
                self._photos,
                batch_sampler=batches,
                num_workers=self._workers,
                collate_fn=partial(_collate, size=self._photos.size),
                persistent_workers=self._workers > 0,
                pin_memory=pinned,
                worker_init_fn=_ignore_interrupts,
                generator=generator(self.seed, ORDER),  # else each pass draws a number from the global one
            )
            self._ready = pinned, batches, loader
        self._ready[1].batches = plan
        return self._ready[2]

    def _report(self, failures: _Failures) -> None:
        for path, reason in failures:
            if self._on_error == "raise":
                raise Undecodable(path, reason)
            if path not in self.skipped:
                self.skipped[path] = reason
                warnings.warn(f"{path} is skipped, it cannot be decoded: {reason}.", stacklevel=4)


class _Plan:
    """A batch sampler whose batches are set before each pass: of each image its epoch and row."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[int, int]]] = []

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


@dataclass(frozen=True, eq=False)
class _Photos(Dataset):
    """What a worker does: (epoch, row) -> one sample. Failures are data; exceptions come as tracebacks."""

    data: ImageFolder
    rows: Tensor
    train: bool
    size: int
    seed: int
    transform: Callable[[Image], Tensor] | None
    tries: int

    def __getitem__(self, key: tuple[int, int]) -> _Sample:
        epoch, row = key
        failures: _Failures = []
        for place in range(row, row + min(self.tries, len(self.rows))):
            index = int(self.rows[place % len(self.rows)])
            try:
                image = decode(self.data.path(index))
            except Undecodable as error:
                failures.append((error.path, error.reason))
            else:
                x = self._tensor(image, epoch if self.train else 0, index)
                return x, int(self.data.labels[index]), failures
        return None, 0, failures

    def _tensor(self, image: Image, epoch: int, index: int) -> Tensor:
        if self.transform is not None:
            with seeded(self.seed, OWN, epoch, index):
                out = self.transform(image)
            if not isinstance(out, Tensor) or not out.is_floating_point() or out.ndim != 3:
                raise TypeError(f"transform must return a float tensor (C, H, W), got {describe(out)}.")
            return out
        if self.train:
            return to_bytes(random_resized_crop(image, self.size, generator(self.seed, CROP, epoch, index)))
        return to_bytes(center_crop(image, self.size))


def _collate(samples: list[_Sample], *, size: int) -> tuple[Tensor, Tensor, _Failures]:
    failures = [failure for sample in samples for failure in sample[2]]
    good = [(image.permute(1, 2, 0), label) for image, label, _ in samples if image is not None]
    if not good:
        return torch.empty(0, 3, size, size, dtype=torch.uint8), torch.empty(0, dtype=torch.int64), failures
    # stacked with channels last, as the pixels of a decoded image lie
    x = torch.stack([image for image, _ in good]).permute(0, 3, 1, 2)
    return x, torch.tensor([label for _, label in good]), failures


def _ignore_interrupts(worker: int) -> None:
    # a notebook's stop button signals every process; workers must survive it, for the next pass
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
