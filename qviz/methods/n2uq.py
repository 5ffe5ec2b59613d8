"""N2UQ: Liu et al., "Nonuniform-to-Uniform Quantization", CVPR 2022, arXiv:2111.14826; ADQ's activations.

With n = 2^b - 1, D = 2 / n, a learned start t0, learned widths a_1 … a_n and scales s_in, s_out, v = s_in x:

    edges     d_0 = t0,  d_i = d_(i-1) + max(a_i, 1e-3);  threshold T_i = (d_(i-1) + d_i) / 2
    forward   y = s_out D #{i : v > T_i}
    backward  of the surrogate e(v) = D (i - 1) + D (v - d_(i-1)) / a_i in segment i (the *generalized* STE):
              de/dv = D / a_i;  de/da_j = -D / a_i for j < i, -D (v - d_(i-1)) / a_i² for j = i, 0 for j > i;
              de/dt0 = -D / a_i;  all 0 outside (d_0, d_n], the lower end included

e is the expectation of the quantizer that rounds up in segment i with probability (v - d_(i-1)) / a_i. The
released code, followed here, compares with >; a published description of ADQ has >=.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from qviz.core import _check
from qviz.core.codebook import Codebook
from qviz.core.learned import LearnedRange
from qviz.core.quantizer import Quantizer
from qviz.core.recipe import recipe
from qviz.methods.lsq import lsq


class LearnedKnots(Codebook):
    """N2UQ's activation grid: knots start + cumulated widths, learned; levels uniform in [0, 2].

    With n = 2^b - 1 and D = 2 / n: knots d_0 = t0, d_i = d_{i-1} + max(a_i, 1e-3); levels 0, D, …, 2.
    Rounding to the nearest knot puts the thresholds at the middle of each cell, T_i = (d_{i-1} + d_i) / 2,
    and the straight-through surrogate t of this grid is the *generalized* STE: slope D / a_i in cell i,
    which is the expectation of the stochastic quantizer that rounds up with probability t.

    Args:
        bits: 1 to 8.
        start: t0. widths: a_1 … a_n, > 0; default D each, which is uniform quantization.
        step: D; default 2 / n.

    Attributes:
        start, widths: float32 parameters, () and (n,).

    Raises:
        ValueError: the wrong number of widths, or one that is not positive (knots would not be monotone).

    References:
        Liu et al., "Nonuniform-to-Uniform Quantization", CVPR 2022, arXiv:2111.14826, released code. The code
        compares with >, a published description of ADQ with >=; here a tie goes down, as everywhere.
    """

    def __init__(
        self,
        bits: int,
        *,
        start: float = 0.0,
        widths: Tensor | list[float] | None = None,
        step: float | None = None,
    ) -> None:
        bits = _check.bits(bits, 1, 8, "N2UQ")
        n = 2**bits - 1
        step = 2.0 / n if step is None else float(step)
        widths = torch.full((n,), step) if widths is None else torch.as_tensor(widths, dtype=torch.float32)
        if not -math.inf < start < math.inf:
            raise ValueError(f"start must be finite, got {start}")
        if widths.shape != (n,) or not bool(((widths > 0) & torch.isfinite(widths)).all()):
            raise ValueError(f"{bits} bits need {n} positive widths, got {widths.tolist()}")
        nn.Module.__init__(self)  # the knots are computed, not held
        self.name = "N2UQ"
        self.register_buffer("levels", torch.arange(n + 1, dtype=torch.float64) * step)
        self.start = nn.Parameter(torch.tensor(float(start)))
        self.widths = nn.Parameter(widths.clone())
        self._derive()

    open = True

    def _derive(self) -> None:
        self.identity = self.unit = False

    @property
    def knots(self) -> Tensor:
        """The knots, differentiable in start and widths, float32, shape (2^b,)."""
        widths = torch.where(self.widths > 1e-3, self.widths, torch.full_like(self.widths, 1e-3))
        return torch.cat([self.start.reshape(1), self.start + widths.cumsum(0)])

    def moving(self) -> dict[str, Tensor]:
        """Return the knots."""
        return {"knots": self.knots.detach()}

    @property
    def lo(self) -> float:
        """The first knot."""
        return float(self.start.detach())

    @property
    def hi(self) -> float:
        """The last knot."""
        return float(self.knots[-1].detach())


class InOutScale(LearnedRange):
    """N2UQ's two scales: u = scale_in * x going in, and scale_out times the level going out.

    References:
        Liu et al., "Nonuniform-to-Uniform Quantization", CVPR 2022, arXiv:2111.14826, released code.
    """

    rescale = False

    def __init__(self) -> None:
        super().__init__()
        self.scale_in = nn.Parameter(torch.ones(()))
        self.scale_out = nn.Parameter(torch.ones(()))
        self._ready = True

    def _scale(self) -> Tensor:
        return self.scale_in.reciprocal()

    def output(self, y: Tensor) -> Tensor:
        """Return y times the output's scale."""
        return y * self.scale_out.to(y.dtype)

    def observe(self, x: Tensor, codebook: Codebook, borders: Tensor | None = None) -> InOutScale:
        """Return self; both scales start at 1, as in the released code."""
        return self


@recipe
def n2uq_activation(
    bits: int, *, start: float = 0.0, widths: Tensor | list[float] | None = None
) -> Quantizer:
    """N2UQ: learned thresholds, uniform levels, generalized straight-through gradient.

    The slope in cell i is D / a_i, the derivative of the expectation of stochastic rounding.

    Args:
        bits: 1 to 8.
        start: t0, where the first segment begins, in units of s_in x.
        widths: a_1 … a_n > 0, n = 2^b - 1; default 2 / n each, which is uniform quantization.

    Raises:
        ValueError: Bits are out of range, or widths are of the wrong number or not positive.

    References:
        Liu et al., CVPR 2022, arXiv:2111.14826, section 3 and released code.

    Example:
        >>> q = n2uq_activation(2)
        >>> [round(v, 3) for v in q(torch.tensor([-1.0, 0.5, 9.0])).tolist()]
        [0.0, 0.667, 2.0]
    """
    return Quantizer(LearnedKnots(bits, start=start, widths=widths), range=InOutScale())


def for_input(bits: int, layer: nn.Module, signed: bool, **options: Any) -> Quantizer:
    """Return N2UQ for a layer's input; a signed one gets LSQ."""
    return lsq(bits) if signed else n2uq_activation(bits, **options)
