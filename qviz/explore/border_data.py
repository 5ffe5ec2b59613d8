"""Border data: a layer of the shipped ResNet-20, quantized in two ways, and what was learned for its border.

Recorded in ``data/borders.safetensors`` by ``data/make_borders.py``. What a border does to the layer's output
is computed here, on its recorded inputs.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from qviz import shipped
from qviz.core.grids import uniform
from qviz.core.quantizer import Quantizer
from qviz.core.range import Fixed
from qviz.core.rounding import CellBorder, Nearest, Rounding
from qviz.methods.aquant import AdaptiveBorder
from qviz.methods.aquant_border import coarse_border, ratio
from qviz.nn.layers import QuantConv2d
from qviz.nn.ptq.errors import Errors, Products, squares
from qviz.nn.ptq.learn import loss

FILE = "borders.safetensors"
NAME = "layer2.1.conv2"
HALF, FORMULA, LEARNED = "half", "formula", "learned"
BIAS, BOTH, ORACLE = "bias only", "border and bias", "oracle"


@dataclass(frozen=True, eq=False)
class Layer:
    """A convolution, in floating point and quantized, and what reaches it.

    Attributes:
        network: How its network was quantized.
        bits: Of its weights and of its input.
        w, w_hat: The weight, and the same quantized, (O, C, 3, 3).
        bias, bias_hat: The bias in floating point, and that of the quantized network, (O,).
        u, x: Its input in the float network and in the quantized one, (N, C, H, W), of images that nothing
            was learned from.
        step: The step of its input's grid.
        border: The coefficients of the learned border, (3, C).
        biases: Biases that were learned, alone and beside a border, (O,), by the name of the way.
        with_bias: The coefficients of the border that was learned beside biases, (3, C).
        learned_from, others: The error of the output by way of rounding, on the images that borders and
            biases were learned from, and on 256 that they were not.
        oracle: The error of the oracle on the images of u.
    """

    network: str
    bits: int
    w: Tensor
    w_hat: Tensor
    bias: Tensor
    bias_hat: Tensor
    u: Tensor
    x: Tensor
    step: float
    border: Tensor
    biases: Mapping[str, Tensor]
    with_bias: Tensor
    learned_from: Mapping[str, float]
    others: Mapping[str, float]
    oracle: float

    @property
    def steps(self) -> int:
        """R, the number of cells of the input's grid."""
        return 2**self.bits - 1

    @property
    def channels(self) -> int:
        """C, the number of input channels."""
        return self.w.shape[1]

    @functools.cached_property
    def rho(self) -> Tensor:
        """The factor ρ_c by which each input channel is best rescaled, (C,)."""
        return ratio(self.w, self.w_hat)

    @functools.cached_property
    def products(self) -> Products:
        """The layer's product, of which errors are split."""
        return Products(self.layer(Nearest()), self.w, self.u, self.x)

    @functools.cached_property
    def wanted(self) -> Tensor:
        """The output in floating point."""
        return torch.nn.functional.conv2d(self.u, self.w, self.bias, padding=1)

    def rounding(self, way: str) -> Rounding:
        """Return how one of the ways rounds the input."""
        if way == FORMULA:
            book = uniform(self.bits, signed=False)
            cells = torch.arange(self.steps, dtype=torch.float64)
            border = coarse_border(self.rho, cells).clamp(0.0, 1.0).T
            return CellBorder(book, cells[:, None] + border)
        if way in (LEARNED, BOTH):
            made = AdaptiveBorder(self.steps, channels=self.channels)
            made.b.data.copy_(self.border if way == LEARNED else self.with_bias)
            return made
        return Nearest()

    def layer(self, rounding: Rounding, bias: Tensor | None = None) -> QuantConv2d:
        """Return the quantized layer with a way of rounding its input."""
        q = Quantizer(uniform(self.bits, signed=False), rounding, range=Fixed(self.step))
        made = QuantConv2d(self.channels, len(self.w), 3, padding=1, input_quantizer=q).eval()
        made.weight.data, made.bias.data = self.w_hat, self.bias_hat if bias is None else bias
        return made

    @torch.no_grad()
    def judged(self, rounding: Rounding) -> tuple[float, Errors]:
        """Return the error of the output, and whose the error of the product is."""
        terms = self.products.split(self.layer(rounding).input_quantizer(self.x))
        shift = (self.bias_hat - self.bias)[:, None, None]
        return float(loss(terms[-1] + shift, torch.zeros(()))), squares(terms)

    @torch.no_grad()
    def error(self, rounding: Rounding, bias: Tensor | None = None) -> float:
        """Return the error of the output: squares summed over channels, the mean over images and places."""
        return float(loss(self.layer(rounding, bias)(self.x), self.wanted))

    @functools.cached_property
    def known(self) -> dict[str, float]:
        """The error of the output by way of rounding, on the images of u."""
        ways = (HALF, FORMULA, LEARNED, BIAS, BOTH)
        found = {way: self.error(self.rounding(way), self.biases.get(way)) for way in ways}
        return {**found, ORACLE: self.oracle}


@functools.cache
def layers() -> dict[tuple[str, int], Layer]:
    """Return the recordings by network and bits."""
    with safe_open(shipped.checkpoint(FILE), framework="pt") as file:
        found = json.loads(file.metadata()["recordings"])
        return {(one["network"], one["bits"]): _layer(file.get_tensor, **one) for one in found}


def _layer(get: Callable[[str], Tensor], network: str, bits: int, **numbers: Any) -> Layer:
    own = {key: get(f"{network}/{bits}/{key}") for key in ("w_hat", "bias_hat", "border", "with_bias")}
    both = {way: get(f"{network}/{bits}/{way}") for way in (BIAS, BOTH)}
    inputs = {"u": get("u").float(), "x": get(f"{network}/{bits}/x").float()}
    return Layer(network, bits, w=get("w"), bias=get("bias"), **own, **inputs, biases=both, **numbers)
