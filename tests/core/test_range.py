"""Static ranges against numpy and dense scans, and what they refuse."""

import copy
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
    Quantizer,
    apot,
    post,
    pot,
    uniform,
)
from tests import oracles
from tests.strategies import BOOKS, FEW, books, tensors


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def scale_of(range_, x, codebook):
    assert range_.observe(x, codebook) is range_
    return range_.scale


# --- min-max and percentile against numpy ------------------------------------------------------------------


@pytest.mark.parametrize("book", [uniform(4), uniform(4, narrow=True), post(4), uniform(3, signed=False)])
def test_minmax_is_the_least_scale_that_cuts_nothing_off(book):
    for dtype in [torch.float16, torch.bfloat16, torch.float32, torch.float64]:
        x = normal(7, 50, dtype=dtype)
        wide = x.double().numpy()
        low, high = float(book.knots[0]), float(book.knots[-1])
        expected = max(wide.max() / high, wide.min() / low if low < 0 else 0.0)
        assert float(scale_of(MinMax(), x, book)) == pytest.approx(expected, rel=1e-6)


def test_minmax_of_an_affine_range_puts_the_data_on_the_end_knots():
    x = normal(200).exp()
    for book in (uniform(4), uniform(3, signed=False), post(3)):
        range_ = MinMax(symmetric=False).observe(x, book)
        u = (x - range_.offset) / range_.scale
        assert float(u.min()) == pytest.approx(float(book.knots[0]), abs=1e-9)
        assert float(u.max()) == pytest.approx(float(book.knots[-1]), abs=1e-9)


@pytest.mark.parametrize("percent", [1, 50.0, 99.0, 99.9, 100])
def test_percentile_is_numpys(percent):
    x = normal(5001)
    expected = np.percentile(np.abs(x.numpy()), percent)
    assert float(scale_of(Percentile(percent), x, post(4))) == pytest.approx(expected, rel=1e-6)
    scale = float(scale_of(Percentile(percent), x, uniform(4, narrow=True)))
    assert scale == pytest.approx(expected / 7, rel=1e-6)


def test_percentile_cuts_off_the_share_it_says():
    x = normal(100_000)
    clip = float(scale_of(Percentile(99.0), x, post(4)))
    assert float((x.abs() > clip).double().mean()) == pytest.approx(0.01, abs=1e-4)


@pytest.mark.parametrize("book", [uniform(4), post(4), uniform(2, signed=False)])
def test_the_hundredth_percentile_is_minmax(book):
    x = normal(300)
    assert float(scale_of(Percentile(100), x, book)) == float(scale_of(MinMax(), x, book))


def test_percentile_of_nearly_all_zeros_is_not_zero():
    x = torch.zeros(10_000)
    x[0] = 3.0
    assert float(scale_of(Percentile(99.0), x, post(4))) > 0


# --- MSE search against a dense scan -----------------------------------------------------------------------


def samples(kind):
    x = normal(4000, seed=1)
    return {
        "gaussian": x,
        "laplace": x.sign() * normal(4000, seed=2).square() * 0.7,
        "bimodal": x * 0.2 + x.roll(1).sign(),
        "outliers": torch.cat([x * 0.01, torch.tensor([5.0, -3.0], dtype=x.dtype)]),
        "relu": x.clamp(min=0),
        "shifted": x * 0.1 + 4,
        "few": torch.tensor([0.1, 0.2, 0.3], dtype=x.dtype),
        "constant": torch.full((9,), -0.7, dtype=x.dtype),
        "one": torch.tensor([2.5], dtype=x.dtype),
    }[kind]


def dense_scan(x, levels, reach):
    """Least MSE over 3000 scales, 0.3 % apart, of each sample against each level."""
    top = float(np.abs(x).max()) / min(reach, float(np.abs(levels)[np.abs(levels) > 0].min()))
    return min(oracles.sample_mse(x, levels, scale) for scale in top * np.exp(np.linspace(-9.5, 0.1, 3000)))


KINDS = ("gaussian", "laplace", "bimodal", "outliers", "relu", "shifted", "few", "constant", "one")


