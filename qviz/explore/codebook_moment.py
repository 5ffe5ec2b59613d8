"""Codebook moment: a codebook and its weights at one step: the levels compared, their figures, one weight."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from qviz.core.codebook import Codebook
from qviz.core.quantizer import Quantizer
from qviz.core.range import Fixed
from qviz.explore.drift import Drift, Run
from qviz.measure import metrics

EMA, FROZEN, LEAST = "moving", "frozen", "Lloyd"


@dataclass(frozen=True, eq=False)
class Moment:
    """The weights and the levels at one step.

    Attributes:
        ran: The levels at every step.
        step: The step.
        w: The one weight that is followed.
    """

    ran: Run
    step: int
    w: float

    @property
    def moving(self) -> Drift:
        """The weights."""
        return self.ran.drift

    @property
    def levels(self) -> np.ndarray:
        """The levels that move."""
        return self.ran.levels(self.step)

    @cached_property
    def books(self) -> dict[str, np.ndarray]:
        """The levels that are compared, by name: those that move, the start, Lloyd's optimum."""
        best = self.moving.optima(len(self.levels))[self.step]
        return {EMA: self.levels, FROZEN: self.ran.levels(0), LEAST: best}

    @cached_property
    def q(self) -> Quantizer:
        """The quantizer with the levels that move."""
        return Quantizer(Codebook(self.levels), range=Fixed(1.0))

    @cached_property
    def k(self) -> int:
        """The index of the level of w."""
        return int(self.q.codes(torch.tensor([self.w], dtype=torch.float64)))

    @cached_property
    def numbers(self) -> np.ndarray:
        """The numbers of the levels: 0 for the middle one, which starts at zero."""
        return np.arange(len(self.levels)) - (len(self.levels) - 1) // 2.0

    @cached_property
    def use(self) -> tuple[np.ndarray, np.ndarray]:
        """How many weights each level has, and their mean (NaN without any)."""
        now = self.moving.at(self.step)
        codes, count = self.q.codes(now).long(), len(self.levels)
        counts = torch.bincount(codes, minlength=count).numpy()
        sums = torch.bincount(codes, now, count).numpy()
        return counts, np.divide(sums, counts, out=np.full(count, np.nan), where=counts > 0)

    @cached_property
    def rows(self) -> dict[str, dict[str, Any]]:
        """The figures of the levels that are compared; a ratio to an error of zero is None."""
        moving, step, rows = self.moving, self.step, {}
        energy, unit = float(moving.at(step).square().mean()), moving.moves[step, 0] ** 2
        least = moving.least(len(self.levels))[step]
        for name, levels in self.books.items():
            found = moving.measured(levels, step)
            rows[name] = {
                "mse": found.mse * unit,
                "ratio": found.mse * unit / least if least else None,
                "sqnr_db": metrics.sqnr_from(energy, found.mse * unit),
                "entropy": found.entropy,
                "perplexity": metrics.perplexity(found.counts),
                "dead": metrics.dead_levels(found.counts),
            }
        return rows

    def ratio(self, errors: np.ndarray) -> np.ndarray:
        """Return the errors of the first steps as multiples of the least ones; NaN where these are zero."""
        least = self.moving.least(len(self.levels))[: len(errors)]
        return np.divide(errors, least, out=np.full(len(errors), np.nan), where=least > 0)

    @property
    def arithmetic(self) -> str:
        """How the one weight is quantized, and what an update does with its level, in words."""
        k, (counts, means), decay = self.k, self.use, self.ran.book.decay
        borders = np.concatenate([[-np.inf], self.q.codebook.borders.numpy(), [np.inf]])
        low, high = (f"{end:.4g}".replace("inf", "∞").replace("-∞", "−∞") for end in borders[[k, k + 1]])
        said = (
            f"w = {self.w:.4g} is in the cell from {low} to {high} of level "
            f"{self.numbers[k]:+.0f}, so Q(w) = {self.levels[k]:.4g}; its gradient passes with slope 1."
        )
        if self.ran.book.pinned and self.numbers[k] == 0:
            return f"{said} This level is pinned to zero."
        if not counts[k]:
            return f"{said} No weight is in that cell: the level is dead, and stays where it is."
        drawn = decay * self.levels[k] + (1 - decay) * means[k]
        return (
            f"{said} The {counts[k]:,} weights there have mean {means[k]:.4g}; an update takes the level to "
            f"{decay:g} × {self.levels[k]:.4g} + {1 - decay:.2g} × {means[k]:.4g} = {drawn:.4g}."
        )
