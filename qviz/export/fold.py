"""Fold: a quantized layer of this package into tables that answer as it does."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from qviz.core.groups import Grouped
from qviz.core.quantizer import Quantizer
from qviz.core.range import Fixed
from qviz.export.packed import PackedLayer
from qviz.export.tables import Adapter, InputTable, LayerTables, WeightTable
from qviz.methods.asq import AdaptiveStep
from qviz.nn.quant_layer import QuantLayer

_SIGN = 0x7FFFFFFF


@torch.no_grad()
def layer_tables(layer: torch.nn.Module) -> LayerTables:
    """Return the tables of a convolution or a linear layer, quantized or not.

    Args:
        layer: A Conv2d or Linear, or a packed one; a QuantConv2d or QuantLinear must be calibrated.

    Raises:
        ValueError: The layer rounds at random or by its neighbors (a fused border), or is soft, or its
            weight is not finite: no table stands for it.
        RuntimeError: It is not calibrated.
    """
    if isinstance(layer, PackedLayer):
        return copy.deepcopy(layer.tables)
    bias = None if layer.bias is None else layer.bias.detach().float().clone()
    if not isinstance(layer, QuantLayer):
        return LayerTables(layer.weight.detach().float().clone(), None, bias)
    layer._check()
    bias = None if bias is None else layer.scaled_bias().detach().float().clone()
    weight = layer.quantized_weight().detach().clone()
    table: WeightTable | Tensor = weight
    if layer.weight_quantizer is not None:
        factor = None if layer.output_scale is None else layer.output_scale.detach().abs().clone()
        table = weight_table(layer.weight_quantizer, layer.normalized_weight().detach(), factor)
        if not torch.equal(table.value(), weight):
            raise ValueError(
                f"{layer.weight_quantizer.recipe or 'the weight quantizer'} cannot be exported: "
                "codes and levels do not give the layer's weight back"
            )
    read = None if layer.input_quantizer is None else input_table(layer.input_quantizer, _channels(layer))
    return LayerTables(table, read, bias)


def _channels(layer: QuantLayer) -> int:
    return layer.in_features if isinstance(layer, torch.nn.Linear) else layer.in_channels


def weight_table(q: Quantizer, w: Tensor, factor: Tensor | None = None) -> WeightTable:
    """Return codes and levels of a weight.

    Args:
        q: The calibrated quantizer.
        w: What it reads, of any shape.
        factor: See :class:`WeightTable`.

    Raises:
        ValueError: The rounding is random, or w holds NaN.
    """
    _refuse(q)
    scale, offset = (None, None) if not q.range.rescale else (q.range.scale, q.range.offset)
    numbers = [None if v is None else v.detach().float().clone() for v in (scale, offset)]
    group = q.range.size if isinstance(q.range, Grouped) else 0
    return WeightTable(
        codes=q.codes(w),
        levels=q.levels.float(),
        scale=numbers[0],
        offset=numbers[1],
        axis=q.range.axis,
        group=group,
        factor=factor,
        recipe=str(q.recipe or ""),
    )


@torch.no_grad()
def input_table(q: Quantizer, channels: int) -> InputTable:
    """Fold a quantizer of activations into borders and values that answer alike for every float32.

    The code rises with x, so each border is found by bisection over the float32 numbers, 32 questions to the
    quantizer itself. (An AQuant border that was not folded into its table is computed in float32: next to it
    the code may fall again for a number or two, and the table does not follow that.)

    Args:
        q: The calibrated quantizer.
        channels: The length of axis 1 of x.

    Raises:
        ValueError: The rounding is random or reads the neighbors, or the quantizer is soft.
    """
    _refuse(q)
    recipe = str(q.recipe or "")
    if isinstance(q.range, AdaptiveStep):
        still = Quantizer(q.codebook, q.rounding, range=Fixed(1.0))
        linear = [m for m in q.range.adapter if isinstance(m, torch.nn.Linear)]
        layers = tuple((m.weight.detach().clone(), m.bias.detach().clone()) for m in linear)
        table = input_table(still, channels)
        adapter = Adapter(q.range.mode, layers, q.range.scale.float().clone())
        return InputTable(table.borders, table.values, adapter, recipe)
    if q.range.reads_input:
        raise ValueError(f"{type(q.range).__name__} reads the input: no table of borders stands for it")
    each = _of_channels(q)
    shape = (len(q.codebook) - 1, channels if each else 1)
    k = torch.arange(shape[0])[:, None].expand(shape)
    infinity = torch.tensor(float("inf"))
    low, high = (_ordered(v).long().expand(shape).clone() for v in (-infinity, infinity))
    while bool((high - low > 1).any()):  # low goes down (code <= k), high goes up
        middle = torch.div(low + high, 2, rounding_mode="floor")
        down = q.codes(_float(middle)).long() <= k
        low, high = torch.where(down, middle, low), torch.where(down, high, middle)
    borders = _float(low)
    codes = torch.arange(len(q.codebook))[:, None].expand(-1, shape[1])
    values = q.dequantize(codes)
    return InputTable(*((borders, values) if each else (borders[:, 0], values[:, 0])), recipe=recipe)


def _of_channels(q: Quantizer) -> bool:
    """Whether the quantizer keeps anything for each channel."""
    vector = q.range.scale is not None and q.range.scale.ndim > 0
    return vector or any(v.ndim > 1 for v in (*q.rounding.parameters(), *q.rounding.buffers()))


def _refuse(q: Quantizer) -> None:
    if q.rounding.random or q.soft or getattr(q.rounding, "kernel", None) is not None:
        what = "is soft" if q.soft else "rounds at random" if q.rounding.random else "rounds by its neighbors"
        raise ValueError(f"{q.recipe or 'the quantizer'} {what}: no table stands for it")


def _ordered(x: Tensor) -> Tensor:
    """Return float32 numbers as int32 that have their order."""
    i = x.view(torch.int32)
    return torch.where(i >= 0, i, -(i & _SIGN))


def _float(i: Tensor) -> Tensor:
    """Return the float32 numbers that :func:`_ordered` made the int64 numbers i from."""
    return torch.where(i >= 0, i, -i | ~torch.tensor(_SIGN)).to(torch.int32).view(torch.float32)
