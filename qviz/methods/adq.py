"""ADQ: Jia et al., "Adaptive Distribution-aware Quantization for Mixed-Precision Neural Networks", 2025,
arXiv:2510.19760.

Weights: one codebook a layer, K = 2^b - 1 levels c: zero, and m = 2^(b-1) - 1 quantiles of the values of each
sign.

    start     c_0 = 0,  c_±i = ± the p_i quantile of {|w| : sign(w) = ±}
    forward   y = c_k(w), the nearest level
    backward  dL/dw = dL/dy, everywhere: there is no clip that could stop it
    after each step, in training: c_k <- d c_k + (1 - d) mean{w : k(w) = k}; a level without values stays

Activations are N2UQ's (:mod:`qviz.methods.n2uq`); bits for each layer come from :mod:`qviz.nn.allocate`.

INFERRED (the abstract and published reviews tell of quantiles per sign, the added zero and the moving
average, no more): p_i = (i - 1/2) / m, the decay d, the gradient, the order of update, dead levels, the
pinned zero.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from qviz.core import _check
from qviz.core.codebook import Codebook
from qviz.core.lloyd import lloyd_rest
from qviz.core.lookup import count_below
from qviz.core.quantizer import Quantizer
from qviz.core.range import Fixed
from qviz.core.recipe import recipe
from qviz.core.surrogate import StraightThrough
from qviz.methods.method import Method
from qviz.methods.n2uq import for_input

STARTS = ("quantile", "uniform", "k-means", "random")
"""Where the levels can start; all but the quantiles are there to be compared with them."""


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
        tie_sign: Take the quantiles of |w| for both signs, so that the levels are symmetric, and keep them
            so.
        init: "quantile"; or, for ablations, "uniform" (evenly to the largest |w|), "random" (sorted draws
            of the weights of each sign, from ``generator``) or "k-means" (where Lloyd's steps come to rest
            that begin at the quantiles).
        ignore: Weights below this share of the largest |w| do not count for the quantiles at the start. Of a
            layer that is mostly (nearly) zero, the quantiles of all weights lie near zero and silence it.
        generator: for init="random".
        pinned: Whether zero stays zero; else its level is drawn to the mean of its cell, as the others are.

    Attributes:
        frozen: Whether the adaptation has stopped, as :meth:`freeze` does. A training does that at
            ``TrainConfig(freeze_codebooks=0.95)``; the schedules that come with the package never do.

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
        ignore: float = 0.0,
        generator: torch.Generator | None = None,
        pinned: bool = True,
    ) -> None:
        bits = _check.bits(bits, 2, 8, "ADQ")
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        if init not in STARTS:
            raise ValueError(f"init must be one of {', '.join(map(repr, STARTS))}, got {init!r}")
        if not 0.0 <= ignore < 1.0:
            raise ValueError(f"ignore must be in [0, 1), got {ignore}")
        m = 2 ** (bits - 1) - 1
        super().__init__(torch.arange(-m, m + 1), name="ADQ")
        self.decay, self.tie_sign, self.init, self.generator = (
            float(decay),
            tie_sign,
            init,
            generator,
        )
        self.ignore, self.pinned = float(ignore), bool(pinned)
        self.frozen = False
        self.register_buffer("placed", torch.zeros(1, dtype=torch.float64))

    calibrated = False
    """Whether the levels were placed by data; a copy of ``placed`` that costs a forward pass nothing."""

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.calibrated = bool(self.placed)

    def restart(self) -> None:
        """Forget the places, so that the next :meth:`observe` is a new start and not one more update."""
        self.placed.zero_()
        self.calibrated = False

    def after_step(self, x: Tensor | None = None) -> None:
        """Draw the levels to the means of their cells of x; without it they stay."""
        if x is not None:
            self.observe(x)

    def freeze(self) -> None:
        """Leave the levels where they are from now on."""
        self.frozen = True

    def moving(self) -> dict[str, Tensor]:
        """Return the levels."""
        return {"levels": self.levels}

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Place the levels at first; later draw them to the means of their cells (train mode, not frozen)."""
        x = _check.finite(_check.float_tensor(x, "weights"), "weights").detach().double().flatten()
        if not self.calibrated:
            self._move(self._initial(x))
            self.placed.fill_(1.0)
            self.calibrated = True
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
        below = self._side(down, m, x)
        above = below if self.tie_sign else self._side(up, m, x)
        start = torch.cat([-below.flip(0), x.new_zeros(1), above])
        if self.init != "k-means":
            return start
        values = torch.cat([x, -x]) if self.tie_sign else x
        rest = lloyd_rest(values.cpu().numpy(), start.cpu().numpy(), pinned=m if self.pinned else None)
        return self._tied(torch.from_numpy(rest).to(x.device))

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
        order = magnitudes[magnitudes >= self.ignore * x.abs().max()].sort().values
        if order.numel() < m:
            raise ValueError(
                f"{m} levels a sign need as many weights, ignore={self.ignore} leaves {order.numel()}"
            )
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
        if self.pinned:
            levels[(len(self) - 1) // 2] = 0.0
        return self._tied(levels)

    def _tied(self, levels: Tensor) -> Tensor:
        return (levels - levels.flip(0)) / 2 if self.tie_sign else levels


@recipe
def adq_weight(
    bits: int,
    *,
    decay: float = 0.99,
    tie_sign: bool = False,
    init: str = "quantile",
    ignore: float = 0.0,
    generator: torch.Generator | None = None,
) -> Quantizer:
    """ADQ for weights: quantile codebook adapted by EMA; the gradient passes everywhere.

    Call ``q.observe(weight)`` once to place the levels, then after each training step to adapt them.

    Args:
        bits: 2 to 8.
        decay: Of the moving average, in [0, 1).
        tie_sign: Keep the levels symmetric.
        init: "quantile", "uniform", "random" or "k-means".
        ignore: Weights below this share of the largest do not count for the quantiles.
        generator: For init="random".

    Raises:
        ValueError: Bits, decay or ignore are out of range, or init is unknown.

    References:
        Jia et al., 2025, arXiv:2510.19760. INFERRED: the quantiles' positions, the decay, the gradient,
        dead codes.

    Example:
        >>> q = adq_weight(2, decay=0.9).observe(torch.tensor([-2.0, -1.0, 1.0, 3.0]))
        >>> q(torch.tensor([-9.0, 0.4, 1.2])).tolist()
        [-1.5, 0.0, 2.0]
    """
    book = EMACodebook(bits, decay=decay, tie_sign=tie_sign, init=init, ignore=ignore, generator=generator)
    return Quantizer(book, surrogate=StraightThrough(clipped=False), range=Fixed(1.0))


def _weight(bits: int, layer: nn.Module, **options: Any) -> Quantizer:
    return adq_weight(bits, **options)


METHOD = Method(_weight, for_input)
"""ADQ's codebook for weights, N2UQ's thresholds for inputs."""