def kinds_and_books():
    """Every kind with an uneven grid, every grid with normal data; the other pairs are slow."""
    books = [uniform(2), uniform(4, narrow=True), uniform(3, signed=False), pot(4), post(3), apot(4)]
    for kind, (i, book) in itertools.product(KINDS, enumerate(books)):
        marks = () if kind == "gaussian" or i == 3 else pytest.mark.slow
        yield pytest.param(kind, book, marks=marks, id=f"{kind}-{book.name}-{len(book)}")


@pytest.mark.parametrize(("kind", "book"), list(kinds_and_books()))
def test_mse_is_within_a_thousandth_of_a_dense_scan(kind, book):
    x = samples(kind)
    found = float(scale_of(MSE(), x, book))
    levels = book.levels.numpy()
    best = dense_scan(x.numpy(), levels, book.reach)
    signal = float(x.square().mean())
    assert oracles.sample_mse(x.numpy(), levels, found) <= best * 1.001 + 1e-6 * signal


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_mse_finds_the_same_scale_in_every_dtype(dtype):
    x = normal(5000).to(dtype)
    low, high = (float(scale_of(MSE(), v, post(4))) for v in (x, x.double()))
    levels = post(4).levels.numpy()
    wide = x.double().numpy()
    assert oracles.sample_mse(wide, levels, low) == pytest.approx(
        oracles.sample_mse(wide, levels, high), rel=1e-3
    )


def test_mse_of_knots_that_are_not_the_levels_minds_the_levels():
    book = Codebook([-1.0, 0.0, 1.0], [-2.0, 0.5, 4.0])
    x = normal(3000)

    def error(scale):
        code = oracles.codes(x.numpy() / scale, [-0.5, 0.5])
        return oracles.mse(x.numpy(), oracles.dequantize(code, book.levels.tolist(), scale))

    found = float(scale_of(MSE(), x, book))
    assert error(found) <= 1.001 * min(error(s) for s in np.geomspace(0.01, 5, 400))


def test_mse_minds_the_roundings_borders():
    x, book = normal(3000), pot(3)
    rounding = CellBorder(book, book.knots[:-1] + 0.9 * book.knots.diff())
    q = Quantizer(book, rounding, range=MSE()).observe(x)
    borders = rounding.border.tolist()

    def error(scale):
        code = oracles.codes(x.numpy() / scale, borders)
        return oracles.mse(x.numpy(), oracles.dequantize(code, book.levels.tolist(), scale))

    best = min(error(s) for s in np.geomspace(0.1, 8, 300))
    assert error(float(q.range.scale)) <= 1.001 * best
    plain = float(Quantizer(book).observe(x).range.scale)
    assert error(float(q.range.scale)) < 0.999 * error(plain)


# --- channels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [MinMax, MSE, lambda axis: Percentile(97.0, axis=axis)])
def test_each_channel_has_the_scale_it_would_have_alone(make):
    for axis in [0, 1, 2, -1, -3]:
        x = normal(3, 4, 5) * torch.linspace(0.1, 9, 4, dtype=torch.float64)[None, :, None]
        scale = scale_of(make(axis=axis), x, post(3))
        alone = [float(scale_of(make(axis=None), part, post(3))) for part in x.unbind(axis)]
        assert scale.shape == (x.shape[axis],)
        assert scale.tolist() == pytest.approx(alone, rel=1e-9)


def test_affine_per_channel():
    x = normal(4, 30).exp()
    range_ = MinMax(axis=0, symmetric=False).observe(x, uniform(4))
    assert range_.offset.shape == range_.scale.shape == (4,)
    u = (x - range_.offset[:, None]) / range_.scale[:, None]
    assert u.amin(1).tolist() == pytest.approx([-8.0] * 4)
    assert u.amax(1).tolist() == pytest.approx([7.0] * 4)


def test_forward_shapes_scale_for_broadcasting():
    x = normal(2, 3, 4, 5, dtype=torch.float32)
    scale, offset = Fixed(torch.tensor([1.0, 2.0, 3.0]), axis=-3)(x)
    assert scale.shape == (1, 3, 1, 1)
    assert scale.dtype == torch.float32
    assert offset is None
    assert (x / scale).shape == x.shape


