"""Recipes: one function a method, each a few lines of parts."""

from __future__ import annotations

import torch
from torch import Tensor

from qviz.core import _check
from qviz.core.codebook import Codebook
from qviz.core.grids import Grid, apot, post, pot, uniform
from qviz.core.learned import (
    AdaptiveStep,
    InOutScale,
    LearnedAffine,
    LearnedBounds,
    LearnedClip,
    LearnedStep,
    TanhRange,
)
from qviz.core.quantizer import Quantizer
from qviz.core.range import MSE, Fixed, Range
from qviz.core.surrogate import SoftArgmax, StraightThrough
from qviz.methods.adaptive import EMACodebook, LearnedKnots
from qviz.methods.learned_rounding import AdaptiveBorder, LearnedRound, RectifiedSigmoid
from qviz.methods.pairs import Pair as Pair
from qviz.methods.pairs import pair as pair


def ste(bits: int, *, signed: bool = True, clipped: bool = True, range: Range | None = None) -> Quantizer:
    """Uniform grid, nearest rounding, straight-through gradient: the plain baseline.

    The gradient of x is 1 inside the grid and, with ``clipped``, 0 outside.

    References:
        Bengio, Léonard and Courville, 2013, arXiv:1308.3432, section 4.
    """
    return Quantizer(
        uniform(bits, signed=signed),
        surrogate=StraightThrough(clipped),
        range=range or MSE(),
    )


def dorefa_weight(bits: int) -> Quantizer:
    """DoReFa: w → tanh(w) / max|tanh(w)|, then 2^b even levels in [-1, 1]; bits 2 to 8.

    The gradient goes through tanh and the maximum. The paper's special case of 1 bit (signs times the mean)
    is left out.

    References:
        Zhou et al., "DoReFa-Net", 2016, arXiv:1606.06160, equation (9).
    """
    n = 2 ** _check.bits(bits, 2, 8, "dorefa_weight") - 1
    return Quantizer(uniform(bits, signed=False), range=TanhRange(n))


def pact_activation(bits: int, *, alpha: float | None = None) -> Quantizer:
    """PACT: unsigned uniform levels up to a learned clip α, whose gradient sees only what is cut off.

    d y / d α is 1 above the clip and 0 inside. The regulariser on α belongs to the loss. ``observe`` starts
    at the largest value unless ``alpha`` is given.

    References:
        Choi et al., "PACT", 2018, arXiv:1805.06085, section 3.
    """
    book = uniform(bits, signed=False)
    return Quantizer(book, range=LearnedClip(book.hi, alpha, start="max", through="soft"))


def lsq(
    bits: int,
    *,
    signed: bool = True,
    step: float | Tensor | None = None,
    channels: int | None = None,
    axis: int = 0,
) -> Quantizer:
    """LSQ: uniform levels, a learned step with scaled gradient.

    d y / d s is level - u inside, the end level outside, times 1 / sqrt(n qmax).

    References:
        Esser et al., ICLR 2020, arXiv:1902.08153, equations (1) to (3). The paper counts n by weights or
        features of a layer, released code (followed here) by all values of the tensor.
    """
    book = uniform(bits, signed=signed)
    return Quantizer(book, range=LearnedStep(book.hi, step, channels=channels, axis=axis))


def lsq_plus(
    bits: int,
    *,
    signed: bool = True,
    step: float | Tensor | None = None,
    offset: float | Tensor = 0.0,
    channels: int | None = None,
    axis: int = 0,
) -> Quantizer:
    """LSQ+: LSQ with a learned offset.

    d y / d offset is 1 outside the range and 0 inside, times the LSQ factor.

    References:
        Bhalgat et al., 2020, arXiv:2004.09576. The min-max start is this project's choice.
    """
    book = uniform(bits, signed=signed)
    return Quantizer(book, range=LearnedAffine(book.hi, step, offset, channels=channels, axis=axis))


