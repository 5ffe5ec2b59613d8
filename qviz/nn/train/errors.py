"""Errors of a run: CheckpointError, DivergenceError."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qviz.nn.train.history import History


class CheckpointError(ValueError):
    """A checkpoint is damaged, or belongs to another run than the one that wants it."""


class DivergenceError(FloatingPointError):
    """The loss or a weight is no longer a finite number.

    Attributes:
        step: The step at which it was seen.
        history: The History up to there.
        checkpoint: The last good checkpoint, or None without a folder.
    """

    def __init__(self, message: str, step: int, history: History, checkpoint: Path | None) -> None:
        super().__init__(message)
        self.step, self.history, self.checkpoint = step, history, checkpoint
