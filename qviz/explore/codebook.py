"""Codebook: levels that follow drifting weights by a moving average, beside frozen ones and the optimum."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from qviz.core import _check
from qviz.explore import tensors
from qviz.explore.codebook_panels import (
    EMA,
    FROZEN,
    LEAST,
    ROLES,
    Moment,
    arithmetic,
    distance,
    over_steps,
    over_weights,
    use,
)
from qviz.explore.controls import Number, Pick, Slide, Tick, control
from qviz.explore.drift import DRIFTS, JUMP, MOST, STEPS, Drift, Run, drift, run
from qviz.explore.model import Model
from qviz.measure import metrics
from qviz.methods.adq import STARTS
from qviz.plot.scene import Scene, Table

HEADERS = ("Levels", "MSE", "÷ least", "SQNR (dB)", "Entropy", "Perplexity", "Dead")
DIE = {"drift": "halve at once", "start": "uniform", "bits": 4, "step": 40}


@dataclass(frozen=True)
class CodebookChoice:
    """A codebook on weights that drift, and the step on show."""

    tensor: str = control("", Pick("Tensor", "The weights at step 0."))
    bits: int = control(3, Slide("Bits", "The bit width b; there are 2^b − 1 levels.", low=2, high=5, step=1))
    start: str = control("quantile", Pick("Start", "Where the levels are at step 0.", options=STARTS))
    decay: float = control(
        0.9, Slide("Decay", "How much of a level is kept in an update.", low=0.0, high=0.99, step=0.01)
    )
    drift: str = control("none", Pick("Drift", "How all weights move in a step.", options=tuple(DRIFTS)))
    speed: float = control(
        1.0, Slide("Speed", "How far the weights move in a step, in percent.", low=0.5, high=3.0, step=0.5)
    )
    step: int = control(0, Slide("Step", "Updates since the start.", low=0, high=STEPS, step=1, play=True))
    pinned: bool = control(True, Tick("Zero pinned", "The level at zero stays exactly there."))
    draw: int = control(0, Number("Random draw", "Which of 100 random starts.", low=0, high=99, step=1))
    w: float = control(0.0, Number("Weight w", "A weight to follow; drag its dot.", step=0.001))


class CodebookModel(Model[CodebookChoice]):
    """A codebook that follows drifting weights by a moving average: levels, occupancy, distance to the best.

    The arguments, and what is refused, are those of :class:`~qviz.widgets.CodebookExplorer`.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "ADQ: quantiles, then the average": {"step": 0},
        "Lloyd's algorithm, step by step": {"decay": 0.0, "start": "random"},
        "weights grow, levels follow": {"drift": "grow", "step": 60},
        "weights halve, outer levels die": DIE,
    }

    def __init__(
        self, x: Tensor | np.ndarray | None = None, *, tensor: str | None = None, bits: int = 3
    ) -> None:
        bits = _check.bits(bits, 2, 5, "CodebookExplorer")
        self.sources = tensors.offered(x)
        self.start = CodebookChoice(tensors.first(self.sources, tensor, "expand (real)"), bits)
        self.start = replace(self.start, w=float(f"{1.2 * self.moving(self.start).std:.3g}"))

    def moving(self, c: CodebookChoice) -> Drift:
        """Return the weights at every step."""
        return drift(self.sources[c.tensor], c.drift, c.speed / 100)

    def run(self, c: CodebookChoice) -> Run:
        """Return the codebook at every step."""
        return run(self.moving(c), c.bits, c.start, c.decay, c.pinned, c.draw if c.start == "random" else 0)

    def reach(self, c: CodebookChoice) -> tuple[float, float]:
        """Return what the axes show: the weights at every step, a little more, and never nothing."""
        both = [self.moving(c).at(step)[[0, -1]] for step in (0, STEPS)]
        low, high = float(torch.cat(both).min()), float(torch.cat(both).max())
        margin = 0.02 * (high - low) or 0.5 * abs(high) or 0.5
        return min(low, 0.0) - margin, max(high, 0.0) + margin

    def limits(self, c: CodebookChoice) -> dict[str, dict[str, Any]]:
        """Return what has nothing to do at present, and where the weight can be."""
        low, high = self.reach(c)
        grain = 10.0 ** math.floor(math.log10((high - low) / 200))
        return {
            "speed": {"shown": c.drift in ("grow", "shrink", "shift")},
            "draw": {"shown": c.start == "random"},
            "w": {"low": low, "high": high, "step": grain},
        }

    def followed(self, c: CodebookChoice) -> CodebookChoice:
        """Keep the weight on the axis."""
        return self.inside(c, "w")

    def dragged(
        self, c: CodebookChoice, panel: int, mark: int, index: int, x: float, y: float
    ) -> CodebookChoice:
        """Bring the weight to where its dot was dropped."""
        return self.followed(replace(c, w=float(f"{x:.4g}")))

    def paged(self, c: CodebookChoice) -> dict[str, tuple[Any, ...]]:
        """Return every start at some of the steps."""
        return {"start": STARTS, "step": (0, 5, 20, STEPS)}

    def books(self, c: CodebookChoice) -> dict[str, np.ndarray]:
        """Return the three sets of levels that are compared, at the present step."""
        ran = self.run(c)
        best = self.moving(c).optima(2**c.bits - 1)[c.step]
        return {EMA: ran.levels(c.step), FROZEN: ran.levels(0), LEAST: best}

    def headline(self, c: CodebookChoice) -> dict[str, float]:
        """Return error and use of the levels."""
        row = self.figures(c)[EMA]
        ratio = {} if row["ratio"] is None else {"MSE ÷ least MSE": row["ratio"]}
        return {"MSE": row["mse"], **ratio, "perplexity": row["perplexity"], "dead levels": row["dead"]}

    def figures(self, c: CodebookChoice) -> dict[str, dict[str, Any]]:
        """Return the figures of the three sets of levels; a ratio to an error of zero is None."""
        moving, books, rows = self.moving(c), self.books(c), {}
        energy, unit = float(moving.at(c.step).square().mean()), moving.moves[c.step, 0] ** 2
        least = moving.least(2**c.bits - 1)[c.step]
        for name, levels in books.items():
            found = moving.measured(levels, c.step)
            rows[name] = {
                "mse": found.mse * unit,
                "ratio": found.mse * unit / least if least else None,
                "sqnr_db": metrics.sqnr_from(energy, found.mse * unit),
                "entropy": found.entropy,
                "perplexity": metrics.perplexity(found.counts),
                "dead": metrics.dead_levels(found.counts),
            }
        return rows

    def scene(self, c: CodebookChoice) -> Scene:
        """Return levels over the weights, levels and error over the steps, and the use of each level."""
        rows, ran, step = self.figures(c), self.run(c), c.step
        weights = {"none": "at rest", "halve at once": f"halved at step {JUMP}"}
        drift = weights.get(c.drift, f"{c.drift} by {c.speed:g} % a step")
        title = f"{len(ran.levels(step))} levels on {c.tensor}, {drift}, decay {c.decay:g}, step {step}"
        cells = tuple(_cells(name, row) for name, row in rows.items())
        here = Moment(self.moving(c), ran, self.books(c), step, c.w, self.reach(c))
        panels = (over_weights(here), over_steps(here), distance(here), use(here))
        return Scene(title, panels, Table(HEADERS, cells, ROLES, rows), self.about(c, here))

    def about(self, c: CodebookChoice, here: Moment) -> str:
        """Return what the values are, and the arithmetic of the one weight."""
        taken = f" ({MOST:,} quantiles stand for its values)" if here.moving.data.numel == MOST else ""
        said = f"{c.tensor}: {self.sources[c.tensor].about}{taken}. {arithmetic(here, c.decay, c.pinned)}"
        return f"{said} {here.ran.problem}." if here.ran.problem else said


def _cells(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    ratio = "—" if row["ratio"] is None else f"{row['ratio']:.3f}"
    figures = f"{row['sqnr_db']:.2f}", f"{row['entropy']:.2f}", f"{row['perplexity']:.2f}"
    return name, f"{row['mse']:.3g}", ratio, *figures, str(row["dead"])
