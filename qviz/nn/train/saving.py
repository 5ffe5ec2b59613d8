"""Saver: puts the state of a run into a checkpoint and brings it back."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from qviz.core._files import sha256, write_atomically
from qviz.nn.modules import quantizers
from qviz.nn.quant_layer import QuantLayer
from qviz.nn.train.checkpoint import BEST, HISTORY, LAST, STATE, WEIGHTS, Checkpoints
from qviz.nn.train.config import TrainConfig
from qviz.nn.train.errors import CheckpointError
from qviz.nn.train.history import History
from qviz.nn.train.packing import load_into, pack_state, pack_weights, unpack_state, unpack_weights
from qviz.nn.train.state import State


class Saver:
    """Writes and reads the checkpoints of a run; does nothing without a folder.

    Args:
        folder: The folder of the run, or None.
    """

    def __init__(self, folder: str | Path | None) -> None:
        self.store = Checkpoints(folder) if folder is not None else None
        self.best_sha256: str | None = None

    def last_good(self) -> Path | None:
        """Return the newest checkpoint, or None."""
        return self.store.last() if self.store is not None else None

    def begin(self, state: State, *, resume: bool) -> bool:
        """Open the folder and, for ``resume``, bring the state to its last checkpoint; say whether it did.

        Raises:
            FileExistsError: The folder holds a run, and ``resume`` is False.
            CheckpointError: The checkpoint is damaged, or of another run.
            ValueError: The model is not calibrated.
            OSError: The folder cannot be written to, or another run is at work in it.
        """
        if self.store is None:
            _calibrated(state.model)
            return False
        if state.machine.rank == 0:
            self.store.open()
        state.machine.agree()
        last = self.store.last()
        if last is None:
            _calibrated(state.model)
            return False
        if not resume:
            raise FileExistsError(
                f"{self.store.folder} already holds a run; resume=True (--resume) goes on with it, another "
                "folder starts a new one"
            )
        self._load(state, last)
        return True

    def close(self) -> None:
        """Let another run have the folder."""
        if self.store is not None:
            self.store.close()

    def save(self, state: State, *, best: bool = False) -> None:
        """Write a checkpoint of finite weights; ``best`` also puts them where the best ones are.

        Raises:
            OSError: Something could not be written; what was complete before still is.
        """
        if self.store is None:
            return
        states = state.machine.gather(state.local())
        if state.machine.rank == 0:
            self._write(state, states, best)
        state.machine.agree()

    def _write(self, state: State, processes: list[object], best: bool) -> None:
        config = state.config
        info = {"step": state.step, "epoch": state.step / state.per_epoch, "config_sha256": config.sha256}
        weights = pack_weights(state.model, info)
        if best:
            self.best_sha256 = sha256(weights)
        shared = {**state.shared(), "best_sha256": self.best_sha256, "processes": processes}
        parts = {WEIGHTS: weights, STATE: pack_state(shared), HISTORY: state.history.pack()}
        self.store.save(parts, {**info, "config": config.to_dict(), "processes": state.machine.world})
        if best:
            write_atomically(self.store.folder / BEST, weights)
        if state.history.finished:
            write_atomically(self.store.folder / LAST, weights)

    def _load(self, state: State, path: Path) -> None:
        """Bring the state to where the checkpoint was written.

        Raises:
            CheckpointError: It is damaged, or of another configuration, objective, model, data or number of
                processes.
        """
        parts, manifest = self.store.read(path)
        try:
            before = TrainConfig.from_dict(manifest["config"])
        except (ValueError, TypeError) as problem:  # fields of a newer version
            raise CheckpointError(f"{path} cannot be gone on with: {problem}") from problem
        different = state.config.differences(before)
        if different:
            raise CheckpointError(
                f"{path} was written with another configuration ({'; '.join(different)}); give that one, or "
                "another folder"
            )
        held = unpack_state(parts[STATE])
        for what, there, here in (
            ("processes", manifest["processes"], state.machine.world),
            ("steps an epoch", held["per_epoch"], state.per_epoch),
        ):
            if there != here:
                raise CheckpointError(f"{path} was written with {there} {what}; now there are {here}")
        history = History.unpack(parts[HISTORY], path / HISTORY)
        here = state.history.meta["objective"]
        there = history.meta.setdefault("objective", here)  # earlier versions did not say
        if there != here:
            raise CheckpointError(f"{path} was written with the objective {there}; now it is {here}")
        tensors, _ = unpack_weights(parts[WEIGHTS], path / WEIGHTS)
        load_into(state.model, tensors, path, held["extra"])
        try:
            state.restore(held, held["processes"][state.machine.rank], history)
        except ValueError as problem:
            raise CheckpointError(f"{path} was written when other parameters learned: {problem}") from problem
        self.best_sha256 = held["best_sha256"]
        if state.machine.rank == 0:
            self._mend(parts[WEIGHTS], history.finished)

    def _mend(self, weights: bytes, finished: bool) -> None:
        """Put best and last weights in place if the run was killed between the checkpoint and that."""
        own = sha256(weights)
        for name, due in ((BEST, own == self.best_sha256), (LAST, finished)):
            path = self.store.folder / name
            if due and not (path.is_file() and sha256(path.read_bytes()) == own):
                write_atomically(path, weights)


def _calibrated(model: nn.Module) -> None:
    raw = [name for name, q in quantizers(model).items() if not q.calibrated]
    raw += [name for name, m in model.named_modules() if isinstance(m, QuantLayer) and not m.calibrated]
    if raw:
        raise ValueError(
            f"the model is not calibrated ({raw[0]}): call qviz.nn.calibrate(model, batch) with a "
            "training batch before fit"
        )
