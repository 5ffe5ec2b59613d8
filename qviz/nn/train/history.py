"""History: what a run did, step by step and epoch by epoch, in at most 5 MB."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from qviz.core._files import write_atomically
from qviz.nn.train.series import Series

FIGURES = ("top1", "metric")
"""What a run may be judged by, besides the loss: accuracy, or the caller's own metric."""
BUDGETS = {"curve": 800_000, "scalars": 3_000_000, "vectors": 800_000}
"""Bytes that each series may take; the epochs' rows and the names come on top."""


class History:
    """What a run did.

    Attributes:
        curve: Series of ``loss``, ``lr`` and ``top1`` (share of the batch's images, 0 to 1; NaN where targets
            are no classes) or ``metric`` (the caller's own) of each step.
        scalars: Series of the quantizers' parameters, tracked weights and oscillation counts; None before
            the run has recorded any. Columns: ``<parameter>`` (a number or a vector of up to 8) or
            ``<parameter>.mean``, ``.min``, ``.max`` (of learned steps and clips, which act as
            magnitudes, those of the magnitudes); ``<layer>.weight.master`` and ``<layer>.weight.quantized``
            (the same few weights); ``<layer>.oscillations`` (until then, for each watched weight).
        vectors: Series of codebooks, knots and borders, at longer intervals.
        epochs: One dict an epoch: epoch (from 1), steps (done in all), train_loss, train_top1, lr, minutes
            (in all) and, where measured, val_loss, val_top1, val_samples, test_loss, test_top1, test_samples.
        best: Epoch, steps and val_top1 (or val_metric, or val_loss where there is neither) of the best epoch
            on ``val``; None without ``val``.
        interrupted: Whether the run was stopped by hand. finished: whether it came to its end.
        meta: Model, config, config_sha256, objective (loss, metric, teacher; None for the usual ones),
            steps_per_epoch, quantized (sentences), device, versions; and of the quantizers ``tracked``
            (indices of the weights that are followed, by layer), ``levels`` and ``scales`` (those that do not
            move, by quantizer).

    Step s is the state after the s-th update; step 0, the start, is in ``scalars`` and ``vectors`` only. All
    series have the last step of the run.
    """

    def __init__(self, meta: dict[str, Any] | None = None, *, figure: str = "top1") -> None:
        self.meta: dict[str, Any] = dict(meta or {})
        self.curve = Series({"loss": 1, "lr": 1, figure: 1}, budget=BUDGETS["curve"])
        self.scalars: Series | None = None
        self.vectors: Series | None = None
        self.epochs: list[dict[str, float]] = []
        self.best: dict[str, float] | None = None
        self.interrupted = self.finished = False

    @property
    def steps(self) -> int:
        """How many steps the last epoch's row or the curve reaches."""
        last = self.curve.steps[-1] if self.curve.steps else 0
        return max(last, int(self.epochs[-1]["steps"]) if self.epochs else 0)

    @property
    def names(self) -> list[str]:
        """Every column of the three series."""
        return [name for series in self._series().values() for name in series.columns]

    def __getitem__(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return steps, int64 (R,), and values, float32 (R,) or (R, n), of a column.

        Raises:
            KeyError: There is no such column.
        """
        for series in self._series().values():
            if name in series:
                return np.asarray(series.steps, dtype=np.int64), series[name]
        raise KeyError(f"no column {name!r}; .names lists them")

    def lines(self, figure: str, run: str = "") -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return how a figure went, ready to be drawn: of each training step, and of the held-out images.

        Args:
            figure: "loss", or "top1" or "metric", whichever the run has.
            run: Put before the names of the lines, to tell several runs apart.

        Returns:
            Steps and values of "training" and, where any images were held out, of "held-out" (once an epoch).

        Raises:
            ValueError: There is no such figure.
        """
        if figure == "lr" or figure not in self.curve:
            own = next(name for name in self.curve.columns if name in FIGURES)
            raise ValueError(f"figure must be 'loss' or {own!r}, got {figure!r}")
        found = {"training": self[figure]}
        held = [row for row in self.epochs if f"val_{figure}" in row]
        if held:
            ends = np.array([row["steps"] for row in held], dtype=np.int64)
            found["held-out"] = ends, np.array([row[f"val_{figure}"] for row in held], dtype=np.float32)
        return {f"{run} {name}".strip(): line for name, line in found.items()}

    def layers(self, ending: str, *, relative: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Return a recorded number of every layer that has it, ready to be drawn as one line a layer.

        Args:
            ending: How the columns' names end, such as "weight_quantizer.range.step".
            relative: Whether to divide magnitudes by that of the start (a learned scale s acts as |s|).

        Returns:
            Steps, int64 (R,), and values, float32 (R, L), one column a layer in the network's order.

        Raises:
            KeyError: No column's name ends so.
            ValueError: One that does holds a vector.
        """
        found = {name: self[name] for name in self.names if name.endswith(ending)}
        if not found:
            raise KeyError(f"no column's name ends with {ending!r}; .names lists them")
        for name, (_, values) in found.items():
            if values.ndim > 1:
                raise ValueError(f"{name} holds {values.shape[1]} numbers a step, not one")
        steps = next(iter(found.values()))[0]
        values = np.stack([values for _, values in found.values()], axis=1)
        return steps, np.abs(values) / np.abs(values[0]) if relative else values

    def _series(self) -> dict[str, Series]:
        found = {"curve": self.curve, "scalars": self.scalars, "vectors": self.vectors}
        return {name: series for name, series in found.items() if series is not None}

    def __repr__(self) -> str:
        state = "finished" if self.finished else "interrupted" if self.interrupted else "not finished"
        row = self.epochs[-1] if self.epochs else {}
        keys = [f"{part}_{figure}" for part in ("val", "test") for figure in FIGURES]
        figures = "".join(f", {key} {row[key]:.4f}" for key in keys if key in row)
        return f"History({self.steps} steps, {len(self.epochs)} epochs, {state}{figures})"

    def add(self, row: dict[str, float], *, full: bool) -> bool:
        """Add an epoch's row; say whether it is the best so far on ``val``.

        Args:
            row: See ``epochs``.
            full: Whether the epoch was not cut short; only such a one can be the best.
        """
        self.epochs.append(row)
        key = next((key for key in ("val_metric", "val_top1", "val_loss") if key in row), None)
        if key is None or not full:
            return False
        sign = -1.0 if key == "val_loss" else 1.0
        if self.best is not None and sign * row[key] <= sign * self.best[key]:
            return False
        self.best = {name: row[name] for name in ("epoch", "steps", key)}
        return True

    def reopen(self, per_epoch: int, stop: int) -> None:
        """Drop what only the end of a run adds, so that it can be extended to a later ``stop``."""
        if self.steps < stop:
            for series in self._series().values():
                series.reopen()
        if self.epochs and self.epochs[-1]["steps"] < stop and self.finished:
            self.finished = False
            if self.epochs[-1]["steps"] % per_epoch:  # an epoch that was cut short comes again
                self.epochs.pop()
            else:
                row = self.epochs[-1]
                self.epochs[-1] = {key: row[key] for key in row if not key.startswith("test_")}

    def pack(self) -> bytes:
        """Return everything as safetensors, the names and the epochs in its metadata."""
        from safetensors.numpy import save

        tensors, described = {}, {}
        for name, series in self._series().items():
            tensors[f"{name}.steps"], tensors[f"{name}.values"] = series.arrays()
            described[name] = series.describe()
        head = {name: getattr(self, name) for name in ("meta", "epochs", "best", "interrupted", "finished")}
        return save(tensors, {"history": json.dumps({"series": described, **head})})

    @classmethod
    def unpack(cls, data: bytes, source: str | Path) -> History:
        """Read what :meth:`pack` gave.

        Raises:
            ValueError: The content is damaged or no History; names ``source``.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            tensors = load(data)
            size = int.from_bytes(data[:8], "little")
            head = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["history"])
            made = cls(head["meta"])
            for name, described in head["series"].items():
                arrays = tensors[f"{name}.steps"], tensors[f"{name}.values"]
                setattr(made, name, Series.rebuild(described, *arrays))
            for name in ("epochs", "best", "interrupted", "finished"):
                setattr(made, name, head[name])
        except (SafetensorError, KeyError, ValueError, TypeError) as problem:
            raise ValueError(f"{source} is no History, or is damaged: {problem}") from problem
        return made

    def save(self, path: str | Path) -> None:
        """Write everything into one safetensors file, atomically.

        Raises:
            OSError: The file cannot be written; what was there before stays.
        """
        write_atomically(path, self.pack())

    @classmethod
    def load(cls, path: str | Path) -> History:
        """Read what :meth:`save` wrote, or the newest checkpoint's History of a run's folder.

        Raises:
            FileNotFoundError: There is no such file, or no checkpoint in the folder.
            ValueError: The file is damaged or no History.
        """
        path = Path(path)
        if path.is_dir():
            held = sorted(path.glob("checkpoints/[0-9]*/history.safetensors"))
            if not held:
                raise FileNotFoundError(f"there is no checkpoint in {path}")
            path = held[-1]
        return cls.unpack(path.read_bytes(), path)
