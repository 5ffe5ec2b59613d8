"""The oracles against each other, against torch's layers and against finite differences or enumeration."""

import itertools
import math

import numpy as np
import pytest
import torch

from tests import oracles as scalar
from tests.nn.ptq import oracles
from tests.nn.ptq.oracles import Geometry

EXACT = 1e-10
LEVELS = [-1.5, -0.5, 0.5, 1.5]  # 2 bits
GEOMETRIES = [
    ((4, 2, 3, 3), Geometry(padding=(1, 1))),
    ((4, 2, 3, 2), Geometry(stride=(2, 1), padding=(1, 2), dilation=(1, 2))),
    ((6, 2, 2, 3), Geometry(stride=(1, 2), dilation=(2, 1), groups=2)),
    ((4, 1, 3, 3), Geometry(padding=(1, 1), groups=4)),  # depthwise
]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def close(a, b, atol=EXACT):
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=atol)


def row(rng, n=5, samples=12):
    """Weights of one row and H = Σ x xᵀ of correlated inputs (samples, n)."""
    x = rng.normal(size=(samples, n)) @ rng.normal(size=(n, n))
    return rng.normal(size=n), x, x.T @ x


def nearest(value, column=0):
    return min(LEVELS, key=lambda level: abs(level - value))


def images(rng, w, geometry):
    return rng.normal(size=(2, w.shape[1] * geometry.groups, 6, 5))


# --- reconstruction ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 2, 5)])
@pytest.mark.parametrize("p", [2.0, 2.4])
def test_reconstruction_loss_is_a_sum_over_channels_and_a_mean_over_the_rest(rng, shape, p):
    out, target = rng.normal(size=shape), rng.normal(size=shape)
    total = sum(abs(out[i] - target[i]) ** p for i in np.ndindex(shape))
    close(oracles.reconstruction_loss(out, target, p), total / (out.size / shape[1]))


def test_the_regularizer_costs_its_weight_at_one_half_and_nothing_where_the_rounding_is_decided():
    close(oracles.rounding_regularizer(np.array([0.0, 0.0, 9.0, -9.0]), 7.0, 0.01), 0.02)


@pytest.mark.parametrize("beta", [20.0, 6.5, 2.0])
def test_the_regularizers_gradient_is_its_derivative(rng, beta):
    v = np.concatenate([rng.uniform(-2.2, 2.2, 7), [-4.0, 4.0]])  # the last two are clipped
    numeric = scalar.numeric_gradient(lambda at: oracles.rounding_regularizer(at, beta, 0.3), v)
    close(oracles.rounding_regularizer_gradient(v, beta, 0.3), numeric, atol=1e-6)


def test_beta_waits_for_the_warm_up_and_falls_in_a_line():
    assert oracles.rounding_beta(19.9, 100) is None
    assert [oracles.rounding_beta(t, 100) for t in (20, 60, 100)] == [20, 11, 2]


def test_qdrops_mixture_has_the_mean_and_the_variance_of_independent_choices(rng):
    x, quantized, w = rng.normal(size=(3, 4))
    mean, stay = 0.3 * x + 0.7 * quantized, 0.3
    close(oracles.qdrop_expectation(lambda mixed: mixed, x, quantized, stay), mean)
    squared = oracles.qdrop_expectation(lambda mixed: (w @ mixed) ** 2, x, quantized, stay)
    close(squared, (w @ mean) ** 2 + stay * (1 - stay) * (w**2 @ (x - quantized) ** 2))


# --- layers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "geometry"), GEOMETRIES)
def test_the_convolution_is_torchs_and_im2col_spells_the_same(rng, shape, geometry):
    w = rng.normal(size=shape)
    x = images(rng, w, geometry)
    y = oracles.convolve(x, w, geometry)
    theirs = torch.nn.functional.conv2d(
        torch.from_numpy(x),
        torch.from_numpy(w),
        None,
        geometry.stride,
        geometry.padding,
        geometry.dilation,
        geometry.groups,
    )
    close(y, theirs.numpy())
    rows = oracles.im2col(x, shape[2:], geometry)
    kernels = w.reshape(geometry.groups, -1, rows.shape[2])
    by_group = np.einsum("gmk,gok->gom", rows, kernels).reshape(len(w), -1)
    close(by_group, np.moveaxis(y, 1, 0).reshape(len(w), -1))


