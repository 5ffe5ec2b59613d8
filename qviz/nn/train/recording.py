"""Recording: one layer's weights and quantizers, frame by frame, while a network learns to be quantized."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from qviz.core._files import write_atomically

FRAMES = {"master": 2, "codes": 2, "loss": 1, "top1": 1, "changed": 1, "returned": 1}
"""The arrays that each recording has, with their number of axes; the first of them is the frame."""


@dataclass(frozen=True, eq=False)
class LayerRecording:
    """What happened to one layer: R frames of W of its weights.

    A weight changes its code at a step when its code after the update differs from that before. It *returns*
    when that change has the opposite sign of the change before, however long ago: an oscillation.

    Attributes:
        steps: The steps of the frames, int64, (R,); step s is the state after the s-th update.
        master: The weights as the grid sees them, float32, (R, W): standardized where the layer does that,
            and with one scale a channel brought to the median one.
        codes: The codes of these weights, uint8, (R, W).
        loss: The loss of the step's batch, float32, (R,); NaN where there is none, as at step 0.
        top1: The share of right images of the step's batch, float32, (R,); NaN likewise.
        changed: The share of *all* the layer's weights whose code changed, for each step since the frame
            before, float32, (R,).
        returned: The same of those that returned.
        values: What the quantizers are made of, by name, float32, (R, n) each. "weight levels" and, where
            fixed borders exist, "weight borders" are places on the axis of ``master``; so are "input levels"
            and "input borders" on the axis of the layer's input. Others are parameters as they are called.
        about: What it is, plain types: ``name``, ``layer``, ``shape`` (of the weight) and ``places`` (W
            places in the flattened weight) at least.

    Raises:
        ValueError: Arrays do not fit together; a code has no level.

    References:
        Nagel et al., "Overcoming Oscillations in Quantization-Aware Training", ICML 2022, arXiv:2203.11086,
        section 3.1, for the definition of an oscillation.
    """

    steps: np.ndarray
    master: np.ndarray
    codes: np.ndarray
    loss: np.ndarray
    top1: np.ndarray
    changed: np.ndarray
    returned: np.ndarray
    values: Mapping[str, np.ndarray]
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what cannot be shown."""
        frames = len(self.steps)
        rows = {name: getattr(self, name) for name in FRAMES} | dict(self.values)
        axes = FRAMES | dict.fromkeys(self.values, 2)
        wrong = [name for name, row in rows.items() if row.ndim != axes[name] or len(row) != frames]
        if not frames or wrong or self.master.shape != self.codes.shape or not self.master.size:
            shapes = {name: rows[name].shape for name in wrong or ("master", "codes")}
            raise ValueError(f"{frames} frames do not fit with {shapes}")
        if (np.diff(self.steps) <= 0).any():
            raise ValueError("the steps of the frames do not increase")
        if "weight levels" not in self.values or self.codes.max() >= self.levels.shape[1]:
            raise ValueError(f"code {self.codes.max()} has no level among the recorded values")
        if not all(np.isfinite(row).all() for row in (self.master, *self.values.values())):
            raise ValueError("weights or quantizers are NaN or infinite")
        if {"name", "layer", "shape", "places"} - set(self.about):
            raise ValueError(f"about needs name, layer, shape and places, got {sorted(self.about)}")

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.steps)

    @property
    def name(self) -> str:
        """The name of the run."""
        return str(self.about["name"])

    @property
    def levels(self) -> np.ndarray:
        """Where the weight's levels are on the axis of ``master``, (R, K)."""
        return self.values["weight levels"]

    @cached_property
    def quantized(self) -> np.ndarray:
        """The level of each weight, (R, W), on the axis of ``master``."""
        return np.take_along_axis(self.levels, self.codes.astype(np.int64), axis=1)

    @cached_property
    def in_cells(self) -> np.ndarray:
        """The weights in units of cells, (R, W): 2.5 is midway between the levels of codes 2 and 3.

        On this axis runs with different units can be compared. Beyond the outermost levels it stops.
        """
        codes = np.arange(self.levels.shape[1])
        return np.stack([np.interp(w, at, codes) for w, at in zip(self.master, self.levels, strict=True)])

    def frame(self, step: int) -> int:
        """Return the number of the last frame at or before a step; the first where there is none."""
        return max(int(np.searchsorted(self.steps, step, side="right")) - 1, 0)

    def pack(self) -> bytes:
        """Return everything as safetensors, ``about`` in its metadata."""
        from safetensors.numpy import save

        arrays = {name: getattr(self, name) for name in ("steps", *FRAMES)}
        arrays |= {f"values.{name}": row for name, row in self.values.items()}
        whole = {name: np.ascontiguousarray(row) for name, row in arrays.items()}
        return save(whole, {"layer_recording": json.dumps(dict(self.about))})

    @classmethod
    def unpack(cls, data: bytes, source: str | Path) -> LayerRecording:
        """Read what :meth:`pack` gave.

        Raises:
            ValueError: The content is damaged or no recording; names ``source``.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            arrays = load(data)
            size = int.from_bytes(data[:8], "little")
            about = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["layer_recording"])
            values = {name[7:]: arrays.pop(name) for name in sorted(arrays) if name.startswith("values.")}
            return cls(**arrays, values=values, about=about)
        except (SafetensorError, KeyError, ValueError, TypeError) as problem:
            raise ValueError(f"{source} is no LayerRecording, or is damaged: {problem}") from problem

    def save(self, path: str | Path) -> None:
        """Write everything into one safetensors file, atomically.

        Raises:
            OSError: The file cannot be written; what was there before stays.
        """
        write_atomically(path, self.pack())

    @classmethod
    def load(cls, path: str | Path) -> LayerRecording:
        """Read what :meth:`save` wrote; nothing is unpickled.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is damaged or no recording.
        """
        return cls.unpack(Path(path).read_bytes(), path)
