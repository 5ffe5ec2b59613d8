"""Run: one call of fit, its position and everything that has to be kept together."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any, NoReturn

from torch import Tensor, nn

from qviz.nn.batches import call
from qviz.nn.layers import adapt
from qviz.nn.modules import evaluating, modes_kept, quantizers
from qviz.nn.train import batch as batches
from qviz.nn.train import seeds
from qviz.nn.train.announce import describe, facts, objective
from qviz.nn.train.errors import DivergenceError
from qviz.nn.train.evaluate import Stopped, batches_of, evaluate
from qviz.nn.train.figures import Meter
from qviz.nn.train.history import History
from qviz.nn.train.interrupt import Interrupt
from qviz.nn.train.job import Job
from qviz.nn.train.machine import Machine
from qviz.nn.train.objective import Objective
from qviz.nn.train.optim import optimizers, set_rates
from qviz.nn.train.progress import Progress, Timer, epoch_line, figures
from qviz.nn.train.recorder import Recorder
from qviz.nn.train.saving import Saver
from qviz.nn.train.state import State


class Run:
    """One call of fit.

    Args:
        job: What to do.
        machine: Where to do it.
        interrupt: Says when somebody wants the run to stop.
    """

    def __init__(self, job: Job, machine: Machine, interrupt: Interrupt) -> None:
        self.job, self.machine, self.interrupt = job, machine, interrupt
        self.model, self.config, self.per_epoch = job.model, job.config, job.per_epoch
        self.total = self.per_epoch * self.config.epochs
        self.stop = min(self.total, self.config.max_steps or self.total)
        machine.place(self.model)
        if job.teacher is not None:
            machine.place(job.teacher)
        self.figure = "top1" if job.metric is None else "metric"
        learned = objective(job.loss, job.metric, job.teacher, job.teacher_share)
        history = History({"objective": learned}, figure=self.figure)
        recorder = Recorder(self.model, self.config.record_every)
        fixed = self.model, self.config, machine, self.per_epoch, self.stop
        self.state = State(*fixed, optimizers(self.model, self.config), recorder, history)
        self.meter = Meter(machine.device, machine.world)
        self.saver = Saver(job.folder)
        self.objective = Objective(job, machine.device)
        self.whole = True  # model, optimizers and random state are those of `step`, not of half a step

    def go(self, *, resume: bool, show: bool) -> History:
        """Start or go on, train, and leave everything in order whatever happens."""
        with modes_kept(self.model), ExitStack() as stack:
            if self.job.teacher is not None:
                stack.enter_context(evaluating(self.job.teacher))
            return self._go(resume, show)

    def _go(self, resume: bool, show: bool) -> History:
        try:
            resumed = self.saver.begin(self.state, resume=resume)
            self._set_up(resumed)
            if show:
                self._announce()
            self.progress = Progress(self.stop, self.state.step, show=show)
            self.timer = Timer(self.progress, self.state.step, self.stop)
            self._train(resumed)
        finally:
            self.machine.share_inputs(self.model, 1)
            self.saver.close()
        return self.state.history

    def _set_up(self, resumed: bool) -> None:
        self.machine.share_inputs(self.model, self.machine.world)
        self.net = self.machine.wrap(self.model)
        if not resumed:
            seeds.seed_all(self.config.seed, self.machine.rank)
            self.state.history.meta |= facts(self.model, self.per_epoch, self.machine.facts())
            self.state.recorder.start(self.state.history)
        self.state.history.meta |= {"config": self.config.to_dict(), "config_sha256": self.config.sha256}
        self.state.history.interrupted = False
        self.state.started = time.monotonic()

    def _announce(self) -> None:
        train, step, where = self.job.train, self.state.step, str(self.machine)
        print(describe(self.model, train, self.config, self.per_epoch, step, where), flush=True)

    def _train(self, resumed: bool) -> None:
        try:
            if not resumed:
                self._save()  # a folder that cannot be written to shows now, not after an epoch
            if self.state.due():  # stopped between the last step of an epoch and its evaluation
                self._close_epoch()
            while self.state.step < self.stop:
                self._epoch()
                self._close_epoch()
        except KeyboardInterrupt:
            self._interrupted()
        finally:
            self.progress.close()

    def _epoch(self) -> None:
        """Make the steps that the present epoch still has."""
        epoch, start = divmod(self.state.step, self.per_epoch)
        self.model.train()
        where = {"rank": self.machine.rank, "world": self.machine.world, "device": self.machine.device}
        for x, y in batches_of(self.job.train, epoch=epoch, start=start, **where):
            self._update(self.machine.images(x), y)
            self._after()
            if self.state.step == self.stop or self.state.step % self.per_epoch == 0:
                return
        raise ValueError(
            f"train says that an epoch has {self.per_epoch} batches, but epoch {epoch + 1} ended after "
            f"{self.state.step - epoch * self.per_epoch}"
        )

    def _update(self, x: Tensor, y: Tensor) -> None:
        """Make one optimizer step."""
        self.whole = False
        count = batches.size(x, y)
        self.machine.check(count)
        set_rates(self.state.optimizers, self.config.factor(self.state.step, self.total))
        with self.machine.autocast():
            output = call(self.net, x)
            value = self.objective.loss(output, x, y)
        if self.meter.window == 1 and not math.isfinite(value.item()):
            self._diverged(self.state.step + 1, f"the loss is {value.item()}")
        self.machine.accelerator.backward(value)
        if self.config.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        for optimizer in self.state.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self._adapt()
        self.state.step += 1
        scored, weight = batches.counted(y, count), self.objective.weight(y, count)
        self.meter.add(self.state.step, value, weight, self.objective.score(output, y, count), scored)
        self.state.recorder.update(self.state.step, self.state.history, last=self.state.step == self.stop)
        self.whole = True

    def _adapt(self) -> None:
        share = self.config.freeze_codebooks
        if share < 1.0 and self.state.step >= share * self.total:
            for q in quantizers(self.model).values():
                q.codebook.freeze()
        try:
            adapt(self.model)
        except ValueError:  # codebooks refuse weights that are no numbers
            self._see_finite()
            raise

    def _after(self) -> None:
        """Do what follows a step: read the figures, call back, save."""
        every = self.config.checkpoint_every
        saves = bool(every) and self.state.step % every == 0
        if self.meter.full or saves:
            self._read()
        if self.job.on_step is not None:
            self.job.on_step(self.state.step, self.state.history)
        if saves and self.state.step != self.stop and self.state.step % self.per_epoch:
            self._save()
        self.timer.tick(self.state.step)

    def _read(self) -> None:
        """Bring the steps since the last reading into the History; stop where that was asked for."""
        if self._flush():
            raise KeyboardInterrupt

    def _flush(self) -> bool:
        readings, stop = self.meter.read(self.interrupt.asked)
        for reading in readings:
            if not math.isfinite(reading.loss):
                self._diverged(reading.step, f"the loss is {reading.loss}")
            self.state.note(reading)
        self.state.recorder.drain()
        if readings:
            loss, score = self.state.means()
            told = figures(loss, self.figure, score)
            self.progress.update(self.state.step, -(-self.state.step // self.per_epoch), told)
        return stop

    def _diverged(self, step: int, what: str) -> NoReturn:
        """Raise DivergenceError, naming the checkpoint that stays."""
        last = self.saver.last_good()
        kept = f"the last good checkpoint is {last}" if last else "there is no checkpoint"
        text = f"the training has diverged at step {step}: {what}. A smaller lr or clip_norm may help; {kept}"
        raise DivergenceError(text, step, self.state.history, last)

    def _close_epoch(self) -> None:
        """Evaluate, add the epoch's row, and save."""
        self._read()
        loss, score = self.state.means()
        row: dict[str, float] = {
            "epoch": -(-self.state.step // self.per_epoch),
            "steps": self.state.step,
            "train_loss": loss,
            f"train_{self.figure}": score,
            "lr": self.state.rate(self.state.step),
        }
        ends = self.state.step == self.stop
        for name, loader in (("val", self.job.val), ("test", self.job.test if ends else None)):
            if loader is not None:
                found = self._evaluate(loader)
                told = ("loss", self.figure, "samples")
                row |= {f"{name}_{key}": found[key] for key in told if key in found}
        row = {key: value for key, value in row.items() if not (key.endswith(self.figure) and value != value)}
        row["minutes"] = self.state.elapsed() / 60
        best = self.state.history.add(row, full=self.state.step % self.per_epoch == 0)
        self.state.history.finished = ends
        self.progress.say(epoch_line(row))
        self._save(best=best)

    def _evaluate(self, loader: Iterable[Any]) -> dict[str, float]:
        """Evaluate without moving the random state; an interrupt breaks it off before it counts."""
        # several processes must break off at the same place, or wait for ever
        stop = (lambda: self.interrupt.asked) if self.machine.world == 1 else None
        with seeds.kept(self.machine.device):
            how = {"device": self.machine.device, "stop": stop}
            try:
                return evaluate(self.model, loader, loss=self.job.loss, metric=self.job.metric, **how)
            except Stopped:
                raise KeyboardInterrupt from None

    def _save(self, *, best: bool = False) -> None:
        if self.saver.store is not None:
            self._see_finite()
        self.saver.save(self.state, best=best)

    def _see_finite(self) -> None:
        """Refuse to go on with weights that are no numbers."""
        if bad := self.state.not_finite():
            self._diverged(self.state.step, f"{bad} is not finite")

    def _interrupted(self) -> None:
        self.state.history.interrupted, self.interrupt.asked = True, False
        if self.whole:
            self._flush()
            self._save()
        last = self.saver.last_good()
        note = f"; resume=True goes on from {last}" if last else ""
        self.progress.say(f"interrupted after step {self.state.step}{note}")
