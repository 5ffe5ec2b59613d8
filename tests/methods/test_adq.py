"""ADQ's codebook: the quantiles it starts from and the average that moves it."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from qviz import (
    Fixed,
    Quantizer,
    lloyd,
    metrics,
    recipes,
)
from qviz.methods.adq import STARTS, EMACodebook, adq_weight
from tests import oracles
from tests.methods.checks import GRADIENT, VALUE, close, normal


def even_normal(n: int) -> Tensor:
    """N(0, 1) without chance: its (i − ½)/n quantiles."""
    return torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)


def half_normal(p: float) -> float:
    return torch.special.ndtri(torch.tensor((1 + p) / 2, dtype=torch.float64)).item()


# --- the first codebook ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("seed", range(3))
def test_the_first_codebook_is_the_quantiles_of_each_sign(bits, seed):
    w = normal(4000, seed) + 0.2
    book = EMACodebook(bits)
    book.observe(w)
    close(book.levels.numpy(), oracles.adq_codebook(w.numpy(), bits), VALUE)
    assert torch.equal(book.knots, book.levels)
    m = 2 ** (bits - 1) - 1
    assert len(book) == 2**bits - 1
    assert (book.levels > 0).sum() == (book.levels < 0).sum() == m
    assert book.levels[m] == 0
    assert (book.levels.diff() > 0).all()


TABLE = {  # bits: (i − ½)/m, its error, i/(m + 1), its error, the error of the best such codebook
    2: ([0.67449], 0.31797, [0.67449], 0.31797, 0.19017),
    3: ([0.21043, 0.67449, 1.38299], 0.08195, [0.31864, 0.67449, 1.15035], 0.11671, 0.04400),
    4: (
        [0.08964, 0.27188, 0.46371, 0.67449, 0.92082, 1.24187, 1.80274],
        0.02738,
        [0.15731, 0.31864, 0.48878, 0.67449, 0.88715, 1.15035, 1.53412],
        0.04576,
        0.01074,
    ),
}


def normal_error(levels: list[float]) -> float:
    """E (x − Q(x))² for N(0, 1): numerically over a fine even sample."""
    x = even_normal(400_001).numpy()
    points = np.array(levels)
    borders = (points[1:] + points[:-1]) / 2
    return float(np.mean((x - points[np.searchsorted(borders, x)]) ** 2))


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_table_of_quantile_codebooks_of_a_normal(bits):
    levels, error, other, other_error, _ = TABLE[bits]
    m = len(levels)
    close([half_normal((i - 0.5) / m) for i in range(1, m + 1)], levels, 1e-5)
    close([half_normal(i / (m + 1)) for i in range(1, m + 1)], other, 1e-5)
    mirrored = [-v for v in reversed(other)] + [0.0, *other]
    assert normal_error(mirrored) == pytest.approx(other_error, rel=1e-3)
    x = even_normal(200_001)
    q = recipes.adq_weight(bits).observe(x)
    np.testing.assert_allclose(q.codebook.levels[m + 1 :].numpy(), levels, atol=1e-4)
    np.testing.assert_allclose(q.codebook.levels[:m].flip(0).numpy(), [-v for v in levels], atol=1e-4)
    assert metrics.mse(x, q(x)) == pytest.approx(error, rel=2e-3)


LLOYD = {
    2: [1.22401],
    3: [0.56058, 1.18815, 2.03337],
    4: [0.27386, 0.55476, 0.85113, 1.17488, 1.54606, 2.00647, 2.68087],
}


@pytest.mark.parametrize("bits", [2, 3])
def test_the_average_ends_at_the_best_codebook(bits):
    x = even_normal(20_001)
    book = EMACodebook(bits, decay=0.0)
    for _ in range(400):
        book.observe(x)
    m = len(LLOYD[bits])
    np.testing.assert_allclose(book.levels[m + 1 :].numpy(), LLOYD[bits], atol=3e-3)
    q = Quantizer(book, range=Fixed(1.0))
    assert metrics.mse(x, q(x)) == pytest.approx(TABLE[bits][4], rel=5e-3)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_table_of_best_codebooks_is_a_fixed_point(bits):
    levels = [-v for v in reversed(LLOYD[bits])] + [0.0, *LLOYD[bits]]
    assert normal_error(levels) == pytest.approx(TABLE[bits][4], rel=1e-3)
    moved = oracles.adq_update(even_normal(40_001).numpy(), levels, 0.0)
    np.testing.assert_allclose(moved, levels, atol=2e-3)


def test_symmetric_data_give_symmetric_levels():
    w = normal(500).abs()
    book = EMACodebook(4)
    book.observe(torch.cat([w, -w]))
    close(book.levels.numpy(), -book.levels.flip(0).numpy(), VALUE)


def test_tied_signs_take_the_quantiles_of_the_magnitudes():
    w = normal(500) + 0.7
    book = EMACodebook(3, tie_sign=True)
    book.observe(w)
    m = [oracles.quantile([abs(v) for v in w.tolist()], (i - 0.5) / 3) for i in (1, 2, 3)]
    close(book.levels.numpy(), [-m[2], -m[1], -m[0], 0, *m], VALUE)


def test_permutation_and_scale():
    w = normal(300)
    plain, shuffled, scaled = EMACodebook(4), EMACodebook(4), EMACodebook(4)
    plain.observe(w)
    shuffled.observe(w[torch.randperm(300, generator=torch.Generator().manual_seed(1))])
    scaled.observe(4 * w)
    assert torch.equal(plain.levels, shuffled.levels)
    close(scaled.levels.numpy(), 4 * plain.levels.numpy(), VALUE)


@pytest.mark.parametrize("init", ["uniform", "random"])
def test_the_ablations_starts(init):
    w = normal(300)
    one = EMACodebook(3, init=init, generator=torch.Generator().manual_seed(5))
    two = EMACodebook(3, init=init, generator=torch.Generator().manual_seed(5))
    one.observe(w)
    two.observe(w)
    assert torch.equal(one.levels, two.levels)
    assert one.levels[3] == 0
    if init == "uniform":
        top = w.abs().max().item()
        close(one.levels.numpy(), [top * k / 3 for k in range(-3, 4)], VALUE)
    else:
        assert torch.isin(one.levels[one.levels != 0], w).all()


@pytest.mark.parametrize("tied", [False, True])
def test_the_start_at_k_means_is_where_the_average_would_rest(tied):
    w = normal(2000) + 0.3
    book = EMACodebook(3, init="k-means", tie_sign=tied)
    walked = EMACodebook(3, decay=0.0, tie_sign=tied)
    for _ in range(400):
        walked.observe(w)
    book.observe(w)
    assert book.levels[3] == 0
    if tied:
        assert torch.equal(book.levels, -book.levels.flip(0))
    else:
        close(book.levels.numpy(), walked.levels.numpy(), VALUE)


def test_an_unpinned_zero_is_drawn_to_its_mean():
    w = normal(2000) + 0.3
    free, pinned = (EMACodebook(3, decay=0.5, pinned=p) for p in (False, True))
    for book in (free, pinned):
        book.observe(w)
        book.observe(w)
    cell = w[(w > 0.5 * book_start(w)[2]) & (w <= 0.5 * book_start(w)[4])]
    assert free.levels[3].item() == pytest.approx(0.5 * cell.mean().item(), rel=1e-9)
    assert pinned.levels[3] == 0
    close(np.delete(free.levels.numpy(), 3), np.delete(pinned.levels.numpy(), 3), VALUE)
    rested = EMACodebook(3, init="k-means", pinned=False)
    rested.observe(w)
    assert metrics.mse(w, Quantizer(rested, range=Fixed(1.0))(w)) < metrics.mse(
        w, Quantizer(pinned, range=Fixed(1.0))(w)
    )


def book_start(w: Tensor) -> list[float]:
    return oracles.adq_codebook(w.numpy(), 3)


# --- the average -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.99])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_update(bits, decay):
    w = normal(3000)
    book = EMACodebook(bits, decay=decay)
    book.observe(w)
    for seed in range(1, 4):
        w = 0.5 * normal(3000, seed)
        want = oracles.adq_update(w.numpy(), book.levels.tolist(), decay)
        book.observe(w)
        close(book.levels.numpy(), want, VALUE)
        assert torch.equal(book.knots, book.levels)
        close(book.borders.numpy(), oracles.midpoints(book.levels.tolist()), VALUE)


def test_the_worked_sequence():
    book = EMACodebook(2, decay=0.9)
    book.observe(torch.tensor([-1.0, -1.0, 1.0, 1.0]))
    got = []
    for _ in range(5):
        book.observe(torch.tensor([-1.0, 2.0, 2.0]))  # the cell's mean lies 1 above the level's start
        got.append(book.levels[2].item() - 1)
    assert got == pytest.approx([0.1, 0.19, 0.271, 0.3439, 0.40951], abs=1e-12)
    assert book.levels[:2].tolist() == [-1.0, 0.0]


def test_the_error_never_rises_while_weights_are_frozen_and_falls_as_the_simulation_says():
    x = even_normal(20_001)
    q = recipes.adq_weight(3, decay=0.9).observe(x)
    errors = [metrics.mse(x, q(x))]
    for _ in range(200):
        q.observe(x)
        errors.append(metrics.mse(x, q(x)))
    assert all(b <= a * (1 + 1e-12) for a, b in itertools.pairwise(errors))
    got = [errors[k] for k in (0, 10, 50, 200)]
    assert got == pytest.approx([0.0819, 0.0690, 0.0506, 0.0443], rel=1.2e-2)  # theirs: one random sample


def test_an_empty_cell_and_the_zero_stay():
    book = EMACodebook(3, decay=0.5)
    book.observe(torch.tensor([-4.0, -3.0, -2.0, -1.0, 1.0, 2.0, 3.0, 4.0]))
    before = book.levels.clone()
    book.observe(torch.tensor([0.1, 0.2, -0.1, before[-1].item() + 1]))
    assert book.levels[3] == 0
    assert torch.equal(book.levels[:-1], before[:-1])
    assert book.levels[-1] == before[-1] + 0.5


def test_a_codebook_of_means_stays():
    book = EMACodebook(2, decay=0.9)
    w = torch.tensor([-2.0, -1.0, 0.1, 1.0, 3.0], dtype=torch.float64)
    for _ in range(300):
        book.observe(w)
    close(book.levels.numpy(), [-1.5, 0, 2.0], 1e-9)


def test_order_survives_any_data():
    book = EMACodebook(4, decay=0.3)
    book.observe(normal(500))
    for seed in range(30):
        book.observe(normal(40, seed) * (seed + 1) / 5 + seed / 10)
        assert (book.levels.diff() > 0).all()


def test_nothing_moves_in_eval_or_frozen():
    book = EMACodebook(3, decay=0.5)
    book.observe(normal(100))
    before = book.levels.clone()
    book.eval()
    book.observe(2 * normal(100, 1))
    assert torch.equal(book.levels, before)
    book.train()
    book.frozen = True
    book.observe(2 * normal(100, 1))
    assert torch.equal(book.levels, before)
    book.frozen = False
    book.observe(2 * normal(100, 1))
    assert not torch.equal(book.levels, before)


def test_the_forward_pass_moves_nothing():
    q = recipes.adq_weight(3, decay=0.5).observe(normal(100))
    before = q.codebook.levels.clone()
    q(5 * normal(100, 1))
    assert torch.equal(q.codebook.levels, before)


def test_the_codebook_has_buffers_and_no_parameters():
    q = recipes.adq_weight(3).observe(normal(100))
    assert not list(q.parameters())
    assert {"codebook.knots", "codebook.levels"} <= q.state_dict().keys()


@pytest.mark.parametrize("kind", ["normal", "ties", "saturated", "zeros", "subnormal", "levels"])
def test_adq_values_and_gradients(kind):
    q = recipes.adq_weight(3).observe(torch.tensor([-4.0, -2.0, -1.0, 1.0, 2.0, 4.0]))
    levels = q.codebook.levels
    w = {
        "normal": 2 * normal(200),
        "ties": q.codebook.borders.clone(),
        "saturated": torch.tensor([-1e300, -50.0, 50.0, 1e300], dtype=torch.float64),
        "zeros": torch.tensor([0.0, -0.0], dtype=torch.float64),
        "subnormal": torch.tensor([5e-324, -5e-324, 1e-310], dtype=torch.float64),
        "levels": levels.clone(),
    }[kind]
    g = normal(w.numel(), 2)
    want = oracles.adq(w.numpy(), g.numpy(), levels.tolist())
    leaf = w.clone().requires_grad_(True)
    y = q(leaf)
    y.backward(g)
    close(y.detach().numpy(), want.y, VALUE)
    close(leaf.grad.numpy(), want.dx, GRADIENT)


def test_lloyd_is_no_worse_than_the_average():
    # two ways to the same condition: every level the mean of its cell
    x = even_normal(20_001)
    free = lloyd(x, 3)
    borders = free.borders.numpy()
    error = float(np.mean((x.numpy() - free.levels.numpy()[np.searchsorted(borders, x.numpy())]) ** 2))
    assert error < TABLE[3][4]  # eight levels, none pinned


@pytest.mark.parametrize("init", STARTS)
def test_tied_levels_stay_symmetric(init):
    g = torch.Generator().manual_seed(0)
    book = EMACodebook(3, decay=0.5, tie_sign=True, init=init, generator=g)
    w = torch.randn(4000, generator=g) + 0.3
    for _ in range(3):
        book.observe(w)
        assert torch.equal(book.levels, -book.levels.flip(0))


def test_levels_that_no_data_have_placed_quantize_nothing():
    x = torch.randn(50)
    for use in (adq_weight(3), adq_weight(3).reference, adq_weight(3).codes):
        with pytest.raises(RuntimeError, match=r"EMACodebook has no levels yet: call observe"):
            use(x)
    q = adq_weight(3).observe(x)
    loaded = adq_weight(3)
    loaded.load_state_dict(q.state_dict())
    assert torch.equal(loaded(x), q(x))
    q.restart()
    with pytest.raises(RuntimeError, match="has no levels yet"):
        q(x)


def test_weights_near_zero_need_not_count_for_the_start():
    g = torch.Generator().manual_seed(0)
    w = torch.cat([torch.randn(100, generator=g), 1e-8 * torch.randn(900, generator=g)])
    plain, heard = EMACodebook(3), EMACodebook(3, ignore=1e-3)
    plain.observe(w)
    heard.observe(w)
    assert plain.levels.abs()[[2, 4]].max() < 1e-7  # the layer would be silenced
    assert heard.levels.abs()[[2, 4]].min() > 0.05
    with pytest.raises(ValueError, match=r"ignore=0\.99"):
        EMACodebook(3, ignore=0.99).observe(w)


# --- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [1.0, 1.5, -0.1, math.nan])
def test_a_decay_outside_its_interval(bad):
    with pytest.raises(ValueError, match=str(bad)):
        recipes.adq_weight(3, decay=bad)


def test_an_unknown_start():
    with pytest.raises(ValueError, match="'kmeans'"):
        recipes.adq_weight(3, init="kmeans")


@pytest.mark.parametrize("bits", [1, 9])
def test_adq_bits(bits):
    with pytest.raises(ValueError, match=str(bits)):
        recipes.adq_weight(bits)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("placed", [True, False])
def test_a_bad_weight_leaves_the_state_as_it_was(bad, placed):
    q = recipes.adq_weight(3)
    if placed:
        q.observe(normal(100))
    before = copy.deepcopy(q.state_dict())
    w = normal(100, 1)
    w[7] = bad
    with pytest.raises(ValueError, match="1 of 100"):
        q.observe(w)
    assert all(torch.equal(v, before[k]) for k, v in q.state_dict().items())
    q.observe(normal(100, 2))
    assert q.codebook.levels.isfinite().all()


@pytest.mark.parametrize(
    "w", [torch.ones(50), -torch.rand(50) - 0.1, torch.zeros(50), torch.tensor([-1.0, 1.0, 2.0, -1.0])]
)
def test_too_few_values_of_a_sign(w):
    q = recipes.adq_weight(3)
    before = copy.deepcopy(q.state_dict())
    with pytest.raises(ValueError, match="3 levels"):
        q.observe(w)
    assert all(torch.equal(v, before[k]) for k, v in q.state_dict().items())


def test_repeated_values_that_make_quantiles_coincide():
    q = recipes.adq_weight(3)
    w = torch.cat([torch.full((100,), 1.0), torch.tensor([2.0, 3.0, -1.0, -2.0, -3.0])])
    with pytest.raises(ValueError, match=r"1\.0"):
        q.observe(w)
    assert q.codebook.levels.tolist() == [-3, -2, -1, 0, 1, 2, 3]
