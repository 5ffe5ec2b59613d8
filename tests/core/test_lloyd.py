import functools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qviz import lloyd
from qviz.core.lloyd import lloyd_centres
from tests import oracles
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
        "far outliers": lambda: np.where(np.arange(n) < 3, 1e4 * x, x),
        "relu": lambda: np.maximum(x - 1.0, 0.0),
        "shifted": lambda: 1000 + x,
        "few": lambda: g.choice([0.0, 0.1, 0.5, 0.55, 3.0, -7.0, 2.0, 2.01, 11.0], size=n),
        "eighths": lambda: np.round(x * 8) / 8,
    }[kind]()


KINDS = ("gaussian", "laplace", "bimodal", "outliers", "far outliers", "relu", "shifted", "few", "eighths")


def error_of(x, centres):
    return oracles.sample_mse(x, centres, 1.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_within_one_percent_of_the_optimum(kind, bits):
    x = samples(kind, 2000)
    points, weights = np.unique(x, return_counts=True)
    best, centres = oracles.kmeans_1d(points, weights, 2**bits)
    levels = lloyd(torch.from_numpy(x), bits).levels.numpy()
    assert len(levels) == min(2**bits, len(points))
    assert error_of(x, levels) <= 1.01 * best / len(x) + 1e-12 * x.var()
    assert error_of(x, centres) == pytest.approx(best / len(x), rel=1e-6, abs=1e-12 * x.var())


@functools.cache
def fine(kind):
    """A million samples, and the optimum of groups of them: equal slots, then the tails one by one.

    Merging the samples of a group moves a cost by no more than the group's own scatter, which is checked.
    """
    x = samples(kind, 1_000_000)
    low, high = np.quantile(x, [0.0002, 0.9998])
    slots = np.linspace(low, high, 2200)
    inside = np.digitize(x, slots)
    tails = np.unique(x[(inside == 0) | (inside == len(slots))])
    edges = np.unique(np.concatenate([slots, tails]))
    group = np.digitize(x, edges)
    count = np.bincount(group)
    used = count > 0
    mean = np.bincount(group, x)[used] / count[used]
    return x, mean, count[used]


@pytest.mark.parametrize("kind", ["gaussian", "laplace", "bimodal", "relu", "outliers"])
def test_a_million_samples_within_one_percent(kind):
    x, points, weights = fine(kind)
    best, _ = oracles.kmeans_1d(points, weights, 16)
    levels = lloyd(torch.from_numpy(x).float(), 4).levels.numpy()
    scatter = (x**2).sum() - (weights * points**2).sum()
    assert scatter < 3e-3 * best  # the groups are fine enough to tell one percent
    assert error_of(x, levels) <= 1.01 * (best + scatter) / len(x)


def test_sixteen_levels_of_the_normal_distribution():
    x = samples("gaussian", 1_000_000)
    assert error_of(x, lloyd(torch.from_numpy(x), 4).levels.numpy()) == pytest.approx(0.009497, rel=0.01)


def test_four_levels_of_the_normal_distribution():
    levels = lloyd(torch.from_numpy(samples("gaussian", 1_000_000)), 2).levels.tolist()
    assert levels == pytest.approx([-1.5104, -0.4528, 0.4528, 1.5104], abs=0.01)


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_levels_are_sorted_means_of_their_cells(bits, dtype):
    x = torch.from_numpy(samples("laplace", 20_000)).to(dtype)
    levels = lloyd(x, bits).levels
    assert len(levels) == 2**bits
    wide = x.double()
    cell = torch.bucketize(wide, (levels[1:] + levels[:-1]) / 2)
    count = cell.bincount(minlength=len(levels))
    mean = cell.bincount(wide, minlength=len(levels)) / count
    error = (mean - levels).abs() * count.sqrt()
    assert float(error.max()) <= 0.02 * float(wide.std()) * len(wide) ** 0.5 / 2**bits


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
        assert error_of(np.array(values), levels) <= 1.01 * best / len(values) + 1e-12


@given(st.integers(0, 9999), st.integers(2, 60), st.integers(1, 4), st.sampled_from([1, 3, 5]))
@FEW
def test_small_samples_of_any_shape(seed, n, bits, power):
    x = np.random.default_rng(seed).standard_normal(n) ** power
    best, _ = oracles.kmeans_1d(x, np.ones(n), 2**bits)
    levels = lloyd(torch.from_numpy(x), bits).levels.numpy()
    assert len(levels) <= 2**bits
    assert error_of(x, levels) <= 1.01 * best / n + 1e-12 * x.var()


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_tiny_and_huge_samples_scale(scale):
    x = torch.from_numpy(samples("gaussian", 3000))
    levels = lloyd(x * scale, 3).levels / scale
    assert levels.tolist() == pytest.approx(lloyd(x, 3).levels.tolist(), rel=1e-6, abs=1e-9)


def test_order_does_not_matter():
    x = samples("laplace", 3000)
    assert np.array_equal(lloyd_centres(x, 8), lloyd_centres(x[::-1], 8))
    assert np.array_equal(lloyd_centres(x, 8), lloyd_centres(np.sort(x), 8))


def test_samples_are_not_written():
    for n in (100, 100_000):
        x = np.random.default_rng(0).standard_normal(n)
        before = x.copy()
        lloyd_centres(x, 8)
        assert np.array_equal(x, before)
