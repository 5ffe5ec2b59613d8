"""Scene: a picture as plain numbers, before anything draws it.

A *mark* is arrays with a role; a *panel* is marks between two axes; a *scene* is panels and a table.
Renderers read them: :mod:`qviz.plot.draw` (matplotlib), :mod:`qviz.plot.html` (tables and pages) and
:mod:`qviz.widgets.live` (bqplot).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from qviz.plot.table import Table as Table

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Mark:
    """What all marks share.

    Attributes:
        role: One of the keys of :data:`qviz.plot.style.LOOKS`, which gives it color, dash and marker.
        label: Its name in the legend; marks with an empty label stay out.
    """

    role: str
    label: str = field(default="", kw_only=True)


@dataclass(frozen=True, eq=False)
class Line(Mark):
    """A line through (x, y), broken at NaN."""

    x: Array
    y: Array

    @classmethod
    def of(cls, role: str, x: ArrayLike, y: ArrayLike, label: str = "") -> Line:
        """Return the columns of x and y, broadcast to (R, n), as one line that is broken between them."""
        columns = (np.array([*rows, np.full(rows.shape[1], np.nan)]) for rows in np.broadcast_arrays(x, y))
        return cls(role, *(some.ravel(order="F")[:-1] for some in columns), label=label)


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
    """Upright ticks at x (n,), from ``low`` to ``high`` on the y axis: one number each, or (n,)."""

    x: Array
    low: float | Array
    high: float | Array


@dataclass(frozen=True, eq=False)
class Points(Mark):
    """Dots at (x, y), both (n,).

    Attributes:
        moves: Along which axes a dot can be dragged where the renderer can: "", "x", "y" or "xy".
    """

    x: Array
    y: Array
    moves: str = ""

    def __post_init__(self) -> None:
        """Refuse other directions."""
        if self.moves not in ("", "x", "y", "xy"):
            raise ValueError(f"moves must be '', 'x', 'y' or 'xy', got {self.moves!r}")


@dataclass(frozen=True, eq=False)
class Rule(Mark):
    """A straight line across the whole panel: upright at a value of x, or level at a value of y."""

    at: float
    axis: str = "x"

    def __post_init__(self) -> None:
        """Refuse other axes."""
        _need_axis(self.axis)


@dataclass(frozen=True, eq=False)
class Span(Mark):
    """A shaded strip across the whole panel, between two values of x (upright) or of y (level)."""

    low: float
    high: float
    axis: str = "x"

    def __post_init__(self) -> None:
        """Refuse other axes."""
        _need_axis(self.axis)


@dataclass(frozen=True, eq=False)
class Heat(Mark):
    """A map of colors: values (m, n), at equally spaced x (n,) and y (m,); NaN stays blank.

    Attributes:
        ends: The values of the first and the last color, so that two maps can share them; by default the
            least and the largest value.
    """

    x: Array
    y: Array
    values: Array
    ends: tuple[float, float] | None = None


def _need_axis(axis: str) -> None:
    if axis not in ("x", "y"):
        raise ValueError(f"axis must be 'x' or 'y', got {axis!r}")


@dataclass(frozen=True)
class Axis:
    """An axis.

    Attributes:
        label: Its name, with the unit in brackets.
        low: The lower limit that is shown.
        high: The upper limit that is shown.
        log: Whether distances are ratios; both limits are positive then.
        names: What stands at 1, 2, 3, … in place of these numbers.
    """

    label: str
    low: float
    high: float
    log: bool = False
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse limits that a logarithm does not have."""
        if self.log and not 0 < self.low < self.high:
            raise ValueError(f"a log axis needs 0 < low < high, got {self.low} and {self.high}")

    @property
    def counts(self) -> bool:
        """Whether it numbers things, each in the middle of its place: from 1/2 to a whole number and 1/2."""
        return not self.log and self.low == 0.5 == self.high % 1


class Pictured:
    """What a notebook shows as a picture; :mod:`qviz.plot.draw` sets how it is drawn."""

    picture: ClassVar[Callable[[Any], tuple[dict[str, Any], dict[str, Any]]]]

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return a PNG and its alt text."""
        return type(self).picture(self)


@dataclass(frozen=True, eq=False)
class Panel(Pictured):
    """Marks between two axes.

    Attributes:
        title: What is shown, short.
        x: The horizontal axis.
        y: The vertical axis.
        marks: What is drawn, in drawing order.
        text: What a reader should see, in sentences with numbers; the alt text.
    """

    title: str
    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    text: str

    def numbers(self) -> list[dict[str, Any]]:
        """Return every mark as a dict of its fields: the numeric twin of the picture."""
        return [{"mark": type(m).__name__, **vars(m)} for m in self.marks]


@dataclass(frozen=True, eq=False)
class Scene(Pictured):
    """Panels that belong together, and the table beside them.

    Attributes:
        title: What is shown, in one line.
        panels: The panels in reading order.
        table: The figures of each method, or None.
        about: Sentences that belong to the whole, such as where the data come from.
    """

    title: str
    panels: tuple[Panel, ...]
    table: Table | None = None
    about: str = ""

    @property
    def sentences(self) -> tuple[str, ...]:
        """Title, panels by name, and table, as one paragraph each."""
        parts = [f"{self.title}.", self.about, *(f"{panel.title}: {panel.text}" for panel in self.panels)]
        parts += [] if self.table is None else [self.table.text]
        return tuple(part for part in parts if part)

    @property
    def text(self) -> str:
        """All sentences: the alt text of the whole."""
        return " ".join(self.sentences)
