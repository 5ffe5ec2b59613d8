"""Surrogates: the straight-through estimator, and one of the user's own."""

import math

import torch
from torch import Tensor

from qviz import Fixed, Quantizer, StraightThrough, Surrogate, uniform
from qviz.core.surrogate import beyond
from qviz.methods.daq import SoftArgmax
from tests.methods.checks import slope_of


def test_straight_through_returns_what_it_gets():
    t = torch.rand(5)
    assert StraightThrough().relax(t) is t
    assert StraightThrough().clipped
    assert not StraightThrough(clipped=False).clipped


def test_beyond_is_nothing_with_the_gradient_that_saturation_cuts():
    u = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0], requires_grad=True)
    y = beyond(u, -1.0, 1.0)
    assert y.tolist() == [0.0] * 5
    y.sum().backward()
    assert u.grad.tolist() == [1.0, 0.0, 0.0, 0.0, 1.0]


def test_a_surrogate_of_ones_own_goes_through_the_composition():
    class Squared(Surrogate):
        def relax(self, t: Tensor) -> Tensor:
            return t**2

    q = Quantizer(uniform(3), surrogate=Squared(), range=Fixed(1.0))
    x = torch.tensor([0.25, 1.75], dtype=torch.float64)
    assert slope_of(q, x).tolist() == [0.5, 1.5]
    assert q(x).tolist() == [0.0, 2.0]


def test_nan_stays_nan():
    t = torch.tensor([math.nan, 0.3])
    for s in (SoftArgmax(), SoftArgmax(beta=2.0), StraightThrough()):
        assert s.relax(t).isnan().tolist() == [True, False]
