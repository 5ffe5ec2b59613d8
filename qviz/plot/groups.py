"""Groups: bars side by side, what one would think beside what is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from qviz.plot import rows
from qviz.plot.rows import Values
from qviz.plot.scene import Axis, Bars, Panel
from qviz.plot.style import ROLES

WIDE = 0.8
"""How much of its place a group takes; the rest is the gap to the next."""


def bars(
    values: Mapping[str, Values] | Values,
    names: Sequence[str],
    *,
    title: str = "Side by side",
    y: str = "",
    ylim: tuple[float, float] | None = None,
) -> Panel:
    """Show some numbers of each of a few things: a group of bars a thing, a bar of each row in every group.

    In a group the bars stand in the order of the legend.

    Args:
        values: Names mapped to numbers of shape (N,), at most six rows; or one row.
        names: What the N groups are, written below them.
        title: The title.
        y: The label of the y axis, its unit in brackets.
        ylim: What is shown; by default from 0, or from the least if that is negative.

    Raises:
        TypeError: A row is no array of numbers.
        ValueError: There is no row or more than six, rows and names differ in length, or a number is not
            finite.

    Example:
        >>> bars({"codes": [135, 135], "file": [177, 218]}, ["LSQ", "POST"], y="kB").text
        'codes: 135 (LSQ), 135 (POST). file: 177 (LSQ), 218 (POST).'
    """
    found = {name: rows.sample(name, row) for name, row in rows.few(values, y or "value").items()}
    marks, words, width = [], [], WIDE / len(found)
    for i, (role, (name, row)) in enumerate(zip(ROLES, found.items(), strict=False)):
        if len(row) != len(names):
            raise ValueError(f"{name!r} has {len(row)} numbers for {len(names)} names: {', '.join(names)}")
        for k, value in enumerate(row):
            edges = k + 1 - WIDE / 2 + width * np.array([i, i + 1])
            marks.append(Bars(role, edges, np.array([value]), label="" if k else name))
        said = (f"{value:.4g} ({group})" for value, group in zip(row, names, strict=True))
        words.append(f"{name}: {', '.join(said)}.")
    low, high = (f(0.0, end) for f, end in zip((min, max), rows.ends(list(found.values()), "y"), strict=True))
    bottom, top = rows.limits(None, "y", low, high, margin=0.08)
    tall = rows.limits(ylim, "ylim", bottom if low < 0 else 0.0, top, margin=0.0)
    x = Axis("", 0.5, len(names) + 0.5, names=tuple(names))
    return Panel(title, x, Axis(y, *tall), tuple(marks), " ".join(words))
