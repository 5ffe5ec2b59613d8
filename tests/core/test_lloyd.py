"""Lloyd's levels against an exact solver."""

import functools
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qviz import lloyd, shipped
from qviz.core.lloyd import EXACT, lloyd_centers, lloyd_rest, optimal_centers
from tests import oracles
from tests.slow import slow
from tests.strategies import FEW


@functools.cache
def samples(kind, n):
    g = np.random.default_rng(7)
    x = g.standard_normal(n)
    return {
        "gaussian": lambda: x,
        "laplace": lambda: g.laplace(size=n),
        "bimodal": lambda: 0.3 * x + np.where(g.random(n) < 0.3, -2.0, 1.0),
        "outliers": lambda: np.where(g.random(n) < 0.002, 60 * x, x),
        "far outliers": lambda: np.where(np.arange(n) < 3, 1e6 * x, x),
        "relu": lambda: np.maximum(x - 1.0, 0.0),
        "shifted": lambda: 1000 + x,
        "few": lambda: g.choice([0.0, 0.1, 0.5, 0.55, 3.0, -7.0, 2.0, 2.01, 11.0], size=n),
        "eighths": lambda: np.round(x * 8) / 8,
    }[kind]()


KINDS = ("gaussian", "laplace", "bimodal", "outliers", "far outliers", "relu", "shifted", "few", "eighths")


def error_of(x, centers):
    cell = np.searchsorted((centers[1:] + centers[:-1]) / 2, x)
    return float(np.mean((x - centers[cell]) ** 2))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [1, 4, *slow(6)])
def test_it_is_the_optimum_of_an_independent_solver(kind, bits):
    x = samples(kind, 800)
    points, weights = np.unique(x, return_counts=True)
    best, _ = oracles.kmeans_1d(points, weights, 2**bits)
    levels = lloyd(torch.from_numpy(x), bits).levels.numpy()
    assert len(levels) == min(2**bits, len(points))
    assert error_of(x, levels) <= (1 + 1e-6) * best / len(x) + 1e-12 * x.var()


def optimum(x, bits):
    """The least possible mean squared error, by the exact solver on every distinct value."""
    points, counts = np.unique(x, return_counts=True)
    return error_of(x, optimal_centers(points, counts.astype(float), 2**bits))


