"""Fast path: one autograd.Function with closed-form gradients for every recipe.

The composition in :mod:`qviz.core.quantizer` is the readable reference; this computes the same values bit for
bit, holds nothing but x and y between forward and backward, and compiles without graph breaks. You never need
to read it to understand a method. Figures in comments are of ``tests/benchmarks/bench_recipes.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qviz.core.codebook import count_below, laid_out, take
from qviz.core.lookup import table

BLOCK = 1 << 20
"""Block size: large tensors are taken in blocks of so many elements, so that temporaries stay in the
cache."""

LANES, LANE_PATTERN = 8, 1 << 12
"""Partial sums kept per cell, and the length of the repeating pattern that assigns values to them."""


class Bend(Protocol):
    """A border for each element of a book of whole numbers, computed from where it lies and from
    parameters b.
    """

    def border(self, v: Tensor, b: Tensor) -> Tensor:
        """Return the fraction of its cell that each v, clamped to the ends, has to exceed to go up."""

    def gradient(self, v: Tensor, b: Tensor, grad: Tensor) -> Tensor:
        """Return the gradient of b for that of the border, which may be overwritten."""


@dataclass(frozen=True)
class Spec:
    """What distinguishes one recipe's arithmetic from another's, as :meth:`Quantizer._plan` derives it.

    Attributes:
        ends: (lo, hi) where the knots are the whole numbers lo … hi, which are never searched; else None.
        affine: (a, c, d) where level k of such a book is (a k + c) / d; None where levels are the knots.
        slope: The surrogate's slope at t; None for the straight-through slope 1.
        clipped: The gradient is zero outside the end knots; else it passes.
        open: A value on the first knot counts as outside.
        soft: The scale's gradient sees the relaxed value and not the level (PACT).
        rescale: The level is multiplied by the scale (and the offset added) on the way out.
        bend: The border of each element, or None for 1/2.
    """

    ends: tuple[float, float] | None = None
    affine: tuple[float, float, float] | None = None
    slope: Callable[[Tensor], Tensor] | None = None
    clipped: bool = True
    open: bool = False
    soft: bool = False
    rescale: bool = True
    bend: Bend | None = None


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
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        offset: Tensor | None,
        knots: Tensor | None,
        levels: Tensor | None,
        borders: Tensor | None,
        b: Tensor | None,
        spec: Spec,
    ) -> Tensor:
        """Return y."""
        y = None
        for rows in blocks(x, b):
            part = _forward(*_rows(x, rows, x, scale, offset), knots, levels, borders, b, spec)
            if rows is None:
                y = part
            else:
                y = torch.empty_like(x) if y is None else y
                y[rows].copy_(part)
        # y holds s * level; in half precision it is too coarse for the scale's gradient and is computed anew
        kept = y if spec.rescale and not spec.soft and x.dtype == scale.dtype else None
        ctx.save_for_backward(x, scale, offset, knots, levels, borders, b, kept)
        ctx.spec = spec
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, scale, offset, knots and b."""
        x, scale, offset, knots, levels, borders, b, y = ctx.saved_tensors
        found: dict[str, Tensor] = {}
        for rows in blocks(x, b):
            some = _rows(x, rows, x, grad, y, scale, offset)
            got = _backward(*some, knots, levels, borders, b, ctx.spec, ctx.needs_input_grad)
            _gather(found, got, {"x": x, "scale": scale, "offset": offset}, x, rows)
        d_knots = None
        if "sums" in found:
            d_knots = _d_knots(found["sums"], knots, levels)
            d_knots = d_knots * scale.reshape(()) if ctx.spec.rescale else d_knots
        names = ("x", "scale", "offset")
        return *(found.get(name) for name in names), d_knots, None, None, found.get("b"), None


def _forward(
    x: Tensor,
    scale: Tensor,
    offset: Tensor | None,
    knots: Tensor | None,
    levels: Tensor | None,
    borders: Tensor | None,
    b: Tensor | None,
    spec: Spec,
) -> Tensor:
    """Return y for a block."""
    level = _level(_units(x.to(scale.dtype), scale, offset), knots, levels, borders, b, spec)
    if spec.rescale:
        level = level.mul_(scale) if offset is None else level.mul_(scale).add_(offset)
    return level.to(x.dtype)


