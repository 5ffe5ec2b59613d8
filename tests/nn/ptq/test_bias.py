"""Means and standard deviations of outputs are those of the float network, layer by layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from qviz import recipes
from qviz.nn import convert
from qviz.nn.ptq.bias import bias_correction
from qviz.nn.ptq.nearest import nearest
from tests.nn.ptq import oracles
from tests.nn.ptq.nets import pair, quantized
from tests.nn.small_nets import assert_same_state, fingerprint
from tests.slow import slow


def outputs(model, name, x):
    seen = []
    handle = model.get_submodule(name).register_forward_hook(lambda m, a, y: seen.append(y.detach()))
    model(x)
    handle.remove()
    return torch.cat(seen)


@pytest.mark.parametrize("std", [False, True])
@pytest.mark.parametrize("name", ["grouped", "linear", *slow("first", "depthwise")])
def test_each_channel_has_its_float_statistics(name, std):
    net, reference, x = quantized(pair(3, affine=True))
    codes = net.get_submodule(name).codes()
    bias_correction(net, x, reference=reference, std=std)
    got, want = (outputs(model, name, x).double().numpy() for model in (net, reference))
    gain, _ = oracles.mean_and_std_correction(got, want)
    np.testing.assert_allclose(oracles.bias_correction(got, want), 0, atol=1e-5)
    if std:
        np.testing.assert_allclose(gain, 1, rtol=1e-4)
        layer = net.get_submodule(name)
        assert torch.equal(layer.codes(), codes)
        assert torch.equal(layer.quantized_weight(), layer.weight)
    else:
        assert np.abs(gain - 1).max() > 0.02
        assert torch.equal(net.get_submodule(name).weight, reference.get_submodule(name).weight)


@pytest.mark.parametrize("kind", ["daq", "lsq", "adq"])
def test_means_are_corrected_whatever_quantizes_the_weight(kind):
    net, reference, x = quantized(kind)
    bias_correction(net, x, reference=reference)
    for name in ("grouped", "linear"):
        got, want = (outputs(model, name, x).double().numpy() for model in (net, reference))
        np.testing.assert_allclose(oracles.bias_correction(got, want), 0, atol=1e-5)


def test_a_scale_in_all_is_not_stretched_and_a_standardized_weight_is_refused():
    net, reference, x = quantized("lsq")
    before = net.grouped.weight_quantizer.scale.clone()
    bias_correction(net, x, reference=reference, std=True)
    assert torch.equal(net.grouped.weight_quantizer.scale, before)
    net, reference, x = quantized("apot")
    state = fingerprint(net)
    with pytest.raises(ValueError, match="'first': its weight is standardized"):
        bias_correction(net, x, reference=reference, std=True)
    assert_same_state(net, state)


def test_a_channel_without_spread_keeps_its_scale():
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
    with torch.no_grad():
        net[0].weight[1] = 0
    reference, x = nn.Sequential(*(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))).eval(), torch.randn(50, 4)
    reference.load_state_dict(net.state_dict())
    convert(net, pair=pair(3), first_last="quantized", batch=x)
    nearest(net, x)
    before = net[0].weight_quantizer.scale[1].clone()
    bias_correction(net, x, reference=reference, std=True)
    assert net[0].weight_quantizer.scale[1] == before
    assert bool(net(x).isfinite().all())


def test_nearest_sets_every_step_by_the_least_squared_error():
    net, _, x = quantized(recipes.pair("lsq", 3, 4))
    w = net.first.weight.detach()
    q = recipes.lsq(3, start="mse").observe(w)
    assert torch.equal(net.first.weight_quantizer.scale, q.scale)
    q = recipes.lsq(4, start="mse").observe(x)
    assert torch.equal(net.first.input_quantizer.scale, q.scale)
