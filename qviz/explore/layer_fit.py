"""Layer fits: what a recipe makes of a layer of a network by itself, on what that layer reads there."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qviz.core._text import count, some
from qviz.core.quantizer import Quantizer
from qviz.core.range import Range
from qviz.explore import network
from qviz.explore.layer_setting import Setting
from qviz.explore.layer_walk import Tracks
from qviz.explore.tensors import Offer
from qviz.inspection.networks import Networks, keeps_unit
from qviz.inspection.passes import Measurement
from qviz.inspection.samples import chunks
from qviz.inspection.views import Outputs, Values
from qviz.methods.method import Pair
from qviz.nn.batches import Batch, forward
from qviz.nn.capture import tap
from qviz.nn.convert import deconvert
from qviz.nn.copies import deep_copy
from qviz.nn.plan import plan
from qviz.nn.ptq.fold import fold_batchnorm
from qviz.nn.quant_layer import QuantLayer
from qviz.nn.report import report
from qviz.nn.survey import survey

SAMPLES = 4
"""So many samples are what layers are measured on: all pictures are of the same ones."""

KEPT = 400
"""So many fits are kept."""


@dataclass(frozen=True, eq=False)
class Fit:
    """A layer by itself, quantized, on what it reads in the float network.

    Attributes:
        weight, input, outputs: As an inspection has them, but for the cumulative ratio.
        reach: The largest magnitude that each output channel's range can hold, (C,); None where the range
            changes the weight or each value has one of its own.
        note: What one should know, or "".
        setting: How it was quantized: with as many of the bits as could be had.
    """

    weight: Values
    input: Values
    outputs: Outputs
    reach: np.ndarray | None
    note: str
    setting: Setting


class Layers:
    """The layers of a network that can be quantized, and what each of them reads.

    Args:
        model: Any module; a converted one is looked at with its quantizers off. It stays as it is.
        images: What it takes, as for :func:`~qviz.inspection.inspect`; four samples are used.
        about: What they are, in words.

    Attributes:
        names: Of these layers.
        left: Sentences about those that are left out.
        samples: How many samples there are.

    Raises:
        TypeError, ValueError, RuntimeError: The model does not take the images, or has no layer to show.
    """

    def __init__(
        self, model: nn.Module, images: Batch | Iterable[Batch], about: str = "Your network"
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"the model must be an nn.Module, got {type(model).__name__}")
        net = deep_copy(model).eval()
        if any(isinstance(module, QuantLayer) for module in net.modules()):
            deconvert(net)
        batch, found = chunks(images, SAMPLES)[0].inputs, survey(net)
        left = {name: why for name, (_, why) in found.items() if why is not None}
        with torch.no_grad(), tap(net, [name for name in found if name not in left]) as seen:
            forward(net, batch)
        self.about = about
        self._plain, self._folded = net, _folded(net, batch)
        self.inputs: dict[str, Tensor] = {}
        for name, tapped in seen.items():
            if why := _problem(found[name][0].weight, tapped.inputs):
                left[name] = why
            else:
                self.inputs[name] = tapped.inputs[0]
        self.names = tuple(self.inputs)
        self.left = tuple(f"{name or 'the model itself'}: {why}" for name, why in left.items())
        if not self.names:
            raise ValueError(f"no layer can be shown; {some(self.left) or 'there is no Conv2d or Linear'}")
        self.samples = len(next(iter(self.inputs.values())))
        self._fits: OrderedDict[tuple[str, Setting], Fit] = OrderedDict()
        self._pairs: dict[Setting, Pair] = {}
        self._tracks: dict[tuple[str, Setting, int], Tracks] = {}

    def weight(self, name: str) -> Tensor:
        """Return the weight of a layer, before BatchNorm is folded into it."""
        return self._plain.get_submodule(name).weight.detach()

    def fit(self, name: str, setting: Setting) -> Fit:
        """Return what a setting makes of a layer; the last ones are kept."""
        key = name, setting
        if key not in self._fits:
            while len(self._fits) >= KEPT:
                self._fits.popitem(last=False)
            self._fits[key] = self._fitted(name, setting)
        return self._fits[key]

    def opened(self, name: str | None, setting: Setting) -> str:
        """Return the layer to open: the named one, or the one whose output suffers most.

        Raises:
            ValueError: There is no such layer.
        """
        if name is None:
            return min(self.names, key=lambda name: self.fit(name, setting).outputs.local)
        if name not in self.names:
            raise ValueError(f"there is no layer {name!r} to open; there are {list(self.names)}")
        return name

    def all(self, setting: Setting) -> Iterator[float]:
        """Quantize every layer; yield how many are done, from 0 to 1."""
        for i, name in enumerate(self.names, 1):
            self.fit(name, setting)
            yield i / len(self.names)

    def tracks(self, name: str, setting: Setting, weight: int) -> Tracks:
        """Return the numbers of a layer that can walk: a weight, by its number, and the inputs it meets."""
        fit = self.fit(name, setting.possible)
        setting, weight = fit.setting, min(weight, self.weight(name).numel())
        key = name, setting, weight
        if key not in self._tracks:
            last = next((t for (n, s, _), t in self._tracks.items() if (n, s) == key[:2]), None)
            parts = self._built(name, setting) if last is None else (last.layer, last.twin)
            steps = fit.weight.unit == "step", fit.input.unit == "step"
            made = Tracks(*parts, self.inputs[name], weight, steps, fit.outputs.fitted)
            self._tracks = {key: made}  # no more than one: layers may be large
        return self._tracks[key]

    def pair(self, setting: Setting) -> Pair:
        """Return the pair of a setting."""
        if setting not in self._pairs:
            self._pairs[setting] = setting.pair()
        return self._pairs[setting]

    def network(self, made: Pair) -> nn.Module:
        """Return the float network, with BatchNorm folded in where an inspection would do that."""
        return self._folded if keeps_unit(made) else self._plain

    def _fitted(self, name: str, setting: Setting) -> Fit:
        """Quantize a layer, with as many of the bits as its weight has distinct values for (ADQ)."""
        why = None
        for bits in range(setting.bits, 1, -1):
            try:
                fit = self._quantized(name, replace(setting, bits=bits))
            except ValueError as problem:
                why = why or problem
                continue
            if why is None:
                return fit
            fewer = f"its weight has {bits} bits, not {setting.bits}, as {why}"
            return replace(fit, note="; ".join(filter(None, (fewer, fit.note))))
        raise why

    @torch.no_grad()
    def _quantized(self, name: str, setting: Setting) -> Fit:
        layer, twin = self._built(name, setting)
        measured = Measurement(Networks(layer, twin, report(layer), ("",)))
        measured.add(self.inputs[name])
        weight, read, found, note = measured.of("")
        reach = _reach(layer.weight_quantizer, weight.channels)
        return Fit(weight, read, found, reach, note, setting)

    @torch.no_grad()
    def _built(self, name: str, setting: Setting) -> tuple[QuantLayer, nn.Module]:
        """Return a layer, quantized and calibrated, and its twin in floating point."""
        made, x = self.pair(setting), self.inputs[name]
        twin = copy.deepcopy(self.network(made).get_submodule(name))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # ASQ's network draws its start
            layer = plan(made, name, twin, bool((x < 0).any())).carry_out(copy.deepcopy(twin))
        return layer.eval().observe(x), twin


def opened(model: nn.Module | None, images: Batch | Iterable[Batch] | None) -> tuple[Layers, Offer]:
    """Return the layers of a network, or of the shipped one where that cannot be shown; the offer says why.

    Raises:
        ValueError: Only one of model and images is given.
    """
    offer = Offer()
    if (model is None) != (images is None):
        raise ValueError(
            f"model and images belong together, got only {'images' if model is None else 'a model'}"
        )
    if model is not None:
        try:
            return Layers(model, images), offer
        except (TypeError, ValueError, RuntimeError) as problem:
            offer.problem = f"Your model is left out: {problem}."
    shipped = "The shipped ResNet-20, on images of CIFAR-10"
    return Layers(network.resnet20(), network.sample()[0][:SAMPLES], shipped), offer


def _folded(net: nn.Module, batch: Any) -> nn.Module:
    """Return a copy with BatchNorm folded in, or the network itself where that cannot be done."""
    made = copy.deepcopy(net)
    try:
        fold_batchnorm(made, batch)
    except ValueError:
        return net
    return made


def _problem(weight: Tensor, inputs: list[Any]) -> str:
    """Return why a layer cannot be shown, or ""."""
    if not weight.numel():
        return f"its weight is empty, shape {tuple(weight.shape)}"
    if bad := int((~weight.isfinite()).sum()):
        return f"its weight has {count(bad, 'value')} of {weight.numel():,} that are NaN or infinite"
    if not inputs:
        return "the images do not reach it"
    if not inputs[0].numel():
        return f"what it reads is empty, shape {tuple(inputs[0].shape)}"
    return "" if bool(inputs[0].isfinite().all()) else "what it reads has values that are NaN or infinite"


def _reach(q: Quantizer, channels: int) -> np.ndarray | None:
    scale = q.scale
    if type(q.range).transform is not Range.transform or scale is None or scale.numel() not in (1, channels):
        return None
    knots = q.codebook.knots.detach().double().abs().max()
    return (scale.detach().double().flatten() * knots).expand(channels).numpy().copy()
