"""The panels and the table of the explorer of layers, from fits of a recipe to layers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qviz.explore.layer_fit import Fit, Layers
from qviz.explore.layer_histogram import histogram
from qviz.explore.layer_setting import CHANNEL, Setting
from qviz.explore.layer_walk import Walk
from qviz.plot.scene import Axis, Bars, Line, Mark, Panel, Points, Rule, Scene, Steps, Table

HEADERS = ("Layer", "weights", "spread", "weight dB", "input dB", "output dB")
NOISES = {"weight and input": "local", "weight alone": "weight", "input alone": "input"}
"""What is quantized, and the name of the ratio in the fit's outputs."""
LOWEST, HIGHEST = -10.0, 70.0
"""Ratios beyond are drawn there."""

DEEPEST, WIDEST = 1e-4, 1e6
"""Ranges below this share of the widest are drawn there; spreads above are not told apart."""


@dataclass(frozen=True, eq=False)
class Look:
    """What is on show.

    Attributes:
        name: The layer's.
        layers: All of them.
        setting: How it is quantized now.
        all: The fits of all layers by name, at one setting.
        base: That setting.
        walk: The product that is followed.
    """

    name: str
    layers: Layers
    setting: Setting
    all: dict[str, Fit]
    base: Setting
    walk: Walk

    @property
    def fit(self) -> Fit:
        """The layer as it is now."""
        return self.layers.fit(self.name, self.setting)

    @property
    def samples(self) -> int:
        """How many samples the outputs are of."""
        return self.layers.samples

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
    return histogram("Weight and its levels", "weight", k.fit.weight, k.walk.w)


def inputs(k: Look) -> Panel:
    """Return the histogram of what the layer reads, with the levels."""
    return histogram("Input and its levels", "input", k.fit.input, k.walk.x)


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
    if size := abs(k.walk.w.x):
        spot = 1.0 + np.flatnonzero(order == k.walk.channel)
        marks.append(Points("d", spot, np.array([max(size, floor)]), label="the weight, followed"))
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
    marks = [Bars("a", edges, heights), Steps("a", edges, heights, label="output on the images, dB")]
    said = ", ".join(f"{name} {db:.2f} dB" for name, db in zip(NOISES, now, strict=True))
    text = f"The layer's output against its error, on {k.samples} samples: {said}. 6 dB are one bit."
    y = Axis(
        "signal to noise (dB)", min(0.0, float(heights.min()) - 1), max(30.0, 1.1 * float(heights.max()))
    )
    x = Axis("what is quantized", 0.5, len(now) + 0.5, names=("both", "weight", "input"))
    told = np.isfinite(k.walk.ratios) | (k.walk.ratios > 0)
    if told.any():
        dots = np.clip(shown(k.walk.ratios[told]), y.low, y.high)
        marks.append(Points("d", 1.0 + np.flatnonzero(told), dots, label="the product, followed"))
        text += " The product that is followed: " + ", ".join(f"{db:.2f} dB" for db in k.walk.ratios) + "."
    return Panel("Output of the layer", x, y, tuple(marks), text)


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
    notes = (f"With {k.base}, each layer by itself, on {k.samples} samples", *k.layers.left)
    roles = tuple("e" if name == k.name else "c" for name in k.all)
    return Table(HEADERS, tuple(cells), roles, values, notes, opens="Layer", opened=k.name)


def scene(k: Look) -> Scene:
    """Return all panels and the table."""
    size = "×".join(map(str, k.layers.weight(k.name).shape))
    title = f"{k.name or 'the model itself'} ({size}): {k.setting}, output {k.fit.outputs.local:.2f} dB"
    parts = weights(k), inputs(k), channels(k), noise(k), overview(k)
    return Scene(title, parts, table(k), f"{k.layers.about}. {told(k)}")


def told(k: Look) -> str:
    """Return what was done to the layer, what came of it, and the way of the one product."""
    text = "The layer is quantized by itself, on what it reads in the float network."
    before = k.all[k.name].outputs.local
    if k.setting != k.base:
        text += f" With {k.base} its output has {before:.2f} dB, now {k.fit.outputs.local:.2f} dB."
    if k.fit.outputs.fitted:
        text += " Its output has a unit of its own: ratios are those after the best factor of each channel."
    return text + (f" ({k.fit.note}.)" if k.fit.note else "") + f" {k.walk.text}"


def headline(fit: Fit) -> dict[str, float]:
    """Return what a picture is compared by: the ratios of the output and of the weight."""
    names = [f"output, {name} (dB)" for name in NOISES]
    found = dict(zip(names, ratios(fit), strict=True)) | {"weight (dB)": fit.weight.codes.sqnr_db}
    return {name: value for name, value in found.items() if np.isfinite(value)}


def thinned(names: tuple[str, ...], most: int, kept: str) -> tuple[str, ...]:
    """Return so many of the layers, from the first to the last, with one that is kept."""
    some = [names[i] for i in np.unique(np.linspace(0, len(names) - 1, most).astype(int))]
    return tuple(some if kept in some else [kept, *some[1:]])
