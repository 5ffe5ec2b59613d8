"""Lettering: a title, labels and a legend that fit the axes they are on, whatever the font size."""

from __future__ import annotations

import textwrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.legend import Legend
from matplotlib.text import Text

ROW = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "borderaxespad": 0.2, "frameon": False}
"""A legend between the title and the axes, where it covers no data."""

LEAST = 6.0
"""Points to which the letters of a legend shrink that would cover more than half of the axes."""


def letter(ax: Axes, x: str, y: str, title: str, *, stays: bool = False, legend: bool = True) -> None:
    """Write axis labels, title and legend.

    Twins (``twinx``, ``twiny``) share one title and one legend. The legend is a row above the axes where
    there is room for it, or a layout engine that makes room; else it goes where matplotlib finds the best
    place inside, in smaller letters where it would cover more than half of the axes. Names that are too long
    are broken into lines.

    Args:
        ax: The axes.
        x: The label of the x axis.
        y: The label of the y axis.
        title: The title.
        stays: Whether a title that a twin has already stays.
        legend: Whether to draw a legend.
    """
    twins = _twins(ax)
    for axis, text, room in ((ax.xaxis, x, ax.bbox.width), (ax.yaxis, y, ax.bbox.height)):
        axis.set_label_text(text)
        _fold(axis.label, room, upright=axis is ax.yaxis)
    owner = next((twin for twin in twins if twin.get_title()), ax)
    heading = owner.set_title(owner.get_title() if stays and owner is not ax else title)
    _fold(heading, 1.1 * ax.bbox.width)
    above = _legend(ax, twins, heading) if legend else 0.0
    if above:
        owner.set_title(heading.get_text(), pad=above + 0.5 * heading.get_fontsize())


def _legend(ax: Axes, twins: list[Axes], heading: Text) -> float:
    """Draw the legend of ``ax`` and its twins; return its height above the axes in points, 0 if inside."""
    named: dict[str, Any] = {}
    for one in (*twins, ax):
        handles, labels = one.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    if not named:
        return 0.0
    for twin in twins:
        if twin.get_legend():
            twin.get_legend().remove()
    for rows in range(1, len(named) + 1):
        row = _made(ax, named, ncols=-(-len(named) // rows), **ROW)
        if row.get_window_extent().width <= ax.bbox.width:
            break
    height = row.get_window_extent().height
    needed = height + heading.get_window_extent().height * bool(heading.get_text()) + heading.get_fontsize()
    made_room = ax.figure.get_layout_engine() is not None and height < ax.bbox.height
    if not made_room and needed > _room_above(ax, twins):
        inside = _made(ax, named, loc="best")
        while inside.get_window_extent().height > ax.bbox.height / 2 and (size := _size(inside)) > LEAST:
            inside = _made(ax, named, loc="best", fontsize=max(0.85 * size, LEAST))
        return 0.0
    return height * 72 / ax.figure.dpi


def _made(ax: Axes, named: dict[str, Any], **place: Any) -> Legend:
    style = {"fontsize": "small", "handlelength": 1.8, "columnspacing": 1.2} | place
    legend = ax.legend(named.values(), named.keys(), **style)
    widest = max(text.get_window_extent().width for text in legend.get_texts())
    handles = legend.get_window_extent().width - widest
    if place.get("ncols", 1) == 1:
        for text in legend.get_texts():
            _fold(text, ax.bbox.width - handles)
    return legend


def _size(legend: Legend) -> float:
    return legend.get_texts()[0].get_fontsize()


def _fold(text: Text, room: float, *, upright: bool = False) -> None:
    """Break a text into lines that are at most ``room`` pixels long."""
    box = text.get_window_extent()
    length = box.height if upright else box.width
    if length > room > 0:
        words = text.get_text()
        text.set_text(textwrap.fill(words, max(8, int(len(words) * room / length))))


def _room_above(ax: Axes, twins: list[Axes]) -> float:
    """Return the pixels between the axes' top and what lies above: other axes, or the figure's end."""
    left, right, top = ax.bbox.x0, ax.bbox.x1, ax.bbox.y1
    end = ax.figure.bbox.y1
    above = [one for one in ax.figure.axes if one is not ax and one not in twins and one.bbox.y0 >= top]
    for other in sorted(above, key=lambda one: one.bbox.y0):
        if other.bbox.x0 < right and other.bbox.x1 > left and other.bbox.y0 < end:
            below = (part.get_tightbbox() for part in (other.xaxis, other.get_legend()) if part)
            end = min(end, other.bbox.y0, *(box.y0 for box in below if box))
    return end - top


def _twins(ax: Axes) -> list[Axes]:
    """Return the axes that lie exactly on ``ax`` and share an axis with it."""
    shared = {*ax.get_shared_x_axes().get_siblings(ax), *ax.get_shared_y_axes().get_siblings(ax)} - {ax}
    place = ax.get_position(original=True).bounds
    return [
        one for one in ax.figure.axes if one in shared and one.get_position(original=True).bounds == place
    ]
