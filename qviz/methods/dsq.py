"""DSQ: Gong et al., "Differentiable Soft Quantization: Bridging Full-Precision and Low-Bit Neural Networks",
ICCV 2019, arXiv:1908.05033, section 3.2.

In a cell of width Δ with the middle m_i:

    relaxed    φ(x) = tanh(k (x - m_i)) / tanh(k Δ / 2), from -1 to 1;  α = 1 - tanh(k Δ / 2)
    forward    the sign of φ, so rounding;  backward through φ

tanh(z) = 2 sigmoid(2 z) - 1, so this is the sigmoid with the temperature 2 k, stretched to reach both levels;
:mod:`qviz.methods.quantization_networks` has the plain one, as a soft forward pass.
Here is the surrogate alone: the paper learns bounds and α, here they are chosen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from qviz.core.surrogate import Surrogate


class SoftTanh(Surrogate):
    """DSQ's tanh: relax(t) = (tanh(k (t - 1/2)) / tanh(k / 2) + 1) / 2.

    Its slope is k / (2 tanh(k / 2)) · (1 - tanh²(k (t - 1/2))), highest at the border. A small k is nearly
    straight-through; a large one nearly the step, whose gradient is gone except at the border.

    Args:
        k: The sharpness, > 0; ``SoftTanh.of(alpha)`` takes the paper's α = 1 - tanh(k / 2) instead.

    Raises:
        ValueError: k is not positive and finite, or α is not between 0 and 1.

    References:
        Gong et al., ICCV 2019, arXiv:1908.05033, section 3.2.

    Example:
        >>> s = SoftTanh.of(0.2)
        >>> round(s.k, 4), s.relax(torch.tensor([0.0, 0.5, 1.0])).tolist()
        (2.1972, [0.0, 0.5, 1.0])
    """

    def __init__(self, k: float = 4.0) -> None:
        super().__init__()
        if not 0 < k < math.inf:
            raise ValueError(f"k must be positive and finite, got {k}")
        self.k = float(k)

    @classmethod
    def of(cls, alpha: float) -> SoftTanh:
        """Return the surrogate of the paper's α, how far tanh is from 1 at the ends of a cell."""
        if not 0 < alpha < 1:
            raise ValueError(f"alpha must be between 0 and 1, got {alpha}")
        return cls(math.log(2.0 / alpha - 1.0))

    @property
    def alpha(self) -> float:
        """The paper's α = 1 - tanh(k / 2)."""
        return 1.0 - math.tanh(self.k / 2.0)

    def relax(self, t: Tensor) -> Tensor:
        """Return the stretched tanh, 0 at t = 0 and 1 at t = 1."""
        return (torch.tanh(self.k * (t - 0.5)) / math.tanh(self.k / 2.0) + 1.0) / 2.0

    def closed_form(self) -> TanhSlope:
        """Return the slope."""
        return TanhSlope(self.k)

    def extra_repr(self) -> str:
        """Show the sharpness."""
        return f"k={self.k}"


@dataclass(frozen=True)
class TanhSlope:
    """The slope of the stretched tanh."""

    k: float

    def __call__(self, t: Tensor) -> Tensor:
        """Return k / (2 tanh(k / 2)) (1 - tanh²(k (t - 1/2))); t is overwritten."""
        bent = t.sub_(0.5).mul_(self.k).tanh_().square_()
        return bent.neg_().add_(1.0).mul_(self.k / (2.0 * math.tanh(self.k / 2.0)))
