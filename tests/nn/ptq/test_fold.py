"""Folding BatchNorm: the network computes the same, or it is refused by name and stays as it was."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn

from qviz.nn.models import create
from qviz.nn.ptq.fold import fold_batchnorm


def with_statistics(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in eval mode, its BatchNorms with statistics and parameters as after a training."""
    generator = torch.Generator().manual_seed(seed)
    for norm in (m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)):
        for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias):
            if t is not None:
                t.data.copy_(torch.rand(t.shape, generator=generator) + 0.2)
    return model.eval()


class Net(nn.Module):
    """Convolutions of all kinds, a linear layer with a BatchNorm, and BatchNorms that follow nothing."""

    def __init__(self):
        super().__init__()
        self.start = nn.BatchNorm2d(3)
        self.last_by_name = nn.Conv2d(3, 8, 3, bias=False)
        self.depthwise, self.d_norm = nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8, affine=False)
        self.grouped, self.g_norm = nn.Conv2d(8, 12, 3, groups=2, bias=False), nn.BatchNorm2d(12)
        self.linear, self.l_norm = nn.Linear(12, 6), nn.BatchNorm1d(6)
        self.a_norm = nn.BatchNorm2d(8)
        self.after_relu = nn.BatchNorm1d(6)

    def forward(self, x):
        x = self.a_norm(self.last_by_name(self.start(x))).relu_()
        x = self.g_norm(self.grouped(self.d_norm(self.depthwise(x)).relu()))
        return self.after_relu(self.l_norm(self.linear(x.mean((2, 3)))).relu())


def test_all_kinds_of_layers_are_folded_and_other_norms_stay():
    torch.manual_seed(0)
    net, x = with_statistics(Net()), torch.randn(5, 3, 9, 9)
    want = net(x)
    weight = net.linear.weight
    other = nn.ModuleList([net.linear])
    assert fold_batchnorm(net, x[:1]) is net
    torch.testing.assert_close(net(x), want, rtol=0, atol=1e-5)
    kinds = [type(getattr(net, name)) for name in ("a_norm", "d_norm", "g_norm", "l_norm")]
    assert kinds == [nn.Identity] * 4
    assert isinstance(net.start, nn.BatchNorm2d)
    assert isinstance(net.after_relu, nn.BatchNorm1d)
    assert other[0].weight is not weight  # what else held the old weight has it as it was
    assert not any(m.training for m in net.modules())


@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2"])
def test_real_networks(name):
    torch.manual_seed(0)
    net, x = with_statistics(create(name)), torch.randn(2, 3, 32, 32)
    want = net(x).detach()
    fold_batchnorm(net, x)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    torch.testing.assert_close(net(x), want, rtol=0, atol=1e-5 * float(want.abs().max()))


def test_a_linear_layer_of_sequences_has_its_channels_elsewhere():
    net = with_statistics(nn.Sequential(nn.Linear(4, 7), nn.BatchNorm1d(7)))
    x = torch.randn(2, 7, 4)  # 7 steps, 7 features: BatchNorm1d counts the steps
    want = net(x)
    assert torch.equal(fold_batchnorm(net, x)(x), want)
    assert isinstance(net[1], nn.BatchNorm1d)


class InPlace(nn.Module):
    """Changes the output of its convolution in place before BatchNorm reads it."""

    def __init__(self, change):
        super().__init__()
        self.conv, self.norm, self.change = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), change

    def forward(self, x):
        y = self.conv(x)
        self.change(y, x)
        return self.norm(y)


@pytest.mark.parametrize(
    "change",
    [lambda y, x: nn.ReLU(inplace=True)(y), lambda y, x: y.add_(x), lambda y, x: y[:, 0].mul_(2)],
)
def test_an_output_that_was_changed_in_place_is_the_layers_no_more(change):
    net, x = with_statistics(InPlace(change)), torch.randn(2, 3, 4, 4)
    want = net(x)
    with torch.inference_mode():  # where torch counts no versions
        fold_batchnorm(net, x)
    assert torch.equal(net(x), want)
    assert isinstance(net.norm, nn.BatchNorm2d)


def test_one_norm_under_two_names_is_replaced_under_both():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    net.add_module("again", nn.Identity())
    net.forward = lambda x: net[1](net[0](x))
    net.again = net[1]
    fold_batchnorm(with_statistics(net), torch.randn(2, 3))
    assert isinstance(net[1], nn.Identity)
    assert isinstance(net.again, nn.Identity)


def layers(*more: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), *more)


class Using(nn.Module):
    """Uses the output of its convolution twice."""

    def __init__(self, use):
        super().__init__()
        self.conv, self.norm, self.use = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), use

    def forward(self, x):
        y = self.conv(x)
        return self.use(y, self.norm(y), self.norm)


def shared_layer():
    net = layers()
    net.extend([net[0], nn.BatchNorm2d(3)])
    return net


def shared_norm():
    net = layers(nn.Conv2d(3, 3, 1))
    net.append(net[1])
    return net


def with_hook(at):
    net = layers()
    net[at].register_forward_hook(lambda module, args, y: y + 1)
    return net


def trained():
    net = layers()
    net[1].train()
    return net


def two_norms(y, z, norm):
    return z + nn.functional.batch_norm(y, norm.running_mean, norm.running_var)


