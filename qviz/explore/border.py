"""Border: where an activation rounds up, for one product and for a layer of the shipped ResNet-20."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from qviz.explore import border_panels as draw
from qviz.explore.border_data import FORMULA, HALF, LEARNED, NAME, Layer, layers
from qviz.explore.border_product import Product
from qviz.explore.border_ways import BENDS, HAND, WAYS, Border, BorderChoice, border, judged
from qviz.explore.model import Model, changed
from qviz.plot.scene import Scene


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
        return border(c.way, c.channel - 1)

    def error(self, c: BorderChoice) -> float:
        """Return the error of the layer's output, in percent of that with all borders at one half."""
        return judged(c.way)[0]

    def settled(self, before: BorderChoice, after: BorderChoice) -> BorderChoice:
        """Take a border that was bent for one that is made by hand."""
        bent = changed(before, after) & BENDS.keys()
        return self.followed(replace(after, border=HAND) if bent else after)

    def followed(self, c: BorderChoice) -> BorderChoice:
        """Bring numbers inside the grids, and the bends to the border on show."""
        c = self.inside(c, "weight", "activation")
        found = dict(zip(BENDS, self.shown(c).bends, strict=True))
        return self.inside(replace(c, **found), *BENDS)

    def dragged(self, c: BorderChoice, panel: int, mark: int, index: int, x: float, y: float) -> BorderChoice:
        """Bring the product to where its dot was dropped, or bend the border."""
        if panel == 0:
            return self.followed(replace(c, weight=round(x, 3), activation=round(y, 3)))
        name = list(BENDS)[index]
        return self.followed(self.inside(replace(c, border=HAND, **{name: y}), name))

    def paged(self, c: BorderChoice) -> dict[str, tuple[Any, ...]]:
        """Return networks, borders and bits: what a page has by default."""
        return {"network": self.limits(c)["network"]["options"], "border": WAYS[:-1], "bits": (2, 4)}

    def headline(self, c: BorderChoice) -> dict[str, float]:
        """Return the error of the layer and that of the product."""
        held, one = self.error(c), self.product(c).error
        return {"held-out error (% of one half)": held, "error of the product": one}

    def product(self, c: BorderChoice) -> Product:
        """Return the arithmetic of one product."""
        cuts = None if c.border == FORMULA else tuple(self.shown(c).thresholds.tolist())
        return Product.of(c.bits, c.weight, c.activation, cuts)

    def scene(self, c: BorderChoice) -> Scene:
        """Return the errors of products, the border, whose error it is, and what it is worth held out."""
        layer, one, (held, errors) = self.layer(c), self.product(c), judged(c.way)
        table = draw.table(layer, c.border, held, draw.KNOWN if c.compare else (), one.words)
        channel = c.channel - 1 if c.border in (FORMULA, LEARNED) else None
        panels = (
            draw.product(one, c.border == FORMULA),
            draw.cells(layer, self.shown(c), one, channel),
            draw.terms(errors, judged(replace(c, border=HALF).way)[1]),
            draw.bars(table),
        )
        about = (
            f"One product, and {NAME}, a convolution with {layer.channels} input channels in a ResNet-20 "
            f"with {c.bits}-bit weights and activations (network: {c.network}). Its errors are those of its "
            f"output on {len(layer.x)} test images, against floating point; "
            "100 % is rounding at one half. The border's form is INFERRED."
        )
        return Scene(f"Border: {c.border}", panels, table, about)
