"""Layer: one layer of a network, quantized by itself, beside all the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import nn

from qviz.explore import layer_panels as panels
from qviz.explore.controls import Number, Pick, Slide, control
from qviz.explore.layer_fit import opened
from qviz.explore.layer_panels import Look, thinned
from qviz.explore.layer_setting import CHANNEL, TENSOR, Setting, begun, own_range, parsed
from qviz.explore.layer_walk import Tracks, nearest
from qviz.explore.model import USUAL_PICTURES, Action, Model, Progress, changed
from qviz.methods.pairs import METHODS
from qviz.methods.ranges import EITHER
from qviz.nn.batches import Batch
from qviz.plot.scene import Scene


@dataclass(frozen=True)
class LayerChoice:
    """A layer, and how it is quantized."""

    layer: str = control("", Pick("Layer", "The layer that is open; the table's rows open theirs."))
    recipe: str = control("lsq", Pick("Recipe", "The method that quantizes weight and input."))
    bits: int = control(4, Slide("Bits of w", "The bit width of the weight.", low=2, high=8, step=1))
    a_bits: int = control(4, Slide("Bits of x", "The bit width of the input.", low=2, high=8, step=1))
    ranges: str = control(
        TENSOR,
        Pick("Range", "One range for the whole weight, or one for each channel.", options=(TENSOR, CHANNEL)),
    )
    weight: int = control(1, Number("Weight", "A weight to follow, by its number; drag its dot.", low=1))
    place: int = control(1, Number("Place", "Which of the inputs that it meets; drag its dot.", low=1))
    base: tuple[Any, ...] = ()

    @property
    def setting(self) -> Setting:
        """How the layer is quantized."""
        return Setting(self.recipe, self.bits, self.a_bits, self.ranges)


class LayerModel(Model[LayerChoice]):
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
        self.start = self._begun(LayerChoice(layer, *setting.plain, base=setting.plain))

    def limits(self, c: LayerChoice) -> dict[str, dict[str, Any]]:
        """Return layers and methods, and how many numbers there are; some methods have one range only."""
        tracks = self._tracks(c)
        return {
            "weight": {"high": tracks.weight.numel()},
            "place": {"high": max(len(tracks.met), 1)},
            "layer": {"options": self.layers.names},
            "recipe": {"options": tuple(METHODS)},
            "ranges": {"shown": c.recipe in EITHER},
        }

    def settled(self, before: LayerChoice, after: LayerChoice) -> LayerChoice:
        """Give another recipe the ranges that it has by itself, another layer numbers of its own."""
        moves = changed(before, after)
        if moves == {"recipe"}:
            after = replace(after, ranges=own_range(after.recipe))
        anew = "layer" in moves and not moves & {"weight", "place"}
        return self._begun(after) if anew else self.followed(after)

    def followed(self, c: LayerChoice) -> LayerChoice:
        """Keep bits and ranges to those that the recipe has, and the numbers to those of the layer."""
        c = replace(c, **vars(c.setting.possible))
        return self.inside(self.inside(c, "weight"), "place")

    def _begun(self, c: LayerChoice) -> LayerChoice:
        """Return the choice with a weight and an input that are half as large as the largest."""
        c = self.followed(replace(c, weight=nearest(self._tracks(c).weights())))
        return self.followed(replace(c, place=nearest(self._tracks(c).inputs())))

    def _tracks(self, c: LayerChoice) -> Tracks:
        return self.layers.tracks(c.layer, c.setting, c.weight)

    def dragged(self, c: LayerChoice, panel: int, mark: int, index: int, x: float, y: float) -> LayerChoice:
        """Follow the weight or the input nearest to where its dot was dropped, or open that layer."""
        if panel < 2:
            tracks = self._tracks(c)
            name, values = ("place", tracks.inputs()) if panel else ("weight", tracks.weights())
            moved = {name: nearest(values, x)}
        else:
            names = self.layers.names
            moved = {"layer": names[min(max(round(x), 1), len(names)) - 1]}
        return self.settled(c, replace(c, **moved))

    def actions(self, c: LayerChoice) -> dict[str, Action[LayerChoice]]:
        """Return the button that brings the table to the present setting."""
        text = "Quantize every layer like this one, each by itself"
        return {"all": Action("All layers so", text, work=self.measured, shown=c.setting.plain != c.base)}

    def measured(self, c: LayerChoice) -> Iterator[Progress]:
        """Yield how many layers are quantized, and at last what brings a table to their setting."""
        yield from self.layers.all(c.setting)
        yield lambda now: replace(now, base=c.setting.plain)

    def parsed(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the state with its setting as such."""
        return {**state, "base": parsed(state["base"])} if "base" in state else state

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
        walk = self.layers.tracks(c.layer, c.setting, c.weight).at(c.place)
        return Look(c.layer, self.layers, c.setting, every, Setting(*c.base), walk)

    def scene(self, c: LayerChoice) -> Scene:
        """Return weight with levels, ranges of channels, error of the output, and all layers."""
        return panels.scene(self.look(c))
