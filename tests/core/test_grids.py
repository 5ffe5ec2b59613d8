"""Grid builders against formulas, the papers' tables and the normal distribution."""

import functools
import itertools
import math

import numpy as np
import pytest
import torch

from qviz import MSE, Codebook, Quantizer, apot, lloyd, post, pot, quantile, uniform
from qviz.measure import metrics
from tests import oracles

SQRT_HALF = math.sqrt(0.5)

# Papers' tables: magnitudes of the strict grid, and the one that the paper grid adds (ASQ/POST, section 1.5).
TABLE = {
    (pot, 2): ([1], 0.5),
    (pot, 3): ([1, 0.5, 0.25], 0.125),
    (pot, 4): ([1, 0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625], 0.0078125),
    (post, 2): ([1], 0.70711),
    (post, 3): ([1, 0.70711, 0.5], 0.35355),
    (post, 4): ([1, 0.70711, 0.5, 0.35355, 0.25, 0.17678, 0.125], 0.088388),
}

# MSE for x ~ N(0, 1) at the best clip: POT strict, paper, POST strict, paper, uniform narrow (section 1.11).
MSE_TABLE = {
    2: (0.19017, 0.08218, 0.19017, 0.11634, 0.19017),
    3: (0.04756, 0.03988, 0.06842, 0.04008, 0.04686),
    4: (0.03775, 0.03773, 0.01298, 0.01124, 0.01289),
    5: (0.03773, 0.03773, 0.00989, 0.00989, 0.00369),
}


def magnitudes(book):
    return [v for v in reversed(book.levels.tolist()) if v > 0]


@pytest.mark.parametrize(("builder", "bits"), list(TABLE))
def test_power_grids_are_the_papers_tables(builder, bits):
    strict, extra = TABLE[builder, bits]
    assert magnitudes(builder(bits)) == pytest.approx(strict, abs=5e-6)
    assert magnitudes(builder(bits, grid="paper")) == pytest.approx([*strict, extra], abs=5e-6)


@pytest.mark.parametrize(("builder", "base"), [(pot, 2.0), (post, math.sqrt(2.0))])
@pytest.mark.parametrize(("bits", "grid"), [(2, "strict"), (8, "strict"), (2, "paper"), (7, "paper")])
def test_power_grids_have_the_formulas_levels(builder, base, bits, grid):
    levels = builder(bits, grid=grid).levels.tolist()
    assert len(levels) == 2**bits + (1 if grid == "paper" else -1)
    assert levels == pytest.approx(oracles.power_levels(bits, base, grid), rel=1e-12, abs=0)
    assert levels == [-v for v in reversed(levels)]
    assert levels[-1] == 1.0
    ratios = [a / b for a, b in itertools.pairwise(v for v in reversed(levels) if v > 0)]
    assert ratios == pytest.approx([base] * len(ratios), rel=1e-12)


@pytest.mark.parametrize("bits", [3, 7])
@pytest.mark.parametrize("grid", ["strict", "paper"])
def test_every_second_post_magnitude_is_a_pot_magnitude(bits, grid):
    every_second = magnitudes(post(bits, grid=grid))[::2]
    assert every_second == magnitudes(pot(bits, grid=grid))[: len(every_second)]


@pytest.mark.parametrize("builder", [pot, post, apot, functools.partial(uniform, narrow=True)])
def test_two_strict_bits_are_ternary(builder):
    assert builder(2).levels.tolist() == [-1.0, 0.0, 1.0]


def test_power_grids_are_strict_unless_told():
    assert len(pot(4)) == len(post(4)) == 15


@pytest.mark.parametrize(
    ("bits", "magnitude_list"),
    [(2, [0, 1]), (3, [0, 0.25, 0.5, 1]), (4, [0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1])],
)
def test_apot_is_the_published_list(bits, magnitude_list):
    assert [v for v in apot(bits).levels.tolist() if v >= 0] == pytest.approx(magnitude_list, rel=1e-12)


