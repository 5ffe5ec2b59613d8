"""DAQ's soft argmax, its temperature controller and its bounds, against slow loops and worked numbers."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from qviz import recipes
from qviz.methods.daq import LearnedBounds, SoftArgmax
from tests import oracles
from tests.methods.checks import GRADIENT, KINDS, VALUE, close, difference, normal, numbers, run, slope_of

CONSTANTS = [(2.0, 1.0), (2.0, 2.0), (0.3, 0.5), (1.0, 2.0), (4.0, 1.0), (8.0, 5.0)]


# x, sigma, score below, score above, β*, Q, slope; β* of the rows at the middle was taken 1e-6 away from it
REFERENCE = [
    (0.0, 1, 1, 0.135335, 2.313035, 0, 0.362031),
    (1.0, 1, 1, 0.135335, 2.313035, 1, 0.362031),
    (3.0, 1, 1, 0.135335, 2.313035, 3, 0.362031),
    (0.10, 1, 0.904837, 0.149569, 2.648064, 0, 0.384924),
    (0.25, 1, 0.778801, 0.173774, 3.305638, 0, 0.434104),
    (0.40, 1, 0.670320, 0.201897, 4.269640, 0, 0.513399),
    (0.5, 1, 0.606531, 0.223130, 5.216466, 0, 0.596646),
    (0.5 + 1e-9, 1, 0.223130, 0.606531, 5.216466, 1, 0.596646),
    (0.75, 1, 0.173774, 0.778801, 3.305638, 1, 0.434104),
    (2.30, 1, 0.740818, 0.182684, 3.583364, 2, 0.456213),
    (2.0, 2, 1, 0.286505, 2.803102, 2, 0.497152),
    (0.25, 2, 0.778801, 0.367879, 4.867112, 0, 0.769401),
    (0.40, 2, 0.670320, 0.427415, 8.233668, 0, 1.246034),
    (0.5, 2, None, None, 14.906997, 0, 2.217241),
    (0.5 + 1e-9, 2, None, None, 14.906997, 1, 2.217241),
]


def inside(n: int = 400, seed: int = 0) -> Tensor:
    """Coordinates in (0, 1), float64, none of them within 1e-6 of the middle."""
    t = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return t[((t - 0.5).abs() > 1e-6) & (t > 1e-6) & (t < 1 - 1e-6)]


def unit_daq(sigma: float, gamma: float = 2.0):
    """DAQ on [0, 3] with levels 0, 1/3, 2/3, 1."""
    return recipes.daq_activation(2, gamma=gamma, sigma=sigma, bounds=(0.0, 3.0)).double()


# --- the recipes and their bounds against the loop ---------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_daq_weight(kind):
    for (gamma, sigma), bits in itertools.product(
        [(2.0, 1.0), (2.0, 2.0), (0.5, 0.6), (4.0, 3.0)], [1, 2, 3]
    ):
        top = 2**bits - 1
        low, high = -top * 0.5, top * 0.5  # one step is exactly 1
        q = recipes.daq_weight(bits, gamma=gamma, sigma=sigma, bounds=(low, high)).double()
        w = numbers(kind, 1.0, 0, top, low)
        g = normal(w.shape, 1)
        want = oracles.daq(w.numpy(), g.numpy(), low, high, bits, weight=True, gamma=gamma, sigma=sigma)
        y, dw, grads = run(q, w, g)
        close(y, want.y, VALUE)
        close(dw, want.dx, GRADIENT)
        size = float(g.abs().sum())
        close(grads["lower"], want.grads["low"], GRADIENT, size)
        close(grads["upper"], want.grads["high"], GRADIENT, size)


@pytest.mark.parametrize("kind", KINDS)
def test_daq_activation(kind):
    for bits in [1, 2, 4]:
        top = 2**bits - 1
        q = recipes.daq_activation(bits, bounds=(0.0, top * 0.25)).double()
        x = numbers(kind, 0.25, 0, top)
        g = normal(x.shape, 1)
        want = oracles.daq(x.numpy(), g.numpy(), 0.0, top * 0.25, bits, weight=False, sigma=2.0)
        y, dx, grads = run(q, x, g)
        close(y, want.y, VALUE)
        close(dx, want.dx, GRADIENT)
        close(grads["upper"], want.grads["high"], GRADIENT, 4 * float(g.abs().sum()))
        assert "lower" not in grads


@pytest.mark.parametrize("bounds", [(-2.7, 3.1), (-0.3, 0.9)])
def test_daq_with_bounds_that_are_not_round(bounds):
    bounds = tuple(float(torch.tensor(b)) for b in bounds)  # as float32 parameters hold them
    x = normal((300,), 1)
    g = normal(x.shape, 2)
    for q, weight, sigma in (
        (recipes.daq_weight(3, bounds=bounds), True, 1.0),
        (recipes.daq_activation(3, signed=True, bounds=bounds), True, 2.0),
    ):
        want = oracles.daq(x.numpy(), g.numpy(), *bounds, 3, weight=weight, sigma=sigma)
        y, dx, grads = run(q.double(), x, g)
        close(y, want.y, VALUE)
        close(dx, want.dx, GRADIENT)
        close(grads["lower"], want.grads["low"], GRADIENT)
        close(grads["upper"], want.grads["high"], GRADIENT)


@pytest.mark.parametrize(("beta", "sigma"), [(1.0, 1.0), (5.0, 1.0), (20.0, 2.0), (3.0, 1e9)])
@pytest.mark.parametrize("signed", [True, False])
def test_soft_argmax_at_a_fixed_temperature(beta, sigma, signed):
    bounds = (-1.5, 1.5) if signed else (0.0, 3.0)
    q = recipes.soft_argmax(2, beta=beta, sigma=sigma, signed=signed, bounds=bounds).double()
    g = torch.Generator().manual_seed(0)
    x = bounds[0] + 3 * torch.rand(300, generator=g, dtype=torch.float64)
    x = torch.cat([x, bounds[0] + torch.arange(3.0) + 0.5, torch.tensor([bounds[0] - 1])]).double()
    g = normal(x.shape, 1)
    want = oracles.daq(x.numpy(), g.numpy(), *bounds, 2, weight=signed, sigma=sigma, beta=beta)
    y, dx, grads = run(q, x, g)
    close(y, want.y, VALUE)
    close(dx, want.dx, GRADIENT)
    close(grads["upper"], want.grads["high"], GRADIENT, float(g.abs().sum()))


@pytest.mark.parametrize("at", [1.0, 2.0, 3.0, 4.0])
def test_soft_argmax_at_a_level_takes_the_cell_below(at):
    # ties go down here: the mirror image of the formula with q_f = floor(x), which would score R + 1 at R
    q = recipes.soft_argmax(2, beta=1.0, signed=False, bounds=(0.0, 3.0)).double()
    x = torch.tensor([at], dtype=torch.float64)
    level = min(at, 3.0)
    want = (2 * level - oracles.daq_phi(level, 1.0, 1.0)[0]) / 3
    assert want <= 1
    assert q(x).item() == pytest.approx(want, abs=1e-12)


def test_daq_bounds_are_observed():
    w = (normal((400,), 1) * 0.7 + 0.2).float()
    mean, std = w.mean().item(), w.std().item()
    q = recipes.daq_weight(2).observe(w)
    assert (q.range.lower.item(), q.range.upper.item()) == pytest.approx(
        (mean - 3 * std, mean + 3 * std), rel=1e-5
    )
    x = w.clamp(min=0)
    q = recipes.daq_activation(2).observe(x)
    assert (q.range.lower.item(), q.range.upper.item()) == pytest.approx((0, 3 * x.std().item()), rel=1e-5)
    q = recipes.daq_activation(2, signed=True).observe(w)
    assert (q.range.lower.item(), q.range.upper.item()) == pytest.approx((-3 * std, 3 * std), rel=1e-5)


@pytest.mark.parametrize("x", [torch.full((7,), 0.4), torch.tensor([0.4]), torch.tensor(0.4)])
def test_daq_bounds_of_a_constant_are_bounds(x):
    for q in (recipes.daq_weight(2), recipes.daq_activation(2)):
        q.observe(x)
        assert q.range.lower < q.range.upper
        assert q(x).isfinite().all()


@pytest.mark.parametrize("weight", [True, False])
def test_daq_bounds_by_finite_differences_of_the_softmax_with_its_temperature_frozen(weight):
    low, high = (-1.7, 2.1) if weight else (0.0, 2.1)
    low, high = float(torch.tensor(low)), float(torch.tensor(high))
    make = recipes.daq_weight if weight else recipes.daq_activation
    q = make(2, bounds=(low, high), sigma=1.0).double()
    x = normal((60,), 1) * 1.5
    g = normal(x.shape, 2)
    _, dx, grads = run(q, x, g)

    def z(a, low, high):
        return oracles.clip(3 * (a - low) / (high - low), 0, 3)

    frozen = [oracles.daq_controlled(z(a, low, high), 2.0, 1.0)[0] for a in x.tolist()]
    lam = 1 / (1 + math.exp(2.0))

    def f(low, high, xs):
        total = 0.0
        for a, beta, up in zip(xs, frozen, g.tolist(), strict=True):
            at = z(a, low, high)
            turn = math.floor(at) + 0.5
            out = (oracles.daq_phi(at, beta, 1.0)[0] - turn) / (1 - 2 * lam) + turn
            total += up * ((2 * out - 3) / 3 if weight else out / 3)
        return total

    close(grads["upper"], difference(lambda v: f(low, v, x.tolist()), high, 1e-6), 1e-6)
    if weight:
        close(grads["lower"], difference(lambda v: f(v, high, x.tolist()), low, 1e-6), 1e-6)
    numeric = oracles.numeric_gradient(lambda a: f(low, high, a.tolist()), x.numpy(), 1e-6)
    close(dx, numeric, 1e-6)


def test_daq_one_bit_levels():
    w = normal((100,), 1)
    assert recipes.daq_weight(1, bounds=(-3.0, 3.0)).double()(w).unique().tolist() == [-1.0, 1.0]
    levels = recipes.daq_weight(2).codebook.levels.tolist()
    np.testing.assert_allclose(levels, [-1, -1 / 3, 1 / 3, 1], rtol=1e-15)
    for bits in range(1, 9):
        top = 2**bits - 1
        assert recipes.daq_activation(bits).codebook.levels.tolist() == [k / top for k in range(top + 1)]
        assert 0 not in recipes.daq_weight(bits).codebook.levels.tolist()


# --- the reference numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("row", REFERENCE)
def test_reference_numbers(row):
    x, sigma, below, above, beta, level, slope = row
    score = oracles.daq_score(x, sigma)
    if below is not None:
        assert (score.score_lower, score.score_upper) == pytest.approx((below, above), abs=1e-6)
    assert oracles.daq_controlled(x, 2.0, sigma)[0] == pytest.approx(beta, rel=1e-5)
    for f in (unit_daq(sigma), unit_daq(sigma).reference):
        leaf = torch.tensor([x], dtype=torch.float64, requires_grad=True)
        y = f(leaf)
        y.sum().backward()
        assert 3 * y.item() == pytest.approx(level, abs=1e-12)
        assert 3 * leaf.grad.item() == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize(("gamma", "sigma", "f", "slope"), [(1, 2, 0.3, 1.354875), (4, 1, 0.1, 0.102314)])
def test_two_more_slopes(gamma, sigma, f, slope):
    s = SoftArgmax(gamma, sigma)
    assert s.slope(torch.tensor(f, dtype=torch.float64)).item() == pytest.approx(slope, abs=1e-6)
    assert oracles.daq_slope(f, gamma, sigma) == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize(("sigma", "mean"), [(1.0, 0.448466), (2.0, 0.921520)])
def test_the_mean_slope_of_a_cell(sigma, mean):
    t = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    assert SoftArgmax(2.0, sigma).slope(t).mean().item() == pytest.approx(mean, abs=1e-6)
    a = 1 / (2 * sigma**2)
    closed = 2 / math.sinh(2) * math.log(math.sinh(0.5 + a) / math.sinh(a))
    assert closed == pytest.approx(mean, abs=1e-6)


@pytest.mark.parametrize(
    ("beta", "want"),
    [
        (1.0, [0.2964, 0.3532, 0.3952, 0.6048, 0.6468]),
        (5.0, [0.0131, 0.0463, 0.1065, 0.8935, 0.9537]),
        (20.0, [0.0, 0.0, 0.0002, 0.9998, 1.0]),
    ],
)
def test_fixed_temperatures(beta, want):
    t = torch.tensor([0, 0.25, 0.45, 0.55, 0.75], dtype=torch.float64)
    np.testing.assert_allclose(SoftArgmax(beta=beta).relax(t).numpy(), want, atol=5e-5)
    q = recipes.soft_argmax(2, beta=beta, signed=False, bounds=(0.0, 3.0)).double()
    np.testing.assert_allclose(3 * q(t).detach().numpy(), want, atol=5e-5)


def test_constants_of_the_rescale():
    lam = 1 / (1 + math.exp(2.0))
    assert lam == pytest.approx(0.119202922, abs=1e-9)
    assert 1 - 2 * lam == pytest.approx(math.tanh(1.0)) == pytest.approx(0.761594156, abs=1e-9)
    assert 1 / (math.exp(2.0) - 1) == pytest.approx(0.156517643, abs=1e-9)


def test_the_kernel_follows_the_code_and_not_the_word_standard_deviation():
    middle = torch.tensor(0.5, dtype=torch.float64)
    assert SoftArgmax(sigma=1.0).slope(middle).item() == pytest.approx(0.596646, abs=1e-6)
    # with exp(−1/(2σ²)) it would be 1.13 and 4.42
    assert oracles.daq_slope(0.5, 2.0, 1.0, factor=2.0) == pytest.approx(1.13, abs=5e-3)
    assert oracles.daq_slope(0.5, 2.0, 2.0, factor=2.0) == pytest.approx(4.42, abs=1e-2)


# --- invariants --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gamma", "sigma"), CONSTANTS)
def test_forward_is_rounding_for_every_constant(gamma, sigma):
    for bits in [1, 2, 3, 8]:
        top = 2**bits - 1
        q = recipes.daq_activation(bits, gamma=gamma, sigma=sigma, bounds=(0.0, float(top))).double()
        g = torch.Generator().manual_seed(0)
        x = torch.rand(500, generator=g, dtype=torch.float64) * (top + 2) - 1
        x = torch.cat([x, torch.arange(-1, 2 * top + 2, dtype=torch.float64) / 2])
        want = torch.ceil(x.clamp(0, top) - 0.5)
        for f in (q, q.reference):
            assert torch.equal(f(x), want / top)
            q.eval()
            assert torch.equal(f(x), want / top)
            q.train()


@pytest.mark.parametrize(("gamma", "sigma"), CONSTANTS)
def test_relax_under_the_controller_is_rounding(gamma, sigma):
    t = inside()
    np.testing.assert_allclose(
        SoftArgmax(gamma, sigma).relax(t).numpy(), (t > 0.5).double().numpy(), atol=1e-12
    )


@pytest.mark.parametrize(("gamma", "sigma"), CONSTANTS)
def test_without_the_rescale_the_distance_to_rounding_is_lambda(gamma, sigma):
    for t in inside(50).tolist():
        beta, _, _ = oracles.daq_controlled(t, gamma, sigma)
        m = SoftArgmax(sigma=sigma, beta=beta).relax(torch.tensor(t, dtype=torch.float64)).item()
        assert abs(m - (t > 0.5)) == pytest.approx(1 / (1 + math.exp(gamma)), rel=1e-10)


@pytest.mark.parametrize("sigma", [0.7, 1.0, 2.0])
@pytest.mark.parametrize("beta", [0.5, 5.0, 50.0])
def test_a_fixed_temperature_is_monotone_in_half_cells_and_bounded(beta, sigma):
    t = torch.linspace(0, 1, 2001, dtype=torch.float64)
    m = SoftArgmax(sigma=sigma, beta=beta).relax(t)
    low, high = m[:1001], m[1001:]  # the middle goes down
    assert (low.diff() >= 0).all()
    assert (high.diff() >= 0).all()
    kappa = math.exp(-1 / sigma**2)
    bound = oracles.sigmoid(-beta * math.exp(-0.5) * (1 - kappa))
    assert (m - (t > 0.5).double()).abs().max() <= bound + 1e-12


def test_a_fixed_temperature_tends_to_rounding_and_without_kernel_passes_through_the_middle():
    t = inside()
    far = (t - 0.5).abs() > 0.01
    gaps = [
        (SoftArgmax(beta=b).relax(t) - (t > 0.5).double())[far].abs().max() for b in (10.0, 100.0, 1000.0)
    ]
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-12
    for beta in (0.5, 5.0, 500.0):
        middle = SoftArgmax(sigma=1e9, beta=beta).relax(torch.tensor(0.5, dtype=torch.float64))
        assert middle.item() == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize("surrogate", [SoftArgmax(beta=3.0), SoftArgmax(), SoftArgmax(1.0, 2.0)])
def test_symmetry_about_the_transition_point(surrogate):
    t = inside()
    up, down = surrogate.relax(t), surrogate.relax(1 - t)
    np.testing.assert_allclose((up - 0.5).numpy(), (0.5 - down).numpy(), atol=1e-12)
    torch.testing.assert_close(
        slope_of(surrogate.relax, t), slope_of(surrogate.relax, 1 - t), rtol=1e-9, atol=0
    )


@pytest.mark.parametrize(("gamma", "sigma"), CONSTANTS)
def test_the_slope_is_the_closed_form_and_bounded(gamma, sigma):
    s, t = SoftArgmax(gamma, sigma), inside()
    graph = slope_of(s.relax, t)
    want = torch.tensor([oracles.daq_slope(v, gamma, sigma) for v in t.tolist()], dtype=torch.float64)
    torch.testing.assert_close(graph, want, rtol=1e-12, atol=0)
    torch.testing.assert_close(s.slope(t), want, rtol=1e-12, atol=0)
    a, g = 1 / (2 * sigma**2), gamma / (2 * math.sinh(gamma))
    assert graph.min() >= g / math.tanh(0.5 + a) * (1 - 1e-12)
    assert graph.max() <= g / math.tanh(a) * (1 + 1e-12)
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(slope_of(s.relax, ends), torch.full_like(ends, g / math.tanh(0.5 + a)))


def test_a_temperature_that_is_not_held_leaves_no_gradient():
    t = inside().requires_grad_(True)
    kappa = math.exp(-1.0)
    upper = t > 0.5
    low = torch.exp(-t) * torch.where(upper, kappa, torch.ones_like(t))
    high = torch.exp(t - 1) * torch.where(upper, torch.ones_like(t), kappa)
    gap = high - low
    m = torch.sigmoid(2.0 / gap.abs() * gap)
    (dt,) = torch.autograd.grad(m.sum(), t, retain_graph=True)
    assert dt.abs().max() < 1e-6
    held = torch.sigmoid((2.0 / gap.abs()).detach() * gap)
    (dt,) = torch.autograd.grad(held.sum(), t)
    torch.testing.assert_close(dt / math.tanh(1.0), SoftArgmax().slope(t.detach()), rtol=1e-12, atol=0)


def test_clipped_values_move_neither_input_nor_bounds():
    q = recipes.daq_weight(2, bounds=(-3.0, 3.0)).double()
    x = torch.tensor([-3.1, -9.0, 3.0 + 1e-9, 1e6], dtype=torch.float64, requires_grad=True)
    q(x).sum().backward()
    assert x.grad.tolist() == [0, 0, 0, 0]
    assert (q.range.lower.grad.item(), q.range.upper.grad.item()) == (0, 0)
    ends = torch.tensor([-3.0, 3.0], dtype=torch.float64, requires_grad=True)
    q(ends).sum().backward()  # the closed interval passes
    np.testing.assert_allclose(ends.grad.numpy(), 0.362031 * 2 / 3 * 3 / 6, atol=1e-6)


def test_the_bounds_share_the_inputs_gradient():
    q = recipes.daq_weight(2, bounds=(-3.0, 3.0)).double()
    x = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    q(x).sum().backward()
    z, slope = 3 * (0.7 + 3) / 6, x.grad.item() * 6 / 3
    assert q.range.upper.grad.item() == pytest.approx(-z / 6 * slope, rel=1e-12)
    assert q.range.lower.grad.item() == pytest.approx(-(3 - z) / 6 * slope, rel=1e-12)
    total = q.range.upper.grad.item() + q.range.lower.grad.item()
    assert total == pytest.approx(-3 / 6 * slope, rel=1e-12)


def test_the_slope_is_periodic():
    q = unit_daq(1.0)
    t = inside(100)
    first = slope_of(q, t)
    for k in (1.0, 2.0):
        torch.testing.assert_close(slope_of(q, t + k), first, rtol=1e-9, atol=0)


@pytest.mark.parametrize(("gamma", "sigma"), CONSTANTS)
def test_fused_is_the_softmax_graph(gamma, sigma):
    q = unit_daq(sigma, gamma)
    x = torch.rand(500, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 4 - 0.5
    assert torch.equal(q(x), q.reference(x))
    torch.testing.assert_close(slope_of(q, x), slope_of(q.reference, x), rtol=1e-12, atol=1e-14)


def test_the_gap_between_training_and_testing():
    # train: as the recipe computes; test: plain rounding to the same levels. A fixed temperature has a gap.
    x = torch.rand(1000, generator=torch.Generator().manual_seed(2)) * 4 - 2
    daq = recipes.daq_weight(2, bounds=(-1.5, 1.5))
    assert torch.equal(daq.train()(x), daq.eval()(x))
    assert torch.equal(daq.train()(x), daq.dequantize(daq.codes(x)))
    for beta, least in ((1.0, 0.2), (5.0, 0.02), (20.0, 1e-5)):
        soft = recipes.soft_argmax(2, beta=beta, bounds=(-1.5, 1.5))
        gap = (soft(x) - soft.dequantize(soft.codes(x))).abs().mean()
        assert gap > least
    assert torch.equal(soft.dequantize(soft.codes(x)), daq(x))


# --- gradcheck ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [1.0, 2.0, 1e9])
@pytest.mark.parametrize("beta", [0.5, 4.0])
def test_gradcheck_of_the_soft_argmax(beta, sigma):
    t = inside(60)
    t = t[(t - 0.5).abs() > 1e-3].requires_grad_(True)
    assert torch.autograd.gradcheck(SoftArgmax(sigma=sigma, beta=beta).relax, t)


@pytest.mark.parametrize("signed", [True, False])
def test_gradcheck_of_the_soft_argmax_recipe_and_its_bounds(signed):
    q = recipes.soft_argmax(2, beta=4.0, signed=signed, bounds=(-1.5, 1.5) if signed else (0.0, 3.0)).double()
    low = -1.5 if signed else 0.0
    x = (low + 3 * inside(40)).round(decimals=3) + 1e-4
    z = x - low
    x = x[((z % 0.5) > 0.01) & ((z % 0.5) < 0.49)].requires_grad_(True)
    names = [n for n, _ in q.named_parameters()]

    def f(x: Tensor, *bounds: Tensor) -> Tensor:
        return torch.func.functional_call(q, dict(zip(names, bounds, strict=True)), (x,))

    bounds = [p.detach().clone().requires_grad_(True) for p in q.parameters()]
    assert torch.autograd.gradcheck(f, (x, *bounds))


def test_the_slope_at_a_fixed_temperature_is_that_of_the_graph():
    t = torch.cat([inside(), torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)])
    for s in (SoftArgmax(beta=2.0), SoftArgmax(sigma=2.0, beta=30.0)):
        assert s.closed_form() is None
        torch.testing.assert_close(s.slope(t), slope_of(s.relax, t), rtol=1e-13, atol=0)


@pytest.mark.parametrize("beta", [None, 5.0])
@pytest.mark.parametrize("row", [row for row in REFERENCE if row[2] is not None])
def test_the_scores_are_those_of_the_worked_numbers(row, beta):
    x, sigma, below, above, found, *_ = row
    t = torch.tensor([x % 1.0], dtype=torch.float64)
    got = SoftArgmax(sigma=sigma, beta=beta).scores(t)
    used = found if beta is None else beta
    want = (below, above, used, 1 / (1 + math.exp(-used * (above - below))))
    assert [float(v) for v in got] == pytest.approx(want, abs=2e-5)


# --- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda b: recipes.daq_weight(2, bounds=b),
        lambda b: recipes.daq_activation(2, signed=True, bounds=b),
        lambda b: recipes.soft_argmax(2, beta=1.0, bounds=b),
    ],
)
def test_bounds_that_are_no_interval(make):
    for bounds in [(1.0, 1.0), (2.0, -1.0), (math.nan, 1.0), (0.0, math.nan), (-math.inf, 1.0)]:
        with pytest.raises(ValueError, match=str(bounds[0])):
            make(bounds)


def test_an_unsigned_range_starts_at_zero():
    with pytest.raises(ValueError, match=r"-1\.0"):
        recipes.daq_activation(2, bounds=(-1.0, 1.0))
    with pytest.raises(ValueError, match=r"1\.0"):
        LearnedBounds(3, signed=False, init=(1.0, 2.0))


@pytest.mark.parametrize("bad", [0.0, -2.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["gamma", "sigma", "beta"])
def test_a_constant_that_is_not_positive_and_finite(name, bad):
    with pytest.raises(ValueError, match=f"{name}.*{bad}"):
        SoftArgmax(**{name: bad})


@pytest.mark.parametrize("bad", [0.0, -2.0])
def test_the_recipes_refuse_such_constants(bad):
    for make in (recipes.daq_weight, recipes.daq_activation):
        with pytest.raises(ValueError, match=str(bad)):
            make(2, gamma=bad)
        with pytest.raises(ValueError, match=str(bad)):
            make(2, sigma=bad)
    with pytest.raises(ValueError, match=str(bad)):
        recipes.soft_argmax(2, beta=bad)