def kinds_and_bits():
    """The hardest kind at 4 bits and one at 8; the other pairs are slow."""
    for kind, bits in itertools.product(["gaussian", "outliers", "far outliers", "relu"], [4, 6, 8]):
        quick = (kind, bits) in (("far outliers", 4), ("gaussian", 8))
        yield pytest.param(kind, bits, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize(("kind", "bits"), list(kinds_and_bits()))
def test_more_values_than_are_solved_exactly_come_within_one_percent(kind, bits):
    x = samples(kind, 12_000 if kind != "relu" else 80_000)
    levels = lloyd_centers(x, 2**bits)
    assert len(np.unique(x)) > EXACT
    assert len(levels) == 2**bits
    assert error_of(x, levels) <= 1.01 * optimum(x, bits)


@pytest.mark.parametrize(
    ("name", "bits"), [("depthwise_early", 8), ("depthwise_stride", 6), ("act_stem", 5), ("act_pooled", 3)]
)
def test_shipped_tensors_get_the_optimum(name, bits):
    x = shipped.tensor(name).numpy().ravel()
    assert len(np.unique(x)) <= EXACT
    levels = lloyd(shipped.tensor(name), bits).levels.numpy()
    assert len(levels) == 2**bits
    assert error_of(x, levels) <= (1 + 1e-5) * optimum(x, bits)


def test_sixteen_levels_of_the_normal_distribution():
    x = samples("gaussian", 1_000_000)
    assert error_of(x, lloyd(torch.from_numpy(x), 4).levels.numpy()) == pytest.approx(0.009497, rel=0.01)


def test_four_levels_of_the_normal_distribution():
    levels = lloyd(torch.from_numpy(samples("gaussian", 1_000_000)), 2).levels.tolist()
    assert levels == pytest.approx([-1.5104, -0.4528, 0.4528, 1.5104], abs=0.01)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_dtypes_are_solved_in_float64(dtype):
    x = torch.from_numpy(samples("laplace", 3000)).to(dtype)
    levels = lloyd(x, 4).levels.numpy()
    assert error_of(x.double().numpy(), levels) <= (1 + 1e-6) * optimum(x.double().numpy(), 4)


@given(
    st.lists(st.sampled_from([-3.0, -0.5, 0.0, 0.1, 0.125, 7.0, 1e3]), min_size=1, max_size=40),
    st.integers(1, 4),
)
@FEW
def test_few_distinct_values_are_found_exactly_where_they_fit(values, bits):
    levels = lloyd(torch.tensor(values, dtype=torch.float64), bits).levels.tolist()
    distinct = sorted(set(values))
    if len(distinct) <= 2**bits:
        assert levels == pytest.approx(distinct, rel=1e-12)
    else:
        best, _ = oracles.kmeans_1d(np.array(values), np.ones(len(values)), 2**bits)
        assert error_of(np.array(values), np.array(levels)) <= best / len(values) + 1e-9


@given(st.integers(0, 9999), st.integers(2, 60), st.integers(1, 4), st.sampled_from([1, 3, 5]))
@FEW
def test_small_samples_of_any_shape(seed, n, bits, power):
    x = np.random.default_rng(seed).standard_normal(n) ** power
    best, _ = oracles.kmeans_1d(x, np.ones(n), 2**bits)
    levels = lloyd(torch.from_numpy(x), bits).levels.numpy()
    assert len(levels) <= 2**bits
    assert error_of(x, levels) <= (1 + 1e-6) * best / n + 1e-12 * x.var()


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_tiny_and_huge_samples_scale(scale):
    x = torch.from_numpy(samples("gaussian", 3000))
    levels = lloyd(x * scale, 3).levels / scale
    assert levels.tolist() == pytest.approx(lloyd(x, 3).levels.tolist(), rel=1e-6, abs=1e-9)


def test_order_does_not_matter():
    x = samples("laplace", 3000)
    assert np.array_equal(lloyd_centers(x, 8), lloyd_centers(x[::-1], 8))
    assert np.array_equal(lloyd_centers(x, 8), lloyd_centers(np.sort(x), 8))


def test_samples_are_not_written():
    for n in (100, 100_000):
        x = np.random.default_rng(0).standard_normal(n)
        before = x.copy()
        lloyd_centers(x, 8)
        assert np.array_equal(x, before)


@pytest.mark.parametrize("pinned", [None, 2])
def test_lloyds_steps_end_where_every_center_is_the_mean_of_its_cell(pinned):
    x = samples("laplace", 3000)
    start = np.array([-9.0, -0.5, 0.0, 0.4, 50.0])  # no value is nearest to the last
    rest = lloyd_rest(x, start, pinned=pinned)
    nearest = np.abs(x[:, None] - rest).argmin(1)
    for k in range(4):
        wanted = 0.0 if k == pinned else x[nearest == k].mean()
        assert rest[k] == pytest.approx(wanted, abs=1e-9)
    assert rest[4] == 50.0
    best = lloyd_centers(x, 5)
    assert error_of(x, rest) > error_of(x, best)
    assert lloyd_rest(x, best) == pytest.approx(best, abs=1e-9)


def test_one_step_of_lloyd():
    x = np.array([0.0, 1.0, 4.0, 6.0])
    assert lloyd_rest(x, np.array([0.0, 1.0]), steps=1).tolist() == [0.0, 11 / 3]
    assert lloyd_rest(x, np.array([0.0, 1.0]), pinned=0).tolist() == [0.0, 5.0]
