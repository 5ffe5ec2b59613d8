"""The straight-through estimator against a slow loop written from its formula."""

import itertools

import pytest

from qviz import Fixed, recipes
from tests import oracles
from tests.methods.checks import GRADIENT, KINDS, VALUE, close, normal, numbers, run


@pytest.mark.parametrize("kind", KINDS)
def test_ste(kind):
    for (bits, signed), clipped in itertools.product(
        [(2, True), (4, True), (3, False), (8, False)], [True, False]
    ):
        q = recipes.ste(bits, signed=signed, clipped=clipped, range=Fixed(0.25)).double()
        low, high = q.codebook.lo, q.codebook.hi
        x = numbers(kind, 0.25, low, high)
        g = normal(x.shape, 1)
        want = oracles.ste(x.numpy(), g.numpy(), int(low), int(high), 0.25, clipped=clipped)
        y, dx, _ = run(q, x, g)
        close(y, want.y, VALUE)
        close(dx, want.dx, GRADIENT)
