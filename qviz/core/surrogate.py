"""Surrogate: what stands in for the decision in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Surrogate(nn.Module):
    """A smooth stand-in for the jump inside a cell.

    Attributes:
        clipped: Whether the gradient is zero outside the outermost knots.
    """

    clipped: bool = True

    def relax(self, t: Tensor) -> Tensor:
        """Map the cell coordinate t in [0, 1] to its relaxed value in [0, 1]."""
        raise NotImplementedError

    def slope(self, t: Tensor) -> Tensor:
        """Return the derivative of :meth:`relax` at t, the shape of t."""
        exact = self.closed_form()
        if exact is not None:
            return torch.ones_like(t) if exact == 1.0 else exact(t.clone())
        with torch.enable_grad():
            leaf = t.detach().clone().requires_grad_(True)
            (found,) = torch.autograd.grad(self.relax(leaf).sum(), leaf)
        return found

    def closed_form(self) -> Callable[[Tensor], Tensor] | float | None:
        """Return the slope as the fast path takes it: 1.0, or a function of t that may overwrite t.

        None, the default, sends the quantizer to the composition. The function must be hashable and equal to
        another of the same constants (a frozen dataclass is), or a compiler would compile again.
        """
        return None


class StraightThrough(Surrogate):
    """Pretend that rounding did nothing: relax(t) = t, slope 1.

    Args:
        clipped: True (default) gives zero gradient outside the grid, as the saturation has it;
            False passes the gradient there too.

    References:
        Bengio, Léonard and Courville, "Estimating or Propagating Gradients Through Stochastic
        Neurons", 2013, section 4. arXiv:1308.3432
    """

    def __init__(self, clipped: bool = True) -> None:
        super().__init__()
        self.clipped = bool(clipped)

    def relax(self, t: Tensor) -> Tensor:
        """Return ``t``."""
        return t

    def closed_form(self) -> float:
        """Return 1."""
        return 1.0

    def extra_repr(self) -> str:
        """Name the switch in ``print(quantizer)``."""
        return f"clipped={self.clipped}"


class TrueDerivative(Surrogate):
    """Keep rounding as it is: relax(t) = 1 if t > 1/2, else 0, with the derivative that calculus gives, 0.

    What training would have without any estimator: no gradient passes. It is here to be looked at.

    Args:
        clipped: False passes the gradient outside the grid all the same, as if only the saturation were
            replaced.

    Example:
        >>> TrueDerivative().slope(torch.tensor([0.2, 0.7])).tolist()
        [0.0, 0.0]
    """

    def __init__(self, clipped: bool = True) -> None:
        super().__init__()
        self.clipped = bool(clipped)

    def relax(self, t: Tensor) -> Tensor:
        """Return 1.0 where t > 1/2, else 0.0 (NaN for NaN), with the gradient 0."""
        return (t > 0.5).to(t.dtype) + 0.0 * t

    def closed_form(self) -> Callable[[Tensor], Tensor]:
        """Return the function that makes zeros."""
        return torch.zeros_like

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
