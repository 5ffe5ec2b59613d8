"""Layer: one layer of a network, quantized by itself, beside all the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from torch import nn

from qviz.core import _check
from qviz.explore import layer_panels as panels
from qviz.explore import network
from qviz.explore.controls import Pick, Slide, control
from qviz.explore.layer_fit import CHANNEL, SAMPLES, TENSOR, Layers, Setting, own_range
from qviz.explore.layer_panels import Look, ratios
from qviz.explore.model import USUAL_PICTURES, Action, Model, Progress, changed
from qviz.explore.tensors import Offer
from qviz.methods.pairs import METHODS
from qviz.methods.ranges import EITHER
from qviz.nn.batches import Batch
from qviz.plot.scene import Scene

MOST = {"apot": 7}
"""The most bits of a method that has fewer than eight."""


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
        if (model is None) != (images is None):
            raise ValueError(
                f"model and images belong together, got only {'images' if model is None else 'a model'}"
            )
        if recipe not in METHODS:
            raise ValueError(f"unknown recipe {recipe!r}; there are {list(METHODS)}")
        both = bits if isinstance(bits, tuple) and len(bits) == 2 else (bits, bits)
        w_bits, a_bits = (_check.bits(one, 2, MOST.get(recipe, 8), "LayerExplorer") for one in both)
        self.sources, self.layers = Offer(), None
        if model is not None:
            try:
                self.layers = Layers(model, images)
            except (TypeError, ValueError, RuntimeError) as problem:
                self.sources.problem = f"Your model is left out: {problem}."
                layer = None
        self.about = "Your network" if self.layers else "The shipped ResNet-20, on images of CIFAR-10"
        if self.layers is None:
            self.layers = Layers(network.resnet20(), network.sample()[0][:SAMPLES])
        names = self.layers.names
        if layer is not None and layer not in names:
            raise ValueError(f"there is no layer {layer!r} to open; there are {list(names)}")
        setting = Setting(recipe, w_bits, a_bits, own_range(recipe))
        start = LayerChoice(names[0], recipe, w_bits, a_bits, setting.ranges, _plain(setting))
        worst = min(names, key=lambda name: self.layers.fit(name, setting).outputs.local)
        self.start = replace(start, layer=worst if layer is None else layer)

    def limits(self, c: LayerChoice) -> dict[str, dict[str, Any]]:
        """Return the network's layers and the methods; the range has a choice in some of them only."""
        return {
            "layer": {"options": self.layers.names},
            "recipe": {"options": tuple(METHODS)},
            "ranges": {"shown": c.recipe in EITHER},
        }

    def settled(self, before: LayerChoice, after: LayerChoice) -> LayerChoice:
        """Give another recipe the ranges that it has by itself."""
        if changed(before, after) == {"recipe"}:
            after = replace(after, ranges=own_range(after.recipe))
        return self.followed(after)

    def followed(self, c: LayerChoice) -> LayerChoice:
        """Keep bits and ranges to those that the recipe has."""
        most = MOST.get(c.recipe, 8)
        ranges = c.ranges if c.recipe in EITHER else own_range(c.recipe)
        return replace(c, bits=min(c.bits, most), a_bits=min(c.a_bits, most), ranges=ranges)

    def dragged(self, c: LayerChoice, panel: int, mark: int, index: int, x: float, y: float) -> LayerChoice:
        """Open the layer to which the dot was dragged."""
        names = self.layers.names
        return replace(c, layer=names[min(max(round(x), 1), len(names)) - 1])

    def actions(self, c: LayerChoice) -> dict[str, Action[LayerChoice]]:
        """Return the button that brings the table to the present setting."""
        text = "Quantize every layer like this one, each by itself"
        return {"all": Action("All layers so", text, work=self.measured, shown=_plain(c.setting) != c.base)}

    def measured(self, c: LayerChoice) -> Iterator[Progress]:
        """Yield how many layers are quantized, and at last what brings a table to their setting."""
        setting = c.setting
        for i, name in enumerate(self.layers.names, 1):
            self.layers.fit(name, setting)
            yield i / len(self.layers.names)
        yield lambda now: replace(now, base=_plain(setting))

    def parsed(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the state with its setting as such.

        Raises:
            ValueError: It is none.
        """
        if "base" not in state:
            return state
        base = tuple(state["base"])
        kinds = (str, int, int, str)
        if len(base) != 4 or not all(isinstance(v, k) for v, k in zip(base, kinds, strict=True)):
            raise ValueError(f"base must be a recipe, two numbers of bits and a range, got {list(base)}")
        if base[0] not in METHODS or not 2 <= min(base[1:3]) <= max(base[1:3]) <= MOST.get(base[0], 8):
            raise ValueError(f"base must be a recipe, and bits from 2 to 8, got {list(base)}")
        if base[3] not in ((TENSOR, CHANNEL) if base[0] in EITHER else (own_range(base[0]),)):
            raise ValueError(f"{base[0]} has no range {base[3]!r}")
        return {**state, "base": base}

    def paged(self, c: LayerChoice) -> dict[str, tuple[Any, ...]]:
        """Return all layers as far as there is room, and few bit widths."""
        names = self.layers.names
        some = [names[i] for i in np.unique(np.linspace(0, len(names) - 1, USUAL_PICTURES // 2).astype(int))]
        if c.layer not in some:
            some[0] = c.layer
        return {"layer": tuple(some), "bits": (3, 4) if len(some) > 12 else (2, 3, 4, 8)}

    def headline(self, c: LayerChoice) -> dict[str, float]:
        """Return the ratios of the output and of the weight."""
        fit = self.layers.fit(c.layer, c.setting)
        names = [f"output, {name} (dB)" for name in panels.NOISES]
        found = dict(zip(names, ratios(fit), strict=True)) | {"weight (dB)": fit.weight.codes.sqnr_db}
        return {name: value for name, value in found.items() if np.isfinite(value)}

    def look(self, c: LayerChoice) -> Look:
        """Return all that the panels show."""
        layers, base = self.layers, Setting(*c.base)
        every = {name: layers.fit(name, base) for name in layers.names}
        shape = tuple(layers.weight(c.layer).shape)
        now = layers.fit(c.layer, c.setting)
        return Look(c.layer, now, c.setting, shape, every, base, layers.left, layers.samples)

    def scene(self, c: LayerChoice) -> Scene:
        """Return weight with levels, ranges of channels, error of the output, and all layers."""
        k = self.look(c)
        shown = panels.weights(k), panels.inputs(k), panels.channels(k), panels.noise(k), panels.overview(k)
        size = "×".join(map(str, k.shape))
        title = f"{c.layer or 'the model itself'} ({size}): {c.setting}, output {k.fit.outputs.local:.2f} dB"
        return Scene(title, shown, panels.table(k), self._told(k))

    def _told(self, k: Look) -> str:
        text = f"{self.about}. The layer is quantized by itself, on what it reads in the float network."
        before = k.all[k.name].outputs.local
        if k.setting != k.base:
            text += f" With {k.base} its output has {before:.2f} dB, now {k.fit.outputs.local:.2f} dB."
        if k.fit.outputs.fitted:
            text += (
                " Its output has a unit of its own: ratios are those after the best factor of each channel."
            )
        return text + (f" ({k.fit.note}.)" if k.fit.note else "")


def _plain(setting: Setting) -> tuple[Any, ...]:
    return setting.recipe, setting.bits, setting.a_bits, setting.ranges
