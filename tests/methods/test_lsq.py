"""LSQ and LSQ+ against a slow loop written from the papers."""

import io
import itertools
import math
import pickle

import numpy as np
import pytest
import torch

from qviz import recipes
from qviz.methods import lsq
from tests import oracles
from tests.methods.checks import GRADIENT, KINDS, VALUE, close, difference, normal, numbers, run


@pytest.mark.parametrize("kind", KINDS)
def test_lsq(kind):
    for bits, signed in [(2, True), (4, True), (3, False), (8, True)]:
        q = recipes.lsq(bits, signed=signed, step=0.25).double()
        low, high = int(q.codebook.lo), int(q.codebook.hi)
        x = numbers(kind, 0.25, low, high)
        g = normal(x.shape, 1)
        scale = 1 / math.sqrt(x.numel() * high)
        want = oracles.lsq(x.numpy(), g.numpy(), 0.25, low, high, scale)
        y, dx, grads = run(q, x, g)
        close(y, want.y, VALUE)
        close(dx, want.dx, GRADIENT)
        close(grads["step"], want.grads["step"], GRADIENT, scale * high * float(g.abs().sum()))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_lsq_per_channel(axis):
    w = normal((5, 5, 5), 1)
    step = torch.tensor([0.1, 0.2, 0.31, 0.5, 0.07])
    q = recipes.lsq(3, step=step, channels=5, axis=axis).double()
    g = normal(w.shape, 2)
    scale = 1 / math.sqrt(25 * 3)  # values that share a step

    def one(part, up, c):
        return oracles.lsq(part, up, float(step[c].double()), -4, 3, scale)

    want = oracles.join(oracles.per_channel(w.numpy(), g.numpy(), axis, one), axis)
    y, dw, grads = run(q, w, g)
    close(y, want.y, VALUE)
    close(dw, want.dx, GRADIENT)
    close(grads["step"], want.grads["step"], GRADIENT)


@pytest.mark.parametrize("kind", KINDS)
def test_lsq_plus(kind):
    for (bits, signed), offset in itertools.product([(2, True), (4, False)], [0.0, -0.625, 3.0]):
        q = recipes.lsq_plus(bits, signed=signed, step=0.25, offset=offset).double()
        low, high = int(q.codebook.lo), int(q.codebook.hi)
        x = numbers(kind, 0.25, low, high, offset)
        g = normal(x.shape, 1)
        scale = 1 / math.sqrt(x.numel() * high)
        want = oracles.lsq(x.numpy(), g.numpy(), 0.25, low, high, scale, offset)
        y, dx, grads = run(q, x, g)
        close(y, want.y, VALUE)
        close(dx, want.dx, GRADIENT)
        close(grads["step"], want.grads["step"], GRADIENT, scale * high * float(g.abs().sum()))
        close(grads["shift"], want.grads["offset"], GRADIENT, scale * float(g.abs().sum()))


def test_lsq_plus_per_channel():
    x = normal((4, 3, 6), 1)
    step, offset = torch.tensor([0.3, 0.11, 0.7]), torch.tensor([0.1, -0.4, 0.0])
    q = recipes.lsq_plus(3, step=step, offset=offset, channels=3, axis=1).double()
    g = normal(x.shape, 2)

    def one(part, up, c):
        scale = 1 / math.sqrt(24 * 3)
        return oracles.lsq(part, up, float(step[c].double()), -4, 3, scale, float(offset[c].double()))

    want = oracles.join(oracles.per_channel(x.numpy(), g.numpy(), 1, one), 1)
    y, dx, grads = run(q, x, g)
    close(y, want.y, VALUE)
    close(dx, want.dx, GRADIENT)
    close(grads["step"], want.grads["step"], GRADIENT)
    close(grads["shift"], want.grads["offset"], GRADIENT)


def test_the_step_is_observed_as_twice_the_mean_over_the_root_of_the_top():
    w = normal((6, 10), 1).float()
    q = recipes.lsq(4, channels=6).observe(w)
    want = 2 * w.abs().mean(1) / math.sqrt(7)
    torch.testing.assert_close(q.range.step.data, want)
    x = w.abs()
    assert recipes.lsq(3, signed=False).observe(x).range.step.item() == pytest.approx(
        2 * x.mean().item() / math.sqrt(7)
    )
    assert recipes.asq_activation(3, 10).observe(x).range.step.item() == pytest.approx(
        2 * x.mean().item() / math.sqrt(7)
    )


def test_a_step_that_starts_by_the_least_squared_error_beats_those_around_it():
    x = torch.randn(2, 500, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1.0], [30.0]])
    q = recipes.lsq(2, start="mse", channels=2).observe(x)

    def error(factor):
        u = x / (q.scale[:, None] * factor)
        return (u.round().clamp(-2, 1) * q.scale[:, None] * factor - x).square().mean(1)

    for factor in (0.9, 0.97, 1.03, 1.1):
        assert (error(1.0) < error(factor)).all()
    assert "start='mse'" in str(q.recipe)


def test_lsq_plus_puts_minimum_and_maximum_on_the_end_levels():
    x = normal((4, 9), 1).float() + 3
    q = recipes.lsq_plus(4).observe(x)
    low = q.range.shift + q.range.step * q.codebook.lo
    high = q.range.shift + q.range.step * q.codebook.hi
    assert (low.item(), high.item()) == pytest.approx((x.min().item(), x.max().item()), rel=1e-5)


@pytest.mark.parametrize("start", [-0.25, 0.0, 1e-12])
def test_a_step_that_training_moved_to_zero_or_below_is_still_a_step(start):
    q = recipes.lsq(4, step=1.0)
    with torch.no_grad():
        q.range.step.fill_(start)
    x = torch.tensor([0.3, -0.2, 0.0], requires_grad=True)
    y = q(x)
    y.sum().backward()
    assert q.range.scale > 0
    assert y.isfinite().all()
    assert x.grad.isfinite().all()
    assert q.range.step.grad.isfinite()
    if start < 0:
        assert y.tolist() == recipes.lsq(4, step=-start)(x).tolist()


def test_lsq_step_and_offset_by_finite_differences():
    q = recipes.lsq_plus(3, step=0.37, offset=0.11).double()
    x = normal((80,), 1) * 1.3
    g = normal(x.shape, 2)
    y, _, grads = run(q, x, g)
    s, o = q.range.step.item(), q.range.shift.item()
    decided = np.round((y - o) / s) - np.clip((x.numpy() - o) / s, -4, 3)

    def f(s, o):
        return float((g.numpy() * (s * (np.clip((x.numpy() - o) / s, -4, 3) + decided) + o)).sum())

    scale = 1 / math.sqrt(80 * 3)
    close(grads["step"], scale * difference(lambda v: f(v, o), s), 1e-7)
    close(grads["shift"], scale * difference(lambda v: f(s, v), o), 1e-7)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_offset_that_is_not_finite(bad):
    with pytest.raises(ValueError, match=str(bad)):
        recipes.lsq_plus(4, step=1.0, offset=bad)


def test_a_network_that_was_pickled_whole_finds_its_offset():
    class Named(pickle.Unpickler):
        def find_class(self, module, name):  # as the file names it that LSQ+ had before it had one of its own
            return super().find_class(module.removesuffix("_plus"), name)

    made = recipes.lsq_plus(4, step=1.0).range
    found = Named(io.BytesIO(pickle.dumps(made))).load()
    assert type(found) is type(made)
    with pytest.raises(AttributeError, match="no attribute 'lsq_minus'"):
        _ = lsq.lsq_minus
