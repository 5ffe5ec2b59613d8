"""Live marks: the bqplot mark for each kind of mark, its arrays and its look."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import bqplot
import numpy as np
from ipywidgets import Image
from matplotlib.image import imsave

from qviz.plot.scene import Band, Bars, Heat, Line, Mark, Panel, Points, Rug, Rule, Span, Steps
from qviz.plot.style import HEAT, LOOKS

Arrays = dict[str, np.ndarray]

OPACITY = {Bars: 0.5, Band: 0.2, Span: 0.2}
"""How much the filled marks cover what is behind them."""

MANY = 64
"""Ticks of a ruler that are more than this are thin, so that they stay apart."""

MARKERS = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "D": "diamond",
    "v": "triangle-down",
    "P": "cross",
}
"""bqplot's names for matplotlib's letters."""


def _ended(x: np.ndarray, y: np.ndarray) -> Arrays:
    """Return a line without the gap at its end: bqplot puts a label at the last point."""
    if not len(y) or not np.isnan(y[-1]):
        return {"x": x, "y": y}
    seen = np.flatnonzero(~np.isnan(y))
    end = int(seen[-1]) + 1 if len(seen) else 0
    return {"x": x[:end], "y": y[:end]}


def _outline(edges: np.ndarray, heights: np.ndarray, base: float | None) -> Arrays:
    """Return the corners of bars from left to right, closed down to ``base`` unless it is None."""
    x, y = np.repeat(edges, 2)[1:-1], np.repeat(heights, 2)
    if base is not None:
        x, y = np.concatenate([x[:1], x, x[-1:]]), np.concatenate([[base], y, [base]])
    return {"x": x.astype(np.float64), "y": y.astype(np.float64)}


def _outer(at: np.ndarray) -> np.ndarray:
    """Return the outer edges of equally spaced cells with these centers; of a single one, one apart."""
    half = (at[-1] - at[0]) / (len(at) - 1) / 2 if len(at) > 1 else 0.5
    return np.array([at[0] - half, at[-1] + half])


def colors(mark: Heat) -> bytes:
    """Return a heat map as a PNG, a pixel a value. bqplot's own map is drawn up to five times a change."""
    low, high = mark.ends or (None, None)
    png = BytesIO()
    imsave(
        png, np.ma.masked_invalid(mark.values), cmap=HEAT, vmin=low, vmax=high, origin="lower", format="png"
    )
    return png.getvalue()


def arrays(mark: Mark, panel: Panel) -> Arrays:
    """Return the arrays that bqplot gets for a mark of a panel.

    Raises:
        TypeError: There is no live drawing for this type of mark.
    """
    across = {"x": (panel.y.low, panel.y.high), "y": (panel.x.low, panel.x.high)}
    match mark:
        case Line():
            return _ended(mark.x, mark.y)
        case Points():
            return {"x": mark.x, "y": mark.y}
        case Rug():
            ends = np.broadcast_arrays(mark.low, mark.high, mark.x)[:2]
            ticks = Line.of(mark.role, [mark.x, mark.x], ends)  # one SVG path; bqplot wants a number last
            return {"x": ticks.x, "y": ticks.y}
        case Bars():
            return _outline(mark.edges, mark.heights, 0.0)
        case Steps():
            return _outline(mark.edges, mark.heights, None)
        case Band():
            x, y = np.concatenate([mark.x, mark.x[::-1]]), np.concatenate([mark.high, mark.low[::-1]])
            return {"x": x, "y": y}
        case Rule():
            line = np.array([mark.at, mark.at]), np.array(across[mark.axis])
            return dict(zip("xy" if mark.axis == "x" else "yx", line, strict=True))
        case Span():
            low, high = across[mark.axis]
            strip = np.array([mark.low, mark.low, mark.high, mark.high]), np.array([low, high, high, low])
            return dict(zip("xy" if mark.axis == "x" else "yx", strip, strict=True))
        case Heat():
            return {"x": _outer(mark.x), "y": _outer(mark.y)}
    raise TypeError(f"no live drawing for a mark of type {type(mark).__name__}")


def looks(mark: Mark) -> dict[str, Any]:
    """Return the traits of a bqplot mark that follow from role and kind."""
    look = LOOKS[mark.role]
    if isinstance(mark, Heat):
        return {}
    if isinstance(mark, Points):
        drag = {"restrict_x": mark.moves == "x", "restrict_y": mark.moves == "y"}
        marker = MARKERS[look.marker] if mark.label else "circle"
        return {"colors": [look.color], "enable_move": bool(mark.moves), "marker": marker, **drag}
    if type(mark) in OPACITY:
        return {"colors": [look.color], "fill_colors": [look.color]}
    if isinstance(mark, Rug):
        width = 2 if len(mark.x) <= MANY else 1
        return {"colors": [look.color], "line_style": "solid", "stroke_width": width}
    return {"colors": [look.color], "line_style": look.plain_dash}


def made(mark: Mark, **traits: Any) -> bqplot.Mark:
    """Return a new bqplot mark for a kind of mark."""
    if isinstance(mark, Points):
        return bqplot.Scatter(default_size=56, stroke="white", update_on_move=True, **traits)
    if isinstance(mark, Heat):
        return bqplot.Image(image=Image(value=colors(mark), format="png"), **traits)
    if type(mark) in OPACITY:
        return bqplot.Lines(fill="inside", fill_opacities=[OPACITY[type(mark)]], stroke_width=0, **traits)
    return bqplot.Lines(**{"stroke_width": 1.4 if isinstance(mark, Rule) else 2, **traits})
