"""GPTQ's sweep, descent and refit against the formulas; what the stage leaves behind."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from qviz.nn import QuantLayer, deconvert
from qviz.nn.ptq.gptq import damped, descend, gptq, gptq_rows, target
from qviz.nn.ptq.moments import Moments, matrix
from qviz.nn.ptq.weights import WeightGrid
from tests.nn.ptq import oracles
from tests.nn.ptq.nets import pair, quantized
from tests.nn.small_nets import assert_same_state, fingerprint
from tests.slow import slow

LEVELS = torch.tensor([-1.0, -0.4, 0.0, 0.3, 1.0], dtype=torch.float64)


def to_levels(w):
    return LEVELS[torch.bucketize(w.contiguous(), (LEVELS[1:] + LEVELS[:-1]) / 2)]


def problem(k=6, rank=None, seed=0):
    """Two groups of three rows, and an H each; one input is dead in the second."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(2, k, rank or 3 * k, dtype=torch.float64, generator=g)
    x[1, 2] = 0
    return torch.randn(2, 3, k, dtype=torch.float64, generator=g) * 0.5, x @ x.mT


@pytest.mark.parametrize("rank", [None, 2])
def test_the_sweep_is_optimal_brain_quantization_in_one_order(rank):
    w, h = problem(rank=rank)
    got = gptq_rows(w, h, to_levels, damping=0.02)
    full = damped(h, 0.02).numpy()
    for group, row in np.ndindex(2, 3):
        order = np.argsort(-np.diag(h[group].numpy()), kind="stable")
        want, _ = oracles.gptq(
            w[group, row].numpy(), full[group], lambda v, k: float(to_levels(torch.tensor([v]))[0]), order
        )
        np.testing.assert_array_equal(got[group, row].numpy(), want)


def test_dead_inputs_are_mended_before_the_damping():
    _, h = problem()
    got = damped(h, 0.1)
    diagonal = h[1].diagonal().clone()
    diagonal[2] = 1
    torch.testing.assert_close(got[1].diagonal(), diagonal + 0.1 * diagonal.mean())
    torch.testing.assert_close(
        got - torch.diag_embed(got.diagonal(dim1=1, dim2=2) - h.diagonal(dim1=1, dim2=2)), h
    )


def test_descent_ends_where_no_single_change_helps():
    w, h = problem()
    start = to_levels(w)
    got = descend(w, h, start, to_levels, passes=50, damping=0)
    assert not torch.equal(got, start)
    for group, row in np.ndindex(2, 3):
        full = damped(h, 0)[group].numpy()
        args = (w[group, row].numpy(), full, LEVELS.tolist())
        assert oracles.best_change(got[group, row].numpy(), *args) is None
        was, now = (oracles.row_error(v[group, row].numpy(), *args[:2]) for v in (start, got))
        assert now <= was


@pytest.mark.parametrize("affine", [False, True])
def test_refit_is_least_squares_in_each_row(affine):
    net, _, _ = quantized(pair(3, affine))
    layer = net.grouped
    grid = WeightGrid(layer, "grouped")
    g = torch.Generator().manual_seed(1)
    x = torch.randn(2, 36, 80, dtype=torch.float64, generator=g)
    h, goal = x @ x.mT, torch.randn(2, 6, 36, dtype=torch.float64, generator=g)
    codes = grid.codes(matrix(layer, layer.weight.double()))
    codes[0, 1] = 4  # level 0 (signed 3 bits): this row has no scale of its own
    before = grid.scale.clone()
    grid.refit(codes, goal, h)
    level = layer.weight_quantizer.levels[codes]
    for group, row in np.ndindex(2, 6):
        if (group, row) == (0, 1):
            assert grid.scale[group, row] == before[group, row]
            continue
        features = [level[group, row], torch.ones(36, dtype=torch.float64)][: 1 + affine]
        design = torch.stack([f @ x[group] for f in features], 1).numpy()
        want = np.linalg.lstsq(design, (goal[group, row] @ x[group]).numpy(), rcond=None)[0]
        if want[0] > 0:
            np.testing.assert_allclose(grid.scale[group, row, 0], want[0], rtol=1e-9)
            if affine:
                np.testing.assert_allclose(grid.offset[group, row, 0], want[1], rtol=1e-9)


