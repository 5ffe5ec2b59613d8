"""Grid: two grids on one tensor, at one bit width, with levels that can be moved by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qviz.core import _check
from qviz.core.codebook import Codebook
from qviz.core.quantizer import Quantizer
from qviz.core.range import MSE, Fixed, MinMax, Percentile, Range, search_scale
from qviz.core.summary import Summary
from qviz.explore import levels as by_hand
from qviz.explore import tensors
from qviz.explore.controls import Control, Number, Pick, Slide, Tick
from qviz.explore.model import Action, Model
from qviz.explore.tensors import Source
from qviz.measure import Comparison, Measured, build_grid, grid_names
from qviz.plot import panels
from qviz.plot.html import Chooser, Key
from qviz.plot.scene import Panel, Points, Rug, Scene, Table

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
CLIP_STEPS = 200
MAX_DOTS = 17
"""Of more levels only every k-th has a dot: the chosen one, and others at equal distances from it."""

GridMaker = Callable[[Tensor, int], Codebook]
Grids = Mapping[str, Codebook | GridMaker]


@dataclass(frozen=True)
class Custom:
    """Levels that were moved by hand, in units of x, for one tensor and bit width."""

    tensor: str
    bits: int
    levels: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse what is no grid, and take lists, as JSON has them."""
        _check.bits(self.bits, 2, 8, "custom levels")
        levels = Codebook(np.asarray(self.levels, dtype=np.float64)).levels
        object.__setattr__(self, "levels", tuple(levels.tolist()))


@dataclass(frozen=True)
class GridChoice:
    """What is to be shown.

    Attributes:
        tensor: The name of the tensor.
        bits: The bit width, 2 to 8.
        clip: Where the outermost level goes, in units of x, under the rule "manual clip".
        grid_a: The name of the first grid.
        grid_b: The name of the second grid.
        rule: How the range is found.
        per_channel: Whether each channel has its own scale.
        hold: Whether the error axis stays as it is.
        level: The number of the level that is moved, from 1.
        value: Where that level is, in units of x.
        mirror: Whether the level of the opposite sign moves along.
        start: The grid that the custom one starts from.
        reach: The end of the error axis while it is held, else 0.
        custom: All levels that were moved.
    """

    tensor: str
    bits: int = 4
    clip: float = 1.0
    grid_a: str = "POT"
    grid_b: str = "POST"
    rule: str = SEARCH
    per_channel: bool = False
    hold: bool = False
    level: int = 1
    value: float = 0.0
    mirror: bool = False
    start: str = "POT"
    reach: float = 0.0
    custom: tuple[Custom, ...] = ()

    @property
    def grids(self) -> dict[str, str]:
        """The names of both grids, by the letters A and B."""
        return {"A": self.grid_a, "B": self.grid_b}

    @property
    def edits(self) -> bool:
        """Whether the custom grid is on show."""
        return CUSTOM in (self.grid_a, self.grid_b)

    @property
    def channels(self) -> bool:
        """Whether each channel has its own scale; a manual clip is one for all."""
        return self.per_channel and self.rule != MANUAL

    @property
    def moved(self) -> np.ndarray | None:
        """The levels moved by hand for this tensor and bit width, or None."""
        found = [c.levels for c in self.custom if (c.tensor, c.bits) == (self.tensor, self.bits)]
        return np.array(found[-1]) if found else None

    def store(self, levels: np.ndarray | None) -> GridChoice:
        """Return the choice with other levels moved by hand; None forgets them."""
        others = tuple(c for c in self.custom if (c.tensor, c.bits) != (self.tensor, self.bits))
        new = () if levels is None else (Custom(self.tensor, self.bits, tuple(levels)),)
        return replace(self, custom=others + new)


