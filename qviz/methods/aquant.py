"""AQuant: Li et al., "Efficient Adaptive Activation Rounding for Post-Training Quantization", 2022,
arXiv:2208.11945.

Rounding to nearest goes up where the fraction of u = x / s exceeds 1/2; AQuant replaces the half by a
*border* that depends on the value. With R = 2^b - 1, v = clip(u, 0, R) / R and n = floor(u):

    forward   y = s (n + [u - n > B(v)]),  B(v) = sigmoid(b_0 + b_1 v + b_2 v²)
    backward  dy/du = s inside the range, else 0;  the step's as in LSQ
              dy/dB = -s where 0 < u < R, else 0 (no border moves a value on an end level or beyond)

b = 0 is rounding to nearest. Why a border helps, and where it belongs: :mod:`qviz.methods.aquant_border`.

INFERRED (three abstracts are all that could be obtained: the border is a function of the activation, coarse
at run time, learned, and aware of global errors): the form of B, one border a channel, the guard, the fusion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qviz.core import _check
from qviz.core.codebook import Codebook
from qviz.core.fast import total
from qviz.core.grids import uniform
from qviz.core.quantizer import Quantizer
from qviz.core.recipe import recipe
from qviz.core.rounding import CellBorder, Rounding
from qviz.methods.lsq import LearnedStep, lsq, per_channel
from qviz.methods.method import Method, inputs


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


class AdaptiveBorder(Rounding):
    """Round up where the fraction exceeds B(v) = sigmoid(b0 + b1 v + b2 v²), v = (u - lo) / (hi - lo).

    Zero coefficients give B = 1/2, rounding to nearest. With R = hi - lo steps, B rises slower than u (so
    that the integers are monotone in u) when |b1 + 2 b2 v| < 4 R on [0, 1]; :meth:`guard` makes it so.

    Args:
        steps: R.
        channels: one border function for each channel, or None for one in all.
        axis: the channel axis.
        degree: 0, 1 or 2; higher coefficients stay 0.
        window: only values whose fraction lies no further than this from their border give it a gradient;
            by default all inside the range do. A border decides values next to it, and about the others its
            straight-through gradient knows nothing.
        fused: add a depthwise 3 x 3 convolution of the logits (identity at the start), for (N, C, H, W).

    Attributes:
        b: coefficients, float32, shape (3,) or (3, C).

    Raises:
        ValueError: a degree other than 0, 1, 2; a window that is not positive; fused without channels.

    References:
        Li et al., "Efficient Adaptive Activation Rounding for Post-Training Quantization" (AQuant), 2022,
        arXiv:2208.11945. INFERRED: the form of B, its granularity, the guard and the fusion; the abstracts
        say that the border is a function of the activation, coarse at run time, learned, and aware of
        global errors.
    """

    @property
    def rounds_integers(self) -> bool:
        """Whether the fast path can take it: fused logits it cannot."""
        return self.kernel is None

    def __init__(
        self,
        steps: int,
        *,
        channels: int | None = None,
        axis: int = 1,
        degree: int = 2,
        window: float = math.inf,
        fused: bool = False,
    ) -> None:
        super().__init__()
        if degree not in (0, 1, 2):
            raise ValueError(f"degree must be 0, 1 or 2, got {degree}")
        if not window > 0:
            raise ValueError(f"window must be positive, got {window}")
        if channels is not None and channels < 1:
            raise ValueError(f"channels must be positive, got {channels}")
        if fused and channels is None:
            raise ValueError("fusion works on channels; give their number, got channels=None")
        self.steps, self.channels, self.axis, self.degree = int(steps), channels, axis, degree
        self.window = float(window)
        self.b = nn.Parameter(torch.zeros(3) if channels is None else torch.zeros(3, channels))
        self.kernel = nn.Parameter(torch.zeros(channels, 1, 3, 3)) if fused else None
        if fused:
            with torch.no_grad():
                self.kernel[:, 0, 1, 1] = 1.0

    @torch.no_grad()
    def analytic(self, rho: float | Tensor, zero_point: float = 0.0) -> AdaptiveBorder:
        """Start from the border that minimizes the product's error, B = 1/2 + (1 - ρ)(u - z).

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
    def through(self, low: float, middle: float, high: float) -> AdaptiveBorder:
        """Bend the border so that B(0), B(1/2) and B(1) are these three, and then guard it.

        With z = logit B: b0 = z(0), b1 = -3 z(0) + 4 z(1/2) - z(1), b2 = 2 z(0) - 4 z(1/2) + 2 z(1).

        Args:
            low: B at the lowest level, between 0 and 1.
            middle: B halfway between the end levels.
            high: B at the highest level.

        Raises:
            ValueError: One is not between 0 and 1.

        Example:
            >>> rounding = AdaptiveBorder(3).through(0.5, 0.4, 0.6)
            >>> [round(v, 3) for v in torch.sigmoid(rounding.logits(torch.tensor([0.0, 0.5, 1.0]))).tolist()]
            [0.5, 0.4, 0.6]
        """
        if not all(0.0 < v < 1.0 for v in (low, middle, high)):
            raise ValueError(f"a border lies between 0 and 1, got {low}, {middle} and {high}")
        z = torch.tensor([low, middle, high], dtype=torch.float64).logit()
        solved = torch.stack([z[0], -3 * z[0] + 4 * z[1] - z[2], 2 * z[0] - 4 * z[1] + 2 * z[2]])
        self.b.copy_(solved if self.channels is None else solved[:, None])
        self.guard()
        return self

    @torch.no_grad()
    def guard(self, share: float = 0.999) -> None:
        """Shrink b1 and b2 together where |b1 + 2 b2 v| would reach 4 R somewhere on [0, 1]."""
        steepest = torch.maximum(self.b[1].abs(), (self.b[1] + 2.0 * self.b[2]).abs())
        factor = (share * 4.0 * self.steps / steepest.clamp(min=1e-30)).clamp(max=1.0)
        self.b[1:] *= factor

    def after_step(self) -> None:
        """Keep the border monotone after an optimizer step: :meth:`guard`."""
        self.guard()

    def moving(self) -> dict[str, Tensor]:
        """Return the coefficients, shape (3, C), where there is one border a channel."""
        return {} if self.channels is None else {"b": self.b.detach()}

    def freeze(self, codebook: Codebook) -> CellBorder:
        """Return the rounding by :func:`thresholds`: R comparisons a value, and the same codes.

        Args:
            codebook: The consecutive integers that it rounds to.

        Raises:
            ValueError: As :func:`thresholds`.
        """
        return CellBorder(codebook, thresholds(self, codebook), axis=self.axis)

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
        v = v.detach()
        border = squash(self.logits((v - codebook.lo) / self.steps), codebook.lo, codebook.hi)
        if self.window == math.inf:
            return border
        return torch.where(near(v, border, self.window), border, border.detach())

    def bend(self, x: Tensor, codebook: Codebook) -> tuple[SigmoidBorder, Tensor] | None:
        """Return B and its coefficients for x; None where the logits are fused (the composition takes
        over).
        """
        if self.kernel is not None:
            return None
        return SigmoidBorder(codebook.lo, codebook.hi, self.window), self._coefficients(x)

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


