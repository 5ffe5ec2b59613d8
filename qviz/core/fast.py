"""Fast path: one autograd.Function with closed-form gradients for every recipe.

The composition in :mod:`qviz.core.quantizer` is the readable reference; this computes the same values bit for
bit, holds nothing but x, y and borders of elements between forward and backward, and compiles without graph
breaks. You never need to read it to understand a method. Figures in comments say how many times longer
forward and backward take without the trick: ``tests/benchmarks/bench_recipes.py``, 1e6 elements, one or two
threads.

Large tensors are taken whole. Where the allocator maps them anew at each call, as glibc's does by default,
8e6 elements take 1.3 to 1.9 times as long as in blocks that stay in the cache; where it keeps memory
(MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ at 4294967296), 0.8 to 1.1 times (AQuant 1.4).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qviz.core.lookup import Lookup, laid_out, select, table, take

LANES, ROW = 8, 1024
"""Partial sums kept per cell, and how many elements are handed out to them at once."""


class Bend(Protocol):
    """A border for each element of a book of whole numbers, computed from where it lies and from
    parameters b.
    """

    def border(self, v: Tensor, b: Tensor) -> Tensor:
        """Return the fraction of its cell that each v, clamped to the ends, has to exceed to go up."""

    def gradient(self, v: Tensor, b: Tensor, border: Tensor, grad: Tensor) -> Tensor:
        """Return the gradient of b for that of the border where it can move a value."""


@dataclass(frozen=True)
class Spec:
    """What distinguishes one recipe's arithmetic from another's; :func:`qviz.core.fast_parts.spec` finds it.

    Attributes:
        ends: (lo, hi) where the knots are the whole numbers lo … hi, which are never searched; else None.
        affine: (a, c, d) where level k of such a book is (a k + c) / d; None where levels are the knots.
        slope: The surrogate's slope at t, for such a book; None for the straight-through slope 1.
        clipped: The gradient is zero outside the end knots; else it passes.
        open: A value on the first knot counts as outside, for a book that is searched.
        soft: The scale's gradient sees the relaxed value and not the level (PACT).
        rescale: The level is multiplied by the scale (and the offset added) on the way out.
        bend: The border of each element of such a book, or None for 1/2.
    """

    ends: tuple[float, float] | None = None
    affine: tuple[float, float, float] | None = None
    slope: Callable[[Tensor], Tensor] | None = None
    clipped: bool = True
    open: bool = False
    soft: bool = False
    rescale: bool = True
    bend: Bend | None = None


class Grid(NamedTuple):
    """The arguments of :class:`Quantize` that do not depend on x."""

    knots: Tensor | None
    levels: Tensor | None
    borders: Tensor | None
    b: Tensor | None
    spec: Spec


class Quantize(torch.autograd.Function):
    """y = Q(x): ``apply(x, scale, offset, knots, levels, borders, b, spec)``, None for what a recipe lacks.

    Gradients go to x, scale, offset, knots and b. No tensor is given twice (a compiler refuses that).
    Computed in the scale's dtype; y has the dtype of x. Not differentiable twice.

    Args:
        x: Any shape. scale, offset: Broadcastable against x.
        knots: (K,), sorted; None where ``spec.ends`` tells them.
        levels: (K,); None where they are the knots or ``spec.affine`` tells them.
        borders: (K - 1,); None where ``spec.ends`` is given.
        b: Parameters of ``spec.bend``.
        spec: What the recipe is.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, offset: Tensor | None, *parts: Any) -> Tensor:
        """Return y."""
        grid, u, border, place, half = Grid(*parts), _units(x, scale, offset), None, None, None
        spec = grid.spec
        if spec.bend is not None:
            border = spec.bend.border(u.clamp_(*spec.ends), grid.b)
        made = _halves(grid, u.numel())
        if made is None:
            level = _level(u, border, grid)
        else:
            place, half = laid_out(made.place, u), made.code
            level = take(made.of(grid.levels.repeat_interleave(2)[1:-1]), place)
        y = _out(level, scale, offset, spec).to(x.dtype)
        # y tells the level, which computing anew costs 1.1 x (LSQ) to 1.5 x (POT)
        kept = y if spec.rescale and not spec.soft and x.dtype == scale.dtype else None
        # a border anew: AQuant 1.3 x; a place anew: N2UQ 1.1 to 1.2 x
        ctx.save_for_backward(x, scale, offset, kept, border, place, half, *grid[:-1])
        ctx.spec = spec
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, scale, offset, knots and b."""
        x, scale, offset, y, border, place, half, *tensors = ctx.saved_tensors
        spec, (_, need_scale, need_offset, need_knots, *_, need_b, _) = ctx.spec, ctx.needs_input_grad
        grid = Grid(*tensors, spec)
        d_scale = d_offset = d_knots = d_b = None
        plain = spec.rescale and not spec.clipped and spec.slope is None and grid.levels is None
        if plain and not need_scale:  # all of it passes (ADQ); the arithmetic below would take 1.7 x
            return grad, *[None] * 7
        g, u = grad.to(scale.dtype), _units(x, scale, offset)
        if spec.ends is not None:
            v = u.clamp(*spec.ends)
        else:  # one after the other, as both at once take long for tensors: N2UQ 1.1 x
            low, high = grid.knots[0], grid.knots[-1]
            v = u.clamp(min=low.nextafter(high) if spec.open else low).clamp_(max=high)
        inside = u.eq_(v) if spec.clipped else u.eq(v).to(g.dtype)
        inside.mul_(g)  # a product with a float mask; where() branches, and a random mask costs it 6 x
        if need_b:
            d_b = -spec.bend.gradient(v, grid.b, border, inside * scale if spec.rescale else inside)
        if spec.ends is None and grid.levels is not None:
            learns = None if not need_knots else inside * scale if spec.rescale else inside
            du, d_knots = _through_cells(inside, v, grid, learns, place, half)
        else:
            du = _through(inside, v, spec)
        if not spec.clipped:  # outside the grid the gradient passes as it is
            du = du + (g - inside)
        du = du if spec.rescale else du.div_(scale)
        if need_scale:
            seen = v if spec.clipped else torch.where(u.isfinite(), u, v.nan_to_num())  # inf * 0 would be NaN
            d_scale = -dot(du, seen, scale)
            if spec.soft:
                d_scale = d_scale + dot(g, v, scale)
            elif spec.rescale:  # in half precision y is too coarse
                y = _out(_level(v, border, grid), scale, offset, spec) if y is None else y
                d_scale = d_scale + dot(g, y if offset is None else y - offset, scale) / scale
        if need_offset and offset is not None:
            d_offset = total(g - du if spec.rescale else -du, offset)
        return du.to(x.dtype), d_scale, d_offset, d_knots, None, None, d_b, None


def _units(x: Tensor, scale: Tensor, offset: Tensor | None) -> Tensor:
    x = x.to(scale.dtype)
    return x / scale if offset is None else (x - offset).div_(scale)


def _halves(grid: Grid, size: int) -> Lookup | None:
    """Return the table of the halves of cells for ``size`` values; None where none is needed or can be.

    A border divides its cell: half h lies in cell h // 2 and has level (h + 1) // 2. So one search serves the
    levels of the forward pass and the cells of the backward pass.
    """
    if grid.spec.ends is not None or grid.levels is None or torch.compiler.is_compiling():
        return None
    return table(torch.stack([grid.borders, grid.knots[1:]], 1).view(-1)[:-1], size)


def _level(u: Tensor, border: Tensor | None, grid: Grid) -> Tensor:
    """Return the level, u overwritten; NaN stays NaN. With borders u lies between the ends."""
    spec = grid.spec
    if spec.ends is None:
        return select(u, grid.borders, grid.knots if grid.levels is None else grid.levels)
    low, high = spec.ends
    level = u.sub_(0.5).ceil_().clamp_(low, high) if border is None else u.sub_(border).ceil_()
    if spec.affine is None:
        return level
    a, c, d = spec.affine  # reading a table instead: DAQ 1.3 to 1.6 x
    return (level if a == 1 else level.mul_(a)).add_(c - a * low).div_(d)


def _out(level: Tensor, scale: Tensor, offset: Tensor | None, spec: Spec) -> Tensor:
    """Return y in the scale's dtype, the level overwritten."""
    if not spec.rescale:
        return level
    return level.mul_(scale) if offset is None else level.mul_(scale).add_(offset)


