"""Layer: one layer of a network, quantized by itself, beside all the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from torch import nn

from qviz.explore import layer_panels as panels
from qviz.explore.layer_fit import opened
from qviz.explore.layer_panels import Look, thinned
from qviz.explore.layer_product import LayerChoice, ProductModel
from qviz.explore.layer_setting import CHANNEL, Setting, begun
from qviz.explore.model import USUAL_PICTURES, Action, Progress
from qviz.nn.batches import Batch
from qviz.plot.scene import Scene


class LayerModel(ProductModel):
    """A layer of a network by itself: levels, ranges, and the error of its output; and a table of all layers.

    The arguments, and what is refused, are those of :class:`~qviz.widgets.LayerExplorer`.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "one range for each channel": {"ranges": CHANNEL},
        "3-bit weights": {"bits": 3},
        "powers of √2": {"recipe": "post", "ranges": CHANNEL},
        "a codebook": {"recipe": "adq"},
    }
    rescales = ("layer", "recipe")

    def __init__(
        self,
        model: nn.Module | None = None,
        images: Batch | Iterable[Batch] | None = None,
        *,
        layer: str | None = None,
        recipe: str = "lsq",
        bits: int | tuple[int, int] = 4,
    ) -> None:
        setting = begun(recipe, bits)
        self.layers, self.sources = opened(model, images)
        layer = self.layers.opened(None if self.sources.problem else layer, setting)
        self.start = self.begun(LayerChoice(layer, *setting.plain, base=setting.plain))

    def actions(self, c: LayerChoice) -> dict[str, Action[LayerChoice]]:
        """Return the button that brings the table to the present setting."""
        text = "Quantize every layer like this one, each by itself"
        return {"all": Action("All layers so", text, work=self.measured, shown=c.setting.plain != c.base)}

    def measured(self, c: LayerChoice) -> Iterator[Progress]:
        """Yield how many layers are quantized, and at last what brings a table to their setting."""
        yield from self.layers.all(c.setting)
        yield lambda now: replace(now, base=c.setting.plain)

    def paged(self, c: LayerChoice) -> dict[str, tuple[Any, ...]]:
        """Return all layers as far as there is room, and few bit widths."""
        some = thinned(self.layers.names, USUAL_PICTURES // 2, c.layer)
        return {"layer": some, "bits": (3, 4) if len(some) > 12 else (2, 3, 4, 8)}

    def headline(self, c: LayerChoice) -> dict[str, float]:
        """Return the ratios of the output and of the weight."""
        return panels.headline(self.layers.fit(c.layer, c.setting))

    def look(self, c: LayerChoice) -> Look:
        """Return all that the panels show."""
        every = {name: self.layers.fit(name, Setting(*c.base)) for name in self.layers.names}
        walk = self.tracks(c).at(c.place)
        return Look(c.layer, self.layers, c.setting, every, Setting(*c.base), walk)

    def scene(self, c: LayerChoice) -> Scene:
        """Return weight with levels, ranges of channels, error of the output, and all layers."""
        return panels.scene(self.look(c))
