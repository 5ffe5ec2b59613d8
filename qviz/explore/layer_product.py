"""Layer product: the layer that is open, how it is quantized, and one product that is followed through it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from qviz.explore.controls import Number, Pick, Slide, control
from qviz.explore.layer_fit import Layers
from qviz.explore.layer_setting import CHANNEL, TENSOR, Setting, own_range, parsed
from qviz.explore.layer_walk import Tracks, nearest
from qviz.explore.model import Model, changed
from qviz.methods.pairs import METHODS
from qviz.methods.ranges import EITHER


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


class ProductModel(Model[LayerChoice]):
    """A layer with a weight and an input that are followed; a subclass sets ``layers`` and draws."""

    layers: Layers

    def tracks(self, c: LayerChoice) -> Tracks:
        """Return the numbers that can be followed."""
        return self.layers.tracks(c.layer, c.setting, c.weight)

    def limits(self, c: LayerChoice) -> dict[str, dict[str, Any]]:
        """Return layers and methods, and how many numbers there are; some methods have one range only."""
        tracks = self.tracks(c)
        return {
            "weight": {"high": tracks.weight.numel()},
            "place": {"high": max(len(tracks.met), 1)},
            "layer": {"options": self.layers.names},
            "recipe": {"options": tuple(METHODS)},
            "ranges": {"shown": c.recipe in EITHER},
        }

    def begun(self, c: LayerChoice) -> LayerChoice:
        """Return the choice with a weight and an input that are half as large as the largest."""
        c = self.followed(replace(c, weight=nearest(self.tracks(c).weights())))
        return self.followed(replace(c, place=nearest(self.tracks(c).inputs())))

    def settled(self, before: LayerChoice, after: LayerChoice) -> LayerChoice:
        """Give another recipe the ranges that it has by itself, another layer numbers of its own."""
        moves = changed(before, after)
        if moves == {"recipe"}:
            after = replace(after, ranges=own_range(after.recipe))
        anew = "layer" in moves and not moves & {"weight", "place"}
        return self.begun(after) if anew else self.followed(after)

    def followed(self, c: LayerChoice) -> LayerChoice:
        """Keep bits and ranges to those that the recipe has, and the numbers to those of the layer."""
        c = replace(c, **vars(c.setting.possible))
        return self.inside(self.inside(c, "weight"), "place")

    def dragged(self, c: LayerChoice, panel: int, mark: int, index: int, x: float, y: float) -> LayerChoice:
        """Follow the weight or the input nearest to where its dot was dropped, or open that layer."""
        if panel < 2:
            tracks = self.tracks(c)
            name, values = ("place", tracks.inputs()) if panel else ("weight", tracks.weights())
            moved = {name: nearest(values, x)}
        else:
            names = self.layers.names
            moved = {"layer": names[min(max(round(x), 1), len(names)) - 1]}
        return self.settled(c, replace(c, **moved))

    def restored(self, state: Mapping[str, Any]) -> LayerChoice:
        """Return the choice that a state describes; another layer without numbers has those of its own."""
        c = super().restored(state)
        anew = c.layer != self.start.layer and not {"weight", "place"} & state.keys()
        return self.begun(c) if anew else c

    def parsed(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the state with its setting as such."""
        return {**state, "base": parsed(state["base"])} if "base" in state else state
