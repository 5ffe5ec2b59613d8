"""The sigmoid of quantization networks: the paper's sum, DSQ's tanh, the gap in closed form, its limits."""

import math

import numpy as np
import pytest
import torch

from qviz import Fixed, Quantizer, uniform
from qviz.measure import gradient_mismatch, quantizer_gap
from qviz.methods.dsq import SoftTanh
from qviz.methods.quantization_networks import SoftSigmoid
from tests.methods.checks import slope_of

T = torch.linspace(0.0, 1.0, 401, dtype=torch.float64)
HOTNESS = [1.0, 8.0, 40.0]


def soft(temperature: float) -> Quantizer:
    return Quantizer(uniform(2, signed=False), None, SoftSigmoid(temperature), Fixed(0.5), soft=True)


@pytest.mark.parametrize("temperature", HOTNESS)
def test_it_is_the_paper_s_sum_but_for_the_tails_of_other_cells(temperature):
    """y = α (Σ_i s_i sigmoid(T (β x - b_i)) - o) with s_i = 1, o = 0, α = 1 / β = the step, b_i = i + 1/2."""
    x = np.linspace(0.001, 1.499, 777)
    terms = 1 / (1 + np.exp(-temperature * (x / 0.5 - (np.arange(3)[:, None] + 0.5))))
    off = np.abs(soft(temperature)(torch.from_numpy(x)).numpy() / 0.5 - terms.sum(0))
    tail = 1 / (1 + math.exp(temperature / 2)), 1 / (1 + math.exp(1.5 * temperature))
    assert off.max() <= sum(tail)
    own = terms[np.floor(x / 0.5).astype(int), np.arange(len(x))] + np.floor(x / 0.5)
    assert soft(temperature)(torch.from_numpy(x)).numpy() / 0.5 == pytest.approx(own, abs=1e-12)


@pytest.mark.parametrize("temperature", HOTNESS)
def test_normalized_it_is_dsq_s_tanh_and_its_slope_is_that_of_the_graph(temperature):
    s = SoftSigmoid(temperature)
    low, high = s.relax(torch.tensor([0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close((s.relax(T) - low) / (high - low), SoftTanh(temperature / 2).relax(T))
    torch.testing.assert_close(s.slope(T), slope_of(s.relax, T), rtol=1e-10, atol=1e-12)
    difference = (s.relax(T + 1e-6) - s.relax(T - 1e-6)) / 2e-6
    torch.testing.assert_close(s.slope(T), difference, rtol=0, atol=1e-6)
    assert float(s.slope(T).max()) == pytest.approx(temperature / 4)


@pytest.mark.parametrize("temperature", HOTNESS)
def test_its_gap_on_a_level_and_on_average_and_no_mismatch(temperature):
    q, x = soft(temperature), 1.5 * (torch.arange(30_000, dtype=torch.float64) + 0.5) / 30_000
    on = quantizer_gap(q, torch.tensor([0.0, 0.5, 1.5], dtype=torch.float64)).mean / 0.5
    assert on == pytest.approx(1 / (1 + math.exp(temperature / 2)), abs=1e-12)
    mean = 2 / temperature * math.log(2 / (1 + math.exp(-temperature / 2)))
    assert quantizer_gap(q, x).mean / 0.5 == pytest.approx(mean, abs=1e-6)
    assert gradient_mismatch(q, x).mean == pytest.approx(0.0, abs=1e-5)


def test_with_a_rounding_forward_pass_both_paths_have_one_gradient():
    q = Quantizer(uniform(3), surrogate=SoftSigmoid(), range=Fixed(0.3))
    x = torch.linspace(-2.0, 2.0, 999, dtype=torch.float64)
    assert torch.equal(q(x), Quantizer(uniform(3), range=Fixed(0.3))(x))
    torch.testing.assert_close(slope_of(q, x), slope_of(q.reference, x))


def test_bad_temperatures_are_named():
    for temperature in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"got {temperature}"):
            SoftSigmoid(temperature)
