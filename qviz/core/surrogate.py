"""Surrogate: what stands in for the decision in the backward pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Surrogate(nn.Module):
    """A smooth stand-in for the jump inside a cell.

    Attributes:
        clipped: whether the gradient is zero outside the outermost knots.
    """

    clipped: bool = True

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
    """Return zeros whose gradient is 1 outside [low, high] and 0 inside (the part that saturation cuts)."""
    v = u.nan_to_num(nan=0.0, posinf=high, neginf=low)  # inf - inf would be NaN
    excess = v - torch.clamp(v, low, high)
    return excess - excess.detach()
