"""The quantizer: codes, values, gradients, the probe, and what it refuses."""

import copy
import dataclasses
import io
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qviz import (
    MSE,
    CellBorder,
    Codebook,
    Fixed,
    MinMax,
    Percentile,
    Probe,
    Quantizer,
    StraightThrough,
    Surrogate,
    apot,
    post,
    pot,
    probe,
    recipes,
    uniform,
)
from tests import oracles
from tests.benchmarks.bench_lookup_memory import bound, peak_bytes_per_element
from tests.strategies import BOOKS, FEW, MORE, books, same_bits, scales, steps_around, tensors

# Each builder at its fewest and its most bits; the bit widths between them are slow.
ENDS = {
    f"{kind}{bits}" for kind in ("uniform", "unsigned", "narrow", "apot", "pot", "post") for bits in (1, 2, 8)
}
ENDS |= {f"{kind}{bits}-paper" for kind in ("pot", "post") for bits in (2, 7)}
KNOTS_ARE_LEVELS = [n if n in ENDS else pytest.param(n, marks=pytest.mark.slow) for n in BOOKS] + ["custom"]
EVERY = [*KNOTS_ARE_LEVELS, "levels apart"]


def book_called(name):
    if name == "custom":
        return Codebook([-2.0, -1.9, 0.1, 0.3, 7.0])
    return Codebook([-2.0, -1.9, 0.1, 7.0], [-1.0, 0.25, 0.3, 2.0]) if name == "levels apart" else BOOKS[name]


def compute_dtype(x):
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def roundings(book):
    """Nearest, and borders that are not the midpoints."""
    return [None, CellBorder(book, book.knots[:-1] + 0.3 * book.knots.diff())]


# --- the definition ----------------------------------------------------------------------------------------


@given(books(), tensors(), scales(), st.sampled_from([None, 0.0, 0.75]))
@MORE
def test_codes_and_values_are_the_oracles(book, x, scale, offset):
    q = Quantizer(book, range=Fixed(scale, offset))
    compute = compute_dtype(x)
    o = 0.0 if offset is None else offset
    u = (x.to(compute) - torch.tensor(o, dtype=compute)) / torch.tensor(scale, dtype=compute)
    expected = torch.from_numpy(oracles.codes(u.double().numpy(), book.borders.to(compute).tolist()))
    last_below_half = torch.nextafter(torch.tensor(-0.5, dtype=compute), torch.tensor(0.0, dtype=compute))
    settled = u != last_below_half  # integers are rounded by ceil(u - 1/2), which differs for this one float
    codes = q.codes(x)
    assert codes.dtype == torch.uint8
    assert torch.equal(codes.long()[settled], expected[settled])
    y = oracles.dequantize(codes.numpy(), book.levels.tolist(), scale, o)
    error = (
        q(x).double() - torch.from_numpy(y).clamp(-torch.finfo(x.dtype).max, torch.finfo(x.dtype).max)
    ).abs()
    unit = torch.finfo(x.dtype).eps * (abs(o) + scale * float(book.levels.abs().max()))
    assert float(error.max()) <= 2 * unit + torch.finfo(x.dtype).smallest_normal


@given(books(), tensors(), st.sampled_from(["fixed", "affine", "minmax", "mse", "percentile"]), st.data())
@MORE
def test_q_is_dequantize_of_codes(book, x, kind, data):
    rounding = data.draw(st.sampled_from([0, 1]))
    axis = data.draw(st.sampled_from([None, *range(-x.ndim, x.ndim)]))
    range_ = {
        "fixed": lambda: Fixed(data.draw(scales())),
        "affine": lambda: MinMax(axis=axis, symmetric=False),
        "minmax": lambda: MinMax(axis=axis),
        "mse": lambda: MSE(axis=axis),
        "percentile": lambda: Percentile(90.0, axis=axis),
    }[kind]()
    q = Quantizer(book, roundings(book)[rounding], range=range_).observe(x)
    before = x.clone()
    codes = q.codes(x)
    assert codes.dtype == torch.uint8
    assert codes.shape == x.shape
    assert int(codes.max()) < len(book)
    with torch.no_grad():
        y = q(x)
    assert torch.equal(q.dequantize(codes, x.dtype), y)
    assert torch.equal(q.dequantize(codes.long(), dtype=x.dtype), y)
    assert torch.equal(q(x.clone().requires_grad_()).detach(), y)
    assert torch.equal(x, before)


