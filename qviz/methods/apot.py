"""APoT: Li, Dong and Wang, "Additive Powers-of-Two Quantization", ICLR 2020, arXiv:1909.13144.

Levels are sums of powers of two (:func:`qviz.core.grids.apot`), largest 1, under a learned clip α:

    forward   y = α nearest(clip(w / α, -1, 1))                            equation (4)
    backward  dy/dw = 1 inside the clip, else 0
              dy/dα = level - w / α inside, sign(w) outside                section 2.3

Weights are standardized by the layer first. Released code starts α at 3 for weights and at 8
(CIFAR) for activations, whose grid is the same without signs; on CIFAR it passes the weights' gradient
unclipped, this clips it.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from qviz.core import _check
from qviz.core.codebook import Codebook
from qviz.core.grids import apot
from qviz.core.learned import LearnedClip
from qviz.core.quantizer import Quantizer
from qviz.core.recipe import recipe
from qviz.methods.method import Method


@recipe
def apot_weight(bits: int, *, alpha: float | None = 3.0) -> Quantizer:
    """APoT: sums of powers of two, a learned clip α that starts at 3 (the layer standardizes its weights).

    d y / d α is level - u inside and the sign outside.

    Args:
        bits: 2 to 8.
        alpha: The clip to start with, > 0, in the unit of x; None lets ``observe`` search the least squared
        error.

    Raises:
        ValueError: Bits are out of range, or alpha is not positive.

    References:
        Li, Dong and Wang, ICLR 2020, arXiv:1909.13144, equation (4) and released code; that code passes the
        weights' gradient unclipped on CIFAR, this one clips it.

    Example:
        >>> import torch
        >>> apot_weight(3, alpha=1.0)(torch.tensor([-2.0, 0.3, 0.8])).tolist()
        [-1.0, 0.25, 1.0]
    """
    return Quantizer(apot(bits), range=LearnedClip(1.0, alpha))


@recipe
def apot_activation(bits: int, *, signed: bool = False, alpha: float | None = 8.0) -> Quantizer:
    """APoT for activations: sums of powers of two in [0, 1], a learned clip α that starts at 8.

    d y / d α is level - u inside and 1 above the clip.

    Args:
        bits: 2 to 7; 2^b levels, or 2^b - 1 with signs.
        signed: Use the weights' grid, for inputs that may be negative.
        alpha: The clip to start with, in the unit of x; None lets ``observe`` search the least squared error.

    Raises:
        ValueError: Bits are out of range, or alpha is not positive.

    References:
        Li, Dong and Wang, ICLR 2020, arXiv:1909.13144, equation (4); released code starts at 8 on CIFAR.

    Example:
        >>> apot_activation(2).levels.tolist()
        [0.0, 0.25, 0.5, 1.0]
    """
    bits = _check.bits(bits, 2, 7, "apot_activation")
    book = apot(bits) if signed else Codebook(apot(bits + 1).levels[2**bits - 1 :], name="APoT")
    return Quantizer(book, range=LearnedClip(1.0, alpha))


def _weight(bits: int, layer: nn.Module, **options: Any) -> Quantizer:
    return apot_weight(bits, **options)


def _act(bits: int, layer: nn.Module, signed: bool, **options: Any) -> Quantizer:
    return apot_activation(bits, signed=signed, **options)


METHOD = Method(_weight, _act, standardize=True)
"""APoT levels for standardized weights and for inputs, as released code has it."""
