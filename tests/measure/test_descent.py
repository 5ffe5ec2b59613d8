"""Descent: the same steps as a loop with autograd."""

import math

import pytest
import torch

from qviz import Fixed, Quantizer, Stochastic, recipes, uniform
from qviz.core.surrogate import StraightThrough, TrueDerivative
from qviz.measure import descend
from qviz.methods.daq import SoftArgmax
from qviz.methods.dsq import SoftTanh
from qviz.methods.n2uq import LearnedKnots
from qviz.methods.quantization_networks import SoftSigmoid

START = torch.tensor([-0.71, 0.0, 0.43, 1.31, 2.07, 2.93, 3.77], dtype=torch.float64)
SURROGATES = [
    TrueDerivative(),
    StraightThrough(),
    StraightThrough(clipped=False),
    SoftTanh(6.0),
    SoftSigmoid(6.0),
    SoftArgmax(),
    SoftArgmax(beta=5.0),
]


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("surrogate", SURROGATES, ids=str)
@pytest.mark.parametrize(
    "book",
    [uniform(2, signed=False), LearnedKnots(2, widths=[0.5, 1.0, 1.5], step=1.0)],
    ids=["even", "learned"],
)
def test_it_is_a_loop_with_autograd(book, surrogate, soft):
    q = Quantizer(book, surrogate=surrogate, range=Fixed(0.8), soft=soft)
    start = (
        START if surrogate.clipped else START[START != 0.0]
    )  # both paths differ in where an open end belongs
    x, target, path = start, 1.71, [start]
    for _ in range(12):
        leaf = x.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(((q(leaf) - target) ** 2 / 2).sum(), leaf)
        x = x - 0.19 * gradient
        path.append(x)
    torch.testing.assert_close(
        descend(q, start, target, steps=12, rate=0.19), torch.stack(path), rtol=0, atol=1e-9
    )


def test_an_offset_moves_all_of_it():
    q = recipes.lsq_plus(2).observe(torch.linspace(-1.0, 2.0, 50))
    x = torch.tensor([0.3, 1.4])
    leaf = x.double().requires_grad_(True)
    (gradient,) = torch.autograd.grad(((q(leaf) - 0.9) ** 2 / 2).sum(), leaf)
    torch.testing.assert_close(
        descend(q, x, 0.9, steps=1, rate=1.0)[1], x.double() - gradient, rtol=0, atol=1e-9
    )


def test_no_steps_are_the_start_alone():
    q = recipes.ste(2, range=Fixed(1.0))
    assert descend(q, torch.tensor([0.5]), 1.0, steps=0).tolist() == [[0.5]]


def test_bad_input_is_refused():
    x = torch.tensor([0.5])
    with pytest.raises(ValueError, match="random"):
        descend(Quantizer(uniform(2), Stochastic(), range=Fixed(1.0)), x, 1.0)
    with pytest.raises(ValueError, match="another unit"):
        descend(recipes.daq_weight(2, bounds=(-1.0, 1.0)), x, 1.0)
    with pytest.raises(ValueError, match="one scale"):
        descend(recipes.lsq(2, channels=3).observe(torch.randn(3, 8)), x, 1.0)
    with pytest.raises(ValueError, match="1 of 1"):
        descend(recipes.ste(2, range=Fixed(1.0)), torch.tensor([math.nan]), 1.0)
