"""DAQ: Kim, Lee and Ham, "Distance-aware Quantization", ICCV 2021, arXiv:2108.06983.

With R = 2^b - 1, learned bounds l < u and x = clip(R (x_in - l) / (u - l), 0, R)         (1)
and a cell between the integers q_f and q_c = q_f + 1, and their middle q_t:

    distance score   d(x, q) = exp(-|x - q|)
    kernel           k(q) = exp(-(q - q_nearest)² / σ²);  score s(q) = d(x, q) k(q)
    soft argmax      φ(x) = q_f + sigmoid(β (s(q_c) - s(q_f)))
    controller       β = γ / |s(q_f) - s(q_c)|, a constant in the backward pass            (7)
    rescale          f(φ) = (φ - q_t) / (1 - 2 λ) + q_t, λ = 1 / (1 + e^γ)                 (10), (11)
    levels           weights (2 q - R) / R, activations q / R; the layer multiplies by a learned |s|  (3)

Under the controller f(φ) *is* rounding (ties down), so only the gradient is soft. In closed form (derived
here and held to the graph by tests):

    backward         dq/dx = γ / (2 sinh γ) coth(|x - q_t| + 1 / (2 σ²)) inside [0, R], else 0
                     dx/du = -x / (u - l),  dx/dl = -(R - x) / (u - l) for values inside

Weights are standardized by the layer, (w - mean) / std over the tensor, both constants in the backward pass.
The text calls σ a standard deviation (1 for weights, 2 for activations), which would make the exponent
1 / (2 σ²); released code, followed here, has 1 / σ² (``sigma * sqrt(2)`` gives the other reading).

INFERRED: the level map of signed activations. The soft argmax, its controller and its slope:
:mod:`qviz.methods.daq_surrogate`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from qviz.core import _check
from qviz.core.codebook import Codebook
from qviz.core.learned import LearnedRange, at_least
from qviz.core.quantizer import Quantizer
from qviz.core.recipe import recipe
from qviz.methods.daq_surrogate import SoftArgmax
from qviz.methods.method import Method


class LearnedBounds(LearnedRange):
    """DAQ's learned bounds: u = R (x - l) / (u_b - l), and no multiplication on the way out.

    Args:
        top: R, the last knot; the knots are 0 … R.
        signed: learn both bounds; False fixes the lower one at 0 (post-ReLU activations).
        spread: ``observe`` sets mean ± spread standard deviations when ``centered``, else 0 ± spread of them.
        centered: see spread; weights yes, activations no.
        init: (lower, upper) to start from.

    Raises:
        ValueError: lower >= upper.

    References:
        Kim, Lee and Ham, "Distance-aware Quantization", ICCV 2021, arXiv:2108.06983, equation (1) and
        released code.
    """

    rescale = False

    def __init__(
        self,
        top: int,
        *,
        signed: bool = True,
        spread: float = 3.0,
        centered: bool = True,
        init: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        if init is not None and not -math.inf < init[0] < init[1] < math.inf:
            raise ValueError(
                f"bounds must be finite, the lower one below the upper, got {init[0]} and {init[1]}"
            )
        if init is not None and not signed and init[0] != 0:
            raise ValueError(f"an unsigned range has the lower bound 0, got {init[0]}")
        self.top, self.signed, self.spread, self.centered = (
            int(top),
            signed,
            float(spread),
            centered,
        )
        low, high = init if init is not None else (-1.0 if signed else 0.0, 1.0)
        self.upper = nn.Parameter(torch.tensor(float(high)))
        if signed:
            self.lower = nn.Parameter(torch.tensor(float(low)))
        else:
            self.register_buffer("lower", torch.zeros(()))
        self._ready = init is not None

    def _scale(self) -> Tensor:
        return at_least(self.upper - self.lower) / self.top

    def _offset(self) -> Tensor | None:
        return self.lower if self.signed else None

    def _fit(self, rows: Tensor, codebook: Codebook, borders: Tensor | None) -> tuple[Tensor, Tensor]:
        mean, std = rows.mean(1), rows.std(1) if rows.shape[1] > 1 else torch.zeros_like(rows[:, 0])
        half = self.spread * torch.where(std > 0, std, torch.ones_like(std))  # a constant: any width will do
        low = (mean if self.centered else 0.0 * mean) - half if self.signed else torch.zeros_like(mean)
        high = (mean if self.centered else 0.0 * mean) + half
        return (high - low) / self.top, low

    @torch.no_grad()
    def _set(self, scale: Tensor, offset: Tensor) -> None:
        self.lower.copy_(offset.reshape(()))
        self.upper.copy_((offset + scale * self.top).reshape(()))


@recipe
def daq_weight(
    bits: int,
    *,
    gamma: float = 2.0,
    sigma: float = 1.0,
    bounds: tuple[float, float] | None = None,
) -> Quantizer:
    """DAQ for (standardized) weights: learned bounds, distance-aware slope, levels (2 k - R) / R.

    There is no zero level; 1 bit is {-1, +1}. The output is not multiplied back: the layer has a learned
    scale. ``observe`` sets the bounds to mean ± 3 standard deviations.

    Args:
        bits: 1 to 8.
        gamma: γ > 0 of the temperature controller.
        sigma: σ > 0 of the kernel.
        bounds: (l, u) to start with, in the unit of the (standardized) weights; default: ``observe``.

    Raises:
        ValueError: Bits are out of range, a constant is not positive, or l >= u.

    References:
        Kim, Lee and Ham, ICCV 2021, arXiv:2108.06983, equations (1), (7), (10), (11). Paper and released code
        disagree on the kernel's exponent: 1 / (2 σ²) if σ is a standard deviation, 1 / σ² in the code,
        which is followed here.

    Example:
        >>> q = daq_weight(2, bounds=(-3.0, 3.0))
        >>> [round(v, 3) for v in q(torch.tensor([-5.0, -0.2, 0.2])).tolist()]
        [-1.0, -0.333, 0.333]
    """
    top = 2 ** _check.bits(bits, 1, 8, "daq_weight") - 1
    return Quantizer(
        _daq_book(top, signed=True),
        None,
        SoftArgmax(gamma, sigma),
        LearnedBounds(top, init=bounds),
    )


@recipe
def daq_activation(
    bits: int,
    *,
    gamma: float = 2.0,
    sigma: float = 2.0,
    signed: bool = False,
    bounds: tuple[float, float] | None = None,
) -> Quantizer:
    """DAQ for activations: post-ReLU with one learned bound and levels k / R; ``signed`` with two.

    ``observe`` sets the bound to 3 standard deviations. The symmetric level map of ``signed`` is INFERRED.

    Args:
        bits: 1 to 8.
        gamma: γ > 0 of the temperature controller.
        sigma: σ > 0 of the kernel.
        signed: Learn both bounds, for inputs that may be negative.
        bounds: (l, u) to start with, in the unit of x, l = 0 unless signed; default: ``observe``.

    Raises:
        ValueError: Bits are out of range, a constant is not positive, or l >= u.

    References:
        As :func:`daq_weight`.

    Example:
        >>> q = daq_activation(2, bounds=(0.0, 1.5))
        >>> [round(v, 3) for v in q(torch.tensor([-1.0, 0.6, 9.0])).tolist()]
        [0.0, 0.333, 1.0]
    """
    top = 2 ** _check.bits(bits, 1, 8, "daq_activation") - 1
    bound = LearnedBounds(top, signed=signed, centered=False, init=bounds)
    return Quantizer(_daq_book(top, signed=signed), None, SoftArgmax(gamma, sigma), bound)


@recipe
def soft_argmax(
    bits: int,
    *,
    beta: float,
    sigma: float = 1.0,
    signed: bool = True,
    bounds: tuple[float, float] | None = None,
) -> Quantizer:
    """Kernel soft argmax at a fixed temperature: the soft forward pass that DAQ's controller replaces.

    A value on a level belongs to the cell below it, as everywhere here (released code takes the one above, so
    that a clipped value can leave the levels' hull).

    Args:
        bits: 1 to 8.
        beta: The fixed temperature > 0.
        sigma: σ > 0 of the kernel.
        signed: Learn both bounds.
        bounds: (l, u) to start with, in the unit of x; default: ``observe``.

    Raises:
        ValueError: Bits are out of range, a constant is not positive, or l >= u.

    Example:
        >>> q = soft_argmax(1, beta=5.0, signed=False, bounds=(0.0, 1.0))
        >>> [round(v, 4) for v in q(torch.tensor([0.25, 0.75])).tolist()]
        [0.0463, 0.9537]
    """
    top = 2 ** _check.bits(bits, 1, 8, "soft_argmax") - 1
    surrogate = SoftArgmax(sigma=sigma, beta=beta)
    bound = LearnedBounds(top, signed=signed, centered=signed, init=bounds)
    return Quantizer(_daq_book(top, signed=signed), None, surrogate, bound, soft=True)


def _daq_book(top: int, *, signed: bool) -> Codebook:
    k = torch.arange(top + 1, dtype=torch.float64)
    return Codebook(k, (2 * k - top) / top if signed else k / top, name="DAQ")


def _weight(bits: int, layer: nn.Module, **options: Any) -> Quantizer:
    return daq_weight(bits, **options)


def _act(bits: int, layer: nn.Module, signed: bool, **options: Any) -> Quantizer:
    return daq_activation(bits, signed=signed, **options)


METHOD = Method(_weight, _act, standardize=True, output_scale=True)
"""Standardized weights, and a learned scale for the layer's output."""
