"""Saver: puts a run into a checkpoint and brings it back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from qviz.nn.layers import QuantLayer
from qviz.nn.train import seeds
from qviz.nn.train.checkpoint import HISTORY, STATE, WEIGHTS, Checkpoints
from qviz.nn.train.config import TrainConfig
from qviz.nn.train.errors import CheckpointError
from qviz.nn.train.files import sha256, write_atomically
from qviz.nn.train.groups import quantizers
from qviz.nn.train.history import History
from qviz.nn.train.packing import load_into, pack_state, pack_weights, unpack_state, unpack_weights

if TYPE_CHECKING:
    from qviz.nn.train.run import Run

BEST, LAST = "best.safetensors", "last.safetensors"


class Saver:
    """Writes and reads the checkpoints of a run; does nothing without a folder.

    Args:
        run: whose state it is.
        folder: of the run, or None.
    """

    def __init__(self, run: Run, folder: str | Path | None) -> None:
        self.run = run
        self.store = Checkpoints(folder) if folder is not None else None
        self.best_sha256: str | None = None

    def last_good(self) -> Path | None:
        """Return the newest checkpoint, or None."""
        return self.store.last() if self.store is not None else None

    def begin(self, *, resume: bool) -> bool:
        """Open the folder and, for ``resume``, bring the run to its last checkpoint; say whether it did."""
        if self.store is None:
            _calibrated(self.run.model)
            return False
        if self.run.machine.rank == 0:
            self.store.open()
        self.run.machine.agree()
        last = self.store.last()
        if last is None:
            _calibrated(self.run.model)
            return False
        if not resume:
            raise FileExistsError(
                f"{self.store.folder} already holds a run; resume=True goes on with it, another folder "
                "starts a new one"
            )
        self._load(last)
        return True

    def close(self) -> None:
        """Let another run have the folder."""
        if self.store is not None:
            self.store.close()

    def save(self, *, best: bool = False) -> None:
        """Write a checkpoint; ``best`` also puts its weights where the best ones are."""
        run = self.run
        if self.store is None:
            return
        finite(run)
        states = run.machine.gather(self._local())
        if run.machine.rank == 0:
            info = {"step": run.step, "epoch": run.step / run.per_epoch, "config_sha256": run.config.sha256}
            weights = pack_weights(run.model, info)
            if best:
                self.best_sha256 = sha256(weights)
            parts = {
                WEIGHTS: weights,
                STATE: pack_state({**self._shared(), "processes": states}),
                HISTORY: run.history.pack(),
            }
            self.store.save(parts, {**info, "config": run.config.to_dict(), "processes": run.machine.world})
            if best:
                write_atomically(self.store.folder / BEST, weights)
            if run.history.finished:
                write_atomically(self.store.folder / LAST, weights)
        run.machine.agree()

    def _shared(self) -> dict[str, Any]:
        """Return what is the same on every process, besides weights and History."""
        run = self.run
        return {
            "step": run.step,
            "per_epoch": run.per_epoch,
            "seconds": run.elapsed(),
            "sums": list(run.sums),
            "best_sha256": self.best_sha256,
            "optimisers": [optimiser.state_dict() for optimiser in run.optimisers],
            "recorder": run.recorder.state(),
            "extra": {k: v for k, v in run.model.state_dict().items() if not isinstance(v, Tensor)},
        }

    def _local(self) -> dict[str, Any]:
        """Return what each process has of its own."""
        run = self.run
        return {
            "random": seeds.capture(run.machine.device),
            "generators": seeds.generator_states(run.model),
        }

    def _load(self, path: Path) -> None:
        """Bring the run to where the checkpoint was written.

        Raises:
            CheckpointError: it is damaged, or of another configuration, model, data or number of processes.
        """
        run = self.run
        parts, manifest = self.store.read(path)
        try:
            before = TrainConfig.from_dict(manifest["config"])
        except (ValueError, TypeError) as problem:  # fields of a newer version
            raise CheckpointError(f"{path} cannot be gone on with: {problem}") from problem
        different = run.config.differences(before)
        if different:
            raise CheckpointError(
                f"{path} was written with another configuration ({'; '.join(different)}); give that one, or "
                "another folder"
            )
        state = unpack_state(parts[STATE])
        for what, there, here in (
            ("processes", manifest["processes"], run.machine.world),
            ("steps an epoch", state["per_epoch"], run.per_epoch),
        ):
            if there != here:
                raise CheckpointError(f"{path} was written with {there} {what}; now there are {here}")
        tensors, _ = unpack_weights(parts[WEIGHTS], path / WEIGHTS)
        load_into(run.model, tensors, path, state["extra"])
        try:
            for optimiser, held in zip(run.optimisers, state["optimisers"], strict=True):
                optimiser.load_state_dict(held)
        except ValueError as problem:
            raise CheckpointError(f"{path} was written when other parameters learned: {problem}") from problem
        run.step, run.seconds, run.sums = state["step"], state["seconds"], list(state["sums"])
        run.history = History.unpack(parts[HISTORY], path / HISTORY)
        run.history.reopen(run.per_epoch, run.stop)
        run.recorder.load(state["recorder"])
        self._restore_random(state["processes"][run.machine.rank])
        self.best_sha256 = state["best_sha256"]
        if run.machine.rank == 0:
            self._mend(parts[WEIGHTS])

    def _restore_random(self, held: dict[str, Any]) -> None:
        run = self.run
        seeds.restore(held["random"], run.machine.device)
        for name, generator in seeds.own_generators(run.model).items():
            generator.set_state(held["generators"][name])

    def _mend(self, weights: bytes) -> None:
        """Put best and last weights in place if the run was killed between the checkpoint and that."""
        own = sha256(weights)
        for name, due in ((BEST, own == self.best_sha256), (LAST, self.run.history.finished)):
            path = self.store.folder / name
            if due and not (path.is_file() and sha256(path.read_bytes()) == own):
                write_atomically(path, weights)


def finite(run: Run) -> None:
    """Refuse to store weights that are no numbers.

    Raises:
        DivergenceError: a parameter is NaN or infinite.
    """
    bad = [name for name, p in run.model.named_parameters() if not torch.isfinite(p).all()]
    if bad:
        run.diverged(run.step, f"{bad[0]} is not finite")


def _calibrated(model: nn.Module) -> None:
    raw = [name for name, q in quantizers(model).items() if not q.range.calibrated]
    raw += [name for name, m in model.named_modules() if isinstance(m, QuantLayer) and not m.calibrated]
    if raw:
        raise ValueError(
            f"the model is not calibrated ({raw[0]}): call qviz.nn.convert.calibrate(model, batch) with a "
            "training batch before fit"
        )
