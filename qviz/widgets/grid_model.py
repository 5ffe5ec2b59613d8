"""What GridExplorer shows, without widgets: from the values of its controls to a scene."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from qviz.core import _check
from qviz.core.codebook import Codebook
from qviz.core.quantizer import Quantizer
from qviz.core.range import MSE, Fixed, MinMax, Percentile, Range, search_scale
from qviz.core.summary import Summary
from qviz.measure import measured as measure
from qviz.measure.compare import Comparison, build_grid, grid_names
from qviz.plot import panels
from qviz.plot.scene import Panel, Points, Scene, Table
from qviz.widgets import custom
from qviz.widgets.tensors import Source

CUSTOM = "custom"
MANUAL = "manual clip"
SEARCH = "MSE search"
RULES: dict[str, Callable[[int | None], Range]] = {
    SEARCH: MSE,
    "min–max": MinMax,
    "percentile 99.9": lambda axis: Percentile(99.9, axis),
    "percentile 99": lambda axis: Percentile(99.0, axis),
}
PAPER = ("POT paper", "POST paper")
GridMaker = Callable[[Tensor, int], Codebook]
Grids = Mapping[str, Codebook | GridMaker]


@dataclass(frozen=True)
class Choice:
    """What is to be shown: the values of the controls.

    Attributes:
        tensor, bits, grid_a, grid_b, rule, per_channel, clip, mirror: as the controls of that name.
        start: the grid that the custom one starts from.
    """

    tensor: str
    bits: int
    grid_a: str
    grid_b: str
    rule: str
    per_channel: bool
    clip: float
    mirror: bool
    start: str

    @property
    def edits(self) -> bool:
        """Whether the custom grid is on show."""
        return CUSTOM in (self.grid_a, self.grid_b)

    @property
    def channels(self) -> bool:
        """Whether each channel has its own scale; a manual clip is one for all."""
        return self.per_channel and self.rule != MANUAL


class GridModel:
    """Summaries, grids and scales, each computed once; and the custom levels.

    Args:
        sources: the tensors, by name.
        grids: the user's own grids, by name.

    Attributes:
        custom: (tensor, bits) → levels that were moved by hand, in units of x.

    Raises:
        TypeError, ValueError: a grid is neither a Codebook nor callable, or its name is taken.
    """

    def __init__(self, sources: Mapping[str, Source], grids: Grids | None = None) -> None:
        self.sources = dict(sources)
        self.own = dict(grids or {})
        for name, grid in self.own.items():
            if name in (*grid_names(4), *PAPER, CUSTOM):
                raise ValueError(f"a grid named {name!r} exists already; choose another name")
            if not isinstance(grid, Codebook) and not callable(grid):
                raise TypeError(f"grid {name!r} must be a Codebook or a function, got {type(grid).__name__}")
        self.custom: dict[tuple[str, int], np.ndarray] = {}
        self._cache: dict[tuple, Any] = {}

    def names(self, bits: int) -> tuple[str, ...]:
        """Return the grids that exist at a bit width; "custom" is the last."""
        return (*grid_names(bits), *(PAPER if bits < 8 else ()), *self.own, CUSTOM)

    def _once(self, key: tuple, make: Callable[[], Any]) -> Any:
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def axis(self, c: Choice) -> int | None:
        """Return the channel axis in use, or None."""
        return self.sources[c.tensor].axis if c.channels else None

    def summary(self, tensor: str, axis: int | None = None) -> Summary:
        """Return the summary of a tensor; the last few are kept (1e6 values take 24 MB)."""
        key = ("summary", tensor, axis)
        if key not in self._cache and sum(k[0] == "summary" for k in self._cache) >= 4:
            self._cache.clear()
        return self._once(key, lambda: Summary(self.sources[tensor].make(), axis))

    def book(self, tensor: str, grid: str, bits: int) -> Codebook:
        """Return a grid by its name, fitted to the tensor where it is a fitted one."""
        return self._once(("book", tensor, grid, bits), lambda: self._build(tensor, grid, bits))

    def _build(self, tensor: str, grid: str, bits: int) -> Codebook:
        x = self.summary(tensor).x
        if grid in self.own:
            made = self.own[grid]
            made = made if isinstance(made, Codebook) else made(x, bits)
            if not isinstance(made, Codebook):
                raise TypeError(
                    f"grid {grid!r}: the function must return a Codebook, got {type(made).__name__}"
                )
            return made
        if grid in PAPER:
            return build_grid(grid.split()[0], x, bits, grid="paper")
        return build_grid(grid, x, bits)

    def levels(self, c: Choice) -> np.ndarray:
        """Return the custom levels, in units of x: those that were moved, or those of the start grid."""
        if (c.tensor, c.bits) in self.custom:
            return self.custom[c.tensor, c.bits]
        start = c.start if c.start in self.names(c.bits) and c.start != CUSTOM else "POT"
        levels = panels.level_positions(self.quantizer(replace(c, rule=SEARCH, per_channel=False), start))
        return custom.mirrored(levels) if c.mirror else levels

    def store(self, tensor: str, bits: int, levels: np.ndarray | list[float]) -> None:
        """Keep custom levels.

        Raises:
            ValueError: no such tensor, bits out of range, or levels not finite and strictly increasing.
        """
        if tensor not in self.sources:
            raise ValueError(
                f"custom levels for an unknown tensor {tensor!r}; there are {list(self.sources)}"
            )
        _check.bits(bits, 2, 8, "custom levels")
        self.custom[tensor, bits] = Codebook(levels).levels.numpy()

    def quantizer(self, c: Choice, grid: str) -> Quantizer:
        """Return a calibrated quantizer for one of the grids.

        Raises:
            ValueError: the grid does not exist at these bits.
        """
        if grid == CUSTOM:
            return Quantizer(Codebook(self.levels(c), name=CUSTOM), range=Fixed(1.0))
        book = self.book(c.tensor, grid, c.bits)
        if c.rule == MANUAL:
            return Quantizer(book, range=Fixed(c.clip / (book.reach or 1.0)))
        axis = self.axis(c)
        scale = self._once(
            ("scale", c.tensor, grid, c.bits, c.rule, axis),
            lambda: self._scale(c, book, axis),
        )
        return Quantizer(book, range=Fixed(scale, axis=axis))

    def _scale(self, c: Choice, book: Codebook, axis: int | None) -> Tensor:
        data = self.summary(c.tensor, axis)
        if c.rule == SEARCH:
            scale = search_scale(data, book)
            return scale if axis is not None else scale[0]
        return RULES[c.rule](axis).observe(data.x, book).scale

    def quantizers(self, c: Choice) -> dict[str, Quantizer]:
        """Return the two quantizers on show, under the names of the table."""
        return {
            f"{slot}: {grid}": self.quantizer(c, grid) for slot, grid in (("A", c.grid_a), ("B", c.grid_b))
        }

    def title(self, c: Choice) -> str:
        """Return one line that names everything chosen but the grids."""
        rule = f"{c.rule} {c.clip:.3g}" if c.rule == MANUAL else c.rule
        channels = ", per channel (drawn: the median scale)" if self.axis(c) is not None else ""
        return f"{c.tensor}, {c.bits} bits, {rule}{channels}"

    def scene(self, c: Choice) -> Scene:
        """Return levels, staircases, errors and the table of the two grids."""
        scene = self._scene(c, self.quantizers(c), self.title(c))
        return replace(scene, panels=(self._with_handles(c, scene.panels[0]), *scene.panels[1:]))

    def frame(self, c: Choice, grid: str) -> Scene:
        """Return the same for one grid alone."""
        return self._scene(c, {grid: self.quantizer(c, grid)}, f"{grid}, {c.bits} bits")

    def _scene(self, c: Choice, named: dict[str, Quantizer], title: str) -> Scene:
        data = self.summary(c.tensor, self.axis(c))
        parts = (
            panels.levels(data, named),
            panels.staircase(data, named),
            panels.error(data, named),
        )
        table = Comparison(tuple(measure.row(name, q, data) for name, q in named.items()))
        return Scene(title, parts, Table.of(table, panels.ROLES[: len(named)]))

    def _with_handles(self, c: Choice, panel: Panel) -> Panel:
        """Add the draggable points of the custom grid; without one, no points."""
        x, y = np.empty(0), np.empty(0)
        if c.edits:
            x = self.levels(c).copy()
            rug = panel.marks[1 if c.grid_a == CUSTOM else 2]
            y = np.full(len(x), (rug.low + rug.high) / 2)
        return replace(panel, marks=(*panel.marks, Points("c", x, y, moves="x")))
