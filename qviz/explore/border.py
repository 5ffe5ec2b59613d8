"""Border: where an activation rounds up, for one product and for a layer of the shipped ResNet-20."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from qviz.core.grids import uniform
from qviz.core.rounding import CellBorder, Rounding
from qviz.explore.border_data import BIAS, BOTH, FORMULA, HALF, LEARNED, NAME, ORACLE, Layer, layers
from qviz.explore.border_panels import Border, bars, cells, product, terms
from qviz.explore.border_product import Product
from qviz.explore.controls import Number, Pick, Slide, Tick, control
from qviz.explore.model import Model, changed
from qviz.methods.aquant import AdaptiveBorder
from qviz.nn.ptq.errors import Errors
from qviz.plot.scene import Scene, Table

HAND = "by hand"
WAYS = (HALF, FORMULA, LEARNED, HAND)
KNOWN = {FORMULA: "b", LEARNED: "c", BIAS: "d", BOTH: "e", ORACLE: "f"}
"""What a border is compared with, and the roles."""
BENDS = {"low": 0.0, "middle": 0.5, "high": 1.0}
"""The controls that bend a border by hand, and where each does, as a share of the largest level."""


def _bend(short: str, where: str) -> Slide:
    return Slide(f"B {short}", f"The border {where}, by hand.", low=0.02, high=0.98, step=0.01)


@dataclass(frozen=True)
class BorderChoice:
    """A border on one layer, and one product of a weight and an activation."""

    network: str = control("nearest", Pick("Network", "How the network was quantized."))
    bits: int = control(2, Slide("Bits", "The bits of weights and activations.", low=2, high=4, step=1))
    border: str = control(HALF, Pick("Border", "Where an activation rounds up.", options=WAYS))
    low: float = control(0.5, _bend("at 0", "at the lowest level"))
    middle: float = control(0.5, _bend("middle", "in the middle"))
    high: float = control(0.5, _bend("at top", "at the top level"))
    channel: int = control(
        1, Slide("Channel", "The input channel whose border is shown.", low=1, high=32, step=1)
    )
    weight: float = control(0.7, Number("Weight w", "The weight of one product, in steps.", step=0.05))
    activation: float = control(1.6, Number("Input u", "Its activation, in steps.", step=0.05))
    compare: bool = control(True, Tick("Compare", "Show what formula, learning, a bias and an oracle give."))


class BorderModel(Model[BorderChoice]):
    """Rounding borders: the error of one product, and that of a real layer, beside a bias and an oracle."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "rounding at one half": {},
        "the best border of one product": {"border": FORMULA, "bits": 3, "weight": 1.4, "activation": 3.5},
        "learned, rounded weights": {"border": LEARNED},
        "learned, after least squares": {"border": LEARNED, "network": "least squares"},
    }
    rescales = ("network", "bits")

    def __init__(self) -> None:
        self.layers = layers()
        self.start = self.followed(BorderChoice())

    def layer(self, c: BorderChoice) -> Layer:
        """Return the recorded layer."""
        return self.layers[c.network, c.bits]

    def limits(self, c: BorderChoice) -> dict[str, dict[str, Any]]:
        """Return the networks, and numbers that the grids reach."""
        half, top = 2 ** (c.bits - 1), 2**c.bits - 1
        return {
            "network": {"options": tuple(dict.fromkeys(name for name, _ in self.layers))},
            "channel": {"high": self.layer(c).channels, "shown": c.border in (FORMULA, LEARNED)},
            "weight": {"low": -half - 0.5, "high": half - 0.5},
            "activation": {"low": 0.0, "high": float(top)},
        }

    def shown(self, c: BorderChoice) -> Border:
        """Return the border on show, of one channel, and the thresholds that it makes."""
        return _border(*_way(c), c.channel - 1)

    def error(self, c: BorderChoice) -> float:
        """Return the error of the layer's output, in percent of that with all borders at one half."""
        return 100 * _judged(*_way(c))[0] / self.layer(c).known[HALF]

    def settled(self, before: BorderChoice, after: BorderChoice) -> BorderChoice:
        """Take a border that was bent for one that is made by hand."""
        if changed(before, after) & BENDS.keys():
            after = replace(after, border=HAND)
        return self.followed(after)

    def followed(self, c: BorderChoice) -> BorderChoice:
        """Bring numbers inside the grids, and the bends to the border on show."""
        c = self.inside(c, "weight", "activation")
        found = zip(BENDS, self.shown(c).at(BENDS.values()), strict=True)
        return self.inside(replace(c, **dict(found)), *BENDS)

    def dragged(self, c: BorderChoice, panel: int, mark: int, index: int, x: float, y: float) -> BorderChoice:
        """Bring the product to where its dot was dropped, or bend the border."""
        if panel == 0:
            return self.followed(replace(c, weight=round(x, 3), activation=round(y, 3)))
        name = list(BENDS)[index]
        return self.followed(self.inside(replace(c, border=HAND, **{name: y}), name))

    def paged(self, c: BorderChoice) -> dict[str, tuple[Any, ...]]:
        """Return networks, borders and bits: what a page has by default."""
        limits = self.limits(c)
        return {"network": limits["network"]["options"], "border": WAYS[:-1], "bits": (2, 4)}

    def headline(self, c: BorderChoice) -> dict[str, float]:
        """Return the error of the layer and that of the product."""
        return {
            "held-out error (% of one half)": self.error(c),
            "error of the product": self.product(c).error,
        }

    def product(self, c: BorderChoice) -> Product:
        """Return the arithmetic of one product."""
        return Product.of(
            c.bits, c.weight, c.activation, None if c.border == FORMULA else self.shown(c).thresholds
        )

    def scene(self, c: BorderChoice) -> Scene:
        """Return the errors of products, the border, whose error it is, and what it is worth held out."""
        layer, border, one = self.layer(c), self.shown(c), self.product(c)
        found, half = (_judged(*_way(of))[1] for of in (c, replace(c, border=HALF)))
        known = {way: 100 * value / layer.known[HALF] for way, value in layer.known.items()}
        names = {name: known[name] for name in KNOWN if c.compare}
        panels = (
            product(one, c.border == FORMULA),
            cells(layer, border, one, c.channel - 1 if c.border in (FORMULA, LEARNED) else None),
            terms(found, half),
            bars(self.error(c), names, KNOWN),
        )
        about = (
            f"One product, and {NAME}, a convolution with {layer.channels} input channels in a ResNet-20 "
            f"with {c.bits}-bit weights and activations (network: {c.network}). Its errors are those of its "
            f"output on {len(layer.x)} test images, against floating point; "
            "100 % is rounding at one half. The border's form is INFERRED."
        )
        return Scene(f"Border: {c.border}", panels, self._table(c, layer, one), about)

    def _table(self, c: BorderChoice, layer: Layer, one: Product) -> Table:
        rows = {
            f"on show: {c.border}": (self.error(c), c.border),
            **{name: (None, name) for name in KNOWN if c.compare},
        }
        values, cells = {}, []
        for name, (error, way) in rows.items():
            here = 100 * layer.known[way] / layer.known[HALF] if error is None else error
            found = [
                100 * of[way] / of[HALF] if way in of else None for of in (layer.others, layer.learned_from)
            ]
            values[name] = dict(zip(("held out", "others", "learned from"), (here, *found), strict=True))
            cells.append((name, *("–" if v is None else f"{v:.1f}" for v in values[name].values())))
        headers = ("error (%)", f"{len(layer.x)} images", "256 more", "images learned from")
        return Table(headers, tuple(cells), ("a", *KNOWN.values())[: len(cells)], values, one.words)


