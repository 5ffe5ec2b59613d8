"""DAQ's surrogate: the kernel soft argmax of a cell's two knots, under its controller or a temperature."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from qviz.core.surrogate import Surrogate


class Scores(NamedTuple):
    """What the soft argmax computes of t: the scores of both knots, the temperature, the upper knot's share.

    Attributes:
        low: s(q_f). high: s(q_c). beta: β, without a gradient.
        m: sigmoid(β (s(q_c) - s(q_f))), before the rescale.
    """

    low: Tensor
    high: Tensor
    beta: Tensor
    m: Tensor


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

    def closed_form(self) -> DistanceSlope | None:
        """Return the slope under the controller; None at a fixed temperature."""
        if self.beta is not None:
            return None
        return DistanceSlope(self.gamma / (2.0 * math.sinh(self.gamma)), 1.0 / (2.0 * self.sigma**2))

    def relax(self, t: Tensor) -> Tensor:
        """Compute the relaxed value of t through the whole graph, step by step as the paper has it."""
        scores = self.scores(t)
        if self.beta is not None:
            return scores.m
        return (scores.m - 0.5) / math.tanh(self.gamma / 2.0) + 0.5  # 1 - 2 λ = tanh(γ / 2)

    def scores(self, t: Tensor) -> Scores:
        """Return the steps of :meth:`relax` up to the rescale, each the shape of t."""
        low, high = torch.exp(-_abs(t)), torch.exp(-_abs(1.0 - t))  # the distance scores of the two knots
        kappa = math.exp(-1.0 / self.sigma**2)
        upper = t.detach() > 0.5  # a tie goes down
        one = torch.ones_like(t)
        low = low * torch.where(upper, kappa * one, one)
        high = high * torch.where(upper, one, kappa * one)
        gap = high - low
        beta = (self.gamma / gap.abs()).detach() if self.beta is None else torch.full_like(t, self.beta)
        return Scores(low, high, beta, torch.sigmoid(beta * gap))

    def slope(self, t: Tensor) -> Tensor:
        """Return the derivative of :meth:`relax`: β m (1 - m) (s(q_f) + s(q_c)) at a fixed temperature."""
        if self.beta is None:
            return super().slope(t)
        low, high, beta, m = self.scores(t.detach())
        return beta * m * (1.0 - m) * (low + high)

    def extra_repr(self) -> str:
        """Show the constants."""
        return (
            f"gamma={self.gamma}, sigma={self.sigma}"
            if self.beta is None
            else f"beta={self.beta}, sigma={self.sigma}"
        )


@dataclass(frozen=True)
class DistanceSlope:
    """The slope under the controller, g coth(|t - 1/2| + a)."""

    g: float
    a: float

    def __call__(self, t: Tensor) -> Tensor:
        """Return g (1 + 2 / (exp(2 (|t - 1/2| + a)) - 1)); t is overwritten."""
        grown = t.sub_(0.5).abs_().mul_(2.0).add_(2.0 * self.a)
        # exp - 1 loses the digits that it cancels; expm1, which keeps them, is slow and does not vectorize
        grown = grown.exp_().sub_(1.0) if self.a > 0.05 else grown.expm1_()
        return grown.reciprocal_().mul_(2.0 * self.g).add_(self.g)


def _abs(x: Tensor) -> Tensor:
    """Return |x| with derivative +1 at 0, as the released code of DAQ has it."""
    return torch.where(x.detach() >= 0, x, -x)