def allowed(q, x):
    """levels · scale (+ offset), computed as wide as the quantizer computes, in the dtype of x."""
    compute = compute_dtype(x)
    scale, offset = q.range(x.to(compute))
    values = q.codebook.levels.to(compute) * scale
    return (values if offset is None else values + offset).to(x.dtype)


@given(books(), tensors(), scales(), st.booleans(), st.booleans())
@MORE
def test_outputs_are_levels_exactly_on_both_paths(book, x, scale, clipped, affine):
    q = Quantizer(book, range=Fixed(scale, 0.3 if affine else None), surrogate=StraightThrough(clipped))
    with torch.no_grad():
        short = q(x)
    long = q(x.clone().requires_grad_()).detach()
    assert same_bits(short, long)
    assert bool(torch.isin(short, allowed(q, x)).all())


@pytest.mark.parametrize("name", EVERY)
def test_both_paths_agree_around_every_border(name):
    for dtype, scale in itertools.product([torch.float32, torch.float64], [1.0, 0.37]):
        book = book_called(name)
        for rounding in roundings(book):
            q = Quantizer(book, rounding, range=Fixed(scale))
            x = steps_around(q.rounding.borders(book).to(dtype) * torch.tensor(scale, dtype=dtype), 40)
            short = q(x)
            assert same_bits(short, q(x.clone().requires_grad_()).detach())
            assert torch.equal(short, q.dequantize(q.codes(x), dtype))
            assert bool(torch.isin(short, allowed(q, x)).all())
            if scale == 1.0 and not book.unit:
                assert torch.equal(
                    q.codes(x)[:, :41].long(), torch.arange(len(book) - 1)[:, None].expand(-1, 41)
                )


def test_there_is_no_scale_before_anything_was_observed():
    x = torch.linspace(0.0, 1.0, 50)
    for q in (Quantizer(uniform(3)), recipes.lsq(3), recipes.pact_activation(3), recipes.daq_activation(3)):
        assert q.scale is None
        assert q.observe(x).scale > 0


@pytest.mark.parametrize("name", ["uniform1", "uniform4", "unsigned8", "post4", "pot8", "apot8", "custom"])
def test_ties_go_down(name):
    for dtype in [torch.bfloat16, torch.float16, torch.float32, torch.float64]:
        book = book_called(name)
        ties = book.borders * 0.5
        exact = ties.to(dtype).double() == ties
        codes = Quantizer(book, range=Fixed(0.5)).codes(ties.to(dtype))
        assert torch.equal(codes.long()[exact], torch.arange(len(book) - 1)[exact])


@pytest.mark.parametrize("book", [uniform(8), apot(8)])
def test_x_is_divided_by_the_scale(book):
    """x · (1 / s) would send values on a border, and near it, elsewhere."""
    for scale in np.linspace(0.01, 0.99, 12, dtype=np.float32):
        x = book.borders.numpy().astype(np.float32) * scale
        expected = oracles.codes(x / scale, book.borders.numpy().astype(np.float32).tolist())
        codes = Quantizer(book, range=Fixed(float(scale))).codes(torch.from_numpy(x))
        assert codes.tolist() == expected.tolist()


@pytest.mark.parametrize("name", KNOTS_ARE_LEVELS)
def test_quantizing_twice_changes_nothing(name):
    for dtype in [torch.float16, torch.bfloat16, torch.float32, torch.float64]:
        book = book_called(name)
        x = torch.randn(400, generator=torch.Generator().manual_seed(0)).to(dtype)
        q = Quantizer(book, range=Fixed(0.5))
        assert torch.equal(q(q(x)), q(x))


