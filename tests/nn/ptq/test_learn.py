"""Learning a block: losses, mixture and gradients against the oracles, and what it does to a real block."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from qviz import recipes
from qviz.nn import calibrate, convert
from qviz.nn.ptq import add_borders
from qviz.nn.ptq.learn import Task, error, learn, loss
from qviz.nn.ptq.options import Options
from qviz.nn.ptq.undecided import Undecided, beta
from qviz.nn.ptq.windows import Windows
from qviz.nn.quant_layer import mixed
from tests.nn.ptq import oracles
from tests.slow import slow


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 2, 6)])
def test_the_loss_is_the_oracles(shape):
    a, b = normal(*shape), normal(*shape, seed=1)
    want = oracles.reconstruction_loss(a.double().numpy(), b.double().numpy())
    assert loss(a, b).item() == pytest.approx(want, rel=1e-6)
    whole = error(nn.Identity(), a, b, batch=2)
    assert whole == pytest.approx(want, rel=1e-6)


def test_the_mixture_is_the_oracles_and_has_its_probability():
    x, y = normal(200, 50), normal(200, 50, seed=1)
    got = mixed(y, x, 0.3, torch.Generator().manual_seed(0))
    mask = (got == x).numpy()
    assert np.array_equal(got.numpy(), oracles.qdrop(x.numpy(), y.numpy(), mask).astype("float32"))
    assert mask.mean() == pytest.approx(0.3, abs=0.015)  # three standard deviations


@pytest.mark.parametrize("name", ["lsq", "post", "apot", "lsq_plus"])
def test_undecided_weights_start_at_the_float_ones_and_end_on_levels(name):
    w = normal(4, 30)
    layer = nn.Linear(30, 4)
    q = recipes.pair(name, 3).weight(layer).observe(w)
    one = Undecided(q, w)
    inside = one.free
    torch.testing.assert_close(one(w)[inside], w[inside], rtol=1e-4, atol=1e-5)
    assert torch.equal(one.hard(), q(w))  # nearest, before V is learned
    with torch.no_grad():
        one.v.copy_(normal(4, 30, seed=3) * 4)
    hard = one.hard()
    assert torch.equal(q(hard), hard)  # the quantizer gives it back bit for bit
    up = torch.from_numpy(oracles.soft_rounding(one.v.detach().double().numpy()) > 0.5)
    assert torch.equal((hard > one.low + one.gap / 2)[inside], up[inside])


def test_the_regularizer_and_its_gradient_are_the_oracles():
    w = normal(3, 40)
    q = recipes.lsq(8, step=0.5, channels=3)
    one = Undecided(q, w)
    assert one.free.all()
    with torch.no_grad():
        one.v.copy_(normal(3, 40, seed=2) * 2)
    value = one.regularizer(3.5)
    value.backward()
    v = one.v.detach().double().numpy()
    assert value.item() == pytest.approx(oracles.rounding_regularizer(v, 3.5), rel=1e-5)
    np.testing.assert_allclose(
        one.v.grad.numpy(), oracles.rounding_regularizer_gradient(v, 3.5), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("step", [0, 19, 20, 60, 99])
def test_beta(step):
    assert beta(step, 100, 0.2) == oracles.rounding_beta(step, 100)


class Residual(nn.Module):
    def __init__(self, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(4, 4, 3, stride, 1)
        self.conv2 = nn.Conv2d(4, 4, 3, 1, 1)
        self.stride = stride

    def forward(self, x):
        return (self.conv2(self.conv1(x).relu()) + x[:, :, :: self.stride, :: self.stride]).relu()


@pytest.mark.parametrize(("stride", "rim"), [(1, 2), (2, 4)])
def test_windows_give_what_the_whole_map_gives(stride, rim):
    torch.manual_seed(0)
    block, x = Residual(stride), normal(3, 4, 32, 32)
    found = Windows.of(block, x)
    assert (found.height, found.width, found.stride, found.rim) == (16 // stride, 16 // stride, stride, rim)
    y = block(x)
    places = {found.draw(y, torch.Generator().manual_seed(i)) for i in range(40)}
    assert len(places) > 20
    for place in [*places, (0, 0), (16 // stride, 16 // stride)]:
        part, inside = found.cut(x, place)
        assert part.shape[2] <= 16 + 2 * rim
        torch.testing.assert_close(block(part)[(..., *inside)], found.target(y, place))


@pytest.mark.parametrize("kind", ["plain", "fused", "asq"])
def test_no_windows_where_a_code_depends_on_the_rest_of_the_map(kind, monkeypatch):
    asked = []
    monkeypatch.setattr(Windows, "of", lambda block, x: asked.append(kind))
    one = task("asq" if kind == "asq" else "lsq")
    if kind == "fused":
        add_borders(one.block, "fused")
    learn(one, Options(iterations=1), torch.Generator().manual_seed(0))
    assert asked == (["plain"] if kind == "plain" else [])


def test_no_windows_where_a_part_a_part_of_the_map_is_not_enough():
    class Mean(nn.Module):
        def forward(self, x):
            return x + x.mean((2, 3), keepdim=True)

    assert Windows.of(Mean(), normal(2, 4, 32, 32)) is None
    assert Windows.of(nn.Linear(4, 2), normal(2, 4)) is None


def task(pair="lsq", bits=3):
    torch.manual_seed(0)
    block = Residual()
    float_block = copy.deepcopy(block)
    x = normal(64, 4, 12, 12).relu()
    convert(block, pair=recipes.pair(pair, bits), first_last="quantized", batch=x)
    calibrate(block, x, batchnorm=False)
    weights = {getattr(block, n): getattr(float_block, n).weight.detach() for n in ("conv1", "conv2")}
    with torch.no_grad():
        return Task(
            block.eval(), float_block, weights, x + 0.02 * normal(*x.shape, seed=5), x, float_block(x)
        )


@pytest.mark.parametrize("pair", ["aquant", *slow("lsq", "post")])
def test_a_learned_block_is_better_than_a_rounded_one_and_an_ordinary_one(pair):
    one = task(pair)
    parameters = dict(one.block.named_parameters())
    one.block.conv2.bias.requires_grad_(False)
    followed = {name: p.requires_grad for name, p in parameters.items()}
    options = Options(iterations=200, drop=0.5, bias_lr=1e-3, regularizer=10.0)
    got = learn(one, options, torch.Generator().manual_seed(0))
    assert got.hard < 0.9 * got.first
    assert got.hard == pytest.approx(error(one.block, one.x, one.y), rel=1e-6)
    assert 0 <= got.undecided < 1
    for layer in one.layers:
        assert torch.equal(layer.quantized_weight(), layer.weight)  # what is stored is on the grid
        assert layer.drop == 0.0
        assert not layer.training
    assert dict(one.block.named_parameters()) == parameters  # the same objects
    assert {name: p.requires_grad for name, p in parameters.items()} == followed
    assert all(p.grad is None for p in parameters.values())


def test_only_what_is_to_be_learned_changes():
    one = task("aquant")
    before = {name: p.detach().clone() for name, p in one.block.named_parameters()}
    learn(one, Options(iterations=5, step_lr=0.0, weights=False), torch.Generator().manual_seed(0))
    changed = {name for name, p in one.block.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {f"conv{i}.input_quantizer.rounding.b" for i in (1, 2)}


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    found = []
    for seed in (0, 0, 1):
        one = task()
        learn(one, Options(iterations=20, drop=0.5), torch.Generator().manual_seed(seed))
        found.append(torch.cat([layer.weight.flatten() for layer in one.layers]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_borders_learned_afterwards_move_nothing_else():
    found, told = [], []
    for more in ({"border_lr": 0.0}, {"borders_after": 30}):
        one = task("aquant")
        options = Options(iterations=20, drop=0.5, bias_lr=1e-3, **more)
        result = learn(one, options, torch.Generator().manual_seed(0), lambda k, now: told.append(k))
        found.append((result, {name: p.detach().clone() for name, p in one.block.named_parameters()}))
    (early, before), (late, after) = found
    assert told == [*range(20), *range(50)]
    assert {n for n in before if not torch.equal(before[n], after[n])} == {
        f"conv{i}.input_quantizer.rounding.b" for i in (1, 2)
    }
    assert (late.first, late.soft) == (early.first, early.soft)
    assert late.hard < early.hard
