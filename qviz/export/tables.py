"""Tables: what is left of a quantized layer outside of this package: codes, levels, scales and borders.

A trained quantizer is two tables, whatever its method: the *borders* that a value is compared with, and the
*value* that each code stands for. Both are float32, and answer as the quantizer does to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from qviz.core.lookup import count_below, take


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

    def codes(self, x: Tensor, steps: Tensor | None = None) -> Tensor:
        """Return the code of each value, uint8, the shape of x, (N, C, …).

        Args:
            x: What the layer reads.
            steps: Of each sample, (N, 1, …), instead of those that the adapter computes in float32.
        """
        if self.adapter is not None:
            steps = self.adapter.steps(x) if steps is None else steps
        u = x if steps is None else x / steps
        if self.borders.ndim == 1:
            return count_below(u, self.borders).to(torch.uint8)
        total = torch.zeros_like(u, dtype=torch.uint8)
        for border in self.borders:
            total += u > border.view(1, -1, *(1,) * (u.ndim - 2))
        return total

    def value(self, x: Tensor, steps: Tensor | None = None) -> Tensor:
        """Return what the layer multiplies its weight with, float32, the shape of x; NaN stays NaN."""
        if self.adapter is not None:
            steps = self.adapter.steps(x) if steps is None else steps
        codes = self.codes(x, steps)
        if self.values.ndim == 1:
            y = take(self.values, codes)
        else:
            y = self.values.gather(0, codes.movedim(1, -1).reshape(-1, codes.shape[1]).long())
            y = y.view(codes.movedim(1, -1).shape).movedim(-1, 1)
        y = y if steps is None else y * steps
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