def _level(
    u: Tensor,
    knots: Tensor | None,
    levels: Tensor | None,
    borders: Tensor | None,
    b: Tensor | None,
    spec: Spec,
) -> Tensor:
    """Return the level of each u, which is overwritten; NaN stays NaN."""
    if spec.ends is None:
        return select(u, borders, knots if levels is None else levels)
    low, high = spec.ends
    if spec.bend is None:
        u = u.sub_(0.5)
    else:
        u = u.clamp_(low, high)
        u = u.sub_(spec.bend.border(u, b))
    code = u.ceil_().clamp_(low, high)
    if spec.affine is None:
        return code
    # reading a table instead: DAQ 1.15 x slower
    a, c, d = spec.affine
    return (code if a == 1 else code.mul_(a)).add_(c - a * low).div_(d)


def _backward(
    x: Tensor,
    grad: Tensor,
    y: Tensor | None,
    scale: Tensor,
    offset: Tensor | None,
    knots: Tensor | None,
    levels: Tensor | None,
    borders: Tensor | None,
    b: Tensor | None,
    spec: Spec,
    need: tuple[bool, ...],
) -> dict[str, Tensor]:
    """Return the gradients that a block gives, by name; "sums" stands for the knots'."""
    found: dict[str, Tensor] = {}
    dtype, x, g = x.dtype, x.to(scale.dtype), grad.to(scale.dtype)
    if not spec.clipped and spec.slope is None and levels is None and not need[1] and spec.rescale:
        return {"x": grad} if need[0] else {}  # ADQ: all of it passes
    u = _units(x, scale, offset)
    low, high = (knots[0], knots[-1]) if spec.ends is None else spec.ends
    v = torch.clamp(u, low, high)
    inside = u.eq(v).to(g.dtype) if not spec.clipped else u.eq_(v)  # u is of no more use
    if spec.open:
        inside.mul_(mask(torch.gt, v, low))
    inside.mul_(g)  # a product with a float mask; where() branches, and a random mask costs it 6 x
    out = scale if spec.rescale else 1.0
    if spec.bend is not None and need[6]:
        movable = mask(torch.gt, v, low).mul_(inside)  # no border moves a value on an end
        movable.mul_(mask(torch.lt, v, high))
        found["b"] = spec.bend.gradient(v, b, movable.mul_(-out))
    du = _slope(v, inside, knots, levels, spec, found if need[3] else None)
    if not spec.clipped:  # outside the grid the gradient passes as it is
        du = du + (g - inside)
    per = 1.0 if spec.rescale else scale.reciprocal()
    if need[1]:
        seen = v if spec.clipped else torch.where(u.isfinite(), u, v.nan_to_num())  # inf * 0 would be NaN
        d_scale = -dot(du, seen, scale) * per
        if spec.soft:
            d_scale = d_scale + dot(g, v, scale)
        elif spec.rescale and y is None:
            d_scale = d_scale + dot(
                g, _level(_units(x, scale, offset), knots, levels, borders, b, spec), scale
            )
        elif spec.rescale:
            product = dot(g, y, scale)  # y is offset + scale * level
            product = product if offset is None else product - offset * total(g, offset)
            d_scale = d_scale + product / scale
        found["scale"] = d_scale
    if offset is not None and need[2]:
        found["offset"] = total(g - du if spec.rescale else -du * per, offset)
    if need[0]:
        found["x"] = (du if spec.rescale else du * per).to(dtype)
    return found


