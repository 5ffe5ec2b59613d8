"""Surrogate: what stands in for the decision in the backward pass."""

from __future__ import annotations

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