def test_symmetric_grids_are_odd_away_from_ties_and_scale_with_x():
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    for book in (post(4), pot(3), apot(5), uniform(4, narrow=True)):
        q = Quantizer(book, range=Fixed(0.75))
        assert torch.equal(q(-x), -q(x))
        assert torch.equal(Quantizer(book, range=Fixed(3.0))(4 * x), 4 * q(x))


# --- worked numbers ----------------------------------------------------------------------------------------

WORKED = [-2.0, -0.6, -0.04, 0.05, 0.3, 0.43, 0.9, 1.3]


def test_post_with_the_papers_four_bit_grid():
    q = Quantizer(post(4, grid="paper"), range=Fixed(1.0))
    y = q(torch.tensor(WORKED, dtype=torch.float64))
    assert y.tolist() == pytest.approx([-1, -0.5, 0, 0.088388, 0.25, 0.5, 1, 1], abs=5e-7)


def test_the_strict_grid_sends_five_hundredths_to_zero():
    y = Quantizer(post(4), range=Fixed(1.0))(torch.tensor(WORKED, dtype=torch.float64))
    assert y.tolist() == pytest.approx([-1, -0.5, 0, 0, 0.25, 0.5, 1, 1], abs=1e-12)


def test_d_alpha_follows_from_what_the_probe_shows():
    q = Quantizer(post(4, grid="paper"), range=Fixed(1.0))
    p = probe(q, torch.tensor(WORKED, dtype=torch.float64))
    inside = p.dydx
    d_alpha = p.hard - inside * p.u
    expected = [-1, 0.1, 0.04, 0.038388, -0.05, 0.07, 0.1, 1]
    assert d_alpha.tolist() == pytest.approx(expected, abs=5e-7)


# --- gradients ---------------------------------------------------------------------------------------------


def slope(q, x):
    x = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(q(x).sum(), x)
    return grad


@given(books(), tensors(), scales(), st.booleans(), st.booleans())
@MORE
def test_slopes_are_the_straight_through_estimators(book, x, scale, clipped, affine):
    if not book.identity or len(book) == 1:
        return
    offset = 0.25 if affine else None
    q = Quantizer(book, range=Fixed(scale, offset), surrogate=StraightThrough(clipped))
    compute = compute_dtype(x)
    u = (x.to(compute) - (offset or 0.0)) / torch.tensor(scale, dtype=compute)
    low, high = (float(v) for v in book.knots.to(compute)[[0, -1]])
    expected = torch.from_numpy(oracles.ste_slope(u.double().numpy(), low, high, clipped=clipped))
    grad = slope(q, x)
    assert grad.dtype == x.dtype
    assert float((grad.double() - expected).abs().max()) <= 8 * torch.finfo(compute).eps


@pytest.mark.parametrize("name", KNOTS_ARE_LEVELS)
def test_the_end_knots_are_inside(name):
    for clipped, dtype in itertools.product([True, False], [torch.bfloat16, torch.float32, torch.float64]):
        book = book_called(name)
        q = Quantizer(book, range=Fixed(0.5), surrogate=StraightThrough(clipped))
        ends = (book.knots[[0, -1]] * 0.5).to(dtype)
        assert slope(q, ends).tolist() == pytest.approx([1.0, 1.0], abs=1e-6)
        beyond = torch.stack([ends[0] * 2 - 1, ends[1] * 2 + 1])
        assert slope(q, beyond).tolist() == pytest.approx([0.0, 0.0] if clipped else [1.0, 1.0], abs=1e-6)


def test_zero_after_a_relu_has_slope_exactly_one():
    q = Quantizer(uniform(4, signed=False), range=Fixed(0.1))
    assert slope(q, torch.zeros(5)).tolist() == [1.0] * 5
    x = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
    (grad,) = torch.autograd.grad(q(torch.relu(x)).sum(), x)
    assert grad.tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("name", ["uniform4", "unsigned2", "post4", "apot8", "levels apart"])
