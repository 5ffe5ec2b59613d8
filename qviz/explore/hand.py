"""Hand: a grid whose levels are moved by hand, as a part of an explorer's choice and model.

:mod:`qviz.explore.levels` moves one level among its neighbors; here are the controls, dots and memory for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

import numpy as np

from qviz.core import _check
from qviz.core.codebook import Codebook
from qviz.explore import levels as by_hand
from qviz.explore.controls import Number, Pick, Tick, control, kept
from qviz.explore.model import Action, Model, changed
from qviz.plot.scene import Panel, Points, Rug, Span

CUSTOM = "custom"
MAX_DOTS = 17
"""Of more levels only every k-th has a dot: the chosen one, and others at equal distances from it."""


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
class Hand:
    """The part of a choice that belongs to the custom grid; its class adds ``tensor``, ``bits``, ``edits``.

    Attributes:
        custom: All levels that were moved; every tensor and bit width has its own.
    """

    level: int = control(
        1, Number("Level", "The number of the level that moves, from the left.", low=1, high=2)
    )
    value: float = control(0.0, Number("Value", "Where that level is, in units of x.", step=0.01))
    mirror: bool = control(False, Tick("Mirror signs", "The level of the opposite sign moves along."))
    start: str = kept("POT", Pick("start of the custom grid"))
    custom: tuple[Custom, ...] = ()

    @property
    def moved(self) -> np.ndarray | None:
        """The levels moved by hand for this tensor and bit width, or None."""
        found = [c.levels for c in self.custom if (c.tensor, c.bits) == (self.tensor, self.bits)]
        return np.array(found[-1]) if found else None

    def store(self, levels: np.ndarray | None) -> Self:
        """Return the choice with other levels moved by hand; None forgets them."""
        others = tuple(c for c in self.custom if (c.tensor, c.bits) != (self.tensor, self.bits))
        new = () if levels is None else (Custom(self.tensor, self.bits, tuple(levels)),)
        return replace(self, custom=others + new)


H = TypeVar("H", bound=Hand)


class HandModel(Model[H]):
    """A model with a custom grid; a subclass writes :meth:`begun` and :meth:`ends`."""

    def begun(self, choice: H) -> np.ndarray:
        """Return the levels that the custom grid begins with, in units of x."""
        raise NotImplementedError

    def ends(self, choice: H) -> tuple[float, float]:
        """Return between which values levels can be moved."""
        raise NotImplementedError

    def levels(self, choice: H) -> np.ndarray:
        """Return the custom levels, in units of x: those that were moved, or those it begins with."""
        if choice.moved is not None:
            return choice.moved
        levels = self.begun(choice)
        return by_hand.mirrored(levels) if choice.mirror else levels

    def limits(self, choice: H) -> dict[str, dict[str, Any]]:
        """Return the numbers of the levels, and a step of the value that is finer than their distances."""
        shown = {name: {"shown": choice.edits} for name in ("level", "value", "mirror")}
        if not choice.edits:
            return shown
        levels = self.levels(choice)
        gap = float(np.diff(levels).min(initial=np.inf))
        step = 10.0 ** math.floor(math.log10(gap / 2)) if gap < np.inf else 0.01
        return {**shown, "level": {"low": 1, "high": len(levels)}, "value": {"step": step}}

    def actions(self, choice: H) -> dict[str, Action[H]]:
        """Return the button that forgets the custom levels."""
        text = f"Start again from {choice.start}, the grid that custom began with"
        return {"reset": Action(f"Reset to {choice.start}", text, self.forgotten, choice.edits)}

    def forgotten(self, choice: H) -> H:
        """Return the choice without the custom levels of its tensor and bit width."""
        return self.followed(choice.store(None))

    def settled(self, before: H, after: H) -> H:
        """Move a level to a new value, or make all levels symmetric."""
        moves, c = changed(before, after), after
        if c.edits and before.edits and "value" in moves and "level" not in moves:
            c = self._move(c, c.level - 1, c.value)
        if c.edits and c.mirror and "mirror" in moves:
            c = c.store(by_hand.mirrored(self.levels(c)))
        return self.followed(c)

    def followed(self, choice: H) -> H:
        """Bring the number of the level inside the grid, and its value to where it is."""
        if not choice.edits:
            return choice
        levels = self.levels(choice)
        level = min(max(choice.level, 1), len(levels))
        return replace(choice, level=level, value=float(f"{levels[level - 1]:.7g}"))

    def dragged(self, choice: H, panel: int, mark: int, index: int, x: float, y: float) -> H:
        """Move the level of a dot."""
        return self.followed(self._move(choice, int(self.dots(choice)[index]), x))

    def _move(self, c: H, index: int, value: float) -> H:
        levels = by_hand.moved(self.levels(c), index, value, *self.ends(c), mirror=c.mirror)
        return replace(c.store(levels), level=index + 1)

    def dots(self, choice: H) -> np.ndarray:
        """Return the indices of the levels that have a dot."""
        count = len(self.levels(choice))
        stride = -(-count // MAX_DOTS)
        return np.arange((choice.level - 1) % stride, count, stride)

    def with_dots(self, choice: H, panel: Panel, ruler: int) -> Panel:
        """Return a panel with a dot for every level that can be dragged, on its ruler with that number.

        The values that the chosen level serves are shaded.
        """
        levels, (low, high) = self.levels(choice), self.ends(choice)
        cuts = np.concatenate([[low], (levels[:-1] + levels[1:]) / 2, [high]])
        i, x = choice.level, levels[self.dots(choice)]
        served = Span("c", cuts[i - 1], cuts[i], label=f"level {i} serves these")
        rug = [mark for mark in panel.marks if isinstance(mark, Rug)][ruler]
        y = np.full(len(x), (rug.low + rug.high) / 2)
        return replace(panel, marks=(*panel.marks, served, Points("c", x, y, "x")))

    def parsed(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the state with its custom grids as such.

        Raises:
            ValueError: One is no grid, or for a tensor that is not there.
        """
        grids = state.get("custom", [])
        for grid in grids:
            if not isinstance(grid, Mapping) or set(grid) != {"tensor", "bits", "levels"}:
                raise ValueError(f"a custom grid has tensor, bits and levels, got {grid}")
            if grid["tensor"] not in self.sources:
                raise ValueError(f"unknown tensor {grid['tensor']!r}; there are {list(self.sources)}")
        return {**state, "custom": tuple(Custom(**grid) for grid in grids)}
