"""Checkpoints: everything that a run needs to go on, on the disk as one unit, or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from qviz.core._files import locked, make_folder, sha256, sync_folder, write_synced
from qviz.nn.train.errors import CheckpointError
from qviz.nn.train.packing import load_into, unpack_weights

FORMAT = 1
BEST, LAST = "best.safetensors", "last.safetensors"
WEIGHTS, STATE, HISTORY, MANIFEST = "model.safetensors", "state.pt", "history.safetensors", "manifest.json"


class Checkpoints:
    """The checkpoints of one run: numbered folders of which the newest two stay.

    A checkpoint is written into a temporary folder, put on the disk, and then renamed, which the file system
    does in one go; only after that the oldest one goes. A manifest carries the size and the SHA-256 of each
    part, and its own.

    Args:
        folder: The folder of the run. It is made where it is missing.

    Raises:
        OSError: The folder cannot be made or written to.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.home = self.folder / "checkpoints"
        self._lock = contextlib.ExitStack()

    def open(self) -> None:
        """Make the folder, see that it can be written to, and remove what a killed run left half written.

        Raises:
            OSError: It cannot be made or written to, or another run is at work in it; names the folder.
        """
        make_folder(self.home, f"checkpoints cannot be written to {self.home}")
        try:
            self._lock.enter_context(locked(self.home / ".lock", wait=False))
        except BlockingIOError as problem:
            raise OSError(f"another run is at work in {self.folder}") from problem
        for left in self.home.glob(".new-*"):
            shutil.rmtree(left, ignore_errors=True)

    def close(self) -> None:
        """Let another run have the folder."""
        self._lock.close()

    def all(self) -> list[Path]:
        """Return the complete checkpoints, oldest first."""
        if not self.home.is_dir():
            return []
        return sorted(path for path in self.home.iterdir() if path.name.isdigit() and path.is_dir())

    def last(self) -> Path | None:
        """Return the newest checkpoint, or None."""
        found = self.all()
        return found[-1] if found else None

    def save(self, parts: Mapping[str, bytes], info: Mapping[str, Any]) -> Path:
        """Write a checkpoint; it and the one before stay, the earlier ones until it is complete.

        Args:
            parts: File name -> content.
            info: Plain values for the manifest; ``step`` among them.

        Raises:
            OSError: It could not be written (a full disk, say). The checkpoints that were there are still
                there, and the sentence names the newest.
        """
        before = self.all()
        number = int(before[-1].name) + 1 if before else 1
        temporary, final = self.home / f".new-{number:06d}-{os.getpid()}", self.home / f"{number:06d}"
        files = {name: {"bytes": len(data), "sha256": sha256(data)} for name, data in parts.items()}
        manifest = {"format": FORMAT, **info, "files": files}
        manifest["sha256"] = sha256(_canonical(manifest))
        try:
            temporary.mkdir(parents=True)
            for name, data in parts.items():
                write_synced(temporary / name, data)
            write_synced(temporary / MANIFEST, json.dumps(manifest, indent=1).encode())
            sync_folder(temporary)
            temporary.rename(final)
            sync_folder(self.home)
        except BaseException as problem:
            shutil.rmtree(temporary, ignore_errors=True)
            if not isinstance(problem, OSError):
                raise
            intact = f"the one before it is intact: {before[-1]}" if before else "there was none before it"
            raise OSError(
                problem.errno,
                f"the checkpoint of step {info.get('step')} could not be written to {self.home}: "
                f"{problem.strerror}; {intact}",
            ) from problem
        for old in self.all()[:-2]:
            shutil.rmtree(old, ignore_errors=True)
        return final

    def read(self, path: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
        """Return parts and manifest of a checkpoint, after checking each byte of them.

        Raises:
            CheckpointError: It is damaged; says what is wrong and which checkpoint there is besides.
        """
        try:
            manifest = json.loads((path / MANIFEST).read_bytes())
            if not isinstance(manifest, dict) or not {"sha256", "files", "format", "config"} <= set(manifest):
                raise ValueError(f"{MANIFEST} is not a manifest of qviz")
            claimed = manifest.pop("sha256")
            if sha256(_canonical(manifest)) != claimed:
                raise ValueError(f"{MANIFEST} does not have the hash that it states")
            parts = {}
            for name, expected in manifest["files"].items():
                parts[name] = (path / name).read_bytes()
                _same(name, parts[name], expected)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
            others = [str(other) for other in self.all() if other != path]
            rescue = (
                f"; remove that folder to go on from {others[-1]}" if others else "; there is no other one"
            )
            raise CheckpointError(f"the checkpoint {path} is damaged: {problem}{rescue}") from problem
        if manifest["format"] != FORMAT:
            raise CheckpointError(f"{path} has format {manifest['format']}; this qviz reads {FORMAT}")
        return parts, manifest


def _same(name: str, data: bytes, expected: Mapping[str, Any]) -> None:
    if len(data) != expected["bytes"]:
        raise ValueError(f"{name} has {len(data)} bytes instead of {expected['bytes']}")
    if sha256(data) != expected["sha256"]:
        raise ValueError(f"{name} has the SHA-256 {sha256(data)} instead of {expected['sha256']}")


def _canonical(manifest: Mapping[str, Any]) -> bytes:
    return json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()


def load_checkpoint(model: nn.Module, folder: str | Path, which: str = "best") -> dict[str, Any]:
    """Load the weights of a run into a model, converted the same way.

    Args:
        model: A model of the architecture, and with the quantizers, that were trained.
        folder: What ``fit`` was given.
        which: "best" on the held-out images, or "last".

    Returns:
        Step, epoch, config_sha256, weights_sha256 and whatever else was stored beside the weights.

    Raises:
        FileNotFoundError: There is no such checkpoint. CheckpointError: it is damaged or of another model.
        ValueError: Another ``which``.
    """
    if which not in ("best", "last"):
        raise ValueError(f'which must be "best" or "last", got {which!r}')
    store = Checkpoints(folder)
    if which == "last":
        path = store.last()
        if path is None:
            raise FileNotFoundError(f"there is no checkpoint in {folder}")
        data, path = store.read(path)[0][WEIGHTS], path / WEIGHTS
    else:
        path = store.folder / BEST
        data = path.read_bytes()
    tensors, info = unpack_weights(data, path)
    load_into(model, tensors, path)
    return info