@pytest.mark.parametrize("bits", [2, 5, 6, 8])
def test_apot_is_the_released_codes_rule(bits):
    levels = apot(bits).levels.tolist()
    assert len(levels) == 2**bits - 1
    assert levels == pytest.approx(oracles.apot_levels(bits), rel=1e-12, abs=0)
    assert levels == [-v for v in reversed(levels)]


@pytest.mark.parametrize("builder", [pot, post, apot])
def test_unsigned_grids_have_all_levels_of_a_signed_one_with_one_bit_more(builder):
    for bits in range(1, 8):
        book = builder(bits, signed=False)
        assert len(book) == 2**bits
        assert book.levels.tolist() == [v for v in builder(bits + 1).levels.tolist() if v >= 0]


def test_eight_unsigned_bits():
    assert len(apot(8, signed=False)) == 256
    for builder in (pot, post):  # 2^-254 would be 0 in float32
        with pytest.raises(ValueError, match="got 8"):
            builder(8, signed=False)
        with pytest.raises(ValueError, match="signed=False"):
            builder(4, signed=False, grid="paper")


@pytest.mark.parametrize("bits", [1, 2, 8])
def test_uniform_is_consecutive_integers(bits):
    assert uniform(bits).levels.tolist() == oracles.uniform_levels(bits, signed=True)
    assert uniform(bits, signed=False).levels.tolist() == oracles.uniform_levels(bits, signed=False)
    assert len(uniform(bits)) == len(uniform(bits, signed=False)) == 2**bits
    if bits > 1:
        narrow = uniform(bits, narrow=True).levels.tolist()
        assert narrow == oracles.uniform_levels(bits, signed=True, narrow=True)
        assert len(narrow) == 2**bits - 1


def test_one_signed_bit_is_a_sign():
    assert uniform(1).levels.tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("builder", [uniform, pot, post, apot])
def test_refuses_bits_out_of_range(builder):
    for bits in (0, -3, 9):
        with pytest.raises(ValueError, match=f"got {bits}$"):
            builder(bits)


@pytest.mark.parametrize("builder", [pot, post, apot])
def test_power_grids_have_no_single_bit(builder):
    with pytest.raises(ValueError, match=r"got 1$"):
        builder(1)


@pytest.mark.parametrize("builder", [uniform, pot, post, apot])
def test_refuses_bits_that_are_no_whole_number(builder):
    with pytest.raises(TypeError, match=r"4\.0"):
        builder(4.0)


@pytest.mark.parametrize("builder", [pot, post])
def test_refuses_the_paper_grid_at_eight_bits(builder):
    with pytest.raises(ValueError, match="257"):
        builder(8, grid="paper")


@pytest.mark.parametrize("builder", [pot, post])
def test_refuses_an_unknown_grid(builder):
    with pytest.raises(ValueError, match="loose"):
        builder(4, grid="loose")


@pytest.mark.parametrize(
    "arguments", [{"bits": 1, "narrow": True}, {"bits": 3, "narrow": True, "signed": False}]
)
def test_refuses_a_narrow_grid_that_is_not_there(arguments):
    with pytest.raises(ValueError, match=f"bits={arguments['bits']}"):
        uniform(**arguments)


# --- N(0, 1) -----------------------------------------------------------------------------------------------


@functools.cache
def normal_grid():
    """Mid-quantiles of N(0, 1): a sample without luck."""
    n = 400_000
    return torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)


def table_cases():
    for bits, row in MSE_TABLE.items():
        books = (
            pot(bits),
            pot(bits, grid="paper"),
            post(bits),
            post(bits, grid="paper"),
            uniform(bits, narrow=True),
        )
        names = ("pot", "pot-paper", "post", "post-paper", "uniform")
        for name, book, error in zip(names, books, row, strict=True):
            yield pytest.param(book, error, id=f"{name}{bits}")


@pytest.mark.parametrize(("book", "expected"), list(table_cases()))
def test_normal_mse_by_the_packages_search(book, expected):
    x = normal_grid().float()
    q = Quantizer(book, range=MSE()).observe(x)
    assert metrics.mse(x, q(x)) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(("book", "expected"), list(table_cases()))
