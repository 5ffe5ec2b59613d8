"""The panels of the threshold explorer, from one quantizer of N2UQ and the values it quantizes."""

from __future__ import annotations

import numpy as np
import torch

from qviz.core._text import count
from qviz.explore.threshold_work import Bench
from qviz.measure import metrics
from qviz.plot.panels import round_up, shown_height
from qviz.plot.places import treads
from qviz.plot.scene import Axis, Bars, Line, Mark, Panel, Points, Rug, Rule, Span, Steps, Table

BINS, PLACES, ROWS = 100, 41, 6
COLUMNS = ("width", "threshold", "slope", "gradient", "quotient")
HEADERS = ("Segment", "Width a (v)", "Threshold (x)", "Slope", "dL/da", "Quotient")


def arithmetic(b: Bench) -> str:
    """Return what happens to the one number."""
    p, w = b.number, b.work
    v, e, k, code = float(p.u), float(p.soft), int(p.cell), int(p.cell + p.up)
    head, width = f"x = {b.x:.4g} becomes v = {v:.4g}", np.diff(w.knots)[k]
    if v <= w.knots[0] or v > w.knots[-1]:
        side = "below all segments" if v <= w.knots[0] else "above all segments"
        return f"{head}, {side}: code {code}, y = {float(p.y):.4g}, no gradient."
    return (
        f"{head}, in segment {k + 1} from {w.knots[k]:.4g} to {w.knots[k + 1]:.4g}, at t = {float(p.t):.3g} "
        f"of it: code {code}, y = {float(p.y):.4g}. Rounded up with probability t it would be {e:.4g} on "
        f"average; the slope of that, D s / a = {w.unit:.3g} × {w.scale:.3g} / {width:.3g} = "
        f"{float(p.dydx):.3g}, is its gradient."
    )


def over_values(b: Bench) -> Panel:
    """Return the thresholds and the ends of the segments over the histogram of the values."""
    (low, high), w = b.ends, b.work
    edges = np.linspace(low, high, BINS + 1)
    share = w.data.histogram(torch.from_numpy(edges)).numpy() / w.data.numel * 100
    top, tallest = shown_height(edges, share)
    at = w.knots / w.scale
    seen, shown = w.thresholds[b.visible], (at >= low) & (at <= high)
    outer, k = at[[0, -1]][b.outer], int(b.number.cell)
    height, inside = 1.11 * top, at[0] < b.x <= at[-1]
    marks: list[Mark] = [
        Bars("data", edges, share, label=f"x ({tallest}, cut off)" if tallest else "x"),
        Rug("b", at[shown], 1.19 * top, 1.29 * top, label="ends of the segments"),
        Rug("a", seen, 1.06 * top, 1.16 * top, label="thresholds"),
        Points("a", seen, np.full(len(seen), height), "x"),
        Points("b", outer, np.full(len(outer), 1.24 * top), "x", label="first and last, to drag"),
        Points("d", np.array([b.x]), np.array([0.03 * top]), "x", label="x and its segment"),
    ]
    if inside:
        marks.insert(0, Span("d", max(at[k], low), min(at[k + 1], high)))
    if b.visible[b.chosen]:
        marks.append(Rule("ideal", float(w.thresholds[b.chosen]), label="the chosen threshold"))
    beyond = max(0.0, 100.0 - float(share.sum()))
    text = f"Thresholds at x = {_told(w.thresholds)}; segments end at {_told(at)}. x = {b.x:.3g}."
    text += f" {beyond:.2g} % of the values lie beyond the axis." if beyond > 1e-9 else ""
    y = Axis("share of values (%)", 0.0, 1.34 * top)
    return Panel("Thresholds over values", Axis("x", low, high), y, tuple(marks), text)


def staircase(b: Bench) -> Panel:
    """Return y over x, its expectation when it is rounded at random, and the mean of some draws."""
    (low, high), w = b.ends, b.work
    left, right, y = treads("N2UQ", w.q, low, high, 2)
    bends = np.unique(np.clip(np.concatenate([[low], w.knots / w.scale, [high]]), low, high))
    at = np.linspace(low, high, PLACES)
    mean = w.drawn(at, b.draws)
    expected, p = w.expectation(bends), b.number
    marks = (
        Line("b", bends, expected, label="expectation of random rounding"),
        Line.of("a", [left, right], [y, y], "y, rounded"),
        Points("f", at, mean, label=f"mean of {b.draws} draws"),
        Points("d", np.array([b.x]), p.y.numpy(), "x", label="x"),
    )
    off = float(np.abs(mean - w.expectation(at)).max())
    text = (
        f"{len(y)} levels from {y[0]:.3g} to {y[-1]:.3g} are seen, {w.unit:.3g} apart. The mean of {b.draws} "
        f"draws is {off:.3g} away from the expectation at most."
    )
    axis = Axis("y = Q(x)", -0.1, 2.1)
    return Panel("Staircase, expectation", Axis("x", low, high), axis, marks, text)


