"""Live: a Panel as a bqplot figure whose marks are made once and then only get new arrays."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from io import BytesIO
from typing import Any

import bqplot
import numpy as np
from ipywidgets import Image, Widget
from matplotlib.image import imsave
from matplotlib.ticker import LogLocator, MaxNLocator

from qviz.plot.scene import Axis, Band, Bars, Heat, Line, Mark, Panel, Points, Rug, Rule, Span, Steps
from qviz.plot.style import HEAT, LOOKS
from qviz.widgets.batch import Batch

Arrays = dict[str, np.ndarray]
Changes = list[tuple[Widget, dict[str, Any]]]
Drag = Callable[[int, int, float, float], None]
"""What is told of a dragged dot: the index of its mark, its own index, and its place (x, y)."""

INK = "var(--jp-content-font-color1)"
"""Text in the color of the page's theme; bqplot's own choice on dark themes is orange."""

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


def _looks(mark: Mark) -> dict[str, Any]:
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


def _made(mark: Mark, **traits: Any) -> bqplot.Mark:
    """Return a new bqplot mark for a kind of mark."""
    if isinstance(mark, Points):
        return bqplot.Scatter(default_size=56, stroke="white", update_on_move=True, **traits)
    if isinstance(mark, Heat):
        return bqplot.Image(image=Image(value=colors(mark), format="png"), **traits)
    if type(mark) in OPACITY:
        return bqplot.Lines(fill="inside", fill_opacities=[OPACITY[type(mark)]], stroke_width=0, **traits)
    return bqplot.Lines(**{"stroke_width": 1.4 if isinstance(mark, Rule) else 2, **traits})


@functools.lru_cache(maxsize=64)
def _ticks(axis: Axis) -> dict[str, Any]:
    """Return label, round tick values and a format with as many decimals as they need, or names."""
    if axis.names:
        at = np.arange(1, len(axis.names) + 1)
        names = {str(number): name for number, name in zip(at, axis.names, strict=True)}
        return {"label": axis.label, "tick_values": at, "tick_format": ".0f", "tick_labels": names}
    return {**_numbers(axis), "tick_labels": None}


def _numbers(axis: Axis) -> dict[str, Any]:
    """Return label, round tick values and a format with as many decimals as they need."""
    if axis.log:
        decades = np.log10(axis.high / axis.low)
        parts = (1.0,) if decades > 2 else (1.0, 2.0, 5.0)
        at = np.asarray(LogLocator(subs=parts, numticks=8).tick_values(axis.low, axis.high))
        at = at[(at >= axis.low) & (at <= axis.high)]
        long = len(at) > 0 and not 0.01 <= at[0] <= at[-1] < 1e4  # such figures would cover the axis's label
        return {"label": axis.label, "tick_values": at, "tick_format": ".0e" if long else ".1r"}
    whole = {"integer": True, "min_n_ticks": 1} if axis.counts else {}
    at = MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10], **whole).tick_values(axis.low, axis.high)
    at = at[(at >= axis.low) & (at <= axis.high)]
    step = at[1] - at[0] if len(at) > 1 else 1.0
    decimals = next((d for d in range(7) if abs(round(step, d) - step) < 1e-3 * step), 7)
    shown = f".{decimals}f" if decimals <= 6 else ".3g"
    return {"label": axis.label, "tick_values": at, "tick_format": shown}


class LivePanel:
    """One bqplot figure that follows a sequence of panels.

    Marks are taken from a pool for each kind, so that a panel may have more or fewer of them than the last.

    Args:
        panel: The first panel.
        dragged: What is told when a dot was dragged.

    Attributes:
        widget: The bqplot Figure.
        shown: The bqplot marks that show the panel's marks, in their order.
        drags: How often a dot was taken.
    """

    def __init__(self, panel: Panel, dragged: Drag | None = None) -> None:
        self.dragged = dragged
        self._pool: dict[type, list[bqplot.Mark]] = {}
        self._held: dict[bqplot.Mark, int] = {}
        self.drags = 0
        self._scales = {
            (name, log): (bqplot.LogScale if log else bqplot.LinearScale)()
            for name in "xy"
            for log in (False, True)
        }
        bare = {"grid_lines": "none", "label_color": INK}
        x, y = (self._scales[name, False] for name in "xy")
        self.axes = [
            bqplot.Axis(scale=x, label_offset="2.6em", **bare),
            bqplot.Axis(scale=y, label_offset="3.4em", orientation="vertical", **bare),
        ]
        self.shown: list[bqplot.Mark] = []
        self.widget = bqplot.Figure(
            axes=self.axes,
            title_style={"fill": INK},
            display_toolbar=False,  # it would cover the title under the mouse, in every drag
            animation_duration=0,
            padding_x=0,
            padding_y=0,
            fig_margin={"top": 36, "bottom": 50, "left": 66, "right": 18},
            layout={"width": "auto", "height": "290px", "min_width": "270px"},
        )
        apply(self.changes(panel))

    @property
    def scales(self) -> tuple[Widget, ...]:
        """All scales, those that are not in use too."""
        return tuple(self._scales.values())

    def changes(self, panel: Panel) -> Changes:
        """Return what has to be set so that the figure shows ``panel``; unchanged traits stay out."""
        axes = (panel.x, panel.y)
        scales = {name: self._scales[name, axis.log] for name, axis in zip("xy", axes, strict=True)}
        wanted: Changes = [
            (scale, {"min": axis.low, "max": axis.high})
            for scale, axis in zip(scales.values(), axes, strict=True)
        ]
        wanted += [
            (live, {"scale": scale, **_ticks(axis)})
            for live, scale, axis in zip(self.axes, scales.values(), axes, strict=True)
        ]
        self.shown, used = [], dict.fromkeys(self._pool, 0)
        for mark in panel.marks:
            live = self._take(mark, used, scales, panel)
            self.shown.append(live)
            if isinstance(mark, Heat):
                wanted.append((live.image, {"value": colors(mark)}))
            wanted.append((live, {**arrays(mark, panel), **_looks(mark), "scales": scales, "visible": True}))
        spare = [live for pool in self._pool.values() for live in pool if live not in self.shown]
        wanted += [(live, {"visible": False}) for live in spare]
        wanted.append((self.widget, {"title": panel.title, "marks": [*self.shown, *spare]}))
        changed = [(w, {k: v for k, v in new.items() if not _same(getattr(w, k), v)}) for w, new in wanted]
        return [(w, new) for w, new in changed if new]

    def _take(self, mark: Mark, used: dict[type, int], scales: dict[str, Any], panel: Panel) -> bqplot.Mark:
        """Return the next mark of a kind from the pool; a new one where there are too few."""
        pool = self._pool.setdefault(type(mark), [])
        k = used.get(type(mark), 0)
        used[type(mark)] = k + 1
        if k == len(pool):
            live = _made(mark, scales=scales, **arrays(mark, panel), **_looks(mark))
            if isinstance(live, bqplot.Scatter):
                live.on_drag_start(self._grab)
                live.observe(self._moved, ["x", "y"])
            pool.append(live)
        return pool[k]

    def _grab(self, live: bqplot.Mark, content: dict[str, Any]) -> None:
        """Remember which dot is dragged: the positions that follow may lag behind those shown."""
        self.drags += 1
        self._held[live] = content["index"]

    def _moved(self, change: dict[str, Any]) -> None:
        live = change["owner"]
        index = self._held.get(live)
        known = index is not None and live in self.shown and index < min(len(live.x), len(live.y))
        if known and self.dragged is not None:
            self.dragged(self.shown.index(live), index, float(live.x[index]), float(live.y[index]))


def apply(changes: Changes, batch: Batch | None = None) -> None:
    """Set all traits, and then send one message a widget, or one for all of them through a batch."""
    widgets = [widget for widget, _ in changes]
    with batch.gathering(widgets) if batch else nullcontext(), ExitStack() as held:
        for widget in widgets:
            held.enter_context(widget.hold_sync())
        for widget, new in changes:
            for name, value in new.items():
                setattr(widget, name, value)


def within(*roots: Widget | None) -> list[Widget]:
    """Return some widgets and all that their traits lead to, those that are open."""
    found, waiting = {}, [*roots]
    while waiting:
        at = waiting.pop()
        if isinstance(at, Widget) and at.comm is not None and at not in found:
            found[at] = None
            waiting += (getattr(at, name) for name in at.keys)
        elif isinstance(at, dict | list | tuple):
            waiting += at.values() if isinstance(at, dict) else at
    return list(found)


def _same(old: Any, new: Any) -> bool:
    if isinstance(new, np.ndarray):
        return isinstance(old, np.ndarray) and np.array_equal(old, new, equal_nan=True)
    return not isinstance(old, np.ndarray) and old == new
