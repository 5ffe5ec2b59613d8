"""STE: Bengio, Léonard and Courville, "Estimating or Propagating Gradients Through Stochastic Neurons for
Conditional Computation", 2013, arXiv:1308.3432, section 4.

    forward   y = s round(clip(x / s, -2^(b-1), 2^(b-1) - 1))
    backward  dy/dx = 1 inside the grid; outside 0 (``clipped``) or 1

The step s is found by least squared error and stays: the plain baseline of every comparison.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from qviz.core.grids import uniform
from qviz.core.quantizer import Quantizer
from qviz.core.range import MSE, Range
from qviz.core.recipe import recipe
from qviz.core.surrogate import StraightThrough
from qviz.methods.method import Method


@recipe
def ste(bits: int, *, signed: bool = True, clipped: bool = True, range: Range | None = None) -> Quantizer:
    """Uniform grid, nearest rounding, straight-through gradient: the plain baseline.

    The gradient of x is 1 inside the grid and, with ``clipped``, 0 outside.

    Args:
        bits: 1 to 8.
        signed: Whether the grid has negative levels.
        clipped: Whether the gradient is zero outside the grid.
        range: How x is scaled; default the searched least squared error.

    Raises:
        ValueError: Bits are out of range.

    References:
        Bengio, Léonard and Courville, 2013, arXiv:1308.3432, section 4.

    Example:
        >>> import torch
        >>> from qviz import Fixed
        >>> q = ste(2, range=Fixed(1.0))
        >>> q(torch.tensor([-3.0, 0.7, 0.6])).tolist()
        [-2.0, 1.0, 1.0]
    """
    return Quantizer(
        uniform(bits, signed=signed),
        surrogate=StraightThrough(clipped),
        range=range or MSE(),
    )


def _weight(bits: int, layer: nn.Module, **options: Any) -> Quantizer:
    return ste(bits, **options)


def _act(bits: int, layer: nn.Module, signed: bool, **options: Any) -> Quantizer:
    return ste(bits, signed=signed, **options)


METHOD = Method(_weight, _act)
"""One MSE-searched step a layer for weights and for inputs: this project's baseline."""
