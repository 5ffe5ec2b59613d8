"""AQuant's theory of the border, and the table that a learned border freezes to."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qviz import CellBorder, Codebook, Quantizer, uniform
from qviz.core.range import MSE, Fixed
from qviz.methods.aquant import AdaptiveBorder, thresholds
from qviz.methods.aquant_border import (
    coarse_border,
    error_decomposition,
    expected_bias,
    optimal_border,
    ratio,
)
from qviz.recipes import aquant_activation

CELLS = range(4)
# AQuant, worked numbers 2 and 3: border and unbiased border of w = 1, and the biases at w' = 0.9.
BORDERS = {0.8: [0.4, 0.2, 0.0, -0.2], 1.2: [0.6, 0.8, 1.0, 1.2]}
UNBIASED = {0.8: [0.375, 0.125, -0.125, -0.375], 1.2: [7 / 12, 0.75, 11 / 12, 13 / 12]}
NEAREST_BIAS = [-0.05, -0.15, -0.25, -0.35]
OPTIMAL_BIAS = [-0.005, -0.015, -0.025, -0.035]


def encode_by_thresholds(u, table, axis=1):
    """The codes that a frozen border gives: comparisons with the table and nothing else."""
    book = Codebook(torch.arange(len(table) + 1) + math.floor(float(table.reshape(-1)[0])))
    return CellBorder(book, table, axis=axis).encode(u.double(), book).to(torch.uint8)


def close(a, b, tol=1e-12):
    return torch.allclose(
        torch.as_tensor(a).double(), torch.as_tensor(b, dtype=torch.float64), rtol=0, atol=tol
    )


def border_of(b, steps, channels=None, **kw):
    rounding = AdaptiveBorder(steps, channels=channels, **kw)
    with torch.no_grad():
        rounding.b.copy_(torch.as_tensor(b))
    return rounding


def worked():
    """sigmoid(0.4 - 0.6 u + 0.15 u²), R = 3, exactly in float64."""
    return border_of([0.4, -1.8, 1.35], 3).double()


# One product


@pytest.mark.parametrize("w_hat", [0.8, 1.2])
def test_the_worked_borders_of_one_product(w_hat):
    assert close(optimal_border(1.0, w_hat, CELLS), BORDERS[w_hat])
    assert close(optimal_border(1.0, w_hat, CELLS, unbiased=True), UNBIASED[w_hat])


def test_an_exact_weight_rounds_to_nearest_and_shapes_multiply():
    assert close(optimal_border([2.0, -3.0], [2.0, -3.0]), torch.full((2, 15), 0.5))
    assert optimal_border(torch.ones(2, 3), torch.ones(2, 3), torch.zeros(4, 5)).shape == (2, 3, 4, 5)
    assert optimal_border(1.0, 0.5, 3).shape == ()


def test_the_optimal_border_is_never_beaten_by_the_other_choice():
    g = torch.Generator().manual_seed(0)
    w = torch.randn(200_000, generator=g, dtype=torch.float64)
    w_hat = w * (torch.rand(200_000, generator=g, dtype=torch.float64) * 2 + 0.01)
    u = torch.rand(200_000, generator=g, dtype=torch.float64) * 15
    n = u.floor()
    b = (w_hat / w) * (n + 0.5) - n
    assert close(
        optimal_border(w[:100], w_hat[:100], n[:100]).diagonal(), b[:100]
    )  # the formula tested is the formula used
    up = u - n > b
    error = (w_hat * (n + up.double()) - w * u).abs()
    other = (w_hat * (n + (~up).double()) - w * u).abs()
    assert bool((error <= other + 1e-12).all())


def test_a_weight_of_the_other_sign_always_rounds_down():
    assert optimal_border(1.0, -0.5, CELLS).tolist() == [math.inf] * 4
    assert coarse_border([0.0, -2.0], CELLS).isinf().all()


def test_the_worked_biases():
    assert close(expected_bias(1.0, 0.9, CELLS), NEAREST_BIAS)
    assert close(expected_bias(1.0, 0.9, CELLS, border=optimal_border(1.0, 0.9, CELLS)), OPTIMAL_BIAS)
    unbiased = optimal_border(1.0, 0.9, CELLS, unbiased=True)
    assert close(expected_bias(1.0, 0.9, CELLS, border=unbiased), [0.0] * 4)


@pytest.mark.parametrize("rule", ["nearest", "optimal", "unbiased"])
@pytest.mark.parametrize("w_hat", [0.8, 0.9, 1.3])
def test_the_expected_bias_is_the_mean_over_a_cell_saturated_borders_too(w_hat, rule):
    """Monte Carlo within 4 standard errors, with the decisions made one by one."""
    n = torch.arange(6.0, dtype=torch.float64)
    if rule == "nearest":
        border = torch.full((6,), 0.5, dtype=torch.float64)
    else:
        border = optimal_border(1.0, w_hat, n, unbiased=rule == "unbiased")
    f = torch.rand(200_000, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    error = w_hat * (n + (f > border)) - (n + f)
    standard = error.std(0) / math.sqrt(len(f))
    assert bool(((error.mean(0) - expected_bias(1.0, w_hat, n, border=border)).abs() < 4 * standard).all())


# One channel, many outputs


def test_the_worked_ratio_and_its_border():
    w = torch.tensor([0.7, -0.4, 0.2], dtype=torch.float64)
    w_hat = torch.tensor([0.5, -0.5, 0.0], dtype=torch.float64)
    rho = ratio(w[:, None], w_hat[:, None])
    assert close(rho, [1.1])
    assert close(coarse_border(rho, CELLS)[0], [0.454545, 0.363636, 0.272727, 0.181818], 5e-7)


def test_the_ratio_sums_over_outputs_and_kernel_positions():
    g = torch.Generator().manual_seed(2)
    w, w_hat = torch.randn(2, 5, 3, 2, 2, generator=g, dtype=torch.float64)
    expected = []
    for c in range(3):
        top = sum(
            float(w[o, c, i, j] * w_hat[o, c, i, j]) for o in range(5) for i in range(2) for j in range(2)
        )
        low = sum(float(w_hat[o, c, i, j] ** 2) for o in range(5) for i in range(2) for j in range(2))
        expected.append(top / low)
    assert close(ratio(w, w_hat), expected)
    assert close(ratio(w.movedim(1, 0), w_hat.movedim(1, 0), axis=0), expected)


def test_a_channel_that_vanished_has_ratio_one():
    w = torch.ones(4, 2)
    assert ratio(w, w * torch.tensor([0.0, 0.5])).tolist() == [1.0, 2.0]


def test_the_coarse_border_is_optimal_for_all_outputs_together():
    g = torch.Generator().manual_seed(3)
    w = torch.randn(6, 100_000, generator=g, dtype=torch.float64)
    w_hat = w + 0.3 * torch.randn(6, 100_000, generator=g, dtype=torch.float64)
    u = torch.rand(100_000, generator=g, dtype=torch.float64) * 3
    n = u.floor()
    rho = ratio(w, w_hat)
    assert close(coarse_border(rho[:50], n[:50]).diagonal(), (n + 0.5)[:50] / rho[:50] - n[:50])
    up = u - n > torch.where(rho > 0, (n + 0.5) / rho - n, math.inf)
    cost = (w_hat * (n + up.double()) - w * u).square().sum(0)
    other = (w_hat * (n + (~up).double()) - w * u).square().sum(0)
    assert bool((cost <= other + 1e-12).all())
    assert torch.equal(up, u - n > 0.5 + (1 - rho) * u)  # the form in u decides alike


# Decomposition


def test_the_terms_are_the_published_ones_on_integers_exactly():
    g = torch.Generator().manual_seed(4)
    w, w_hat = torch.randint(-8, 8, (2, 5, 7), generator=g).double()
    x, x_hat, x_tilde = torch.randint(0, 16, (3, 2, 4, 7), generator=g).double()
    e = error_decomposition(w, w_hat, x, x_hat, x_tilde)
    assert e.total.shape == (2, 4, 5)
    assert torch.equal(e.weight + e.activation + e.propagated, e.total)
    o, i, k = 3, 1, 2
    row = range(7)
    assert e.weight[i, k, o] == sum((w_hat[o, j] - w[o, j]) * x_hat[i, k, j] for j in row)
    assert e.activation[i, k, o] == sum(w[o, j] * (x_hat[i, k, j] - x_tilde[i, k, j]) for j in row)
    assert e.propagated[i, k, o] == sum(w[o, j] * (x_tilde[i, k, j] - x[i, k, j]) for j in row)
    assert e.total[i, k, o] == sum(w_hat[o, j] * x_hat[i, k, j] - w[o, j] * x[i, k, j] for j in row)


@given(st.integers(0, 10_000), st.integers(1, 40), st.booleans())
def test_the_terms_add_up(seed, size, batched):
    g = torch.Generator().manual_seed(seed)
    w, w_hat = torch.randn(2, *((3, size) if batched else (size,)), generator=g)
    x, x_hat, x_tilde = torch.randn(3, 6, size, generator=g)
    e = error_decomposition(w, w_hat, x, x_hat, x_tilde)
    assert close(e.weight + e.activation + e.propagated, e.total, 1e-12)
    alone = error_decomposition(w, w_hat, x, x_hat)
    assert not alone.propagated.any()
    assert close(alone.weight + alone.activation, alone.total, 1e-12)


# Thresholds


def test_the_worked_border_function():
    rounding, book = worked(), uniform(2, signed=False)
    u = torch.tensor([0.4, 0.55, 1.5, 2.5], dtype=torch.float64)
    assert close(rounding.element(u, book), [0.545871, 0.528812, 0.459464, 0.459464], 5e-7)
    table = thresholds(rounding, book)
    assert close(table, [0.530896, 1.460975, 2.457964], 5e-7)
    points = torch.tensor([0.4, 0.55, 1.45, 1.5, 2.45, 2.5], dtype=torch.float64)
    assert rounding.encode(points, book).tolist() == [0, 1, 1, 2, 2, 3]
    assert encode_by_thresholds(points, table).tolist() == [0, 1, 1, 2, 2, 3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_paths_give_the_same_integers_on_300_thousand_points(dtype):
    rounding, book = worked(), uniform(2, signed=False)
    u = torch.rand(300_000, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * 5 - 1
    u = u.to(dtype)
    table = thresholds(rounding, book)
    assert torch.equal(encode_by_thresholds(u, table), rounding.encode(u, book).to(torch.uint8))


def around(table, ulps, dtype):
    """Each finite threshold of a (R, C) table and its neighbouring floats, (C, R * (2 ulps + 1))."""
    columns = [table.to(dtype)]
    for end in (-math.inf, math.inf):
        at = columns[0]
        for _ in range(ulps):
            at = torch.nextafter(at, torch.tensor(end, dtype=dtype))
            columns.append(at)
    return torch.stack(columns, 1).flatten(0, 1).T


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_around_the_thresholds_the_paths_differ_by_few_ulps_only(bits, dtype):
    steps, book = 2**bits - 1, uniform(bits, signed=False)
    g = torch.Generator().manual_seed(bits)
    rounding = AdaptiveBorder(steps, channels=20, axis=0)
    with torch.no_grad():
        rounding.b.copy_(torch.randn(3, 20, generator=g) * torch.tensor([[2.0], [2.0 * steps], [steps]]))
    rounding.guard(0.9)
    rounding.to(torch.float64)  # both dtypes of u meet the same coefficients
    table = thresholds(rounding, book)
    assert table.shape == (steps, 20)
    assert bool((table.diff(dim=0) > 0).all())
    # beyond u = hi the direct path is at hi, where one of these borders may be within rounding of 1
    u = around(table, 20, dtype).clamp(max=steps)
    direct, folded = rounding.encode(u, book).to(torch.uint8), encode_by_thresholds(u, table, axis=0)
    at = table.repeat_interleave(41, 0).T
    b = rounding.b.detach()[:, :, None]
    v = at / steps
    s = torch.sigmoid(b[0] + b[1] * v + b[2] * v * v)
    allowed = 2 * torch.finfo(dtype).eps * steps / (1 - s * (1 - s) * (b[1] + 2 * b[2] * v) / steps)
    assert bool(((direct == folded) | ((u.double() - at).abs() <= allowed)).all())
    assert (direct != folded).double().mean() < 0.1
    far = (torch.rand(20, 10_000, generator=g, dtype=torch.float64) * (steps + 1) - 1).to(dtype)
    row, column = (
        rounding.encode(far, book).to(torch.uint8) != encode_by_thresholds(far, table, axis=0)
    ).nonzero(as_tuple=True)
    nearest = (far.double()[row, column] - table[:, row]).abs().min(0).values if len(row) else torch.zeros(1)
    assert len(row) < 100
    assert float(nearest.max()) <= 20 * torch.finfo(dtype).eps * steps


def test_a_threshold_is_the_last_value_that_goes_down():
    rounding, book = worked(), uniform(2, signed=False)
    table = thresholds(rounding, book)
    after = torch.nextafter(table, torch.full_like(table, math.inf))
    assert rounding.encode(table, book).tolist() == [0, 1, 2]
    assert rounding.encode(after, book).tolist() == [1, 2, 3]
    for columns in (table, table[:, None]):  # for all, and by channel
        assert encode_by_thresholds(table[:, None], columns).flatten().tolist() == [0, 1, 2]
        assert encode_by_thresholds(after[:, None], columns).flatten().tolist() == [1, 2, 3]


def test_zero_coefficients_fold_to_the_midpoints_and_signed_books_shift():
    assert close(thresholds(AdaptiveBorder(15), uniform(4, signed=False)), torch.arange(15.0) + 0.5)
    signed = border_of([0.4, -1.8, 1.35], 3)
    u = torch.linspace(-3, 3, 5001)
    table = thresholds(signed, uniform(2))
    assert close(table, thresholds(signed, uniform(2, signed=False)) - 2, 1e-12)
    assert torch.equal(encode_by_thresholds(u, table), signed.encode(u, uniform(2)).to(torch.uint8))


@given(st.integers(1, 4), st.integers(0, 999), st.floats(0.01, 3.0))
def test_codes_are_neighbours_of_u_rise_with_it_and_fall_with_the_border(bits, seed, more):
    steps, book = 2**bits - 1, uniform(bits, signed=False)
    g = torch.Generator().manual_seed(seed)
    rounding = border_of(torch.randn(3, generator=g) * torch.tensor([2.0, 2.0 * steps, 2.0 * steps]), steps)
    rounding.guard()
    u = (torch.rand(300, generator=g, dtype=torch.float64) * (steps + 2) - 1).sort().values
    code, inside = rounding.encode(u, book), u.clamp(0, steps)
    assert bool(((code == inside.floor()) | (code == inside.ceil())).all())
    assert bool((code.diff() >= 0).all())
    assert torch.equal(code.to(torch.uint8), encode_by_thresholds(u, thresholds(rounding, book)))
    with torch.no_grad():
        rounding.b[0] += more  # a higher border everywhere
    assert bool((rounding.encode(u, book) <= code).all())


@pytest.mark.parametrize("logit", [60.0, -60.0])
def test_borders_that_saturate_agree_at_the_knots_and_beyond_the_end(logit):
    book, rounding = uniform(2, signed=False), border_of([logit, 0.0, 0.0], 3)
    table = thresholds(rounding, book)
    u = torch.tensor([-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 9.0, math.inf], dtype=torch.float64)
    assert encode_by_thresholds(u, table).tolist() == rounding.encode(u, book).tolist()
    assert bool(torch.isfinite(table).all())


@pytest.mark.parametrize(("degree", "same"), [(0, [0.4, 0.0, 0.0]), (1, [0.4, -1.8, 0.0])])
def test_coefficients_beyond_the_degree_do_not_count(degree, same):
    book = uniform(2, signed=False)
    rounding = border_of([0.4, -1.8, 1e9], 3, degree=degree)
    assert torch.equal(thresholds(rounding, book), thresholds(border_of(same, 3), book))
    u = torch.linspace(0, 3, 999, dtype=torch.float64)
    assert encode_by_thresholds(u, thresholds(rounding, book)).tolist() == rounding.encode(u, book).tolist()


def test_the_codes_of_a_recipe_come_from_its_table():
    g = torch.Generator().manual_seed(6)
    x = torch.randn(4, 5, 6, 6, generator=g).relu()
    q = aquant_activation(3, channels=5, step=0.25)
    w = torch.randn(8, 5, 3, 3, generator=g)
    q.rounding.analytic(ratio(w, Quantizer(uniform(2), range=MSE(0)).observe(w)(w)))
    q.rounding.guard()
    table = thresholds(q.rounding, q.codebook)
    assert torch.equal(encode_by_thresholds(x / 0.25, table), q.codes(x))
    assert (
        q.codes(x) != Quantizer(uniform(3, signed=False), range=Fixed(0.25)).codes(x)
    ).any()  # or nothing was tested


# Worked number 8: what learning adds


@torch.no_grad()
def output_error(q, x, target, w):
    return float((q(x) @ w.mT - target).square().mean())


@pytest.mark.parametrize("bits", [(2, 2), (3, 3)])
def test_a_learned_border_beats_rounding_to_nearest_on_held_out_data(bits):
    bits_w, bits_a = bits
    g = torch.Generator().manual_seed(7)
    w = torch.randn(64, 64, generator=g)
    x = torch.randn(2048, 64, generator=g).relu()
    w_hat = Quantizer(uniform(bits_w), range=MSE(0)).observe(w)(w)
    nearest = Quantizer(uniform(bits_a, signed=False), range=MSE()).observe(x)
    step = float(nearest.range.scale)
    q = aquant_activation(bits_a, channels=64, step=step)
    target, seen, held = x @ w.mT, x[:1024], x[1024:]
    before = output_error(nearest, held, target[1024:], w_hat)
    assert output_error(q, held, target[1024:], w_hat) == pytest.approx(before, rel=1e-6)  # zero init
    optimiser = torch.optim.Adam([q.rounding.b], lr=0.05)
    for _ in range(40):
        optimiser.zero_grad()
        (q(seen) @ w_hat.mT - target[:1024]).square().mean().backward()
        optimiser.step()
    q.rounding.guard()
    after = output_error(q, held, target[1024:], w_hat)
    assert after < 0.97 * before
    codes = q.codes(held)
    u = (held / step).clamp(0, 2**bits_a - 1)
    assert bool(((codes == u.floor()) | (codes == u.ceil())).all())
    table = thresholds(q.rounding, q.codebook)
    assert torch.equal(encode_by_thresholds(held / q.range.scale, table), codes)


# Refusals


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: optimal_border(1.0, 0.0, CELLS), "must not be 0"),
        (lambda: optimal_border([1.0, 2.0], [1.0], CELLS), r"one shape, got \(2,\) and \(1,\)"),
        (lambda: optimal_border(1.0, math.nan, CELLS), "w_hat holds 1 of 1"),
        (lambda: coarse_border(math.inf, CELLS), "rho holds 1 of 1"),
        (lambda: ratio(torch.ones(3), torch.ones(3)), "axis 1 does not exist"),
        (lambda: ratio(torch.ones(2, 3), torch.full((2, 3), math.nan)), "w_hat holds 6 of 6"),
        (lambda: error_decomposition(torch.ones(3), torch.ones(3), *torch.ones(2, 4)), r"got \(3,\), \(4,\)"),
        (
            lambda: error_decomposition(torch.ones(3), torch.ones(3), torch.ones(3), torch.ones(2, 3)),
            "one shape, got",
        ),
        (lambda: thresholds(AdaptiveBorder(3), uniform(3)), "3 steps needs 4 consecutive integers"),
        (lambda: thresholds(AdaptiveBorder(3, channels=2, fused=True), uniform(2)), "neighbors"),
        (lambda: thresholds(border_of([0.0, 12.0, 0.0], 3), uniform(2)), "reaches 12, .* 4 R = 12"),
        (lambda: thresholds(border_of([0.0, -5.0, 9.0], 3), uniform(2)), "reaches 13, .* 4 R = 12"),
        (lambda: thresholds(border_of([0.0, math.nan, 0.0], 3), uniform(2)), "reaches nan"),
    ],
)
def test_bad_input_is_refused_with_its_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_guard_makes_a_refused_border_foldable():
    rounding = border_of([0.3, 40.0, -90.0], 3)
    with pytest.raises(ValueError, match="reaches 140"):
        thresholds(rounding, uniform(2, signed=False))
    rounding.guard()
    assert bool((thresholds(rounding, uniform(2, signed=False)).diff() > 0).all())


def test_nothing_is_changed_and_integers_are_no_weights():
    w, w_hat, x = torch.randn(3, 4), torch.randn(3, 4), torch.randn(5, 4)
    copies = w.clone(), w_hat.clone(), x.clone()
    ratio(w, w_hat)
    error_decomposition(w, w_hat, x, x)
    assert all(torch.equal(a, b) for a, b in zip((w, w_hat, x), copies, strict=True))
    with pytest.raises(TypeError, match="int64"):
        ratio(torch.ones(2, 2, dtype=torch.int64), torch.ones(2, 2))


def test_a_frozen_quantizer_has_the_same_codes_for_each_channel():
    q = aquant_activation(3, channels=4, step=0.2)
    with torch.no_grad():
        q.rounding.b.copy_(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)) * 2)
    q.rounding.guard()
    x = torch.randn(6, 4, 9, 9, generator=torch.Generator().manual_seed(1)).relu()
    frozen = Quantizer(q.codebook, q.rounding.freeze(q.codebook), range=q.range)
    assert torch.equal(frozen.codes(x), q.codes(x))
    assert torch.equal(frozen(x), q(x))
    assert not torch.equal(frozen.codes(x), Quantizer(q.codebook, range=q.range).codes(x))
    with pytest.raises(ValueError, match="5 channels"):
        frozen(torch.ones(1, 5, 2, 2))
