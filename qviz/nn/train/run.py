"""Run: one call of fit, its position and everything that has to be kept together."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor, nn

from qviz.nn.layers import adapt
from qviz.nn.train import seeds
from qviz.nn.train.config import TrainConfig
from qviz.nn.train.errors import DivergenceError
from qviz.nn.train.evaluate import Stopped, batches_of, evaluate
from qviz.nn.train.groups import optimisers, quantizers, set_rates
from qviz.nn.train.history import History
from qviz.nn.train.interrupt import Interrupt
from qviz.nn.train.machine import Machine
from qviz.nn.train.meter import Meter, Reading
from qviz.nn.train.progress import Progress, Timer, epoch_line
from qviz.nn.train.recorder import Recorder
from qviz.nn.train.saving import Saver, finite
from qviz.nn.train.summary import describe, facts

Loss = Callable[[Tensor, Tensor], Tensor]
OnStep = Callable[[int, History], None]


@dataclass(frozen=True)
class Job:
    """What fit was asked for."""

    model: nn.Module
    train: Iterable[Any]
    config: TrainConfig
    loss: Loss
    per_epoch: int
    val: Iterable[Any] | None = None
    test: Iterable[Any] | None = None
    folder: str | Path | None = None
    on_step: OnStep | None = None


class Run:
    """One call of fit.

    Args:
        job: what to do. machine: where. interrupt: says when somebody wants it to stop.
    """

    def __init__(self, job: Job, machine: Machine, interrupt: Interrupt) -> None:
        self.job, self.machine, self.interrupt = job, machine, interrupt
        self.model, self.config, self.per_epoch = job.model, job.config, job.per_epoch
        self.total = self.per_epoch * self.config.epochs
        self.stop = min(self.total, self.config.max_steps or self.total)
        machine.place(self.model)
        self.optimisers = optimisers(self.model, self.config)
        self.meter = Meter(machine.device, machine.world)
        self.recorder = Recorder(self.model, self.config.record_every)
        self.history = History()
        self.saver = Saver(self, job.folder)
        self.step, self.seconds = 0, 0.0
        self.sums = [0.0, 0, 0]  # of the present epoch: loss times images, right images, images
        self.whole = True  # model, optimisers and random state are those of `step`, not of half a step

    def go(self, *, resume: bool, show: bool) -> History:
        """Start or go on, train, and leave everything in order whatever happens."""
        modes = {module: module.training for module in self.model.modules()}
        try:
            resumed = self.saver.begin(resume=resume)
            self._set_up(resumed)
            if show:
                print(self._announcement(), flush=True)
            self.progress = Progress(self.stop, self.step, show=show)
            self.timer = Timer(self.progress, self.step, self.stop)
            self._train(resumed)
        finally:
            self.machine.share_inputs(self.model, 1)
            self.saver.close()
            for module, mode in modes.items():
                module.training = mode
        return self.history

    def _set_up(self, resumed: bool) -> None:
        self.machine.share_inputs(self.model, self.machine.world)
        self.net = self.machine.wrap(self.model)
        if not resumed:
            seeds.seed_all(self.config.seed, self.machine.rank)
            self.history.meta = facts(self.model, self.per_epoch, self.machine.facts())
            self.recorder.start(self.history)
        self.history.meta |= {"config": self.config.to_dict(), "config_sha256": self.config.sha256}
        self.history.interrupted = False
        self.clock = time.monotonic()

    def _announcement(self) -> str:
        return describe(self.model, self.config, self.per_epoch, self.step, str(self.machine))

    def _train(self, resumed: bool) -> None:
        try:
            if not resumed:
                self.saver.save()  # a folder that cannot be written to shows now, not after an epoch
            if self._due():  # stopped between the last step of an epoch and its evaluation
                self._close_epoch()
            while self.step < self.stop:
                self._epoch()
                self._close_epoch()
        except KeyboardInterrupt:
            self._interrupted()
        finally:
            self.progress.close()

    def _epoch(self) -> None:
        """Make the steps that the present epoch still has."""
        epoch, start = divmod(self.step, self.per_epoch)
        self.model.train()
        where = {"rank": self.machine.rank, "world": self.machine.world, "device": self.machine.device}
        for x, y in batches_of(self.job.train, epoch=epoch, start=start, **where):
            self._update(self.machine.images(x), y)
            self._after()
            if self.step == self.stop or self.step % self.per_epoch == 0:
                return
        raise ValueError(
            f"train says that an epoch has {self.per_epoch} batches, but epoch {epoch + 1} ended after "
            f"{self.step - epoch * self.per_epoch}"
        )

    def _update(self, x: Tensor, y: Tensor) -> None:
        """Make one optimiser step."""
        self.whole = False
        self.machine.check(len(y))
        set_rates(self.optimisers, self.config.factor(self.step, self.total))
        with self.machine.autocast():
            logits = self.net(x)
            value = self.job.loss(logits, y)
        if self.meter.window == 1 and not math.isfinite(value.item()):
            self.diverged(self.step + 1, f"the loss is {value.item()}")
        self.machine.accelerator.backward(value)
        if self.config.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self._adapt()
        self.step += 1
        self.meter.add(self.step, value, (logits.detach().argmax(1) == y).sum(), len(y))
        self.recorder.update(self.step, self.history)
        self.whole = True

    def _adapt(self) -> None:
        share = self.config.freeze_codebooks
        if share < 1.0 and self.step >= share * self.total:
            for q in quantizers(self.model).values():
                q.codebook.freeze()
        try:
            adapt(self.model)
        except ValueError:  # codebooks refuse weights that are no numbers
            finite(self)
            raise

    def _after(self) -> None:
        """Do what follows a step: read the figures, call back, save."""
        every = self.config.checkpoint_every
        saves = bool(every) and self.step % every == 0
        if self.meter.full or saves:
            self._read()
        if self.job.on_step is not None:
            self.job.on_step(self.step, self.history)
        if saves and self.step != self.stop and self.step % self.per_epoch:
            self.saver.save()
        self.timer.tick(self.step)

    def _read(self) -> None:
        """Bring the steps since the last reading into the History; stop where that was asked for."""
        if self._flush():
            raise KeyboardInterrupt

    def _flush(self) -> bool:
        readings, stop = self.meter.read(self.interrupt.asked)
        for reading in readings:
            self._note(reading)
        self.recorder.drain(self.history)
        if readings:
            figures = self.sums[0] / self.sums[2], self.sums[1] / self.sums[2]
            self.progress.update(self.step, -(-self.step // self.per_epoch), *figures)
        return stop

    def _note(self, reading: Reading) -> None:
        if not math.isfinite(reading.loss):
            self.diverged(reading.step, f"the loss is {reading.loss}")
        if (reading.step - 1) % self.per_epoch == 0:
            self.sums = [0.0, 0, 0]
        self.sums[0] += reading.loss * reading.images
        self.sums[1] += reading.right
        self.sums[2] += reading.images
        rate = self.config.lr * self.config.factor(reading.step - 1, self.total)
        self.history.curve.append(reading.step, [reading.loss, rate, reading.right / reading.images])

    def diverged(self, step: int, what: str) -> NoReturn:
        """Raise DivergenceError, naming the checkpoint that stays."""
        last = self.saver.last_good()
        kept = f"the last good checkpoint is {last}" if last else "there is no checkpoint"
        raise DivergenceError(
            f"the training has diverged at step {step}: {what}. A smaller lr or clip_norm may help; {kept}",
            step,
            self.history,
            last,
        )

    def _due(self) -> bool:
        """Whether the epoch, or the run, that ends at the present step still lacks its row."""
        ends = self.step > 0 and (self.step % self.per_epoch == 0 or self.step == self.stop)
        return ends and (not self.history.epochs or self.history.epochs[-1]["steps"] != self.step)

    def _close_epoch(self) -> None:
        """Evaluate, add the epoch's row, and save."""
        self._read()
        row: dict[str, float] = {
            "epoch": -(-self.step // self.per_epoch),
            "steps": self.step,
            "train_loss": self.sums[0] / self.sums[2],
            "train_top1": self.sums[1] / self.sums[2],
            "lr": self.config.lr * self.config.factor(self.step - 1, self.total),
        }
        ends = self.step == self.stop
        for name, loader in (("val", self.job.val), ("test", self.job.test if ends else None)):
            if loader is not None:
                found = self._evaluate(loader)
                row |= {f"{name}_{key}": found[key] for key in ("loss", "top1", "samples")}
        row["minutes"] = self.elapsed() / 60
        best = self.history.add(row, full=self.step % self.per_epoch == 0)
        self.history.finished = ends
        self.progress.say(epoch_line(row))
        self.saver.save(best=best)

    def _evaluate(self, loader: Iterable[Any]) -> dict[str, float]:
        """Evaluate without moving the random state; an interrupt breaks it off before it counts."""
        alone = (
            self.machine.world == 1
        )  # several processes must break off at the same place, or wait for ever
        stop = (lambda: self.interrupt.asked) if alone else None
        with seeds.kept(self.machine.device):
            try:
                return evaluate(self.model, loader, device=self.machine.device, stop=stop)
            except Stopped:
                raise KeyboardInterrupt from None

    def elapsed(self) -> float:
        """Return the seconds that the run has taken, earlier parts included."""
        return self.seconds + time.monotonic() - self.clock

    def _interrupted(self) -> None:
        self.history.interrupted, self.interrupt.asked = True, False
        if self.whole:
            self._flush()
            self.saver.save()
        last = self.saver.last_good()
        note = f"; resume=True goes on from {last}" if last else ""
        self.progress.say(f"interrupted after step {self.step}{note}")