def _slope(
    v: Tensor,
    g: Tensor,
    knots: Tensor | None,
    levels: Tensor | None,
    spec: Spec,
    found: dict[str, Tensor] | None,
) -> Tensor:
    """Return g times the slope of the relaxed level at v; put what the knots' gradient needs into
    ``found``.
    """
    slope: Tensor | float | None = None if spec.affine is None else spec.affine[0] / spec.affine[2]
    if spec.ends is None and (levels is not None or spec.slope is not None):
        inner = knots[1:-1]
        per_cell = (knots if levels is None else levels).diff() / knots.diff()
        compiled = torch.compiler.is_compiling()
        cell = None if compiled and found is None else _cell(v, inner)

        def pick(values: Tensor) -> Tensor:
            return select(v, inner, values) if compiled else take(values, cell)

        slope = pick(per_cell)
        if found is not None:
            found["sums"] = _cell_sums(g, v, cell, len(per_cell))
    if spec.slope is not None:
        if spec.ends is None:
            t = (v - pick(knots[:-1])).div_(pick(knots.diff()))
        else:
            t = v.frac() if spec.ends[0] >= 0 else v - v.floor()
        t = torch.where(t == t, t, 0.5) if torch.compiler.is_compiling() else t.nan_to_num_(0.5)
        steep = spec.slope(t)  # at a NaN some number: NaN * 0 would be NaN
        slope = steep if slope is None else steep.mul_(slope)
    if slope is None:
        return g
    return slope.mul_(g) if isinstance(slope, Tensor) else g * slope


def _cell(v: Tensor, inner: Tensor) -> Tensor:
    """Return the number of the cell that v lies in, whole numbers of any dtype; some cell for NaN."""
    number = torch.arange(len(inner) + 1, dtype=torch.int32, device=v.device)
    if torch.compiler.is_compiling():
        return _tree(v, inner, number, 0, len(inner))
    made = table(inner, number, v.numel())
    return count_below(v, inner) if made is None else laid_out(made, v)


