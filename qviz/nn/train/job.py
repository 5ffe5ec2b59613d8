"""Job: what fit was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from qviz.nn.train.config import TrainConfig
from qviz.nn.train.evaluate import Loss, Metric
from qviz.nn.train.history import History

OnStep = Callable[[int, History], None]


@dataclass(frozen=True)
class Job:
    """What fit was asked for; ``loss`` and ``metric`` are None for the usual ones."""

    model: nn.Module
    train: Iterable[Any]
    config: TrainConfig
    per_epoch: int
    loss: Loss | None = None
    metric: Metric | None = None
    teacher: nn.Module | None = None
    teacher_share: float = 1.0
    val: Iterable[Any] | None = None
    test: Iterable[Any] | None = None
    folder: str | Path | None = None
    on_step: OnStep | None = None
