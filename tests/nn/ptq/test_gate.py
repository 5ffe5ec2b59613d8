"""The acceptance gate."""

import copy

import pytest
import torch
from torch import nn

from qviz import recipes
from qviz.nn import calibrate, convert
from qviz.nn.ptq.gate import Gate, distance


def quantized():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)
    )
    x = torch.rand(12, 3, 8, 8)
    reference = copy.deepcopy(net)
    convert(net, pair=recipes.pair("lsq", 4), first_last="quantized", batch=x)
    calibrate(net, x)
    return net, reference, x


def test_a_change_that_makes_the_block_worse_is_taken_back():
    net, reference, x = quantized()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    weight = net[2].weight
    trial = Gate(net, reference, x).trial("2")
    with torch.no_grad():
        net[2].weight.mul_(3.0)
        net[2].input_quantizer.range.step.mul_(0.1)
    verdict = trial.decide()
    assert not verdict.accepted
    assert verdict.block_after > verdict.block_before
    assert net[2].weight is weight
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_a_better_block_that_makes_the_network_worse_is_taken_back():
    reference = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        reference[0].weight.copy_(torch.eye(2))
        reference[1].weight.copy_(torch.tensor([[1.0, 0.0]]))  # the output has the first channel only
        net = copy.deepcopy(reference)
        net[0].bias += torch.tensor([0.1, 1.0])
    x = torch.rand(6, 2)
    trial = Gate(net, reference, x).trial("0")
    with torch.no_grad():
        net[0].bias += torch.tensor([0.1, -1.0])
    verdict = trial.decide()
    found = verdict.block_before, verdict.block_after, verdict.output_before, verdict.output_after
    assert found == pytest.approx((1.01, 0.04, 0.01, 0.04), rel=1e-4)
    assert not verdict.accepted
    assert distance(net(x), reference(x)) == pytest.approx(0.01, rel=1e-4)


def test_what_comes_after_the_block_counts_in_floating_point():
    net, reference, x = quantized()
    with torch.no_grad():
        net[5].weight.mul_(-5.0)  # a later layer that is far off
        gate = Gate(net, reference, x)
        want = distance(reference[3:](net[:3](x)), reference(x))
    trial = gate.trial("2")
    assert trial.decide().output_after == pytest.approx(want, rel=1e-6)
    assert gate.output_error() > 10 * want
    assert not reference[2]._forward_hooks


def test_not_strict_measures_and_accepts():
    net, reference, x = quantized()
    trial = Gate(net, reference, x, strict=False).trial("2")
    with torch.no_grad():
        net[2].weight.mul_(3.0)
    verdict = trial.decide()
    assert verdict.accepted
    assert verdict.block_after > verdict.block_before


def test_a_change_that_gives_nan_is_taken_back():
    net, reference, x = quantized()
    trial = Gate(net, reference, x).trial("2")
    with torch.no_grad():
        net[2].bias.fill_(torch.nan)
    assert not trial.decide().accepted
    assert net(x).isfinite().all()


def test_nothing_to_hold_out():
    net, reference, x = quantized()
    with pytest.raises(ValueError, match="no image to hold out"):
        Gate(net, reference, x[:0])