@pytest.mark.parametrize("make", [MinMax, MSE, Percentile])
def test_refuses_an_axis_that_is_not_there_and_a_wrong_channel_count(make):
    for axis, shape in ((2, (3, 4)), (-3, (3, 4)), (0, ())):
        with pytest.raises(ValueError, match=rf"{axis}.*\({', '.join(map(str, shape))}\)"):
            make(axis=axis).observe(torch.ones(shape), post(3))
    range_ = make(axis=1).observe(normal(2, 3), post(3))
    with pytest.raises(ValueError, match=r"\(2, 4\).*3|3.*\(2, 4\)"):
        range_(normal(2, 4))
    with pytest.raises(ValueError, match=r"\(3,\)"):
        range_(normal(3))


@pytest.mark.parametrize("axis", [1.5, "c", True, (0, 1)])
def test_refuses_an_axis_that_is_no_whole_number(axis):
    with pytest.raises(TypeError, match=r"1\.5|'c'|True|\(0, 1\)"):
        MSE(axis=axis)


# --- bad and edge data -------------------------------------------------------------------------------------

RANGES = [MinMax, lambda: MinMax(symmetric=False), MSE, Percentile]


@pytest.mark.parametrize(
    ("x", "error", "received"),
    [
        (torch.tensor([1.0, math.nan, 2.0]), ValueError, "1 of 3"),
        (torch.tensor([1.0, math.inf, -math.inf]), ValueError, "2 of 3"),
        (torch.empty(0, 3), ValueError, r"\(0, 3\)"),
        (torch.arange(3), TypeError, "int64"),
        (torch.ones(3, dtype=torch.complex64), TypeError, "complex64"),
        (torch.ones(3, dtype=torch.bool), TypeError, "bool"),
        (np.arange(3), TypeError, "int64"),
        ("weights", TypeError, "str"),
        (None, TypeError, "NoneType"),
    ],
)
def test_refused_data_leave_the_state_untouched(x, error, received):
    for make in RANGES:
        fresh, used = make(), make().observe(normal(50), post(3))
        before = used.scale.clone()
        for range_ in (fresh, used):
            with pytest.raises(error, match=received):
                range_.observe(x, post(3))
        assert not fresh.calibrated
        assert fresh.scale is None
        assert fresh.offset is None
        assert torch.equal(used.scale, before)


@pytest.mark.parametrize("make", RANGES)
@given(x=tensors(), book=books(), data=st.data())
@FEW
def test_every_scale_is_positive_and_finite(make, x, book, data):
    before = x.clone()
    scale = scale_of(make(), x, book)
    assert scale.shape == ()
    assert 0 < float(scale) < math.inf
    used, _ = make().observe(x, book)(x.to(torch.float64 if x.dtype == torch.float64 else torch.float32))
    assert 0 < float(used) < math.inf  # as the quantizer uses it: in the dtype it computes in
    assert torch.equal(x, before)


@pytest.mark.parametrize("make", RANGES)
@pytest.mark.parametrize("power", ["subnormal", "huge"])
def test_scales_of_the_smallest_and_largest_numbers(make, power):
    for name, dtype in itertools.product(
        ["uniform8", "unsigned4", "pot8", "post4", "apot8"],
        [torch.float16, torch.bfloat16, torch.float32, torch.float64],
    ):
        book, info = BOOKS[name], torch.finfo(dtype)
        unit = info.max / 4 if power == "huge" else info.smallest_normal * info.eps
        x = (torch.tensor([0.0, 1.0, -1.0, 0.5, 0.75], dtype=torch.float64) * unit).to(dtype)
        q = Quantizer(book, range=make()).observe(x)
        scale, _ = q.range(x.double() if dtype == torch.float64 else x.float())
        assert 0 < float(scale) < math.inf
        assert bool(torch.isfinite(q(x)).all())
        with torch.enable_grad():
            assert bool(torch.isfinite(q(x.requires_grad_())).all())


@pytest.mark.parametrize("make", RANGES)
def test_constant_tensors(make):
    for book, value in itertools.product(
        [uniform(4), uniform(1), uniform(2, signed=False), post(4), Codebook([0.0])], [0.0, 0.7, -0.7]
    ):
        x = torch.full((4, 3), value)
        q = Quantizer(book, range=make()).observe(x)
        assert bool(torch.isfinite(q(x)).all())
        if value == 0.0 and bool((book.levels == 0).any()):
            assert not q(x).any()


# --- fixed -------------------------------------------------------------------------------------------------


