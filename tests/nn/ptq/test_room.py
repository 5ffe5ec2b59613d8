"""Room: choices near the best of all, never worse than nearest, and a network that stays as it was."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from qviz import recipes
from qviz.measure.metrics import sqnr_db
from qviz.nn import calibrate, convert
from qviz.nn.ptq import add_borders, fold_borders
from qviz.nn.ptq.room import choices, room
from tests.nn.ptq import oracles
from tests.nn.ptq.test_ptq import Net

HIGH = 3


def quantized(net, x, bits=2):
    """The net with quantized weights and inputs, and its twin in floating point."""
    reference = copy.deepcopy(net.eval())
    convert(net, pair=recipes.pair("lsq", bits), first_last="quantized", batch=x)
    calibrate(net, x, batchnorm=False)
    return net, reference


def test_choices_are_near_the_best_of_all_and_never_worse_than_nearest():
    torch.manual_seed(0)
    x = torch.rand(24, 6) * 3
    net, reference = quantized(nn.Sequential(nn.Linear(6, 3)), x)
    layer, wanted = net[0], reference(x).detach()
    got, flipped, free = choices(layer, x, wanted, iterations=100, lr=0.1, regularizer=1.0)
    tensors = layer.quantized_weight(), layer.bias, wanted, x
    w, b, target, points = (t.detach().double().numpy() for t in tensors)
    nearest = layer.input_quantizer(x).detach()
    step = layer.input_quantizer.range.scale.item()
    found = []
    for k in range(24):

        def error(values, y=target[k]):
            return float(((w @ values + b - y) ** 2).sum())

        _, least = oracles.best_floors_and_ceilings(points[k], step, HIGH, error)
        found.append((least, error(got[k].double().numpy()), error(nearest[k].double().numpy())))
    least, here, before = np.array(found).T
    assert (here >= least - 1e-6).all()
    assert (here <= before + 1e-6).all()
    assert before.sum() - here.sum() > 0.8 * (before.sum() - least.sum())
    assert flipped == (got != nearest).sum()
    assert free == ((points > 0) & (points < HIGH * step)).sum()


def images(n=6):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 3, 12, 12, generator=generator) + 2 * torch.randn(n, 3, 1, 1, generator=generator)


def test_all_ways_of_rounding_on_the_same_images_and_a_network_that_stays():
    """With a layer that runs twice, groups and depthwise."""
    torch.manual_seed(0)
    net, reference = quantized(Net(), images(), 3)
    nearest, floating = net(images()).detach(), reference(images()).detach()
    add_borders(net)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name.endswith("rounding.b"):
                p[0] = 1.0
    fold_borders(net)
    own, before = net(images()).detach(), copy.deepcopy(net.state_dict())
    found = room(net, reference, images(), iterations=20, batch=4)
    torch.testing.assert_close(found.floating, floating)
    torch.testing.assert_close(found.nearest, nearest)
    torch.testing.assert_close(found.own, own)
    assert not torch.allclose(nearest, own)
    sqnr = found.sqnr()
    assert sqnr == {n: sqnr_db(floating, getattr(found, n)) for n in ("nearest", "own", "chosen")}
    assert sqnr["chosen"] > max(sqnr["nearest"], sqnr["own"]) + 1
    same = (found.own.argmax(1) == floating.argmax(1)).double().mean().item()
    assert found.agreement()["own"] == same
    assert 0.05 < found.flipped < 0.6
    torch.testing.assert_close(dict(net.state_dict()), dict(before), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(net(images()), own)  # no hook is left, and borders are back


def test_what_has_no_room_is_refused():
    x = images()
    torch.manual_seed(0)
    net, reference = quantized(Net(), x)
    with pytest.raises(ValueError, match="at least one, got 0, 30 and 50"):
        room(net, reference, x[:0])
    with pytest.raises(ValueError, match="got 6, 0 and 50"):
        room(net, reference, x, iterations=0)
    with pytest.raises(ValueError, match="no quantized layer"):
        room(reference, reference, x)
    other = copy.deepcopy(reference)
    convert(other, pair=recipes.pair("daq", 2), first_last="quantized", batch=x)
    calibrate(other, x, batchnorm=False)
    with pytest.raises(ValueError, match="'stem' has no choice of levels: "):
        room(other, reference, x)
    head, twin = quantized(nn.Sequential(nn.Conv2d(3, 2, 3)), x)
    with pytest.raises(ValueError, match=r"\(N, classes\), got \(4, 2, 10, 10\)"):
        room(head, twin, x[:4])