class GridModel(Model[GridChoice]):
    """Levels over the histogram, staircases, errors and a table of two grids.

    Args:
        x: Your own tensor or array, finite, floating point, with channels on axis 0.
        grids: Your own grids: a name → a Codebook, or a function of (tensor, bits) that returns one.
        bits: The bit width to start with, 2 to 8.
        tensor: The name of the tensor to start with.

    Raises:
        TypeError: x is not floating point, or a grid is neither a Codebook nor callable.
        ValueError: x is empty, NaN or infinite; a grid's name is taken; or there is no such tensor.
    """

    def __init__(
        self,
        x: Tensor | np.ndarray | None = None,
        grids: Grids | None = None,
        *,
        bits: int = 4,
        tensor: str | None = None,
    ) -> None:
        bits = _check.bits(bits, 2, 8, "GridExplorer")
        self.sources: dict[str, Source] = ({} if x is None else {"your tensor": tensors.own(x)}) | (
            tensors.sources()
        )
        self.own = dict(grids or {})
        for name, grid in self.own.items():
            if name in (*grid_names(4), *PAPER, CUSTOM):
                raise ValueError(f"a grid named {name!r} exists already; choose another name")
            if not isinstance(grid, Codebook) and not callable(grid):
                raise TypeError(f"grid {name!r} must be a Codebook or a function, got {type(grid).__name__}")
        tensor = next(iter(self.sources)) if tensor is None else tensor
        if tensor not in self.sources:
            raise ValueError(f"unknown tensor {tensor!r}; there are {list(self.sources)}")
        self._cache: dict[tuple, Any] = {}
        self.start = self.followed(GridChoice(tensor, bits))

    def _once(self, key: tuple, make: Callable[[], Any]) -> Any:
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def names(self, bits: int) -> tuple[str, ...]:
        """Return the grids that exist at a bit width; "custom" is the last."""
        return (*grid_names(bits), *(PAPER if bits < 8 else ()), *self.own, CUSTOM)

    def axis(self, c: GridChoice) -> int | None:
        """Return the channel axis in use, or None."""
        return self.sources[c.tensor].axis if c.channels else None

    def summary(self, tensor: str, axis: int | None = None) -> Summary:
        """Return the summary of a tensor."""
        return tensors.summary(self.sources[tensor], axis)

    # The grids.

    def book(self, tensor: str, grid: str, bits: int) -> Codebook:
        """Return a grid by its name, fitted to the tensor where it is a fitted one."""
        return self._once(("book", tensor, grid, bits), lambda: self._build(tensor, grid, bits))

    def _build(self, tensor: str, grid: str, bits: int) -> Codebook:
        x = self.summary(tensor).x
        if grid in PAPER:
            return build_grid(grid.split()[0], x, bits, grid="paper")
        if grid not in self.own:
            return build_grid(grid, x, bits)
        made = self.own[grid]
        made = made if isinstance(made, Codebook) else made(x, bits)
        if not isinstance(made, Codebook):
            raise TypeError(f"grid {grid!r}: the function must return a Codebook, got {type(made).__name__}")
        return made

    def levels(self, c: GridChoice) -> np.ndarray:
        """Return the custom levels, in units of x: those that were moved, or those of the start grid."""
        if c.moved is not None:
            return c.moved
        start = c.start if c.start in self.names(c.bits) and c.start != CUSTOM else "POT"
        levels = panels.level_positions(self.quantizer(replace(c, rule=SEARCH, per_channel=False), start))
        return by_hand.mirrored(levels) if c.mirror else levels

    def quantizer(self, c: GridChoice, grid: str) -> Quantizer:
        """Return a calibrated quantizer for one of the grids.

        Raises:
            ValueError: The grid does not exist at these bits.
        """
        if grid == CUSTOM:
            return Quantizer(Codebook(self.levels(c), name=CUSTOM), range=Fixed(1.0))
        book = self.book(c.tensor, grid, c.bits)
        if c.rule == MANUAL:
            return Quantizer(book, range=Fixed(c.clip / (book.reach or 1.0)))
        axis = self.axis(c)
        key = ("scale", c.tensor, grid, c.bits, c.rule, axis)
        return Quantizer(book, range=Fixed(self._once(key, lambda: self._scale(c, book, axis)), axis=axis))

    def _scale(self, c: GridChoice, book: Codebook, axis: int | None) -> Tensor:
        data = self.summary(c.tensor, axis)
        if c.rule == SEARCH:
            scale = search_scale(data, book)
            return scale if axis is not None else scale[0]
        return RULES[c.rule](axis).observe(data.x, book).scale

    def quantizers(self, c: GridChoice) -> dict[str, Quantizer]:
        """Return the two quantizers on show, under the names of the table."""
        return {f"{slot}: {grid}": self.quantizer(c, grid) for slot, grid in c.grids.items()}

    def clip(self, c: GridChoice, grid: str) -> float:
        """Return where the outermost level of a grid is; per channel at the median scale."""
        q = self.quantizer(c, grid)
        return float(torch.atleast_1d(q.range.scale).median()) * q.codebook.reach

    # The controls.

    def span(self, tensor: str) -> tuple[float, float, int]:
        """Return step and end of the Clip slider for a tensor, round numbers, and their decimals."""
        top = max(map(abs, panels.limits(self.summary(tensor))))
        decade = 10.0 ** np.floor(np.log10(top / CLIP_STEPS))
        step = next(decade * m for m in (1, 2, 5, 10) if decade * m * CLIP_STEPS >= top)
        decimals = max(0, -int(np.floor(np.log10(step) + 1e-9)))
        return round(float(step), decimals), round(float(np.ceil(top / step) * step), decimals), decimals

    def controls(self, c: GridChoice) -> dict[str, Control]:
        """Return the controls; those of the custom grid are shown where it is."""
        names, (step, top, _) = self.names(4), self.span(c.tensor)
        levels = self.levels(c) if c.edits else np.zeros(2)
        gap = float(np.diff(levels).min()) if c.edits and len(levels) > 1 else 0.02
        return {
            "tensor": Pick("Tensor", options=tuple(self.sources)),
            "bits": Slide("Bits", low=2, high=8, step=1),
            "clip": Slide("Clip", low=step, high=top, step=step),
            "grid_a": Pick("Grid A", options=names),
            "grid_b": Pick("Grid B", options=names),
            "rule": Pick("Range", options=(*RULES, MANUAL)),
            "per_channel": Tick("Per channel"),
            "hold": Tick("Hold error axis"),
            "level": Number("Level", c.edits, low=1, high=len(levels), step=1),
            "value": Number("Value", c.edits, step=float(10 ** np.floor(np.log10(gap / 2 or 0.01)))),
            "mirror": Tick("Mirror signs", c.edits),
        }

    def actions(self, c: GridChoice) -> dict[str, Action[GridChoice]]:
        """Return the button that forgets the custom levels."""
        text = f"Start again from {c.start}, the grid that custom began with"
        return {"reset": Action(f"Reset to {c.start}", text, lambda c: self.followed(c.store(None)), c.edits)}

    def settled(self, before: GridChoice, after: GridChoice) -> GridChoice:
        """Carry out what a moved control means: a manual clip, a custom grid begun, a level moved."""
        changed = {f.name for f in fields(after) if getattr(before, f.name) != getattr(after, f.name)}
        c = after
        if "clip" in changed and "tensor" not in changed and c.rule != MANUAL:
            if abs(c.clip - before.clip) <= self.span(c.tensor)[0] / 2:
                return c  # a browser sends back what it was sent, rounded its own way: nobody moved it
            c = replace(c, rule=MANUAL)
        if c.edits and not before.edits and c.moved is None:
            slot = "grid_a" if c.grid_a == CUSTOM else "grid_b"
            c = replace(c, start=getattr(before, slot))
        if c.edits and before.edits and "value" in changed and "level" not in changed:
            c = self._move(c, c.level - 1, c.value)
        if c.edits and c.mirror and "mirror" in changed:
            c = c.store(by_hand.mirrored(self.levels(c)))
        if c.hold and (not before.hold or "tensor" in changed):
            c = replace(c, reach=0.0)
        return self.followed(c)

    def followed(self, c: GridChoice) -> GridChoice:
        """Bring clip, level, value and the held axis up to date; a grid that does not exist falls back."""
        found = {s: getattr(c, s) for s in ("grid_a", "grid_b")}  # the paper grids stop at 7 bits
        c = replace(c, **{s: g if g in self.names(c.bits) else g.split()[0] for s, g in found.items()})
        step, top, decimals = self.span(c.tensor)
        fitted = [grid for grid in c.grids.values() if grid != CUSTOM]
        clip = self.clip(c, fitted[0]) if fitted and c.rule != MANUAL else c.clip
        c = replace(c, clip=min(max(round(round(clip / step) * step, decimals), step), top))
        if c.edits:
            levels = self.levels(c)
            level = min(max(c.level, 1), len(levels))
            c = replace(c, level=level, value=float(f"{levels[level - 1]:.7g}"))
        if c.hold and not c.reach:
            return replace(c, reach=self.scene(c).panels[2].x.high)
        return c if c.hold else replace(c, reach=0.0)

    def dragged(self, c: GridChoice, panel: int, mark: int, index: int, x: float, y: float) -> GridChoice:
        """Move the level of a dot."""
        return self.followed(self._move(c, int(self._dots(c)[index]), x))

    def _move(self, c: GridChoice, index: int, value: float) -> GridChoice:
        low, high = panels.limits(self.summary(c.tensor))
        levels = by_hand.moved(self.levels(c), index, value, low, high, mirror=c.mirror)
        return replace(c.store(levels), level=index + 1)

    def _with(self, state: Mapping[str, Any]) -> GridChoice:
        grids = state.get("custom", [])
        for grid in grids:
            if not isinstance(grid, Mapping) or set(grid) != {"tensor", "bits", "levels"}:
                raise ValueError(f"a custom grid has tensor, bits and levels, got {grid}")
            if grid["tensor"] not in self.sources:
                raise ValueError(f"unknown tensor {grid['tensor']!r}; there are {list(self.sources)}")
        start = state.get("start", self.start.start)
        if start not in self.names(4):
            raise ValueError(f"unknown start grid {start!r}; there are {self.names(4)}")
        reach = state.get("reach", 0.0)
        if not isinstance(reach, (int, float)) or not 0.0 <= reach < np.inf:
            raise ValueError(f"reach must be a number, 0 or positive, got {reach!r}")
        return replace(self.start, **{**state, "custom": tuple(Custom(**grid) for grid in grids)})

    # The picture.

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
        best = " and ".join(f"{self.clip(found, grid):.3g} for {slot}" for slot, grid in c.grids.items())
        return f"{about} One clip, {c.clip:.3g}, serves both grids; the MSE search finds {best}."

    def scene(self, c: GridChoice) -> Scene:
        """Return levels, staircases, errors and the table of the two grids."""
        scene = self._scene(c, self.quantizers(c), self.title(c), c.reach)
        if not c.edits:
            return scene
        first = self._with_dots(c, scene.panels[0])
        return replace(scene, panels=(first, *scene.panels[1:]))

    def _scene(self, c: GridChoice, named: dict[str, Quantizer], title: str, reach: float) -> Scene:
        data = self.summary(c.tensor, self.axis(c))
        figures = {name: Measured(q, data, name) for name, q in named.items()}  # for picture and table
        parts = (
            panels.levels(data, named),
            panels.staircase(data, named),
            panels.error(data, figures, reach=reach or None),
        )
        rows = Comparison(tuple(measured.row(name) for name, measured in figures.items()))
        return Scene(title, parts, Table.of(rows, panels.ROLES[: len(named)]), self.about(c))

    def _dots(self, c: GridChoice) -> np.ndarray:
        """Return the indices of the levels that have a dot."""
        count = len(self.levels(c))
        stride = -(-count // MAX_DOTS)
        return np.arange((c.level - 1) % stride, count, stride)

    def _with_dots(self, c: GridChoice, panel: Panel) -> Panel:
        """Add the draggable dots of the custom grid, on its ruler."""
        x = self.levels(c)[self._dots(c)]
        rug = [mark for mark in panel.marks if isinstance(mark, Rug)][0 if c.grid_a == CUSTOM else 1]
        y = np.full(len(x), (rug.low + rug.high) / 2)
        return replace(panel, marks=(*panel.marks, Points("c", x, y, "x")))

    def grids_page(self, c: GridChoice) -> tuple[list[Chooser], dict[Key, Scene], dict[str, Key]]:
        """Return controls, pictures and first columns of a page with every grid at every bit width.

        At one bit width all grids share one error axis, so that two columns can be compared.
        """
        widths = self.controls(c)["bits"].values()
        names = self.names(4)
        frames: dict[Key, Scene] = {}
        for i, bits in enumerate(widths):
            here = replace(c, bits=bits)
            shown = [g for g in self.names(bits) if g != CUSTOM or here.moved is not None]
            shown += [CUSTOM] if bits == c.bits and c.edits and here.moved is None else []
            quantizers = {grid: self.quantizer(here, grid) for grid in shown}
            data = self.summary(c.tensor, self.axis(c))
            reach = max(panels.error(data, {g: q}).x.high for g, q in quantizers.items())
            for grid, q in quantizers.items():
                frames[i, names.index(grid)] = self._scene(here, {grid: q}, f"{grid}, {bits} bits", reach)
        choosers = [
            Chooser("Bits", tuple(map(str, widths)), slider=True),
            Chooser("Grid", names, own=True),
        ]
        first = {slot: (widths.index(c.bits), names.index(g)) for slot, g in c.grids.items()}
        return choosers, frames, first
