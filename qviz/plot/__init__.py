"""Plotting helpers: each draws one picture on the axes you give, and returns the axes.

They never show, save, or change global settings, and accept a Quantizer, a Codebook, any callable, or a
mapping from names to these. ``panels`` holds the same pictures as plain numbers.

Example:
    >>> from matplotlib.figure import Figure
    >>> from qviz import plot, post, pot
    >>> ax = plot.staircase((-1.2, 1.2), {"POT": pot(3), "POST": post(3)}, ax=Figure().subplots())
    >>> ax.get_title()
    'Staircase y = Q(x)'
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
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
from qviz.plot.scene import Panel

DRAWN = """

What the panel does not take is for :func:`qviz.plot.draw`:
    ax: The axes to draw on; by default pyplot's current ones.
    title: The title in place of the panel's own; "" leaves it out.
    legend: Whether to draw a legend.
    **style: matplotlib's properties of lines (``color``, ``lw``, ``alpha``, ...).

Returns:
    The axes."""


def _helper(make: Callable[..., Panel]) -> Callable[..., Axes]:
    """Return a function that takes what ``make`` and :func:`draw` take, and draws the panel."""
    known, drawing = inspect.signature(make).parameters, inspect.signature(draw)
    extra = [p for name, p in drawing.parameters.items() if name not in ("panel", *known)]
    extra[0] = extra[0].replace(kind=inspect.Parameter.KEYWORD_ONLY)  # ax: it follows keywords here

    @functools.wraps(make)
    def helper(*args: Any, **kwargs: Any) -> Axes:
        panel = make(*args, **{name: value for name, value in kwargs.items() if name in known})
        return draw(panel, **{name: value for name, value in kwargs.items() if name not in known})

    helper.__signature__ = drawing.replace(parameters=[*known.values(), *extra])
    helper.__doc__ = inspect.cleandoc(make.__doc__).partition("\n\nExample:")[0] + DRAWN
    return helper


levels = _helper(panels.levels)
staircase = _helper(panels.staircase)
error = _helper(panels.error)
contribution = _helper(panels.contribution)
curve = _helper(panels.curve)
histogram = _helper(panels.histogram)
scatter = _helper(panels.scatter)
by_layer = _helper(panels.by_layer)
bars = _helper(panels.bars)
