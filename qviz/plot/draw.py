"""Draw: a Panel on matplotlib axes. Nothing is shown, saved, or changed in rcParams."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qviz.measure.compare import HEADERS
from qviz.plot.scene import Band, Bars, Line, Mark, Panel, Points, Rug, Scene, Steps
from qviz.plot.style import LOOKS

DASHES = {"solid": "-", "dashed": "--", "dotted": ":", "dash_dotted": "-."}


def draw(panel: Panel, ax: Axes | None = None, **line_kw: Any) -> Axes:
    """Draw ``panel`` and return the axes.

    Args:
        panel: what to draw.
        ax: where; default a new figure of pyplot's, so that a notebook shows it.
        **line_kw: passed to every line of the methods (not to data and ideal).
    """
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    for mark in panel.marks:
        _DRAWERS[type(mark)](ax, mark, line_kw if mark.role not in ("data", "ideal") else {})
    legend = any(mark.label for mark in panel.marks)
    ax.set_title(panel.title, pad=22 if legend else None)
    ax.set(xlabel=panel.x.label, ylabel=panel.y.label)
    ax.set_xlim(panel.x.low, panel.x.high)
    ax.set_ylim(panel.y.low, panel.y.high)
    ax.spines[["top", "right"]].set_visible(False)
    if legend:  # a row between title and axes: inside it would cover data
        row = {
            "loc": "lower center",
            "bbox_to_anchor": (0.5, 1.0),
            "borderaxespad": 0.2,
            "ncols": 5,
        }
        ax.legend(frameon=False, fontsize="small", handlelength=1.8, columnspacing=1.2, **row)
    ax.qviz_text = panel.text
    return ax


def describe(ax: Axes) -> str:
    """Return the alt text of the panel that was drawn on ``ax``; empty when none was."""
    return getattr(ax, "qviz_text", "")


def figure(scene: Scene, *, size: tuple[float, float] | None = None) -> Figure:
    """Return a new figure with all panels and the table of a scene, in at most two columns.

    Args:
        scene: what to draw.
        size: in inches; default 6.4 x 4.0 for one panel, a 16:9 slide of 13.33 x 7.5 for more.
    """
    parts = len(scene.panels) + (scene.table is not None)
    columns = 1 if parts == 1 else 2
    rows = -(-parts // columns)
    fig = Figure(
        figsize=size or ((6.4, 4.0) if parts == 1 else (13.33, 3.75 * rows)),
        layout="constrained",
    )
    axes = np.atleast_1d(fig.subplots(rows, columns)).ravel()
    for ax, panel in zip(axes, scene.panels, strict=False):
        draw(panel, ax)
    rest = list(axes[len(scene.panels) :])
    if scene.table is not None:
        _table(rest.pop(0), scene)
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


def _line(ax: Axes, mark: Line, kw: dict[str, Any]) -> None:
    look = LOOKS[mark.role]
    style = {
        "color": look.color,
        "linestyle": DASHES[look.dash],
        "linewidth": 1.8,
        "label": mark.label or None,
    }
    ax.plot(mark.x, mark.y, **(style | kw))


def _bars(ax: Axes, mark: Bars, kw: dict[str, Any]) -> None:
    look = LOOKS[mark.role]
    ax.stairs(
        mark.heights,
        mark.edges,
        fill=True,
        color=look.color,
        alpha=0.5,
        label=mark.label or None,
    )
    if mark.role != "data":
        ax.stairs(mark.heights, mark.edges, color=look.color, linewidth=1.0)


def _steps(ax: Axes, mark: Steps, kw: dict[str, Any]) -> None:
    look = LOOKS[mark.role]
    style = {
        "color": look.color,
        "linestyle": DASHES[look.dash],
        "linewidth": 1.8,
        "label": mark.label or None,
    }
    ax.stairs(mark.heights, mark.edges, baseline=None, **(style | kw))


def _band(ax: Axes, mark: Band, kw: dict[str, Any]) -> None:
    look = LOOKS[mark.role]
    ax.fill_between(mark.x, mark.low, mark.high, color=look.color, alpha=0.22, linewidth=0)


def _rug(ax: Axes, mark: Rug, kw: dict[str, Any]) -> None:
    look = LOOKS[mark.role]
    width = 2.0 if len(mark.x) <= 64 else 0.7
    ax.vlines(
        mark.x,
        mark.low,
        mark.high,
        color=look.color,
        linewidth=width,
        label=mark.label or None,
    )


def _points(ax: Axes, mark: Points, kw: dict[str, Any]) -> None:
    look = LOOKS[mark.role]
    ax.plot(
        mark.x,
        mark.y,
        look.marker,
        color=look.color,
        linestyle="none",
        label=mark.label or None,
    )


_DRAWERS: dict[type[Mark], Any] = {
    Line: _line,
    Bars: _bars,
    Steps: _steps,
    Band: _band,
    Rug: _rug,
    Points: _points,
}


def _table(ax: Axes, scene: Scene) -> None:
    """Write the comparison as a table, one row a method, coloured like its curves."""
    ax.set_axis_off()
    cells = scene.table.cells()
    widths = [0.31, 0.09, 0.07, 0.16, 0.14, 0.11, 0.12]
    table = ax.table(
        cells,
        colLabels=HEADERS,
        colWidths=widths,
        loc="center",
        cellLoc="right",
        edges="horizontal",
    )
    table.auto_set_font_size(False)
    table.set_fontsize(9.5)
    table.scale(1.0, 2.0)
    for (i, k), cell in table.get_celld().items():
        cell.PAD = 0.05
        cell.get_text().set_horizontalalignment("left" if k == 0 else "right")
        if k == 0 and i > 0:
            cell.get_text().set(color=LOOKS[scene.roles[i - 1]].color, weight="bold")