def _cell_sums(g: Tensor, v: Tensor, cell: Tensor, count: int) -> Tensor:
    """Return the sums of g and of g v over each cell, (2, count).

    After a ReLU most values share a cell, and in one sum each addition would wait for the last. LANES sums a
    cell, which neighbors use in turn, take 0.43 of the time.
    """
    at, *columns = flat(cell, g, g * v) or [t.reshape(-1) for t in (cell, g, g * v)]
    lane = torch.arange(LANE_PATTERN, dtype=torch.int32, device=at.device).bitwise_and_(LANES - 1).mul_(count)
    at = at.int() + lane.repeat(-(-at.numel() // LANE_PATTERN))[: at.numel()]
    if torch.compiler.is_compiling():  # bincount does not compile
        zeros, at = g.new_zeros(count * LANES), at.long()
        sums = [zeros.scatter_add(0, at, column) for column in columns]
    else:
        sums = [torch.bincount(at, column, count * LANES) for column in columns]
    return torch.stack([a.view(LANES, count).sum(0) for a in sums]).to(g.dtype)


def _d_knots(sums: Tensor, knots: Tensor, levels: Tensor | None) -> Tensor:
    """Return the gradient of the knots from the sums of each cell; each cell has two knots."""
    total, moment = sums
    gap, end = knots.diff(), knots.new_zeros(1)
    upper = (moment - knots[:-1] * total) / gap  # the sum of g t
    slope = (knots if levels is None else levels).diff() / gap
    return torch.cat([slope * (upper - total), end]) - torch.cat([end, slope * upper])


def select(u: Tensor, borders: Tensor, values: Tensor) -> Tensor:
    """Return ``values[#{borders < u}]``, NaN where u is NaN.

    A tree of ``where`` when compiled, which fuses; else a table over the bits of u (without it POST, ADQ and
    N2UQ are 1.26 to 1.54 x slower), or comparisons where a table is not worth it.

    Args:
        u: Any shape.
        borders: (K - 1,), sorted.
        values: (K,).
    """
    if torch.compiler.is_compiling():
        read = _tree(u, borders, values, 0, values.numel() - 1)
    else:
        made = table(borders, values, u.numel())
        if made is not None:
            return laid_out(made, u)  # it reads NaN as NaN
        read = take(values, count_below(u, borders))
    nothing = u.clamp(-1.0, 1.0)  # cheap passes, where a mask costs a slow one
    return read.add_(nothing.sub_(nothing))


def _tree(u: Tensor, borders: Tensor, values: Tensor, low: int, high: int) -> Tensor:
    if low == high:  # a book of one cell has no border that could give u's shape
        return values[low] if len(borders) else values[low].expand_as(u).clone()
    middle = (low + high) // 2
    right = _tree(u, borders, values, middle + 1, high)
    return torch.where(u > borders[middle], right, _tree(u, borders, values, low, middle))


def mask(compare: Callable[..., Tensor], a: Tensor, b: Tensor | float) -> Tensor:
    """Return 1 where ``compare(a, b)``, else 0, in the dtype of a: 3 x faster than by way of a bool."""
    if torch.compiler.is_compiling():
        return compare(a, b).to(a.dtype)
    return compare(a, b, out=torch.empty_like(a))


def _units(x: Tensor, scale: Tensor, offset: Tensor | None) -> Tensor:
    return x / scale if offset is None else (x - offset) / scale


def blocks(x: Tensor, b: Tensor | None = None) -> list[slice | None]:
    """Return slices of rows of about BLOCK elements for each thread, or [None] where x is taken whole.

    8e6 elements as a whole were 1.03 to 1.6 x slower than in blocks of a quarter of this. A compiler fuses
    the passes itself.
    """
    if torch.compiler.is_compiling() or x.device.type != "cpu" or x.ndim == 0:
        return [None]
    if b is not None and b.ndim > x.ndim and b.shape[1] > 1:  # borders that differ from row to row
        return [None]
    rows, part = x.shape[0], BLOCK * torch.get_num_threads()
    some = max(1, part * rows // max(x.numel(), 1))
    if 2 * some > rows:
        return [None]
    return [slice(at, at + some) for at in range(0, rows, some)]


def _rows(x: Tensor, rows: slice | None, *tensors: Tensor | None) -> list[Tensor | None]:
    """Return the rows of each tensor that go with those of x: all of it, if it is broadcast along them."""
    return [t[rows] if rows is not None and _has_rows(t, x) else t for t in tensors]


def _has_rows(t: Tensor | None, x: Tensor) -> bool:
    return t is not None and t.ndim == x.ndim and t.shape[0] == x.shape[0]


def _gather(
    found: dict[str, Tensor],
    got: dict[str, Tensor],
    like: dict[str, Tensor | None],
    x: Tensor,
    rows: slice | None,
) -> None:
    """Put a block's gradients into the rows they belong to; those that blocks share add up."""
    if rows is None:
        found.update(got)
        return
    for name, value in got.items():
        if _has_rows(like.get(name), x):
            if name not in found:
                found[name] = torch.empty_like(like[name])
            found[name][rows].copy_(value)
        else:
            found[name] = value if name not in found else found[name] + value


def total(a: Tensor, like: Tensor) -> Tensor:
    """Return the sum of a over the axes that ``like`` is broadcast along."""
    if like.numel() > 1:
        return a.sum_to_size(like.shape)
    if torch.compiler.is_compiling() and a.ndim == 4:  # joins a BatchNorm's loops
        a = a.sum((0, 2, 3))
    return a.sum().view(like.shape)


def dot(a: Tensor, b: Tensor, like: Tensor) -> Tensor:
    """Return the sum of a * b over the axes that ``like`` is broadcast along."""
    if like.numel() == 1:
        vectors = flat(a, b)
        if vectors is not None:
            return torch.dot(*vectors).view(like.shape)
    return total(a * b, like)


def flat(*tensors: Tensor) -> list[Tensor] | None:
    """Return tensors of one shape as vectors in the memory order that they share, or None if they share none.

    Channels-last counts as an order in eager mode only: a compiler fuses what is done one by one.
    """
    if all(t.is_contiguous() for t in tensors):
        return [t.view(-1) for t in tensors]
    last = torch.channels_last
    if torch.compiler.is_compiling() or not all(
        t.ndim == 4 and t.is_contiguous(memory_format=last) for t in tensors
    ):
        return None
    return [t.permute(0, 2, 3, 1).view(-1) for t in tensors]
