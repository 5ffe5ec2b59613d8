"""Quantization Networks: Yang et al., CVPR 2019, arXiv:1911.09464, section 3.

The quantizer is written as a sum of unit steps at borders b_i, in training as a sum of sigmoids with a
temperature T that grows from epoch to epoch:

    training    y = α (Σ_i s_i sigmoid(T (β x - b_i)) - o);  a test has the steps again, so there is a gap

Here is one cell of it, with the border at t = 1/2. The sigmoid is not normalized: at the ends of the cell it
is sigmoid(-T / 2) and 1 - sigmoid(-T / 2): it does not reach the levels. A sigmoid normalized to reach them
*is* DSQ's tanh (:class:`~qviz.methods.dsq.SoftTanh`), k = T / 2, because sigmoid(2 z) = (1 + tanh z) / 2.

Not of the paper: the sigmoids of all other cells are taken as the 0 or 1 that they tend to. That changes y by
about sigmoid(-T / 2) of a step at most. α, β and the borders are learned there; here they are chosen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from qviz.core.surrogate import Surrogate


class SoftSigmoid(Surrogate):
    """A plain sigmoid: relax(t) = sigmoid(T (t - 1/2)).

    Its slope is T m (1 - m) with m = relax(t), T / 4 at the border. As a soft forward pass
    (``Quantizer(..., soft=True)``), as published, it has the quantizer gap sigmoid(-T / 2) on the levels, and
    2 / T · log(2 / (1 + exp(-T / 2))) on average over a cell, in steps.

    Args:
        temperature: T > 0; a larger one is harder.

    Raises:
        ValueError: The temperature is not positive and finite.

    References:
        Yang et al., CVPR 2019, arXiv:1911.09464, section 3.

    Example:
        >>> s = SoftSigmoid(8.0)
        >>> [round(m, 3) for m in s.relax(torch.tensor([0.0, 0.5, 1.0])).tolist()]
        [0.018, 0.5, 0.982]
        >>> s.slope(torch.tensor(0.5)).item()
        2.0
    """

    def __init__(self, temperature: float = 8.0) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be positive and finite, got {temperature}")
        self.temperature = float(temperature)

    def relax(self, t: Tensor) -> Tensor:
        """Return the sigmoid, which stays between 0 and 1."""
        return torch.sigmoid(self.temperature * (t - 0.5))

    def closed_form(self) -> SigmoidSlope:
        """Return the slope."""
        return SigmoidSlope(self.temperature)

    def extra_repr(self) -> str:
        """Show the temperature."""
        return f"temperature={self.temperature}"


@dataclass(frozen=True)
class SigmoidSlope:
    """The slope of the sigmoid."""

    temperature: float

    def __call__(self, t: Tensor) -> Tensor:
        """Return T m (1 - m), m = sigmoid(T (t - 1/2)); t is overwritten."""
        m = t.sub_(0.5).mul_(self.temperature).sigmoid_()
        return m.mul_(1.0 - m).mul_(self.temperature)
