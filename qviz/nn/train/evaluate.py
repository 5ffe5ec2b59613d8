"""Evaluate: accuracy and loss of a model on a set of images, counted exactly, also by several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from qviz.nn.batches import call
from qviz.nn.modules import evaluating, processes
from qviz.nn.train import batch as batches

Loss = Callable[[Any, Any], Tensor]
Metric = Callable[[Any, Any], Any]


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
) -> Iterator[tuple[Any, Any]]:
    """Return this process's part of a loader's batches, on the device, from step ``start`` on.

    A loader with a method ``batches`` is asked for it; anything else is iterated, its first ``start`` batches
    dropped and rows rank::world taken.

    Raises:
        TypeError: A batch is neither a pair nor a mapping with targets.
    """
    if hasattr(loader, "batches"):
        yield from loader.batches(epoch, start=start, rank=rank, world=world, device=device)
        return

    def own(tensor: Tensor) -> Tensor:
        return (tensor if world == 1 else tensor[rank::world]).to(device, non_blocking=True)

    for step, batch in enumerate(loader):
        if step >= start:
            x, y = batches.parts(batch)
            yield batches.each(x, own), batches.each(y, own)


def evaluate(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    loss: Loss | None = None,
    metric: Metric | None = None,
    device: torch.device | str | None = None,
    stop: Callable[[], bool] | None = None,
) -> dict[str, float]:
    """Return a model's loss and accuracy on a loader's samples, in eval mode and float32.

    Under ``torch.distributed`` each process does its part of each batch and the counts are added up: every
    sample counts once. The model keeps its modes, and nothing of its state changes.

    Args:
        model: Any network; not wrapped in DistributedDataParallel.
        loader: A loader of qviz.nn.data, or any iterable, the same on every process, of (inputs, targets) or
            of mappings with one of the keys of :data:`~qviz.nn.train.batch.TARGETS`. Inputs are a tensor,
            a tuple of arguments, or a mapping of keyword arguments.
        loss: Takes what the model returns and the targets to a mean over the batch. The default is the
            cross-entropy of the model's scores (N, classes, …), or of its ``logits`` or ``out``.
        metric: The same for the figure of merit, of which more is better. The default is the accuracy, where
            targets are classes.
        device: Where to compute; by default where the model's first parameter is.
        stop: Asked after each batch; True breaks off with :class:`Stopped`.

    Returns:
        ``loss`` (mean) and ``samples``; ``metric`` (mean) where one was given; else, where the targets are
        classes, ``top1`` and ``top5`` (shares, 0 to 1; of fewer than 5 classes top5 is 1). Of targets with
        several places, such as the pixels of a segmentation, ``top1`` alone: The share of right places.
        A target of -100 (int64) is no class, as in torch: it counts in none of the figures, and the mean of
        a batch has the weight of its targets that count. ``samples`` are all.

    Raises:
        ValueError: The loader gave no sample, or none with a target; or the default loss does not suit the
            targets.
        TypeError: A batch or the model's output is of an unknown kind.

    Example:
        >>> net = nn.Identity()
        >>> figures = evaluate(net, [(torch.eye(3), torch.tensor([0, 1, 1]))])
        >>> round(figures["top1"], 3), figures["samples"]
        (0.667, 3)
    """
    device = torch.device(device) if device is not None else _device(model)
    rank, world = processes()
    sums: dict[str, Tensor] = {}
    with evaluating(model), torch.no_grad():
        for x, y in batches_of(loader, rank=rank, world=world, device=device):
            if stop is not None and stop():
                raise Stopped
            count = batches.size(x, y)
            if count:  # of a small last batch there may be nothing for this process
                for name, value in _sums(call(model, x), y, count, loss, metric, look=not sums).items():
                    sums[name] = sums.get(name, 0.0) + value.double()
    return _means(sums, world, device)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters(), torch.zeros(())).device


def _sums(
    output: Any, y: Any, count: int, loss: Loss | None, metric: Metric | None, *, look: bool
) -> dict[str, Tensor]:
    """Return a batch's figures, summed up over its samples."""
    weight = batches.counted(y, count)
    mean = batches.cross_entropy(output, y, look=look) if loss is None else loss(output, y)
    found = {"loss": batches.weighted(mean, weight), "weight": weight}
    if metric is not None:
        found["metric"] = batches.weighted(torch.as_tensor(metric(output, y)), weight)
    elif (right := batches.right(output, y)) is not None:
        found["top1"] = right
        if y.ndim == 1:
            scores = batches.logits(output)
            among = (scores.topk(min(5, scores.shape[1])).indices == y[:, None]).any(1)
            found["top5"] = among.sum()
    return found | {"samples": torch.tensor(count)}


def _means(sums: dict[str, Tensor], world: int, device: torch.device) -> dict[str, float]:
    """Return the means over the samples that count, of all processes, of which some may have had none."""
    names = ("loss", "metric", "top1", "top5", "weight", "samples")
    table = torch.zeros(len(names), 2, dtype=torch.float64, device=device)  # sum, and who has one
    for row, name in zip(table, names, strict=True):
        if name in sums:
            row[0], row[1] = sums[name], 1.0
    if world > 1:
        torch.distributed.all_reduce(table)
    found = {name: value for name, (value, held) in zip(names, table.tolist(), strict=True) if held}
    samples = found.pop("samples", 0)
    if not samples:
        raise ValueError("the loader gave no image to evaluate on")
    weight = found.pop("weight")
    if not weight:
        raise ValueError(f"no target of the {int(samples)} samples has a class: all are {batches.IGNORED}")
    order = ("top1", "top5", "metric", "loss")
    return {name: found[name] / weight for name in order if name in found} | {"samples": int(samples)}
