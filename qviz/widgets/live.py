"""Live: a Panel as a bqplot figure whose marks are made once and then only get new arrays."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import bqplot
import numpy as np
from ipywidgets import Widget
from matplotlib.ticker import MaxNLocator

from qviz.plot.scene import Axis, Band, Bars, Line, Mark, Panel, Points, Rug, Steps
from qviz.plot.style import LOOKS

Arrays = dict[str, np.ndarray]
INK = "var(--jp-content-font-color1)"
"""Text in the colour of the page's theme; bqplot's own choice on dark themes is orange."""


def _broken(left: np.ndarray, right: np.ndarray, low: float, high: float) -> Arrays:
    """Return many separate two-point lines as one line with NaN between them (one SVG path)."""
    gap = np.full(len(left), np.nan)
    y = np.tile([low, high, np.nan], len(left))
    return {
        "x": np.column_stack([left, right, gap]).ravel()[:-1],
        "y": y[:-1],
    }  # bqplot wants a number last


def _outline(edges: np.ndarray, heights: np.ndarray, base: float | None) -> Arrays:
    """Return the corners of bars from left to right, closed down to ``base`` unless it is None."""
    x, y = np.repeat(edges, 2)[1:-1], np.repeat(heights, 2)
    if base is not None:
        x, y = np.concatenate([x[:1], x, x[-1:]]), np.concatenate([[base], y, [base]])
    return {"x": x.astype(np.float64), "y": y.astype(np.float64)}


def arrays(mark: Mark) -> Arrays:
    """Return the x and y that bqplot gets for a mark."""
    match mark:
        case Line() | Points():
            return {"x": mark.x, "y": mark.y}
        case Rug():
            return _broken(mark.x, mark.x, mark.low, mark.high)
        case Bars():
            return _outline(mark.edges, mark.heights, 0.0)
        case Steps():
            return _outline(mark.edges, mark.heights, None)
        case Band():
            return {
                "x": np.concatenate([mark.x, mark.x[::-1]]),
                "y": np.concatenate([mark.high, mark.low[::-1]]),
            }
    raise TypeError(f"no live drawing for a mark of type {type(mark).__name__}")


def _bqplot_mark(mark: Mark, scales: dict[str, bqplot.Scale]) -> bqplot.Mark:
    look = LOOKS[mark.role]
    common: dict[str, Any] = {**arrays(mark), "scales": scales, "colors": [look.color]}
    if isinstance(mark, Points):
        return bqplot.Scatter(
            **common,
            default_size=90,
            stroke="white",
            enable_move=bool(mark.moves),
            restrict_x=True,
            update_on_move=True,
        )
    if isinstance(mark, (Bars, Band)):
        opacity = 0.5 if isinstance(mark, Bars) else 0.2
        return bqplot.Lines(
            **common,
            fill="inside",
            fill_colors=[look.color],
            fill_opacities=[opacity],
            stroke_width=0,
        )
    dash = "solid" if isinstance(mark, Rug) else look.plain_dash
    return bqplot.Lines(**common, line_style=dash, stroke_width=2)


def _ticks(axis: Axis) -> dict[str, Any]:
    """Return label, round tick values and a format with as many decimals as they need."""
    at = MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10]).tick_values(axis.low, axis.high)
    at = at[(at >= axis.low) & (at <= axis.high)]
    step = at[1] - at[0] if len(at) > 1 else 1.0
    decimals = next((d for d in range(7) if abs(round(step, d) - step) < 1e-3 * step), 7)
    shown = f".{decimals}f" if decimals <= 6 else ".3g"
    return {"label": axis.label, "tick_values": at, "tick_format": shown}


class LivePanel:
    """One bqplot figure that follows a sequence of panels of the same shape.

    Args:
        panel: the first panel; later ones must have marks of the same types in the same order.
        height: of the figure, CSS.

    Attributes:
        widget: the bqplot Figure.
    """

    def __init__(self, panel: Panel, height: str = "300px") -> None:
        self.kinds = tuple(type(mark) for mark in panel.marks)
        self.x = bqplot.LinearScale(min=panel.x.low, max=panel.x.high)
        self.y = bqplot.LinearScale(min=panel.y.low, max=panel.y.high)
        scales = {"x": self.x, "y": self.y}
        self.marks = [_bqplot_mark(mark, scales) for mark in panel.marks]
        bare = {"grid_lines": "none", "label_color": INK}
        self.axes = [
            bqplot.Axis(scale=self.x, label_offset="2.6em", **bare, **_ticks(panel.x)),
            bqplot.Axis(
                scale=self.y,
                label_offset="3.4em",
                orientation="vertical",
                **bare,
                **_ticks(panel.y),
            ),
        ]
        self.widget = bqplot.Figure(
            marks=self.marks,
            axes=self.axes,
            title=panel.title,
            title_style={"fill": INK},
            display_toolbar=False,  # it would cover the title under the mouse, in every drag
            animation_duration=0,
            padding_x=0,
            padding_y=0,
            fig_margin={"top": 36, "bottom": 50, "left": 66, "right": 18},
            layout={"width": "auto", "height": height, "min_width": "300px"},
        )

    def changes(self, panel: Panel) -> list[tuple[Widget, dict[str, Any]]]:
        """Return what has to be set so that the figure shows ``panel``; unchanged arrays stay out.

        Raises:
            ValueError: the panel's marks are of other types than the first one's.
        """
        kinds = tuple(type(mark) for mark in panel.marks)
        if kinds != self.kinds:
            raise ValueError(f"a live panel keeps its marks: {_names(self.kinds)}, got {_names(kinds)}")
        wanted: list[tuple[Widget, dict[str, Any]]] = [
            (self.x, {"min": panel.x.low, "max": panel.x.high}),
            (self.y, {"min": panel.y.low, "max": panel.y.high}),
        ]
        wanted += [(live, dict(arrays(mark))) for live, mark in zip(self.marks, panel.marks, strict=True)]
        wanted += [(live, _ticks(axis)) for live, axis in zip(self.axes, (panel.x, panel.y), strict=True)]
        changed = [(w, {k: v for k, v in new.items() if not _same(getattr(w, k), v)}) for w, new in wanted]
        return [(w, new) for w, new in changed if new]


def apply(changes: list[tuple[Widget, dict[str, Any]]]) -> None:
    """Set all traits, sending one message a widget, all of them after the last was set."""
    with ExitStack() as held:
        for widget, _ in changes:
            held.enter_context(widget.hold_sync())
        for widget, new in changes:
            for name, value in new.items():
                setattr(widget, name, value)


def _same(old: Any, new: Any) -> bool:
    if isinstance(new, np.ndarray):
        return isinstance(old, np.ndarray) and np.array_equal(old, new, equal_nan=True)
    return old == new


def _names(kinds: tuple[type, ...]) -> str:
    return ", ".join(kind.__name__ for kind in kinds)
