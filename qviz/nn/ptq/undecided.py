"""Undecided: a weight while AdaRound learns to which of its two neighbors each value goes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qviz.core.lookup import take
from qviz.core.quantizer import Quantizer
from qviz.methods.adaround import LearnedRound


class Undecided(nn.Module):
    """y = low + h(V) (high - low), low and high the levels around the float weight; for any codebook.

    Stands in the place of a layer's weight quantizer while V is learned. A weight on a level or beyond the
    end levels is decided from the start, as in :class:`~qviz.methods.adaround.LearnedRound`.

    Args:
        quantizer: The layer's, calibrated; it stays as it is.
        weight: The float weight.

    References:
        Nagel et al., "Up or Down?", ICML 2020, arXiv:2004.10568, equations (22) to (24).
    """

    calibrated, adapts = True, False

    def __init__(self, quantizer: Quantizer, weight: Tensor) -> None:
        super().__init__()
        self._quantizer = (quantizer,)  # in a tuple, so that its parameters are not this module's
        book = quantizer.codebook
        with torch.no_grad():
            u, scale, offset = quantizer._normalize(weight)
            self.rounding = LearnedRound(tuple(weight.shape)).to(u)
            self._cell, t = book.locate(u)
            self.free = (t > 0) & (t < 1)
            self._nearest = t > 0.5
            self.rounding.observe(u, book)
            levels = book.levels.to(u.dtype)
            low = take(levels, self._cell)
            gap = take(levels, (self._cell + 1).clamp(max=len(levels) - 1)) - low
            low = torch.where(self.free, low, low + gap * self._nearest)
            self.low = quantizer._denormalize(low, scale, offset)
            self.gap = gap * scale * self.free

    @property
    def v(self) -> nn.Parameter:
        """V, of the weight's shape."""
        return self.rounding.v

    def forward(self, weight: Tensor) -> Tensor:
        """Return the relaxed weight; the argument, of which this was made, is not looked at."""
        return torch.addcmul(self.low, self.gap, self.rounding.h()).to(weight.dtype)

    def after_step(self, weight: Tensor) -> None:
        """Do nothing: V is all that moves."""

    def regularizer(self, beta: float) -> Tensor:
        """Return the sum of 1 - |2 h(V) - 1|^β over the weights that are free."""
        return ((1.0 - (2.0 * self.rounding.h() - 1.0).abs().pow(beta)) * self.free).sum()

    @torch.no_grad()
    def hard(self) -> Tensor:
        """Return the weight with each decision made: levels, which the quantizer gives back bit for bit."""
        up = torch.where(self.free, self.rounding.h() > 0.5, self._nearest)
        return self._quantizer[0].dequantize(self._cell + up, self.low.dtype)

    @torch.no_grad()
    def open(self) -> int:
        """Return how many weights have h(V) neither at 0 nor at 1."""
        h = self.rounding.h()
        return int(((h > 0) & (h < 1) & self.free).sum())


def beta(step: int, steps: int, warm_up: float) -> float | None:
    """Return the regularizer's exponent, falling from 20 to 2; None in the warm-up, where it has no weight.

    Args:
        step: Counted from 0.
        steps: How many there are.
        warm_up: The share of them at the start.
    """
    start = warm_up * steps
    if step < start:
        return None
    return 20.0 - 18.0 * (step - start) / max(steps - start, 1.0)