def slopes(b: Bench) -> Panel:
    """Return the slope that the backward pass has in each segment."""
    (low, high), w = b.ends, b.work
    at = np.clip(np.concatenate([[low], w.knots / w.scale, [high]]), low, high)
    slope = np.concatenate([[0.0], w.slope, [0.0]])
    seen = np.diff(at) > 0
    edges = np.concatenate([at[:-1][seen], at[-1:]])
    across = np.clip(w.knots[[0, -1]] / w.scale, low, high)
    marks = (
        Line(
            "ideal", across, np.full(2, w.scale), label="equal widths: the plain straight-through estimator"
        ),
        Steps("b", edges, slope[seen], label="generalized straight-through estimator"),
        Points("d", np.array([b.x]), b.number.dydx.numpy(), "x", label="x"),
    )
    text = (
        f"The slope is {_told(w.slope)} in the segments from left to right, with equal widths "
        f"{w.scale:.3g} in each, and 0 outside."
    )
    y = Axis("dy/dx (backward)", 0.0, round_up(1.1 * max(float(slope[seen].max()), w.scale)))
    return Panel("Gradient of the input", Axis("x", low, high), y, marks, text)


def widths(b: Bench) -> Panel:
    """Return the gradient of each width, and the difference quotient of what it stands for."""
    w, n = b.work, len(b.work.gradient)
    edges, at = np.arange(n + 1) + 0.5, np.arange(1.0, n + 1)
    reach = round_up(1.1 * (float(np.abs([w.gradient, w.quotient]).max()) or 1.0))
    both = bool((w.gradient > 0).any() or (w.quotient > 0).any())
    marks = (
        Bars("b", edges, w.gradient, label="backward pass"),
        Points("a", at, w.quotient, label="difference of the rounded outputs"),
        Points("d", at[[b.chosen]], w.gradient[[b.chosen]], label="of the chosen threshold"),
        Rule("ideal", 0.0, "y"),
    )
    text = (
        f"The gradient of the {w.loss} by the widths is {_told(w.gradient)}; their "
        f"difference quotients are {_told(w.quotient)}."
    )
    y = Axis(f"d({w.loss}) / d(width)", -reach, reach if both else 0.0)
    return Panel("Gradient of each width", Axis("segment", 0.5, n + 0.5), y, marks, text)


def use(b: Bench) -> Panel:
    """Return the share of the values at each output level."""
    w = b.work
    share, levels, half = w.counts / w.counts.sum() * 100, w.q.levels.numpy(), w.unit / 2
    edges, code = np.append(levels - half, levels[-1] + half), int(b.number.cell + b.number.up)
    equal = 100 / len(levels)
    marks = (
        Bars("a", edges, share, label="share of the values"),
        Rule("ideal", equal, "y", label="equal shares"),
        Points("d", levels[[code]], share[[code]]),
    )
    text = (
        f"The outputs {_told(levels)} have {_told(share)} % of "
        f"the values; the entropy of the codes is {metrics.entropy_bits(w.counts):.3g} of "
        f"{count(len(levels).bit_length() - 1, 'bit')}."
    )
    y = Axis("share of values (%)", 0.0, round_up(1.05 * max(float(share.max()), 1.5 * equal)))
    return Panel("Use of the outputs", Axis("y", float(edges[0]), float(edges[-1])), y, marks, text)


def table(b: Bench) -> Table:
    """Return a line for each segment, of many segments for those next to the chosen one."""
    w, n = b.work, len(b.work.gradient)
    first = min(max(b.chosen - ROWS // 2, 0), max(n - ROWS, 0))
    rows, numbers = [], {}
    for i in range(first, min(first + ROWS, n)):
        figures = (
            np.diff(w.knots)[i],
            w.thresholds[i],
            w.slope[i],
            w.gradient[i],
            w.quotient[i],
        )
        name = f"{i + 1}, chosen" if i == b.chosen else f"{i + 1}"
        rows.append((name, *(f"{v:.3g}" for v in figures)))
        numbers[name] = dict(zip(COLUMNS, map(float, figures), strict=True))
    left_out = (f"Segments {first + 1} to {first + len(rows)} of {n}",) if len(rows) < n else ()
    return Table(HEADERS, tuple(rows), (), numbers, left_out)


def _told(numbers: np.ndarray) -> str:
    return ", ".join(f"{v:.3g}" for v in numbers)


PARTS = (over_values, staircase, slopes, widths, use)
"""The panels, in order."""
