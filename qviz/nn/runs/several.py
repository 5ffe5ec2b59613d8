"""Several seeds: a training of one's own model on one's own data, repeated with several seeds."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from qviz.core import _text
from qviz.nn.train import History, TrainConfig, fit

FIGURES = ("test_metric", "test_top1", "test_loss", "val_metric", "val_top1", "val_loss", "train_loss")
"""Figures of a run's last epoch, the first of which it has is the one that trials are told by."""


@dataclass(frozen=True)
class Trials:
    """What the runs of several seeds gave; ``print`` shows a table.

    Attributes:
        name: What was trained, in a word.
        seeds: One of each finished run.
        histories: Their Histories, in the same order.
    """

    name: str
    seeds: tuple[int, ...]
    histories: tuple[History, ...]

    @property
    def figure(self) -> str:
        """Which figure of the last epoch the mean is of: one of :data:`FIGURES`."""
        return next(name for name in FIGURES if all(name in h.epochs[-1] for h in self.histories))

    @property
    def values(self) -> list[float]:
        """That figure of each seed; accuracies are shares, 0 to 1."""
        return [history.epochs[-1][self.figure] for history in self.histories]

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return statistics.mean(self.values)

    @property
    def std(self) -> float | None:
        """The sample standard deviation over the seeds; None for one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def __str__(self) -> str:
        """Return the table of this one."""
        return table([self])


def trials(
    name: str,
    make: Callable[[int], nn.Module],
    train: Iterable[Any] | Callable[[int], Iterable[Any]],
    config: TrainConfig,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    folder: str | Path | None = None,
    progress: bool = False,
    **options: Any,
) -> Trials:
    """Train a model of one's own with several seeds.

    Args:
        name: What is trained, in a word, such as "lsq 2 bits".
        make: Takes a seed to a model, converted and calibrated where it is to be quantized.
        train: The training data, as for :func:`~qviz.nn.train.fit`; or a function from a seed to them, where
            their order is to depend on it.
        config: The configuration; its ``seed`` is replaced.
        seeds: One run each, all different.
        folder: Where each run has a folder ``seed0``, …; runs that were begun there go on. None keeps none.
        progress: Whether each run shows its progress.
        options: What else ``fit`` takes: ``val``, ``test``, ``loss``, ``metric``, ``teacher``, ….

    Returns:
        The trials of the seeds that were finished; those after a run that was stopped by hand are missing.

    Raises:
        ValueError: ``seeds`` are none or not all different; or as ``fit``.
        KeyboardInterrupt: The first run was stopped by hand.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be one or more, all different, got {tuple(seeds)}")
    done: list[History] = []
    for seed in seeds:
        history = fit(
            make(seed),
            train(seed) if callable(train) else train,
            dataclasses.replace(config, seed=seed),
            folder=None if folder is None else Path(folder) / f"seed{seed}",
            resume=folder is not None,
            progress=progress,
            **options,
        )
        if history.interrupted or not history.finished:
            break
        done.append(history)
    if not done:
        raise KeyboardInterrupt(f"{name} was stopped before the first run was finished")
    return Trials(name, tuple(seeds[: len(done)]), tuple(done))


HEADS = ("name", "figure", "mean ± std", "seeds", "minutes")


def table(rows: Iterable[Trials], *, markdown: bool = False) -> str:
    """Return trials as a text or Markdown table: mean ± sample standard deviation over the seeds.

    Accuracies are in percent, losses and metrics as they are; minutes are the mean of a run.
    """
    body = [_cells(row) for row in rows]
    return _text.markdown(HEADS, body) if markdown else _text.table(HEADS, body)


def _cells(row: Trials) -> list[str]:
    def shown(value: float) -> str:
        return f"{100 * value:.2f}" if percent else f"{value:.4g}"

    percent = row.figure.endswith("top1")
    minutes = statistics.mean(history.epochs[-1]["minutes"] for history in row.histories)
    spread = "" if row.std is None else f" ± {shown(row.std)}"
    figure = row.figure.replace("_", " ") + (" %" if percent else "")
    return [row.name, figure, shown(row.mean) + spread, str(len(row.seeds)), f"{minutes:.1f}"]
