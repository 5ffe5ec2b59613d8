"""fit: train a network, quantized or not, so that the run can be stopped, killed and gone on with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from qviz.nn.train import seeds
from qviz.nn.train.config import TrainConfig
from qviz.nn.train.evaluate import Loss, Metric
from qviz.nn.train.history import History
from qviz.nn.train.interrupt import Interrupt
from qviz.nn.train.job import Job, OnStep
from qviz.nn.train.machine import Machine
from qviz.nn.train.run import Run


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
    metric: Metric | None = None,
    teacher: nn.Module | None = None,
    teacher_share: float = 1.0,
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
    normalizes by the images of its own process; the running statistics that are stored are the first one's.

    Args:
        model: The network; converted and calibrated where it is to be quantized. It is moved to the device
            and the memory format of the run; at the end its weights are those of the last step.
        train: A loader of qviz.nn.data, or any iterable with a length that gives (inputs, targets) or
            mappings, as for :func:`evaluate`. Of the latter a resumed run drops the batches that were seen
            already; their order is the caller's business.
        config: What else the result depends on.
        val: Held-out samples, evaluated after each epoch. The epoch with the best figure, which is the
            metric, the top-1 or, without either, the lowest loss, is kept as ``best.safetensors``.
        test: Evaluated once, after the last step.
        folder: Where checkpoints go; None trains without any.
        resume: Whether to go on from the folder's last checkpoint; starts anew where there is none.
        loss: Takes what the model returns and the targets to a mean over the batch; by default the
            cross-entropy with ``label_smoothing``. Held-out and test samples are judged by it too. A batch
            whose targets (int64) are all -100 has the loss 0.
        metric: Takes the same to a figure of merit, of which more is better; by default the accuracy where
            targets are classes, and nothing elsewhere. The History has it under "metric".
        teacher: A network whose scores the model learns from, kept as it is, in eval mode: the loss is the
            cross-entropy between its softmax and the model's. It must take the same inputs.
        teacher_share: The teacher's share of the loss, 0 to 1; the targets have the rest. 1 is N2UQ's loss.
            In between, where targets are -100, an epoch's mean loss is approximate: a batch counts by both
            shares at once, the teacher's by its samples and the targets' by those that have a class.
        progress: Whether to print what is quantized, a progress bar (in a log: lines) and a line an epoch.
        on_step: Called after each step with the number of steps done and the History, on every process. An
            accelerator's figures reach the History a few steps late.
        device: "cpu" or "cuda"; by default what there is.

    Returns:
        The History; ``interrupted`` says that the run was stopped by hand.

    Raises:
        ValueError: Arguments do not fit together, or a quantizer is not calibrated.
        TypeError: A batch or the model's output is of a kind that needs a ``loss``.
        FileExistsError: The folder holds a run, and ``resume`` is False.
        CheckpointError: The checkpoint is damaged, or of another configuration or model; or it was written
            with another teacher, or with a loss or metric of another name.
        DivergenceError: The loss is NaN or infinite; the last good checkpoint stays.
        OSError: A checkpoint cannot be written; those before it stay.

    References:
        Distillation as in Liu et al., "Nonuniform-to-Uniform Quantization", CVPR 2022, released code.
        arXiv:2111.14826
    """
    if config.label_smoothing and loss is not None:
        raise ValueError("label_smoothing belongs to the built-in loss; give one or the other")
    if resume and folder is None:
        raise ValueError("resume=True needs the folder of the run, got folder=None")
    if not 0.0 <= teacher_share <= 1.0:
        raise ValueError(f"teacher_share must be in [0, 1], got {teacher_share}")
    if teacher is model:
        raise ValueError("the teacher must be another network than the model: a copy in floating point, say")
    job = Job(
        model=model,
        train=train,
        config=config,
        per_epoch=_length(train, config),
        loss=loss,
        metric=metric,
        teacher=teacher,
        teacher_share=teacher_share,
        val=val,
        test=test,
        folder=folder,
        on_step=on_step,
    )
    machine = Machine(config, device)
    with seeds.kept(machine.device), Interrupt() as interrupt:
        return Run(job, machine, interrupt).go(resume=resume, show=progress and machine.rank == 0)


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
