"""DSQ's tanh against the paper's formulas, a loop of its own, and its limits."""

import math

import numpy as np
import pytest
import torch

from qviz import Fixed, Quantizer, StraightThrough, uniform
from qviz.methods.dsq import SoftTanh
from tests.methods.checks import slope_of

T = torch.linspace(0.0, 1.0, 401, dtype=torch.float64)


@pytest.mark.parametrize("alpha", [0.01, 0.2, 0.9])
def test_the_paper_s_form_with_bounds_and_alpha(alpha):
    """φ = s tanh(k (x - m_i)), y = l + Δ (i + (φ + 1) / 2); k = log(2 / α - 1) / Δ, s = 1 / (1 - α)."""
    low, delta = -1.0, 0.5
    q = Quantizer(uniform(2, signed=False), None, SoftTanh.of(alpha), Fixed(delta), soft=True)
    x = np.linspace(-0.99, 0.49, 123)
    k, s = math.log(2 / alpha - 1) / delta, 1 / (1 - alpha)
    i = np.floor((x - low) / delta)
    phi = s * np.tanh(k * (x - (low + (i + 0.5) * delta)))
    want = low + delta * (i + (phi + 1) / 2)
    assert q(torch.from_numpy(x - low)).numpy() + low == pytest.approx(want, abs=1e-12)
    assert SoftTanh.of(alpha).alpha == pytest.approx(alpha, abs=1e-12)


@pytest.mark.parametrize("k", [0.5, 4.0, 20.0])
def test_it_is_a_stretched_sigmoid_and_its_slope_that_of_the_graph(k):
    s = SoftTanh(k)
    sigmoid = [torch.sigmoid(2 * k * (torch.as_tensor(t, dtype=torch.float64) - 0.5)) for t in (T, 0.0, 1.0)]
    torch.testing.assert_close(s.relax(T), (sigmoid[0] - sigmoid[1]) / (sigmoid[2] - sigmoid[1]))
    torch.testing.assert_close(s.slope(T), slope_of(s.relax, T), rtol=1e-10, atol=1e-12)
    assert float(torch.trapezoid(s.slope(T), T)) == pytest.approx(1.0, abs=1e-3)


def test_the_forward_pass_rounds_and_both_paths_have_one_gradient():
    q = Quantizer(uniform(3), surrogate=SoftTanh(), range=Fixed(0.3))
    x = torch.linspace(-2.0, 2.0, 999, dtype=torch.float64)
    assert torch.equal(q(x), Quantizer(uniform(3), range=Fixed(0.3))(x))
    torch.testing.assert_close(slope_of(q, x), slope_of(q.reference, x))


def test_a_dull_tanh_is_straight_through():
    torch.testing.assert_close(SoftTanh(1e-3).slope(T), StraightThrough().slope(T), rtol=1e-6, atol=0)


def test_bad_constants_are_named():
    for k in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"got {k}"):
            SoftTanh(k)
    for alpha in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match=f"got {alpha}"):
            SoftTanh.of(alpha)
