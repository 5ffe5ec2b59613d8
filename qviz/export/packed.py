"""Packed: layers that hold codes and tables, and compute with the weight that these stand for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from qviz.export.tables import Adapter, InputTable, LayerTables, WeightTable
from qviz.nn.quant_layer import QuantLayer

_WEIGHT = ("codes", "levels", "scale", "offset", "factor")


class PackedLayer(nn.Module):
    """What PackedConv2d and PackedLinear share: buffers of codes and tables, as they stand in a file.

    The weight is made from them once, and again when a state dict was loaded; the output is that of the
    fake-quantized layer, bit for bit.

    Attributes:
        codes, levels, scale, offset, factor, borders, values: Buffers; those that the layer has not are None.
        weight: Float32, a buffer that is left out of the state dict where there are codes.
    """

    @classmethod
    def adopt(cls, layer: nn.Module, tables: LayerTables, device: torch.device | None = None) -> Self:
        """Turn a convolution or a linear layer, of any kind, into a packed one, in place; return it.

        Args:
            layer: Of the tables' shape; its weight and its quantizers go.
            tables: What it will compute with.
            device: Where to; by default where the layer's weight is.
        """
        device = layer.weight.device if device is None else device
        if isinstance(layer, QuantLayer):
            layer.release()
        if not isinstance(layer, PackedLayer):
            layer.register_load_state_dict_post_hook(_after_loading)
        del layer.weight, layer.bias
        layer.__class__ = cls
        layer.requires_grad_(False)
        layer._fill(tables)
        return layer.to(device)

    def _fill(self, tables: LayerTables) -> None:
        weight, read = tables.weight, tables.input
        coded = weight if isinstance(weight, WeightTable) else None
        for name in _WEIGHT:
            self.register_buffer(name, None if coded is None else getattr(coded, name))
        self.register_buffer("weight", weight if coded is None else coded.value(), persistent=coded is None)
        self.register_buffer("bias", tables.bias)
        self.register_buffer("borders", None if read is None else read.borders)
        self.register_buffer("values", None if read is None else read.values)
        self.adapter = None if read is None or read.adapter is None else _holder(read.adapter)
        self._tables = tables

    @property
    def tables(self) -> LayerTables:
        """The tables as they are now, on the device of the layer."""
        weight, read = self._tables.weight, self._tables.input
        if isinstance(weight, WeightTable):
            named = {name: getattr(self, name) for name in _WEIGHT}
            weight = WeightTable(**named, axis=weight.axis, group=weight.group, recipe=weight.recipe)
        else:
            weight = self.weight
        if read is not None:
            adapter = None if read.adapter is None else _held(self.adapter, read.adapter.mode)
            read = InputTable(self.borders, self.values, adapter, read.recipe)
        return LayerTables(weight, read, self.bias)

    def _run(self, x: Tensor, product: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the product with an input (N, C, …) after its table was applied."""
        read = self.tables.input
        return product(x if read is None else read.value(x))

    def extra_repr(self) -> str:
        """Add bits to the float layer's line."""
        read, weight = self._tables.input, self._tables.weight
        parts = [super().extra_repr()]
        parts += [f"w_bits={weight.bits}"] if isinstance(weight, WeightTable) else []
        return ", ".join(parts + ([] if read is None else [f"a_bits={read.bits}"]))


class PackedConv2d(PackedLayer, nn.Conv2d):
    """A convolution that computes with codes' values; see :class:`PackedLayer`."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the output, in the shape of the float layer's."""
        x = input if input.ndim == 4 else input.unsqueeze(0)
        y = self._run(x, lambda x: self._conv_forward(x, self.weight, self.bias))
        return y if input.ndim == 4 else y.squeeze(0)


class PackedLinear(PackedLayer, nn.Linear):
    """A linear layer that computes with codes' values; see :class:`PackedLayer`."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the output, shape (..., C_out)."""
        x = input.reshape(-1, input.shape[-1])
        y = self._run(x, lambda x: nn.functional.linear(x, self.weight, self.bias))
        return y.view(*input.shape[:-1], self.out_features)


def equip(layer: nn.Module, tables: LayerTables, device: torch.device | None = None) -> nn.Module:
    """Give a convolution or a linear layer, in place, the numbers of tables: packed ones where they are.

    Args:
        layer: Of the tables' shape.
        tables: A layer's.
        device: Where to; by default where the layer's weight is.
    """
    if tables.quantized or isinstance(layer, PackedLayer):
        kind = PackedConv2d if isinstance(layer, nn.Conv2d) else PackedLinear
        return kind.adopt(layer, tables, device)
    device = layer.weight.device if device is None else device
    for name, value in (("weight", tables.weight), ("bias", tables.bias)):
        setattr(layer, name, None if value is None else nn.Parameter(value.to(device), False))
    return layer


def _after_loading(layer: PackedLayer, keys: object) -> None:
    if layer.codes is not None:
        layer.weight.copy_(layer.tables.weight.value())


def _holder(adapter: Adapter) -> nn.Module:
    """Return a module whose state has the keys that the file has."""
    holder = nn.Module()
    holder.register_buffer("step", adapter.step)
    for i, (weight, bias) in enumerate(adapter.layers):
        holder.add_module(str(i), layer := nn.Module())
        layer.register_buffer("weight", weight)
        layer.register_buffer("bias", bias)
    return holder


def _held(holder: nn.Module, mode: str) -> Adapter:
    return Adapter(mode, tuple((layer.weight, layer.bias) for layer in holder.children()), holder.step)
