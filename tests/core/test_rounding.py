"""Rounding: nearest, borders of one's own, logarithmic borders, stochastic."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qviz import (
    CellBorder,
    Codebook,
    Fixed,
    Nearest,
    Quantizer,
    Rounding,
    Stochastic,
    apot,
    post,
    pot,
    uniform,
)
from tests import oracles
from tests.strategies import BOOKS, FEW, MORE, books, custom_books, steps_around, tensors

UNEVEN = {
    "post4": post(4),
    "post4-paper": post(4, grid="paper"),
    "pot4": pot(4),
    "pot8": pot(8),
    "apot5": apot(5),
    "apot8": apot(8),
    "custom": Codebook([-2.0, -1.9, 0.1, 0.3, 7.0]),
    "signs": Codebook([-0.5, 0.5]),
}
UNIT = {name: book for name, book in BOOKS.items() if name.startswith(("uniform", "unsigned", "narrow"))}


def code_both_ways(rounding, book, u):
    """Return the code of the short way, after checking that cell + decision says the same."""
    code = rounding.encode(u, book).long()
    cell, t = book.locate(u)
    assert torch.equal(cell + rounding.decide(u, cell, t, book).long(), code)
    return code


def oracle_codes(u, borders):
    """Borders in the dtype of u: that is what u is compared with."""
    return torch.from_numpy(oracles.codes(u.double().numpy(), borders.to(u.dtype).double().tolist()))


@pytest.mark.parametrize("name", UNEVEN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nearest_within_forty_ulps_of_every_border(name, dtype):
    book = UNEVEN[name]
    u = steps_around(book.borders.to(dtype), 40)
    code = code_both_ways(Nearest(), book, u)
    assert torch.equal(code, oracle_codes(u, book.borders))
    assert torch.equal(code[:, 40], torch.arange(len(book) - 1))  # the tie itself goes down
    assert torch.equal(code[:, 41], torch.arange(len(book) - 1) + 1)


@pytest.mark.parametrize("name", ["uniform1", "uniform4", "unsigned4", "narrow2", "unsigned8", "uniform8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nearest_on_integers_within_forty_ulps_of_every_border(name, dtype):
    book = BOOKS[name]
    u = steps_around(book.borders.to(dtype), 40)
    code = code_both_ways(Nearest(), book, u)
    expected = oracle_codes(u, book.borders)
    if name != "uniform1":  # {-1, +1} are no consecutive integers
        formula = torch.ceil(u - 0.5).clamp(float(book.knots[0]), float(book.knots[-1])) - book.knots[0]
        assert torch.equal(code, formula.long())
        expected[u == torch.nextafter(torch.tensor(-0.5, dtype=dtype), torch.tensor(0.0, dtype=dtype))] -= 1
        expected = expected.clamp(min=0)
    assert torch.equal(code, expected)


@pytest.mark.parametrize("name", UNIT)
def test_nearest_on_integers_sends_every_half_down(name):
    book = UNIT[name]
    code = code_both_ways(Nearest(), book, book.borders.float())
    assert torch.equal(code, torch.arange(len(book) - 1))


@given(books(), tensors(dtypes=(torch.float32, torch.float64)))
@MORE
def test_nearest_counts_the_borders_below(book, u):
    if len(book) == 1:
        assert not Nearest().encode(u, book).any()
        return
    code = Nearest().encode(u, book).long()
    assert code.shape == u.shape
    assert torch.equal(code, oracle_codes(u, book.borders))
    cell, t = book.locate(u)
    assert torch.equal(cell + Nearest().decide(u, cell, t, book).long(), code)


@given(books(), tensors(dtypes=(torch.float64,), kinds=("normal", "sparse", "spread", "zeros"), max_dims=2))
@FEW
def test_nearest_is_nearest(book, u):
    if not book.identity:
        return
    knots = book.knots.tolist()
    y = book.knots[Nearest().encode(u, book).long()]
    expected = oracles.quantize(u.numpy(), knots, 1.0)
    assert np.abs(y.numpy() - u.numpy()) == pytest.approx(np.abs(expected - u.numpy()), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("name", ["uniform3", "post4", "apot8"])
def test_infinities_go_to_the_ends(name):
    book = BOOKS[name]
    u = torch.tensor([-math.inf, math.inf])
    assert code_both_ways(Nearest(), book, u).tolist() == [0, len(book) - 1]


# --- per-cell borders --------------------------------------------------------------------------------------


@pytest.mark.parametrize("book", [post(4), pot(5), apot(4), uniform(3), uniform(3, signed=False)])
def test_logarithmic_borders_are_geometric_means(book):
    rounding = CellBorder.logarithmic(book)
    knots = book.knots.tolist()
    expected = [oracles.log_border(a, b) for a, b in itertools.pairwise(knots)]
    assert rounding.borders(book).tolist() == pytest.approx(expected, rel=1e-12)
    assert rounding.borders(book).dtype == torch.float64


def test_linear_and_log_rounding_part_where_the_paper_says():
    book = post(4)
    assert float(book.borders[-1]) == pytest.approx(0.853553, abs=5e-7)
    assert float(CellBorder.logarithmic(book).border[-1]) == pytest.approx(0.840896, abs=5e-7)
    between = torch.tensor([0.845])
    assert Nearest().encode(between, book).item() == 13
    assert CellBorder.logarithmic(book).encode(between, book).item() == 14


@pytest.mark.parametrize("book", [post(4), apot(8), uniform(4), Codebook([-2.0, -1.9, 0.1, 7.0])])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cell_borders_within_forty_ulps(book, dtype):
    rounding = CellBorder.logarithmic(book)
    u = steps_around(rounding.border.to(dtype), 40)
    assert torch.equal(code_both_ways(rounding, book, u), oracle_codes(u, rounding.border))


@given(custom_books(), tensors(dtypes=(torch.float32, torch.float64)), st.integers(0, 99))
@FEW
def test_any_cell_borders(book, u, seed):
    share = torch.rand(len(book) - 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    share = 0.1 + 0.8 * share
    rounding = CellBorder(book, book.knots[:-1] + share * book.knots.diff())
    code = rounding.encode(u, book).long()
    assert torch.equal(code, oracle_codes(u, rounding.border))
    if len(book) > 1:
        assert torch.equal(code_both_ways(rounding, book, u), code)


@pytest.mark.parametrize(
    ("border", "received"),
    [
        ([0.5], r"\(1,\)"),
        ([-1.5, -0.5, 7.25], "7.25"),
        ([-1.5, math.nan, 0.5], "nan"),
        ([[-1.5, -0.5, 0.5]], r"\(1, 3\)"),
    ],
)
def test_refuses_borders_that_do_not_fit(border, received):
    with pytest.raises(ValueError, match=received):
        CellBorder(uniform(2), border)


def test_a_quantizer_refuses_the_borders_of_another_grid():
    x = torch.linspace(-4, 4, 20)
    with pytest.raises(ValueError, match="3"):
        Quantizer(uniform(3), CellBorder(uniform(2), [-1.5, -0.5, 0.5]), range=Fixed(1.0))(x)


def test_cell_borders_keep_float64_and_their_argument():
    book, given_border = post(4), post(4).borders
    rounding = CellBorder(book, given_border)
    rounding.half()
    assert rounding.border.dtype == torch.float64
    rounding.border.zero_()
    assert torch.equal(given_border, book.borders)


# --- stochastic --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["uniform4", "post4", "apot3", "custom"])
def test_stochastic_rounding_is_right_on_average(name):
    book = {**BOOKS, "custom": Codebook([-1.0, 0.2, 0.25, 3.0])}[name]
    knots = book.knots.tolist()
    n = 40_000
    rounding = Stochastic(torch.Generator().manual_seed(1))
    low, high = knots[0], knots[-1]
    for value in np.linspace(low, high, 9)[1:-1] + 0.0123 * (high - low):
        u = torch.full((n,), value, dtype=torch.float64)
        y = book.knots[rounding.encode(u, book).long()]
        k = oracles.code(value, knots) - 1
        assert set(y.unique().tolist()) <= {knots[k], knots[k + 1]}
        t = (value - knots[k]) / (knots[k + 1] - knots[k])
        error = (knots[k + 1] - knots[k]) * math.sqrt(t * (1 - t) / n)
        assert float(y.mean()) == pytest.approx(value, abs=4 * error + 1e-12)


def test_stochastic_rounding_leaves_knots_and_the_outside_alone():
    book = post(4)
    rounding = Stochastic(torch.Generator().manual_seed(0))
    for _ in range(20):
        assert torch.equal(rounding.encode(book.knots, book).long(), torch.arange(15))
        ends = rounding.encode(torch.tensor([-9.0, -math.inf, 9.0, math.inf]), book)
        assert ends.tolist() == [0, 0, 14, 14]


@pytest.mark.parametrize("book", [uniform(4), post(4), apot(8)])
def test_a_generator_makes_it_reproducible_and_spares_the_global_one(book):
    u = torch.randn(1000, generator=torch.Generator().manual_seed(0)).requires_grad_()
    state = torch.get_rng_state()
    runs = []
    for wants_grad in (False, False, True, True):
        q = Quantizer(book, Stochastic(torch.Generator().manual_seed(7)), range=Fixed(0.5))
        with torch.set_grad_enabled(wants_grad):
            runs.append((q(u).detach(), q(u).detach()))
    assert torch.equal(torch.get_rng_state(), state)
    for first, second in runs[1:]:
        assert torch.equal(first, runs[0][0])
        assert torch.equal(second, runs[0][1])
    assert not torch.equal(runs[0][0], runs[0][1])


def test_without_a_generator_the_global_seed_rules():
    u = torch.linspace(-1, 1, 500)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        first = Stochastic().encode(u, post(4))
        torch.manual_seed(5)
        assert torch.equal(Stochastic().encode(u, post(4)), first)
        assert not torch.equal(Stochastic().encode(u, post(4)), first)


def test_stochastic_has_no_borders():
    assert Stochastic().borders(post(4)) is None


@pytest.mark.parametrize("generator", [None, torch.Generator().manual_seed(3)])
def test_deepcopy_of_a_quantizer_that_draws(generator):
    q = Quantizer(post(4), Stochastic(generator), range=Fixed(1.0))
    twin = copy.deepcopy(q)
    x = torch.linspace(-1, 1, 100)
    assert bool(torch.isin(twin(x), post(4).levels.float()).all())


def test_stochastic_on_a_single_knot():
    assert not Stochastic().encode(torch.linspace(-1, 1, 9), Codebook([0.5])).any()


def test_every_rounding_is_one():
    assert all(issubclass(kind, Rounding) for kind in (Nearest, Stochastic, CellBorder))
