"""The arithmetic of a layer against whole-number oracles: planes, sums, requantization, thresholds."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qviz import recipes
from qviz.export import post_lut, split_accumulate
from qviz.export.arithmetic import EXACT, digits, planes
from qviz.export.codes import CodesLayer
from qviz.export.exported import Step
from qviz.export.fixed import half, multiplier, thresholds
from qviz.export.plan import Product
from qviz.export.tables import InputTable, WeightTable
from qviz.nn import QuantConv2d


@pytest.mark.parametrize(("name", "w"), [("lsq", 4), ("pot", 5), ("post", 4), ("adq", 3), ("apot", 4)])
@pytest.mark.parametrize("how", ["auto", "products"])
def test_the_planes_are_the_weight_and_the_accumulators_plain_sums(name: str, w: int, how: str) -> None:
    torch.manual_seed(w)
    layer = QuantConv2d(
        8, 6, 3, padding=1, weight_quantizer=recipes.pair(name, w, 4).weight(nn.Conv2d(8, 6, 3))
    )
    layer.observe(torch.rand(1, 8, 5, 5))
    q = layer.weight_quantizer
    table = WeightTable(layer.codes(), q.levels.float(), q.range.scale.float(), None, q.range.axis)
    made = planes(table, np.arange(16, dtype=np.float32), how)
    if how == "auto":
        weight = sum(v[:, None, None, None] * plane for v, plane in zip(made.worth, made.planes, strict=True))
        assert np.abs(weight - table.value().double().numpy()).max() < 2.0**-21 * np.abs(weight).max()
    codes = torch.randint(0, 16, (2, 8, 5, 5))
    columns = F.unfold(codes.double(), 3, padding=1).long()
    for plane, row, bound in zip(made.planes, made.tables, made.bounds, strict=True):
        if how == "products":
            columns = F.unfold(torch.from_numpy(row)[codes].double(), 3, padding=1).long()
        exact = torch.from_numpy(plane).long().flatten(1) @ columns
        assert int(exact.abs().amax((0, 2)).max()) <= int(bound.max()) < 2**31
        dtype = torch.float32 if int(bound.max()) <= EXACT else torch.float64
        maps = torch.from_numpy(row).to(dtype)[codes]
        fast = F.conv2d(maps, torch.from_numpy(plane).to(dtype), padding=1)
        assert torch.equal(fast.long().flatten(2), exact)


def test_even_and_odd_sums_are_those_made_by_shifts() -> None:
    lut = post_lut(4)
    codes, activations = torch.randint(0, 15, (5, 40)), torch.randint(0, 16, (7, 40))
    codes[:, 0], codes[:, 1] = 14, 1  # the largest magnitude and the smallest are there
    levels = lut.sign.double() * lut.value[lut.magnitude.long()]
    made = planes(WeightTable(codes.to(torch.uint8), levels.float()), np.arange(16.0))
    sums = [activations.numpy() @ plane.T for plane in made.planes]
    oracle = split_accumulate(lut, codes, activations)
    assert made.kind == "even and odd"
    assert np.array_equal(sums[0], oracle.even.astype(np.int64))
    assert np.array_equal(sums[1], oracle.odd.astype(np.int64))


def test_powers_of_two_are_shifts() -> None:
    levels = torch.tensor([-1, -0.5, -0.25, 0, 0.25, 0.5, 1]) * 0.3
    codes = torch.tensor([[6, 1, 3, 4]], dtype=torch.uint8)
    made = planes(WeightTable(codes, levels), np.arange(16.0))
    a = [5, 3, 9, 7]
    assert made.kind == "shifts"
    assert int(made.planes[0][0] @ a) == (a[0] << 2) - (a[1] << 1) + (a[3] << 0)
    assert made.worth[0, 0] == pytest.approx(0.3 / 4)


def test_requantization_rounds_to_nearest_halves_upward() -> None:
    rng = np.random.default_rng(0)
    factors = np.concatenate([rng.uniform(-1, 1, 200) * 2.0 ** rng.integers(-60, 30, 200), [0.0, 0.5, 1.0]])
    factors = np.stack([factors, rng.uniform(-1, 1, 203) * factors])
    bounds = np.array([[2**31 - 1], [9]])
    times, shift = multiplier(factors, bounds)
    for i, s in enumerate(shift.tolist()):
        pair = factors[:, i].tolist()
        size = max(map(abs, pair))
        fits = Fraction(
            1, 2 ** min(31, 61 - math.frexp(sum(abs(pair[p]) * int(bounds[p, 0]) for p in (0, 1)))[1])
        )
        for p in (0, 1):
            error = abs(Fraction(int(times[p, i]), 2**s) - Fraction(pair[p]))
            assert error <= max(Fraction(size) / 2**31, Fraction(1, 2**63), fits / 2)
        for sums in (1, 0), (-1, 2), (3, -9), (2**31 - 1, 9), (1 - 2**31, -9):
            total = sum(np.int64(a) * m for a, m in zip(sums, times[:, i], strict=True))
            exact = sum(a * int(m) for a, m in zip(sums, times[:, i], strict=True))
            v = (total + half(np.int64(s))) >> np.int64(s)
            assert int(v) == ((2 * exact + 2**s) // 2 ** (s + 1) if s else exact)


@pytest.mark.parametrize("planes_of", [2, 9, 15])
def test_the_digits_of_many_planes_give_their_sum(planes_of: int) -> None:
    rng = np.random.default_rng(planes_of)
    levels = np.sort(rng.normal(size=planes_of)).astype(np.float32)
    codes = rng.integers(0, planes_of, (6, 8, 3, 3)).astype(np.uint8)
    split = planes(WeightTable(torch.from_numpy(codes), torch.from_numpy(levels)), np.arange(16.0), "levels")
    times, shift = multiplier(split.worth * 2.0**20, split.bounds)
    offset = rng.integers(-(2**30), 2**30, 6)
    borders = np.arange(15) + 0.5
    parts, multipliers = digits(split, times)
    made = Product(
        split, split.worth, offset * 2.0**-20, parts, multipliers, shift, offset, thresholds(borders, 20)
    )
    step = Step("conv", (0,), "c", {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1})
    layer = CodesLayer(step, InputTable(torch.from_numpy(borders), torch.arange(16.0)), made, 20)
    assert len(parts) == min(planes_of, 3)
    x = rng.integers(-(2**20), 17 * 2**20, (2, 8, 5, 5))
    columns = F.unfold(torch.from_numpy(np.clip(np.round(x / 2**20), 0, 15)), 3, padding=1).long().numpy()
    sums = [plane.reshape(6, -1).astype(object) @ columns for plane in split.planes]
    total = sum(a * m[:, None] for a, m in zip(sums, times.astype(object), strict=True))
    s = shift.astype(object)[:, None]
    expected = offset[:, None] + (total + 2 ** (s - 1)) // 2**s
    assert np.array_equal(layer(torch.from_numpy(x)).flatten(2).numpy(), expected.astype(np.int64))


def test_integer_thresholds_decide_as_real_borders() -> None:
    rng, f = np.random.default_rng(1), 6
    borders = np.concatenate([rng.normal(size=50).astype(np.float32), [0.25, -0.25, 0.0]])
    v = np.arange(-200, 200)
    assert np.array_equal(v[:, None] > thresholds(borders, f), v[:, None] * 2.0**-f > borders)


def test_a_codebook_of_one_level_and_one_whose_largest_level_is_not_used() -> None:
    codes = torch.tensor([[0, 1, 2], [2, 1, 2]], dtype=torch.uint8)
    for values, some in ([0.5], codes * 0), ([0, 1e-7, 2e-7, 1], codes):
        made = planes(WeightTable(some, torch.tensor(values)), np.arange(4.0))
        weight = sum(worth[:, None] * plane for worth, plane in zip(made.worth, made.planes, strict=True))
        assert np.allclose(weight, np.array(values)[some.numpy()], rtol=1e-6, atol=0)
