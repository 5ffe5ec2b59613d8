"""Codebooks: borders, cells, facts about the levels, and what is no grid."""

import copy
import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given

from qviz import Codebook, Fixed, Quantizer, apot, post, uniform
from qviz.core.codebook import LearnedLevels
from qviz.core.lookup import count_below, take
from tests import oracles
from tests.strategies import BOOKS, FEW, books, custom_books, same_bits, steps_around, tensors


@given(books())
@FEW
def test_shape_facts(book):
    size = len(book)
    knots = book.knots.tolist()
    assert book.knots.dtype == book.levels.dtype == book.borders.dtype == torch.float64
    assert book.knots.shape == book.levels.shape == (size,)
    assert book.borders.tolist() == oracles.midpoints(knots)
    assert 2 ** (book.bits - 1) < size <= 2**book.bits or size == 1
    assert book.reach == max(abs(k) for k in knots)


@pytest.mark.parametrize(
    ("size", "bits"), [(2, 1), (3, 2), (4, 2), (5, 3), (15, 4), (16, 4), (17, 5), (256, 8)]
)
def test_bits_is_the_width_of_a_stored_code(size, bits):
    assert Codebook(np.arange(float(size))).bits == bits


def test_levels_default_to_the_knots_and_may_differ():
    assert Codebook([0.0, 0.3, 1.0]).levels.tolist() == [0.0, 0.3, 1.0]
    book = Codebook([0.0, 0.3, 1.0], [-1.0, 5.0, 6.0])
    assert (book.knots.tolist(), book.levels.tolist()) == ([0.0, 0.3, 1.0], [-1.0, 5.0, 6.0])


@pytest.mark.parametrize("as_type", [list, tuple, np.array, torch.tensor])
def test_takes_any_sequence_of_numbers(as_type):
    assert Codebook(as_type([-1.0, 0.0, 2.5])).knots.tolist() == [-1.0, 0.0, 2.5]


def test_its_arguments_are_copied():
    array, tensor = np.array([0.0, 1.0]), torch.tensor([0.0, 1.0], dtype=torch.float64)
    first, second = Codebook(array), Codebook(tensor, tensor)
    array[0] = tensor[0] = -7.0
    assert first.knots.tolist() == second.knots.tolist() == second.levels.tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("knots", "levels", "received"),
    [
        ([0.0, 2.5, 1.5], None, "1.5"),
        ([0.0, 1.25, 1.25], None, "1.25"),
        ([0.0, 1.0], [3.5, 2.5], "2.5"),
        ([0.0, 1.0], [2.5, 2.5], "2.5"),
        ([0.0, math.nan], None, "nan"),
        ([0.0, math.inf], None, "inf"),
        ([0.0, 1.0], [0.0, math.inf], "inf"),
        ([], None, "0"),
        ([[0.0, 1.0]], None, r"\(1, 2\)"),
        (0.5, None, r"\(\)"),
        (list(range(257)), None, "257"),
        ([0.0, 1.0], [0.0, 1.0, 2.0], "3"),
    ],
)
def test_refuses_what_is_no_grid_and_says_what_it_got(knots, levels, received):
    with pytest.raises(ValueError, match=received):
        Codebook(knots, levels)


@pytest.mark.parametrize(
    ("knots", "received"),
    [(None, "None"), ("abc", "abc|str"), (["a", "b"], "a|str"), ([1 + 2j, 3j], "complex|2j")],
)
def test_refuses_what_is_not_numbers(knots, received):
    with pytest.raises((TypeError, ValueError), match=received):
        Codebook(knots)


def test_levels_closer_than_float32_stay_apart():
    close = [1.0, math.nextafter(1.0, 2.0)]
    assert Codebook(close).levels.tolist() == close


@given(custom_books(), tensors(dtypes=(torch.float32, torch.float64)))
@FEW
def test_locate_finds_the_cell_and_the_coordinate(book, u):
    if len(book) == 1:
        return
    cell, t = book.locate(u)
    assert cell.dtype == torch.int64
    assert t.dtype == u.dtype
    assert cell.shape == t.shape == u.shape
    assert cell.min() >= 0
    assert cell.max() <= len(book) - 2
    assert t.min() >= 0
    assert t.max() <= 1
    knots = book.knots.to(u.dtype)
    gap = knots[cell + 1] - knots[cell]
    back = knots[cell] + t * gap
    error = (back - u.clamp(knots[0], knots[-1])).abs().double()
    eps = torch.finfo(u.dtype).eps
    assert bool((error <= 4 * eps * max(book.reach, float(gap.max()))).all())


def test_a_value_on_a_knot_belongs_to_the_cell_below_it():
    cell, t = Codebook([-1.0, 0.0, 0.5, 2.0]).locate(torch.tensor([-1.0, 0.0, 0.5, 2.0, 0.25]))
    assert cell.tolist() == [0, 0, 1, 2, 1]
    assert t.tolist() == [0.0, 1.0, 1.0, 1.0, 0.5]


@pytest.mark.parametrize("name", ["uniform4", "unsigned2", "post4", "apot8"])
def test_locate_saturates_and_keeps_nan(name):
    book = BOOKS[name]
    cell, t = book.locate(torch.tensor([-math.inf, math.inf, math.nan, -1e30, 1e30]))
    assert t[2].isnan()
    keep = torch.tensor([0, 1, 3, 4])
    assert t[keep].tolist() == [0.0, 1.0, 0.0, 1.0]
    assert cell[keep].tolist() == [0, len(book) - 2] * 2


