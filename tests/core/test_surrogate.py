"""Surrogates: the straight-through estimator, and one of the user's own."""

import math

import torch
from torch import Tensor

from qviz import Fixed, Quantizer, StraightThrough, Surrogate, uniform
from qviz.core.surrogate import TrueDerivative, beyond
from qviz.methods.daq import SoftArgmax
from qviz.methods.dsq import SoftTanh
from qviz.methods.quantization_networks import SoftSigmoid
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


def test_the_true_derivative_lets_nothing_through_and_rounds_all_the_same():
    x = torch.linspace(-5.0, 5.0, 101)
    for soft in (False, True):
        q = Quantizer(uniform(3), surrogate=TrueDerivative(), range=Fixed(1.0), soft=soft)
        assert torch.equal(q(x), Quantizer(uniform(3), range=Fixed(1.0))(x))
        assert slope_of(q, x).eq(0.0).all()
    q = Quantizer(uniform(3), surrogate=TrueDerivative(clipped=False), range=Fixed(1.0))
    assert slope_of(q, torch.tensor([-5.0, 0.2, 2.9, 3.1])).tolist() == [1.0, 0.0, 0.0, 1.0]
    t = torch.tensor([0.0, 0.5, 0.51, 1.0])
    assert TrueDerivative().relax(t).tolist() == [0.0, 0.0, 1.0, 1.0]
    assert TrueDerivative().slope(t).tolist() == [0.0] * 4


def test_nan_stays_nan():
    t = torch.tensor([math.nan, 0.3])
    soft = SoftArgmax(), SoftArgmax(beta=2.0), SoftTanh(), SoftSigmoid()
    for s in (*soft, StraightThrough(), TrueDerivative()):
        assert s.relax(t).isnan().tolist() == [True, False]