@pytest.mark.parametrize(("shape", "geometry"), GEOMETRIES)
def test_the_gram_form_equals_the_direct_loss_of_a_convolution(rng, shape, geometry):
    w, w_hat = rng.normal(size=(2, *shape))
    x = images(rng, w, geometry)
    grams = oracles.gram(x, shape[2:], geometry)
    close(oracles.gram_loss(w_hat, w, grams), oracles.layer_loss(w_hat, w, x, geometry))


def test_the_gram_form_equals_the_direct_loss_of_a_linear_layer(rng):
    w, w_hat = rng.normal(size=(2, 3, 4))
    x = rng.normal(size=(5, 2, 4))  # two axes of samples
    close(oracles.gram_loss(w_hat, w, oracles.gram(x)), oracles.layer_loss(w_hat, w, x))


# --- one row under H ---------------------------------------------------------------------------------------


def test_the_row_error_is_the_samples_squared_error(rng):
    w, x, h = row(rng)
    close(oracles.row_error(np.zeros(5), w, h), sum(float(sample @ w) ** 2 for sample in x))


def test_the_update_of_the_free_weights_is_the_least_squares_fit(rng):
    w, x, h = row(rng)
    free, q, value = [1, 4, 2], 4, 0.5  # 0 and 3 are fixed already
    moved, growth = oracles.remaining_update(w, h, free, q, value)
    fit = np.linalg.lstsq(x[:, [1, 2]], -x[:, q] * (value - w[q]), rcond=None)[0]
    expected = w.copy()
    expected[[1, 2]] += fit
    expected[q] = value
    close(moved, expected)
    close(growth, oracles.row_error(expected, w, h))


@pytest.mark.parametrize("order", [None, [3, 0, 4, 1, 2]])
def test_the_sweep_fits_the_free_weights_to_all_errors_made_and_adds_up_its_error(rng, order):
    w, x, h = row(rng)
    asked = {}

    def grid(value, column):
        asked[column] = value
        return nearest(value)

    w_hat, total = oracles.gptq(w, h, grid, order)
    close(total, oracles.row_error(w_hat, w, h))
    order = order or list(range(5))
    assert list(asked) == order
    for k, q in enumerate(order):
        fixed, free = order[:k], order[k:]
        error = x[:, fixed] @ (w_hat[fixed] - w[fixed])
        fit = np.linalg.lstsq(x[:, free], -error, rcond=None)[0]
        close(asked[q], w[q] + fit[0])
    # what the Cholesky factor of H⁻¹ says of the same errors
    upper = np.linalg.cholesky(np.linalg.inv(h[np.ix_(order, order)])).T
    errors = np.array([asked[q] - w_hat[q] for q in order])
    close(total, ((errors / np.diag(upper)) ** 2).sum())


def test_no_rounding_beats_the_enumerated_one_and_all_agree_without_correlation():
    for seed in range(10):
        w, _, h = row(np.random.default_rng(seed))
        w_hat, bound = oracles.best_rounding(w, h, LEVELS)
        close(bound, oracles.row_error(w_hat, w, h))
        plain = np.array([nearest(a) for a in w])
        for other in (plain, oracles.gptq(w, h, nearest)[0]):
            assert bound <= oracles.row_error(other, w, h) + EXACT
        alone = np.diag(np.diag(h))
        close(oracles.best_rounding(w, alone, LEVELS)[0], plain)
        close(oracles.gptq(w, alone, nearest)[0], plain)


def test_a_row_on_the_grid_is_its_own_best_rounding(rng):
    w, _, h = row(rng, n=6)
    w[:] = rng.choice(LEVELS, 6)
    w[0] = LEVELS[-1]
    w_hat, error = oracles.best_rounding(w, h, LEVELS)
    close(w_hat, w)
    assert error == 0


def test_the_best_change_is_the_best_of_all_single_ones_until_none_is_left(rng):
    w, _, h = row(rng)
    w_hat = np.array([LEVELS[k % 4] for k in range(5)])

    def lowest_of_neighbors():
        neighbors = []
        for q, level in itertools.product(range(5), LEVELS):
            neighbor = w_hat.copy()
            neighbor[q] = level
            neighbors.append(oracles.row_error(neighbor, w, h))
        return min(neighbors)

    changes = 0
    while (change := oracles.best_change(w_hat, w, h, LEVELS)) is not None:
        before, lowest = oracles.row_error(w_hat, w, h), lowest_of_neighbors()
        w_hat[change[0]] = change[1]
        close(oracles.row_error(w_hat, w, h), lowest)
        close(change[2], lowest - before)
        changes += 1
    assert changes > 1
    close(oracles.row_error(w_hat, w, h), lowest_of_neighbors())


