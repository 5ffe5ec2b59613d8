import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qviz import Fixed, Quantizer, metrics, post, uniform
from tests import oracles
from tests.strategies import FEW, tensors

KINDS = ("normal", "ties", "integers", "constant", "sparse", "spread")


@given(tensors(kinds=KINDS), st.integers(0, 99))
@FEW
def test_errors_are_the_oracles(x, seed):
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(x.dtype)
    y = x + noise / 4
    before = x.clone(), y.clone()
    a, b = x.double().numpy(), y.double().numpy()
    assert metrics.mse(x, y) == pytest.approx(oracles.mse(a, b), rel=1e-12)
    assert metrics.max_error(x, y) == pytest.approx(oracles.max_error(a, b), rel=1e-12)
    if oracles.mse(a, b) > 0 and np.any(a):
        assert metrics.sqnr_db(x, y) == pytest.approx(oracles.sqnr_db(a, b), rel=1e-9, abs=1e-9)
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


def test_they_compute_in_float64():
    x = torch.full((4,), 60_000.0, dtype=torch.float16)
    assert metrics.mse(x, -x) == pytest.approx(120_000.0**2, rel=1e-3)
    assert metrics.max_error(x, -x) == pytest.approx(120_000.0, rel=1e-3)
    assert isinstance(metrics.mse(x, x), float)


def test_arrays_lists_and_mixed_dtypes():
    assert metrics.mse(np.array([0.0, 2.0]), [1.0, 2.0]) == 0.5
    assert metrics.max_error(torch.tensor([0.0, 2.0], dtype=torch.bfloat16), np.array([0.5, 2.0])) == 0.5


def test_limits_of_the_sqnr():
    x = torch.tensor([1.0, 2.0])
    assert metrics.sqnr_db(x, x) == math.inf
    assert metrics.sqnr_db(torch.zeros(2), x) == -math.inf
    assert metrics.sqnr_db(torch.zeros(2), torch.zeros(2)) == math.inf
    assert metrics.sqnr_from(5.0, 0.05) == pytest.approx(20.0)


@pytest.mark.parametrize("metric", [metrics.mse, metrics.sqnr_db, metrics.max_error])
def test_nan_stays_nan(metric):
    assert math.isnan(metric(torch.tensor([1.0, math.nan]), torch.tensor([1.0, 2.0])))


@pytest.mark.parametrize("metric", [metrics.mse, metrics.sqnr_db, metrics.max_error])
@pytest.mark.parametrize(
    ("x", "y", "error", "received"),
    [
        (torch.zeros(3), torch.zeros(4), ValueError, r"\(3,\) and \(4,\)"),
        (torch.zeros(3), torch.zeros(3, 1), ValueError, r"\(3,\) and \(3, 1\)"),
        (torch.zeros(0), torch.zeros(0), ValueError, r"\(0,\)"),
        (torch.arange(3), torch.zeros(3), TypeError, "int64"),
        (torch.zeros(3), torch.arange(3), TypeError, "int64"),
        (torch.zeros(3), None, TypeError, "NoneType"),
    ],
)
def test_refuses_what_cannot_be_compared(metric, x, y, error, received):
    with pytest.raises(error, match=received):
        metric(x, y)


@given(tensors(kinds=KINDS))
@FEW
def test_occupancy_counts_the_codes(x):
    for book in (uniform(3), post(4)):
        q = Quantizer(book, range=Fixed(0.5))
        counts = metrics.occupancy(q, x)
        assert counts.dtype == torch.int64
        assert counts.tolist() == oracles.occupancy(q.codes(x).numpy(), len(book))


def test_occupancy_refuses_nan():
    with pytest.raises(ValueError, match="1 of 2"):
        metrics.occupancy(Quantizer(post(4), range=Fixed(1.0)), torch.tensor([0.0, math.nan]))


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=300))
@FEW
def test_entropy_is_the_oracles(counts):
    if sum(counts) == 0:
        return
    expected = oracles.entropy_bits(counts)
    assert metrics.entropy_bits(np.array(counts)) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert metrics.entropy_bits(torch.tensor(counts)) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert -1e-12 <= expected <= math.log2(len(counts)) + 1e-9
    assert metrics.perplexity(np.array(counts)) == pytest.approx(2**expected, rel=1e-9)
    assert metrics.dead_levels(np.array(counts)) == counts.count(0)
    assert metrics.dead_levels(torch.tensor(counts)) == counts.count(0)


def test_entropy_of_one_code_is_zero_and_not_minus_zero():
    assert math.copysign(1, metrics.entropy_bits(np.array([0, 7, 0]))) == 1
    assert metrics.entropy_bits(np.array([0, 7, 0])) == 0
    assert metrics.entropy_bits(torch.ones(256)) == 8


@pytest.mark.parametrize(
    ("counts", "received"),
    [([1.0, -2.0], "-2"), ([0.0, 0.0], r"0\.0"), ([], r"\[\]"), ([1.0, math.nan], "nan")],
)
def test_entropy_refuses_what_is_no_count(counts, received):
    for values in (np.array(counts), torch.tensor(counts)):
        with pytest.raises(ValueError, match=received):
            metrics.entropy_bits(values)


def test_an_infinite_error_has_a_ratio() -> None:
    assert metrics.sqnr_from(2.0, math.inf) == -math.inf
    assert math.isnan(metrics.sqnr_from(math.inf, math.inf))
