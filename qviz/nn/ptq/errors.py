"""Errors: how much of a block's error is its weights', its activations', or comes from before."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass

import torch
from torch import Tensor, nn

from qviz.nn.capture import inputs
from qviz.nn.quant_layer import QuantLayer


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
        x = quantized[name]
        products = Products(layer, reference.get_submodule(name).weight, floats[name], x)
        found = squares(products.split(layer._read(x)))
        sums += torch.tensor(astuple(found), dtype=torch.float64)
    return Errors(*sums.tolist())


class Products:
    """The error of one layer's product, split for any way of rounding its input.

    What does not depend on the rounding is computed once.

    Args:
        layer: Quantized and calibrated.
        w: Its weight in floating point.
        u: Its input in the float network.
        x: Its input ũ in the quantized network, of the same shape, before it is quantized.
    """

    @torch.no_grad()
    def __init__(self, layer: QuantLayer, w: Tensor, u: Tensor, x: Tensor) -> None:
        self._product, self._w, self._w_hat = layer._product, w, layer.quantized_weight()
        self._float, self._before = self._product(u, w, None), self._product(x, w, None)
        self._propagated = self._product(x - u, w, None)

    @torch.no_grad()
    def split(self, x_hat: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the three terms of the error and the whole, in the order of :class:`Errors`.

        Args:
            x_hat: The quantized input.
        """
        quantized, between = (self._product(x_hat, w, None) for w in (self._w_hat, self._w))
        return quantized - between, between - self._before, self._propagated, quantized - self._float


def squares(terms: Iterable[Tensor]) -> Errors:
    """Return the mean squares of what :meth:`Products.split` gives."""
    return Errors(*(float(term.double().square().mean()) for term in terms))
