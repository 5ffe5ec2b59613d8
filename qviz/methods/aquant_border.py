"""Borders: where an activation rounds up when its weight is quantized too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qviz.core import _check

Numbers = float | Sequence[float] | Tensor


def optimal_border(w: Numbers, w_hat: Numbers, n: Numbers | None = None, *, unbiased: bool = False) -> Tensor:
    """Return the border of one product: B(n) = (w' / w)(n + 1/2) - n, for which w' x_int is nearest to w u.

    An activation u in the cell [n, n + 1] becomes n + 1 where u - n exceeds B, else n. With the quantized
    weight w' the best integer is the one nearest to (w / w') u, hence this border; 1/2 for w' = w. It
    minimizes |w' x_int - w u| among floor and ceiling of u. ``unbiased`` gives instead the border
    n + 1 - (w / w')(n + 1/2), whose mean error over the cell is 0; both agree to first order in w' / w - 1.

    A border outside [0, 1] acts as the end it passed: the best integer has then left {floor, ceiling}, which
    rescaling could reach and a border cannot. For w / w' <= 0 the optimal border is infinite (always down).

    Args:
        w: weights, any shape.
        w_hat: the quantized weights w', the shape of ``w``, none of them 0.
        n: cells, whole numbers, any shape; default 0 … 14, those of 4 unsigned bits.
        unbiased: see above.

    Returns:
        B, float64, shape of ``w`` followed by the shape of ``n``; a fraction of the cell.

    Raises:
        ValueError: w_hat holds 0 (the product is 0 whatever the border), the shapes differ, or a value is not
            finite.

    References:
        DERIVED for this project; it reproduces the two claims of the abstract of Li et al., "Efficient
        Adaptive Activation Rounding for Post-Training Quantization" (AQuant), arXiv:2208.11945 v2: a border
        function gives the minimal error of multiplying two numbers and removes the bias of its expected
        value.

    Example:
        >>> [round(b, 4) for b in optimal_border(1.0, 0.8, range(4)).tolist()]
        [0.4, 0.2, 0.0, -0.2]
        >>> [round(b, 4) for b in optimal_border(1.0, 1.2, range(4), unbiased=True).tolist()]
        [0.5833, 0.75, 0.9167, 1.0833]
    """
    w, w_hat = _pair(w, w_hat)
    if bool((w_hat == 0).any()):
        raise ValueError(f"w_hat must not be 0 (no border changes the product then), got {w_hat.tolist()}")
    if unbiased:
        n = _cells(n, w)
        return n + 1.0 - _outer(w / w_hat, n) * (n + 0.5)
    return coarse_border(w / w_hat, n)


def ratio(w: Tensor, w_hat: Tensor, axis: int = 1) -> Tensor:
    """Return ρ_c = <w'_c, w_c> / <w'_c, w'_c> of each input channel: the factor by which u is best rescaled.

    An activation is rounded once for all the outputs that read it, so its border can only follow this average
    of w / w' over output channels and kernel positions.

    Args:
        w: weights of a convolution (O, C, …) or a linear layer (O, C), floating point.
        w_hat: the quantized weights, the same shape.
        axis: the input-channel axis; 1, but 0 for a depthwise convolution.

    Returns:
        ρ, float64, shape (C,); 1 for a channel whose quantized weights are all 0 (no border matters there).

    Raises:
        TypeError, ValueError: not floating point, empty, not finite, unequal shapes, or no such axis.

    References:
        DERIVED for this project (least squares over the outputs); that the paper's coarse-grained border is
        one per input channel is INFERRED.

    Example:
        >>> w, w_hat = torch.tensor([[0.7], [-0.4], [0.2]]), torch.tensor([[0.5], [-0.5], [0.0]])
        >>> round(ratio(w, w_hat).item(), 6)
        1.1
    """
    w, w_hat = _pair(_check.float_tensor(w, "w"), _check.float_tensor(w_hat, "w_hat"))
    axis = _check.axis(axis, w)
    rows, rows_hat = (v.movedim(axis, 0).reshape(v.shape[axis], -1) for v in (w, w_hat))
    energy = rows_hat.square().sum(1)
    rho = (rows_hat * rows).sum(1) / energy
    return torch.where(energy > 0, rho, torch.ones_like(rho))


def coarse_border(rho: Numbers, n: Numbers | None = None) -> Tensor:
    """Return B_c(n) = (n + 1/2) / ρ_c - n, the border that a channel's activation shares among all its
    outputs.

    The same decisions as B_c(u) = 1/2 + (1 - ρ_c) u. Minimises the squared output error among floor and
    ceiling.

    Args:
        rho: from :func:`ratio`, any shape, finite.
        n: cells; default 0 … 14.

    Returns:
        B, float64, shape of ``rho`` followed by the shape of ``n``; infinite (always down) where ρ_c <= 0.

    Raises:
        ValueError: a value is not finite.

    References:
        DERIVED; INFERRED as the meaning of "coarse-grained" in AQuant, arXiv:2208.11945 v3.

    Example:
        >>> [round(b, 6) for b in coarse_border(1.1, range(4)).tolist()]
        [0.454545, 0.363636, 0.272727, 0.181818]
    """
    rho = _numbers(rho, "rho")
    n = _cells(n, rho)
    rho = _outer(rho, n)
    return torch.where(rho > 0, (n + 0.5) / rho - n, torch.inf)


def expected_bias(
    w: Numbers, w_hat: Numbers, n: Numbers | None = None, *, border: float | Tensor = 0.5
) -> Tensor:
    """Return the mean of w' x_int - w u over a cell, for u uniform in [n, n + 1]: w' (n + 1 - B) - w (n +
    1/2).

    Rounding to nearest (B = 1/2) has the bias w (n + 1/2) ε with ε = w' / w - 1, which grows with n; the
    optimal border leaves -w (n + 1/2) ε², the unbiased one 0. All of this while the border is inside [0, 1];
    it is clamped to that.

    Args:
        w: weights, any shape.
        w_hat: quantized weights, the shape of ``w``.
        n: cells; default 0 … 14.
        border: B, broadcastable to the result; e.g. from :func:`optimal_border` with the same w, w_hat and n.

    Returns:
        float64, shape of ``w`` followed by the shape of ``n``, in units of w times the step.

    Raises:
        ValueError: unequal shapes, or a value is not finite.

    References:
        DERIVED for this project.

    Example:
        >>> [round(v, 4) for v in expected_bias(1.0, 0.9, range(4)).tolist()]
        [-0.05, -0.15, -0.25, -0.35]
        >>> best = optimal_border(1.0, 0.9, range(4))
        >>> [round(v, 4) for v in expected_bias(1.0, 0.9, range(4), border=best).tolist()]
        [-0.005, -0.015, -0.025, -0.035]
    """
    w, w_hat = _pair(w, w_hat)
    n = _cells(n, w)
    b = torch.as_tensor(border, dtype=torch.float64).detach().clamp(0.0, 1.0)
    return _outer(w_hat, n) * (n + 1.0 - b) - _outer(w, n) * (n + 0.5)


@dataclass(frozen=True, eq=False)
class ErrorTerms:
    """The error of a quantized dot product and the three terms that add up to it, float64, one shape.

    Attributes:
        weight: (w' - w) · x'. activation: w · (x' - ũ). propagated: w · (ũ - u).
        total: w' · x' - w · u.
    """

    weight: Tensor
    activation: Tensor
    propagated: Tensor
    total: Tensor


def error_decomposition(
    w: Tensor, w_hat: Tensor, x: Tensor, x_hat: Tensor, x_tilde: Tensor | None = None
) -> ErrorTerms:
    """Split the error of dot products: w'·x' - w·u = (w' - w)·x' + w·(x' - ũ) + w·(ũ - u).

    The first term is the weights' doing, the second that of rounding the activation, the third comes from the
    layers before. In real numbers the three add up exactly; in float64 to rounding.

    Args:
        w: weights, (J,) or (O, J).
        w_hat: w', quantized, the same shape.
        x: u, the activations of the full-precision network, (…, J).
        x_hat: x', the quantized activations, in the unit of ``x``, the same shape.
        x_tilde: ũ, what the quantized network feeds the quantizer, the same shape; default ``x``, nothing
            propagated.

    Returns:
        Terms of shape (…) or (…, O).

    Raises:
        TypeError, ValueError: not floating point, empty, not finite, or shapes that do not fit.

    References:
        DERIVED; the three kinds of error are those that the abstract of AQuant names, arXiv:2208.11945 v1.

    Example:
        >>> w, w_hat = torch.tensor([1.0, 0.5]), torch.tensor([0.75, 0.5])
        >>> u, x_hat, u_tilde = torch.tensor([[1.0, 2.0], [1.0, 3.0], [1.25, 2.5]])
        >>> e = error_decomposition(w, w_hat, u, x_hat, u_tilde)
        >>> e.weight.item(), e.activation.item(), e.propagated.item(), e.total.item()
        (-0.25, 0.0, 0.5, 0.25)
    """
    w, w_hat = _pair(_check.float_tensor(w, "w"), _check.float_tensor(w_hat, "w_hat"))
    x_tilde = x if x_tilde is None else x_tilde
    named = {"x": x, "x_hat": x_hat, "x_tilde": x_tilde}
    x, x_hat, x_tilde = (_numbers(_check.float_tensor(v, k), k) for k, v in named.items())
    if not x.shape == x_hat.shape == x_tilde.shape:
        shapes = tuple(x.shape), tuple(x_hat.shape), tuple(x_tilde.shape)
        raise ValueError(f"x, x_hat and x_tilde must have one shape, got {shapes}")
    if w.ndim not in (1, 2) or x.ndim == 0 or x.shape[-1] != w.shape[-1]:
        raise ValueError(
            f"w of shape (J,) or (O, J) needs x of shape (…, J), got {tuple(w.shape)}, {tuple(x.shape)}"
        )
    if w.ndim == 2:
        w, w_hat = w.mT, w_hat.mT
    return ErrorTerms(
        weight=x_hat @ (w_hat - w),
        activation=(x_hat - x_tilde) @ w,
        propagated=(x_tilde - x) @ w,
        total=x_hat @ w_hat - x @ w,
    )


def _numbers(value: Numbers, name: str) -> Tensor:
    return _check.finite(torch.as_tensor(value, dtype=torch.float64).detach(), name)


def _cells(n: Numbers | None, like: Tensor) -> Tensor:
    return _numbers(torch.arange(15) if n is None else n, "n").to(like.device)


def _outer(v: Tensor, n: Tensor) -> Tensor:
    """Return v with one axis of length 1 for each of n's."""
    return v.reshape(v.shape + (1,) * n.ndim)


def _pair(w: Numbers, w_hat: Numbers) -> tuple[Tensor, Tensor]:
    w, w_hat = _numbers(w, "w"), _numbers(w_hat, "w_hat")
    if w.shape != w_hat.shape:
        raise ValueError(f"w and w_hat must have one shape, got {tuple(w.shape)} and {tuple(w_hat.shape)}")
    return w, w_hat
