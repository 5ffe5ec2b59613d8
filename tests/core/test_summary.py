"""Summaries of data against direct sums."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qviz import Fixed, Quantizer, Summary, apot, post, pot, uniform
from qviz.core import search as search_module
from qviz.core import summary
from qviz.core.search import search_rows
from tests import oracles
from tests.strategies import BOOKS, FEW, custom_books, tensors

KINDS = ("normal", "ties", "integers", "constant", "zeros", "sparse", "spread")


def direct(x, book, scale):
    """Code, level and error of every value of one row, by the oracle's loop over borders in units of x."""
    borders = [scale * b for b in book.borders.tolist()]
    code = oracles.codes(x.double().numpy(), borders)
    y = oracles.dequantize(code, book.levels.tolist(), scale)
    return code, y


@given(
    st.one_of(st.sampled_from(sorted(BOOKS)).map(BOOKS.get), custom_books()),
    tensors(kinds=KINDS, dtypes=(torch.float64,)),
    st.sampled_from([0.25, 1.0, 0.37, 5.0]),
)
@FEW
def test_cells_are_the_direct_sums(book, x, scale):
    size = len(book)
    wide = x.double().numpy()
    code, y = direct(x, book, scale)
    stats = Summary(x).cells(book.levels, book.borders, torch.tensor([scale], dtype=torch.float64))
    assert stats.count.shape == stats.sse.shape == stats.max_error.shape == (size,)
    assert int(stats.count.sum()) == x.numel()
    scale_of_things = float((wide**2).sum() + (y**2).sum()) + 1e-30
    assert stats.count.tolist() == oracles.occupancy(code, size)
    for k in range(size):
        error = np.abs(wide - y)[code == k]
        assert float(stats.sse[k]) == pytest.approx((error**2).sum(), rel=1e-9, abs=1e-12 * scale_of_things)
        assert float(stats.max_error[k]) == pytest.approx(error.max(initial=0.0), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("book", [uniform(4), post(4), apot(8), uniform(2, signed=False)])
def test_counts_are_the_quantizers(book, dtype):
    x = torch.randn(50, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    scale = 2.0**-2 if book.reach > 1 else 2.0
    q = Quantizer(book, range=Fixed(scale))
    stats = Summary(x).cells(book.levels, book.borders, torch.tensor([scale]))
    assert torch.equal(stats.count, q.codes(x).flatten().long().bincount(minlength=len(book)))
    if dtype in (torch.float32, torch.float64):
        assert float(stats.sse.sum()) == pytest.approx(
            float((q(x).double() - x.double()).square().sum()), rel=1e-5
        )


def test_every_tie_goes_down_as_in_the_quantizer():
    book = post(4)
    x = torch.cat([book.borders, book.borders, book.levels]).float()
    stats = Summary(x).cells(book.levels, book.borders, torch.ones(1))
    codes = Quantizer(book, range=Fixed(1.0)).codes(x)
    assert torch.equal(stats.count, codes.long().bincount(minlength=15))


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_channels_are_summed_at_their_own_scales(axis):
    x = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    book, rows = pot(3), x.unbind(axis)
    scales = torch.linspace(0.5, 2.5, len(rows), dtype=torch.float64)
    stats = Summary(x, axis=axis).cells(book.levels, book.borders, scales)
    count, sse, worst = np.zeros(7), np.zeros(7), np.zeros(7)
    for row, scale in zip(rows, scales.tolist(), strict=True):
        row = row.reshape(-1)
        code, y = direct(row, book, scale)
        error = np.abs(row.numpy() - y)
        np.add.at(count, code, 1)
        np.add.at(sse, code, error**2)
        np.maximum.at(worst, code, error)
    assert stats.count.tolist() == count.tolist()
    assert stats.sse.tolist() == pytest.approx(sse)
    assert stats.max_error.tolist() == pytest.approx(worst)


def test_one_scale_serves_all_channels():
    x = torch.randn(3, 40, generator=torch.Generator().manual_seed(2))
    book = post(4)
    shared = Summary(x, axis=0).cells(book.levels, book.borders, torch.tensor([2.0]))
    flat = Summary(x).cells(book.levels, book.borders, torch.tensor([2.0]))
    assert torch.equal(shared.count, flat.count)
    assert shared.sse.tolist() == pytest.approx(flat.sse.tolist())


def test_sse_of_many_scales_is_sse_of_each():
    x = torch.randn(3, 200, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    book = apot(4)
    scales = torch.rand(3, 50, generator=torch.Generator().manual_seed(4), dtype=torch.float64) * 4 + 0.1
    sse = Summary(x, axis=0).sse(book.levels, book.borders, scales)
    assert sse.shape == (3, 50)
    assert sse.dtype == torch.float64
    for c in range(3):
        for s in range(0, 50, 7):
            expected = 200 * oracles.sample_mse(x[c].numpy(), book.levels.numpy(), float(scales[c, s]))
            assert float(sse[c, s]) == pytest.approx(expected, rel=1e-9)


def test_sse_of_more_scales_than_fit_in_one_piece():
    x = torch.randn(4, 64, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    book = uniform(8)
    scales = torch.linspace(0.001, 0.1, 3000, dtype=torch.float64).expand(4, -1)
    sse = Summary(x, axis=0).sse(book.levels, book.borders, scales)
    assert sse.shape == (4, 3000)
    for s in (0, 1, 1234, 1999, 2999):
        alone = Summary(x, axis=0).sse(book.levels, book.borders, scales[:, s : s + 1])
        assert sse[:, s].tolist() == pytest.approx(alone[:, 0].tolist())


def test_values_far_from_zero_keep_their_small_error():
    x = 1000 + torch.randn(5000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.03
    book, scale = uniform(8, signed=False), torch.tensor([1000 / 255], dtype=torch.float64)
    sse = float(Summary(x).cells(book.levels, book.borders, scale).sse.sum())
    expected = 5000 * oracles.sample_mse(x.numpy(), book.levels.numpy(), float(scale))
    assert sse == pytest.approx(expected, rel=1e-4)  # at 90 dB the prefix sums still have digits to spare


@given(
    tensors(kinds=KINDS, dtypes=(torch.float64,)),
    st.sampled_from([uniform(3), post(4), pot(2), uniform(2, signed=False)]),
    st.sampled_from([0.5, 1.3]),
)
@FEW
def test_error_counts_are_a_histogram_of_the_errors(x, book, scale):
    edges = torch.linspace(-3.01, 2.99, 38, dtype=torch.float64)
    step = torch.tensor([scale], dtype=torch.float64)
    counts = Summary(x).error_counts(book.levels, book.borders, step, edges)
    _, y = direct(x, book, scale)
    expected, _ = np.histogram(y - x.numpy(), bins=edges.numpy())
    assert counts.dtype == torch.int64
    assert counts.tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_error_counts_are_half_open_below(dtype):
    book, edges = uniform(3), torch.tensor([-0.5, -0.25, 0.0, 0.25, 0.5], dtype=dtype)
    x = torch.tensor([0.25, 0.0, -0.25, 0.5, 1.25], dtype=dtype)  # errors -0.25, 0, 0.25, -0.5 (a tie), -0.25
    counts = Summary(x).error_counts(book.levels, book.borders, torch.ones(1), edges)
    assert counts.tolist() == [1, 2, 1, 1]


def test_error_counts_per_channel():
    x = torch.randn(6, 50, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    book, edges = post(3), torch.linspace(-4, 4, 41)
    scales = torch.linspace(0.5, 2, 6, dtype=torch.float64)
    counts = Summary(x, axis=0).error_counts(book.levels, book.borders, scales, edges)
    errors = [direct(row, book, s)[1] - row.numpy() for row, s in zip(x, scales.tolist(), strict=True)]
    assert counts.tolist() == np.histogram(np.concatenate(errors), bins=edges.numpy())[0].tolist()


@given(tensors(kinds=KINDS))
@FEW
def test_histogram_counts_values_up_to_each_edge(x):
    edges = torch.tensor([-3.0, -1.0, -0.5, 0.0, 0.25, 2.0, 9.0])
    wide = x.double().reshape(-1)
    expected = [
        int(((wide > a) & (wide <= b)).sum())
        for a, b in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    ]
    counts = Summary(x).histogram(edges)
    assert counts.dtype == torch.int64
    assert counts.tolist() == expected


def test_histogram_of_channels_counts_them_all():
    x = torch.randn(3, 70, generator=torch.Generator().manual_seed(0))
    edges = torch.linspace(-4, 4, 9)
    assert torch.equal(Summary(x, axis=1).histogram(edges), Summary(x).histogram(edges))


@given(tensors(min_dims=1, kinds=KINDS), st.data())
@FEW
def test_facts_about_the_values(x, data):
    axis = data.draw(st.sampled_from([None, *range(-x.ndim, x.ndim)]))
    before = x.clone()
    summary = Summary(x, axis=axis)
    rows = x.reshape(1, -1) if axis is None else x.movedim(axis, 0).reshape(x.shape[axis], -1)
    rows = rows.double()
    assert summary.numel == x.numel()
    assert torch.equal(summary.ends(), torch.stack([rows.amin(1), rows.amax(1)], 1))
    assert torch.equal(summary.rows.double(), rows.sort(dim=1).values)
    assert summary.energy() == pytest.approx(float(rows.square().sum()), rel=1e-9)
    assert torch.equal(x, before)


def test_a_summary_of_rows_is_a_summary_along_the_first_axis():
    x = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    book, scales = post(3), torch.tensor([[1.0, 2.0]]).expand(3, 2)
    one, other = Summary.of_rows(x), Summary(x, axis=0)
    assert torch.equal(one.ends(), other.ends())
    assert torch.equal(
        one.sse(book.levels, book.borders, scales), other.sse(book.levels, book.borders, scales)
    )


@pytest.mark.parametrize(
    ("arguments", "error", "received"),
    [
        ((torch.tensor([1.0, math.nan]),), ValueError, "1 of 2"),
        ((torch.tensor([1.0, -math.inf]),), ValueError, "1 of 2"),
        ((torch.empty(3, 0),), ValueError, r"\(3, 0\)"),
        ((torch.arange(3),), TypeError, "int64"),
        ((np.ones(3, dtype=np.uint8),), TypeError, "uint8"),
        (("weights",), TypeError, "str"),
        ((torch.ones(3, 2), 2), ValueError, r"2.*\(3, 2\)"),
        ((torch.tensor(1.0), 0), ValueError, r"0.*\(\)"),
    ],
)
def test_refuses_unfit_data(arguments, error, received):
    with pytest.raises(error, match=received):
        Summary(*arguments)


@pytest.mark.parametrize("shape", [(1000,), (3, 200), (2, 63), (5, 64)])
def test_sums_of_every_64th_value_are_as_exact(monkeypatch, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    axis, book = 0 if len(shape) > 1 else None, post(4)
    scales = (
        torch.rand(len(x) if axis == 0 else 1, 7, generator=torch.Generator().manual_seed(1)).double() + 0.1
    )
    whole = Summary(x, axis)
    monkeypatch.setattr(summary, "SUMS_BELOW", 64)
    strided = Summary(x, axis)
    assert strided._sums.shape[-1] == whole.rows.shape[1] // 64 + 1
    assert torch.allclose(
        strided.sse(book.levels, book.borders, scales),
        whole.sse(book.levels, book.borders, scales),
        rtol=1e-12,
    )
    assert strided.energy() == pytest.approx(float(x.square().sum()), rel=1e-13)
    ours, theirs = (s.cells(book.levels, book.borders, scales[:, 0]) for s in (strided, whole))
    assert torch.equal(ours.count, theirs.count)
    assert torch.allclose(ours.sse, theirs.sse, rtol=1e-12)


def test_channels_are_searched_some_at_a_time_with_the_same_scales(monkeypatch):
    x = torch.randn(7, 90, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = search_rows(x, post(4))
    monkeypatch.setattr(search_module, "SUMS_BELOW", 200)
    assert torch.equal(search_rows(x, post(4)), whole)
