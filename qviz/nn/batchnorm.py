"""BatchNorm: running statistics for the network as it now is, quantized."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from qviz.nn.batches import Batch, batches_of, forward
from qviz.nn.modules import evaluating, modes_kept, uncompiled


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Let every BatchNorm that keeps statistics work with those of the batch, whatever mode it is in."""
    with modes_kept(model):
        for norm in _with_statistics(model):
            norm.train()
        yield


@torch.no_grad()
def reestimate_batchnorm(
    model: nn.Module, batch: Batch | Iterable[Batch], *, reduce: Callable[[Tensor], Tensor] | None = None
) -> None:
    """Set each BatchNorm's running mean and variance to their means over the batches; nothing is trained.

    The statistics of a network in floating point do not fit once its layers are quantized: their outputs have
    another mean and another spread. Each batch counts the same. BatchNorm works with the batch's own
    statistics meanwhile, all other layers as in eval mode; modes, momentum and ``num_batches_tracked`` are
    afterwards as they were. A BatchNorm that no batch reaches, or that keeps no statistics, stays as it is.

    Args:
        model: Any module, calibrated if it is quantized.
        batch: As for :func:`~qviz.nn.calibration.calibrate`: one batch, or a loader, of which the first eight
            are taken. Several hundred images are enough as a rule.
        reduce: Takes a tensor to its mean over the processes, each of which has other batches; default: one
            process.

    Raises:
        TypeError, ValueError: The batch is nothing that a model takes; it has one value a channel, which has
            no variance. The statistics are then as they were.

    Example:
        >>> norm = nn.BatchNorm1d(1).eval()
        >>> reestimate_batchnorm(norm, iter([torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [9.0]])]))
        >>> norm.running_mean.item(), norm.running_var.item()  # variances 2 and 8
        (4.5, 5.0)
    """
    model = uncompiled(model)
    norms = _with_statistics(model)
    kept = [{name: b.clone() for name, b in m.named_buffers(recurse=False)} for m in norms]
    momenta = [m.momentum for m in norms]
    done = False
    try:
        with evaluating(model):
            for norm in norms:
                norm.train()
                norm.reset_running_stats()
                norm.momentum = None  # torch then takes the mean over all batches
            for one in batches_of(batch):
                forward(model, one)
        done = True
    finally:
        for norm, old, momentum in zip(norms, kept, momenta, strict=True):
            norm.momentum = momentum
            reached = done and int(norm.num_batches_tracked) > 0
            if reached and reduce is not None:
                for statistic in (norm.running_mean, norm.running_var):
                    statistic.copy_(reduce(statistic))
            for name, value in old.items():
                if not reached or name == "num_batches_tracked":
                    getattr(norm, name).copy_(value)


def _with_statistics(model: nn.Module) -> list[_BatchNorm]:
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
