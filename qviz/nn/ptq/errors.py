"""Errors: how much of a block's error is its weights', its activations', or comes from before."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qviz.nn.capture import inputs
from qviz.nn.layers import QuantLayer


@dataclass(frozen=True)
class Errors:
    """Mean squares of the three terms of the error of a layer's products, and of their sum; of several layers
    the sums.

    Attributes:
        weight: Of (w' - w) x'.
        activation: Of w (x' - ũ), x' the quantized input and ũ the same before it was quantized.
        propagated: Of w (ũ - u), u the input in the float network.
        total: Of w' x' - w u. The terms may cancel, so that this is not the sum of the three.
    """

    weight: float
    activation: float
    propagated: float
    total: float


@torch.no_grad()
def errors(model: nn.Module, reference: nn.Module, images: Tensor, layers: Iterable[str]) -> Errors:
    """Split the error of some layers' products, each over all images, places and channels.

    The sum that :func:`~qviz.methods.aquant_border.error_decomposition` splits for vectors, for convolutions
    too.

    Args:
        model: Quantized.
        reference: The same network in floating point.
        images: What both take; some dozens are enough.
        layers: The layers' names; of one that runs several times, its first run counts.

    Raises:
        ValueError: A network has no such layer, or the images do not reach it.
    """
    names = list(layers)
    quantized, floats = (inputs(net, names, images) for net in (model, reference))
    sums = torch.zeros(4, dtype=torch.float64)
    for name in names:
        layer: QuantLayer = model.get_submodule(name)
        w, w_hat = reference.get_submodule(name).weight, layer.quantized_weight()
        u, x = floats[name], quantized[name]
        x_hat = layer._read(x)
        factors = (x_hat, w_hat - w), (x_hat - x, w), (x - u, w)
        terms = [layer._product(a, b, None) for a, b in factors]
        terms.append(layer._product(x_hat, w_hat, None) - layer._product(u, w, None))
        sums += torch.stack([term.double().square().mean() for term in terms]).cpu()
    return Errors(*sums.tolist())
