"""AdaRound: Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020,
arXiv:2004.10568.

Each weight has a learned V that decides between the two levels next to it:

    soft      y = s (floor(w / s) + h(V)),  h(V) = clip(1.2 sigmoid(V) - 0.1, 0, 1)     equations (22), (23)
    hard      h(V) > 1/2 goes up
    loss      the layer's output error + λ Σ 1 - |2 h(V) - 1|^β, with β falling

V starts where h(V) is the coordinate in the cell, which is rounding to nearest. A weight that lies on a level
(a pruned zero, say) or outside the grid stays there and its V gets no gradient; the paper's formula would let
a weight on a level go one level up.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from qviz.core.codebook import Codebook
from qviz.core.grids import uniform
from qviz.core.quantizer import Quantizer
from qviz.core.range import MSE
from qviz.core.recipe import recipe
from qviz.core.rounding import Rounding
from qviz.core.surrogate import Surrogate
from qviz.methods.method import Method
from qviz.methods.ste import ste


class LearnedRound(Rounding):
    """AdaRound: each weight has its own decision h(V) > 1/2, h(V) = clip(1.2 sigmoid(V) - 0.1, 0, 1).

    ``observe`` sets V so that h(V) = t, which is rounding to nearest at first; V is then learned through
    :class:`RectifiedSigmoid`, usually with ``soft=True`` and the regularizer 1 - |2 h - 1|^β of the paper.

    A weight that lies on a level (a pruned zero, say) or outside the grid stays there, and its V gets no
    gradient; the paper's formula would let a weight on a level go one level up.

    Args:
        shape: of the weights.

    Attributes:
        v: V, float32, of that shape.

    References:
        Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020,
        arXiv:2004.10568, equations (22) and (23).
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.v = nn.Parameter(torch.zeros(shape))

    def h(self) -> Tensor:
        """Give the rectified sigmoid of V, in [0, 1], differentiable."""
        return (1.2 * torch.sigmoid(self.v) - 0.1).clamp(0.0, 1.0)

    @torch.no_grad()
    def observe(self, u: Tensor, codebook: Codebook) -> None:
        """Set V so that h(V) is the coordinate in the cell."""
        self._need(u)
        _, t = codebook.locate(u)
        self.v.copy_(torch.logit((t + 0.1) / 1.2))

    def _need(self, u: Tensor) -> None:
        if u.shape != self.v.shape:
            raise ValueError(f"made for weights of shape {tuple(self.v.shape)}, got {tuple(u.shape)}")

    def borders(self, codebook: Codebook) -> None:
        """Return None: the decision does not depend on u."""

    def decide(self, u: Tensor, cell: Tensor, t: Tensor, codebook: Codebook) -> Tensor:
        """Return h(V) > 1/2.

        Raises:
            ValueError: u has another shape than V.
        """
        self._need(u)
        return torch.where((t > 0) & (t < 1), self.h() > 0.5, t > 0.5)


class RectifiedSigmoid(Surrogate):
    """The surrogate of :class:`LearnedRound`: relax(t) = h(V), whatever t is.

    Args:
        rounding: whose V is learned.
    """

    def __init__(self, rounding: LearnedRound) -> None:
        super().__init__()
        self._rounding = (rounding,)  # in a tuple: the module is registered once, as the quantizer's rounding

    def relax(self, t: Tensor) -> Tensor:
        """Return the learned choice inside a cell, t on a level and outside the grid."""
        h = self._rounding[0].h().to(t.dtype)
        return torch.where((t.detach() > 0) & (t.detach() < 1), h, t.detach())


@recipe
def adaround_weight(bits: int, weight: Tensor, *, axis: int | None = 0) -> Quantizer:
    """AdaRound: uniform levels at a fixed MSE-searched step, one learned decision for each weight.

    Set ``q.soft = True`` while V is optimized. A weight on a level stays there (see
    :class:`~qviz.methods.adaround.LearnedRound`).

    Args:
        bits: 1 to 8.
        weight: What is quantized, of any shape; its scale is searched, one for each index of ``axis``.
        axis: The channel axis, or None for one scale in all.

    Raises:
        ValueError: Bits are out of range, or the weight is not finite.

    References:
        Nagel et al., ICML 2020, arXiv:2004.10568, equations (22) and (23).

    Example:
        >>> w = torch.tensor([[0.1, -0.7, 1.0], [0.2, 0.4, -0.6]])
        >>> q = adaround_weight(4, w)
        >>> bool((q(w) - w).abs().max() < 0.1)  # nearest, before V is learned
        True
    """
    rounding = LearnedRound(tuple(weight.shape))
    q = Quantizer(uniform(bits), rounding, RectifiedSigmoid(rounding), MSE(axis))
    return q.observe(weight)


def _weight(bits: int, layer: nn.Module, **options: Any) -> Quantizer:
    return adaround_weight(bits, layer.weight, **options)


def _act(bits: int, layer: nn.Module, signed: bool, **options: Any) -> Quantizer:
    return ste(bits, signed=signed, **options)


METHOD = Method(_weight, _act)
"""A learned decision for each weight; inputs on a fixed grid of the least squared error."""
