"""A forgotten adapt, and a weight that is changed after its calibration, are noticed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import qviz
from qviz import recipes
from qviz.methods.lsq import LearnedStep
from qviz.nn import QuantLinear, adapt, calibrate, convert, report
from qviz.nn.watch import STEPS


def calibrated(method, bits=4, net=None):
    torch.manual_seed(0)
    if net is None:
        net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    x = torch.randn(32, 8)
    convert(net, pair=recipes.pair(method, bits), batch=x, first_last="quantized")
    calibrate(net, x, batchnorm=False)
    return net, x


def train(net, x, steps, follow=lambda net: None):
    optimizer = torch.optim.SGD(net.parameters(), 1e-4)
    for _ in range(steps):
        for _ in range(3):  # gradients of three passes add up to one step
            net(x).square().sum().backward()
        optimizer.step()
        follow(net)


@pytest.mark.parametrize("method", ["adq", "aquant"])
def test_a_loop_that_forgets_adapt_is_told_so_once(method, recwarn):
    net, x = calibrated(method)
    train(net, x, STEPS)  # nobody has seen the last step yet
    assert not recwarn
    with pytest.warns(UserWarning, match="parameters changed 10 times, and qviz.nn.adapt"):
        net(x)
    recwarn.clear()
    train(net, x, 2 * STEPS)
    assert not recwarn


def test_no_word_where_adapt_is_called_or_not_needed(recwarn):
    net, x = calibrated("adq")
    train(net, x, 2 * STEPS, follow=adapt)
    for layer in (net[0], net[2]):
        layer.weight_quantizer.codebook.freeze()
    train(net, x, 2 * STEPS)
    train(*calibrated("lsq"), 2 * STEPS)
    assert not recwarn


def test_adapt_sorts_learned_levels_of_inputs_too():
    book = qviz.LearnedLevels([0.0, 1.0, 2.0])
    layer = QuantLinear(2, 1, input_quantizer=qviz.Quantizer(book, range=LearnedStep(2, 1.0)))
    with torch.no_grad():
        book.levels.copy_(torch.tensor([0.0, 2.0, 1.5]))
    adapt(layer)
    assert book.levels.tolist() == [0.0, 1.5, 2.0]


def folded(net):
    """Fold the BatchNorm, after a copy that changes nothing."""
    net = copy.deepcopy(net)
    return nn.Sequential(torch.nn.utils.fuse_linear_bn_eval(net[0], net[1]))


@pytest.mark.parametrize("fold_first", [False, True])
def test_folding_after_calibration_is_noticed(fold_first, recwarn):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)).eval()
    net[1].running_var.fill_(400.0)
    if fold_first:
        calibrated("lsq", 8, net := folded(net))
    else:
        net = folded(calibrated("lsq", 8, net)[0])
    layer = net[0]
    w, q = layer.weight.detach(), layer.quantized_weight().detach()
    error = float((q - w).norm() / w.norm())
    assert (error > 0.1) != fold_first
    note = report(net).rows[0].note
    if fold_first:
        net(torch.randn(4, 8))
        assert note == ""
    else:
        assert note.startswith(f"changed after calibration: the weight's relative error is {error:.2g}, and")
        with pytest.warns(UserWarning, match="a weight was changed after its quantizer was calibrated"):
            net(torch.randn(4, 8))
        recwarn.clear()
        net(torch.randn(4, 8))
    assert not recwarn


def test_weights_that_are_loaded_after_calibration(recwarn):
    net, x = calibrated("lsq")
    other = {key: value / 3 for key, value in net.state_dict().items() if key.endswith("weight")}
    net.eval().load_state_dict({**net.state_dict(), **other})  # its own steps come with it: a training's end
    net(x)
    assert not recwarn
    net.load_state_dict({key: value / 20 for key, value in other.items()}, strict=False)
    with pytest.warns(UserWarning, match="load weights before convert"):
        net(x)


def test_training_and_rounding_are_no_mistakes(recwarn):
    """Ranges stay where they are; the weights move by design, or onto the levels."""
    net, x = calibrated("ste")
    with torch.no_grad():
        net[0].weight.copy_(net[0].quantized_weight())
    net.eval()(x)
    net.train()(x)
    with torch.no_grad():
        net[0].weight.mul_(10)  # what a long training might do
    net.eval()(x)
    assert not recwarn
    assert not any(row.note for row in report(net).rows)
