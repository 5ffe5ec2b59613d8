"""State: a run's position and everything that moves with it, which is what a checkpoint holds."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from qviz.nn.train import seeds
from qviz.nn.train.config import TrainConfig
from qviz.nn.train.figures import Reading
from qviz.nn.train.history import History
from qviz.nn.train.machine import Machine
from qviz.nn.train.recorder import Recorder


@dataclass
class State:
    """What changes while a run goes on, and what it belongs to.

    Attributes:
        model: The network, not wrapped.
        config: The configuration of the run.
        machine: Where the run takes place.
        per_epoch: Steps of an epoch.
        stop: The step after which the run ends.
        optimizers: Those of the weights and of the quantizers.
        recorder: What writes the quantizers' part of the History.
        history: What has happened so far.
        step: Steps done.
        sums: Of the present epoch: loss times images, right images, images that were scored, images that the
            loss is of.
        seconds: The time that earlier parts of the run took.
        started: When the present part began, on the monotonic clock.
    """

    model: nn.Module
    config: TrainConfig
    machine: Machine
    per_epoch: int
    stop: int
    optimizers: list[Optimizer]
    recorder: Recorder
    history: History = field(default_factory=History)
    step: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)
    seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)

    def elapsed(self) -> float:
        """Return the seconds that the run has taken, earlier parts included."""
        return self.seconds + time.monotonic() - self.started

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 1."""
        return self.config.lr * self.config.factor(step - 1, self.per_epoch * self.config.epochs)

    def note(self, reading: Reading) -> None:
        """Add a step's figures to the epoch's sums and to the curve."""
        if (reading.step - 1) % self.per_epoch == 0:
            self.sums = [0.0] * 4
        new = reading.loss * reading.weight, reading.score, reading.scored, reading.weight
        self.sums = [before + value for before, value in zip(self.sums, new, strict=True)]
        curve = self.history.curve
        add = curve.close if reading.step == self.stop else curve.append
        add(
            reading.step,
            [
                reading.loss,
                self.rate(reading.step),
                reading.score / reading.scored if reading.scored else math.nan,
            ],
        )

    def means(self) -> tuple[float, float]:
        """Return the present epoch's mean loss and score; NaN where nothing counted."""
        loss, score, scored, weight = self.sums
        return loss / weight if weight else math.nan, score / scored if scored else math.nan

    def due(self) -> bool:
        """Whether the epoch, or the run, that ends at the present step still lacks its row."""
        step, epochs = self.step, self.history.epochs
        ends = step > 0 and (step % self.per_epoch == 0 or step == self.stop)
        return ends and (not epochs or epochs[-1]["steps"] != step)

    def not_finite(self) -> str | None:
        """Return the name of a parameter that is NaN or infinite, or None."""
        bad = (name for name, p in self.model.named_parameters() if not torch.isfinite(p).all())
        return next(bad, None)

    def shared(self) -> dict[str, Any]:
        """Return what is the same on every process, besides weights and History."""
        return {
            "step": self.step,
            "per_epoch": self.per_epoch,
            "seconds": self.elapsed(),
            "sums": list(self.sums),
            "optimisers": [optimizer.state_dict() for optimizer in self.optimizers],
            "recorder": self.recorder.state(),
            "extra": {k: v for k, v in self.model.state_dict().items() if not isinstance(v, Tensor)},
        }

    def local(self) -> dict[str, Any]:
        """Return what each process has of its own: its random generators."""
        return {
            "random": seeds.capture(self.machine.device),
            "generators": seeds.generator_states(self.model),
        }

    def restore(self, shared: dict[str, Any], local: dict[str, Any], history: History) -> None:
        """Go back to where :meth:`shared` and :meth:`local` were taken; the weights are loaded already.

        Raises:
            ValueError: Other parameters learned there.
        """
        for optimizer, held in zip(self.optimizers, shared["optimisers"], strict=True):
            optimizer.load_state_dict(held)
        self.step, self.seconds, self.sums = shared["step"], shared["seconds"], list(shared["sums"])
        self.sums += self.sums[2:][: 4 - len(self.sums)]  # a checkpoint of before has one number for both
        self.history = history
        history.reopen(self.per_epoch, self.stop)
        self.recorder.load(shared["recorder"])
        seeds.restore(local["random"], self.machine.device)
        for name, generator in seeds.own_generators(self.model).items():
            generator.set_state(local["generators"][name])
