"""Tables: what is left of a quantized layer outside of this package: codes, levels, scales and borders.

A trained quantizer is two tables, whatever its method: the *borders* that a value is compared with, and the
*value* that each code stands for. Both are float32, and answer as the quantizer does to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from qviz.core.codebook import count_below, take
from qviz.core.groups import Grouped
from qviz.core.quantizer import Quantizer
from qviz.core.range import Fixed
from qviz.methods.asq import AdaptiveStep
from qviz.nn.layers import QuantLayer

_SIGN = 0x7FFFFFFF


@dataclass(frozen=True, eq=False)
class WeightTable:
    """The weight of a layer as codes: weight = factor × (scale × level[code] + offset).

    Attributes:
        codes: uint8, the weight's shape.
        levels: What each code stands for, in the codebook's unit, float32, shape (K,), increasing.
        scale: Float32, shape (), (C,) along ``axis``, or with one number for each group of ``group``
            neighbors along ``axis``; None for 1.
        offset: As ``scale``; None for 0.
        axis: The channel axis, or that along which groups lie; None where ``scale`` is a number.
        group: Neighbors that share a scale; 0 where no scale is one of a group.
        factor: DAQ's output scale |s|, float32, shape (); None for 1.
        recipe: The call that made the quantizer, as text; "" where it is not known.
    """

    codes: Tensor
    levels: Tensor
    scale: Tensor | None = None
    offset: Tensor | None = None
    axis: int | None = None
    group: int = 0
    factor: Tensor | None = None
    recipe: str = ""

    @property
    def bits(self) -> int:
        """The bits that the codes need: ceil(log2) of the largest code + 1, at least 1; from the codes."""
        return max(1, int(self.codes.max()).bit_length())

    def value(self) -> Tensor:
        """Return the weight, float32: the very numbers that the layer multiplied with."""
        weight = take(self.levels, self.codes)
        if self.scale is not None:
            weight = weight * self._spread(self.scale)
        if self.offset is not None:
            weight = weight + self._spread(self.offset)
        return weight if self.factor is None else weight * self.factor

    def _spread(self, v: Tensor) -> Tensor:
        """Return one number for each weight, or for each channel in a shape that broadcasts."""
        if v.ndim == 0 or self.axis is None:
            return v
        if self.group:
            return v.repeat_interleave(self.group, -1).movedim(-1, self.axis)
        return v.view(*(-1 if i == self.axis % self.codes.ndim else 1 for i in range(self.codes.ndim)))


@dataclass(frozen=True, eq=False)
class Adapter:
    """ASQ's small network, which reads a sample and answers with one positive factor β of the step.

    Attributes:
        mode: "paper" (ReLU and a floor of 1e-8) or "softplus".
        layers: Weight (out, in) and bias (out,) of each linear layer, ReLU between them, float32.
        step: s, float32, shape (); the sample's step is s β.
    """

    mode: str
    layers: tuple[tuple[Tensor, Tensor], ...]
    step: Tensor

    def steps(self, x: Tensor) -> Tensor:
        """Return s β for each sample of x, (N, C, …); shape (N, 1, …)."""
        z = x.flatten(2).mean(2) if x.ndim > 2 else x
        for i, (weight, bias) in enumerate(self.layers):
            z = torch.nn.functional.linear(z.relu() if i else z, weight, bias)
        b = (z.relu() if self.mode == "paper" else torch.nn.functional.softplus(z)).clamp(min=1e-8)
        return self.step * b.view(-1, *(1,) * (x.ndim - 1))


@dataclass(frozen=True, eq=False)
class InputTable:
    """How a layer reads its input: code = #{borders < x}, and what each code stands for.

    With an adapter (ASQ) borders and values are in units of the sample's step: code = #{borders < x / step},
    value = values[code] × step.

    Attributes:
        borders: Float32, shape (K - 1,), or (K - 1, C) with borders of each channel (axis 1 of x);
            nondecreasing along the first axis. A border is the last number that goes down.
        values: Float32, shape (K,), or (K, C).
        adapter: ASQ's network, else None.
        recipe: The call that made the quantizer, as text.
    """

    borders: Tensor
    values: Tensor
    adapter: Adapter | None = None
    recipe: str = ""

    @property
    def bits(self) -> int:
        """The bits of one code."""
        return max(1, len(self.borders).bit_length())

    def codes(self, x: Tensor) -> Tensor:
        """Return the code of each value, uint8, the shape of x, (N, C, …)."""
        u = x if self.adapter is None else x / self.adapter.steps(x)
        if self.borders.ndim == 1:
            return count_below(u, self.borders).to(torch.uint8)
        total = torch.zeros_like(u, dtype=torch.uint8)
        for border in self.borders:
            total += u > border.view(1, -1, *(1,) * (u.ndim - 2))
        return total

    def value(self, x: Tensor) -> Tensor:
        """Return what the layer multiplies its weight with, float32, the shape of x; NaN stays NaN."""
        codes = self.codes(x)
        if self.values.ndim == 1:
            y = take(self.values, codes)
        else:
            y = self.values.gather(0, codes.movedim(1, -1).reshape(-1, codes.shape[1]).long())
            y = y.view(codes.movedim(1, -1).shape).movedim(-1, 1)
        y = y if self.adapter is None else y * self.adapter.steps(x)
        return torch.where(x.isnan(), x, y)


@dataclass(frozen=True, eq=False)
class LayerTables:
    """A convolution or a linear layer, as it is exported.

    Attributes:
        weight: Codes and levels, or the float32 weight itself where it is not quantized.
        input: Borders and values; None where the input stays in floating point.
        bias: Float32, shape (out,), with the output scale in it; None where there is none.
    """

    weight: WeightTable | Tensor
    input: InputTable | None = None
    bias: Tensor | None = field(default=None)

    @property
    def shape(self) -> torch.Size:
        """The weight's shape."""
        return (self.weight if isinstance(self.weight, Tensor) else self.weight.codes).shape

    @property
    def quantized(self) -> bool:
        """Whether the weight has codes or the input has a table."""
        return isinstance(self.weight, WeightTable) or self.input is not None


@torch.no_grad()
def layer_tables(layer: torch.nn.Module) -> LayerTables:
    """Return the tables of a convolution or a linear layer, quantized or not.

    Args:
        layer: A Conv2d or Linear; a QuantConv2d or QuantLinear must be calibrated.

    Raises:
        ValueError: The layer rounds at random or by its neighbors (a fused border), or is soft, or its
            weight is not finite: no table stands for it.
        RuntimeError: It is not calibrated.
    """
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
    quantizer itself.

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
