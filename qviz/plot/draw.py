"""Draw: a Panel on matplotlib axes. Nothing is shown, saved, or changed in rcParams."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis as MplAxis
from matplotlib.cbook import normalize_kwargs
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatterSciNotation, LogLocator, MaxNLocator

from qviz.plot.draw_table import draw_table, more
from qviz.plot.lettering import letter
from qviz.plot.scene import (
    Band,
    Bars,
    Heat,
    Line,
    Mark,
    Panel,
    Pictured,
    Points,
    Rug,
    Rule,
    Scene,
    Span,
    Steps,
)
from qviz.plot.style import HEAT, LOOKS

DASHES: dict[str, Any] = {
    "solid": "-",
    "dashed": "--",
    "dotted": ":",
    "dash_dotted": "-.",
    "long_dashed": (0, (9, 2.5)),
    "dash_dot_dotted": (0, (6, 1.5, 1, 1.5, 1, 1.5)),
}
"""matplotlib's line style of each pattern."""


def draw(
    panel: Panel, ax: Axes | None = None, *, title: str | None = None, legend: bool = True, **style: Any
) -> Axes:
    """Draw ``panel`` and return the axes.

    Args:
        panel: What to draw.
        ax: The axes to draw on; by default pyplot's current ones.
        title: The title in place of the panel's own; "" leaves it out.
        legend: Whether to draw a legend.
        **style: matplotlib's properties of lines (``color``, ``lw``, ``alpha``, ...), for the marks of the
            methods, not for data and the ideal line.

    Raises:
        TypeError: ``ax`` is an array of axes, polar or in three dimensions.
    """
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.gca()
    if getattr(ax, "name", "") != "rectilinear":
        kind = getattr(ax, "name", None) or f"{type(ax).__name__} of shape {np.shape(ax)}"
        raise TypeError(f"ax must be one Axes of matplotlib with an x and a y axis, got {kind}")
    style = normalize_kwargs(style, Line2D)
    for mark in panel.marks:
        its = {} if mark.role in ("data", "ideal") else dict(style)
        if not mark.label:
            its.pop("label", None)
        _DRAWERS[type(mark)](ax, mark, its)
    ax.set(xscale="log" if panel.x.log else "linear", yscale="log" if panel.y.log else "linear")
    ax.set_xlim(panel.x.low, panel.x.high)
    if panel.x.names:
        ax.set_xticks(range(1, len(panel.x.names) + 1), panel.x.names)
    elif panel.x.counts:
        ax.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    ax.set_ylim(panel.y.low, panel.y.high)
    if panel.y.names:
        ax.set_yticks(range(1, len(panel.y.names) + 1), panel.y.names)
    for axis, its in ((ax.xaxis, panel.x), (ax.yaxis, panel.y)):
        if its.log:
            _ticks(axis, its.low, its.high)
    ax.spines["top"].set_visible(ax.xaxis.get_label_position() == "top")
    ax.spines["right"].set_visible(ax.yaxis.get_label_position() == "right")
    own = title is None
    letter(ax, panel.x.label, panel.y.label, panel.title if own else title, stays=own, legend=legend)
    ax.qviz_text = panel.text
    return ax


def describe(ax: Axes) -> str:
    """Return the alt text of the panel that was drawn on ``ax``; empty when none was."""
    return getattr(ax, "qviz_text", "")


