import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qviz import post
from qviz.export.lut import post_lut, split_accumulate, table_dot
from qviz.recipes import lsq, post_weight

RESNET18 = 11.69e6


def drawn(lut, seed, *shape_w, n=None):
    g = torch.Generator().manual_seed(seed)
    codes = torch.randint(len(lut.sign), shape_w, generator=g)
    acts = torch.randint(2**lut.bits_a, shape_w[-1:] if n is None else (n, shape_w[-1]), generator=g)
    return codes, acts


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("grid", ["strict", "paper"])
def test_the_tables_decode_to_the_levels_of_the_grid(bits, grid):
    if bits == 8 and grid == "paper":
        with pytest.raises(ValueError, match="257 levels"):
            post_lut(bits, grid=grid)
        return
    lut, levels = post_lut(bits, 3, grid=grid), post(bits, grid=grid).levels
    assert torch.equal(lut.sign.double() * lut.value[lut.magnitude.long()], levels)
    assert lut.value[0] == 0
    assert lut.exponent[0] == -1
    for value, j in zip(lut.value[1:].tolist(), lut.exponent[1:].tolist(), strict=True):
        assert value == pytest.approx(2.0 ** (-j / 2), rel=1e-15)
    assert sorted(lut.exponent[1:].tolist()) == list(range(len(levels) // 2))
    assert torch.equal(lut.products, lut.value[:, None] * torch.arange(8.0, dtype=torch.float64))


def test_four_bits_need_128_entries():
    lut = post_lut(4)
    assert lut.products.shape == (8, 16)
    assert lut.entries == 128
    assert round(100 * lut.entries / RESNET18, 4) == 0.0011
    assert [post_lut(b).entries for b in (2, 3, 5)] == [8, 32, 512]
    assert post_lut(4, 2).entries == 32
    assert post_lut(4, grid="paper").entries == 9 * 16


@pytest.mark.parametrize(
    ("bits", "grid"), [(b, "strict") for b in range(2, 9)] + [(b, "paper") for b in range(2, 8)]
)
def test_the_accumulators_are_exact_integers(bits, grid):
    """Against Fractions: even weights are exactly ±2^-s, odd ones exactly that over sqrt 2."""
    lut = post_lut(bits, 8, grid=grid)
    assert lut.shift == 2 ** (bits - 2) - 1  # on both grids: no more bits than needed
    codes, acts = drawn(lut, bits, 300)
    exact = [Fraction(0), Fraction(0)]
    middle = len(lut.sign) // 2
    for code, a in zip(codes.tolist(), acts.tolist(), strict=True):
        if code != middle:
            j = middle - abs(code - middle)
            exact[j % 2] += Fraction(a, 2 ** (j // 2)) * (1 if code > middle else -1)
    sums = split_accumulate(lut, codes, acts)
    assert isinstance(sums.even, int)
    assert isinstance(sums.odd, int)
    assert (Fraction(sums.even, 2**sums.shift), Fraction(sums.odd, 2**sums.shift)) == tuple(exact)


@given(st.integers(2, 8), st.integers(1, 8), st.integers(1, 60), st.integers(0, 9999))
def test_both_ways_equal_the_direct_dot_product(bits_w, bits_a, size, seed):
    lut = post_lut(bits_w, bits_a)
    codes, acts = drawn(lut, seed, 3, size, n=2)
    w = post(bits_w).levels[codes]
    direct = acts.double() @ w.mT
    tolerance = 1e-12 * (acts.double() @ w.abs().mT).clamp(min=1.0)
    split = torch.from_numpy(split_accumulate(lut, codes, acts).value())
    assert bool(((split - direct).abs() <= tolerance).all())
    assert bool(((table_dot(lut, codes, acts) - direct).abs() <= tolerance).all())


def test_shapes_follow_the_matrix_product():
    lut = post_lut(3)
    codes, acts = drawn(lut, 0, 5, 7, n=4)
    full = split_accumulate(lut, codes, acts)
    assert full.even.shape == full.odd.shape == table_dot(lut, codes, acts).shape == (4, 5)
    assert full.even.dtype == object
    for n in range(4):
        row = split_accumulate(lut, codes, acts[n])
        assert list(row.even) == list(full.even[n])
        assert torch.equal(table_dot(lut, codes, acts[n]), table_dot(lut, codes, acts)[n])
        for o in range(5):
            one = split_accumulate(lut, codes[o], acts[n])
            assert (one.even, one.odd) == (full.even[n, o], full.odd[n, o])
            assert table_dot(lut, codes[o], acts[n]) == pytest.approx(full.value()[n, o], abs=1e-12)
    assert split_accumulate(lut, codes[0], acts).even.shape == table_dot(lut, codes[0], acts).shape == (4,)


def test_eight_bits_overflow_no_accumulator():
    """All weights at the clip: 1000 × 255 × 2^63 needs more than 64 bits."""
    lut = post_lut(8)
    sums = split_accumulate(lut, torch.full((1000,), 254), torch.full((1000,), 255))
    assert lut.shift == 63
    assert (sums.even, sums.odd) == (255_000 << 63, 0)
    assert sums.value() == 255_000.0


def test_a_quantized_layer_computes_from_its_codes_alone():
    g = torch.Generator().manual_seed(3)
    w = torch.randn(6, 40, generator=g, dtype=torch.float64)
    x = torch.randn(10, 40, generator=g, dtype=torch.float64).relu()
    weight, activation = post_weight(4, channels=6).observe(w), lsq(4, signed=False).observe(x)
    alpha, step = weight.range.scale.double(), activation.range.scale.double()
    sums = split_accumulate(post_lut(4), weight.codes(w), activation.codes(x))
    direct = activation(x) @ weight(w).mT
    assert np.allclose(sums.value(alpha.numpy(), float(step)), direct.detach().numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("codes", "acts", "error", "message"),
    [
        (torch.tensor([15]), torch.tensor([1]), ValueError, "codes must be 0 … 14, got 15 to 15"),
        (torch.tensor([-1]), torch.tensor([1]), ValueError, "codes must be 0 … 14, got -1"),
        (torch.tensor([1]), torch.tensor([16]), ValueError, "activations must be 0 … 15, got 16"),
        (
            torch.tensor([1.0]),
            torch.tensor([1]),
            TypeError,
            "codes must be an integer tensor, got torch.float32",
        ),
        (torch.tensor([1]), [1], TypeError, "activations must be an integer tensor, got list"),
        (torch.tensor([1]), torch.tensor([True]), TypeError, "torch.bool"),
        (torch.tensor([1, 2]), torch.tensor([1]), ValueError, r"got \(2,\) and \(1,\)"),
        (torch.tensor(1), torch.tensor([1]), ValueError, r"got \(\) and \(1,\)"),
    ],
)
@pytest.mark.parametrize("function", [split_accumulate, table_dot])
def test_bad_operands_are_refused(function, codes, acts, error, message):
    with pytest.raises(error, match=message):
        function(post_lut(4), codes, acts)


@pytest.mark.parametrize(
    ("args", "message"), [((1,), "got 1"), ((9,), "got 9"), ((4, 0), "got 0"), ((4, 9), "got 9")]
)
def test_bad_bits_are_refused(args, message):
    with pytest.raises(ValueError, match=message):
        post_lut(*args)


def test_operands_keep_their_values():
    codes, acts = torch.tensor([14, 0], dtype=torch.uint8), torch.tensor([3, 200], dtype=torch.uint8)
    sums = split_accumulate(post_lut(4, 8), codes, acts)
    assert (codes.tolist(), acts.tolist()) == ([14, 0], [3, 200])
    assert sums.value() == 3 - 200  # bytes did not wrap
    assert math.isclose(float(table_dot(post_lut(4, 8), codes, acts)), -197.0)