def _through(inside: Tensor, v: Tensor, spec: Spec) -> Tensor:
    """Return the gradient of v in a book whose cells are all alike."""
    rise = 1.0 if spec.affine is None else spec.affine[0] / spec.affine[2]  # of a level from knot to knot
    if spec.slope is None:
        return inside if rise == 1.0 else inside * rise
    t = v.frac() if spec.ends[0] >= 0 else v - v.floor()
    steep = spec.slope(t.nan_to_num_(0.5)).mul_(inside)  # at a NaN some number: NaN * 0 would be NaN
    return steep if rise == 1.0 else steep.mul_(rise)


def _through_cells(
    inside: Tensor, v: Tensor, grid: Grid, learns: Tensor | None, place: Tensor | None, half: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Return the gradient of v, and that of the knots where ``learns``, the output's, is given."""
    knots, gap = grid.knots, grid.knots.diff()
    slope, inner, end = grid.levels.diff() / gap, knots[1:-1], knots.new_zeros(1)
    if place is None:
        cell = select(v, inner, torch.arange(len(gap), dtype=torch.int32, device=v.device))
        steep = select(v, inner, slope) if torch.compiler.is_compiling() else take(slope, cell)
    else:
        cell, steep = (take(values, place) for values in (half >> 1, slope[half >> 1]))
    d_knots = None
    if learns is not None:
        first, moment = _cell_sums(cell, len(gap), learns, learns * v)
        upper = (moment - knots[:-1] * first) / gap  # the sum of g t: the share of a cell's upper knot
        d_knots = torch.cat([slope * (upper - first), end]) - torch.cat([end, slope * upper])
    return steep.mul_(inside), d_knots


def _cell_sums(cell: Tensor, count: int, *values: Tensor) -> list[Tensor]:
    """Return the sums of values over each cell, shape (count,); cell is overwritten."""
    at, *columns = flat(cell, *values)
    if torch.compiler.is_compiling():  # bincount does not compile
        return [column.new_zeros(count).scatter_add(0, at.long(), column) for column in columns]
    # after a ReLU most values share a cell, where each addition would wait for the last: N2UQ 1.2 x
    lane = torch.arange(ROW, dtype=torch.int32, device=at.device).remainder_(LANES).mul_(count)
    at[: at.numel() // ROW * ROW].view(-1, ROW).add_(lane)  # the few that are left stay in the first
    sums = [torch.bincount(at, column, count * LANES).view(LANES, count).sum(0) for column in columns]
    return [found.to(column.dtype) for found, column in zip(sums, columns, strict=True)]


def total(a: Tensor, like: Tensor) -> Tensor:
    """Return the sum of a over the axes that ``like`` is broadcast along."""
    return a.sum_to_size(like.shape)


def dot(a: Tensor, b: Tensor, like: Tensor) -> Tensor:
    """Return the sum of a * b over the axes that ``like`` is broadcast along; without torch.dot LSQ takes
    1.15 x.
    """
    if like.numel() > 1 or torch.compiler.is_compiling():
        return total(a * b, like)
    return torch.dot(*flat(a, b)).view(like.shape)


def flat(*tensors: Tensor) -> list[Tensor]:
    """Return tensors of one shape as vectors in the memory order of the first."""
    first = tensors[0]
    if first.ndim == 4 and first.is_contiguous(memory_format=torch.channels_last):
        tensors = tuple(t.permute(0, 2, 3, 1) for t in tensors)
    return [t.reshape(-1) for t in tensors]
