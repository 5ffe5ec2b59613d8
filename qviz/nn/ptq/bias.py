"""Statistics of the output: what rounding did to each channel's mean and standard deviation is undone.

With y the float output of a layer and ŷ its quantized output, over all images and places,

    mean only         b ← b + mean y - mean ŷ
    mean and std      ŵ ← f ŵ,  b ← mean y - f (mean ŷ - b),  f = std y / std ŷ

The second is what re-estimated BatchNorm statistics would do, for a network whose BatchNorm is folded: f goes
into the scale of the channel, so that the codes stay.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from qviz.nn.ptq.layerwise import ENOUGH, both, checked_layers, observe_input
from qviz.nn.ptq.moments import matrix, rows
from qviz.nn.ptq.weights import WeightGrid, set_bias


@torch.no_grad()
def bias_correction(model: nn.Module, images: Tensor, *, reference: nn.Module, std: bool = False) -> None:
    """Give each output channel the mean that it has in floating point, layer by layer, in place.

    Layers are corrected in running order, each behind those that are corrected already, after its input
    quantizer was set anew on what they give.

    Args:
        model: A converted and calibrated model.
        images: What it takes, samples in axis 0.
        reference: The same model in floating point, with BatchNorm folded as in ``model``.
        std: Also give each channel its standard deviation. ``weight`` then holds values on the grid. A layer
            that has one scale in all, or a fixed one, gets its means only.

    Raises:
        ValueError: ``reference`` is not the same model; with ``std`` also what
            :class:`~qviz.nn.ptq.weights.WeightGrid` refuses. Nothing is changed then.

    References:
        Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019,
        arXiv:1906.04721, section 4.2, with means measured on images.
    """
    which = ("weight", "bias") if std else ("bias",)
    calls = checked_layers(model, images, reference, which)
    grids = {name: WeightGrid(model.get_submodule(name), name) for name in calls} if std else {}
    for name, times in calls.items():
        layer = model.get_submodule(name)
        observe_input(model, images, name, times)
        (mean, spread), (wanted, wanted_spread) = (
            _mean_and_std(rows(layer, y) for _, y in seen)
            for seen in both(model, images, reference, name, times)
        )
        factor = torch.ones_like(mean)
        if name in grids and grids[name].per_channel and grids[name].scalable:
            grid = grids[name]
            factor = torch.where((spread > 0) & (wanted_spread > 0), wanted_spread / spread, factor)
            codes = grid.codes(matrix(layer, layer.weight.double()))
            grid.stretch(factor)
            grid.write(codes)
        old = 0.0 if layer.bias is None else layer.scaled_bias().double().view_as(mean)
        bias = wanted - factor * (mean - old)
        set_bias(layer, bias if layer.output_scale is None else bias / layer.output_scale.abs())


def _mean_and_std(parts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation over the last axis of the parts (G, R, …), float64.

    No more parts are taken once there are 2^18 places.
    """
    kept: list[Tensor] = []
    for part in parts:
        kept.append(part)
        if sum(one.shape[-1] for one in kept) >= ENOUGH:
            break
    std, mean = torch.std_mean(torch.cat(kept, -1).double(), -1, correction=0)
    return mean, std