def test_no_nan_at_infinity(name):
    for clipped, dtype in itertools.product([True, False], [torch.float16, torch.float32, torch.float64]):
        book = book_called(name)
        top = float(book.levels[-1])
        x = torch.tensor([-math.inf, math.inf, torch.finfo(dtype).max], dtype=dtype)
        q = Quantizer(book, range=Fixed(1.0), surrogate=StraightThrough(clipped))
        expected = torch.tensor([float(book.levels[0]), top, top]).to(dtype)
        for y in (q(x), q(x.clone().requires_grad_()).detach()):
            assert torch.equal(y, expected)
        grad = slope(q, x)
        assert not grad.isnan().any()
        assert grad[2] == (0.0 if clipped else 1.0)
        assert bool((grad == 0).logical_or(grad == (0.0 if clipped else 1.0)).all())


def test_levels_apart_from_knots_have_the_slope_of_their_cell():
    book = Codebook([0.0, 1.0, 3.0], [0.0, 2.0, 2.5])
    q = Quantizer(book, range=Fixed(2.0))
    assert slope(q, torch.tensor([0.6, 4.0, -1.0, 9.0])).tolist() == pytest.approx([2.0, 0.25, 0.0, 0.0])


@pytest.mark.parametrize(
    ("axis", "expected"),
    [(0, [[0.0, 1.0], [1.0, 0.0]]), (1, [[0.0, 1.0], [0.0, 0.0]]), (-1, [[0.0, 1.0], [0.0, 0.0]])],
)
def test_slopes_per_channel(axis, expected):
    x = torch.tensor([[-0.9, 0.4], [0.6, 2.5]])
    q = Quantizer(post(3), range=Fixed(torch.tensor([0.5, 2.0]), axis=axis))
    assert slope(q, x).tolist() == expected