@recipe
def aquant_activation(
    bits: int,
    *,
    channels: int | None = None,
    degree: int = 2,
    window: float = math.inf,
    fused: bool = False,
    step: float | None = None,
    start: str = "lsq",
) -> Quantizer:
    """AQuant: unsigned uniform levels, learned step, rounding border a function of the activation.

    d y / d B = -s inside the range. Zero coefficients are rounding to nearest.

    Args:
        bits: 1 to 8.
        channels: Number of channels (axis 1) with a border each; None for one border in all.
        degree: 0, 1 or 2; coefficients above it stay 0.
        window: How far from its border a value may lie to give it a gradient, as a fraction of the cell.
        fused: Add a depthwise convolution of the logits; it needs ``channels``.
        step: The step to start with, > 0, in the unit of x; default: ``observe``.
        start: What ``observe`` does, "lsq" or "mse"; see :class:`~qviz.methods.lsq.LearnedStep`.

    Raises:
        ValueError: Bits or degree are out of range, step, window or channels are not positive, or start is
            unknown.

    References:
        Li et al., 2022, arXiv:2208.11945. INFERRED: the form and granularity of the border, and its fusion.

    Example:
        >>> q = aquant_activation(2, step=1.0)
        >>> x = torch.tensor([1.4, 1.6])
        >>> before = q(x).tolist()
        >>> with torch.no_grad():
        ...     q.rounding.b[0] = 2.0  # a higher border: B = 0.88
        >>> before, q(x).tolist()
        ([1.0, 2.0], [1.0, 1.0])
    """
    book = uniform(bits, signed=False)
    rounding = AdaptiveBorder(
        int(book.hi - book.lo), channels=channels, degree=degree, window=window, fused=fused
    )
    return Quantizer(book, rounding, range=LearnedStep(book.hi, step, start=start))


def _act(bits: int, layer: nn.Module, signed: bool, **options: Any) -> Quantizer:
    return lsq(bits) if signed else aquant_activation(bits, channels=inputs(layer), **options)


METHOD = Method(per_channel, _act)
"""A border for each input channel; LSQ weights stand in for those the paper rounds after training
(INFERRED)."""
