"""Charts of plain arrays: curve, histogram, scatter, by_layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from qviz.plot import rows
from qviz.plot.rows import Values as Values
from qviz.plot.scene import Axis, Band, Bars, Line, Mark, Panel, Points, Steps
from qviz.plot.style import ROLES

DOTTED = 24
"""Lines of up to this many points show where the points are."""


def curve(
    lines: Mapping[str, tuple[Values, Values] | Values] | Values,
    values: Values | None = None,
    *,
    bands: Mapping[str, tuple[Values, Values]] | None = None,
    references: Mapping[str, float] | None = None,
    title: str | None = None,
    x: str = "step",
    y: str = "",
    xlim: tuple[float, float] | None = None,
    ylim: tuple[float, float] | None = None,
    log: bool = False,
) -> Panel:
    """Show numbers over steps, epochs or whatever x is: a training's curves.

    Args:
        lines: Names mapped to (x, y), at most six; x of shape (R,), y of shape (R,), or (R, n) for n lines of
            one look. NaN is a gap. Numbers of shape (R,) in place of a pair are y over 0, 1, 2, …; what is no
            mapping is one line.
        values: y, where ``lines`` is x alone.
        bands: For some of the names, (low, high), each of shape (R,): an area around the line.
        references: Names mapped to the y of a level line.
        title: The title; by default made from the labels.
        x: The label of the x axis, its unit in brackets.
        y: The label of the y axis, its unit in brackets.
        xlim: What is shown of x; by default all of it.
        ylim: What is shown of y; by default all of it.
        log: Whether distances on the y axis are ratios; numbers that are not positive are gaps then.

    Raises:
        TypeError: A line is neither a pair nor numbers.
        ValueError: There is no line or more than six, shapes do not match, no number is finite (positive, if
            ``log``), a band lacks its line, or limits do not increase.

    Example:
        >>> import numpy as np
        >>> curve({"loss": (np.arange(3), np.array([2.0, 1.5, 1.25]))}, y="loss").text
        'loss goes from 2 at step 0 to 1.25 at step 2.'
    """
    named = rows.few(lines if values is None else (lines, values), y or "value")
    found = {name: rows.line(name, *rows.pair(name, line), log=log) for name, line in named.items()}
    marks: list[Mark] = []
    words = []
    for role, (name, (at, values)) in zip(ROLES, found.items(), strict=False):
        if bands and name in bands:
            low, high = (rows.numbers(f"bands[{name!r}]", v, at.shape) for v in bands[name])
            marks.append(Band(role, at, low, high))
        marks += _marks(role, name, at, values)
        words.append(_told(name, at, values, x))
    if strange := [name for name in bands or {} if name not in found]:
        raise ValueError(f"bands has {strange[0]!r}, which lines has not")
    ends = rows.ends([at for at, _ in found.values()], "x")
    wide = rows.limits(xlim, "xlim", *ends, margin=0.02)
    for name, level in (references or {}).items():
        marks.append(Line("ideal", np.array(wide), np.full(2, float(level)), label=name))
        words.append(f"{name} is {level:.4g}.")
    tall = rows.ends([getattr(m, key) for m in marks for key in ("y", "low", "high") if hasattr(m, key)], "y")
    return Panel(
        f"{y or 'value'} over {x}" if title is None else title,
        Axis(x, *wide),
        Axis(y, *rows.limits(ylim, "ylim", *tall, margin=0.06, log=log), log),
        tuple(marks),
        " ".join(words),
    )


def histogram(
    samples: Mapping[str, Values] | Values,
    *,
    bins: int = 60,
    title: str = "Histogram",
    x: str = "x",
    xlim: tuple[float, float] | None = None,
) -> Panel:
    """Show how the values of up to six samples are spread, as outlines over the same bins.

    Args:
        samples: Names mapped to values of any shape, finite; or the values of one sample.
        bins: The number of bins between the smallest and the largest of all, or within ``xlim``.
        title: The title.
        x: The label of the x axis.
        xlim: What is shown; shares are of all values, also of those outside.

    Raises:
        TypeError: A sample is no array of numbers.
        ValueError: There is no sample or more than six, one is empty, a value is not finite, or bins < 1.

    Example:
        >>> histogram({"w": [0.0, 1.0, 1.0, 2.0]}, bins=2).marks[0].heights.tolist()
        [25.0, 75.0]
    """
    if bins < 1:
        raise ValueError(f"bins must be positive, got {bins}")
    found = {name: rows.sample(name, values) for name, values in rows.few(samples, x).items()}
    low, high = rows.limits(xlim, "xlim", *rows.ends(list(found.values()), "the samples"), margin=0.0)
    edges = np.linspace(low, high, bins + 1)
    marks, words, top = [], [], 0.0
    for role, (name, values) in zip(ROLES, found.items(), strict=False):
        share = np.histogram(values, edges)[0] / values.size * 100
        top = max(top, float(share.max()))
        marks.append(Steps(role, edges, share, label=name))
        words.append(
            f"{name}: {values.size:,} values from {values.min():.3g} to {values.max():.3g}, "
            f"mean {values.mean():.3g}, standard deviation {values.std():.3g}."
        )
    shown = Axis("share of values (%)", 0.0, 1.08 * (top or 1.0))
    return Panel(title, Axis(x, low, high), shown, tuple(marks), " ".join(words))


def scatter(
    points: Mapping[str, tuple[Values, Values]] | Values,
    values: Values | None = None,
    *,
    references: Mapping[str, float] | None = None,
    title: str | None = None,
    x: str = "x",
    y: str = "y",
) -> Panel:
    """Show pairs of numbers as points, one look for each of up to six sets, with their correlation as text.

    Args:
        points: Names mapped to (x, y), both of shape (R,), finite; or x alone.
        values: y, where ``points`` is x alone.
        references: Names mapped to the y of a level line.
        title: The title; by default made from the labels.
        x: The label of the x axis, its unit in brackets.
        y: The label of the y axis, its unit in brackets.

    Raises:
        TypeError: A set is no pair of arrays of numbers.
        ValueError: There is no set or more than six, shapes do not match, or a number is not finite.

    Example:
        >>> scatter({"layer 1": ([0.0, 1.0, 2.0], [1.0, 3.0, 5.0])}).text
        'layer 1: 3 points, x from 0 to 2, y from 1 to 5, correlation 1.00.'
    """
    marks, words = [], []
    sets = rows.few(points if values is None else (points, values), y)
    for role, (name, pairs) in zip(ROLES, sets.items(), strict=False):
        at, values = rows.pair(name, pairs, alone=False)
        at = rows.sample(name, at)
        values = rows.numbers(f"y of {name!r}", rows.sample(name, values), at.shape)
        marks.append(Points(role, at, values, label=name))
        told = f", correlation {np.corrcoef(at, values)[0, 1]:.2f}" if np.ptp(at) and np.ptp(values) else ""
        words.append(
            f"{name}: {len(at)} points, x from {at.min():.3g} to {at.max():.3g}, "
            f"y from {values.min():.3g} to {values.max():.3g}{told}."
        )
    wide = rows.limits(None, "x", *rows.ends([m.x for m in marks], "x"), margin=0.03)
    for name, level in (references or {}).items():
        marks.append(Line("ideal", np.array(wide), np.full(2, float(level)), label=name))
    tall = rows.limits(None, "y", *rows.ends([m.y for m in marks], "y"), margin=0.06)
    title = f"{y} over {x}" if title is None else title
    return Panel(title, Axis(x, *wide), Axis(y, *tall), tuple(marks), " ".join(words))


def by_layer(
    values: Mapping[str, Values] | Values,
    *,
    names: Sequence[str] = (),
    title: str = "Layer by layer",
    y: str = "",
    ylim: tuple[float, float] | None = None,
) -> Panel:
    """Show one number a layer: bars for one row of numbers, outlines for two to six.

    Args:
        values: Names mapped to numbers of shape (L,), one a layer, from the first to the last; or one row.
        names: The names of the layers, for the text.
        title: The title.
        y: The label of the y axis.
        ylim: What is shown; by default from 0, or from the least if that is negative.

    Raises:
        TypeError: A row is no array of numbers.
        ValueError: There is no row or more than six, rows or names differ in length, or one is not finite.

    Example:
        >>> by_layer({"bits": [4, 2, 3]}, names=["stem", "body", "head"], y="bits").text
        'bits: from 2 (layer 2, body) to 4 (layer 1, stem), mean 3.'
    """
    found = {name: rows.sample(name, row) for name, row in rows.few(values, y or "value").items()}
    count = len(next(iter(found.values())))
    for name, row in [*found.items(), *([("names", names)] if names else [])]:
        if len(row) != count:
            raise ValueError(f"{name!r} has {len(row)} layers where the first row has {count}")
    edges = np.arange(count + 1) + 0.5
    marks = [
        (Bars if len(found) == 1 else Steps)(role, edges, row, label=name)
        for role, (name, row) in zip(ROLES, found.items(), strict=False)
    ]
    words = []
    for name, row in found.items():
        ends = [
            f"{row[i]:.4g} (layer {i + 1}{f', {names[i]}' if names else ''})"
            for i in (int(row.argmin()), int(row.argmax()))
        ]
        words.append(f"{name}: from {ends[0]} to {ends[1]}, mean {row.mean():.4g}.")
    low, high = rows.ends(list(found.values()), "the values")
    tall = rows.limits(ylim, "ylim", min(low, 0.0), max(high, 0.0), margin=0.0)
    if ylim is None:
        spare = 0.08 * (tall[1] - tall[0])
        tall = (tall[0] - spare if low < 0 else 0.0), tall[1] + spare
    shown = Axis("layer, from the first to the last", 0.5, count + 0.5)
    return Panel(title, shown, Axis(y, *tall), tuple(marks), " ".join(words))


def _marks(role: str, name: str, at: np.ndarray, values: np.ndarray) -> list[Mark]:
    """Return the n lines as one mark, broken between them, and their points where these are few."""
    line = Line.of(role, at[:, None], values, name)
    if len(at) > DOTTED:
        return [line]
    seen = np.isfinite(line.y)
    return [line, Points(role, line.x[seen], line.y[seen])]


def _told(name: str, at: np.ndarray, values: np.ndarray, x: str) -> str:
    seen = np.flatnonzero(np.isfinite(values).all(1))
    if not seen.size:
        return f"{name} has gaps everywhere."
    ends = [f"{_figures(values[i])} at {x} {at[i]:.4g}" for i in (seen[0], seen[-1])]
    many = f" ({values.shape[1]} lines)" if values.shape[1] > 1 else ""
    if seen.size == 1:
        return f"{name}{many} is {ends[0]}."
    low, high = np.nanmin(values), np.nanmax(values)
    inside = values[[seen[0], seen[-1]]]
    beyond = f", between {low:.4g} and {high:.4g}" if low < inside.min() or high > inside.max() else ""
    return f"{name}{many} goes from {ends[0]} to {ends[1]}{beyond}."


def _figures(row: np.ndarray) -> str:
    return f"{row[0]:.4g}" if len(row) == 1 else f"[{row.min():.4g} … {row.max():.4g}]"
