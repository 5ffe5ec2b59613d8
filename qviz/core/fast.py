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
    return torch.where(u > borders[middle], right, _tree(u, borders, values, low, middle))


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
    """Return the level of each u, which is overwritten; NaN stays NaN.

    Args:
        u: any shape, float32 or float64; scratch.
        knots: (K,), or None for a unit book.
        levels: (K,), or None when they are the knots.
        borders: (K - 1,), or None for a unit book.
        border: B of each element for a unit book (round up where the fraction exceeds it), or None for 1/2.
        spec: of the recipe.
    """
    if not spec.unit:
        hard = select(u, borders, knots if levels is None else levels)
        return hard.add_(_only_nan(u, knots[0], knots[-1]))
    u = u.sub_(0.5) if border is None else u.clamp_(spec.lo, spec.hi).sub_(border)
    code = u.ceil_().clamp_(spec.lo, spec.hi)
    if levels is None:
        return code
    if torch.compiler.is_compiling():
        cuts = torch.arange(levels.numel() - 1, dtype=code.dtype, device=code.device) + (spec.lo + 0.5)
        hard = select(code, cuts, levels)
    else:
        hard = take(levels, (code - spec.lo).nan_to_num_(0.0))
    return hard.add_(_only_nan(code, spec.lo, spec.hi))


