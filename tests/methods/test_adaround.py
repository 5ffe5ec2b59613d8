"""AdaRound's decision for each weight."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from qviz import Fixed, Quantizer, recipes, uniform
from qviz.methods.adaround import LearnedRound, RectifiedSigmoid
from tests import oracles
from tests.methods.checks import GRADIENT, VALUE, close, normal


def adaround(bits: int, w: Tensor, step: float, v: Tensor, *, soft: bool = False) -> Quantizer:
    rounding = LearnedRound(tuple(w.shape))
    with torch.no_grad():
        rounding.v.copy_(v)
    return Quantizer(uniform(bits), rounding, RectifiedSigmoid(rounding), Fixed(step), soft=soft).double()


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 8])
def test_adaround(bits, soft):
    top = 2 ** (bits - 1)
    u = (torch.rand(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1) * (top - 1)
    w, g = 0.3 * u, normal(200, 1)
    v = 3 * normal(200, 2).float()
    q = adaround(bits, w, 0.3, v, soft=soft)
    want = oracles.adaround(w.numpy(), g.numpy(), v.double().numpy(), 0.3, -top, top - 1, soft=soft)
    y = q(w)
    y.backward(g)
    close(y.detach().numpy(), want.y, VALUE)
    close(q.rounding.v.grad.numpy(), want.grads["v"], GRADIENT)


@pytest.mark.parametrize("soft", [True, False])
def test_adaround_of_weights_outside_the_grid(soft):
    # clip(⌊w/s⌋ + h, low, high): what is cut off is cut off, whatever V says, and V gets no gradient
    w = torch.tensor([3.7, 30.0, -4.2, -50.0], dtype=torch.float64)
    for value in (-3.0, -0.5, 0.5, 3.0):
        v = torch.full((4,), value)
        q = adaround(3, w, 1.0, v, soft=soft)
        want = oracles.adaround(w.numpy(), np.ones(4), v.double().numpy(), 1.0, -4, 3, soft=soft)
        y = q(w)
        y.sum().backward()
        close(y.detach().numpy(), want.y, VALUE)
        close(q.rounding.v.grad.numpy(), want.grads["v"], GRADIENT)


@pytest.mark.parametrize("value", [-3.0, 3.0])
def test_adaround_of_a_weight_on_a_level_stays_there(value):
    w = torch.tensor([-4.0, -2.0, 0.0, 1.0, 3.0], dtype=torch.float64)
    q = adaround(3, w, 1.0, torch.full((5,), value))
    assert torch.equal(q(w), w)
    q.soft = True
    q(w).sum().backward()
    assert q.rounding.v.grad.abs().max() == 0


def test_gradcheck_of_soft_adaround():
    w, v = normal(30), normal(30, 1)
    q = adaround(4, w, 0.3, v, soft=True)

    def f(v: Tensor) -> Tensor:
        return torch.func.functional_call(q, {"rounding.v": v}, (w,))

    assert torch.autograd.gradcheck(f, v.clone().requires_grad_(True))


def test_observe_starts_at_nearest_rounding():
    w = normal((6, 50)).float()
    q = recipes.adaround_weight(4, w)
    u = w / q.range.scale.float()[:, None]
    f = (u.clamp(-8, 7) - u.clamp(-8, 7).floor()).double()
    away = (f - 0.5).abs() > 1e-5
    want = torch.ceil(u - 0.5).clamp(-8, 7) * q.range.scale.float()[:, None]
    assert torch.equal(q(w)[away], want[away])
    inner = (u > -8) & (u < 7) & (f > 1e-3) & (f < 1 - 1e-3)
    want = torch.tensor([oracles.rectified_sigmoid_inverse(v) for v in f[inner].tolist()])
    torch.testing.assert_close(q.rounding.v.detach()[inner], want, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(q.rounding.h().detach()[inner], f[inner].float(), rtol=0, atol=1e-5)


def test_a_tie_starts_down():
    w = torch.tensor([[-3.5, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5]])
    rounding = LearnedRound((1, 7))
    q = Quantizer(uniform(3), rounding, RectifiedSigmoid(rounding), Fixed(1.0)).observe(w)
    assert q(w).tolist() == [[-4, -3, -2, -1, 0, 1, 2]]


def test_h_is_the_rectified_sigmoid():
    r = LearnedRound((5,))
    with torch.no_grad():
        r.v.copy_(torch.tensor([-9.0, -1.0, 0.0, 1.0, 9.0]))
    want = [oracles.rectified_sigmoid(v) for v in r.v.tolist()]
    np.testing.assert_allclose(r.h().detach().numpy(), want, atol=1e-6)
    assert (r.h()[0].item(), r.h()[4].item()) == (0.0, 1.0)


def test_adaround_learns_to_round_one_weight_against_another():
    w = torch.tensor([[0.45, 0.45]], dtype=torch.float64)  # nearest: 0 + 0, the sum asks for 1
    rounding = LearnedRound((1, 2))
    q = Quantizer(uniform(3), rounding, RectifiedSigmoid(rounding), Fixed(1.0), soft=True).observe(w).double()
    with torch.no_grad():
        q.rounding.v[0, 0] += 0.1
    optimiser = torch.optim.SGD(q.parameters(), lr=5.0)
    for _ in range(100):
        optimiser.zero_grad()
        h = q.rounding.h()
        loss = (q(w).sum() - 0.9) ** 2 + 0.01 * (1 - (2 * h - 1).abs() ** 2).sum()
        loss.backward()
        optimiser.step()
    q.soft = False
    assert q(w).tolist() == [[1.0, 0.0]]


def test_adaround_of_another_shape():
    q = recipes.adaround_weight(3, normal((4, 5)).float())
    for f in (q, q.observe, q.codes):
        with pytest.raises(ValueError, match=r"\(4, 5\).*\(4, 6\)"):
            f(torch.rand(4, 6))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_weight_leaves_adaround_as_it_was(bad):
    w = normal((4, 5)).float()
    q = recipes.adaround_weight(3, w)
    before = {k: v.clone() for k, v in q.state_dict().items()}
    w = w.clone()
    w[1, 1] = bad
    with pytest.raises(ValueError, match="1 of 20"):
        q.observe(w)
    assert all(torch.equal(v, before[k]) for k, v in q.state_dict().items())
