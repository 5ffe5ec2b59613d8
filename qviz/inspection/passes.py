"""Passes: one of the float network, in which every layer is measured, and one of the quantized network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from qviz.inspection.networks import Networks, on_grid, same_unit
from qviz.inspection.noise import Noise
from qviz.inspection.tally import Tally
from qviz.inspection.views import Outputs, Values
from qviz.nn.batches import Batch, forward
from qviz.nn.modules import hooked
from qviz.nn.quant_layer import QuantLayer


class Measurement:
    """The figures of all quantized layers, chunk by chunk.

    Args:
        nets: The two networks.
    """

    def __init__(self, nets: Networks) -> None:
        self.nets = nets
        self._layers = {name: _Layer(nets, name) for name in nets.layers}
        self._float = {layer.twin: layer for layer in self._layers.values()}
        self._quantized = {layer.layer: layer for layer in self._layers.values()}

    @torch.no_grad()
    def add(self, batch: Batch) -> tuple[Any, Any]:
        """Run both networks on a batch; return what the float one and the quantized one answer."""
        with hooked(self._float, before=self._remember, after=self._after_float):
            expected = forward(self.nets.reference, batch)
        with hooked(self._quantized, after=self._after_quantized):
            found = forward(self.nets.quantized, batch)
        for layer in self._layers.values():
            layer.close()
        return expected, found

    def _remember(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        self._float[module].x = args[0] if args else next(iter(kwargs.values()))

    def _after_float(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        self._float[module].measure(output)

    def _after_quantized(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        self._quantized[module].compare(output)

    def of(self, name: str) -> tuple[Values, Values | None, Outputs | None, str]:
        """Return weight, input and output of a layer, and a remark."""
        return self._layers[name].result()


class _Layer:
    """One layer: its float twin, its quantized self, and what was counted."""

    def __init__(self, nets: Networks, name: str) -> None:
        self.layer: QuantLayer = nets.quantized.get_submodule(name)
        self.twin = nets.reference.get_submodule(name)
        self.x: Tensor | None = None
        self._waiting: list[Tensor] = []
        self._unlike = False
        own = [q for q in (self.layer.weight_quantizer, self.layer.input_quantizer) if q is not None]
        self.fitted = self.layer.standardize or not all(map(same_unit, own))
        self._input = Tally(self.layer.input_quantizer, 1)
        self._noise = {what: Noise(self.fitted) for what in ("local", "cumulative", "weight", "input")}
        self._weight = self.layer.quantized_weight()

    def measure(self, output: Tensor) -> None:
        """Take in a call in the float network."""
        if self.x is None or self.x.numel() == 0:
            return
        layer, x = self.layer, self.layer._batched(self.x)
        self._input.add(x)
        read = layer._read(x)
        w, wq, b, bq = self.twin.weight, self._weight, self.twin.bias, layer.scaled_bias()
        y = layer._product(x, w, b)
        self._noise["local"].add(y, layer._product(read, wq, bq))
        if layer.weight_quantizer is not None and layer.input_quantizer is not None:
            self._noise["weight"].add(y, layer._product(x, wq, bq))
            self._noise["input"].add(y, layer._product(read, w, b))
        self._waiting.append(output.clone())
        self.x = None

    def compare(self, output: Tensor) -> None:
        """Take in the same call in the quantized network."""
        if not self._waiting or self._waiting[0].shape != output.shape:
            self._unlike = True
            return
        self._noise["cumulative"].add(*(self._channels(y) for y in (self._waiting.pop(0), output)))

    def close(self) -> None:
        """Forget what has waited in vain for its call."""
        self._unlike |= bool(self._waiting)
        self._waiting.clear()

    def _channels(self, y: Tensor) -> Tensor:
        """Return outputs with their channels in axis 1."""
        conv = isinstance(self.layer, nn.Conv2d)
        return (y if y.ndim == 4 else y.unsqueeze(0)) if conv else y.reshape(-1, y.shape[-1])

    def result(self) -> tuple[Values, Values | None, Outputs | None, str]:
        weight = Tally(self.layer.weight_quantizer, 0)
        own, w = self.layer.normalized_weight(), self.twin.weight
        if on_grid(self.layer) and not torch.equal(own, w):
            weight.add(w, placed=own)
        else:
            weight.add(own)
        if self._input.count == 0:
            return weight.values(), None, None, "the images do not reach it"
        ratios = {what: noise.db for what, noise in self._noise.items()}
        if self.layer.weight_quantizer is None or self.layer.input_quantizer is None:
            alone = "input" if self.layer.weight_quantizer is None else "weight"
            ratios[alone] = ratios["local"]
        note = "the weight is shown as it is read, standardized" if self.layer.standardize else ""
        if self._unlike:
            ratios["cumulative"] = None
            note = "the two networks call it differently, so that there is no cumulative ratio"
        return weight.values(), self._input.values(), Outputs(**ratios, fitted=self.fitted), note
