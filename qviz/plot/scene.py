"""Scene: a picture as plain numbers, before anything draws it.

A *mark* is arrays with a role; a *panel* is marks between two axes; a *scene* is panels and a table.
Two renderers read them: :mod:`qviz.plot.draw` (matplotlib) and :mod:`qviz.widgets.live` (bqplot).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qviz.measure.compare import HEADERS, Comparison

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Mark:
    """What all marks share.

    Attributes:
        role: "data", "ideal" or one of "a" to "f"; the style maps it to color, dash and marker.
        label: The name in a legend; a mark without one stays out.
    """

    role: str
    label: str = field(default="", kw_only=True)


@dataclass(frozen=True, eq=False)
class Line(Mark):
    """A line through (x, y), broken at NaN."""

    x: Array
    y: Array


@dataclass(frozen=True, eq=False)
class Bars(Mark):
    """Filled bars: edges (n + 1,), heights (n,)."""

    edges: Array
    heights: Array


@dataclass(frozen=True, eq=False)
class Steps(Mark):
    """The outline of bars, not filled: edges (n + 1,), heights (n,)."""

    edges: Array
    heights: Array


@dataclass(frozen=True, eq=False)
class Band(Mark):
    """The area between two curves over one x, NaN-free: x, low, high, all (n,)."""

    x: Array
    low: Array
    high: Array


@dataclass(frozen=True, eq=False)
class Rug(Mark):
    """Upright ticks at x (n,), from ``low`` to ``high`` on the y axis."""

    x: Array
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Points(Mark):
    """Dots at (x, y); ``movable`` ones can be dragged along x where the renderer can."""

    x: Array
    y: Array
    movable: bool = False


@dataclass(frozen=True)
class Axis:
    """An axis: its label with the unit in brackets, and the limits that are shown."""

    label: str
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Panel:
    """Marks between two axes.

    Attributes:
        title: what is shown, short.
        x, y: the axes. marks: in drawing order.
        text: what a reader should see, in sentences with numbers; the alt text.
    """

    title: str
    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    text: str

    def numbers(self) -> list[dict[str, Any]]:
        """Return every mark as a dict of its fields: the numeric twin of the picture."""
        return [{"mark": type(m).__name__, **vars(m)} for m in self.marks]

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Show a figure with its alt text in notebooks."""
        from qviz.plot.draw import bundle, figure

        return bundle(figure(Scene(self.title, (self,))), self.text)


@dataclass(frozen=True, eq=False)
class Scene:
    """Panels that belong together, and the table beside them.

    Attributes:
        title: one line. panels: drawn in reading order. table: None, or figures of each method.
        roles: the role of each row of the table, for its swatch.
    """

    title: str
    panels: tuple[Panel, ...]
    table: Comparison | None = None
    roles: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Title, panel texts and table as sentences: the alt text of the whole."""
        parts = [self.title + ".", *(panel.text for panel in self.panels)]
        if self.table is not None:
            parts += [
                f"{c[0]}: " + ", ".join(f"{h} {v}" for h, v in _columns(c)) + "." for c in self.table.cells()
            ]
        return " ".join(parts)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Show a figure with its alt text in notebooks."""
        from qviz.plot.draw import bundle, figure

        return bundle(figure(self), self.text)


def _columns(cells: tuple[str, ...]) -> list[tuple[str, str]]:
    return list(zip(HEADERS[1:], cells[1:], strict=True))
