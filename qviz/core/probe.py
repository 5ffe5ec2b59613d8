"""Probe: every intermediate of one forward and backward pass of a quantizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from qviz.core import _check

if TYPE_CHECKING:
    from qviz.core.quantizer import Quantizer


@dataclass(frozen=True)
class Probe:
    """Every intermediate of one forward and backward pass, each of the shape of ``x``.

    Attributes:
        x: the input. u: x in units of the knots.
        cell: index of the cell. t: coordinate in it, 0 to 1.
        up: the decision. hard: the level read out. soft: the relaxed level. (Both in units of u.)
        y: the output.
        dydx: derivative of the output with respect to its input, as the surrogate has it.
    """

    x: Tensor
    u: Tensor
    cell: Tensor
    t: Tensor
    up: Tensor
    hard: Tensor
    soft: Tensor
    y: Tensor
    dydx: Tensor


def probe(q: Quantizer, x: Tensor | np.ndarray) -> Probe:
    """Run one forward and backward pass and return everything in between.

    Args:
        q: a calibrated quantizer.
        x: any shape.

    Example:
        >>> import torch
        >>> from qviz import Fixed, Quantizer, uniform
        >>> p = probe(Quantizer(uniform(2), range=Fixed(0.5)), torch.tensor([0.2, 9.0]))
        >>> [round(v, 3) for v in (p.t[0].item(), p.y[0].item(), p.dydx[0].item(), p.dydx[1].item())]
        [0.4, 0.0, 1.0, 0.0]
    """
    leaf = _check.float_tensor(x).detach().clone().requires_grad_(True)
    with torch.enable_grad():
        parts = q._compose(leaf)
        # the gradient that training gets, from the path that it takes; a random rounding is drawn only once
        y = parts["y"] if q.rounding.random else q(leaf)
        (dydx,) = torch.autograd.grad(y.sum(), leaf, allow_unused=True)
    dydx = torch.zeros_like(leaf) if dydx is None else dydx  # AdaRound's decisions do not depend on x
    return Probe(
        x=leaf.detach(),
        dydx=dydx,
        **{name: part.detach() for name, part in parts.items()},
    )
