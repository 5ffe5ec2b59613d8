"""Grid: two grids on one tensor, at one bit width, with levels that can be moved by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from qviz.core import _check
from qviz.core.codebook import Codebook
from qviz.core.quantizer import Quantizer
from qviz.core.range import Fixed
from qviz.core.summary import Summary
from qviz.explore import tensors
from qviz.explore.controls import Pick, Slide, Tick, control, steps
from qviz.explore.grids import MANUAL, RULES, SEARCH, Grids, OwnGrids, clip
from qviz.explore.hand import CUSTOM, Hand, HandModel
from qviz.explore.model import Page, changed
from qviz.measure import Measured
from qviz.measure.positions import border_positions, level_positions
from qviz.plot import panels
from qviz.plot.page import Chooser, Key
from qviz.plot.scene import Points, Scene
from qviz.plot.scenes import compared

CUSTOM_DOTS = 4
"""The index of the custom grid's dots: after the histogram, two rulers and the cell of a level."""


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


class GridModel(HandModel[GridChoice]):
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
        names = {"options": self.names(4)}
        clip = steps(max(map(abs, self.ends(c))))
        pair = {"clip": clip, "x": clip | {"low": -clip["high"]}, "grid_a": names, "grid_b": names}
        return {**super().limits(c), **pair, "start": names}

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

    def headline(self, c: GridChoice) -> dict[str, float]:
        """Return MSE and SQNR of both grids."""
        rows = {name: Measured(q, self.data(c)).row(name) for name, q in self.quantizers(c).items()}
        mse = {f"MSE of {name}": row.mse for name, row in rows.items()}
        return mse | {f"SQNR of {name} (dB)": row.sqnr_db for name, row in rows.items()}

    def title(self, c: GridChoice) -> str:
        """Return one line that names everything chosen but the grids."""
        rule = f"{c.rule} {c.clip:.3g}" if c.rule == MANUAL else c.rule
        channels = ", per channel (drawn: the median scale)" if self.axis(c) is not None else ""
        return f"{c.tensor}, {c.bits} bits, {rule}{channels}"

    def about(self, c: GridChoice) -> str:
        """Return what the tensor is, and what a manual clip does."""
        about = f"{c.tensor}: {self.sources[c.tensor].about}."
        if c.rule != MANUAL or c.edits:
            return about
        found = replace(c, rule=SEARCH, per_channel=False)
        best = [f"{clip(self.quantizer(found, grid)):.3g} for {slot}" for slot, grid in c.grids.items()]
        both = f"One clip, {c.clip:.3g}, serves both grids; the MSE search finds {' and '.join(best)}."
        return f"{about} {both}"

    def dragged(self, c: GridChoice, panel: int, mark: int, index: int, x: float, y: float) -> GridChoice:
        """Move the number on a staircase, the clip, or a level of the custom grid."""
        if panel == 1:
            return self.followed(replace(c, x=x))
        if mark == CUSTOM_DOTS and c.edits:
            return super().dragged(c, panel, mark, index, x, y)
        return self.settled(c, self.inside(replace(c, clip=abs(x)), "clip"))

    def scene(self, c: GridChoice) -> Scene:
        """Return levels, staircases, errors and the table of the two grids, with what can be dragged."""
        named = self.quantizers(c)
        scene = compared(self.data(c), named, self.title(c), self.about(c))
        levels, stairs, error = scene.panels
        if c.edits:
            levels = self.with_dots(c, levels, 0 if c.grid_a == CUSTOM else 1)
        handle = Points("e", np.array([c.clip]), np.array([0.04 * levels.y.high]), "x", label="clip")
        levels = replace(levels, marks=(*levels.marks, handle))
        walks = [_walk(c.x, role, *method) for role, method in zip("ab", named.items(), strict=True)]
        dots, said = zip(*walks, strict=True)
        stairs = replace(stairs, marks=(*stairs.marks, *dots))
        about = f"{scene.about} One number: x = {c.x:.4g} becomes {'; '.join(said)}."
        return replace(scene, panels=(levels, stairs, error), about=about)

    def page(self, c: GridChoice, names: tuple[str, ...] = ()) -> Page:
        """Return a page of any controls; by default every grid at every bit width, in two columns.

        At one bit width all grids share one error axis, so that the columns can be compared.
        """
        if names:
            return super().page(c, names)
        widths, moved = self.controls(c)["bits"].values(), c.edits or c.moved is not None
        grids, data = self.names(4) if moved else self.grids.names(4), self.data(c)
        frames: dict[Key, Scene] = {}
        for i, bits in enumerate(widths):
            here = replace(c, bits=bits)
            custom = here.moved is not None or (bits == c.bits and c.edits)
            made = {g: self.quantizer(here, g) for g in self.names(bits) if custom or g != CUSTOM}
            reach = max(panels.error(data, {g: q}).x.high for g, q in made.items())
            for g, q in made.items():
                told = f"{g}, {bits} bits", self.about(here)
                frames[i, grids.index(g)] = compared(data, {g: q}, *told, reach=reach)
        choosers = [Chooser("Bits", tuple(map(str, widths)), slider=True), Chooser("Grid", grids, own=True)]
        first = {slot: (widths.index(c.bits), grids.index(g)) for slot, g in c.grids.items()}
        return Page(choosers, frames, first)


def _walk(x: float, role: str, name: str, q: Quantizer) -> tuple[Points, str]:
    """Return where a number ends on a staircase, and its way there in words."""
    cuts, at = border_positions(q), level_positions(q)
    k = int(np.searchsorted(cuts, x))
    dot = Points(role, np.array([x]), at[k : k + 1], "x")
    return dot, f"{at[k]:.4g} on {name} (level {k + 1} of {len(at)}, error {at[k] - x:+.2g})"
