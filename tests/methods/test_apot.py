"""APoT's projection against a slow loop and the paper's levels."""

import pytest

from qviz import recipes
from tests import oracles
from tests.methods.checks import GRADIENT, VALUE, close, normal, run


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_apot(bits):
    q = recipes.apot_weight(bits, alpha=2.5).double()
    w = 1.5 * normal((50,), 1)
    g = normal(w.shape, 2)
    want = oracles.project(w.numpy(), g.numpy(), 2.5, oracles.APOT_LEVELS[bits])  # no factor on the gradient
    y, dw, grads = run(q, w, g)
    close(y, want.y, VALUE)
    close(dw, want.dx, GRADIENT)
    close(grads["clip"], want.grads["alpha"], GRADIENT)


def test_apot_starts_at_three():
    assert recipes.apot_weight(4).range.clip.item() == 3.0
