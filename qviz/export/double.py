"""Double: an exported network in float64: what its float32 evaluation would give without rounding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from qviz.export.arithmetic import powers, whole
from qviz.export.exported import Exported, Step
from qviz.export.fixed import adaptive_steps, below, channel_means
from qviz.export.program import as_rows, norm, product, simple
from qviz.export.tables import InputTable, WeightTable


def codes_of(read: InputTable, x: Tensor) -> Tensor:
    """Return the codes of float32 or float64 values; of float64 ones by the same borders."""
    if x.dtype == torch.float32:
        return read.codes(x)
    u = x if read.adapter is None else x / _steps(read, x)
    return torch.from_numpy(below(u.numpy(), read.borders.double().numpy()))


class Double:
    """The network in float64: no product and no sum is rounded to float32. Borders are the same.

    Args:
        exported: The network.
        real: Weights and inputs are in real numbers as well: levels are multiples of one unit, or powers,
            where they are that to within float32's rounding, as in the integer forward pass. Otherwise they
            are the float32 numbers that the network was trained with.
    """

    def __init__(self, exported: Exported, *, real: bool) -> None:
        self.exported = exported
        self._tensors = {name: v.double() for name, v in exported.tensors.items()}
        self._weights = {name: _weight(layer.weight, real) for name, layer in exported.layers.items()}
        self._values = {
            name: _unrounded(layer.input.values) if real else layer.input.values.double()
            for name, layer in exported.layers.items()
            if layer.input is not None
        }

    def _value(self, step: Step, inputs: Sequence[Tensor]) -> Tensor:
        x = inputs[0]
        if step.op == "input":
            return x.double()
        if step.op == "batchnorm":
            return norm(step, x, self._tensors)
        if step.op not in ("conv", "linear"):
            return simple(step, inputs)
        layer = self.exported.layers[step.name]
        if layer.input is not None:
            x = self._read(step.name, layer.input, as_rows(step, x)).view(x.shape)
        return product(step, x, self._weights[step.name], None if layer.bias is None else layer.bias.double())

    def _read(self, name: str, read: InputTable, x: Tensor) -> Tensor:
        codes, table = codes_of(read, x).long(), self._values[name]
        if table.ndim == 2:
            y = table.T[torch.arange(x.shape[1]).view(1, -1, *(1,) * (x.ndim - 2)), codes]
        else:
            y = table[codes]
        return y if read.adapter is None else y * _steps(read, x)


def _weight(weight: WeightTable | Tensor, real: bool) -> Tensor:
    if isinstance(weight, Tensor) or not real:
        return (weight if isinstance(weight, Tensor) else weight.value()).double()
    parts = {key: getattr(weight, key) for key in ("scale", "offset", "factor")}
    parts = {key: None if v is None else v.double() for key, v in parts.items()}
    return replace(weight, levels=_unrounded(weight.levels), **parts).value()


def _unrounded(values: Tensor) -> Tensor:
    """Return float32 levels, (K,) or (K, C), as the multiples of a unit, or powers, that they are nearly."""
    if values.ndim == 2:
        return torch.stack([_unrounded(column) for column in values.unbind(1)], 1)
    column = values.numpy()
    if found := whole(column):
        return torch.from_numpy(found[0] * found[1])
    for root in (1, 2):
        if found := powers(column, root):
            top, exponent = found
            sizes = np.where(exponent < 0, 0, top * 2.0 ** (-exponent / root))
            return torch.from_numpy(np.sign(column).astype(np.float64) * sizes)
    return values.double()


def _steps(read: InputTable, x: Tensor) -> Tensor:
    """Return the adaptive step of each sample, float64, (N, 1, …)."""
    steps = adaptive_steps(read.adapter, channel_means(x.numpy(), 0))
    return torch.from_numpy(steps).view(-1, *(1,) * (x.ndim - 1))