def test_the_best_scale_is_where_the_error_has_no_slope(rng):
    w, _, h = row(rng)
    codes = np.round(3 * w)
    slope = scalar.numeric_gradient(
        lambda s: oracles.row_error(s[0] * codes, w, h), np.array([oracles.best_scale(codes, w, h)])
    )
    close(slope, 0, atol=1e-7)


def test_the_asymmetric_scale_minimizes_the_direct_loss_and_is_that_of_the_moved_target(rng):
    w, x, h = row(rng)
    x_hat, codes = np.round(x), np.round(3 * w)
    scale = oracles.best_scale_asymmetric(codes, w, x_hat, x)

    def loss(s):
        return oracles.layer_loss(s[0] * codes[None], w[None], x, x_hat=x_hat)

    close(scalar.numeric_gradient(loss, np.array([scale])), 0, atol=1e-7)
    target = oracles.asymmetric_target(w, x_hat, x)
    close(oracles.best_scale(codes, target, x_hat.T @ x_hat), scale)
    close(oracles.best_scale_asymmetric(codes, w, x, x), oracles.best_scale(codes, w, h))


# --- statistics --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 3), (4, 1, 3, 3)])
def test_a_folded_batchnorm_is_torchs(rng, shape):
    w, geometry = rng.normal(size=shape), Geometry(padding=(1, 1), groups=4)
    x = rng.normal(size=(5, 3) if len(shape) == 2 else (2, 4, 5, 5))
    bias, mean, gamma, beta = rng.normal(size=(4, 4))
    var = rng.uniform(0.01, 2, size=4)
    channels = (1, -1) if len(shape) == 2 else (1, -1, 1, 1)
    out = torch.from_numpy(oracles.layer(x, w, geometry) + bias.reshape(channels))
    normed = torch.nn.functional.batch_norm(out, *map(torch.from_numpy, (mean, var, gamma, beta)), eps=0.1)
    folded_w, folded_bias = oracles.fold_batchnorm(w, bias, mean, var, gamma, beta, eps=0.1)
    close(oracles.layer(x, folded_w, geometry) + folded_bias.reshape(channels), normed.numpy())


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 2, 5)])
def test_the_corrected_bias_is_the_one_of_the_lowest_loss(rng, shape):
    out, target = rng.normal(size=shape), rng.normal(size=shape)
    channels = (1, -1, *[1] * (len(shape) - 2))
    slope = scalar.numeric_gradient(
        lambda shift: oracles.reconstruction_loss(out + shift.reshape(channels), target),
        oracles.bias_correction(out, target),
    )
    close(slope, 0, atol=1e-7)


def test_mean_and_std_are_the_targets_after_the_correction(rng):
    out, target = rng.normal(size=(4, 3, 2, 5)), rng.normal(2.0, 3.0, size=(4, 3, 2, 5))
    gain, shift = (a.reshape(1, 3, 1, 1) for a in oracles.mean_and_std_correction(out, target))
    for c in range(3):
        corrected = (gain * out + shift)[:, c]
        close([corrected.mean(), corrected.std()], [target[:, c].mean(), target[:, c].std()])


def test_with_epsilon_the_correction_is_batchnorm_with_re_estimated_statistics(rng):
    out, target = rng.normal(size=(40, 3)), rng.normal(2.0, 3.0, size=(40, 3))
    gain, shift = oracles.mean_and_std_correction(out, target, eps=0.1)

    def normed(x, of):
        return (x - of.mean(0)) / np.sqrt(of.var(0) + 0.1)

    close(normed(gain * out + shift, of=target), normed(out, of=out))


# --- the border, the errors, the room ----------------------------------------------------------------------


def test_a_constant_borders_gradient_is_the_slope_of_the_hard_rounding_on_evenly_spread_values():
    step, high, n = 0.5, 3, 300_000
    x = step * high * (np.arange(n) + 0.5) / n
    g = np.ones(n) / n

    def mean(b):
        return float(oracles.bordered(x, step, high, [b[0]]).mean())

    at = np.array([0.4])
    numeric = scalar.numeric_gradient(mean, at, h=0.05)
    close(oracles.border_gradient(x, g, step, high, at), numeric, atol=1e-4)
    # within δ of a border that is further than δ from 0 and 1 lies the part 2 δ of the values
    part = oracles.border_gradient(x, g, step, high, at, within=0.15)
    close(part, 0.3 * numeric, atol=1e-4)


