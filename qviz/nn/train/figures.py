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
        score: The number of right images, or the metric times their number; NaN where there is neither.
        images: How many there were.
    """

    step: int
    loss: float
    score: float
    images: int


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
        self._images: list[int] = []

    def add(self, step: int, loss: Tensor, score: Tensor, images: int) -> None:
        """Note a step: its mean loss, the sum of its scores, and how many images there were (here)."""
        self._steps.append(step)
        self._held.append(torch.stack([loss.detach().double() * images, score.double()]))
        self._images.append(images)

    @property
    def full(self) -> bool:
        """Whether it is time to read."""
        return len(self._steps) >= self.window

    def read(self, stop: bool = False) -> tuple[list[Reading], bool]:
        """Return the steps since the last reading, and whether any process wants to stop.

        Args:
            stop: Whether this process wants to.
        """
        images = torch.tensor(self._images, dtype=torch.float64, device=self.device)
        wish = torch.tensor([[float(stop)]] * 3, dtype=torch.float64, device=self.device)
        rows = torch.stack([*self._held], dim=1) if self._held else images.new_zeros(2, 0)
        table = torch.cat([torch.cat([rows, images[None]]), wish], dim=1)
        if self.world > 1:
            torch.distributed.all_reduce(table)
        (losses, scores, counts), steps = table.tolist(), self._steps
        self._steps, self._held, self._images = [], [], []
        readings = [
            Reading(step, loss / count, score, int(count))
            for step, loss, score, count in zip(steps, losses, scores, counts, strict=False)
        ]
        return readings, losses[-1] > 0