def _way(c: BorderChoice) -> tuple[str, int, str, tuple[float, ...]]:
    """Return all that decides how a layer's input is rounded."""
    return c.network, c.bits, c.border, (c.low, c.middle, c.high) if c.border == HAND else ()


def _rounding(network: str, bits: int, border: str, bend: tuple[float, ...]) -> Rounding:
    layer = layers()[network, bits]
    return AdaptiveBorder(layer.steps).through(*bend) if border == HAND else layer.rounding(border)


@lru_cache(maxsize=256)
def _judged(network: str, bits: int, border: str, bend: tuple[float, ...]) -> tuple[float, Errors]:
    """Return the error of the output, and its terms."""
    return layers()[network, bits].judged(_rounding(network, bits, border, bend))


@lru_cache(maxsize=256)
@torch.no_grad()
def _border(network: str, bits: int, border: str, bend: tuple[float, ...], channel: int) -> Border:
    """Return the border of one channel over the range of the grid."""
    layer, rounding = layers()[network, bits], _rounding(network, bits, border, bend)
    book = uniform(bits, signed=False)
    if isinstance(rounding, AdaptiveBorder):
        v = torch.linspace(0.0, layer.steps, 121)
        u = v if rounding.channels is None else v.expand(1, rounding.channels, -1)
        height = rounding.element(u, book)
        cuts = rounding.freeze(book).border
        return Border(v, height if height.ndim == 1 else height[0, channel], _one(cuts, channel))
    cells = torch.arange(layer.steps, dtype=torch.float64)
    cuts = _one(rounding.border, channel) if isinstance(rounding, CellBorder) else cells + 0.5
    ends = torch.stack([cells, cells + 1.0], 1).flatten()
    return Border(ends, (cuts - cells).repeat_interleave(2), cuts)


def _one(cuts: Tensor, channel: int) -> Tensor:
    return cuts if cuts.ndim == 1 else cuts[:, channel]
