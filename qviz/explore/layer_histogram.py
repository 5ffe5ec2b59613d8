"""Layer histogram: what a layer multiplies, its weight or its input, with the levels that serve it."""

from __future__ import annotations

import numpy as np

from qviz.explore.layer_walk import Operand
from qviz.inspection.views import Values
from qviz.plot.scene import Axis, Band, Panel, Points, Rug, Steps

RAREST = 0.01
"""In percent: bins with fewer values are drawn there."""

ROOM = 16
"""On each side of the levels the axis has room for so many more, or for as many as there are."""


def histogram(title: str, what: str, v: Values, one: Operand) -> Panel:
    """Return the histogram of one of the two, with the levels and the number that is followed."""
    codes, n = v.codes, v.sample
    edges, share = np.array(v.edges), 100 * np.array(v.heights) / n
    floor, top = max(50 / n, RAREST), 2 * float(share.max())
    at, counts = np.array(codes.positions), np.array(codes.counts)
    x, y = (np.repeat(values, 2) for values in (edges, np.maximum(share, floor)))
    ticks = floor, floor * (top / floor) ** 0.25
    low, high = _ends(edges, at)
    place = one.x if v.unit == "value" else one.u
    cut = low > edges[0] or high < edges[-1]
    label = f"{what} ({edges[0]:.3g} to {edges[-1]:.3g}, cut off)" if cut else "values"
    marks = (
        Band("data", x[1:-1], np.full(len(y), floor), y),
        Steps("data", edges, np.maximum(share, floor), label=label),
        Rug("a", at[counts > 0], *ticks, label="levels"),
        Rug("e", at[counts == 0], *ticks, label="levels without a value"),
        Points(
            "d",
            np.clip([place], low, high),
            np.array([floor * (top / floor) ** 0.04]),
            "x",
            label=f"one {what}, followed",
        ),
    )
    inside = int(((at >= v.low) & (at <= v.high)).sum())
    text = (
        f"{v.count:,} values from {v.low:.3g} to {v.high:.3g}, kurtosis {v.kurtosis:.3g}. "
        f"Levels that serve a value: {codes.used} of {codes.levels}; within the values' range: {inside}; "
        f"{codes.saturated:.2%} of the values saturate. SQNR {codes.sqnr_db:.2f} dB."
    )
    if cut:
        text += f" The axis has the part near the levels, from {low:.3g} to {high:.3g}."
    if not low <= place <= high:
        text += f" The {what} that is followed lies beyond, at {place:.3g}."
    spare = 0.04 * (high - low)
    across = Axis(what + ("" if v.unit == "value" else " (in steps)"), low - spare, high + spare)
    return Panel(title, across, Axis("values (%)", floor, top, log=True), marks, text)


def _ends(edges: np.ndarray, at: np.ndarray) -> tuple[float, float]:
    """Return from where to where values and levels are drawn: a long tail would press the levels together."""
    low, high, span = min(edges[0], at.min()), max(edges[-1], at.max()), float(np.ptp(at))
    room = span * max(ROOM / (len(at) - 1), 1.0) if span else np.inf
    return float(max(low, at.min() - room)), float(min(high, at.max() + room))
