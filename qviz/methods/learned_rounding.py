"""Learned roundings: AQuant's border as a function of the value, AdaRound's choice for each weight."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qviz.core import _check
from qviz.core.codebook import Codebook
from qviz.core.fast import logits, squash
from qviz.core.rounding import Rounding
from qviz.core.surrogate import Surrogate


class AdaptiveBorder(Rounding):
    """Round up where the fraction exceeds B(v) = sigmoid(b0 + b1 v + b2 v²), v = (u - lo) / (hi - lo).

    Zero coefficients give B = 1/2, rounding to nearest. With R = hi - lo steps, B rises slower than u (so
    that the integers are monotone in u) when |b1 + 2 b2 v| < 4 R on [0, 1]; :meth:`guard` makes it so.

    Args:
        steps: R.
        channels: one border function for each channel, or None for one in all.
        axis: the channel axis.
        degree: 0, 1 or 2; higher coefficients stay 0.
        fused: add a depthwise 3 x 3 convolution of the logits (identity at the start), for (N, C, H, W).

    Attributes:
        b: coefficients, float32, shape (3,) or (3, C).

    Raises:
        ValueError: a degree other than 0, 1, 2; fused without channels.

    References:
        Li et al., "Efficient Adaptive Activation Rounding for Post-Training Quantization" (AQuant), 2022,
        arXiv:2208.11945. INFERRED: the form of B, its granularity, the guard and the fusion; the abstracts
        say that the border is a function of the activation, coarse at run time, learned, and aware of
        global errors.
    """

    threshold = True
    within_unit = True

    def __init__(
        self,
        steps: int,
        *,
        channels: int | None = None,
        axis: int = 1,
        degree: int = 2,
        fused: bool = False,
    ) -> None:
        super().__init__()
        if degree not in (0, 1, 2):
            raise ValueError(f"degree must be 0, 1 or 2, got {degree}")
        if channels is not None and channels < 1:
            raise ValueError(f"channels must be positive, got {channels}")
        if fused and channels is None:
            raise ValueError("fusion works on channels; give their number, got channels=None")
        self.steps, self.channels, self.axis, self.degree = (
            int(steps),
            channels,
            axis,
            degree,
        )
        self.b = nn.Parameter(torch.zeros(3) if channels is None else torch.zeros(3, channels))
        self.kernel = nn.Parameter(torch.zeros(channels, 1, 3, 3)) if fused else None
        if fused:
            with torch.no_grad():
                self.kernel[:, 0, 1, 1] = 1.0

    @torch.no_grad()
    def analytic(self, rho: float | Tensor, zero_point: float = 0.0) -> AdaptiveBorder:
        """Start from the border that minimises the product's error, B = 1/2 + (1 - ρ)(u - z).

        In the logit, sigmoid(z) ≈ 1/2 + z / 4 gives b1 = 4 R (1 - ρ), b0 = -4 z (1 - ρ).

        Args:
            rho: <w', w> / <w', w'>, a number or one a channel (:func:`qviz.methods.aquant_border.ratio`).
            zero_point: z, the level that stands for 0, counted from the lowest.
        """
        rho = torch.as_tensor(rho, dtype=self.b.dtype, device=self.b.device)
        self.b.zero_()
        self.b[0] = -4.0 * zero_point * (1.0 - rho)
        self.b[1] = 4.0 * self.steps * (1.0 - rho)
        return self

    @torch.no_grad()
    def guard(self, share: float = 0.999) -> None:
        """Shrink b1 and b2 together where |b1 + 2 b2 v| would reach 4 R somewhere on [0, 1]."""
        steepest = torch.maximum(self.b[1].abs(), (self.b[1] + 2.0 * self.b[2]).abs())
        factor = (share * 4.0 * self.steps / steepest.clamp(min=1e-30)).clamp(max=1.0)
        self.b[1:] *= factor

    def _coefficients(self, v: Tensor) -> Tensor:
        """Return b with zeros above the degree, in the dtype of v and shaped to broadcast against it.

        Raises:
            ValueError: v has another number of channels.
        """
        b = self.b.to(v.dtype)
        if self.degree < 2:
            b = torch.cat([b[: self.degree + 1], torch.zeros_like(b[self.degree + 1 :])])
        if self.channels is None:
            return b
        axis = _check.axis(self.axis, v, self.channels)
        return b.view(3, *(-1 if i == axis else 1 for i in range(v.ndim)))

    def logits(self, v: Tensor) -> Tensor:
        """Return b0 + b1 v + b2 v² (fused, where asked for) with the shape of v, in [0, 1]."""
        z = logits(v, self._coefficients(v))
        if self.kernel is not None:
            z = nn.functional.conv2d(z, self.kernel.to(v.dtype), padding=1, groups=self.channels)
        return z

    def element(self, v: Tensor, codebook: Codebook) -> Tensor:
        """Return B for each element; the gradient goes to the coefficients, not back to v."""
        return squash(self.logits((v.detach() - codebook.lo) / self.steps), codebook.lo, codebook.hi)

    def coefficients(self, x: Tensor) -> Tensor | None:
        """Return b for x; None where the logits are fused."""
        return None if self.kernel is not None else self._coefficients(x)

    def borders(self, codebook: Codebook) -> None:
        """Return None: the border depends on the value."""

    def decide(self, u: Tensor, cell: Tensor, t: Tensor, codebook: Codebook) -> Tensor:
        """Return True where the fraction exceeds B."""
        v = u.clamp(codebook.lo, codebook.hi)
        return (v - self.element(v, codebook)).ceil() - codebook.lo > cell

    def encode(self, u: Tensor, codebook: Codebook) -> Tensor:
        """Return the code by the border of each element."""
        v = u.clamp(codebook.lo, codebook.hi)
        code = (v - self.element(v, codebook)).ceil_().clamp_(codebook.lo, codebook.hi).sub_(codebook.lo)
        return code.nan_to_num_(0.0)


class LearnedRound(Rounding):
    """AdaRound: each weight has its own decision h(V) > 1/2, h(V) = clip(1.2 sigmoid(V) - 0.1, 0, 1).

    ``observe`` sets V so that h(V) = t, which is rounding to nearest at first; V is then learned through
    :class:`RectifiedSigmoid`, usually with ``soft=True`` and the regulariser 1 - |2 h - 1|^β of the paper.

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
        if u.shape != self.v.shape:
            raise ValueError(f"made for weights of shape {tuple(self.v.shape)}, got {tuple(u.shape)}")
        _, t = codebook.locate(u)
        self.v.copy_(torch.logit((t + 0.1) / 1.2))

    def borders(self, codebook: Codebook) -> None:
        """Return None: the decision does not depend on u."""

    def decide(self, u: Tensor, cell: Tensor, t: Tensor, codebook: Codebook) -> Tensor:
        """Return h(V) > 1/2.

        Raises:
            ValueError: u has another shape than V.
        """
        if u.shape != self.v.shape:
            raise ValueError(f"made for weights of shape {tuple(self.v.shape)}, got {tuple(u.shape)}")
        return torch.where((t > 0) & (t < 1), self.h() > 0.5, t > 0.5)

    def encode(self, u: Tensor, codebook: Codebook) -> Tensor:
        """Return cell + decision."""
        cell, t = codebook.locate(u)
        return cell + self.decide(u, cell, t, codebook)


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
