"""Pictures of post-training quantization: the ladder of methods, errors by block, a border in its cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from qviz.plot import rows
from qviz.plot.rows import Values
from qviz.plot.scene import Axis, Bars, Line, Mark, Panel, Points
from qviz.plot.style import ROLES

BINS = 20
"""Bins a cell of a histogram below a border."""


def ladder(
    rungs: Mapping[str, Sequence[tuple[float, float]]],
    *,
    references: Mapping[str, float] | None = None,
    title: str = "Accuracy against time",
    x: str = "CPU time (s)",
    y: str = "top-1 (%)",
) -> Panel:
    """Show what each method reaches and what it costs; the variants of a method are joined by a line.

    Args:
        rungs: Names of up to six methods, mapped to (time, accuracy) of its variants in order, times > 0.
        references: Names mapped to the accuracy of a level line.
        title: The title.
        x: The label of the x axis, where distances are ratios.
        y: The label of the y axis.

    Raises:
        ValueError: There is no method or more than six, a method has no variant, a time is not positive or a
            number not finite.

    Example:
        >>> ladder({"nearest": [(1.0, 40.0), (2.0, 75.0)]}, references={"FP32": 92.0}).text
        'nearest: 40 in 1, 75 in 2. FP32 is 92.'
    """
    marks: list[Mark] = []
    words = []
    for role, (name, variants) in zip(ROLES, rows.few(rungs, "method").items(), strict=False):
        found = rows.sample(name, variants).reshape(-1, 2)
        at, reached = found.T
        if (at <= 0).any():
            raise ValueError(f"times must be positive, got {at.min():g} for {name!r}")
        marks.append(Line(role, at, reached))
        marks.append(Points(role, at, reached, label=name))
        words.append(f"{name}: " + ", ".join(f"{share:.4g} in {time:.3g}" for time, share in found) + ".")
    low, high = rows.limits(
        None, "x", min(m.x.min() for m in marks), max(m.x.max() for m in marks), margin=0.08, log=True
    )
    for name, level in (references or {}).items():
        marks.append(Line("ideal", np.array([low, high]), np.full(2, float(level)), label=name))
        words.append(f"{name} is {level:.4g}.")
    ends = min(m.y.min() for m in marks), max(m.y.max() for m in marks)
    shown = Axis(y, *rows.limits(None, "y", *ends, margin=0.06))
    return Panel(title, Axis(x, low, high, log=True), shown, tuple(marks), " ".join(words))


def parts_by_block(
    parts: Mapping[str, Values],
    *,
    names: Sequence[str] = (),
    title: str = "Errors by block",
    y: str = "mean square",
    ylim: tuple[float, float] | None = None,
) -> Panel:
    """Show up to six terms of an error for each block, on an axis where distances are ratios.

    Args:
        parts: Names mapped to numbers of shape (B,), one a block, not negative; a 0 is a gap.
        names: The names of the blocks, for the text.
        title: The title.
        y: The label of the y axis.
        ylim: What is shown of it, so that two pictures can share it; by default all.

    Raises:
        ValueError: There is no row or more than six, rows or names differ in length, one is negative or not
            finite, or all are 0.

    Example:
        >>> parts_by_block({"weights": [1.0, 0.25]}, names=["first", "second"]).text
        'weights: largest in first (1), together 1.25.'
    """
    found = {name: rows.sample(name, row) for name, row in rows.few(parts, "error").items()}
    count = len(next(iter(found.values())))
    names = [str(name) for name in names] or [f"block {i + 1}" for i in range(count)]
    for name, row in [*found.items(), ("names", np.zeros(len(names)))]:
        if len(row) != count or (row < 0).any():
            raise ValueError(f"{name!r} must be {count} numbers that are not negative, got {row.tolist()}")
    held = np.concatenate(list(found.values()))
    if not held.any():
        raise ValueError("all errors are 0: there is nothing to show")
    edges = np.arange(count + 1) + 0.5
    marks, words = [], []
    for role, (name, row) in zip(ROLES, found.items(), strict=False):
        at = np.arange(1, count + 1)
        marks.append(Line(role, at.astype(float), np.where(row > 0, row, np.nan), label=name))
        marks.append(Points(role, at[row > 0].astype(float), row[row > 0]))
        k = int(row.argmax())
        words.append(f"{name}: largest in {names[k]} ({row[k]:.3g}), together {row.sum():.3g}.")
    low, high = rows.limits(ylim, "ylim", held[held > 0].min(), held.max(), margin=0.08, log=True)
    shown = Axis("block, from the first to the last", edges[0], edges[-1])
    return Panel(title, shown, Axis(y, low, high, log=True), tuple(marks), " ".join(words))


def border(
    u: Values,
    borders: Mapping[str, tuple[ArrayLike, ArrayLike]],
    thresholds: Mapping[str, ArrayLike] | None = None,
    *,
    levels: int,
    title: str = "Where an activation rounds up",
    x: str = "activation / step",
) -> Panel:
    """Show rounding borders over the cells of a grid, and the histogram of the activations behind them.

    A value rounds up where its fraction, the saw-tooth, lies above the border. Where the two cross is the
    threshold of the cell.

    Args:
        u: Activations in steps, any shape. Values at 0 or below, and at the top level or above, which no
            border moves, are not in the histogram; the text has the share of the others.
        borders: Names of up to six borders, mapped to (u, B), B from 0 to 1.
        thresholds: For some of the names: the values of u at which rounding changes, one a cell.
        levels: The number of levels, 0 to levels - 1.
        title: The title.
        x: The label of the x axis.

    Raises:
        ValueError: There is no border or more than six, shapes do not match, or fewer than two levels.

    Example:
        >>> import numpy as np
        >>> half = np.array([0.0, 2.0]), np.array([0.5, 0.5])
        >>> print(border([0.0, 0.4, 1.2, 5.0], {"half": half}, {"half": [0.5, 1.5]}, levels=3).text)
        50% of the values lie between the end levels. half: border from 0.5 to 0.5, thresholds 0.5, 1.5.
    """
    if levels < 2:
        raise ValueError(f"a grid needs two levels to round between, got {levels}")
    high = levels - 1
    values = rows.sample("u", u)
    inside = values[(values > 0) & (values < high)]
    counts, edges = np.histogram(inside, BINS * high, (0, high))
    heights = counts / max(counts.max(), 1)
    marks: list[Mark] = [Bars("data", edges, heights, label="activations (the highest bar is 1)")]
    n = np.arange(high)
    saw = np.column_stack([n, n + 1.0, np.full(high, np.nan)]).ravel()[:-1]
    marks.append(Line("ideal", saw, np.tile([0.0, 1.0, np.nan], high)[:-1], label="fraction of the cell"))
    words = [f"{len(inside) / len(values):.0%} of the values lie between the end levels."]
    for role, (name, (at, height)) in zip(ROLES, rows.few(borders, "B").items(), strict=False):
        at, height = rows.array(at), rows.array(height)
        if at.shape != height.shape or at.ndim != 1:
            raise ValueError(f"{name!r} needs u and B of one shape (R,), got {at.shape} and {height.shape}")
        marks.append(Line(role, at, height, label=name))
        words.append(f"{name}: border from {np.nanmin(height):.2g} to {np.nanmax(height):.2g}")
        if name in (thresholds or {}):
            cuts = rows.sample(name, thresholds[name])
            if len(cuts) != high:
                raise ValueError(f"{name!r} must be {high} thresholds, got {len(cuts)}")
            marks.append(Points(role, cuts, cuts - n))
            words[-1] += ", thresholds " + ", ".join(f"{cut:.3g}" for cut in cuts)
        words[-1] += "."
    if strange := [name for name in thresholds or {} if name not in borders]:
        raise ValueError(f"thresholds has {strange[0]!r}, which borders has not")
    shown = Axis("border (fraction of the cell)", 0.0, 1.05)
    return Panel(title, Axis(x, 0.0, float(high)), shown, tuple(marks), " ".join(words))
