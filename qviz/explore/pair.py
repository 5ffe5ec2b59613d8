"""Pair: two grids on one tensor as quantizers; one of them may be moved by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qviz.core.codebook import Codebook
from qviz.core.quantizer import Quantizer
from qviz.core.range import Fixed
from qviz.core.summary import Summary
from qviz.explore import tensors
from qviz.explore.controls import Pick, Slide, Tick, control, steps
from qviz.explore.grids import MANUAL, RULES, SEARCH, Grids
from qviz.explore.hand import CUSTOM, Hand, HandModel
from qviz.measure import Measured
from qviz.measure.positions import level_positions
from qviz.plot import panels


@dataclass(frozen=True)
class Pair:
    """Two grids on one tensor."""

    tensor: str = control("", Pick("Tensor", "The values that are quantized."))
    bits: int = control(4, Slide("Bits", "The bit width.", low=2, high=8, step=1))
    clip: float = control(1.0, Slide("Clip", "Where the outermost level of both grids goes, in units of x."))
    x: float = control(0.0, Slide("x", "One number, to follow through both grids; its dots can be dragged."))
    grid_a: str = control("POT", Pick("Grid A", "The first grid; custom can be moved by hand."))
    grid_b: str = control("POST", Pick("Grid B", "The second grid; custom can be moved by hand."))
    rule: str = control(SEARCH, Pick("Range", "How the clip is found.", options=(*RULES, MANUAL)))
    per_channel: bool = control(False, Tick("Per channel", "Each channel has its own scale."))


@dataclass(frozen=True)
class GridChoice(Hand, Pair):
    """Two grids, one of which may be moved by hand; the controls of the pair come first."""

    @property
    def grids(self) -> dict[str, str]:
        """The names of both grids, by the letters A and B."""
        return {"A": self.grid_a, "B": self.grid_b}

    @property
    def edits(self) -> bool:
        """Whether the custom grid is on show."""
        return CUSTOM in (self.grid_a, self.grid_b)


class PairModel(HandModel[GridChoice]):
    """The pair as quantizers, and what its controls take; a subclass sets ``grids`` and draws."""

    grids: Grids

    def names(self, bits: int) -> tuple[str, ...]:
        """Return the grids that exist at a bit width; "custom" is the last."""
        return (*self.grids.names(bits), CUSTOM)

    def axis(self, c: GridChoice) -> int | None:
        """Return the axis of the channels that have a scale each, or None; a manual clip is one for all."""
        return self.sources[c.tensor].axis if c.per_channel and c.rule != MANUAL else None

    def data(self, c: GridChoice) -> Summary:
        """Return the summary of the tensor, of each channel if each has a scale."""
        return tensors.summary(self.sources[c.tensor], self.axis(c))

    def ends(self, c: GridChoice) -> tuple[float, float]:
        """Return the ends of the values, a little wider."""
        return panels.limits(tensors.summary(self.sources[c.tensor]))

    def begun(self, c: GridChoice) -> np.ndarray:
        """Return the levels of the start grid, with the clip that suits it best."""
        start = c.start if c.start in self.grids.names(c.bits) else "POT"
        return level_positions(self.grids.fitted(start, self.sources[c.tensor], c.bits))

    def quantizer(self, c: GridChoice, grid: str) -> Quantizer:
        """Return a calibrated quantizer for one of the grids."""
        of = grid, self.sources[c.tensor], c.bits
        if grid == CUSTOM:
            return Quantizer(Codebook(self.levels(c), name=CUSTOM), range=Fixed(1.0))
        if c.rule == MANUAL:
            return self.grids.clipped(*of, c.clip)
        return self.grids.fitted(*of, c.rule, self.axis(c))

    def quantizers(self, c: GridChoice) -> dict[str, Quantizer]:
        """Return the two quantizers on show, under the names of the table."""
        return {f"{slot}: {grid}": self.quantizer(c, grid) for slot, grid in c.grids.items()}

    def limits(self, c: GridChoice) -> dict[str, dict[str, Any]]:
        """Return the names on offer, and a slider of the clip that ends with the values."""
        names, clip = {"options": self.names(4)}, steps(max(map(abs, self.ends(c))))
        pair = {"clip": clip, "x": clip | {"low": -clip["high"]}, "grid_a": names, "grid_b": names}
        return {**super().limits(c), **pair, "start": names}

    def headline(self, c: GridChoice) -> dict[str, float]:
        """Return MSE and SQNR of both grids."""
        rows = {name: Measured(q, self.data(c)).row(name) for name, q in self.quantizers(c).items()}
        mse = {f"MSE of {name}": row.mse for name, row in rows.items()}
        return mse | {f"SQNR of {name} (dB)": row.sqnr_db for name, row in rows.items()}
