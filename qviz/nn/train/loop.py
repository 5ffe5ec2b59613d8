"""fit: train a network, quantized or not, so that the run can be stopped, killed and gone on with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from qviz.nn.train import seeds
from qviz.nn.train.config import TrainConfig
from qviz.nn.train.history import History
from qviz.nn.train.interrupt import Interrupt
from qviz.nn.train.machine import Machine
from qviz.nn.train.run import Job, Loss, OnStep, Run


def fit(
    model: nn.Module,
    train: Iterable[Any],
    config: TrainConfig,
    *,
    val: Iterable[Any] | None = None,
    test: Iterable[Any] | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    loss: Loss | None = None,
    progress: bool = True,
    on_step: OnStep | None = None,
    device: torch.device | str | None = None,
) -> History:
    """Train a model in place and return what happened.

    The run depends on model, data and configuration alone: the global random generators are seeded from
    ``config.seed`` and, at the end, put back to where they were found. A run with a folder can be killed at
    any time; ``fit`` with the same arguments, a model made the same way and ``resume=True`` goes on from the
    last checkpoint, on a CPU bit for bit as if nothing had happened. Ctrl-C, or a notebook's stop button,
    ends the run after the present step, with a checkpoint; a second one ends it at once.

    Several processes (``python -m torch.distributed.run --nproc-per-node 2 …``) share each batch and average
    their gradients: the result is that of one process, up to rounding. Not so with BatchNorm, which
    normalises by the images of its own process; the running statistics that are stored are the first one's.

    Args:
        model: gives logits (N, classes); converted and calibrated where it is to be quantized. Moved to the
            device and the memory format of the run; at the end its weights are those of the last step.
        train: a loader of qviz.nn.data, or any iterable with a length that gives (x, y). Of the latter a
            resumed run drops the batches that were seen already; their order is the caller's business.
        config: what else the result depends on.
        val: held-out images, evaluated after each epoch; the epoch with the best top-1 is kept as
            ``best.safetensors``.
        test: evaluated once, after the last step.
        folder: for checkpoints; None trains without any.
        resume: go on from the folder's last checkpoint; starts from the beginning where there is none.
        loss: of logits and classes, a mean over the batch; default cross-entropy with ``label_smoothing``.
        progress: print what is quantized, a progress bar (in a log: lines) and a line an epoch.
        on_step: called after each step with the number of steps done and the History, on every process. An
            accelerator's figures reach the History a few steps late.
        device: "cpu" or "cuda"; default what there is.

    Returns:
        the History; ``interrupted`` says that the run was stopped by hand.

    Raises:
        ValueError: arguments that do not fit together, a quantizer that is not calibrated.
        FileExistsError: the folder holds a run and ``resume`` is False.
        CheckpointError: the checkpoint is damaged, or of another configuration or model.
        DivergenceError: the loss is NaN or infinite; the last good checkpoint stays.
        OSError: a checkpoint cannot be written; those before it stay.
    """
    if config.label_smoothing and loss is not None:
        raise ValueError("label_smoothing belongs to the built-in loss; give one or the other")
    if resume and folder is None:
        raise ValueError("resume=True needs the folder of the run, got folder=None")
    job = Job(
        model=model,
        train=train,
        config=config,
        loss=loss if loss is not None else _cross_entropy(config.label_smoothing),
        per_epoch=_length(train, config),
        val=val,
        test=test,
        folder=folder,
        on_step=on_step,
    )
    machine = Machine(config, device)
    with seeds.kept(machine.device), Interrupt() as interrupt:
        return Run(job, machine, interrupt).go(resume=resume, show=progress and machine.rank == 0)


def _cross_entropy(smoothing: float) -> Loss:
    def loss(logits: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(logits.float(), y, label_smoothing=smoothing)

    return loss


def _length(train: Iterable[Any], config: TrainConfig) -> int:
    """Return the steps of an epoch after checking that the loader and the configuration agree."""
    try:
        length = len(train)  # type: ignore[arg-type]
    except TypeError as problem:
        raise TypeError(f"train needs a length (steps an epoch), got {type(train).__name__}") from problem
    if length < 1:
        raise ValueError("train has no batch: len(train) is 0")
    size = getattr(train, "batch_size", None)
    if size is not None and size != config.batch_size:
        raise ValueError(f"train gives batches of {size}, but config.batch_size is {config.batch_size}")
    return length
