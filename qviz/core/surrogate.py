"""Surrogate: what stands in for the decision in the backward pass."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


class Surrogate(nn.Module):
    """A smooth stand-in for the jump inside a cell.

    Attributes:
        clipped: whether the gradient is zero outside the outermost knots.
        coth: None, or (g, a) of a slope g coth(|t - 1/2| + a).
        closed_form: whether ``coth`` (None: slope 1) tells the whole backward pass.
    """

    clipped: bool = True
    coth: tuple[float, float] | None = None
    closed_form: bool = False

    def relax(self, t: Tensor) -> Tensor:
        """Map the cell coordinate t in [0, 1] to its relaxed value in [0, 1]."""
        raise NotImplementedError


class StraightThrough(Surrogate):
    """Pretend that rounding did nothing: relax(t) = t, slope 1.

    Args:
        clipped: True (default) gives zero gradient outside the grid, as the saturation has it;
            False passes the gradient there too.

    References:
        Bengio, Léonard and Courville, "Estimating or Propagating Gradients Through Stochastic
        Neurons", 2013, section 4. arXiv:1308.3432
    """

    closed_form = True

    def __init__(self, clipped: bool = True) -> None:
        super().__init__()
        self.clipped = bool(clipped)

    def relax(self, t: Tensor) -> Tensor:
        """Return ``t``."""
        return t

    def extra_repr(self) -> str:
        """Name the switch in ``print(quantizer)``."""
        return f"clipped={self.clipped}"


def beyond(u: Tensor, low: float, high: float) -> Tensor:
    """Return zeros whose gradient is 1 outside [low, high] (and for NaN): what saturation cuts off."""
    inside = (u >= low) & (u <= high)
    return _Beyond.apply(u, inside)


class _Beyond(torch.autograd.Function):
    """Zeros with the gradient of the identity outside; inf - inf, in plain autograd, would be NaN."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, inside: Tensor) -> Tensor:
        ctx.save_for_backward(inside)
        return torch.zeros_like(u)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (inside,) = ctx.saved_tensors
        return grad.masked_fill(inside, 0.0), None


class SoftArgmax(Surrogate):
    """Kernel soft argmax over the two knots of a cell, with DAQ's temperature controller or a fixed one.

    With knots q_f = 0 and q_c = 1 of the cell and t the coordinate: the score of a knot is
    s(q) = exp(-|t - q|) k(q), with the kernel k = 1 for the nearer knot and exp(-1 / σ²) for the other;
    the relaxed value is the score-weighted knot m = sigmoid(β (s(q_c) - s(q_f))).

    - Controller (``beta=None``): β = γ / |s(q_f) - s(q_c)|, taken as a constant in the backward pass. Then
      m is λ or 1 - λ with λ = 1 / (1 + e^γ), and the rescale (m - 1/2) / (1 - 2 λ) + 1/2 makes it 0 or 1:
      the forward pass *is* rounding, and only the gradient is soft. Its slope in closed form is
      γ / (2 sinh γ) · coth(|t - 1/2| + 1 / (2 σ²)).
    - Fixed temperature (``beta`` given): no rescale; a different, soft function.

    Args:
        gamma: γ > 0 of the controller.
        sigma: σ > 0 of the kernel; the paper uses 1 for weights and 2 for activations.
        beta: a fixed temperature > 0 instead of the controller.

    Raises:
        ValueError: gamma, sigma or beta is not positive and finite.

    References:
        Kim, Lee and Ham, "Distance-aware Quantization", ICCV 2021, arXiv:2108.06983, equations (7), (10),
        (11). The paper calls σ a standard deviation, its released code divides by σ² and not 2 σ²; this
        follows the code (sigma * sqrt(2) gives the other reading). The closed-form slope is derived here (and
        tested against the graph).

    Example:
        >>> round(SoftArgmax(sigma=1.0).slope(torch.tensor(0.25, dtype=torch.float64)).item(), 6)
        0.434104
    """

    def __init__(self, gamma: float = 2.0, sigma: float = 1.0, beta: float | None = None) -> None:
        super().__init__()
        for name, value in (("gamma", gamma), ("sigma", sigma), ("beta", beta)):
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} must be positive and finite, got {value}")
        self.gamma, self.sigma = float(gamma), float(sigma)
        self.beta = None if beta is None else float(beta)

    @property
    def coth(self) -> tuple[float, float] | None:
        """Constants g and a of the closed-form slope; None at a fixed temperature."""
        if self.beta is not None:
            return None
        return self.gamma / (2.0 * math.sinh(self.gamma)), 1.0 / (2.0 * self.sigma**2)

    @property
    def closed_form(self) -> bool:
        """Whether the slope has a closed form (the controller does)."""
        return self.beta is None

    def relax(self, t: Tensor) -> Tensor:
        """Compute the relaxed value of t through the whole graph, step by step as the paper has it."""
        low, high = (
            torch.exp(-_abs(t)),
            torch.exp(-_abs(1.0 - t)),
        )  # distance scores of the two knots
        kappa = math.exp(-1.0 / self.sigma**2)
        upper = t.detach() > 0.5  # a tie goes down
        one = torch.ones_like(t)
        low = low * torch.where(upper, kappa * one, one)
        high = high * torch.where(upper, one, kappa * one)
        gap = high - low
        if self.beta is not None:
            return torch.sigmoid(self.beta * gap)
        beta = (self.gamma / gap.abs()).detach()
        m = torch.sigmoid(beta * gap)
        return (m - 0.5) / math.tanh(self.gamma / 2.0) + 0.5  # 1 - 2 λ = tanh(γ / 2)

    def slope(self, t: Tensor) -> Tensor:
        """Compute the closed-form derivative of the relaxed value under the controller.

        Raises:
            ValueError: the temperature is fixed.
        """
        if self.coth is None:
            raise ValueError(f"a fixed temperature beta={self.beta} has no closed-form slope; use autograd")
        g, a = self.coth
        return g * (1.0 + 2.0 / torch.expm1(2.0 * ((t - 0.5).abs() + a)))

    def extra_repr(self) -> str:
        """Show the constants."""
        return (
            f"gamma={self.gamma}, sigma={self.sigma}"
            if self.beta is None
            else f"beta={self.beta}, sigma={self.sigma}"
        )


def _abs(x: Tensor) -> Tensor:
    """Return |x| with derivative +1 at 0, as the released code of DAQ has it."""
    return torch.where(x.detach() >= 0, x, -x)