def test_t_has_slope_one_over_the_cell_width_inside_and_on_the_end_knots():
    book = Codebook([0.0, 0.5, 2.5])
    u = torch.tensor([0.0, 0.1, 1.0, 2.5, -0.1, 2.6], requires_grad=True)
    _, t = book.locate(u)
    (slope,) = torch.autograd.grad(t.sum(), u)
    assert slope.tolist() == [2.0, 2.0, 0.5, 0.5, 0.0, 0.0]


def test_emit_reads_levels_and_differentiates_in_t_only():
    book = Codebook([0.0, 1.0, 3.0], [-1.0, 0.1, 7.0])
    t = torch.tensor([0.0, 0.5, 1.0, 0.25], requires_grad=True)
    cell = torch.tensor([0, 0, 1, 1])
    value = book.emit(cell, t)
    assert torch.allclose(value.detach(), torch.tensor([-1.0, -0.45, 7.0, 1.825]))
    (slope,) = torch.autograd.grad(value.sum(), t)
    assert torch.allclose(slope, torch.tensor([1.1, 1.1, 6.9, 6.9]))
    book.levels.requires_grad_()  # even where levels are learned: their gradient goes through hard
    assert not book.emit(cell, t.detach()).requires_grad


@pytest.mark.parametrize("size", [1, 2, 3, 16, 64, 65, 66, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_count_below_counts_strictly_on_both_sides_of_its_switch(size, dtype):
    g = torch.Generator().manual_seed(size)
    borders = torch.rand(size - 1, generator=g, dtype=dtype).add(0.01).cumsum(0)
    inputs = [torch.randn(50, generator=g, dtype=dtype) * size]
    if size > 1:
        inputs.append(steps_around(borders, 2).flatten())
    u = torch.cat(inputs)
    assert count_below(u, borders).tolist() == oracles.codes(u.double().numpy(), borders.tolist()).tolist()


def test_count_below_leaves_its_input_alone_and_keeps_shapes():
    u = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    before = u.clone()
    for size in (5, 100):
        counted = count_below(u.t(), torch.linspace(-1, 1, size))
        assert counted.shape == (4, 3)
    assert count_below(torch.tensor(0.3), torch.tensor([0.0])).shape == ()
    assert torch.equal(u, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32, torch.int64, torch.uint8])
def test_take_is_indexing(dtype):
    levels = torch.tensor([5.0, 6.0, 8.0])
    code = torch.tensor([[2, 0, 1], [1, 1, 2]]).to(dtype)
    for layout in (code, code.t().contiguous().t()):
        assert take(levels, layout).tolist() == [[8.0, 5.0, 6.0], [6.0, 6.0, 8.0]]
    assert take(levels, torch.tensor(1).to(dtype)).tolist() == 6.0


@pytest.mark.parametrize("cast", ["half", "bfloat16", "float", "double"])
def test_a_cast_of_the_module_keeps_float64(cast):
    book = post(8)
    expected = book.knots.clone()
    getattr(book, cast)()
    assert book.knots.dtype == book.levels.dtype == torch.float64
    assert torch.equal(book.knots, expected)
    assert torch.equal(book.levels, expected)


def test_to_moves_but_keeps_float64():
    assert apot(3).to(torch.float16).knots.dtype == torch.float64


@pytest.mark.parametrize("source", [post(4), uniform(4), Codebook([0.0, 0.5], [1.0, 7.0])])
def test_state_dict_carries_another_grid_over(source):
    target = Codebook(torch.linspace(-1, 1, len(source)) ** 3)
    target.load_state_dict(source.state_dict())
    u = torch.linspace(-9, 9, 500)
    assert torch.equal(target.borders, source.borders)
    assert target.reach == source.reach
    for a, b in zip(target.locate(u), source.locate(u), strict=True):
        assert torch.equal(a, b)


def test_state_dict_needs_no_pickle():
    buffer = io.BytesIO()
    torch.save(post(4).state_dict(), buffer)
    buffer.seek(0)
    book = apot(4)
    book.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(book.levels, post(4).levels)


def test_deepcopy_shares_nothing():
    book = post(4)
    twin = copy.deepcopy(book)
    twin.levels.zero_()
    assert same_bits(book.levels, post(4).levels)


def test_its_name_and_size_show_in_its_repr():
    text = repr(Codebook([0.0, 0.25, 1.0], name="mine"))
    assert "mine" in text
    assert "3" in text


def test_learned_levels_learn():
    """The own table of a user: each level gets the sum of the gradients at it, and stays in order."""
    q = Quantizer(LearnedLevels([-1.0, 0.0, 1.0]), range=Fixed(0.5))
    x = torch.tensor([-2.0, -0.4, 0.1, 0.3, 0.6], requires_grad=True)
    g = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    y = q(x)
    assert y.tolist() == [-0.5, -0.5, 0.0, 0.5, 0.5]
    y.backward(g)
    assert q.codebook.levels.grad.tolist() == [1.5, 1.5, 4.5]  # times the scale
    assert x.grad.tolist() == [0.0, 2.0, 3.0, 4.0, 0.0]
    with torch.no_grad():
        q.codebook.levels.copy_(torch.tensor([1.0, 1.0, -3.0]))
    q.after_step(x)
    assert q.codebook.levels[0] == -3
    assert (q.codebook.levels.diff() > 0).all()
    other = Quantizer(LearnedLevels([-1.0, 0.0, 1.0]), range=Fixed(1.0))
    other.load_state_dict(q.state_dict())
    assert torch.equal(other(x), q(x))
