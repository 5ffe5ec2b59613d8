"""Grid: two grids on one tensor, at one bit width, with levels that can be moved by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from qviz.core import _check
from qviz.explore import grid_pictures, tensors
from qviz.explore.grids import MANUAL, Grids, OwnGrids, clip
from qviz.explore.hand import CUSTOM
from qviz.explore.model import Page, changed
from qviz.explore.pair import GridChoice, PairModel
from qviz.plot.scene import Scene


class GridModel(PairModel):
    """Levels over the histogram, staircases, errors and a table of two grids.

    The arguments, and what is refused, are those of :class:`~qviz.widgets.GridExplorer`.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "levels wasted near zero": {"tensor": "expand (real)", "grid_a": "POT", "grid_b": "uniform"},
        "one outlier in 200": {"tensor": "with outliers", "rule": "min–max", "grid_a": "uniform"},
        "activations, none negative": {"tensor": "act_expand (real)"},
        "a scale for each channel": {"tensor": "depthwise_early (real)", "per_channel": True},
        "as good as it gets": {"bits": 3, "grid_a": "quantile", "grid_b": "Lloyd"},
        "by hand": {"bits": 3, "grid_a": CUSTOM, "grid_b": "Lloyd"},
    }

    def __init__(
        self,
        x: Tensor | np.ndarray | None = None,
        grids: OwnGrids | None = None,
        *,
        bits: int = 4,
        tensor: str | None = None,
    ) -> None:
        bits = _check.bits(bits, 2, 8, "GridExplorer")
        self.sources, self.grids = tensors.offered(x), Grids(grids, reserved=(CUSTOM,))
        start = GridChoice(tensors.first(self.sources, tensor), bits)
        self.start = self.followed(replace(start, x=0.3 * self.ends(start)[1]))

    def settled(self, before: GridChoice, after: GridChoice) -> GridChoice:
        """Carry out what a moved control means: a manual clip, a custom grid begun."""
        moves, c = changed(before, after), after
        if "clip" in moves and "tensor" not in moves:
            c = replace(c, rule=MANUAL)
        if c.edits and not before.edits and c.moved is None:
            c = replace(c, start=before.grid_a if c.grid_a == CUSTOM else before.grid_b)
        return super().settled(before, c)

    def followed(self, c: GridChoice) -> GridChoice:
        """Bring the clip up to date; a grid that does not exist at these bits falls back."""
        found = {"grid_a": c.grid_a, "grid_b": c.grid_b}  # the paper grids stop at 7 bits
        c = replace(c, **{s: g if g in self.names(c.bits) else g.split()[0] for s, g in found.items()})
        fitted = [grid for grid in c.grids.values() if grid != CUSTOM]
        at = clip(self.quantizer(c, fitted[0])) if fitted and c.rule != MANUAL else c.clip
        return super().followed(self.inside(replace(c, clip=at), "clip", "x"))

    def dragged(self, c: GridChoice, panel: int, mark: int, index: int, x: float, y: float) -> GridChoice:
        """Move the number on a staircase, the clip, or a level of the custom grid."""
        if panel == 1:
            return self.followed(replace(c, x=x))
        if mark == grid_pictures.CUSTOM_DOTS and c.edits:
            return super().dragged(c, panel, mark, index, x, y)
        return self.settled(c, self.inside(replace(c, clip=abs(x)), "clip"))

    def scene(self, c: GridChoice) -> Scene:
        """Return levels, staircases, errors and the table of the two grids, with what can be dragged."""
        return grid_pictures.scene(self, c)

    def page(self, c: GridChoice, names: tuple[str, ...] = ()) -> Page:
        """Return a page of any controls; by default every grid at every bit width, in two columns."""
        return super().page(c, names) if names else grid_pictures.page(self, c)