def test_a_gradient_flows_on_to_what_made_x():
    w = torch.randn(5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    Quantizer(uniform(4), range=Fixed(1.0))(2 * w).sum().backward()
    assert w.grad.tolist() == [2.0] * 5


def test_no_graph_is_kept_where_none_is_wanted():
    x = torch.ones(3, requires_grad=True)
    q = Quantizer(post(4), range=Fixed(1.0))
    with torch.no_grad():
        assert not q(x).requires_grad
    assert not q(x.detach()).requires_grad
    assert q(x).requires_grad
    assert not q.codes(x).requires_grad


class Cubed(Surrogate):
    """A slope that is not 1."""

    def relax(self, t):
        return t**3


def test_a_surrogate_of_the_users_own():
    q = Quantizer(uniform(3), range=Fixed(1.0), surrogate=Cubed())
    x = torch.tensor([0.25, 1.5, 2.75, 9.0])
    assert q(x).tolist() == [0.0, 1.0, 3.0, 3.0]
    assert slope(q, x).tolist() == pytest.approx([3 * 0.25**2, 3 * 0.5**2, 3 * 0.75**2, 0.0])


# --- a soft forward pass -----------------------------------------------------------------------------------


@given(books(), tensors(dtypes=(torch.float32, torch.float64), kinds=("normal", "ties", "zeros")))
@FEW
def test_soft_returns_the_relaxed_value(book, x):
    q = Quantizer(book, range=Fixed(0.5), soft=True)
    if not book.identity:
        return
    expected = x.clamp(0.5 * book.knots[0].to(x.dtype), 0.5 * book.knots[-1].to(x.dtype))
    for y in (q(x), q(x.clone().requires_grad_()).detach()):
        assert y.dtype == x.dtype
        assert torch.allclose(y, expected, rtol=1e-5, atol=1e-6 * max(1.0, book.reach))


def test_soft_with_a_surrogate_that_bends():
    q = Quantizer(uniform(3), range=Fixed(2.0), surrogate=Cubed(), soft=True)
    x = torch.tensor([0.5, -0.5, 99.0, math.nan])
    assert q(x)[:3].tolist() == pytest.approx([2 * 0.25**3, 2 * (0.75**3 - 1), 6.0])
    assert q(x)[3].isnan()
    assert "soft" in repr(q)
    assert q.codes(x[:3]).tolist() == [4, 4, 7]


# --- the probe ---------------------------------------------------------------------------------------------


@given(books(), tensors(), scales(), st.booleans())
@MORE
def test_the_probe_shows_what_the_quantizer_does(book, x, scale, affine):
    if len(book) == 1:
        return
    q = Quantizer(book, range=Fixed(scale, 0.25 if affine else None))
    before = x.clone()
    p = probe(q, x)
    assert isinstance(p, Probe)
    for field in dataclasses.fields(p):
        value = getattr(p, field.name)
        assert value.shape == x.shape, field.name
        assert not value.requires_grad, field.name
    compute = compute_dtype(x)
    levels = book.levels.to(compute)
    assert torch.equal(p.x, x)
    assert torch.equal(p.y, q(x))
    assert p.up.dtype == torch.bool
    code = p.cell + p.up.long()
    assert torch.equal(code, q.codes(x).long())
    assert torch.equal(p.hard, levels[code])
    assert bool(((p.t >= 0) & (p.t <= 1)).all())
    low, high = levels[p.cell], levels[p.cell + 1]
    # t carries half an ulp of the cell's width, low + t (high − low) the ulps of low and high
    bound = 4 * torch.finfo(compute).eps * (low.abs() + high.abs())
    assert bool(((p.soft - (low + p.t * (high - low))).abs() <= bound).all())
    assert same_bits(p.dydx, slope(q, x))
    assert torch.equal(x, before)


def test_the_probe_takes_arrays_and_tensors_that_want_gradients():
    q = Quantizer(post(3), range=Fixed(1.0))
    x = torch.tensor([0.3, -2.0], requires_grad=True)
    p = probe(q, x)
    assert x.grad is None
    assert probe(q, x.detach().numpy()).y.tolist() == p.y.tolist()
    with torch.no_grad():
        assert probe(q, x).dydx.tolist() == [1.0, 0.0]


def test_the_probe_leaves_parameters_without_gradient():
    q = Quantizer(post(3), range=Fixed(1.0))
    q.surrogate.register_parameter("bend", torch.nn.Parameter(torch.ones(())))
    probe(q, torch.tensor([0.3]))
    assert q.surrogate.bend.grad is None


def test_the_probe_keeps_nan_in_sight():
    p = probe(Quantizer(post(3), range=Fixed(1.0)), torch.tensor([math.nan, 0.3]))
    assert p.u[0].isnan()
    assert p.t[0].isnan()
    assert p.y[0].isnan()
    assert not p.y[1].isnan()


# --- per channel -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -2, -4])
def test_each_channel_is_quantized_as_if_alone(axis):
    for book in [uniform(4), post(4), apot(8)]:
        x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * 3
        channels = torch.linspace(0.2, 1.7, x.shape[axis])
        q = Quantizer(book, range=Fixed(channels, axis=axis))
        y, codes = q(x), q.codes(x)
        for i, part in enumerate(x.unbind(axis)):
            alone = Quantizer(book, range=Fixed(float(channels[i])))
            assert torch.equal(y.select(axis, i), alone(part))
            assert torch.equal(codes.select(axis, i), alone.codes(part))
        assert torch.equal(q.dequantize(codes), y)
        assert torch.equal(q(x.clone().requires_grad_()).detach(), y)


def test_offsets_per_channel():
    x = torch.randn(3, 50, generator=torch.Generator().manual_seed(0)) + torch.tensor([[0.0], [5.0], [-9.0]])
    q = Quantizer(uniform(8, signed=False), range=MinMax(axis=0, symmetric=False)).observe(x)
    assert float((q(x) - x).abs().max()) <= float(q.range.scale.max()) / 2 + 1e-5
    assert torch.equal(q.dequantize(q.codes(x)), q(x))


def test_refuses_a_wrong_channel_count_and_a_missing_axis():
    q = Quantizer(uniform(4), range=Fixed(torch.ones(3), axis=1))
    for call in (q, q.codes, lambda x: probe(q, x), lambda x: q.dequantize(x.to(torch.uint8))):
        with pytest.raises(ValueError, match=r"\(2, 4\).*3"):
            call(torch.ones(2, 4))
        with pytest.raises(ValueError, match=r"1.*\(3,\)"):
            call(torch.ones(3))


# --- what tensors look like --------------------------------------------------------------------------------


@given(books(), tensors(finite=False), scales(), st.booleans())
@MORE
def test_shape_dtype_nan_and_infinities(book, x, scale, wants_grad):
    q = Quantizer(book, range=Fixed(scale))
    before = x.clone()
    y = q(x.clone().requires_grad_()).detach() if wants_grad else q(x)
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    assert torch.equal(y.isnan(), x.isnan())
    values = allowed(q, x)
    assert bool((y[x == math.inf] == values[-1]).all())
    assert bool((y[x == -math.inf] == values[0]).all())
    assert same_bits(x, before)


@pytest.mark.parametrize("name", ["uniform4", "unsigned8", "post4", "apot8", "levels apart"])
def test_dense_layouts_are_kept(name):
    for wants_grad in [False, True]:
        q = Quantizer(book_called(name), range=Fixed(0.5))
        g = torch.Generator().manual_seed(0)
        x4, x5 = torch.randn(2, 3, 4, 5, generator=g), torch.randn(2, 3, 4, 5, 2, generator=g)
        layouts = [
            x4,
            x4.contiguous(memory_format=torch.channels_last),
            x5.contiguous(memory_format=torch.channels_last_3d),
            x4[0, 0].t(),
            x4.permute(3, 1, 0, 2),
        ]
        for x in layouts:
            y = q(x.requires_grad_()) if wants_grad else q(x.detach())
            assert y.stride() == x.stride()
            assert torch.equal(y.detach(), q(x.detach().contiguous()))
            assert torch.equal(q.codes(x), q.codes(x.contiguous()))


@pytest.mark.parametrize("name", ["uniform4", "post4", "apot8"])
def test_a_view_of_one_value_is_quantized_but_not_written(name):
    x = torch.tensor([0.3]).expand(1000)
    assert torch.equal(
        Quantizer(BOOKS[name], range=Fixed(0.5))(x), Quantizer(BOOKS[name], range=Fixed(0.5))(x.clone())
    )
    assert x[0] == 0.3


@pytest.mark.parametrize("as_type", [list, tuple, np.array])
def test_lists_and_arrays_are_taken_too(as_type):
    q = Quantizer(pot(4), range=Fixed(1.0))
    assert q(as_type([0.3, -2.0])).tolist() == [0.25, -1.0]
    assert q.codes(as_type([0.3, -2.0])).tolist() == [12, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("axis", [None, 0])
def test_half_precision_is_computed_in_float32(dtype, axis):
    x = (torch.randn(64, 64, generator=torch.Generator().manual_seed(0)) * 5).to(dtype)
    scale = 0.137 if axis is None else torch.linspace(0.1, 0.9, 64)
    for book in (uniform(8), apot(8), post(4)):
        q = Quantizer(book, range=Fixed(scale, axis=axis))
        assert torch.equal(q.codes(x), q.codes(x.float()))
        assert torch.equal(q(x), q(x.float()).to(dtype))


def test_a_knot_alone_takes_everything():
    q = Quantizer(Codebook([0.5]), range=Fixed(2.0))
    x = torch.tensor([-9.0, 1.0, math.inf, math.nan])
    for y in (q(x), q(x.clone().requires_grad_()).detach()):
        assert y[:3].tolist() == [1.0] * 3
        assert y[3].isnan()
    assert not slope(q, x).isnan()[:3].any()
    assert q.codes(x[:3]).tolist() == [0] * 3


# --- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "error", "received"),
    [
        (torch.empty(0, 3), ValueError, r"\(0, 3\)"),
        (torch.arange(3), TypeError, "int64"),
        (torch.ones(3, dtype=torch.bool), TypeError, "bool"),
        (torch.ones(3, dtype=torch.complex64), TypeError, "complex64"),
        (np.arange(3, dtype=np.int32), TypeError, "int32"),
        (None, TypeError, "NoneType"),
        ("weights", TypeError, "str"),
        (0.5, TypeError, "float"),
    ],
)
def test_refuses_what_is_no_float_tensor(x, error, received):
    for method in ["__call__", "codes", "observe", "probe"]:
        for range_ in (Fixed(1.0), MSE().observe(torch.ones(3), post(4))):
            q = Quantizer(post(4), range=range_)
            if method == "observe" and isinstance(range_, Fixed):
                continue
            with pytest.raises(error, match=received):
                probe(q, x) if method == "probe" else getattr(q, method)(x)


def test_no_code_stands_for_nan():
    with pytest.raises(ValueError, match="2 of 3"):
        Quantizer(post(4), range=Fixed(1.0)).codes(torch.tensor([math.nan, 1.0, math.nan]))


@pytest.mark.parametrize(
    ("codes", "error", "received"),
    [
        (torch.tensor([3, 15]), ValueError, "15"),
        (torch.tensor([-1, 2]), ValueError, "-1"),
        (torch.tensor([255], dtype=torch.uint8), ValueError, "255"),
        (torch.tensor([1.0]), TypeError, "float32"),
        (torch.tensor([True]), TypeError, "bool"),
        (torch.empty(0, dtype=torch.uint8), ValueError, r"\(0,\)"),
        ([1, 2], TypeError, "list"),
        (None, TypeError, "NoneType"),
    ],
)
def test_dequantize_refuses_what_is_no_code(codes, error, received):
    with pytest.raises(error, match=received):
        Quantizer(post(4), range=Fixed(1.0)).dequantize(codes)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.bool])
