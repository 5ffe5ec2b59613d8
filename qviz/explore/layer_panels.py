"""The panels and the table of the explorer of layers, from fits of a recipe to layers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qviz.explore.layer_fit import CHANNEL, Fit, Setting
from qviz.inspection.views import Values
from qviz.plot.scene import Axis, Band, Bars, Line, Mark, Panel, Points, Rug, Rule, Steps, Table

HEADERS = ("Layer", "weights", "spread", "weight dB", "input dB", "output dB")
NOISES = {"weight and input": "local", "weight alone": "weight", "input alone": "input"}
"""What is quantized, and the name of the ratio in the fit's outputs."""
LOWEST, HIGHEST = -10.0, 70.0
"""Ratios beyond are drawn there."""

RAREST = 0.01
"""In percent: bins with fewer values are drawn there."""

DEEPEST, WIDEST = 1e-4, 1e6
"""Ranges below this share of the widest are drawn there; spreads above are not told apart."""


@dataclass(frozen=True, eq=False)
class Look:
    """What is on show.

    Attributes:
        name: The layer's.
        fit, setting: How it is now.
        shape: Of its weight.
        all: The fits of all layers by name, at one setting.
        base: That setting.
        left: Sentences about the layers that are left out.
        samples: How many samples the outputs are of.
    """

    name: str
    fit: Fit
    setting: Setting
    shape: tuple[int, ...]
    all: dict[str, Fit]
    base: Setting
    left: tuple[str, ...]
    samples: int

    @property
    def i(self) -> int:
        """The index of the layer."""
        return list(self.all).index(self.name)


def ratios(fit: Fit) -> list[float]:
    """Return the output's ratios in dB: both quantized, the weight alone, the input alone."""
    return [getattr(fit.outputs, key) for key in NOISES.values()]


def shown(db: float | np.ndarray) -> np.ndarray:
    """Return ratios as they are drawn: no infinity."""
    return np.clip(np.asarray(db, dtype=float), LOWEST, HIGHEST)


def weights(k: Look) -> Panel:
    """Return the histogram of the weight, with the levels."""
    return _histogram("Weight and its levels", "weight", k.fit.weight)


def inputs(k: Look) -> Panel:
    """Return the histogram of what the layer reads, with the levels."""
    return _histogram("Input and its levels", "input", k.fit.input)


def _histogram(title: str, what: str, v: Values) -> Panel:
    codes, n = v.codes, v.sample
    edges, share = np.array(v.edges), 100 * np.array(v.heights) / n
    floor, top = max(50 / n, RAREST), 2 * float(share.max())
    at, counts = np.array(codes.positions), np.array(codes.counts)
    x, y = (np.repeat(values, 2) for values in (edges, np.maximum(share, floor)))
    ticks = floor, floor * (top / floor) ** 0.25
    marks = (
        Band("data", x[1:-1], np.full(len(y), floor), y),
        Steps("data", edges, np.maximum(share, floor), label="values"),
        Rug("a", at[counts > 0], *ticks, label="levels"),
        Rug("e", at[counts == 0], *ticks, label="levels without a value"),
    )
    inside = int(((at >= v.low) & (at <= v.high)).sum())
    text = (
        f"{v.count:,} values from {v.low:.3g} to {v.high:.3g}, kurtosis {v.kurtosis:.3g}. "
        f"Levels that serve a value: {codes.used} of {codes.levels}; within the values' range: {inside}; "
        f"{codes.saturated:.2%} of the values saturate. SQNR {codes.sqnr_db:.2f} dB."
    )
    low, high = min(edges[0], at.min()), max(edges[-1], at.max())
    spare = 0.04 * float(high - low)
    across = Axis(
        what + ("" if v.unit == "value" else " (in steps)"), float(low) - spare, float(high) + spare
    )
    return Panel(title, across, Axis("values (%)", floor, top, log=True), marks, text)


