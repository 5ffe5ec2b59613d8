import math

import numpy as np
import pytest
import torch

from qviz import Codebook, Fixed, Quantizer, Stochastic, recipes, uniform
from qviz.measure.mismatch import Deviation, gradient_mismatch, quantizer_gap, slopes
from qviz.methods.daq import SoftArgmax

BOUNDS = (0.0, 3.0)
X = (torch.arange(30_000, dtype=torch.float64) + 0.5) / 10_000  # 0 … 3, never on a border
# DAQ, table of a fixed temperature (sigma = 1, no rescale): x and the relaxed value at beta = 1, 5, 20.
AT = [0.0, 0.25, 0.45, 0.55, 0.75]
RELAXED = {
    1.0: [0.2964, 0.3532, 0.3952, 0.6048, 0.6468],
    5.0: [0.0131, 0.0463, 0.1065, 0.8935, 0.9537],
    20.0: [0.0, 0.0, 0.0002, 0.9998, 1.0],
}
MEAN_SLOPE = {1.0: 0.448466, 2.0: 0.921520}  # of DAQ over a cell, by sigma


def plain_ste():
    return recipes.ste(2, signed=False, range=Fixed(1.0))


def soft_daq(**kw):
    return Quantizer(uniform(2, signed=False), None, SoftArgmax(**kw), Fixed(1.0), soft=True)


@pytest.mark.parametrize("beta", RELAXED)
def test_the_gap_of_a_fixed_temperature_is_that_of_the_table(beta):
    q = recipes.soft_argmax(2, beta=beta, bounds=BOUNDS)
    for x, relaxed in zip(AT, RELAXED[beta], strict=True):
        gap = quantizer_gap(q, torch.tensor([x]))
        assert gap.max == gap.mean
        assert gap.max * 1.5 == pytest.approx(abs(relaxed - (x > 0.5)), abs=6e-5)  # levels are 2/3 apart


def test_the_gap_shrinks_as_the_temperature_rises_and_never_below_its_bound():
    gaps = [quantizer_gap(recipes.soft_argmax(2, beta=b, bounds=BOUNDS), X) for b in (1.0, 5.0, 20.0)]
    assert gaps[0].mean > gaps[1].mean > gaps[2].mean > 0
    kappa = math.exp(-1.0)
    for beta, gap in zip((1.0, 5.0, 20.0), gaps, strict=True):
        bound = 1 / (1 + math.exp(beta * math.exp(-0.5) * (1 - kappa)))
        assert 0.99 * bound < 1.5 * gap.max <= bound + 1e-12


@pytest.mark.parametrize(
    "q",
    [
        plain_ste(),
        recipes.daq_weight(2, bounds=BOUNDS),
        recipes.daq_activation(3, bounds=BOUNDS, signed=True),
        recipes.n2uq_activation(2),
        recipes.aquant_activation(2, step=1.0),
    ],
)
def test_a_hard_forward_pass_has_no_gap(q):
    assert quantizer_gap(q, X) == Deviation(0.0, 0.0)


@pytest.mark.parametrize(("gamma", "sigma"), [(2.0, 1.0), (2.0, 2.0), (0.5, 1.0), (6.0, 3.0)])
def test_the_controller_closes_the_gap_of_a_soft_forward_pass(gamma, sigma):
    assert quantizer_gap(soft_daq(gamma=gamma, sigma=sigma), X).max < 1e-14
    assert quantizer_gap(soft_daq(sigma=sigma, beta=gamma), X).max > 0.01  # the same without it


def test_a_soft_straight_through_has_the_gap_of_rounding_itself():
    q = Quantizer(uniform(2, signed=False), range=Fixed(1.0), soft=True)
    gap = quantizer_gap(q, X)
    assert gap.mean == pytest.approx(0.25, abs=1e-6)
    assert gap.max == pytest.approx(0.5, abs=1e-3)


def test_the_mismatch_of_the_three_approaches():
    assert gradient_mismatch(plain_ste(), X).mean == 1.0
    for sigma, mean in MEAN_SLOPE.items():
        assert gradient_mismatch(recipes.daq_weight(2, sigma=sigma, bounds=BOUNDS), X).mean == pytest.approx(
            mean, abs=2e-6
        )
    for beta in RELAXED:
        soft = gradient_mismatch(recipes.soft_argmax(2, beta=beta, bounds=BOUNDS), X)
        assert soft.max < 1e-5


def test_the_controller_makes_a_soft_forward_pass_constant_and_its_gradient_not():
    got = gradient_mismatch(soft_daq(), X)
    assert got.mean == pytest.approx(MEAN_SLOPE[1.0], abs=2e-6)
    assert got.max == pytest.approx(0.596646, abs=1e-3)  # at the transition point


