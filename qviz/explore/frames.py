"""Frames: a recorded run at one of its steps, and the numbers that it has there and over all steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qviz import shipped
from qviz.nn.train.recording import LayerRecording

SHIPPED = ("ste", "daq", "adq_static", "adq_ema")
NONE = "none: the start of run A"
"""What stands in place of a second run."""
FIGURES = {
    "codes changed": ("changed", "codes that changed (% a step)", 100.0),
    "codes that went back": ("returned", "codes that went back (% a step)", 100.0),
    "loss": ("loss", "loss of the step's images", 1.0),
    "accuracy": ("top1", "accuracy on the step's images (%)", 100.0),
}
"""Curves that each recording has: their arrays, axes and factors."""
HEADERS = ("run", "step", "loss", "changes", "returns", "error (%)", "levels in use")


@dataclass(frozen=True)
class Shown:
    """A run and the frame that is shown.

    Attributes:
        name: Its name in the picture.
        run: The recording.
        frame: The number of the frame.
        role: How it is drawn.
    """

    name: str
    run: LayerRecording
    frame: int
    role: str

    @property
    def step(self) -> int:
        """The step of the frame."""
        return int(self.run.steps[self.frame])

    def figures(self) -> dict[str, float]:
        """Return the numbers of the run's row in the table, by column."""
        run, f = self.run, self.frame
        passed = np.diff(run.steps, prepend=0)[: f + 1]
        size = float(np.linalg.norm(run.master[f]))
        numbers = (
            self.step,
            float(run.loss[f]),
            float(run.changed[: f + 1] @ passed),
            float(run.returned[: f + 1] @ passed),
            100.0 * float(np.linalg.norm(run.quantized[f] - run.master[f])) / size if size else 0.0,
            len(np.unique(run.codes[f])),
        )
        return dict(zip(HEADERS[1:], numbers, strict=True))

    def weight(self, number: int) -> int:
        """Return the index of a weight by its number; the last one where there are fewer."""
        return min(number - 1, self.run.master.shape[1] - 1)


def curves(runs: Mapping[str, LayerRecording]) -> tuple[str, ...]:
    """Return the names of all curves that some run has."""
    return (*FIGURES, *dict.fromkeys(name for run in runs.values() for name in run.values))


def trajectory(run: LayerRecording, name: str) -> tuple[str, np.ndarray]:
    """Return the axis and the numbers, (R, n), of a curve; n = 0 where the run has none.

    What lies on the axis of the weights is divided by their standard deviation at the first frame, so that
    runs in different units (DAQ standardizes) can share a picture.
    """
    if name in FIGURES:
        array, label, factor = FIGURES[name]
        rows = factor * getattr(run, array).astype(np.float64)[:, None]
        if array in ("changed", "returned"):
            rows[0] = np.nan  # nothing can have changed yet
        return label, rows
    rows = run.values.get(name, np.zeros((len(run), 0))).astype(np.float64)
    if not name.startswith("weight ") or name.startswith("weight codebook"):
        return name, rows
    return f"{name} (first weights' std)", rows / (float(run.master[0].astype(np.float64).std()) or 1.0)


def restless(run: LayerRecording) -> list[int]:
    """Return the numbers of a run's weights, the one whose code changed most often first."""
    count = (np.diff(run.codes.astype(np.int64), axis=0) != 0).sum(0)
    return (np.argsort(-count, kind="stable") + 1).tolist()


def opened(*runs: LayerRecording | str | Path) -> dict[str, LayerRecording]:
    """Return recordings, or those in files, by name; by default the four that ship with the package.

    Raises:
        ValueError: A file is no recording, or two runs have one name.
        FileNotFoundError: There is no such file.
    """
    files = runs or [shipped.checkpoint(f"recording_{name}.safetensors") for name in SHIPPED]
    made = [run if isinstance(run, LayerRecording) else LayerRecording.load(run) for run in files]
    found = {run.name: run for run in made}
    if len(found) < len(made) or NONE in found:
        raise ValueError(f"every run needs a name of its own, got {[run.name for run in made]}")
    return found


def presets(runs: Mapping[str, LayerRecording], last: int, *, own: bool) -> dict[str, dict[str, Any]]:
    """Return what is worth seeing at the last step: of one's own runs the first beside its start."""
    first, *others = runs
    alone = {"run_a": first, "run_b": NONE, "curve": "loss", "step": last}
    found = {f"{first}: before and after": alone}
    if own:
        return found
    second, *ways = others
    codebooks = {"run_a": ways[0], "run_b": ways[1], "curve": "weight levels", "step": last}
    return {
        f"{first} against {second}": {"run_a": first, "run_b": second, "step": last},
        "codebook that stays, codebook that follows": codebooks,
        **found,
    }


def told(runs: list[Shown]) -> str:
    """Return what is recorded of each run, in words."""
    return " ".join(
        f"{one.name}: layer {one.run.about['layer']}, {' × '.join(map(str, one.run.about['shape']))}, "
        f"{one.run.master.shape[1]} of its weights."
        for one in runs
    )
