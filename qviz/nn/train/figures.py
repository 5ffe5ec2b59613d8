"""Meter: loss and accuracy of the steps, gathered on the device and read off a few steps at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Reading:
    """Figures of one step, over all processes.

    Attributes:
        step: The step.
        loss: The mean over the batch.
        weight: How many images that is the mean of; those without a target may not count.
        score: The number of right images, or the metric times their number; NaN where there is neither.
        scored: How many images that is out of.
    """

    step: int
    loss: float
    weight: float
    score: float
    scored: float


class Meter:
    """Holds the steps' figures as tensors until :meth:`read`, because reading them makes an accelerator wait.

    Args:
        device: The device that the figures are on.
        world: Number of processes, over which figures are summed up; all must read at the same step.

    Attributes:
        window: Steps after which it is time to read: 1 on a CPU alone, more where waiting costs.
    """

    def __init__(self, device: torch.device, world: int = 1) -> None:
        self.device, self.world = device, world
        self.window = 1 if device.type == "cpu" and world == 1 else 8
        self._steps: list[int] = []
        self._held: list[Tensor] = []

    def add(self, step: int, loss: Tensor, weight: Tensor, score: Tensor, scored: Tensor) -> None:
        """Note a step: its mean loss, the sum of its scores, and how many images each is of (here)."""
        row = loss.detach().double() * weight.to(loss.device), weight, score, scored
        self._steps.append(step)
        self._held.append(torch.stack([t.double().to(self.device) for t in row]))

    @property
    def full(self) -> bool:
        """Whether it is time to read."""
        return len(self._steps) >= self.window

    def read(self, stop: bool = False) -> tuple[list[Reading], bool]:
        """Return the steps since the last reading, and whether any process wants to stop.

        Args:
            stop: Whether this process wants to.
        """
        wish = torch.full((4,), float(stop), dtype=torch.float64, device=self.device)
        table = torch.stack([*self._held, wish], dim=1)
        if self.world > 1:
            torch.distributed.all_reduce(table)
        *rows, (wishes, *_) = table.T.tolist()
        steps, self._steps, self._held = self._steps, [], []
        readings = [
            Reading(step, loss / weight if weight else 0.0, weight, score, scored)
            for step, (loss, weight, score, scored) in zip(steps, rows, strict=True)
        ]
        return readings, wishes > 0