def apot_weight(bits: int, *, alpha: float | None = 3.0) -> Quantizer:
    """APoT: sums of powers of two, a learned clip α that starts at 3 (the layer standardises its weights).

    d y / d α is level - u inside and the sign outside.

    References:
        Li, Dong and Wang, ICLR 2020, arXiv:1909.13144, equation (4) and released code; that code passes the
        weights' gradient unclipped on CIFAR, this one clips it.
    """
    return Quantizer(apot(bits), range=LearnedClip(1.0, alpha))


def adaround_weight(bits: int, weight: Tensor, *, axis: int | None = 0) -> Quantizer:
    """AdaRound: uniform levels at a fixed MSE-searched step, one learned decision for each weight.

    Set ``q.soft = True`` while V is optimised. A weight on a level stays there (see
    :class:`~qviz.methods.learned_rounding.LearnedRound`).

    References:
        Nagel et al., ICML 2020, arXiv:2004.10568, equations (22) and (23).
    """
    rounding = LearnedRound(tuple(weight.shape))
    q = Quantizer(uniform(bits), rounding, RectifiedSigmoid(rounding), MSE(axis))
    return q.observe(weight)


def daq_weight(
    bits: int,
    *,
    gamma: float = 2.0,
    sigma: float = 1.0,
    bounds: tuple[float, float] | None = None,
) -> Quantizer:
    """DAQ for (standardised) weights: learned bounds, distance-aware slope, levels (2 k - R) / R.

    There is no zero level; 1 bit is {-1, +1}. The output is not multiplied back: the layer has a learned
    scale. ``observe`` sets the bounds to mean ± 3 standard deviations.

    References:
        Kim, Lee and Ham, ICCV 2021, arXiv:2108.06983, equations (1), (7), (10), (11). Paper and released code
        disagree on the kernel's exponent: 1 / (2 σ²) if σ is a standard deviation, 1 / σ² in the code,
        which is followed here.
    """
    top = 2 ** _check.bits(bits, 1, 8, "daq_weight") - 1
    return Quantizer(
        _daq_book(top, signed=True),
        None,
        SoftArgmax(gamma, sigma),
        LearnedBounds(top, init=bounds),
    )


def daq_activation(
    bits: int,
    *,
    gamma: float = 2.0,
    sigma: float = 2.0,
    signed: bool = False,
    bounds: tuple[float, float] | None = None,
) -> Quantizer:
    """DAQ for activations: post-ReLU with one learned bound and levels k / R; ``signed`` with two.

    ``observe`` sets the bound to 3 standard deviations. The symmetric level map of ``signed`` is INFERRED.

    References:
        As :func:`daq_weight`.
    """
    top = 2 ** _check.bits(bits, 1, 8, "daq_activation") - 1
    bound = LearnedBounds(top, signed=signed, centred=False, init=bounds)
    return Quantizer(_daq_book(top, signed=signed), None, SoftArgmax(gamma, sigma), bound)


def _daq_book(top: int, *, signed: bool) -> Codebook:
    k = torch.arange(top + 1, dtype=torch.float64)
    return Codebook(k, (2 * k - top) / top if signed else k / top, name="DAQ")


def soft_argmax(
    bits: int,
    *,
    beta: float,
    sigma: float = 1.0,
    signed: bool = True,
    bounds: tuple[float, float] | None = None,
) -> Quantizer:
    """Kernel soft argmax at a fixed temperature: the soft forward pass that DAQ's controller replaces.

    A value on a level belongs to the cell below it, as everywhere here (released code takes the one above, so
    that a clipped value can leave the levels' hull).
    """
    top = 2 ** _check.bits(bits, 1, 8, "soft_argmax") - 1
    surrogate = SoftArgmax(sigma=sigma, beta=beta)
    bound = LearnedBounds(top, signed=signed, centred=signed, init=bounds)
    return Quantizer(_daq_book(top, signed=signed), None, surrogate, bound, soft=True)


