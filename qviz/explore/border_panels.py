"""Border panels: products, the border in its cells, whose error it is, and what it is worth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, replace
from functools import lru_cache

import numpy as np
from torch import Tensor

from qviz.explore.border_data import Layer, layers
from qviz.explore.border_product import Product, surface
from qviz.nn.ptq.errors import Errors
from qviz.plot import ptq as pictures
from qviz.plot.scene import Axis, Bars, Heat, Line, Mark, Panel, Points, Rule, Steps

TERMS = ("weights", "rounded inputs", "from before", "the whole")


@dataclass(frozen=True, eq=False)
class Border:
    """A border over the range of a grid.

    Attributes:
        u: Activations in steps, (n,).
        height: B there, (n,).
        thresholds: Where rounding changes, one a cell, (R,).
    """

    u: Tensor
    height: Tensor
    thresholds: Tensor

    def at(self, shares: Iterable[float]) -> np.ndarray:
        """Return B at some shares of the range."""
        u = self.u.double().numpy()
        return np.interp(np.array(list(shares)) * u[-1], u, self.height.double().numpy())


def product(one: Product, best: bool) -> Panel:
    """Show the error of every product, the thresholds, and the one that is looked at."""
    s = one.surface
    half = tuple(n + 0.5 for n in range(len(s.cuts)))
    top = float(surface(one.bits, half).values.max())
    gap = np.full((len(s.cuts), 1), np.nan)
    cuts = np.concatenate([s.cuts, gap], 1).ravel()[:-1]
    places = np.tile(np.append(s.w, np.nan), len(s.cuts))[:-1]
    marks = (
        Heat("data", s.w, s.u, s.values, (0.0, top), label=f"|error|, 0 to {top:.3g}"),
        Line("data", places, cuts, label="threshold"),
        Points("e", np.array([one.w]), np.array([one.u]), "xy", label="one product"),
    )
    own = "each weight has its own best border" if best else "all weights share the border"
    mean = f"mean {s.values.mean():.4g}"
    text = f"Errors |w'x' − wu| from 0 to {top:.3g}, {mean}; {own}. {'; '.join(one.words)}."
    x, y = Axis("weight w (steps)", s.w[0], s.w[-1]), Axis("activation u (steps)", s.u[0], s.u[-1])
    return Panel("Error of a product", x, y, marks, text)


@lru_cache(maxsize=256)
def _background(network: str, bits: int, channel: int | None) -> Panel:
    layer = layers()[network, bits]
    u = (layer.x if channel is None else layer.x[:, channel]) / layer.step
    some = {"one half": (np.array([0.0, layer.steps]), np.array([0.5, 0.5]))}
    return pictures.border(u, some, levels=layer.steps + 1)


def cells(layer: Layer, border: Border, one: Product, channel: int | None) -> Panel:
    """Show a border over the cells, with dots that bend it; over one channel's activations, or all."""
    base = _background(layer.network, layer.bits, channel)
    cuts = border.thresholds.double().numpy()
    bends = np.array([0.0, 0.5, 1.0])
    marks: list[Mark] = [
        replace(base.marks[0], label="activations"),
        replace(base.marks[1], label="fraction t"),
        Line("a", border.u.double().numpy(), border.height.double().numpy(), label="border B"),
        Points("data", cuts, cuts - np.arange(len(cuts)), label="threshold"),
        Points("a", bends * layer.steps, border.at(bends), "y"),
        Points("e", np.array([one.u]), np.array([one.t]), label="the product's u"),
    ]
    whose = "all channels" if channel is None else f"channel {channel + 1}"
    low, high = float(border.height.min()), float(border.height.max())
    text = (
        f"Border of {whose}: from {low:.2g} to {high:.2g}, thresholds "
        f"{', '.join(f'{cut:.3g}' for cut in cuts)}. {base.text.split('. ')[0]}."
    )
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


def bars(own: float, known: Mapping[str, float], roles: Mapping[str, str]) -> Panel:
    """Show what the border on show is worth on held-out images, and what it is compared with."""
    found = {"on show": ("a", own), **{name: (roles[name], value) for name, value in known.items()}}
    marks: list[Mark] = [Rule("ideal", 100.0, "y", label="one half")]
    for i, (name, (role, value)) in enumerate(found.items()):
        marks.append(Bars(role, np.array([i + 0.6, i + 1.4]), np.array([value]), label=name))
    text = ", ".join(f"{name} {value:.1f} %" for name, (_, value) in found.items())
    x = Axis("in the order of the table", 0.5, len(found) + 0.5)
    y = Axis("error of the output (%)", 0.0, 1.1 * max(100.0, own, *known.values()))
    return Panel("Held-out error", x, y, tuple(marks), f"{text}; rounding at one half is 100 %.")
