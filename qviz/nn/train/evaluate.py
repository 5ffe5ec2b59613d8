"""Evaluate: accuracy and loss of a model on a set of images, counted exactly, also by several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Stopped(Exception):
    """The evaluation was broken off because ``stop`` asked for it."""


def batches_of(
    loader: Iterable[Any],
    *,
    epoch: int = 0,
    start: int = 0,
    rank: int = 0,
    world: int = 1,
    device: torch.device | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Return this process's part of a loader's batches, on the device, from step ``start`` on.

    A loader with a method ``batches`` is asked for it; anything else is iterated, its first ``start`` batches
    dropped and rows rank::world taken.
    """
    if hasattr(loader, "batches"):
        yield from loader.batches(epoch, start=start, rank=rank, world=world, device=device)
        return
    for step, (x, y) in enumerate(loader):
        if step >= start:
            x, y = (x, y) if world == 1 else (x[rank::world], y[rank::world])
            yield x.to(device, non_blocking=True), y.to(device, non_blocking=True)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model into eval mode and, afterwards, each of its modules back into its own mode."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def evaluate(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    device: torch.device | str | None = None,
    stop: Callable[[], bool] | None = None,
) -> dict[str, float]:
    """Return the model's accuracy and cross-entropy on a loader's images, in eval mode and float32.

    Under ``torch.distributed`` each process does its part of each batch and the counts are added up: every
    image counts once. The model keeps its modes, and nothing of its state changes.

    Args:
        model: gives logits, (N, classes); not wrapped in DistributedDataParallel.
        loader: of qviz.nn.data, or any iterable of (x, y), the same on every process.
        device: default that of the model's first parameter.
        stop: asked after each batch; True breaks off with :class:`Stopped`.

    Returns:
        top1, top5 (shares, 0 to 1; of fewer than 5 classes top5 is 1), loss (mean), samples.

    Raises:
        ValueError: the loader gave no image.
    """
    device = torch.device(device) if device is not None else _device(model)
    spread = torch.distributed.is_available() and torch.distributed.is_initialized()
    rank = torch.distributed.get_rank() if spread else 0
    world = torch.distributed.get_world_size() if spread else 1
    sums = torch.zeros(4, dtype=torch.float64, device=device)
    with evaluating(model), torch.no_grad():
        for x, y in batches_of(loader, rank=rank, world=world, device=device):
            if stop is not None and stop():
                raise Stopped
            if len(y):  # of a small last batch there may be nothing for this process
                sums += _counts(model(x), y)
    if world > 1:
        torch.distributed.all_reduce(sums)
    right, among5, loss, samples = sums.tolist()
    if samples == 0:
        raise ValueError("the loader gave no image to evaluate on")
    return {
        "top1": right / samples,
        "top5": among5 / samples,
        "loss": loss / samples,
        "samples": int(samples),
    }


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters(), torch.zeros(())).device


def _counts(logits: Tensor, y: Tensor) -> Tensor:
    logits = logits.float()
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices == y[:, None]
    loss = functional.cross_entropy(logits, y, reduction="sum")
    figures = (best[:, 0].sum(), best.any(1).sum(), loss, torch.full_like(loss, len(y)))
    return torch.stack([figure.double() for figure in figures])
