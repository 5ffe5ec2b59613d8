"""N2UQ's learned thresholds and its generalized straight-through estimator."""

import math

import numpy as np
import pytest
import torch

from qviz import Fixed, Quantizer, Stochastic, recipes
from qviz.methods.lsq_plus import LearnedAffine
from qviz.methods.n2uq import InOutScale, LearnedKnots
from tests import oracles
from tests.methods.checks import GRADIENT, VALUE, close, normal


def worked() -> LearnedKnots:
    return LearnedKnots(2, start=0.25, widths=[0.5, 1.0, 2.0], step=1.0)


def n2uq(bits: int, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    n = 2**bits - 1
    q = recipes.n2uq_activation(bits, start=0.1, widths=(torch.rand(n, generator=g) + 0.2) * 2 / n).double()
    with torch.no_grad():
        q.range.scale_in.fill_(1.25)
        q.range.scale_out.fill_(0.75)
    return q


@pytest.mark.parametrize(
    ("x", "code", "e", "dx", "da", "dt"),
    [
        (2.3, 2, 2.275, 0.5, (-0.5, -0.5, -0.1375), -0.5),
        (1.0, 1, 1.25, 1.0, (-1.0, -0.25, 0.0), -1.0),
        (0.4, 0, 0.3, 2.0, (-0.6, 0.0, 0.0), -2.0),
        (5.0, 3, 3.0, 0.0, (0.0, 0.0, 0.0), 0.0),
    ],
)
def test_worked_generalized_ste(x, code, e, dx, da, dt):
    book = worked()
    edges = [0.25, 0.75, 1.75, 3.75]
    assert book.knots.tolist() == edges
    assert book.borders.tolist() == [0.5, 1.25, 2.75]
    assert oracles.n2uq_thresholds(edges) == [0.5, 1.25, 2.75]
    assert oracles.n2uq_expectation(x, edges, 1.0) == pytest.approx(e, abs=1e-12)
    slope, to_start, to_widths = oracles.n2uq_partials(x, edges, 1.0)
    assert (slope, to_start, *to_widths) == pytest.approx((dx, dt, *da), abs=1e-12)
    q = Quantizer(book, range=Fixed(1.0)).double()
    for f in (q, q.reference):
        q.zero_grad()
        leaf = torch.tensor([x], dtype=torch.float64, requires_grad=True)
        y = f(leaf)
        y.sum().backward()
        assert y.item() == code
        assert leaf.grad.item() == pytest.approx(dx, abs=1e-12)
        assert book.widths.grad.tolist() == pytest.approx(list(da), abs=1e-12)
        assert book.start.grad.item() == pytest.approx(dt, abs=1e-12)


@pytest.mark.parametrize(("x", "mean"), [(2.3, 2.275), (1.0, 1.25), (0.4, 0.3)])
def test_the_surrogate_is_the_expectation_of_stochastic_rounding(x, mean):
    q = Quantizer(worked(), Stochastic(torch.Generator().manual_seed(0)), range=Fixed(1.0))
    n = 1_000_000
    with torch.no_grad():
        y = q(torch.full((n,), x, dtype=torch.float64))
    p = mean - math.floor(mean)
    assert abs(y.mean().item() - mean) < 4 * math.sqrt(p * (1 - p) / n)


def test_equal_widths_are_the_plain_estimator():
    q = Quantizer(LearnedKnots(3), range=Fixed(1.0)).double()
    d = 2 / 7
    close(q.codebook.borders.detach().numpy(), [(k + 0.5) * d for k in range(7)], 1e-6)
    x = torch.rand(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2
    leaf = x.clone().requires_grad_(True)
    y = q(leaf)
    y.sum().backward()
    close(leaf.grad.numpy(), 1.0, 1e-6)
    plain = recipes.ste(3, signed=False, range=Fixed(d)).double()
    close(y.detach().numpy(), plain(x).numpy(), 1e-6)


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_n2uq(bits, seed):
    q = n2uq(bits, seed)
    x = 1.5 * normal(300, seed) + 0.7
    g = normal(300, seed + 10)
    widths = q.codebook.widths.tolist()
    want = oracles.n2uq(x.numpy(), g.numpy(), q.codebook.start.item(), widths, 1.25, 0.75)
    leaf = x.clone().requires_grad_(True)
    y = q(leaf)
    y.backward(g)
    close(y.detach().numpy(), want.y, VALUE)
    close(leaf.grad.numpy(), want.dx, GRADIENT)
    close(q.codebook.start.grad.item(), want.grads["start"], GRADIENT)
    close(q.codebook.widths.grad.numpy(), want.grads["widths"], GRADIENT)
    close(q.range.scale_in.grad.item(), want.grads["s_in"], GRADIENT)
    close(q.range.scale_out.grad.item(), want.grads["s_out"], GRADIENT)


@pytest.mark.parametrize("kind", ["ties", "edges", "saturated", "constant", "subnormal", "zeros"])
def test_n2uq_on_awkward_numbers(kind):
    q = recipes.n2uq_activation(2, start=0.25, widths=[0.5, 1.0, 2.0]).double()
    x = {
        "ties": [0.5, 1.25, 2.75],
        "edges": [0.25, 0.75, 1.75, 3.75],
        "saturated": [-1e9, -1.0, 4.0, 1e9, 1e300],
        "constant": [1.0] * 5,
        "subnormal": [5e-324, -5e-324],
        "zeros": [0.0, -0.0],
    }[kind]
    x = torch.tensor(x, dtype=torch.float64)
    g = normal(len(x))
    want = oracles.n2uq(x.numpy(), g.numpy(), 0.25, [0.5, 1.0, 2.0])
    leaf = x.clone().requires_grad_(True)
    y = q(leaf)
    y.backward(g)
    close(y.detach().numpy(), want.y, VALUE)
    close(leaf.grad.numpy(), want.dx, GRADIENT)
    close(q.codebook.widths.grad.numpy(), want.grads["widths"], GRADIENT)
    close(q.codebook.start.grad.item(), want.grads["start"], GRADIENT)
    close(q.range.scale_in.grad.item(), want.grads["s_in"], GRADIENT)
    close(q.range.scale_out.grad.item(), want.grads["s_out"], GRADIENT)


def test_n2uq_by_finite_differences_of_the_expectation():
    q = n2uq(3)
    x, g = 0.8 * normal(60) + 0.8, normal(60, 1)
    leaf = x.clone().requires_grad_(True)
    y = q(leaf)
    y.backward(g)
    unit = 2 / 7
    at = np.array([q.codebook.start.item(), 1.25, 0.75, *q.codebook.widths.tolist()])

    def expectation(p, xs):
        edges = oracles.n2uq_edges(p[0], p[3:])
        return np.array([oracles.n2uq_expectation(p[1] * a, edges, unit) for a in xs])

    hard = y.detach().numpy() / 0.75
    decided = hard - expectation(at, x.tolist())

    def loss(p, xs):
        return float((g.numpy() * p[2] * (expectation(p, xs) + decided)).sum())

    numeric = oracles.numeric_gradient(lambda p: loss(p, x.tolist()), at, 1e-6)
    got = [
        q.codebook.start.grad.item(),
        q.range.scale_in.grad.item(),
        q.range.scale_out.grad.item(),
        *q.codebook.widths.grad.tolist(),
    ]
    close(got, numeric, 1e-6)
    numeric = oracles.numeric_gradient(lambda a: loss(at, a.tolist()), x.numpy(), 1e-6)
    close(leaf.grad.numpy(), numeric, 1e-6)


def test_a_width_at_the_floor_gets_no_gradient_and_keeps_the_order():
    q = recipes.n2uq_activation(2, widths=[0.5, 0.5, 0.5]).double()
    with torch.no_grad():
        q.codebook.widths[1] = -3.0
    assert (q.codebook.knots.diff() > 0).all()
    close(q.codebook.knots.detach().numpy(), [0, 0.5, 0.501, 1.001], 1e-9)
    x = torch.linspace(-0.1, 1.1, 50, dtype=torch.float64)
    y = q(x)
    y.sum().backward()
    assert q.codebook.widths.grad[1] == 0
    assert (q.codebook.widths.grad[[0, 2]] != 0).all()
    want = oracles.n2uq(x.numpy(), np.ones(50), 0.0, [0.5, -3.0, 0.5])
    close(y.detach().numpy(), want.y, VALUE)
    close(q.codebook.widths.grad.numpy(), want.grads["widths"], GRADIENT)
    with torch.no_grad():
        q.codebook.widths[1] = 1.5e-3  # above the floor
    close(q.codebook.knots.detach().numpy(), [0, 0.5, 0.5015, 1.0015], 1e-6)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_n2uq_starts_as_uniform_on_zero_to_two(bits):
    q = recipes.n2uq_activation(bits)
    n = 2**bits - 1
    close(q.codebook.levels.numpy(), [2 * k / n for k in range(n + 1)], VALUE)
    close(q.codebook.knots.detach().numpy(), q.codebook.levels.numpy(), 1e-5)
    assert q.codebook.widths.dtype == torch.float32


@pytest.mark.parametrize(
    "widths", [[0.5, 0.0, 1.0], [0.5, -1.0, 1.0], [0.5, math.nan, 1.0], [0.5, math.inf, 1.0], [1.0, 1.0], []]
)
def test_widths_that_make_no_monotone_knots(widths):
    with pytest.raises(ValueError, match=str(widths[1] if widths else r"\[\]")):
        recipes.n2uq_activation(2, widths=widths)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_start_that_is_not_finite(bad):
    with pytest.raises(ValueError, match=str(bad)):
        recipes.n2uq_activation(2, start=bad)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_a_step_of_the_levels_that_is_not_positive(bad):
    with pytest.raises(ValueError, match=str(bad)):
        LearnedKnots(2, step=bad)


def test_input_and_output_scale_start_at_one():
    r = InOutScale()
    assert r.calibrated
    assert (r.scale_in.item(), r.scale_out.item()) == (1.0, 1.0)
    assert isinstance(recipes.lsq_plus(4).range, LearnedAffine)


def test_n2uqs_start_gets_no_gradient_from_values_on_it():
    q = recipes.n2uq_activation(2)
    q(torch.tensor([0.0] * 90 + [0.5] * 10)).sum().backward()
    assert q.codebook.start.grad.item() == pytest.approx(-10)