def test_the_borders_gradient_differentiates_the_straight_line_through_the_border(rng):
    step, high, b = 0.3, 3, np.array([0.4, -1.8, 1.35])
    x, g = rng.uniform(-0.5, 1.5, 40), rng.normal(size=40)
    x[:3] = 0.0, 0.9, 0.6  # both ends, and an inner integer
    u = x / step
    inside = (u > 0) & (u < high)

    def line(at):
        return float((-step * g * oracles.border(u, high, at))[inside].sum())

    ours = oracles.border_gradient(x, g, step, high, b)
    close(ours, scalar.numeric_gradient(line, b), atol=1e-8)
    close(ours, scalar.aquant(x, g, step, high, b).grads["b"])
    at_zero = -step * g[0] * 0.25 * math.cosh(0.2) ** -2 * np.array([1, 0, 0])  # σ'(z) = 1 / (4 cosh² z/2)
    z = b.sum()
    at_top = -step * g[1] * 0.25 * math.cosh(z / 2) ** -2 * np.ones(3)
    close(oracles.border_gradient(x, g, step, high, b, ends=True), ours + at_zero + at_top)


def test_the_bordered_codes_are_the_notes():
    u = np.array([0.4, 0.55, 1.45, 1.5, 2.45, 2.5, -1.0, 7.0])
    close(oracles.bordered(u, 1.0, 3, [0.4, -1.8, 1.35]), [0, 1, 1, 2, 2, 3, 0, 3])


def test_weight_activation_and_propagated_error_are_the_three_products_and_make_the_whole(rng):
    w, w_hat = rng.normal(size=(2, 3, 4))
    x, x_prefix = rng.normal(size=(2, 5, 4))
    parts = oracles.error_decomposition(
        lambda w, x, rounded: oracles.layer(np.round(x) if rounded else x, w), w, w_hat, x, x_prefix
    )
    rounded = np.round(x_prefix)
    products = [(w_hat - w, rounded), (w, rounded - x_prefix), (w, x_prefix - x)]
    for part, (weights, inputs) in zip(parts, products, strict=True):
        close(part, oracles.layer(inputs, weights))
    close(sum(parts), oracles.layer(rounded, w_hat) - oracles.layer(x, w))


def test_every_element_is_rounded_both_ways_inside_the_range_once():
    tried = [list(x) for x in oracles.floors_and_ceilings(np.array([-1.0, 0.3, 2.0, 2.7, 9.0]), 1.0, 3)]
    assert sorted(tried) == [[0, a, 2, b, 3] for a in (0, 1) for b in (2, 3)]


def test_one_element_is_rounded_by_the_closed_form_border(rng):
    """B(u) = 0.5 + (1 - ρ) u with ρ = <w', w> / <w', w'>, the border of one input that many outputs share."""
    w = rng.normal(size=6)
    w_hat = w + 0.2 * rng.normal(size=6)
    rho = w_hat @ w / (w_hat @ w_hat)
    ups = 0
    for u in rng.uniform(0, 3, 60):
        rounded, _ = oracles.best_floors_and_ceilings(
            np.array([u]), 1.0, 3, lambda x, u=u: float(((w_hat * x - w * u) ** 2).sum())
        )
        up = u - math.floor(u) > 0.5 + (1 - rho) * u
        assert rounded[0] == math.floor(u) + up
        ups += up != (u - math.floor(u) > 0.5)
    assert ups > 0  # nearest rounding would not do


def test_the_room_of_a_tiny_input_is_that_of_a_least_squares_problem_over_the_floors(rng):
    """The rounding of x under an error of W x is that of a row under H = Wᵀ W."""
    w, x = rng.normal(size=(3, 5)), rng.uniform(0, 1, 5)

    def error(rounded):
        return float(((w @ (rounded - x)) ** 2).sum())

    rounded, lowest = oracles.best_floors_and_ceilings(x, 1.0, 3, error)
    same, bound = oracles.best_rounding(x, w.T @ w, [0.0, 1.0])
    close(rounded, same)
    close(lowest, bound)
    assert lowest < error(np.round(x))
