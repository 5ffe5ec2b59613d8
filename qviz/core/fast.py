"""Fast path: one autograd.Function with closed-form gradients for every recipe.

The composition in :mod:`qviz.core.quantizer` is the readable reference; this computes the same values bit
for bit, holds nothing but x and y between forward and backward, and compiles without graph breaks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qviz.core.codebook import count_below, take


@dataclass(frozen=True)
class Spec:
    """What distinguishes one recipe's arithmetic from another's.

    Attributes:
        unit: the knots are the consecutive integers lo … hi; they are never searched.
        lo, hi: the end knots (of a unit book; other books have theirs in ``knots``).
        mapped: levels differ from the knots.
        clipped: the gradient is zero outside the end knots; else it passes.
        through: which value the scale's gradient sees, "hard" or (PACT) "soft".
        rescale: the level is multiplied by the scale (and the offset added) on the way out.
        coth: None for the straight-through slope 1, or (g, a) for the slope g coth(|t - 1/2| + a).
        gap: between the levels of a mapped unit book, which are evenly spaced.
    """

    unit: bool
    lo: float
    hi: float
    mapped: bool = False
    clipped: bool = True
    through: str = "hard"
    rescale: bool = True
    coth: tuple[float, float] | None = None
    gap: float | None = None


def select(u: Tensor, borders: Tensor, values: Tensor) -> Tensor:
    """Return ``values[#{borders < u}]``: comparisons when eager, a tree of ``where`` when compiled.

    Args:
        u: any shape.
        borders: sorted, (K - 1,).
        values: (K,).
    """
    if torch.compiler.is_compiling():
        return _tree(u, borders, values, 0, values.numel() - 1)
    return take(values, count_below(u, borders))


def _tree(u: Tensor, borders: Tensor, values: Tensor, low: int, high: int) -> Tensor:
    if low == high:
        return values[low]
    middle = (low + high) // 2
    right = _tree(u, borders, values, middle + 1, high)
    return torch.where(
        u > borders[middle], right, _tree(u, borders, values, low, middle)
    )


def _units(x: Tensor, scale: Tensor, offset: Tensor | None) -> Tensor:
    return x / scale if offset is None else (x - offset) / scale


def _ends(knots: Tensor | None, spec: Spec) -> tuple[Any, Any]:
    return (spec.lo, spec.hi) if spec.unit else (knots[0], knots[-1])


def read(
    u: Tensor,
    knots: Tensor | None,
    levels: Tensor | None,
    borders: Tensor | None,
    border: Tensor | None,
    spec: Spec,
) -> Tensor:
    """Return the level of each u; NaN stays NaN.

    Args:
        u: any shape, float32 or float64.
        knots: (K,), or None for a unit book.
        levels: (K,), or None when they are the knots of a unit book.
        borders: (K - 1,), or None for a unit book.
        border: B of each element for a unit book (round up where the fraction exceeds it), or None for 1/2.
        spec: of the recipe.
    """
    if not spec.unit:
        hard = select(u, borders, knots if levels is None else levels)
        return torch.where(torch.isnan(u), u, hard)
    if border is None:
        code = (u - 0.5).ceil_().clamp_(spec.lo, spec.hi)
    else:
        code = (u.clamp(spec.lo, spec.hi) - border).ceil_().clamp_(spec.lo, spec.hi)
    if levels is None:
        return code
    if torch.compiler.is_compiling():
        cuts = torch.arange(levels.numel() - 1, dtype=u.dtype, device=u.device) + (
            spec.lo + 0.5
        )
        hard = select(code, cuts, levels)
    else:
        hard = take(levels, (code - spec.lo).nan_to_num_(0.0))
    return torch.where(torch.isnan(u), u, hard)


class Quantize(torch.autograd.Function):
    """y = Q(x) with the gradients of the composition in closed form.

    ``apply(x, scale, offset, knots, levels, borders, border, spec)``; arguments that a recipe lacks are None,
    and no tensor is given twice. Gradients go to x, scale, offset, knots and border. Computed in
    float32 (float64 for float64); y has the dtype of x. Not differentiable twice.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        offset: Tensor | None,
        knots: Tensor | None,
        levels: Tensor | None,
        borders: Tensor | None,
        border: Tensor | None,
        spec: Spec,
    ) -> Tensor:
        """Return y."""
        u = _units(x.to(scale.dtype), scale, offset)
        y = read(u, knots, levels, borders, border, spec)
        if spec.rescale:
            y = y * scale if offset is None else y * scale + offset
        y = y.to(x.dtype)
        # y holds s * level; in half precision it is too coarse for the scale's gradient and is computed anew
        kept = (
            y
            if spec.rescale and spec.through == "hard" and x.dtype == scale.dtype
            else None
        )
        ctx.save_for_backward(x, scale, offset, knots, levels, borders, border, kept)
        ctx.spec = spec
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, scale, offset, knots and border."""
        x, scale, offset, knots, levels, borders, border, y = ctx.saved_tensors
        spec: Spec = ctx.spec
        need = ctx.needs_input_grad
        dtype = x.dtype
        x, grad = x.to(scale.dtype), grad.to(scale.dtype)
        u = _units(x, scale, offset)
        v = torch.clamp(u, *_ends(knots, spec))
        inside = (
            (u == v).to(grad.dtype).mul_(grad)
        )  # times a float mask: where() branches on random masks
        slope, cell, t = _slope(v, knots, levels, borders, spec)
        passed = inside if spec.clipped else grad
        if slope is not None:
            passed = passed * slope
        d_scale = d_offset = d_knots = d_border = d_x = None
        if need[1]:
            seen = (
                v if spec.clipped else u.nan_to_num(posinf=spec.hi, neginf=spec.lo)
            )  # inf * 0 would be NaN
            d_scale = _total(passed, seen, scale, -1.0)
            if not spec.rescale:
                d_scale = d_scale / scale
            elif spec.through == "soft":
                d_scale = d_scale + _total(grad, v, scale)
            else:
                hard = (
                    read(u, knots, levels, borders, border, spec)
                    if y is None
                    else y
                    if offset is None
                    else y - offset
                )
                part = _total(grad, hard, scale)
                d_scale = d_scale + (part if y is None else part / scale)
        if offset is not None and need[2]:
            d_offset = (
                (grad - passed) if spec.rescale else -passed / scale
            ).sum_to_size(offset.shape)
        if knots is not None and need[3]:
            d_knots = _d_knots(
                inside * scale if spec.rescale else inside, t, cell, knots, levels
            )
        if border is not None and need[6]:
            d_border = (-inside * scale if spec.rescale else -inside).sum_to_size(
                border.shape
            )
        if need[0]:
            d_x = (passed if spec.rescale else passed / scale).to(dtype)
        return d_x, d_scale, d_offset, d_knots, None, None, d_border, None


def _total(a: Tensor, b: Tensor, like: Tensor, sign: float = 1.0) -> Tensor:
    """Return sign * the sum of a * b over the axes that ``like`` is broadcast along."""
    if like.numel() == 1 and a.is_contiguous() and b.is_contiguous():
        return (sign * torch.dot(a.view(-1), b.view(-1))).view(like.shape)
    return sign * (a * b).sum_to_size(like.shape)


def _slope(
    v: Tensor,
    knots: Tensor | None,
    levels: Tensor | None,
    borders: Tensor | None,
    spec: Spec,
) -> tuple[Tensor | float | None, Tensor | None, Tensor | None]:
    """Return the slope of the surrogate at v (None for 1), and cell and t where the knots were searched."""
    cell = t = slope = None
    if not spec.unit and (spec.mapped or spec.coth is not None):
        cell = count_below(v, knots[1:-1])
        if torch.compiler.is_compiling():
            pick = lambda values: _tree(v, knots[1:-1], values, 0, values.numel() - 1)
        else:
            pick = lambda values: take(values, cell)
        gap = knots.diff()
        t = (v - pick(knots[:-1])) / pick(gap)
        if spec.mapped:
            slope = pick(levels.diff() / gap)
    elif spec.mapped:
        slope = spec.gap
    if spec.coth is not None:
        g, a = spec.coth
        f = (v - v.floor()) if spec.unit else t
        z = torch.expm1((f - 0.5).abs_().add_(a).mul_(2.0))
        coth = (
            z.reciprocal_().mul_(2.0 * g).add_(g)
        )  # g coth(z) = g (1 + 2 / (exp 2z - 1))
        slope = coth if slope is None else coth.mul_(slope)
    return slope, cell, t


def _d_knots(
    inside: Tensor, t: Tensor, cell: Tensor, knots: Tensor, levels: Tensor
) -> Tensor:
    """Return the gradient of the knots: each cell moves its two, by how far the value is from each."""
    cells = knots.numel() - 1
    index = cell.reshape(-1).long()
    weight = torch.zeros(2, cells, dtype=inside.dtype, device=inside.device)
    weight[0].scatter_add_(0, index, inside.reshape(-1))
    weight[1].scatter_add_(0, index, (inside * t).reshape(-1))
    slope = levels.diff() / knots.diff()
    zero = slope.new_zeros(1)
    return torch.cat([-slope * (weight[0] - weight[1]), zero]) + torch.cat(
        [zero, -slope * weight[1]]
    )
