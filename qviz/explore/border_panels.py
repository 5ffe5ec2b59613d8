"""Border panels: products, the border in its cells, whose error it is, and what it is worth."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import astuple, replace
from functools import lru_cache

import numpy as np

from qviz.explore.border_data import BIAS, BOTH, FORMULA, HALF, LEARNED, ORACLE, Layer
from qviz.explore.border_product import Product, surface
from qviz.explore.border_ways import BENDS, Border
from qviz.nn.ptq.errors import Errors
from qviz.plot import ptq as pictures
from qviz.plot.scene import Axis, Bars, Heat, Line, Mark, Panel, Points, Rule, Steps, Table

TERMS = ("weights", "rounded inputs", "from before", "the whole")
KNOWN = {FORMULA: "b", LEARNED: "c", BIAS: "d", BOTH: "e", ORACLE: "f"}
"""What a border is compared with, and the roles."""


def product(one: Product, best: bool) -> Panel:
    """Show the error of every product, the thresholds, and the one that is looked at."""
    s = one.surface
    half = tuple(n + 0.5 for n in range(len(s.cuts)))
    top = float(surface(one.bits, half).values.max())
    marks = (
        Heat("data", s.w, s.u, s.values, (0.0, top), label=f"|error|, 0 to {top:.3g}"),
        Line.of("data", s.w[:, None], s.cuts.T, "threshold"),
        Points("e", np.array([one.w]), np.array([one.u]), "xy", label="one product"),
    )
    own = "each weight has its own best border" if best else "all weights share the border"
    text = (
        f"Errors |w'x' − wu| from 0 to {top:.3g}, mean {s.values.mean():.4g}; {own}. {'; '.join(one.words)}."
    )
    x, y = Axis("weight w (steps)", s.w[0], s.w[-1]), Axis("activation u (steps)", s.u[0], s.u[-1])
    return Panel("Error of a product", x, y, marks, text)


@lru_cache(maxsize=256)
def _background(layer: Layer, channel: int | None) -> Panel:
    u = (layer.x if channel is None else layer.x[:, channel]) / layer.step
    some = {"one half": (np.array([0.0, layer.steps]), np.array([0.5, 0.5]))}
    return pictures.border(u, some, levels=layer.steps + 1)


def cells(layer: Layer, border: Border, one: Product, channel: int | None) -> Panel:
    """Show a border over the cells, with dots that bend it; over one channel's activations, or all."""
    base = _background(layer, channel)
    cuts = border.thresholds.double().numpy()
    marks: list[Mark] = [
        replace(base.marks[0], label="activations"),
        replace(base.marks[1], label="fraction t"),
        Line("a", border.u.double().numpy(), border.height.double().numpy(), label="border B"),
        Points("data", cuts, cuts - np.arange(len(cuts)), label="threshold"),
        Points("a", np.array([*BENDS.values()]) * layer.steps, border.bends, "y"),
        Points("e", np.array([one.u]), np.array([one.t]), label="the product's u"),
    ]
    whose = "all channels" if channel is None else f"channel {channel + 1}"
    low, high = float(border.height.min()), float(border.height.max())
    at, told = ", ".join(f"{cut:.3g}" for cut in cuts), base.text.split(". ")[0]
    text = f"Border of {whose}: from {low:.2g} to {high:.2g}, thresholds {at}. {told}."
    edge = 0.04 * layer.steps  # a dot on the very edge cannot be taken
    x = Axis(base.x.label, -edge, layer.steps + edge)
    return Panel(f"Border, {whose}", x, base.y, tuple(marks), text)


def terms(now: Errors, half: Errors) -> Panel:
    """Show the three terms of the product's error and their sum, beside those of rounding at one half."""
    unit = half.total / 100
    here, there = (np.array(astuple(e)) / unit for e in (now, half))
    edges = np.arange(5) + 0.5
    marks = Bars("a", edges, here, label="on show"), Steps("data", edges, there, label="one half")
    told = zip(TERMS, here, there, strict=True)
    text = "; ".join(f"{name}: {a:.3g} % against {b:.3g} %" for name, a, b in told)
    x = Axis("where it comes from", edges[0], edges[-1], names=("weights", "inputs", "before", "whole"))
    y = Axis("mean square (%)", 0.0, 1.15 * float(max(here.max(), there.max())))
    return Panel("Whose error is it?", x, y, marks, f"{text}. Terms can cancel.")


def bars(table: Table) -> Panel:
    """Show what the border on show is worth on held-out images, and what it is compared with."""
    found = {name.partition(":")[0]: row["held out"] for name, row in table.values.items()}
    marks: list[Mark] = [Rule("ideal", 100.0, "y", label="one half")]
    for i, (role, (name, value)) in enumerate(zip(table.roles, found.items(), strict=True)):
        marks.append(Bars(role, np.array([i + 0.6, i + 1.4]), np.array([value]), label=name))
    text = ", ".join(f"{name} {value:.1f} %" for name, value in found.items())
    x = Axis("in the order of the table", 0.5, len(found) + 0.5)
    y = Axis("error of the output (%)", 0.0, 1.1 * max(100.0, *found.values()))
    return Panel("Held-out error", x, y, tuple(marks), f"{text}; rounding at one half is 100 %.")


def table(layer: Layer, border: str, held: float, ways: Collection[str], notes: tuple[str, ...]) -> Table:
    """Return the errors of the border on show and of what it is compared with, on three sets of images."""
    sets = {"held out": layer.known, "others": layer.others, "learned from": layer.learned_from}
    errors = {name: {way: 100 * v / of[HALF] for way, v in of.items()} for name, of in sets.items()}
    row, *others = ({name: of.get(way) for name, of in errors.items()} for way in (border, *ways))
    values = {f"on show: {border}": row | {"held out": held}, **dict(zip(ways, others, strict=True))}
    cells = [
        (name, *("–" if v is None else f"{v:.1f}" for v in row.values())) for name, row in values.items()
    ]
    headers = ("error (%)", f"{len(layer.x)} images", "256 more", "images learned from")
    return Table(headers, tuple(cells), ("a", *KNOWN.values())[: len(cells)], values, notes)