def test_dequantize_refuses_a_dtype_that_holds_no_fractions(dtype):
    with pytest.raises(TypeError, match=str(dtype)):
        Quantizer(post(4), range=Fixed(1.0)).dequantize(torch.tensor([1]), dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_dequantize_takes_any_integer_dtype(dtype):
    q = Quantizer(pot(4), range=Fixed(1.0))
    codes = torch.tensor([[14, 7], [0, 12]]).to(dtype)
    before = codes.clone()
    assert q.dequantize(codes.t()).tolist() == [[1.0, -1.0], [0.0, 0.25]]
    assert torch.equal(codes, before)
    assert q.dequantize(codes, torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        ({"codebook": [0.0, 1.0]}, "list"),
        ({"codebook": post(3), "rounding": "nearest"}, "str"),
        ({"codebook": post(3), "range": 1.0}, "float"),
        ({"codebook": post(3), "surrogate": True}, "bool"),
    ],
)
def test_refuses_what_is_no_part(arguments, received):
    with pytest.raises(TypeError, match=received):
        Quantizer(**arguments)


def test_needs_calibration_and_says_so():
    q = Quantizer(post(4))
    for call in (q, q.codes, lambda x: probe(q, x), lambda x: q.dequantize(x.to(torch.uint8))):
        with pytest.raises(RuntimeError, match="observe"):
            call(torch.ones(3))


