"""Grid: two grids on one tensor, at one bit width, with levels that can be moved by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from qviz.core import _check
from qviz.core.codebook import Codebook
from qviz.core.quantizer import Quantizer
from qviz.core.range import Fixed
from qviz.explore import tensors
from qviz.explore.controls import Pick, Slide, Tick, control, steps
from qviz.explore.grids import MANUAL, RULES, SEARCH, Grids, OwnGrids, clip
from qviz.explore.hand import CUSTOM, Hand, HandModel
from qviz.explore.model import Page, changed
from qviz.measure import Measured
from qviz.plot import panels
from qviz.plot.html import Chooser, Key
from qviz.plot.places import level_positions
from qviz.plot.scene import Scene
from qviz.plot.scenes import compared


@dataclass(frozen=True)
class Pair:
    """Two grids on one tensor."""

    tensor: str = control("", Pick("Tensor", "The values that are quantized."))
    bits: int = control(4, Slide("Bits", "The bit width.", low=2, high=8, step=1))
    clip: float = control(1.0, Slide("Clip", "Where the outermost level of both grids goes, in units of x."))
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
        self.start = self.followed(GridChoice(tensors.first(self.sources, tensor), bits))

    def names(self, bits: int) -> tuple[str, ...]:
        """Return the grids that exist at a bit width; "custom" is the last."""
        return (*self.grids.names(bits), CUSTOM)

    def axis(self, c: GridChoice) -> int | None:
        """Return the axis of the channels that have a scale each, or None; a manual clip is one for all."""
        return self.sources[c.tensor].axis if c.per_channel and c.rule != MANUAL else None

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
        pair = {"tensor": {"options": tuple(self.sources)}, "clip": steps(max(map(abs, self.ends(c))))}
        return {**super().limits(c), **pair, "grid_a": names, "grid_b": names, "start": names}

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
        slider = Slide("Clip", **steps(max(map(abs, self.ends(c)))))
        return super().followed(replace(c, clip=slider.nearest(at)))

    def headline(self, c: GridChoice) -> dict[str, float]:
        """Return MSE and SQNR of both grids."""
        data = tensors.summary(self.sources[c.tensor], self.axis(c))
        rows = {name: Measured(q, data).row(name) for name, q in self.quantizers(c).items()}
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

    def scene(self, c: GridChoice) -> Scene:
        """Return levels, staircases, errors and the table of the two grids."""
        scene = self._scene(c, self.quantizers(c), self.title(c))
        if not c.edits:
            return scene
        first = self.with_dots(c, scene.panels[0], 0 if c.grid_a == CUSTOM else 1)
        return replace(scene, panels=(first, *scene.panels[1:]))

    def _scene(self, c: GridChoice, named: dict[str, Quantizer], title: str, reach: float = 0.0) -> Scene:
        data = tensors.summary(self.sources[c.tensor], self.axis(c))
        return compared(data, named, title, self.about(c), reach=reach or None)

    def page(self, c: GridChoice, names: tuple[str, ...] = ()) -> Page:
        """Return a page of any controls; by default every grid at every bit width, in two columns.

        At one bit width all grids share one error axis, so that the columns can be compared.
        """
        if names:
            return super().page(c, names)
        widths, grids = self.controls(c)["bits"].values(), self.names(4)
        frames: dict[Key, Scene] = {}
        for i, bits in enumerate(widths):
            here = replace(c, bits=bits)
            custom = here.moved is not None or (bits == c.bits and c.edits)
            shown = [g for g in self.names(bits) if custom or g != CUSTOM]
            alone = [(g, {g: self.quantizer(here, g)}, f"{g}, {bits} bits") for g in shown]
            reach = max(self._scene(here, *some).panels[2].x.high for _, *some in alone)
            frames |= {(i, grids.index(g)): self._scene(here, *some, reach) for g, *some in alone}
        choosers = [Chooser("Bits", tuple(map(str, widths)), slider=True), Chooser("Grid", grids, own=True)]
        first = {slot: (widths.index(c.bits), grids.index(g)) for slot, g in c.grids.items()}
        return Page(f"Grids on {c.tensor}", f"{self.title(c)}.", choosers, frames, first)