def test_fixed_stays():
    range_ = Fixed(0.5, 0.25)
    assert range_.calibrated
    assert range_.observe(normal(5), post(3)) is range_
    assert (float(range_.scale), float(range_.offset)) == (0.5, 0.25)


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        ({"scale": 0.0}, r"0\.0"),
        ({"scale": -1.5}, r"-1\.5"),
        ({"scale": math.nan}, "nan"),
        ({"scale": math.inf}, "inf"),
        ({"scale": torch.tensor([1.0, -2.5]), "axis": 0}, r"-2\.5"),
        ({"scale": torch.ones(3)}, r"\(3,\)"),
        ({"scale": 1.0, "axis": 0}, "0"),
        ({"scale": torch.ones(3, 2), "axis": 0}, r"\(3, 2\)"),
        ({"scale": torch.ones(0), "axis": 0}, r"\(0,\)"),
        ({"scale": 1.0, "offset": math.nan}, "nan"),
        ({"scale": torch.ones(3), "offset": torch.tensor([7.0, 8.0]), "axis": 0}, r"\(2,\)|7\.0, 8\.0"),
    ],
)
def test_fixed_refuses_what_is_no_scale(arguments, received):
    with pytest.raises(ValueError, match=received):
        Fixed(**arguments)


@pytest.mark.parametrize("scale", ["wide", None])
def test_fixed_refuses_what_is_no_number(scale):
    with pytest.raises((TypeError, ValueError), match=r"wide|None"):
        Fixed(scale)


def test_fixed_copies_its_argument():
    given_scale = torch.tensor([1.0, 2.0], dtype=torch.float64)
    range_ = Fixed(given_scale, axis=0)
    given_scale.zero_()
    assert range_.scale.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("percent", [0, -1.0, 100.5, math.nan])
def test_percentile_refuses_what_is_no_share(percent):
    with pytest.raises(ValueError, match=str(percent)):
        Percentile(percent)


@pytest.mark.parametrize("percent", ["most", None])
def test_percentile_refuses_what_is_no_number(percent):
    with pytest.raises((TypeError, ValueError), match=r"most|None"):
        Percentile(percent)


# --- a range as a module -----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [MinMax, MSE, Percentile])
def test_using_it_before_it_observed_says_what_to_do(make):
    with pytest.raises(RuntimeError, match="observe"):
        make()(normal(3))


@pytest.mark.parametrize("cast", ["half", "bfloat16", "float", "double"])
def test_a_cast_keeps_float64(cast):
    range_ = MinMax(axis=0, symmetric=False).observe(normal(3, 9), post(3))
    scale, offset = range_.scale.clone(), range_.offset.clone()
    getattr(range_, cast)()
    assert range_.scale.dtype == range_.offset.dtype == torch.float64
    assert torch.equal(range_.scale, scale)
    assert torch.equal(range_.offset, offset)


@pytest.mark.parametrize("cast", ["half", "double"])
def test_a_cast_before_the_first_look_at_data_does_no_harm(cast):
    range_ = getattr(MSE(), cast)()
    assert not range_.calibrated
    assert range_.observe(normal(9), post(3)).calibrated


@pytest.mark.parametrize(
    "make",
    [
        MSE,
        lambda: MSE(axis=1),
        lambda: MinMax(axis=0, symmetric=False),
        lambda: Percentile(axis=-1),
        lambda: Fixed(torch.tensor([1.0, 2.0, 3.0]), axis=0),
    ],
)
def test_state_dict_goes_into_a_fresh_range(make):
    saved, fresh = make().observe(normal(3, 3), post(3)), make()
    fresh.load_state_dict(saved.state_dict())
    assert torch.equal(fresh.scale, saved.scale)
    assert (fresh.offset is None) == (saved.offset is None)
    if saved.offset is not None:
        assert torch.equal(fresh.offset, saved.offset)
    fresh.scale.zero_()
    assert bool((saved.scale > 0).all())


def test_a_second_look_replaces_the_first():
    x = normal(4, 6)
    range_ = MSE(axis=0).observe(x, post(3))
    again = MSE(axis=0).observe(x[:2] * 3, post(3))
    range_.observe(x[:2] * 3, post(3))
    assert torch.equal(range_.scale, again.scale)


def test_deepcopy_shares_nothing():
    range_ = MSE().observe(normal(50), post(3))
    twin = copy.deepcopy(range_)
    twin.scale.zero_()
    assert float(range_.scale) > 0
