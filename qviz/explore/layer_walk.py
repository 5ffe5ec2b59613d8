"""Layer walk: one weight and one input that it meets, on their way through a layer to its output."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from qviz.core.probe import probe
from qviz.core.quantizer import Quantizer
from qviz.nn.quant_layer import QuantLayer


@dataclass(frozen=True)
class Operand:
    """One number on its way through a quantizer.

    Attributes:
        x: The number.
        u: The same in units of the knots.
        code, y: What becomes of it.
    """

    x: float
    u: float
    code: int
    y: float

    def told(self, fitted: bool) -> str:
        """Return the way in words; the error only where y is in the unit of x."""
        error = "" if fitted else f" (error {self.y - self.x:+.2g})"
        return f"{self.x:.4g}, u = {self.u:.4g}, code {self.code}, and comes out as {self.y:.4g}{error}"


PADDING = Operand(0.0, 0.0, 0, 0.0)
"""What a weight meets that meets nothing else; it is not quantized."""


@dataclass(frozen=True, eq=False)
class Walk:
    """One product of a layer.

    Attributes:
        w, x: Its operands.
        number, channel: The weight's number, and the index of its output channel.
        count, terms: How many weights the layer has, and how many products an output is the sum of.
        before, after: The output that the product is part of, in floating point and quantized.
        fitted: Whether the layer's output has a unit of its own.
    """

    w: Operand
    x: Operand
    number: int
    channel: int
    count: int
    terms: int
    before: float
    after: float
    fitted: bool

    @property
    def errors(self) -> np.ndarray:
        """What the product changes by: with both operands quantized, the weight alone, the input alone."""
        w, x = self.w, self.x
        return np.array([w.y * x.y - w.x * x.x, (w.y - w.x) * x.x, w.x * (x.y - x.x)])

    @property
    def ratios(self) -> np.ndarray:
        """The product against these errors, in dB; NaN where there is none to tell."""
        product = self.w.x * self.x.x
        if self.fitted or not product:
            return np.full(3, np.nan)
        with np.errstate(divide="ignore"):
            return 20 * np.log10(abs(product) / np.abs(self.errors))

    @property
    def text(self) -> str:
        """Both operands, their product and the output, in words."""
        w, x, (both, first, second) = self.w, self.x, self.errors
        unit = ", in a unit of its own" if self.fitted else ""
        parts = f" (error {both:+.2g}; by the weight alone {first:+.2g}, by the input alone {second:+.2g})"
        met = "padding only, 0" if x is PADDING else f"x = {x.told(self.fitted)}"
        return (
            f"One product: weight {self.number:,} of {self.count:,} is w = {w.told(self.fitted)}. It meets "
            f"{met}. w x = {w.x * x.x:.4g} becomes {w.y * x.y:.4g}"
            f"{unit or parts}. With all {self.terms:,} products and the bias the output is "
            f"{self.before:.4g} and becomes {self.after:.4g}{unit}."
        )


class Tracks:
    """The numbers of a layer that can walk: its weights, and the inputs that one of them meets.

    Args:
        layer: Quantized and calibrated.
        twin: The same in floating point.
        x: What it reads.
        weight: The number of the weight, from 1.
        steps: Whether the axis of the weights is in steps, and whether that of the inputs is.
        fitted: Whether the layer's output has a unit of its own.
    """

    @torch.no_grad()
    def __init__(
        self,
        layer: QuantLayer,
        twin: nn.Module,
        x: Tensor,
        weight: int,
        steps: tuple[bool, bool],
        fitted: bool,
    ) -> None:
        self.steps, self.fitted = steps, fitted
        self.layer, self.twin = layer, twin
        self.x = x.reshape(-1, x.shape[-1]) if isinstance(layer, nn.Linear) else x if x.ndim == 4 else x[None]
        self.weight, self.index = layer.normalized_weight(), weight - 1
        self.channel = self.index // self.weight[0].numel()
        one = torch.zeros(self.weight.numel(), dtype=torch.float64)
        one[self.index] = 1.0
        own = {"weight": one.view_as(self.weight)}
        own |= {} if twin.bias is None else {"bias": torch.zeros(len(self.weight), dtype=torch.float64)}
        numbers = torch.arange(1.0, self.x.numel() + 1, dtype=torch.float64).view_as(self.x)
        # multiplied with a single 1, each output is the number of the input that the weight meets there
        met = functional_call(twin, own, (numbers,))[:, self.channel].flatten().round().long()
        self.places = met.nonzero().flatten()  # the others meet padding
        self.met = met[self.places] - 1

    @torch.no_grad()
    def at(self, place: int) -> Walk:
        """Return what happens to the weight where it meets an input for the place-th time, from 1."""
        w = _operand(self.layer.weight_quantizer, self.weight, self.layer.quantized_weight(), self.index)
        where, x = 0, PADDING
        if len(self.met):
            k, q = min(place, len(self.met)) - 1, self.layer.input_quantizer
            where, x = int(self.places[k]), _operand(q, self.x, q(self.x), int(self.met[k]))
        y, z = (float(f(self.x)[:, self.channel].flatten()[where]) for f in (self.twin, self.layer))
        sizes = self.weight.numel(), self.weight[0].numel()
        return Walk(w, x, self.index + 1, self.channel, *sizes, y, z, self.fitted)

    def weights(self) -> np.ndarray:
        """Return where all weights lie on their axis."""
        return _values(self.layer.weight_quantizer, self.weight, self.steps[0])

    def inputs(self) -> np.ndarray:
        """Return where the inputs that the weight meets lie on their axis."""
        return _values(self.layer.input_quantizer, self.x, self.steps[1])[self.met.numpy()]


def nearest(values: np.ndarray, at: float | None = None) -> int:
    """Return the number, from 1, of the value nearest to a place; by default to half of the largest."""
    if not len(values):
        return 1
    return int(np.abs(values - (values.max() / 2 if at is None else at)).argmin()) + 1


def _operand(q: Quantizer, x: Tensor, y: Tensor, i: int) -> Operand:
    u, code = probe(q, x).u.flatten()[i], q.codes(x).flatten()[i]
    return Operand(float(x.flatten()[i]), float(u), int(code), float(y.flatten()[i]))


def _values(q: Quantizer, x: Tensor, steps: bool) -> np.ndarray:
    return (probe(q, x).u if steps else x).detach().double().flatten().numpy()
