"""Batches of CIFAR-10: the set stays on the training device as bytes, whole batches are augmented there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from qviz.nn.data.augment import (
    CIFAR10_MEAN,
    CIFAR10_STD,
    CROP,
    OWN,
    Crops,
    crop_flip,
    draw_crops,
    generator,
    normalize,
    seeded,
)
from qviz.nn.data.cifar import Cifar10
from qviz.nn.data.loader import Steps, balanced, describe


class CifarLoader:
    """Batches of small images: normalized, padded by 4 pixels of zeros, cropped and flipped at random.

    A :class:`~qviz.nn.data.Loader`. Crop and flip follow He et al., section 4.2; the padding is zero after
    the normalization. x is channels_last (that costs nothing here). The random numbers of a batch come from
    a CPU generator seeded with (seed, epoch, step), so they are the same on every device. Each process
    needs the whole set in memory: 154 MB for the 50,000 training images, on the device that is asked for.

    >>> from qviz.nn.data import cifar10
    >>> loader = CifarLoader(cifar10("train", source="sample"), batch_size=128)
    >>> x, y = next(loader.batches(epoch=0))
    >>> len(loader), tuple(x.shape), x.dtype, y.dtype
    (14, (128, 3, 32, 32), torch.float32, torch.int64)

    Args:
        data: What ``cifar10`` returned.
        batch_size: Over all processes together.
        train: Shuffle, and leave out the last partial batch; None: where the split is for training.
        augment: Crop and flip; None: as ``train``.
        seed: The seed of order, crops and ``transform``; at least 0.
        transform: Your own. By default (N, 3, 32, 32) -> as many images as float tensors, after all else,
            on the device; it sees the whole batch on each process. It may draw from the global generators
            of torch, numpy and Python: they are seeded for it, and restored. In evaluation it should not
            draw at all.
        per_image: ``transform`` takes one PIL image and returns a float (C, H, W) tensor instead, and is
            all that is done to it: no crop, flip or normalization but its own. Needs Pillow.
        limit: Use only so many images, classes taking turns.

    Raises:
        ValueError: A number is out of range, or a training set is smaller than one batch.
    """

    def __init__(
        self,
        data: Cifar10,
        batch_size: int = 128,
        *,
        train: bool | None = None,
        augment: bool | None = None,
        seed: int = 0,
        transform: Callable[[Any], Tensor] | None = None,
        per_image: bool = False,
        limit: int | None = None,
    ) -> None:
        if per_image and transform is None:
            raise ValueError("per_image=True says how transform is called, but transform is None.")
        if per_image and augment:
            raise ValueError("per_image=True replaces crop and flip; leave augment out.")
        train = data.split.startswith("train") if train is None else train
        rows = balanced(data.labels, limit)
        everything = len(rows) == len(data.labels)
        images = data.images if everything else data.images[rows]
        self._pixels = images.permute(
            0, 2, 3, 1
        ).contiguous()  # one image is one run of bytes; a view if channels_last
        self._labels = data.labels if everything else data.labels[rows]
        self._here: tuple[torch.device, Tensor, Tensor] | None = None
        self._steps = Steps(len(rows), batch_size, train, seed)
        self._augment = train and not per_image if augment is None else augment
        self._transform, self._per_image = transform, per_image
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
        """Yield x, float32 (N, 3, 32, 32), and y, int64 (N,), from step ``start`` on.

        In evaluation the last batch may have fewer images than there are processes; some then get no row.

        Raises:
            ValueError: An argument is out of range, or ``world`` does not divide the batch of a training
                loader.
        """
        self._steps.check(epoch, start, rank, world)
        device = torch.device("cpu" if device is None else device)
        return self._iterate(epoch, start, slice(rank, None, world), device)

    def _iterate(
        self, epoch: int, start: int, mine: slice, device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        pixels, labels = self._on(device)
        for step, rows in enumerate(self._steps.rows(epoch)[start:], start):
            key = (self.seed, OWN, epoch if self.train else 0)
            if self._per_image:
                yield self._one_by_one(rows[mine], key, device)
                continue
            # drawn for the whole batch: a process' share must not depend on how many there are
            crops = draw_crops(len(rows), generator(self.seed, CROP, epoch, step)) if self._augment else None
            early = slice(None) if self._transform else mine
            some = rows[early].to(device)
            x = normalize(pixels.index_select(0, some).permute(0, 3, 1, 2), CIFAR10_MEAN, CIFAR10_STD)
            if crops is not None:
                x = crop_flip(x, Crops(*(v[early] for v in crops)))
            y = labels.index_select(0, some)
            if self._transform:
                x, y = self._whole(x, (*key, step), device)[mine], y[mine]
            yield x, y

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if self._here is None or self._here[0] != device:
            self._here = device, self._pixels.to(device), self._labels.to(device)
        return self._here[1:]

    def _whole(self, x: Tensor, key: tuple[int, ...], device: torch.device) -> Tensor:
        with seeded(*key, device=device):
            out = self._transform(x)
        if not isinstance(out, Tensor) or not out.is_floating_point() or len(out) != len(x):
            raise TypeError(f"transform must return {len(x)} images as a float tensor, got {describe(out)}.")
        return out

    def _one_by_one(self, rows: Tensor, key: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
        from PIL import Image

        images = []
        for row in rows.tolist():
            with seeded(*key, row):
                images.append(self._transform(Image.fromarray(self._pixels[row].numpy())))
            if not isinstance(images[-1], Tensor) or not images[-1].is_floating_point():
                raise TypeError(
                    f"transform must return a float tensor (C, H, W), got {describe(images[-1])}."
                )
        x = torch.stack(images) if images else torch.empty(0, *self._pixels.permute(0, 3, 1, 2).shape[1:])
        return x.to(device), self._labels[rows].to(device)
