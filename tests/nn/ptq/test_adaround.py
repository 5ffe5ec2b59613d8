"""AdaRound in Gram form is AdaRound on the images; what the stage leaves behind."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from qviz.methods.lsq_plus import lsq_plus
from qviz.nn.layers import QuantConv2d
from qviz.nn.ptq.adaround import adaround, decide
from qviz.nn.ptq.moments import Moments
from qviz.nn.ptq.undecided import Undecided, beta
from tests.nn.ptq.nets import pair, quantized
from tests.nn.small_nets import assert_same_state, fingerprint
from tests.slow import slow


def layer_with_images(groups):
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=groups).double()
    x = torch.randn(5, 4, 8, 8, dtype=torch.float64)
    noisy = x + 0.2 * torch.randn_like(x)
    q = lsq_plus(2, channels=6, start="mse").observe(layer.weight)
    layer = QuantConv2d.from_float(layer, weight_quantizer=q)
    return layer, noisy, nn.functional.conv2d(x, layer.weight, layer.bias, 2, 1, 1, groups).detach()


@pytest.mark.parametrize("groups", [1, 2])
def test_the_same_v_as_by_the_loss_over_all_places(groups):
    layer, x, y = layer_with_images(groups)
    gram = Undecided(layer.weight_quantizer, layer.weight.detach()).double()
    direct = copy.deepcopy(gram)
    decide(gram, layer, Moments.of(layer, [(x, y)]), 60, 0.05, 3.0, 0.2)

    def error(w):
        out = nn.functional.conv2d(x, w, None, 2, 1, 1, groups)
        return (out - y - (out - y).mean((0, 2, 3), keepdim=True)).square().sum(1).mean()

    start = direct.v.detach().clone()
    share = 3.0 * error(direct.hard()).item() / direct.v.numel()
    optimizer = torch.optim.Adam([direct.v], 0.05)
    for step in range(60):
        optimizer.zero_grad()
        exponent = beta(step, 60, 0.2)
        loss = error(direct(layer.weight))
        (loss if exponent is None else loss + share * direct.regularizer(exponent)).backward()
        optimizer.step()
    assert (direct.v - start).abs().max() > 0.5
    torch.testing.assert_close(gram.v, direct.v, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [*slow("post", "adq"), pair(2, affine=True)], ids=["post", "adq", "affine"])
def test_each_weight_goes_to_a_neighbor_and_the_error_falls(kind):
    net, reference, x = quantized(kind)
    scales = {n: net.get_submodule(n).weight_quantizer.scale.clone() for n in ("first", "grouped")}
    found = adaround(net, x, reference=reference, iterations=300)
    for name, rounded in found.items():
        layer, w = net.get_submodule(name), reference.get_submodule(name).weight.detach()
        assert torch.equal(layer.quantized_weight(), layer.weight), name
        near = layer.weight_quantizer.codes(w).int()
        assert (layer.codes().int() - near).abs().max() <= 1
        assert rounded.error < rounded.nearest, name
        assert rounded.undecided < 0.1
    assert not torch.equal(net.grouped.codes(), quantized(kind)[0].grouped.codes())
    for name, scale in scales.items():
        assert torch.equal(net.get_submodule(name).weight_quantizer.scale, scale)
    seen = []
    for model in (net, reference):
        model.linear.register_forward_hook(lambda m, a, y: seen.append(y.mean(0)))
        model(x)
    torch.testing.assert_close(*seen, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_left_undecided_is_told(dtype):
    net, reference, x = (part.to(dtype) for part in quantized(pair(2, affine=True)))
    found = adaround(net, x, reference=reference, iterations=2, regularizer=0.0)
    assert found["grouped"].undecided > 0.5
    assert found["grouped"].soft < 0.9 * found["grouped"].error


def test_numbers_out_of_range_are_refused():
    net, reference, x = quantized(pair(2, affine=True), n=4)
    before = fingerprint(net)
    for wrong, why in (
        ({"iterations": 0}, "iterations must be a whole number of at least 1, got 0"),
        ({"lr": float("inf")}, "lr must be finite and from 0 to inf, got inf"),
        ({"warm_up": 1.5}, "warm_up must be finite and from 0 to 1, got 1.5"),
        ({"regularizer": -1.0}, "regularizer must be"),
    ):
        with pytest.raises(ValueError, match=why):
            adaround(net, x, reference=reference, **wrong)
    assert_same_state(net, before)