def test_observe_returns_the_quantizer_and_leaves_x_alone():
    x = torch.randn(100, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    q = Quantizer(post(4))
    assert isinstance(q.range, MSE)
    assert q.observe(x) is q
    assert torch.equal(x, before)
    assert same_bits(Quantizer(post(4)).observe(x.numpy())(x), q(x))


def test_observe_with_nan_leaves_the_state_as_it_was():
    x = torch.randn(100, generator=torch.Generator().manual_seed(0))
    q = Quantizer(post(4)).observe(x)
    before = copy.deepcopy(q.state_dict())
    x[3] = math.nan
    with pytest.raises(ValueError, match="1 of 100"):
        q.observe(x)
    assert q.state_dict().keys() == before.keys()
    assert all(torch.equal(q.state_dict()[k], before[k]) for k in before)


# --- as a module -------------------------------------------------------------------------------------------

MAKERS = {
    "per tensor": lambda: Quantizer(post(4)),
    "per channel": lambda: Quantizer(post(4), range=MSE(axis=0)),
    "affine per channel": lambda: Quantizer(uniform(4), range=MinMax(axis=-1, symmetric=False)),
    "log borders": lambda: Quantizer(post(4), CellBorder.logarithmic(post(4)), range=Percentile(99.0)),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_state_dict_round_trip_into_a_fresh_quantizer(kind):
    x = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    saved, fresh = MAKERS[kind]().observe(x), MAKERS[kind]()
    buffer = io.BytesIO()
    torch.save(saved.state_dict(), buffer)
    buffer.seek(0)
    fresh.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(fresh(x), saved(x))
    assert torch.equal(fresh.codes(x), saved.codes(x))
    assert fresh.state_dict().keys() == saved.state_dict().keys()


@pytest.mark.parametrize("kind", MAKERS)
def test_state_dict_inside_a_larger_module(kind):
    x = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    saved = torch.nn.Sequential(torch.nn.Linear(9, 9), MAKERS[kind]().observe(x))
    fresh = torch.nn.Sequential(torch.nn.Linear(9, 9), MAKERS[kind]())
    fresh.load_state_dict(saved.state_dict())
    assert torch.equal(fresh(x), saved(x))


@pytest.mark.parametrize("kind", MAKERS)
def test_casts_keep_float64_and_the_result(kind):
    for cast in ["half", "bfloat16", "double"]:
        x = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
        q = MAKERS[kind]().observe(x)
        before = q(x)
        getattr(q, cast)()
        assert {v.dtype for v in q.buffers()} == {torch.float64}
        assert torch.equal(q(x), before)


@pytest.mark.parametrize("kind", MAKERS)
def test_an_uncalibrated_quantizer_can_be_moved_and_cast(kind):
    x = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    expected = MAKERS[kind]().observe(x)(x)
    for move in (lambda q: q.to("cpu"), lambda q: q.half(), lambda q: q.double(), lambda q: q.cpu()):
        assert torch.equal(move(MAKERS[kind]()).observe(x)(x), expected)


@pytest.mark.parametrize("kind", MAKERS)
def test_deepcopy_is_independent(kind):
    x = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    q = MAKERS[kind]().observe(x)
    q(x.clone().requires_grad_()).sum().backward()
    twin = copy.deepcopy(q)
    before = q(x)
    assert torch.equal(twin(x), before)
    twin.observe(100 * x)
    assert torch.equal(q(x), before)


def test_there_is_nothing_to_train_in_it():
    assert list(Quantizer(post(4)).parameters()) == []


# --- memory ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["uniform8", "unsigned4", "pot8", "post4", "post7-paper", "apot8", "custom"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_peak_memory_is_at_most_sixteen_bytes_an_element(name, dtype):
    q = Quantizer(book_called(name), range=Fixed(0.5))
    x = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert bound(x.numel()) < 16.1
    # less than the result itself would be no measurement
    assert x.element_size() <= peak_bytes_per_element(q, x) <= bound(x.numel())
    assert 1 <= peak_bytes_per_element(q.codes, x) <= bound(x.numel())


# --- the straight-through sum


@pytest.mark.parametrize("name", ["uniform8", "pot8", "post4", "post7-paper", "apot8", "custom"])
def test_the_composition_reads_out_levels_and_nothing_beside_them(name):
    # (hard + soft) - soft and soft + (hard - soft) are a unit in the last place off now and then
    book = book_called(name)
    x = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    y = Quantizer(book, range=Fixed(1.0)).reference(x.requires_grad_(True)).detach()
    assert torch.isin(y, book.levels.float()).all()