def figure(scene: Scene, *, size: tuple[float, float] | None = None) -> Figure:
    """Return a new figure with all panels and the table of a scene, in at most two columns.

    Args:
        scene: What to draw.
        size: Width and height in inches; by default 6.4 x 4.0 for one panel, a 16:9 slide of 13.33 x 7.5 for
            more, and higher for a table of many rows.
    """
    parts = len(scene.panels) + (scene.table is not None)
    columns = 1 if parts == 1 else 2
    rows = -(-parts // columns)
    higher = more(scene.table)
    fig = Figure(
        figsize=size or ((6.4, 4.0) if parts == 1 else (13.33, 3.75 * rows + higher)),
        layout="constrained",
    )
    heights = [1.0] * (rows - 1) + [1.0 + higher / 3.75]
    axes = np.atleast_1d(fig.subplots(rows, columns, height_ratios=heights)).ravel()
    for ax, panel in zip(axes, scene.panels, strict=False):
        draw(panel, ax)
    rest = list(axes[len(scene.panels) :])
    if scene.table is not None:
        draw_table(rest.pop(0), scene.table)
    for ax in rest:
        ax.set_axis_off()
    if parts > 1:
        fig.suptitle(scene.title)
    return fig


def bundle(fig: Figure, text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return MIME data and metadata that show the figure as PNG with ``text`` as its alt text."""
    return {"image/png": png(fig), "text/plain": text}, {"image/png": {"alt": text}}


def png(fig: Figure, dpi: int = 96) -> bytes:
    """Return the figure as PNG bytes."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def _ticks(axis: MplAxis, low: float, high: float) -> None:
    """Label 2 and 5 on a logarithmic axis with fewer than two powers of ten, and nothing else between them.

    matplotlib labels more of them there, and where the axis is narrow they lie over one another.
    """
    decades = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    shown = [low <= part * 10.0**d <= high for part in (1, 2, 5) for d in decades]
    if sum(shown[: len(decades)]) < 2 <= sum(shown):
        axis.set_minor_locator(LogLocator(subs=(2, 5)))
        axis.set_minor_formatter(LogFormatterSciNotation(minor_thresholds=(np.inf, np.inf)))


def _look(mark: Line | Steps | Rule) -> dict[str, Any]:
    look = LOOKS[mark.role]
    dash = DASHES[look.dash]
    return {"color": look.color, "linestyle": dash, "linewidth": 1.8, "label": mark.label or None}


def _line(ax: Axes, mark: Line, style: dict[str, Any]) -> None:
    ax.plot(mark.x, mark.y, **(_look(mark) | style))


def _steps(ax: Axes, mark: Steps, style: dict[str, Any]) -> None:
    ax.stairs(mark.heights, mark.edges, baseline=None, **(_look(mark) | style))


def _bars(ax: Axes, mark: Bars, style: dict[str, Any]) -> None:
    look = {"color": LOOKS[mark.role].color, "alpha": 0.5, "label": mark.label or None}
    ax.stairs(mark.heights, mark.edges, fill=True, **(look | style))
    if mark.role != "data":
        outline = {"color": LOOKS[mark.role].color, "linewidth": 1.0} | style
        ax.stairs(mark.heights, mark.edges, **(outline | {"label": None}))


def _band(ax: Axes, mark: Band, style: dict[str, Any]) -> None:
    color = style.get("color", LOOKS[mark.role].color)
    ax.fill_between(mark.x, mark.low, mark.high, color=color, alpha=0.22, linewidth=0)


def _rug(ax: Axes, mark: Rug, style: dict[str, Any]) -> None:
    width = 2.0 if len(mark.x) <= 64 else 0.7
    look = {"color": LOOKS[mark.role].color, "linewidth": width, "label": mark.label or None}
    ax.vlines(mark.x, mark.low, mark.high, **(look | style))


def _points(ax: Axes, mark: Points, style: dict[str, Any]) -> None:
    look = LOOKS[mark.role]
    own = {"color": look.color, "marker": look.marker, "label": mark.label or None}
    ax.plot(mark.x, mark.y, **(own | style | {"linestyle": "none"}))


def _rule(ax: Axes, mark: Rule, style: dict[str, Any]) -> None:
    line = ax.axvline if mark.axis == "x" else ax.axhline
    line(mark.at, **(_look(mark) | {"linewidth": 1.4} | style))


def _span(ax: Axes, mark: Span, style: dict[str, Any]) -> None:
    strip = ax.axvspan if mark.axis == "x" else ax.axhspan
    color = style.get("color", LOOKS[mark.role].color)
    strip(mark.low, mark.high, color=color, alpha=0.22, linewidth=0, label=mark.label or None)


def _heat(ax: Axes, mark: Heat, style: dict[str, Any]) -> None:
    low, high = mark.ends or (None, None)
    how = {"cmap": HEAT, "vmin": low, "vmax": high, "shading": "nearest", "rasterized": True}
    mesh = ax.pcolormesh(mark.x, mark.y, mark.values, **how)
    ax.figure.colorbar(mesh, ax=ax, label=mark.label)


_DRAWERS: dict[type[Mark], Any] = {
    Line: _line,
    Bars: _bars,
    Steps: _steps,
    Band: _band,
    Rug: _rug,
    Points: _points,
    Rule: _rule,
    Span: _span,
    Heat: _heat,
}


def _picture(shown: Panel | Scene) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a notebook shows of a panel or a scene."""
    scene = shown if isinstance(shown, Scene) else Scene(shown.title, (shown,))
    return bundle(figure(scene), shown.text)


Pictured.picture = staticmethod(_picture)