def test_the_target_makes_good_what_was_lost_before_the_layer():
    torch.manual_seed(0)
    layer = nn.Linear(5, 3).double()
    x, noisy = torch.randn(40, 5).double(), torch.randn(40, 5).double()
    noisy = x + 0.3 * noisy
    moments = Moments.of(layer, [(noisy, layer(x).detach())])
    w = matrix(layer, layer.weight.detach())
    centered = [(t - t.mean(0)).numpy() for t in (noisy, x)]
    for row in range(3):
        want = oracles.asymmetric_target(w[0, row].numpy(), *centered)
        np.testing.assert_allclose(target(w, moments, 0.0)[0, row].numpy(), want)
    torch.testing.assert_close(target(w, moments, 1e9), w)


@pytest.mark.parametrize(
    "kind",
    [*slow("post", "pot"), "adq", *slow("ste", "lsq", pair(2)), pair(2, affine=True)],
    ids=["post", "pot", "adq", "ste", "lsq", "uniform", "affine"],
)
def test_the_stage_leaves_an_ordinary_model_with_a_smaller_error(kind):
    net, reference, x = quantized(kind)
    found = gptq(net, x, reference=reference)
    assert list(found) == ["first", "shared", "grouped", "depthwise", "linear"]
    for name, solved in found.items():
        layer = net.get_submodule(name)
        assert torch.equal(layer.quantized_weight(), layer.weight), name  # on the grid, bit for bit
        assert solved.error < solved.nearest * 1.02, name  # stretched channels may cost a little
    assert sum(s.error for s in found.values()) < 0.9 * sum(s.nearest for s in found.values())
    before, want = fingerprint(net), net(x)
    again = quantized(kind)[0]
    again.grouped.bias = nn.Parameter(torch.zeros(12))
    again.load_state_dict(before)
    assert torch.equal(again(x), want)
    if kind != "adq":  # N2UQ maps inputs to another unit
        assert not any(isinstance(m, QuantLayer) for m in deconvert(net, bake=True).modules())


def test_means_and_spreads_are_those_of_the_float_network():
    net, reference, x = quantized(pair(2, affine=True))
    gptq(net, x, reference=reference)
    seen = []
    for model in (net, reference):
        model.depthwise.register_forward_hook(lambda m, a, y: seen.append(y.transpose(0, 1).flatten(1)))
        model(x)
    (got_std, got), (std, mean) = (torch.std_mean(y, 1) for y in seen)
    torch.testing.assert_close(got, mean, rtol=0, atol=1e-5)
    assert bool(((got_std / std - 1).abs() < 1e-4).float().mean() > 0.5)  # the others hit the limit


def test_without_refit_scales_stay():
    net, reference, x = quantized(pair(3))
    before = net.grouped.weight_quantizer.scale.clone()
    gptq(net, x, reference=reference, refit=False, std=False)
    assert torch.equal(net.grouped.weight_quantizer.scale, before)


REFUSED = {
    "daq": "standardized",
    "apot": "standardized",
    "pact": "transforms the weight",
    "adaround": "rounded by LearnedRound",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_weights_that_are_no_level_times_a_scale_are_refused(kind):
    net, reference, x = quantized(kind)
    before = fingerprint(net)
    with pytest.raises(ValueError, match=f"layer '(first|shared)': .*{REFUSED[kind]}"):
        gptq(net, x, reference=reference)
    assert_same_state(net, before)


def test_a_reference_that_is_not_the_same_model_is_refused():
    net, reference, x = quantized(pair(3))
    before = fingerprint(net)
    with pytest.raises(ValueError, match="'first' must be a Conv2d in reference, it is QuantConv2d"):
        gptq(net, x, reference=copy.deepcopy(net))
    reference.linear = nn.Linear(12, 5)
    with pytest.raises(ValueError, match=r"'linear' has a weight of shape \(4, 12\), in reference \(5, 12\)"):
        gptq(net, x, reference=reference)
    with pytest.raises(ValueError, match="images must be finite"):
        gptq(net, x / 0, reference=reference)
    with pytest.raises(ValueError, match="damping must be positive and finite, got 0"):
        gptq(net, x, reference=reference, damping=0)
    assert_same_state(net, before)
