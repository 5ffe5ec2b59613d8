"""Panels: from a quantizer and a tensor to the numbers of a picture."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from qviz.core._text import count
from qviz.core.probe import probe
from qviz.core.quantizer import Quantizer
from qviz.measure.measured import Measured
from qviz.measure.positions import level_positions as level_positions
from qviz.plot.charts import by_layer as by_layer
from qviz.plot.charts import curve as curve
from qviz.plot.charts import histogram as histogram
from qviz.plot.charts import scatter as scatter
from qviz.plot.groups import bars as bars
from qviz.plot.methods import Data, Methods, calibrated, measured, with_levels
from qviz.plot.methods import limits as limits
from qviz.plot.methods import summary_of as summary_of
from qviz.plot.places import borders_or_knots, in_units_of_x, on_x, places, treads
from qviz.plot.scene import Axis, Band, Bars, Line, Mark, Panel, Rug, Steps
from qviz.plot.style import ROLES

BANDS = 2
"""Staircases of more methods have no error bands: one could not tell them apart."""
TALL = 3.0
"""A bar so many times as high as all others is cut off: weights near zero, inputs after a ReLU."""


def levels(x: Data, methods: Methods, *, bins: int = 120, unit: str = "") -> Panel:
    """Show the levels of each method as a ruler above the histogram of x.

    One bar that towers above all others (zeros after a ReLU) is cut off, and the legend says how high it is.

    Args:
        x: The tensor, or its :class:`~qviz.core.summary.Summary`.
        methods: A quantizer or codebook, or a mapping from names to at most six of them.
        bins: The number of bins of the histogram.
        unit: The unit of x, shown in brackets.

    Raises:
        TypeError: A method is a callable, which has no levels to show, or x is not floating point.
        ValueError: There are more than six methods, or x is empty, NaN or infinite.
    """
    data = summary_of(x)
    named = with_levels(calibrated(methods, data))
    low, high = limits(data)
    _need_bins(bins)
    edges = np.linspace(low, high, bins + 1)
    share = data.histogram(torch.from_numpy(edges)).numpy() / data.numel * 100
    top, tallest = shown_height(edges, share)
    marks: list[Mark] = [Bars("data", edges, share, label=f"x ({tallest}, cut off)" if tallest else "x")]
    first, last = float(data.ends()[:, 0].min()), float(data.ends()[:, 1].max())
    words = [f"Histogram of {data.numel:,} values from {first:.3g} to {last:.3g}."]
    words += [f"The tallest bar, {tallest}, is cut off."] if tallest else []
    for i, (name, q) in enumerate(named.items()):
        at = places(q, data)
        bottom = top * (1.06 + 0.13 * i)
        marks.append(Rug(ROLES[i], at, bottom, bottom + 0.10 * top, label=name))
        half = np.abs(at) <= np.abs(at).max() / 2
        words.append(
            f"{name} has {count(len(at), 'level')} from {at[0]:.3g} to {at[-1]:.3g}, "
            f"{int(half.sum())} of them in the inner half."
        )
    y = Axis("share of values (%)", 0.0, top * (1.08 + 0.13 * len(named)))
    shown = Axis(_with_unit("x", unit), low, high)
    return Panel("Levels over the values", shown, y, tuple(marks), " ".join(words))


def staircase(
    x: Data | tuple[float, float], methods: Methods | None = None, *, n: int = 2001, unit: str = ""
) -> Panel:
    """Show y = Q(x), broken at every jump, with the band between it and y = x: the error.

    Quantizers and codebooks are drawn exactly, from their borders; callables are sampled at ``n`` points. An
    output in another unit than x (DAQ, N2UQ, DoReFa) has no such error, and no band; nor have more than two
    methods.

    Args:
        x: The tensor or its summary, to which a bare codebook's scale is fitted as in the other panels; or
            the two ends of the x axis, (low, high). Then a bare codebook has scale 1, and its name says so.
        methods: One method, or a mapping from names to at most six; alone, they are shown from -2 to 2.
        n: The number of samples for a callable.
        unit: The unit of x and y.

    Raises:
        TypeError: A method is neither a quantizer, nor a codebook, nor a callable.
        ValueError: The ends do not increase, or there are more than six methods.
    """
    if callable(x) or isinstance(x, Mapping):  # methods alone, or first as in earlier versions
        x, methods = (-2.0, 2.0) if methods is None else methods, x
    if isinstance(x, (tuple, list)):
        if len(x) != 2 or not -np.inf < float(x[0]) < float(x[1]) < np.inf:
            raise ValueError(f"the ends of the x axis must be two finite, increasing numbers, got {x}")
        low, high, named = float(x[0]), float(x[1]), calibrated(methods, None)
    else:
        data = summary_of(x)
        (low, high), named = limits(data), calibrated(methods, data)
    marks: list[Mark] = [Line("ideal", np.array([low, high]), np.array([low, high]), label="y = x")]
    words = []
    for i, (name, q) in enumerate(named.items()):
        left, right, y = treads(name, q, low, high, n)
        x3 = np.column_stack([left, np.clip(y, left, right), right]).ravel()  # the middle: where y = x
        y3 = np.repeat(y, 3)
        if in_units_of_x(q) and len(named) <= BANDS:
            marks.append(Band(ROLES[i], x3, np.minimum(x3, y3), np.maximum(x3, y3)))
        marks.append(Line.of(ROLES[i], [left, right], [y, y], name))
        widest = int(np.argmax(right - left))
        words.append(
            f"{name} has {len(y)} steps for x from {low:.3g} to {high:.3g}; "
            f"the widest, {right[widest] - left[widest]:.3g}, is at y = {y[widest]:.3g}."
        )
    return Panel(
        "Staircase y = Q(x)",
        Axis(_with_unit("x", unit), low, high),
        Axis(_with_unit("y = Q(x)", unit if all(map(in_units_of_x, named.values())) else ""), low, high),
        tuple(marks),
        " ".join(words),
    )


def error(x: Data, methods: Methods, *, bins: int = 81, unit: str = "", reach: float | None = None) -> Panel:
    """Show the histogram of the error Q(x) - x of each method.

    Args:
        x: The tensor or its summary.
        methods: One method, or a mapping from names to at most six.
        bins: The number of bins of the histogram; an odd number keeps zero in the middle of one.
        unit: The unit of x.
        reach: Where the x axis ends on both sides of 0, so that two pictures can share it; by default three
            times the largest RMS error.

    Raises:
        TypeError: A method is neither a quantizer, nor a codebook, nor a callable.
        ValueError: A quantizer's output is in another unit than x (DAQ, N2UQ, DoReFa), so that Q(x) - x is
            no error; there are more than six methods; or x is empty, NaN or infinite.
    """
    data = summary_of(x)
    named = calibrated(methods, data)
    _need_bins(bins)
    values = measured(methods, named, data)
    rms = {name: m.mse**0.5 for name, m in values.items()}
    reach = reach or round_up(3.0 * max(rms.values()) or 1.0)
    edges = np.linspace(-reach, reach, bins + 1)
    marks, words, top = [], [], 0.0
    for i, (name, m) in enumerate(values.items()):
        share = m.error_counts(edges) / data.numel * 100
        top = max(top, float(share.max()))
        marks.append(Steps(ROLES[i], edges, share, label=name))
        words.append(f"{name}: error has RMS {rms[name]:.3g} and is at most {m.largest_error:.3g}.")
    return Panel(
        "Histogram of the error",
        Axis(_with_unit("error Q(x) − x", unit), -reach, reach),
        Axis("share of values (%)", 0.0, round_up(1.05 * (top or 1.0))),
        tuple(marks),
        " ".join(words),
    )


def contribution(x: Data, methods: Methods, *, unit: str = "") -> Panel:
    """Show which cells the mean squared error comes from.

    The bar of a cell spans its values; its height is what it adds to the MSE, so the heights add up to
    the MSE. The outermost cells end at the data's ends. Where a level's values have no fixed borders (AQuant,
    AdaRound, random rounding), a bar spans what lies between two neighboring knots instead.

    Args:
        x: The tensor or its summary.
        methods: A quantizer or codebook, or a mapping from names to at most six of them.
        unit: The unit of x.

    Raises:
        TypeError: A method is a callable, which has no cells.
        ValueError: A quantizer's output is in another unit than x (DAQ, N2UQ, DoReFa), so that Q(x) - x is
            no error; there are more than six methods; or x is empty, NaN or infinite.
    """
    data = summary_of(x)
    named = with_levels(calibrated(methods, data))
    values = measured(methods, named, data)
    low, high = limits(data)
    marks, words, top = [], [], 0.0
    for i, (name, q) in enumerate(named.items()):
        height = _sse(q, values[name]) / data.numel
        edges = np.concatenate([[low], np.clip(on_x(q, borders_or_knots(q)), low, high), [high]])
        mark = (Bars if len(named) == 1 else Steps)(ROLES[i], edges, height, label=name)
        marks.append(mark)
        top = max(top, float(height.max()))
        total = float(height.sum())
        k = int(np.argmax(height))
        words.append(
            f"{name}: MSE {total:.4g}; the cell from {edges[k]:.3g} to {edges[k + 1]:.3g} gives "
            f"{height[k] / total if total else 0:.0%}, "
            f"the two end cells {(height[0] + height[-1]) / total if total else 0:.0%}."
        )
    return Panel(
        "Where the error comes from",
        Axis(_with_unit("x", unit), low, high),
        Axis(_with_unit("part of the MSE", unit and f"{unit}²"), 0.0, 1.08 * (top or 1.0)),
        tuple(marks),
        " ".join(words),
    )


def shown_height(edges: np.ndarray, share: np.ndarray) -> tuple[float, str]:
    """Return how much of the bars to show, and of a bar that would flatten all others what it is."""
    k = int(share.argmax())
    second = float(np.delete(share, k).max(initial=0.0))
    if not 0 < TALL * second < share[k]:
        return float(share[k]) or 1.0, ""
    at = 0.0 if edges[k] <= 0 <= edges[k + 1] else (edges[k] + edges[k + 1]) / 2
    return 1.5 * second, f"{share[k]:.0f} % near {at:.2g}"


def _need_bins(bins: int) -> None:
    if bins < 1:
        raise ValueError(f"bins must be positive, got {bins}")


def _sse(q: Quantizer, measured: Measured) -> np.ndarray:
    """Return the squared error of each cell that :func:`borders_or_knots` make, from low to high."""
    if measured.summarized:
        return measured.cells.sse.numpy()
    cuts = borders_or_knots(q)
    with torch.no_grad():
        x = measured.data.x
        e = (q(x) - x).double().flatten()
        u = probe(q, x).u.double().flatten()
    cell = torch.bucketize(u, cuts.to(u))  # a value on a cut belongs to the cell below it
    return torch.bincount(cell, e * e, len(cuts) + 1).numpy(force=True)


def round_up(value: float) -> float:
    """Return the next round number: limits that hold still while a slider moves."""
    decade = 10.0 ** np.floor(np.log10(value))
    return float(
        next(
            m * decade
            for m in (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0)
            if m * decade >= value
        )
    )


def _with_unit(label: str, unit: str) -> str:
    return f"{label} ({unit})" if unit else label
