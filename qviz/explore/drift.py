"""Drift: weights that move step by step as a whole, and a codebook that follows them."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from qviz.core.codebook import Codebook
from qviz.core.lloyd import lloyd_centers
from qviz.core.quantizer import Quantizer
from qviz.core.range import Fixed
from qviz.core.summary import Summary
from qviz.explore.tensors import Source, summary
from qviz.measure import Measured
from qviz.methods.adq import EMACodebook

STEPS = 100
JUMP = 20
"""The step at which weights that halve do so."""
MOST = 4096
"""Of more values so many quantiles stand for them, so that an update takes half a millisecond."""

DRIFTS: dict[str, Callable[[float, int], tuple[float, float]]] = {
    "none": lambda speed, step: (1.0, 0.0),
    "grow": lambda speed, step: ((1.0 + speed) ** step, 0.0),
    "shrink": lambda speed, step: ((1.0 - speed) ** step, 0.0),
    "shift": lambda speed, step: (1.0, speed * step),
    "halve at once": lambda speed, step: (0.5 if step >= JUMP else 1.0, 0.0),
}
"""What weights are multiplied by, and how many standard deviations are added, at a speed and a step."""


@functools.lru_cache(maxsize=8)
def values(source: Source) -> Summary:
    """Return the summary of a tensor's values; of more than :data:`MOST`, of as many of their quantiles."""
    rows = summary(source).rows.flatten().sort().values
    count = min(len(rows), MOST)
    return Summary(rows[((torch.arange(count) + 0.5) * (len(rows) / count)).long()].double())


@functools.lru_cache(maxsize=16)
def optimum(source: Source, count: int) -> np.ndarray:
    """Return the levels with the least squared error for the values at step 0."""
    return lloyd_centers(values(source).x.numpy(), count)


class Drift:
    """The values of a tensor at every step: scale * value + offset.

    Args:
        source: The tensor.
        kind: One of :data:`DRIFTS`.
        speed: How far they move in a step, as a share of their size.

    Attributes:
        data: The summary of the values at step 0.
        std: Their standard deviation.
        moves: Scale and offset of every step, shape (STEPS + 1, 2).
    """

    def __init__(self, source: Source, kind: str, speed: float) -> None:
        self.source, self.data = source, values(source)
        self.std = float(self.data.x.std(correction=0))
        self.moves = np.array([DRIFTS[kind](speed, step) for step in range(STEPS + 1)]) * [1.0, self.std]
        self._still: dict[bytes, np.ndarray] = {}

    @property
    def reach(self) -> tuple[float, float]:
        """The ends of an axis: the values at every step, a little more, and never nothing."""
        ends = torch.cat([self.at(step)[[0, -1]] for step in (0, STEPS)])
        low, high = float(ends.min()), float(ends.max())
        margin = 0.02 * (high - low) or 0.5 * abs(high) or 0.5
        return min(low, 0.0) - margin, max(high, 0.0) + margin

    def at(self, step: int) -> Tensor:
        """Return the values at a step, float64, sorted."""
        return self.moves[step, 0] * self.data.x + self.moves[step, 1]

    def back(self, places: np.ndarray, step: int) -> np.ndarray:
        """Return where places on the axis at a step lie on the axis of step 0."""
        return (places - self.moves[step, 1]) / self.moves[step, 0]

    def measured(self, levels: np.ndarray, step: int) -> Measured:
        """Return the figures of levels at a step; errors are on the axis of step 0."""
        q = Quantizer(Codebook(self.back(levels, step)), range=Fixed(1.0))
        return Measured(q, self.data)

    def mse(self, levels: np.ndarray, step: int) -> float:
        """Return the mean squared error of levels at a step."""
        at = torch.from_numpy(self.back(levels, step))
        sse = self.data.sse(at, (at[1:] + at[:-1]) / 2, torch.ones(1, 1, dtype=torch.float64))
        return float(sse) / self.data.numel * self.moves[step, 0] ** 2

    def still(self, levels: np.ndarray) -> np.ndarray:
        """Return the mean squared error of levels that stay, at every step."""
        key = levels.tobytes()
        if key not in self._still:
            self._still[key] = np.array([self.mse(levels, step) for step in range(STEPS + 1)])
        return self._still[key]

    def optima(self, count: int) -> np.ndarray:
        """Return Lloyd's optimum of so many levels at every step: it moves as the values do."""
        return self.moves[:, :1] * optimum(self.source, count) + self.moves[:, 1:]

    def least(self, count: int) -> np.ndarray:
        """Return the least mean squared error of so many levels at every step."""
        key = count.to_bytes(2)
        if key not in self._still:
            self._still[key] = self.mse(optimum(self.source, count), 0) * self.moves[:, 0] ** 2
        return self._still[key]


class Run:
    """A codebook that starts at step 0 and sees the values of each step once.

    Args:
        drift: The values.
        bits: The bit width.
        start: The codebook's ``init``.
        decay: Its decay.
        pinned: Whether its zero stays.
        seed: What a random start draws from.

    Attributes:
        problem: Why the levels do not start where they were to start; "" if they do.
    """

    def __init__(
        self, drift: Drift, bits: int, start: str, decay: float, pinned: bool = True, seed: int = 0
    ) -> None:
        self.drift, self.problem = drift, ""
        self._lock = threading.Lock()
        self._path: list[np.ndarray] = []
        self._errors: list[float] = []
        draw = torch.Generator().manual_seed(seed)
        self.book = EMACodebook(bits, decay=decay, init=start, pinned=pinned, generator=draw)
        try:
            self.book.observe(drift.at(0))
        except ValueError as problem:  # too few values for quantiles
            self.problem = f"{problem}; so the levels start evenly spaced"
            self.book = EMACodebook(bits, decay=decay, init="uniform", pinned=pinned)
            self.book.observe(drift.at(0) if bool(drift.at(0).any()) else torch.ones(1))

    def levels(self, step: int) -> np.ndarray:
        """Return the levels after the updates of so many steps."""
        return self.path(step)[step]

    def path(self, step: int) -> list[np.ndarray]:
        """Return the levels of all steps up to one."""
        with self._lock:
            while len(self._path) <= step:
                if self._path:
                    self.book.observe(self.drift.at(len(self._path)))
                self._path.append(self.book.levels.numpy().copy())
            return self._path[: step + 1]

    def errors(self, step: int) -> np.ndarray:
        """Return the mean squared error at every step up to one."""
        path = self.path(step)
        with self._lock:
            for k in range(len(self._errors), step + 1):
                self._errors.append(self.drift.mse(path[k], k))
            return np.array(self._errors[: step + 1])


@functools.lru_cache(maxsize=16)
def drift(source: Source, kind: str, speed: float) -> Drift:
    """Return a drift; the last ones are kept."""
    return Drift(source, kind, speed)


@functools.lru_cache(maxsize=16)
def run(moving: Drift, bits: int, start: str, decay: float, pinned: bool, seed: int) -> Run:
    """Return a run; the last ones are kept, with what was computed of them."""
    return Run(moving, bits, start, decay, pinned, seed)
