"""PACT's learned clip and DoReFa's tanh weights against slow loops written from the papers."""

import numpy as np
import pytest
import torch

from qviz import recipes
from tests import oracles
from tests.methods.checks import GRADIENT, KINDS, VALUE, close, normal, numbers, run


@pytest.mark.parametrize("bits", range(2, 9))
def test_dorefa_weight(bits):
    for seed in range(3):
        q = recipes.dorefa_weight(bits).double()
        w = normal((6, 5), seed)
        g = normal(w.shape, seed + 10)
        want = oracles.dorefa_weight(w.numpy(), g.numpy(), bits)
        y, dw, _ = run(q, w, g)
        close(y, want.y, VALUE)
        close(dw, want.dx, GRADIENT)


@pytest.mark.parametrize("bits", range(2, 9))
def test_dorefa_sends_zero_down_and_the_largest_to_the_end(bits):
    for dtype in [torch.float32, torch.float64]:
        # tanh(0) is midway between two levels at every bit width: a tie, and a tie goes down
        n = 2**bits - 1
        y = recipes.dorefa_weight(bits)(torch.tensor([0.0, -0.0, 2.0, -2.0], dtype=dtype))
        np.testing.assert_allclose(y.numpy(), [-1 / n, -1 / n, 1, -1], rtol=0, atol=1e-6)


def test_dorefa_of_zeros_is_finite():
    w = torch.zeros(3, requires_grad=True)
    y = recipes.dorefa_weight(2)(w)
    y.sum().backward()
    assert y.isfinite().all()
    assert w.grad.isfinite().all()


def test_dorefa_shares_the_largest_weights_gradient_between_equals():
    w = torch.tensor([0.3, -0.9, 0.9], dtype=torch.float64)
    g = torch.tensor([1.0, 2.0, -0.5], dtype=torch.float64)
    want = oracles.dorefa_weight(w.numpy(), g.numpy(), 3)
    _, dw, _ = run(recipes.dorefa_weight(3).double(), w, g)
    close(dw, want.dx, GRADIENT)


@pytest.mark.parametrize("kind", KINDS)
def test_pact(kind):
    for bits in [1, 2, 4]:
        top = 2**bits - 1
        alpha = 0.25 * top
        q = recipes.pact_activation(bits, alpha=alpha).double()
        x = numbers(kind, 0.25, 0, top)
        g = normal(x.shape, 1)
        want = oracles.pact(x.numpy(), g.numpy(), alpha, bits)
        y, dx, grads = run(q, x, g)
        close(y, want.y, VALUE)
        close(dx, want.dx, GRADIENT)
        close(grads["clip"], want.grads["alpha"], GRADIENT, float(g.abs().sum()))


def test_pact_has_no_bits_in_its_clip_gradient():
    x = torch.tensor([0.3, 1.7, 2.0, 2.5, 9.0], dtype=torch.float64)
    for bits in (1, 2, 4, 8):
        q = recipes.pact_activation(bits, alpha=2.0).double()
        q(x).sum().backward()
        assert q.range.clip.grad.item() == pytest.approx(2.0)  # 2.5 and 9.0 lie above


def test_pact_starts_at_the_largest_activation():
    x = normal((50,), 1).float()
    assert recipes.pact_activation(4).observe(x).range.clip.item() == pytest.approx(x.max().item())
