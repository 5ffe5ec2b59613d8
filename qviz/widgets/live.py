"""Live: a Panel as a bqplot figure whose marks are made once and then only get new arrays."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from typing import Any

import bqplot
import numpy as np
from ipywidgets import Widget
from matplotlib.ticker import LogLocator, MaxNLocator

from qviz.plot.scene import Axis, Heat, Mark, Panel
from qviz.widgets.batch import Batch
from qviz.widgets.live_marks import arrays, colors, looks, made

Changes = list[tuple[Widget, dict[str, Any]]]
Drag = Callable[[int, int, float, float], None]
"""What is told of a dragged dot: the index of its mark, its own index, and its place (x, y)."""

INK = "var(--jp-content-font-color1)"
"""Text in the color of the page's theme; bqplot's own choice on dark themes is orange."""


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
            wanted.append((live, {**arrays(mark, panel), **looks(mark), "scales": scales, "visible": True}))
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
            live = made(mark, scales=scales, **arrays(mark, panel), **looks(mark))
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
