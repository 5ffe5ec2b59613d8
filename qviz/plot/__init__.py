"""Plotting helpers: each draws one picture on the axes you give, and returns the axes.

They never show, save, or change global settings, and accept a Quantizer, a Codebook, any callable, or a
mapping from names to these. ``panels`` holds the same pictures as plain numbers.

Example:
    >>> from matplotlib.figure import Figure
    >>> from qviz import plot, post, pot
    >>> ax = plot.staircase({"POT": pot(3), "POST": post(3)}, (-1.2, 1.2), ax=Figure().subplots())
    >>> ax.get_title()
    'Staircase y = Q(x)'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

try:
    from matplotlib.axes import Axes
except ImportError as problem:
    raise ImportError("qviz.plot needs matplotlib: pip install 'qviz-quantization[plot]'") from problem

from qviz.plot import panels as panels
from qviz.plot import scene as scene
from qviz.plot.draw import describe as describe
from qviz.plot.draw import draw as draw
from qviz.plot.draw import figure as figure
from qviz.plot.record import Values


def levels(
    x: panels.Data,
    methods: panels.Methods,
    *,
    bins: int = 120,
    unit: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw the levels of each method as a ruler above the histogram of x (:func:`panels.levels`)."""
    return draw(panels.levels(x, methods, bins=bins, unit=unit), ax)


def staircase(
    methods: panels.Methods,
    xlim: tuple[float, float] = (-2.0, 2.0),
    *,
    n: int = 2001,
    unit: str = "",
    ax: Axes | None = None,
    **line_kw: Any,
) -> Axes:
    """Draw y = Q(x), broken at every jump, with its error band (:func:`panels.staircase`)."""
    return draw(panels.staircase(methods, xlim, n=n, unit=unit), ax, **line_kw)


def error(
    x: panels.Data,
    methods: panels.Methods,
    *,
    bins: int = 81,
    unit: str = "",
    ax: Axes | None = None,
    **line_kw: Any,
) -> Axes:
    """Draw the histogram of the error Q(x) - x (:func:`panels.error`)."""
    return draw(panels.error(x, methods, bins=bins, unit=unit), ax, **line_kw)


def contribution(x: panels.Data, methods: panels.Methods, *, unit: str = "", ax: Axes | None = None) -> Axes:
    """Draw which cells the mean squared error comes from (:func:`panels.contribution`)."""
    return draw(panels.contribution(x, methods, unit=unit), ax)


def curve(
    lines: Mapping[str, tuple[Values, Values]],
    *,
    bands: Mapping[str, tuple[Values, Values]] | None = None,
    references: Mapping[str, float] | None = None,
    title: str = "",
    x: str = "step",
    y: str = "",
    ax: Axes | None = None,
    **line_kw: Any,
) -> Axes:
    """Draw numbers over steps or epochs (:func:`panels.curve`)."""
    panel = panels.curve(lines, bands=bands, references=references, title=title, x=x, y=y)
    return draw(panel, ax, **line_kw)


def histogram(
    samples: Mapping[str, Values],
    *,
    bins: int = 60,
    title: str = "Histogram",
    x: str = "x",
    ax: Axes | None = None,
    **line_kw: Any,
) -> Axes:
    """Draw how the values of several samples are spread (:func:`panels.histogram`)."""
    return draw(panels.histogram(samples, bins=bins, title=title, x=x), ax, **line_kw)


def scatter(
    points: Mapping[str, tuple[Values, Values]],
    *,
    references: Mapping[str, float] | None = None,
    title: str = "",
    x: str = "x",
    y: str = "y",
    ax: Axes | None = None,
) -> Axes:
    """Draw pairs of numbers as points (:func:`panels.scatter`)."""
    return draw(panels.scatter(points, references=references, title=title, x=x, y=y), ax)


def by_layer(
    values: Mapping[str, Values],
    *,
    names: Sequence[str] = (),
    title: str = "Layer by layer",
    y: str = "",
    ax: Axes | None = None,
    **line_kw: Any,
) -> Axes:
    """Draw one number a layer (:func:`panels.by_layer`)."""
    return draw(panels.by_layer(values, names=names, title=title, y=y), ax, **line_kw)