def channels(k: Look) -> Panel:
    """Return the largest magnitude of each channel, and how far its levels reach."""
    v = k.fit.weight
    each = np.array(v.ranges)
    order = np.argsort(-each, kind="stable")
    at = np.arange(1.0, len(each) + 1)
    tops = [] if k.fit.reach is None else [k.fit.reach]
    alive = np.concatenate([each[each > 0], *[t[t > 0] for t in tops]])
    floor = max(float(alive.min()) / 2, DEEPEST * float(alive.max())) if len(alive) else 0.5
    marks: list[Mark] = [
        Line("data", at, np.maximum(each[order], floor), label="largest |weight| of a channel"),
        Points("data", at, np.maximum(each[order], floor)),
    ]
    if tops and k.setting.ranges == CHANNEL:
        marks.append(Line("a", at, np.maximum(tops[0][order], floor), label="reach of its levels"))
    elif tops:
        marks.append(Rule("a", max(float(tops[0][0]), floor), "y", label="reach of the levels"))
    text = (
        f"{v.channels} channels; the widest reaches {v.widest:.3g}, the narrowest {v.narrowest:.3g}: "
        f"{v.spread:.3g} times less. {v.dead} hold next to nothing."
    )
    if tops:
        least, most = tops[0].min(), tops[0].max()
        between = "" if least == most else f" to {most:.3g}, by channel"
        text += f" The levels reach {least:.3g}{between}."
    high = 1.5 * float(alive.max()) if len(alive) else 1.0
    x = Axis("channels, the widest first", 0.5, len(each) + 0.5)
    return Panel(
        "Range of each channel", x, Axis("|weight|", floor / 1.5, high, log=True), tuple(marks), text
    )


def noise(k: Look) -> Panel:
    """Return the ratio of the layer's output to its error: of both quantized, and of one alone."""
    now = ratios(k.fit)
    edges = np.arange(len(now) + 1) + 0.5
    heights = shown([HIGHEST if db is None else db for db in now])
    marks = (Bars("a", edges, heights), Steps("a", edges, heights, label="output on the images, dB"))
    said = ", ".join(f"{name} {db:.2f} dB" for name, db in zip(NOISES, now, strict=True))
    text = f"The layer's output against its error, on {k.samples} samples: {said}. 6 dB are one bit."
    y = Axis(
        "signal to noise (dB)", min(0.0, float(heights.min()) - 1), max(30.0, 1.1 * float(heights.max()))
    )
    x = Axis("what is quantized", 0.5, len(now) + 0.5, names=("both", "weight", "input"))
    return Panel("Output of the layer", x, y, marks, text)


def overview(k: Look) -> Panel:
    """Return the ratio of the output of every layer, with the dot of the open one."""
    every = np.array([fit.outputs.local for fit in k.all.values()])
    at = np.arange(1.0, len(every) + 1)
    now = shown(k.fit.outputs.local)
    marks = (
        Line("c", at, shown(every), label="all layers"),
        Points("c", at, shown(every)),
        Points("e", at[[k.i]], now[None], "x", label="the open layer, now"),
    )
    worst = list(k.all)[int(every.argmin())]
    text = (
        f"With {k.base} the outputs of {len(every)} layers have {every.min():.1f} to "
        f"{shown(every.max()):.1f} dB; {worst} has the least. {k.name}, layer {k.i + 1}, has "
        f"{k.fit.outputs.local:.2f} dB now."
    )
    low, high = float(min(shown(every).min(), now)), float(max(shown(every).max(), now))
    y = Axis("output (dB)", min(0.0, low - 1), high + 3)
    return Panel("All layers", Axis("layer, in order", 0.5, len(every) + 0.5), y, marks, text)


def table(k: Look) -> Table:
    """Return a row for each layer; its name opens it."""
    cells, values = [], {}
    for name, fit in k.all.items():
        w, x, y = fit.weight, fit.input, fit.outputs
        row = (w.count, w.spread, w.codes.sqnr_db, x.codes.sqnr_db, y.local)
        values[name] = dict(zip(HEADERS[1:], (v if np.isfinite(v) else None for v in row), strict=True))
        spread = f"{w.spread:.3g}" if w.spread < WIDEST else f"> {WIDEST:.0e}"
        cells.append((name, f"{w.count:,}", spread, *(f"{db:.1f}" for db in row[2:])))
    notes = (f"With {k.base}, each layer by itself, on {k.samples} samples", *k.left)
    roles = tuple("e" if name == k.name else "c" for name in k.all)
    return Table(HEADERS, tuple(cells), roles, values, notes, opens="Layer", opened=k.name)