def test_normal_mse_by_the_integral(book, expected):
    scale, error = oracles.best_normal_scale(book.levels.tolist(), 0.5 / book.reach, 8 / book.reach)
    assert error == pytest.approx(expected, rel=0.01)
    q = Quantizer(book, range=MSE()).observe(normal_grid())
    assert oracles.normal_mse(book.levels.tolist(), float(q.range.scale)) == pytest.approx(error, rel=1e-3)
    assert scale > 0


def test_normal_mse_by_a_random_sample():
    x = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0))
    q = Quantizer(post(4)).observe(x)
    assert metrics.mse(x, q(x)) == pytest.approx(0.01298, rel=0.01)


@pytest.mark.parametrize(("grid", "sigmas"), [("paper", 2.927), ("strict", 2.710)])
def test_the_best_clip_of_post_is_the_published_one(grid, sigmas):
    book = post(4, grid=grid)
    assert oracles.best_normal_scale(book.levels.tolist(), 1, 6)[0] == pytest.approx(sigmas, abs=1e-3)
    assert float(Quantizer(book).observe(normal_grid()).range.scale) == pytest.approx(sigmas, rel=0.005)


# --- from samples ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "dtype"), [(1, torch.float16), (4, torch.float64), (8, torch.bfloat16)])
def test_quantile_levels_are_the_mid_quantiles(bits, dtype):
    x = torch.randn(3, 1001, generator=torch.Generator().manual_seed(bits)).to(dtype)
    levels = quantile(x, bits).levels.numpy()
    expected = np.unique(np.quantile(x.double().numpy(), (np.arange(2**bits) + 0.5) / 2**bits))
    assert levels == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_quantile_levels_share_the_samples_equally():
    x = torch.randn(100_000, generator=torch.Generator().manual_seed(0)).exp()
    levels = quantile(x, 4).levels
    assert len(levels) == 16
    shares = torch.bucketize(x.double(), levels).bincount(minlength=17) / len(x)
    assert shares[1:-1].tolist() == pytest.approx([1 / 16] * 15, abs=2e-4)
    assert shares[[0, -1]].tolist() == pytest.approx([1 / 32] * 2, abs=2e-4)


@pytest.mark.parametrize("builder", [quantile, lloyd])
@pytest.mark.parametrize(
    "samples",
    [torch.zeros(50), torch.full((7,), 3.25), torch.tensor(1.5), torch.tensor([1.0, 2.0]).repeat(30)],
    ids=["zeros", "constant", "0-d", "two values"],
)
def test_repeated_samples_leave_fewer_levels(builder, samples):
    book = builder(samples, 4)
    assert isinstance(book, Codebook)
    assert 1 <= len(book) <= 3
    assert book.levels.min() >= samples.min()
    assert book.levels.max() <= samples.max()


@pytest.mark.parametrize("builder", [quantile, lloyd])
def test_builders_take_arrays_and_strided_tensors_and_leave_them_alone(builder):
    x = torch.randn(20, 30, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    levels = builder(x, 3).levels
    assert torch.equal(builder(x.numpy(), 3).levels, levels)
    assert torch.equal(builder(x.t(), 3).levels, levels)
    assert torch.equal(builder(x.requires_grad_(), 3).levels, levels)
    assert torch.equal(x.detach(), before)


@pytest.mark.parametrize("builder", [quantile, lloyd])
@pytest.mark.parametrize(
    ("samples", "bits", "error", "received"),
    [
        (torch.tensor([1.0, math.nan]), 2, ValueError, "1 of 2"),
        (torch.tensor([1.0, math.inf, -math.inf]), 2, ValueError, "2 of 3"),
        (torch.empty(0, 4), 2, ValueError, r"\(0, 4\)"),
        (torch.arange(4), 2, TypeError, "int64"),
        (np.arange(4, dtype=np.int16), 2, TypeError, "int16"),
        ("weights", 2, TypeError, "str"),
        (torch.ones(4), 0, ValueError, "got 0$"),
        (torch.ones(4), 9, ValueError, "got 9$"),
        (torch.ones(4), 2.0, TypeError, r"2\.0"),
    ],
)
def test_builders_refuse_unfit_samples(builder, samples, bits, error, received):
    with pytest.raises(error, match=received):
        builder(samples, bits)
