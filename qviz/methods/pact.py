"""PACT: Choi et al., 2018, arXiv:1805.06085, section 3; with DoReFa: Zhou et al., 2016, arXiv:1606.06160.

PACT clips activations at a learned α and cuts [0, α] into p = 2^b - 1 steps:

    forward   y = α / p round(clip(x, 0, α) p / α)
    backward  dy/dx = 1 on [0, α], else 0;  dy/dα = 1 above α, else 0

DoReFa bounds a weight before it is cut into n = 2^b - 1 steps:

    forward   z = tanh(w) / max|tanh(w)|,  y = 2 round(n (z + 1) / 2) / n - 1     equation (9)
    backward  straight through the rounding, then through tanh and the maximum

The regularizer on α belongs to the loss. DoReFa's special case of 1 bit is left out. A weight of exactly 0 is
a tie between the levels -1/n and +1/n: ties go down here, to -1/n; released code sends it to +1/n.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from qviz.core import _check
from qviz.core.codebook import Codebook, keep_float64
from qviz.core.grids import uniform
from qviz.core.learned import LearnedClip
from qviz.core.quantizer import Quantizer
from qviz.core.range import Range
from qviz.core.recipe import recipe
from qviz.methods.lsq import lsq
from qviz.methods.method import Method


class TanhRange(Range):
    """DoReFa's weight transform: z = tanh(w) / max|tanh(w)| in [-1, 1], divided evenly into n steps.

    Args:
        top: n = 2^b - 1.

    References:
        Zhou et al., "DoReFa-Net", 2016, arXiv:1606.06160, equation (9).
    """

    def __init__(self, top: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(2.0 / top, dtype=torch.float64))
        self.register_buffer("offset", torch.tensor(-1.0, dtype=torch.float64))

    _apply = keep_float64

    @property
    def calibrated(self) -> bool:
        """True: there is nothing to calibrate."""
        return True

    def observe(self, x: Tensor, codebook: Codebook, borders: Tensor | None = None) -> TanhRange:
        """Return self."""
        return self

    def values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return 2 / n and -1."""
        return self.scale, self.offset

    def transform(self, x: Tensor) -> Tensor:
        """Return tanh(x) / max|tanh(x)|; zeros stay zeros."""
        z = torch.tanh(x)
        top = z.abs().max()
        return z / torch.where(top > 0, top, torch.ones_like(top))


@recipe
def dorefa_weight(bits: int) -> Quantizer:
    """DoReFa: w → tanh(w) / max|tanh(w)|, then 2^b even levels in [-1, 1]; bits 2 to 8.

    The gradient goes through tanh and the maximum. The paper's special case of 1 bit (signs times the mean)
    is left out.

    Args:
        bits: 2 to 8.

    Raises:
        ValueError: Bits are out of range.

    References:
        Zhou et al., "DoReFa-Net", 2016, arXiv:1606.06160, equation (9).

    Example:
        >>> [round(v, 3) for v in dorefa_weight(2)(torch.tensor([-1.0, 0.1, 1.0])).tolist()]
        [-1.0, 0.333, 1.0]
    """
    n = 2 ** _check.bits(bits, 2, 8, "dorefa_weight") - 1
    return Quantizer(uniform(bits, signed=False), range=TanhRange(n))


@recipe
def pact_activation(bits: int, *, alpha: float | None = None) -> Quantizer:
    """PACT: unsigned uniform levels up to a learned clip α, whose gradient sees only what is cut off.

    d y / d α is 1 above the clip and 0 inside. The regularizer on α belongs to the loss. ``observe`` starts
    at the largest value unless ``alpha`` is given.

    Args:
        bits: 1 to 8.
        alpha: The clip to start with, > 0, in the unit of x; default: ``observe`` takes the largest x.

    Raises:
        ValueError: Bits are out of range, or alpha is not positive.

    References:
        Choi et al., "PACT", 2018, arXiv:1805.06085, section 3.

    Example:
        >>> pact_activation(2, alpha=3.0)(torch.tensor([-1.0, 1.2, 9.0])).tolist()
        [0.0, 1.0, 3.0]
    """
    book = uniform(bits, signed=False)
    return Quantizer(book, range=LearnedClip(book.hi, alpha, start="max", through="soft"))


def _weight(bits: int, layer: nn.Module, **options: Any) -> Quantizer:
    return dorefa_weight(bits, **options)


def _act(bits: int, layer: nn.Module, signed: bool, **options: Any) -> Quantizer:
    return lsq(bits) if signed else pact_activation(bits, **options)


METHOD = Method(_weight, _act)
"""DoReFa's weights with PACT's activations, as PACT's paper has them."""