REFUSED = {
    "shared layer": (shared_layer, "layer is called 2 times"),
    "shared norm": (shared_norm, "BatchNorm is called 2 times"),
    "hook of the layer": (lambda: with_hook(0), "layer has hooks"),
    "hook of the norm": (lambda: with_hook(1), "BatchNorm has hooks"),
    "train mode": (trained, "train mode"),
    "no statistics": (
        lambda: nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)),
        "no running statistics",
    ),
    "skip": (lambda: Using(lambda y, z, norm: z + y), "read by something else"),
    "mask": (lambda: Using(lambda y, z, norm: torch.where(y > 0, z, 0.0)), "read by something else"),
    "view": (lambda: Using(lambda y, z, norm: (z, y.detach()[:, :1])), "read by something else"),
    "output": (lambda: Using(lambda y, z, norm: {"z": z, "y": [y]}), "read by something else"),
    "another norm": (lambda: Using(two_norms), "read by something else"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_change_the_result_is_refused_by_name(case):
    torch.manual_seed(0)
    make, why = REFUSED[case]
    net = make()
    modes = {m: m.training for m in with_statistics(net).modules()}
    if case == "train mode":
        net[1].train()
        modes[net[1]] = True
    state = copy.deepcopy(net.state_dict())
    with pytest.raises(ValueError, match=f"into layer '(0|conv|2)'.*{why}"):
        fold_batchnorm(net, torch.randn(2, 3, 4, 4))
    assert {m: m.training for m in net.modules()} == modes
    for key, value in net.state_dict().items():
        assert torch.equal(value, state[key]), key


class Branching(nn.Module):
    """Decides by its input whether another BatchNorm, or a shortcut, reads the convolution."""

    def __init__(self, other, shortcut=False):
        super().__init__()
        self.conv, self.one, self.two = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.other, self.shortcut = other, shortcut

    def forward(self, x):
        y = self.conv(x)
        if not self.other(x):
            return self.one(y).relu().mean((2, 3))
        return (self.one(y) + y if self.shortcut else self.two(y)).relu().mean((2, 3))


BRANCHES = {
    "number": Branching(lambda x: len(x) > 1),
    "mean": Branching(lambda x: x.mean() > 0),
    "resolution": Branching(lambda x: x.shape[-1] > 8),
    "shortcut": Branching(lambda x: len(x) > 1, shortcut=True),
}


@pytest.mark.parametrize("case", BRANCHES)
def test_a_branch_that_only_other_images_take_is_seen(case):
    net = with_statistics(BRANCHES[case])
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    one, more = x[:1] - x[:1].mean() - 1, torch.nn.functional.pad(x, (0, 1)) + 1
    want = net(more)
    for batches in ((one, more), (more, one)):
        with pytest.raises(ValueError, match="into layer 'conv': the layer's output is read by something"):
            fold_batchnorm(net, *batches)
    assert torch.equal(net(more), want)
    fold_batchnorm(net, one, one)  # as long as all images go one way
    assert isinstance(net.one, nn.Identity)


def test_a_norm_that_reads_something_else_with_other_images_is_refused():
    net = with_statistics(layers())
    net.forward = lambda x: net[1](net[0](x) if len(x) == 1 else x)
    with pytest.raises(ValueError, match="with some of the images the BatchNorm reads something else"):
        fold_batchnorm(net, torch.randn(1, 3, 4, 4), torch.randn(2, 3, 4, 4))


@dataclasses.dataclass
class Answer:
    scores: torch.Tensor
    features: torch.Tensor


def own_reading(use):
    """A network whose forward pass reads its layer or its BatchNorm past the modules."""
    net = layers()
    net.forward = lambda x: use(net, x, net[1](net[0](x)))
    return net


def constant(net, x, y):
    return {
        "dead": [0 * y.sum(1)],
        "grid": (torch.arange(3), 7.0),
        "mask": y.new_tensor([-torch.inf]),
        "y": y,
    }


@pytest.mark.parametrize(
    ("use", "why"),
    [
        (lambda net, x, y: y * net[0].weight.sum(), r"returns other numbers \(.* of their norm\)"),
        (
            lambda net, x, y: {"y": [y], "bias": (y * 0, net[0].bias)},
            r"returns other numbers \(.* of their norm\)",
        ),
        (lambda net, x, y: y[:, : 3 - isinstance(net[1], nn.Identity)], "returns other shape"),
        (
            lambda net, x, y: y * (torch.nan if isinstance(net[1], nn.Identity) else 1.0),
            "not finite",
        ),
        (lambda net, x, y: y * net[1].running_var.sum(), "does not run .* 'running_var'"),
        (lambda net, x, y: Answer(y, net[0](x)), "the layer is called 2 times"),
        (lambda net, x, y: float(y.sum()), "the model returns a float"),
    ],
)
def test_what_the_model_returns_is_compared(use, why):
    torch.manual_seed(0)
    net, x = with_statistics(own_reading(use)), torch.randn(2, 3, 4, 4)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(ValueError, match=why):
        fold_batchnorm(net, x)
    assert isinstance(net[1], nn.BatchNorm2d)
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())


def test_an_output_in_a_dataclass_is_seen():
    net = with_statistics(Using(lambda y, z, norm: Answer(z, y)))
    with pytest.raises(ValueError, match="read by something else"):
        fold_batchnorm(net, torch.randn(2, 3, 4, 4))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_float_noise_is_no_change(dtype):
    torch.manual_seed(0)
    net = with_statistics(create("resnet20")).to(dtype)
    fold_batchnorm(net, torch.randn(2, 3, 32, 32, dtype=dtype))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())


def test_dead_constant_and_random_outputs_are_as_before_and_the_batch_too():
    def use(net, x, y):
        x.relu_()
        return constant(net, x, y) | {"noise": torch.rand(3)}

    net, x = with_statistics(own_reading(use)), torch.randn(2, 3, 4, 4)
    was, generator = x.clone(), torch.get_rng_state()
    fold_batchnorm(net, x)
    assert isinstance(net[1], nn.Identity)
    assert torch.equal(x, was)
    assert torch.equal(torch.get_rng_state(), generator)
