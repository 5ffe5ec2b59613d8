"""Codebooks that move: by exponential moving average (ADQ), or by gradient (N2UQ's thresholds)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from qviz.core import _check
from qviz.core.codebook import Codebook, count_below


class EMACodebook(Codebook):
    """ADQ's weight codebook: quantiles of each sign around a pinned zero, then drawn to the cells' means.

    The first :meth:`observe` places the levels: zero, and for each sign the p_i quantiles of the values of
    that sign, p_i = (i - 1/2) / m, i = 1 … m = 2^(b-1) - 1. Every later one, in train mode only, moves each
    level to decay * level + (1 - decay) * mean of its cell. Levels without values (dead ones) stay, zero
    stays zero, and the order is kept (means of ordered cells are ordered, and so are mixtures of ordered
    lists).

    Order of update: quantize with the present levels, then ``observe``; the caller decides when.

    Args:
        bits: 2 to 8; 2^b - 1 levels.
        decay: in [0, 1); 0.99, or 0.9 for short runs.
        tie_sign: take the quantiles of |w| for both signs, so that the levels are symmetric.
        init: "quantile"; or, for ablations, "uniform" (evenly to the largest |w|) or "random" (sorted draws
            of the weights of each sign, from ``generator``).
        generator: for init="random".

    Attributes:
        frozen: set True to stop the adaptation (recommended for the last 5 % of training).

    Raises:
        ValueError: bits or decay out of range, an unknown init; ``observe``: NaN or inf in the data (the
            state stays as it was), or a sign with fewer than m distinct values.

    References:
        Jia et al., "Adaptive Distribution-aware Quantization for Mixed-Precision Neural Networks" (ADQ),
        2025, arXiv:2510.19760: quantiles per sign, zero added, EMA. INFERRED: p_i, decay, order of update,
        dead codes, the pinned zero.

    Example:
        >>> book = EMACodebook(2, decay=0.9)
        >>> book.observe(torch.tensor([-2.0, -1.0, 1.0, 3.0]))
        >>> book.levels.tolist()
        [-1.5, 0.0, 2.0]
    """

    def __init__(
        self,
        bits: int,
        *,
        decay: float = 0.99,
        tie_sign: bool = False,
        init: str = "quantile",
        generator: torch.Generator | None = None,
    ) -> None:
        bits = _check.bits(bits, 2, 8, "ADQ")
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        if init not in ("quantile", "uniform", "random"):
            raise ValueError(f'init must be "quantile", "uniform" or "random", got {init!r}')
        m = 2 ** (bits - 1) - 1
        super().__init__(torch.arange(-m, m + 1), name="ADQ")
        self.decay, self.tie_sign, self.init, self.generator = (
            float(decay),
            tie_sign,
            init,
            generator,
        )
        self.frozen = False
        self.register_buffer("placed", torch.zeros(1, dtype=torch.float64))

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Place the levels at first; later draw them to the means of their cells (train mode, not frozen)."""
        x = _check.finite(_check.float_tensor(x, "weights"), "weights").detach().double().flatten()
        if not bool(self.placed):
            self._move(self._initial(x))
            self.placed.fill_(1.0)
        elif self.training and not self.frozen:
            self._move(self._drawn(x))

    def _move(self, levels: Tensor) -> None:
        levels = Codebook(levels).levels  # refuses what is not increasing before anything is changed
        self.knots.copy_(levels)
        self.levels.copy_(levels)
        self._derive()

    def _derive(self) -> None:
        super()._derive()
        self.unit = False  # levels move; integers at the start are a coincidence

    def _initial(self, x: Tensor) -> Tensor:
        m = (len(self) - 1) // 2
        up, down = (x.abs()[x != 0],) * 2 if self.tie_sign else (x[x > 0], -x[x < 0])
        sides = [self._side(side, m, x) for side in (down, up)]
        return torch.cat([-sides[0].flip(0), x.new_zeros(1), sides[1]])

    def _side(self, magnitudes: Tensor, m: int, x: Tensor) -> Tensor:
        if self.init == "uniform":
            return x.abs().max() * torch.arange(1, m + 1, dtype=x.dtype, device=x.device) / m
        if magnitudes.unique().numel() < m:
            raise ValueError(
                f"{m} levels a sign need as many distinct values, got {magnitudes.unique().numel()}"
            )
        if self.init == "random":
            distinct = magnitudes.unique()
            pick = torch.randperm(len(distinct), generator=self.generator)[:m]
            return distinct[pick].sort().values
        order = magnitudes.sort().values
        at = (torch.arange(1, m + 1, dtype=x.dtype, device=x.device) - 0.5) / m * (len(order) - 1)
        low = at.floor().long()
        high = (low + 1).clamp(max=len(order) - 1)
        return order[low] + (at - low) * (order[high] - order[low])

    def _drawn(self, x: Tensor) -> Tensor:
        code = count_below(x, self.borders).long()
        count = torch.bincount(code, minlength=len(self))
        total = torch.zeros(len(self), dtype=x.dtype, device=x.device).scatter_add_(0, code, x)
        mean = torch.where(count > 0, total / count.clamp(min=1), self.levels)
        levels = self.decay * self.levels + (1.0 - self.decay) * mean
        levels[(len(self) - 1) // 2] = 0.0
        return levels


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

    def _derive(self) -> None:
        self.identity = self.unit = False
        self.gap = self.ratio = None

    @property
    def knots(self) -> Tensor:
        """The knots, differentiable in start and widths, float32, shape (2^b,)."""
        widths = torch.where(self.widths > 1e-3, self.widths, torch.full_like(self.widths, 1e-3))
        return torch.cat([self.start.reshape(1), self.start + widths.cumsum(0)])

    @property
    def lo(self) -> float:
        """The first knot."""
        return float(self.start.detach())

    @property
    def hi(self) -> float:
        """The last knot."""
        return float(self.knots[-1].detach())
