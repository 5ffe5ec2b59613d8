"""AQuant's border as a function, B(v) = sigmoid(b0 + b1 v + b2 v²), and the thresholds that it folds to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qviz.core.codebook import Codebook
from qviz.core.fast import total

if TYPE_CHECKING:
    from qviz.methods.aquant import AdaptiveBorder


def logits(v: Tensor, b: Tensor) -> Tensor:
    """Return b0 + v (b1 + b2 v) by Horner's rule; b is (3, …), broadcastable against v."""
    return (v * b[2] + b[1]) * v + b[0]


def top_border(dtype: torch.dtype, lo: float, hi: float) -> float:
    """Return the largest border that keeps whole numbers: above it, n - B would round to n - 1."""
    return 1.0 - 2.0 * (max(abs(lo), abs(hi)) + 1.0) * torch.finfo(dtype).eps


def squash(z: Tensor, lo: float, hi: float) -> Tensor:
    """Return sigmoid(z), kept below :func:`top_border`."""
    return torch.sigmoid(z).clamp(max=top_border(z.dtype, lo, hi))


@dataclass(frozen=True)
class SigmoidBorder:
    """B(v) for the fast path: :func:`squash` of :func:`logits`, without their scratch memory, and its
    gradient, which comes from values no further than ``window`` from their border.
    """

    lo: float
    hi: float
    window: float = math.inf

    def share(self, u: Tensor) -> Tensor:
        """Return where u lies between the end knots, 0 to 1."""
        return u.sub(self.lo).div_(self.hi - self.lo) if self.lo else u / (self.hi - self.lo)

    def border(self, u: Tensor, b: Tensor) -> Tensor:
        """Return B for each u between the end knots."""
        z = _logits(self.share(u), b)
        return z.sigmoid_().clamp_(max=top_border(z.dtype, self.lo, self.hi))

    def gradient(self, u: Tensor, b: Tensor, border: Tensor, grad: Tensor) -> Tensor:
        """Return the gradient of b: the sums of g B (1 - B) v^i for ``grad``, that of B."""
        if self.window < math.inf:
            grad = grad * near(u, border, self.window)
        # no border moves a value on an end
        grad = torch.ops.aten.hardtanh_backward(grad, u, self.lo, self.hi)
        g, n = torch.ops.aten.sigmoid_backward(grad, border), self.hi - self.lo
        u = u - self.lo if self.lo else u
        return torch.stack([total(g, b[0]), total(g.mul_(u), b[0]) / n, total(g.mul_(u), b[0]) / n**2])


def near(u: Tensor, border: Tensor, window: float) -> Tensor:
    """Return where the fraction of u lies no further than ``window`` from its border."""
    return (u - u.floor() - border).abs() <= window


def _logits(v: Tensor, b: Tensor) -> Tensor:
    return (v * b[2]).add_(b[1]).mul_(v).add_(b[0])


def thresholds(rounding: AdaptiveBorder, codebook: Codebook) -> Tensor:
    """Fold a border function into the input thresholds that it is equivalent to: T_n solves u - n = B(u).

    While u - B(u) rises, every cell [n, n + 1] has one such u, and code = #{T < u}: no arithmetic is left at
    run time but R comparisons. Found by bisection in float64, down to two neighboring numbers; T_n is the
    last u that goes down.

    Args:
        rounding: not fused.
        codebook: the consecutive integers lo … hi that it rounds to, R = hi - lo cells.

    Returns:
        float64, shape (R,) or, with channels, (R, C); in units of u, increasing along the first axis.

    Raises:
        ValueError: the border is fused (its neighbors decide too), the codebook is not made of R + 1
            consecutive integers, or the monotone guard |b1 + 2 b2 v| < 4 R does not hold on [0, 1].

    References:
        DERIVED for this project. Whether AQuant (arXiv:2208.11945) uses such a table is not known.

    Example:
        >>> from qviz.core.grids import uniform
        >>> from qviz.methods.aquant import AdaptiveBorder
        >>> rounding = AdaptiveBorder(3)
        >>> with torch.no_grad():  # sigmoid(0.4 - 0.6 u + 0.15 u²)
        ...     _ = rounding.b.copy_(torch.tensor([0.4, -1.8, 1.35]))
        >>> [round(t, 6) for t in thresholds(rounding, uniform(2, signed=False)).tolist()]
        [0.530896, 1.460975, 2.457964]
    """
    b = _coefficients(rounding, codebook)
    cells = torch.arange(rounding.steps, dtype=torch.float64, device=b.device)
    n = (cells if b.ndim == 1 else cells[:, None].expand(-1, b.shape[1])) + codebook.lo
    down, up = n, n + 1.0

    def rises(u: Tensor) -> Tensor:
        v = (u - codebook.lo) / rounding.steps
        return u - squash(logits(v, b), codebook.lo, codebook.hi) > n

    while True:
        middle = (down + up) / 2
        if bool(((middle == down) | (middle == up)).all()):
            return down
        goes = rises(middle)
        down, up = torch.where(goes, down, middle), torch.where(goes, middle, up)


def _coefficients(rounding: AdaptiveBorder, codebook: Codebook) -> Tensor:
    """Return b in float64, (3,) or (3, C), zero beyond the degree, after the checks of ``thresholds``."""
    steps = rounding.steps
    if rounding.kernel is not None:
        raise ValueError("a fused border depends on the neighbors too; no table of thresholds stands for it")
    if not codebook.unit or len(codebook) != steps + 1:
        raise ValueError(
            f"a border made for {steps} steps needs {steps + 1} consecutive integers, got {codebook!r}"
        )
    b = rounding.b.detach().double().clone()
    b[rounding.degree + 1 :] = 0.0
    steepest = float(torch.maximum(b[1].abs(), (b[1] + 2.0 * b[2]).abs()).max())
    if not (steepest < 4.0 * steps and bool(torch.isfinite(b).all())):
        raise ValueError(
            f"the border may not be monotone: |b1 + 2 b2 v| reaches {steepest:g}, the guard asks for less "
            f"than 4 R = {4 * steps}; AdaptiveBorder.guard() makes it so"
        )
    return b
