"""Codebook: levels that follow drifting weights by a moving average, beside frozen ones and the optimum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from qviz.core import _check
from qviz.explore import codebook_panels as panels
from qviz.explore import tensors
from qviz.explore.codebook_moment import EMA, Moment
from qviz.explore.controls import Number, Pick, Slide, Tick, between, control
from qviz.explore.drift import DRIFTS, JUMP, MOST, STEPS, Drift, Run, drift, run
from qviz.explore.model import Model
from qviz.methods.adq import STARTS
from qviz.plot.scene import Scene

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
    step: int = control(20, Slide("Step", "Updates since the start.", low=0, high=STEPS, step=1, play=True))
    pinned: bool = control(True, Tick("Zero pinned", "The level at zero stays exactly there."))
    draw: int = control(0, Number("Random draw", "Which of 100 random starts.", low=0, high=99, step=1))
    w: float = control(0.0, Number("Weight w", "A weight to follow; drag its dot.", step=0.001))


class CodebookModel(Model[CodebookChoice]):
    """A codebook that follows drifting weights by a moving average: levels, occupancy, distance to the best.

    The arguments, and what is refused, are those of :class:`~qviz.widgets.CodebookExplorer`.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "ADQ: quantiles, then the average": {"step": 0},
        "Lloyd's algorithm, step by step": {"decay": 0.0, "start": "random", "step": 0},
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

    def moment(self, c: CodebookChoice) -> Moment:
        """Return weights and levels at the choice's step."""
        return Moment(self.run(c), c.step, c.w)

    def limits(self, c: CodebookChoice) -> dict[str, dict[str, Any]]:
        """Return what has nothing to do at present, and where the weight can be."""
        return {
            "speed": {"shown": c.drift in ("grow", "shrink", "shift")},
            "draw": {"shown": c.start == "random"},
            "w": between(*self.moving(c).reach),
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

    def headline(self, c: CodebookChoice) -> dict[str, float]:
        """Return error and use of the levels."""
        row = self.moment(c).rows[EMA]
        ratio = {} if row["ratio"] is None else {"MSE ÷ least MSE": row["ratio"]}
        return {"MSE": row["mse"], **ratio, "perplexity": row["perplexity"], "dead levels": row["dead"]}

    def scene(self, c: CodebookChoice) -> Scene:
        """Return levels over the weights, levels and error over the steps, and the use of each level."""
        m, weights = self.moment(c), {"none": "at rest", "halve at once": f"halved at step {JUMP}"}
        drift = weights.get(c.drift, f"{c.drift} by {c.speed:g} % a step")
        title = f"{len(m.levels)} levels on {c.tensor}, {drift}, decay {c.decay:g}, step {c.step}"
        return Scene(title, tuple(part(m) for part in panels.PARTS), panels.table(m), self.about(c, m))

    def about(self, c: CodebookChoice, m: Moment) -> str:
        """Return what the values are, and the arithmetic of the one weight."""
        taken = f" ({MOST:,} quantiles stand for its values)" if m.moving.data.numel == MOST else ""
        begun = "" if c.step else " No update was made yet, so Decay has changed nothing so far."
        said = f"{c.tensor}: {self.sources[c.tensor].about}{taken}.{begun} {m.arithmetic}"
        return f"{said} {m.ran.problem}." if m.ran.problem else said