def _only_nan(u: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """Return 0, or NaN where u is NaN: three cheap passes, where a mask costs a slow one."""
    v = torch.clamp(u, low, high)
    return v.sub_(v)


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
        y = read(
            _units(x.to(scale.dtype), scale, offset),
            knots,
            levels,
            borders,
            border,
            spec,
        )
        if spec.rescale:
            y = y.mul_(scale) if offset is None else y.mul_(scale).add_(offset)
        y = y.to(x.dtype)
        # y holds s * level; in half precision it is too coarse for the scale's gradient and is computed anew
        kept = y if spec.rescale and spec.through == "hard" and x.dtype == scale.dtype else None
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
        # inf * 0 would be NaN
        seen = v if spec.clipped or not need[1] else u.nan_to_num(posinf=spec.hi, neginf=spec.lo)
        inside = u.eq_(v).mul_(grad)  # times a float mask: where() branches on random masks
        passed = inside if spec.clipped else grad
        slope, cell = _slope(v, knots, levels, spec)
        d_knots = d_border = d_scale = d_offset = d_x = None
        if knots is not None and need[3]:
            d_knots = _d_knots(inside, v, cell, knots, levels)
            if spec.rescale:
                d_knots = d_knots * scale
        if border is not None and need[6]:
            d_border = -inside * scale if spec.rescale else -inside
        if slope is not None:
            fresh = isinstance(slope, Tensor) and slope.ndim == inside.ndim
            passed = slope.mul_(inside) if fresh else inside * slope
            if not spec.clipped:  # outside the grid the gradient passes as it is
                passed = passed + (grad - inside)
        if need[1]:
            d_scale = -_total(passed, seen, scale)
            if not spec.rescale:
                d_scale = d_scale / scale
            elif spec.through == "soft":
                d_scale = d_scale + _total(grad, v, scale)
            elif y is None:
                d_scale = d_scale + _total(
                    grad,
                    read(_units(x, scale, offset), knots, levels, borders, border, spec),
                    scale,
                )
            else:
                d_scale = d_scale + _total(grad, y if offset is None else y - offset, scale) / scale
        if offset is not None and need[2]:
            d_offset = (
                _summed(grad, offset) - _summed(passed, offset)
                if spec.rescale
                else -_summed(passed / scale, offset)
            )
        if need[0]:
            d_x = (passed if spec.rescale else passed / scale).to(dtype)
        return d_x, d_scale, d_offset, d_knots, None, None, d_border, None


def _summed(a: Tensor, like: Tensor) -> Tensor:
    """Return the sum of a over the axes that ``like`` is broadcast along."""
    return a.sum().view(like.shape) if like.numel() == 1 else a.sum_to_size(like.shape)


def _total(a: Tensor, b: Tensor, like: Tensor) -> Tensor:
    """Return the sum of a * b over the axes that ``like`` is broadcast along."""
    if like.numel() == 1 and a.is_contiguous() and b.is_contiguous():
        return torch.dot(a.view(-1), b.view(-1)).view(like.shape)
    return _summed(a * b, like)


def _slope(
    v: Tensor, knots: Tensor | None, levels: Tensor | None, spec: Spec
) -> tuple[Tensor | float | None, Tensor | None]:
    """Return the surrogate's slope at v (None for 1, else a fresh tensor), and the cell if searched."""
    cell = None
    slope: Tensor | float | None = spec.gap if spec.unit and spec.mapped else None
    if not spec.unit and (spec.mapped or spec.coth is not None):
        cell = count_below(v, knots[1:-1])
        if spec.mapped:
            slope = _pick(v, cell, knots, levels.diff() / knots.diff())
    if spec.coth is None:
        return slope, cell
    g, a = spec.coth
    if spec.unit:
        t = v.floor().neg_().add_(v).nan_to_num_(0.5)  # NaN * 0 would be NaN
    else:
        t = (v - _pick(v, cell, knots, knots[:-1])).div_(_pick(v, cell, knots, knots.diff()))
    # g coth(z) = g (1 + 2 / (exp(2 z) - 1))
    coth = t.sub_(0.5).abs_().add_(a).mul_(2.0).expm1_().reciprocal_().mul_(2.0 * g).add_(g)
    return (coth if slope is None else coth.mul_(slope)), cell


def _pick(v: Tensor, cell: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Return values[cell], one for each cell."""
    return select(v, knots[1:-1], values) if torch.compiler.is_compiling() else take(values, cell)


def _d_knots(inside: Tensor, v: Tensor, cell: Tensor, knots: Tensor, levels: Tensor) -> Tensor:
    """Return the gradient of the knots from two sums a cell, of g and of g v; each cell has two knots."""
    cells, index = knots.numel() - 1, cell.reshape(-1).long()
    flat, moment = inside.reshape(-1), (inside * v).reshape(-1)
    if torch.compiler.is_compiling():  # bincount does not compile
        total = inside.new_zeros(cells).scatter_add(0, index, flat)
        moment = inside.new_zeros(cells).scatter_add(0, index, moment)
    else:
        total = torch.bincount(index, flat, cells)
        moment = torch.bincount(index, moment, cells)
    gap = knots.diff()
    upper = (moment - knots[:-1] * total) / gap  # sum of g t
    slope = levels.diff() / gap
    zero = slope.new_zeros(1)
    return torch.cat([slope * (upper - total), zero]) - torch.cat([zero, slope * upper])


def logits(v: Tensor, b: Tensor) -> Tensor:
    """Return b0 + v (b1 + b2 v) by Horner's rule; b is (3, …), broadcastable against v."""
    return torch.addcmul(b[1], b[2], v).mul(v).add(b[0])


def top_border(dtype: torch.dtype, lo: float, hi: float) -> float:
    """Return the largest border that keeps whole numbers: above it, n - B would round to n - 1."""
    return 1.0 - 2.0 * (max(abs(lo), abs(hi)) + 1.0) * torch.finfo(dtype).eps


def squash(z: Tensor, lo: float, hi: float) -> Tensor:
    """Return sigmoid(z), kept below :func:`top_border`."""
    return torch.sigmoid(z).clamp(max=top_border(z.dtype, lo, hi))


class Border(torch.autograd.Function):
    """B = sigmoid(b0 + b1 v + b2 v²), v = (clamp(u) - lo) / (hi - lo), with gradients to b only.

    ``apply(x, scale, offset, b, lo, hi)``; b is (3, …), broadcastable against x. Holds only B besides x.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        offset: Tensor | None,
        b: Tensor,
        lo: float,
        hi: float,
    ) -> Tensor:
        """Return B with the shape of x."""
        v = _units(x, scale, offset).clamp_(lo, hi).sub_(lo).div_(hi - lo)
        border = squash(logits(v, b), lo, hi)
        ctx.save_for_backward(x, scale, offset, b, border)
        ctx.span = lo, hi
        return border

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of b."""
        x, scale, offset, b, border = ctx.saved_tensors
        lo, hi = ctx.span
        v = _units(x, scale, offset).clamp_(lo, hi).sub_(lo).div_(hi - lo)
        g = (1.0 - border).mul_(border).mul_(grad).mul_(border < top_border(border.dtype, lo, hi))
        parts = []
        for _ in range(3):
            parts.append(_summed(g, b[0]))
            g.mul_(v)
        return None, None, None, torch.stack(parts), None, None