def asq_activation(bits: int, channels: int, *, mode: str = "paper", step: float | None = None) -> Quantizer:
    """ASQ: unsigned uniform levels, step s β(x) with β from a small network that reads the sample.

    ``mode="softplus"`` is this project's remedy for the dead zone of the released ReLU.

    References:
        Zhou et al., 2025, arXiv:2504.17263, released code asq.py; a published review prints the output as
        code * s, the code (followed here) has code * s β.
    """
    book = uniform(bits, signed=False)
    return Quantizer(book, range=AdaptiveStep(book.hi, channels, mode=mode, init=step))


def pot_weight(
    bits: int,
    *,
    channels: int | None = None,
    axis: int = 0,
    grid: Grid = "strict",
    start: str = "mse",
    alpha: float | Tensor | None = None,
) -> Quantizer:
    """Powers of two under a learned clip α per output channel.

    d y / d α is level - u inside and the sign outside, times 1 / sqrt(n per channel).

    References:
        Zhou et al., 2025, arXiv:2504.17263, released code post.py, which as shipped trains this grid (base
        2). The strict grid and the MSE search for α are this project's defaults (INFERRED);
        ``grid="paper"`` and ``start="quantile"`` are the code's.
    """
    return _clipped(pot(bits, grid=grid), alpha, start, channels, axis)


def post_weight(
    bits: int,
    *,
    channels: int | None = None,
    axis: int = 0,
    grid: Grid = "strict",
    start: str = "mse",
    alpha: float | Tensor | None = None,
) -> Quantizer:
    """Powers of the square root of two under a learned clip α per output channel.

    References:
        As :func:`pot_weight`, with base sqrt(2), which the code has commented out and the text asks for.
    """
    return _clipped(post(bits, grid=grid), alpha, start, channels, axis)


def _clipped(
    book: Codebook,
    alpha: float | Tensor | None,
    start: str,
    channels: int | None,
    axis: int,
) -> Quantizer:
    return Quantizer(
        book,
        range=LearnedClip(1.0, alpha, start=start, normalise=True, channels=channels, axis=axis),
    )


def adq_weight(
    bits: int,
    *,
    decay: float = 0.99,
    tie_sign: bool = False,
    init: str = "quantile",
    generator: torch.Generator | None = None,
) -> Quantizer:
    """ADQ for weights: quantile codebook adapted by EMA; the gradient passes everywhere.

    Call ``q.observe(weight)`` once to place the levels, then after each training step to adapt them.

    References:
        Jia et al., 2025, arXiv:2510.19760. INFERRED: the quantiles' positions, the decay, the gradient,
        dead codes.
    """
    book = EMACodebook(bits, decay=decay, tie_sign=tie_sign, init=init, generator=generator)
    return Quantizer(book, surrogate=StraightThrough(clipped=False), range=Fixed(1.0))


def n2uq_activation(
    bits: int, *, start: float = 0.0, widths: Tensor | list[float] | None = None
) -> Quantizer:
    """N2UQ: learned thresholds, uniform levels, generalized straight-through gradient.

    The slope in cell i is D / a_i, the derivative of the expectation of stochastic rounding.

    References:
        Liu et al., CVPR 2022, arXiv:2111.14826, section 3 and released code.
    """
    return Quantizer(LearnedKnots(bits, start=start, widths=widths), range=InOutScale())


def aquant_activation(
    bits: int,
    *,
    channels: int | None = None,
    degree: int = 2,
    fused: bool = False,
    step: float | None = None,
) -> Quantizer:
    """AQuant: unsigned uniform levels, learned step, rounding border a function of the activation.

    d y / d B = -s inside the range. Zero coefficients are rounding to nearest.

    References:
        Li et al., 2022, arXiv:2208.11945. INFERRED: the form and granularity of the border, and its fusion.
    """
    book = uniform(bits, signed=False)
    rounding = AdaptiveBorder(int(book.hi - book.lo), channels=channels, degree=degree, fused=fused)
    return Quantizer(book, rounding, range=LearnedStep(book.hi, step))