@pytest.mark.parametrize("window", [0.02, 0.1, 0.5, 1.0])
def test_straight_through_is_the_slope_of_the_staircase_averaged_over_a_step(window):
    x = X[5000:25_000]  # where no window reaches beyond the grid
    assert gradient_mismatch(plain_ste(), x, window=window).mean == pytest.approx(2 * (1 - window), abs=1e-9)


def test_a_window_sees_the_jump_that_a_hot_soft_argmax_hides():
    q = recipes.soft_argmax(2, beta=20.0, bounds=BOUNDS)
    assert gradient_mismatch(q, X).mean < 1e-6
    assert gradient_mismatch(q, X, window=0.1).mean > 0.99


def test_values_on_borders_and_knots_meet_no_jump():
    assert gradient_mismatch(plain_ste(), torch.tensor([0.5, 1.5, 2.5, 1.0, 2.0])).max == 1.0
    assert gradient_mismatch(plain_ste(), torch.tensor([-5.0, 9.0])).max == 0.0  # saturated: 0 and 0
    passing = recipes.ste(2, signed=False, clipped=False, range=Fixed(1.0))
    assert gradient_mismatch(passing, torch.tensor([-5.0, 9.0])).mean == 1.0


def test_the_measure_is_relative_to_the_staircase():
    """Neither the scale nor a map of the levels changes it."""
    base = gradient_mismatch(plain_ste(), X)
    assert gradient_mismatch(recipes.ste(2, signed=False, range=Fixed(0.01)), X / 100).mean == pytest.approx(
        base.mean
    )
    mapped = Quantizer(Codebook([0.0, 1.0, 2.0, 3.0], [-1.0, -1 / 3, 1 / 3, 1.0]), range=Fixed(1.0))
    assert gradient_mismatch(mapped, X).mean == pytest.approx(base.mean)
    narrow = Quantizer(Codebook([0.0, 0.5, 1.0, 1.5], [0.0, 1.0, 2.0, 3.0]), range=Fixed(1.0))
    for window in (None, 0.2):
        assert gradient_mismatch(narrow, X / 2, window=window).mean == pytest.approx(
            gradient_mismatch(plain_ste(), X, window=window).mean
        )


@pytest.mark.parametrize("measure", [quantizer_gap, gradient_mismatch])
def test_bad_input_is_refused(measure):
    q = plain_ste()
    with pytest.raises(ValueError, match="1 of 2 values"):
        measure(q, torch.tensor([1.0, math.nan]))
    with pytest.raises(TypeError, match="int64"):
        measure(q, torch.tensor([1]))
    with pytest.raises(ValueError, match="random"):
        measure(Quantizer(uniform(2), Stochastic(), range=Fixed(1.0)), X)


def test_bad_windows_and_single_levels_are_refused():
    for window in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"got {window}"):
            gradient_mismatch(plain_ste(), X, window=window)
    with pytest.raises(ValueError, match="one level"):
        gradient_mismatch(Quantizer(Codebook([1.0]), range=Fixed(1.0)), X)


def test_nothing_is_changed():
    q, x = recipes.soft_argmax(2, beta=5.0, bounds=BOUNDS), X.clone().requires_grad_()
    before = {k: v.clone() for k, v in q.state_dict().items()}
    quantizer_gap(q, x)
    gradient_mismatch(q, x)
    assert q.soft
    assert x.grad is None
    assert all(p.grad is None for p in q.parameters())
    assert all(torch.equal(v, before[k]) for k, v in q.state_dict().items())


@pytest.mark.parametrize("window", [None, 0.3])
def test_the_mismatch_is_the_distance_of_the_two_slopes(window):
    q = recipes.daq_activation(2, bounds=BOUNDS)
    pair = slopes(q, X, window=window)
    assert gradient_mismatch(q, X, window=window) == Deviation.of(pair.backward - pair.forward)
    t = (X % 1.0).numpy()
    want = 2 / (2 * math.sinh(2.0)) / np.tanh(np.abs(t - 0.5) + 1 / 8)  # the closed form, σ = 2
    assert pair.backward.numpy() == pytest.approx(want, abs=1e-9)
    inside = slice(3000, 27_000)
    jumps = np.round((X + 0.15).numpy()) - np.round((X - 0.15).numpy())
    want = np.zeros(len(X)) if window is None else jumps / window
    assert pair.forward.numpy()[inside] == pytest.approx(want[inside], abs=1e-9)
