"""The table of leading bits: exact for every float, and only made where it can be."""

import math

import pytest
import torch
from torch import Tensor

from qviz import apot, post, pot
from qviz.core.lookup import FEW, count_below, table, take

SIZE = 1 << 20


def brute(u: Tensor, borders: Tensor, values: Tensor) -> Tensor:
    """The definition, one border at a time."""
    code = torch.zeros(u.shape, dtype=torch.int64)
    for border in borders.tolist():
        code += u > border
    return values[code]


def read(borders: Tensor, values: Tensor, u: Tensor) -> Tensor:
    """The same by the table."""
    made = table(borders, SIZE)
    assert made is not None
    return take(made.of(values), made.place(u))


def awkward(borders: Tensor) -> Tensor:
    """Each border and its neighbours, zeros of both signs, subnormals, large floats, a bucket's first."""
    points = [borders, torch.tensor([0.0, -0.0, 1e-45, -1e-45, 1e-38, -1e-38, 3.4e38, -3.4e38])]
    below = above = borders
    for _ in range(40):
        below = torch.nextafter(below, torch.full_like(below, -math.inf))
        above = torch.nextafter(above, torch.full_like(above, math.inf))
        points += [below, above]
    for shift in (17, 20):  # where a bucket begins and ends
        start = (borders.view(torch.int32) >> shift) << shift
        points += [start.view(torch.float32), (start - 1).view(torch.float32)]
    points = torch.cat(points)
    return points[points.isfinite()]


BOOKS = {
    "pot4": pot(4),
    "pot8": pot(8),
    "post4": post(4),
    "post7": post(7),
    "apot5": apot(5),
}


@pytest.mark.parametrize("name", BOOKS)
def test_equals_the_count_of_borders(name):
    book = BOOKS[name]
    borders, values = book.borders.float(), book.levels.float()
    normal = torch.randn(20_000, generator=torch.Generator().manual_seed(0)) * 0.5
    for u in (awkward(borders), normal, 1e-6 * normal):
        assert torch.equal(read(borders, values, u), brute(u, borders, values))


@pytest.mark.parametrize("seed", range(20))
def test_random_borders(seed):
    g = torch.Generator().manual_seed(seed)
    borders = torch.unique(torch.randn(5 + 3 * seed, generator=g) * 10.0 ** float(seed % 7 - 3))
    values = torch.arange(len(borders) + 1).float()
    u = torch.cat([awkward(borders), borders.abs().max() * torch.randn(5_000, generator=g)])
    if table(borders, SIZE) is not None:
        assert torch.equal(read(borders, values, u), brute(u, borders, values))
    assert torch.equal(count_below(u, borders).float(), brute(u, borders, values))


def test_a_border_at_minus_zero_is_one_at_zero():
    borders = torch.tensor([-3.0, -2.0, -1.0, -0.0, 1.0])
    u = torch.tensor([-1e-45, -0.0, 0.0, 1e-45])
    assert read(borders, torch.arange(6), u).tolist() == [3, 3, 3, 4]


def test_nan_reads_as_nan_and_infinity_as_an_end():
    book = post(4)
    largest = torch.finfo(torch.float32).max
    signalling = [0x7F800001, 0x7F900000, -8388607]  # as integers; what division makes of them is quiet
    odd = torch.tensor([*signalling, 0x7FC00000, 0x7FFFFFFF, -1, -4194304], dtype=torch.int32)
    odd = odd.view(torch.float32) / torch.tensor(1.0)
    assert odd.isnan().all()
    u = torch.cat([odd, torch.tensor([math.inf, largest, -largest, -math.inf])])
    found = read(book.borders.float(), book.levels.float(), u)
    assert found[:-4].isnan().all()
    assert found[-4:].tolist() == [1.0, 1.0, -1.0, -1.0]


def test_codes_of_infinity_are_the_last_ones():
    borders = post(4).borders.float()
    u = torch.tensor([math.inf, -math.inf])
    assert read(borders, torch.arange(len(borders) + 1), u).tolist() == [len(borders), 0]


def test_refused_where_it_cannot_be_exact_or_does_not_pay():
    borders = torch.arange(10).float()
    assert table(borders, SIZE) is not None
    assert table(borders, 1000) is None
    assert table(borders.double(), SIZE) is None
    assert table(borders[:FEW], SIZE) is None
    close = torch.cat([borders, torch.tensor([9.0000001, 9.000002])])
    assert table(close.unique(), SIZE) is None
