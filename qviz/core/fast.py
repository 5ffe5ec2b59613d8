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

from qviz.core.codebook import count_below, laid_out, take
from qviz.core.lookup import Lookup, table

PART = 1 << 18
"""Elements of a part for one thread: some such arrays of float32 fit a processor's cache."""

LANES = 8
"""Sums a cell is split into, a power of two."""

TILE = 1 << 12
"""Length of the pattern that numbers them, over and over; a multiple of LANES."""


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
        ratio: (a, c, d) where they are (a k + c) / d exactly: no table is read then.
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
    ratio: tuple[float, float, float] | None = None


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


@dataclass(frozen=True)
class Book:
    """The tables of one codebook, made once a pass.

    Attributes:
        knots: (K,), or None for a unit book.
        levels: (K,), or None when they are the knots.
        borders: (K - 1,), or None for a unit book.
        lookup: reads the level of a u times ``factor``, if the book is searched and the tensor large.
        factor: what the table's levels are multiplied by already, or None.
    """

    knots: Tensor | None
    levels: Tensor | None
    borders: Tensor | None
    lookup: Lookup | None = None
    factor: Tensor | None = None

    @staticmethod
    def of(
        knots: Tensor | None,
        levels: Tensor | None,
        borders: Tensor | None,
        factor: Tensor | None,
        spec: Spec,
        size: int,
    ) -> Book:
        """Return the book, with a table of its levels times ``factor`` where ``size`` values are worth it."""
        plain = Book(knots, levels, borders)
        if spec.unit or torch.compiler.is_compiling():
            return plain
        values = knots if levels is None else levels
        made = table(borders, values if factor is None else values * factor, size)
        return plain if made is None else Book(knots, levels, borders, made, factor)


def read(u: Tensor, book: Book, border: Tensor | None, spec: Spec) -> Tensor:
    """Return the level of each u, which is overwritten, times the book's factor; NaN stays NaN.

    Args:
        u: any shape, float32 or float64; scratch.
        book: of the recipe.
        border: B of each element for a unit book (round up where the fraction exceeds it), or None for 1/2.
        spec: of the recipe.
    """
    if not spec.unit:
        if book.lookup is not None:
            return laid_out(book.lookup, u)
        hard = select(u, book.borders, book.knots if book.levels is None else book.levels)
        return hard.add_(_only_nan(u, book.knots[0], book.knots[-1]))
    u = u.sub_(0.5) if border is None else u.clamp_(spec.lo, spec.hi).sub_(border)
    code = u.ceil_().clamp_(spec.lo, spec.hi)
    if book.levels is None:
        return code
    if spec.ratio is not None:
        a, c, d = spec.ratio
        return _affine(code, a, c - a * spec.lo).div_(d)
    count = book.levels.numel()
    if torch.compiler.is_compiling():
        cuts = torch.arange(count - 1, dtype=code.dtype, device=code.device) + (spec.lo + 0.5)
        return select(code, cuts, book.levels).add_(_only_nan(code, spec.lo, spec.hi))
    missing = book.levels.new_full((1,), torch.nan)
    return take(torch.cat([book.levels, missing]), code.sub_(spec.lo).nan_to_num_(count))


def _affine(x: Tensor, factor: float, summand: float) -> Tensor:
    """Return factor * x + summand in place, leaving out what changes nothing."""
    x = x if factor == 1 else x.mul_(factor)
    return x if summand == 0 else x.add_(summand)


