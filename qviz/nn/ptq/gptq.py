"""GPTQ: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers",
ICLR 2023, arXiv:2210.17323, and what makes a whole method in closed form of it.

A layer's squared output error, with a weak pull λ to the float weight w, is quadratic in each row ŵ of its
weight, up to a constant:

    (ŵ - w*) H (ŵ - w*)ᵀ        H = cov(x̂, x̂) + λ I,  w* = (cov(y, x̂) + λ w) H⁻¹

with x̂ the input that the layer reads (quantized, behind quantized layers) and y the output that it has in
floating point: w* makes good what was lost before the layer. Then:

    sweep       weights are rounded one after the other; those still free take over the error    GPTQ
    descent     each weight goes to its best level with all others as they are, until none moves
    refit       the scale of each row is set by least squares for the codes as they are
    std, bias   each channel is stretched to the standard deviation of y, and shifted to its mean

Descent and refit each lower the same error and alternate. Nothing is trained: no learning rate, no labels.
The stretch is there because w* is a regression, which draws outputs towards their mean, layer after layer.

Only the sweep and the damping λ are the paper's; w*, descent, refit, std and bias are this project's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qviz.nn.ptq.layerwise import in_order
from qviz.nn.ptq.moments import Moments, matrix
from qviz.nn.ptq.weights import WeightGrid, set_bias

Quantize = Callable[[Tensor], Tensor]
DAMPING = 0.1
"""As a share of the mean diagonal of H. The paper has 0.01, which holds w* too loosely where inputs are
quantized to two bits (ResNet-20)."""

ROUNDS, PASSES = 2, 3
"""Descent and refit alternate so often; a descent goes through all columns so often. More lowers a layer's
error by less than 1 % (ResNet-20, two bits)."""

STRETCH = 2.0
"""A channel is stretched no further."""


@dataclass(frozen=True)
class Solved:
    """What became of a layer: its squared output error as a share of its output's variance.

    Attributes:
        nearest: With weights rounded to the nearest level.
        best: With w* in floating point: what the quantized inputs alone cost.
        error: With the weights that the layer has now.
    """

    nearest: float
    best: float
    error: float


@torch.no_grad()
def gptq(
    model: nn.Module,
    images: Tensor,
    *,
    reference: nn.Module,
    coordinate_descent: bool = True,
    refit: bool = True,
    std: bool = True,
    damping: float = DAMPING,
) -> dict[str, Solved]:
    """Choose the levels of all weights, layer by layer in running order, in closed form, in place.

    Each input quantizer is set anew on what the layers before it now give. Afterwards ``weight`` holds values
    on the grid, which the layer's own quantizer leaves as they are, and ``bias`` the bias that keeps the mean
    output; all else is an ordinary converted model.

    Args:
        model: A converted and calibrated model, such as :func:`~qviz.nn.ptq.nearest.nearest` leaves it. Any
            weight quantizer with fixed levels serves, uniform or not.
        images: What the model takes, samples in axis 0; labels are not needed. Some hundred.
        reference: The same model in floating point, with BatchNorm folded as in ``model``.
        coordinate_descent: Descend after the sweep.
        refit: Set scales by least squares; without it they stay as they are, as a fixed one does anyway.
        std: Stretch each channel that has a scale of its own to the standard deviation it has in floating
            point.
        damping: λ as a share of the mean diagonal of cov(x̂, x̂).

    Returns:
        The errors of each layer, by name.

    Raises:
        ValueError: A layer's weight quantizer is not of this kind (see
            :class:`~qviz.nn.ptq.weights.WeightGrid`), or ``reference`` is not the same model. Nothing is
            changed then.

    References:
        Frantar et al., "GPTQ", ICLR 2023, arXiv:2210.17323: the sweep and the damping.
    """
    if not 0.0 < damping < math.inf:
        raise ValueError(f"damping must be positive and finite, got {damping!r}")
    found = {}
    for name, layer, w, moments in in_order(model, images, reference):
        grid = WeightGrid(layer, name)
        goal = target(w, moments, damping)
        codes = grid.codes(gptq_rows(goal, moments.xx, grid.nearest, damping=damping))
        nearest = moments.error(grid.nearest(w))
        for _ in range(ROUNDS if coordinate_descent and refit else 1):
            if coordinate_descent:
                codes = grid.codes(
                    descend(goal, moments.xx, grid.value(codes), grid.nearest, damping=damping)
                )
            if refit and grid.scalable:
                grid.refit(codes, goal, damped(moments.xx, damping))
        if std and grid.per_channel and grid.scalable:
            grid.stretch(_stretch(moments, grid.value(codes)))
        grid.write(codes)
        now = matrix(layer, layer.quantized_weight()).double()
        set_bias(layer, moments.bias(now))
        errors = nearest, moments.error(goal), moments.error(now)
        found[name] = Solved(*(float(e.sum() / moments.yy.sum()) for e in errors))
    return found


def _stretch(moments: Moments, w: Tensor) -> Tensor:
    """Return the factor for each channel that gives it its standard deviation; 1 where it has none."""
    has = ((w @ moments.xx) * w).sum(-1)
    factor = (moments.yy / has).sqrt().clamp(1 / STRETCH, STRETCH)
    return torch.where((has > 0) & (moments.yy > 0), factor, torch.ones_like(has))


def damped(hessian: Tensor, damping: float = DAMPING) -> Tensor:
    """Return H (…, K, K) with a share of its mean diagonal added to it, and 1 where an input is dead.

    An input that is always 0 has a row and a column of zeros; it is given its 1 before the damping.
    """
    diagonal = hessian.diagonal(dim1=-2, dim2=-1)
    dead = (diagonal <= 0).to(hessian)
    return hessian + torch.diag_embed(dead + damping * (diagonal + dead).mean(-1, keepdim=True))


def target(w: Tensor, moments: Moments, damping: float = DAMPING) -> Tensor:
    """Return w* (G, R, K): the best weights in floating point, drawn to w where the damping says so."""
    h = damped(moments.xx, damping)
    pull = w @ (h - moments.xx)
    return torch.cholesky_solve((moments.yx + pull).mT, torch.linalg.cholesky(h)).mT


def gptq_rows(w: Tensor, hessian: Tensor, quantize: Quantize, *, damping: float = DAMPING) -> Tensor:
    """Round each row of w so that (ŵ - w) H (ŵ - w)ᵀ becomes small, column by column: GPTQ's sweep.

    The column with the largest diagonal of H goes first. After column k is rounded, all later ones move by
    -(w_k - ŵ_k) U_k / U_kk, with U the upper Cholesky factor of the inverse of H: the best move there is.

    Args:
        w: (…, R, K).
        hessian: H, (…, K, K), symmetric; need not have full rank.
        quantize: Takes a column (…, R, 1) to its levels.
        damping: As for :func:`damped`.

    References:
        Frantar et al., arXiv:2210.17323, section 3; the order is that of its released code ("act-order").

    Example:
        >>> x = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
        >>> gptq_rows(torch.tensor([[0.4, 0.4]]), x @ x.T, torch.round)  # nearest: 0 and 0
        tensor([[0., 1.]])
    """
    order = hessian.diagonal(dim1=-2, dim2=-1).argsort(-1, descending=True)
    across = order[..., None, :]
    w = w.gather(-1, across.expand_as(w))
    h = damped(hessian, damping)
    h = h.gather(-1, across.expand_as(h)).gather(-2, order[..., :, None].expand_as(h))
    upper = _inverse_factor(h)
    rounded = torch.empty_like(w)
    for k in range(w.shape[-1]):
        rounded[..., k : k + 1] = quantize(w[..., k : k + 1])
        error = (w[..., k : k + 1] - rounded[..., k : k + 1]) / upper[..., k : k + 1, k : k + 1]
        w[..., k + 1 :] -= error * upper[..., k : k + 1, k + 1 :]
    return torch.empty_like(rounded).scatter_(-1, across.expand_as(rounded), rounded)


def _inverse_factor(h: Tensor) -> Tensor:
    """Return the upper U with Uᵀ U = H⁻¹: H = R Rᵀ with R upper, by reading H backwards, and U = R⁻¹."""
    upper = torch.linalg.cholesky(h.flip(-2, -1)).flip(-2, -1)
    return torch.linalg.solve_triangular(upper, torch.eye(h.shape[-1]).to(h).expand_as(h), upper=True)


def descend(
    w: Tensor,
    hessian: Tensor,
    start: Tensor,
    quantize: Quantize,
    *,
    passes: int = PASSES,
    damping: float = DAMPING,
) -> Tensor:
    """Lower (ŵ - w) H (ŵ - w)ᵀ by moving one column at a time to its best levels; never raises it.

    Args:
        w: (…, R, K).
        hessian: H, (…, K, K).
        start: Where ŵ starts, on the grid, (…, R, K).
        quantize: Takes a column (…, R, 1) to its nearest levels.
        passes: How often all columns are gone through; fewer once nothing moves.
        damping: As for :func:`damped`.

    Example:
        >>> h = torch.tensor([[5.0, 4.0], [4.0, 5.0]])
        >>> descend(torch.tensor([[0.4, 0.4]]), h, torch.zeros(1, 2), torch.round)
        tensor([[1., 0.]])
    """
    h, rounded = damped(hessian, damping), start.clone()
    slope = (rounded - w) @ h
    for _ in range(passes):
        moved = False
        for k in range(w.shape[-1]):
            column = rounded[..., k : k + 1]
            step = quantize(column - slope[..., k : k + 1] / h[..., k : k + 1, k : k + 1]) - column
            if bool(step.any()):
                moved = True
                column += step
                slope += step * h[..., k : k + 1, :]
        if not moved:
            break
    return rounded