def _only_nan(u: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """Return 0, or NaN where u is NaN: three cheap passes, where a mask costs a slow one."""
    v = torch.clamp(u, low, high)
    return v.sub_(v)


def parts(x: Tensor, long: bool) -> list[tuple[int, int]] | None:
    """Return row intervals of x that fit a processor's cache, or None where x is to be taken as a whole.

    A long eager chain of passes is faster on such parts, and its scratch memory small; a short one gains
    nothing until the whole tensor leaves the cache, and several threads, which wait for each other after each
    pass, lose more by small parts than they gain. A compiler fuses the passes itself.
    """
    if torch.compiler.is_compiling() or x.device.type != "cpu" or x.ndim == 0 or x.numel() == 0:
        return None
    rows, threads = x.shape[0], torch.get_num_threads()
    part = PART if long and threads == 1 else 4 * PART * threads
    some = max(1, part * rows // x.numel())
    if 2 * some > rows:
        return None
    return [(at, min(at + some, rows)) for at in range(0, rows, some)]


def _is_long(spec: Spec, b: Tensor | None) -> bool:
    return not spec.unit or spec.coth is not None or b is not None


def _part(t: Tensor | None, like: Tensor, rows: tuple[int, int]) -> Tensor | None:
    """Return the rows of t that go with the rows of ``like``: all of it, if it is broadcast along them."""
    if t is None or t.ndim < like.ndim or t.shape[0] != like.shape[0]:
        return t
    return t.narrow(0, rows[0], rows[1] - rows[0])


class Quantize(torch.autograd.Function):
    """y = Q(x) with the gradients of the composition in closed form.

    ``apply(x, scale, offset, knots, levels, borders, border, b, gain, spec)``; arguments that a recipe lacks
    are None, and no tensor is given twice. Gradients go to x, scale, offset, knots, border, b and gain.
    Computed in float32 (float64 for float64), part by part; y has the dtype of x. Not differentiable twice.

    ``gain``, of one element, multiplies the level where the scale does not.

    A unit book may have a border for each element: ``border``, of the shape of x, or the coefficients
    ``b``, shape (3, …) and broadcastable against x, of B = sigmoid(b0 + b1 v + b2 v²) with
    v = (clamp(u) - lo) / (hi - lo).
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
        b: Tensor | None,
        gain: Tensor | None,
        spec: Spec,
    ) -> Tensor:
        """Return y."""
        factor = gain if not spec.rescale else scale if offset is None else None
        single = factor if factor is not None and factor.numel() == 1 else None
        book = Book.of(knots, levels, borders, single, spec, x.numel())
        intervals = parts(x, _is_long(spec, b))
        if intervals is None:
            y = _forward(x, scale, offset, border, book, b, gain, spec)
        else:
            y = torch.empty_like(x)
            for rows in intervals:
                some = (_part(t, x, rows) for t in (x, scale, offset, border))
                _part(y, x, rows).copy_(_forward(*some, book, b, gain, spec))
        # y holds s * level; in half precision it is too coarse for the scale's gradient and is computed anew
        multiplied = spec.through == "hard" if spec.rescale else _tells_level(gain)
        kept = y if multiplied and x.dtype == scale.dtype else None
        ctx.save_for_backward(x, scale, offset, knots, levels, borders, border, b, gain, kept)
        ctx.spec = spec
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, scale, offset, knots, border, b and gain."""
        x, scale, offset, knots, levels, borders, border, b, gain, y = ctx.saved_tensors
        need = ctx.needs_input_grad
        whole = _Backward(Book(knots, levels, borders), b, gain, ctx.spec, need, x.numel())
        intervals = parts(x, _is_long(ctx.spec, b))
        if intervals is None:
            found = whole(x, grad, y, scale, offset, border)
        else:
            found = _Gradients(
                *(
                    make(t) if wanted else None
                    for make, t, wanted in (
                        (torch.empty_like, x, need[0]),
                        (torch.zeros_like, scale, need[1]),
                        (torch.zeros_like, offset, need[2]),
                        (torch.zeros_like, border, need[6]),
                    )
                )
            )
            for rows in intervals:
                got = whole(*(_part(t, x, rows) for t in (x, grad, y, scale, offset, border)))
                found.put(got, x, rows)
        d_knots = whole.knots(scale) if need[3] else None
        first = found.x, found.scale, found.offset, d_knots, None, None, found.border
        return *first, whole.d_b, whole.d_gain, None


def _forward(
    x: Tensor,
    scale: Tensor,
    offset: Tensor | None,
    border: Tensor | None,
    book: Book,
    b: Tensor | None,
    gain: Tensor | None,
    spec: Spec,
) -> Tensor:
    """Return y for a whole tensor or a part of it."""
    u = _units(x.to(scale.dtype), scale, offset)
    if b is not None:
        border = _border(_share(u.clamp_(spec.lo, spec.hi), spec), b, spec)
    y = read(u, book, border, spec)
    if book.factor is not None:
        return y.to(x.dtype)
    if spec.rescale:
        y = y.mul_(scale) if offset is None else y.mul_(scale).add_(offset)
    elif gain is not None:
        y = y.mul_(gain)
    return y.to(x.dtype)


def _tells_level(gain: Tensor | None) -> bool:
    """Whether gain * level still tells the level, so that the backward pass need not read it anew."""
    if gain is None or torch.compiler.is_compiling() or gain.device.type != "cpu":
        return False  # a compiler reads it again at no cost, and a GPU would wait for the answer
    return bool(gain.abs() > torch.finfo(gain.dtype).tiny)


def _share(v: Tensor, spec: Spec) -> Tensor:
    """Return where v, clamped to the end knots, lies between them, 0 to 1."""
    return v.sub(spec.lo).div_(spec.hi - spec.lo) if spec.lo else v / (spec.hi - spec.lo)


def _border(share: Tensor, b: Tensor, spec: Spec) -> Tensor:
    """Return B: :func:`squash` of :func:`logits` without their scratch memory."""
    z = (share * b[2]).add_(b[1]).mul_(share).add_(b[0])
    return z.sigmoid_().clamp_(max=top_border(z.dtype, spec.lo, spec.hi))


@dataclass
class _Gradients:
    x: Tensor | None
    scale: Tensor | None
    offset: Tensor | None
    border: Tensor | None

    def put(self, got: _Gradients, x: Tensor, rows: tuple[int, int]) -> None:
        """Write a part's gradients into the rows they belong to; those that rows share add up."""
        for name in ("x", "border"):
            if getattr(self, name) is not None:
                _part(getattr(self, name), x, rows).copy_(getattr(got, name))
        for name in ("scale", "offset"):
            if getattr(self, name) is not None:
                _part(getattr(self, name), x, rows).add_(getattr(got, name))


class _Backward:
    """The backward pass over parts of one tensor, and what the knots' gradient gathers from them."""

    def __init__(
        self,
        book: Book,
        b: Tensor | None,
        gain: Tensor | None,
        spec: Spec,
        need: tuple[bool, ...],
        size: int,
    ) -> None:
        self.book, self.b, self.gain, self.spec, self.need = book, b, gain, spec, need
        self.d_b: Tensor | None = None
        self.d_gain: Tensor | None = None
        self.sums: Tensor | None = None
        self.cells: Lookup | None = None
        self.searched = not spec.unit and (spec.mapped or spec.coth is not None)
        straight = spec.coth is None and spec.clipped and not spec.rescale
        self.sloped = self.searched and straight and need[3]
        if self.searched and not torch.compiler.is_compiling():
            inner = book.knots[1:-1]
            count = torch.arange(inner.numel() + 1, dtype=torch.int32, device=inner.device)
            self.cells = table(inner, count, size)

    def __call__(
        self,
        x: Tensor,
        grad: Tensor,
        y: Tensor | None,
        scale: Tensor,
        offset: Tensor | None,
        border: Tensor | None,
    ) -> _Gradients:
        """Return the gradients of x, scale, offset and border."""
        spec, need, dtype = self.spec, self.need, x.dtype
        x, grad = x.to(scale.dtype), grad.to(scale.dtype)
        u = _units(x, scale, offset)
        v = torch.clamp(u, *_ends(self.book.knots, spec))
        seen = v
        if need[1] and not spec.clipped:  # inf * 0 would be NaN
            seen = torch.where(u.isfinite(), u, v.nan_to_num())
        inside = u.eq_(v).mul_(grad)  # times a float mask: where() branches on random masks
        passed = inside if spec.clipped else grad
        if need[8]:
            found = self._d_gain(x, grad, y, scale, offset, border)
            self.d_gain = found if self.d_gain is None else self.d_gain + found
        per = None if spec.rescale else 1.0 / scale if self.gain is None else self.gain / scale
        if self.sloped and offset is None and scale.numel() == 1:
            return self._by_cell(v, inside, per, scale, dtype)
        slope = self._slope(v, inside)
        d_border = d_scale = d_offset = d_x = None
        if border is not None and need[6]:
            d_border = self._per_border(inside, scale)
        if self.b is not None and need[7]:
            found = self._d_coefficients(v, self._per_border(inside, scale))
            self.d_b = found if self.d_b is None else self.d_b + found
        if slope is not None:
            fresh = isinstance(slope, Tensor) and slope.ndim == inside.ndim
            passed = slope.mul_(inside) if fresh else inside * slope
            if not spec.clipped:  # outside the grid the gradient passes as it is
                passed = passed + (grad - inside)
        if need[1]:
            d_scale = -_total(passed, seen, scale)
            if not spec.rescale:
                d_scale = d_scale * per
            elif spec.through == "soft":
                d_scale = d_scale + _total(grad, v, scale)
            elif y is None:
                plain = Spec(**{**vars(spec), "rescale": False})
                again = _forward(x, scale, offset, border, self.book, self.b, None, plain)
                d_scale = d_scale + _total(grad, again, scale)
            elif offset is None:
                d_scale = d_scale + _total(grad, y, scale) / scale
            elif offset.shape == scale.shape:
                d_scale = d_scale + (_total(grad, y, scale) - offset * _summed(grad, offset)) / scale
            else:
                d_scale = d_scale + _total(grad, y - offset, scale) / scale
        if offset is not None and need[2]:
            d_offset = (
                _summed(grad, offset) - _summed(passed, offset)
                if spec.rescale
                else -_summed(passed, offset) * per
                if scale.numel() == 1
                else -_summed(passed * per, offset)
            )
        if need[0]:
            if not spec.rescale:
                passed = passed * per if passed is grad else passed.mul_(per)
            d_x = passed.to(dtype)
        return _Gradients(d_x, d_scale, d_offset, d_border)

    def _by_cell(
        self, v: Tensor, inside: Tensor, per: Tensor, scale: Tensor, dtype: torch.dtype
    ) -> _Gradients:
        """Return the gradients where a cell has one slope; the scale's from the sums of the cells."""
        knots, need = self.book.knots, self.need
        cell = self._cell(v)
        _, moment = self._gather(inside, v, cell)
        slopes, per = self.book.levels.diff() / knots.diff(), per.reshape(())
        d_scale = -((slopes * moment).sum() * per).view(scale.shape) if need[1] else None
        d_x = inside.mul_(_pick(v, cell, knots, slopes * per)).to(dtype) if need[0] else None
        return _Gradients(d_x, d_scale, None, None)

    def _cell(self, v: Tensor) -> Tensor:
        """Return the cell between two knots that each v lies in, whole numbers from 0."""
        inner = self.book.knots[1:-1]
        return count_below(v, inner) if self.cells is None else laid_out(self.cells, v)

    def _gather(self, inside: Tensor, v: Tensor, cell: Tensor) -> Tensor:
        """Return this part's sums of g and of g v over each cell, and keep them for the knots."""
        found = _cell_sums(inside, v, cell, self.book.knots.numel() - 1)
        self.sums = found if self.sums is None else self.sums + found
        return found

    def _slope(self, v: Tensor, inside: Tensor) -> Tensor | float | None:
        """Return the surrogate's slope at v (None for 1, else a fresh tensor); gather the knots' sums."""
        spec, knots, levels = self.spec, self.book.knots, self.book.levels
        slope: Tensor | float | None = spec.gap if spec.unit and spec.mapped else None
        cell = None
        if self.searched:
            cell = self._cell(v)
            if spec.mapped:
                slope = _pick(v, cell, knots, levels.diff() / knots.diff())
            if self.need[3]:
                self._gather(inside, v, cell)
        if spec.coth is None:
            return slope
        g, a = spec.coth
        if spec.unit:
            t = v.frac() if spec.lo >= 0 else v.floor().neg_().add_(v)
            t = _without_nan(t)  # NaN * 0 would be NaN
            return _coth(t.sub_(0.5).abs_(), g if slope is None else g * slope, a)
        t = (v - _pick(v, cell, knots, knots[:-1])).div_(_pick(v, cell, knots, knots.diff()))
        coth = _coth(t.sub_(0.5).abs_(), g, a)
        return coth if slope is None else coth.mul_(slope)

    def _d_gain(
        self,
        x: Tensor,
        grad: Tensor,
        y: Tensor | None,
        scale: Tensor,
        offset: Tensor | None,
        border: Tensor | None,
    ) -> Tensor:
        """Return the gradient of the gain: the sum of g times the level."""
        if y is not None:
            return _total(grad, y, self.gain) / self.gain
        level = _forward(x, scale, offset, border, self.book, self.b, None, self.spec)
        return _total(grad, level, self.gain)

    def _per_border(self, inside: Tensor, scale: Tensor) -> Tensor:
        """Return the gradient of the border of each element: a higher one lowers the result by one step."""
        if self.spec.rescale:
            return inside * -scale
        return -inside if self.gain is None else inside * -self.gain

    def _d_coefficients(self, v: Tensor, grad: Tensor) -> Tensor:
        """Return the gradient of b0, b1 and b2 from that of B: the sums of g B (1 - B) v^i."""
        lo, hi = self.spec.lo, self.spec.hi
        share = _share(v, self.spec)
        border = _border(share, self.b, self.spec)
        kept = torch.lt(border, top_border(border.dtype, lo, hi), out=torch.empty_like(border))
        g = grad.mul_(kept).mul_(border).mul_(border.neg_().add_(1.0))
        first = g * share
        like = self.b[0]
        return torch.stack([_summed(g, like), _summed(first, like), _total(first, share, like)])

    def knots(self, scale: Tensor) -> Tensor:
        """Return the gradient of the knots from two sums a cell, of g and of g v; each cell has two knots."""
        knots, levels = self.book.knots, self.book.levels
        total, moment = self.sums
        gap = knots.diff()
        upper = (moment - knots[:-1] * total) / gap  # sum of g t
        slope = levels.diff() / gap
        zero = slope.new_zeros(1)
        found = torch.cat([slope * (upper - total), zero]) - torch.cat([zero, slope * upper])
        if self.spec.rescale:
            return found * scale
        return found if self.gain is None else found * self.gain


def _without_nan(t: Tensor) -> Tensor:
    """Return t, overwritten, with 1/2 for NaN: whichever spelling is fast."""
    return torch.where(t == t, t, 0.5) if torch.compiler.is_compiling() else t.nan_to_num_(0.5)


def _coth(z: Tensor, g: float, a: float) -> Tensor:
    """Return g coth(z + a) = g (1 + 2 / (exp(2 (z + a)) - 1)); z is overwritten."""
    # exp - 1 loses the digits that it cancels; expm1, which keeps them, is slow and does not vectorise
    grown = z.mul_(2.0).add_(2.0 * a)
    grown = grown.exp_().sub_(1.0) if a > 0.05 else grown.expm1_()
    return grown.reciprocal_().mul_(2.0 * g).add_(g)


def _summed(a: Tensor, like: Tensor) -> Tensor:
    """Return the sum of a over the axes that ``like`` is broadcast along."""
    if like.numel() > 1:
        return a.sum_to_size(like.shape)
    if torch.compiler.is_compiling() and a.ndim == 4 and a.numel() > PART:  # joins a BatchNorm's loops
        a = a.sum((0, 2, 3))
    return a.sum().view(like.shape)


def _total(a: Tensor, b: Tensor, like: Tensor) -> Tensor:
    """Return the sum of a * b over the axes that ``like`` is broadcast along."""
    if like.numel() == 1:
        vectors = flat(a, b)
        if vectors is not None:
            return torch.dot(*vectors).view(like.shape)
    return _summed(a * b, like)


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


def _pick(v: Tensor, cell: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Return values[cell], one for each cell."""
    return select(v, knots[1:-1], values) if torch.compiler.is_compiling() else take(values, cell)


def _spread(index: Tensor, cells: int) -> Tensor:
    """Return the bin of each value, int32: its cell in one of LANES copies of the cells, in turn.

    After a ReLU most values share a cell, and in one bin each sum would wait for the last.

    Args:
        index: the cells, whole numbers, (n,).
        cells: how many there are.
    """
    index = index.int()
    length = index.numel() if torch.compiler.is_compiling() else TILE
    tile = torch.arange(length, dtype=torch.int32, device=index.device).bitwise_and_(LANES - 1).mul_(cells)
    if torch.compiler.is_compiling():  # fuses it with what follows
        return index + tile
    bins, end = torch.empty_like(index), index.numel() - index.numel() % TILE
    torch.add(index[:end].view(-1, TILE), tile, out=bins[:end].view(-1, TILE))
    torch.add(index[end:], tile[: index.numel() - end], out=bins[end:])
    return bins


def _cell_sums(inside: Tensor, v: Tensor, cell: Tensor, cells: int) -> Tensor:
    """Return the sums of g and of g v over each cell, shape (2, cells)."""
    moment = inside * v
    index, first, moment = flat(cell, inside, moment) or [t.reshape(-1) for t in (cell, inside, moment)]
    index, bins = _spread(index, cells), cells * LANES
    if torch.compiler.is_compiling():  # bincount does not compile
        zeros, index = inside.new_zeros(bins), index.long()
        sums = [zeros.scatter_add(0, index, first), zeros.scatter_add(0, index, moment)]
    else:
        sums = [torch.bincount(index, first, bins), torch.bincount(index, moment, bins)]
    return torch.stack([a.view(LANES, cells).sum(0) for a in sums]).to(v.dtype)


def logits(v: Tensor, b: Tensor) -> Tensor:
    """Return b0 + v (b1 + b2 v) by Horner's rule; b is (3, …), broadcastable against v."""
    return (v * b[2] + b[1]) * v + b[0]


def top_border(dtype: torch.dtype, lo: float, hi: float) -> float:
    """Return the largest border that keeps whole numbers: above it, n - B would round to n - 1."""
    return 1.0 - 2.0 * (max(abs(lo), abs(hi)) + 1.0) * torch.finfo(dtype).eps


def squash(z: Tensor, lo: float, hi: float) -> Tensor:
    """Return sigmoid(z), kept below :func:`top_border`."""
    return torch.sigmoid(z).clamp(max=top_border(z.dtype, lo, hi))
