"""Subclasses of Conv2d and Linear that are quantized by name: their own forward pass runs."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qviz import recipes
from qviz.nn import calibrate, convert, deconvert
from tests.nn.small_nets import assert_same_state, fingerprint


class SamePadding(nn.Conv2d):
    """Pads by itself, as TensorFlow's convolutions do."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class Casting(nn.Linear):
    """Reads its weight and bias by name."""

    def forward(self, input: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return F.linear(input, self.weight.to(input.dtype), bias)


class Standardizing(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        return self._conv_forward(x, w / w.std(), self.bias)


class Rectifying(nn.Linear):
    """Proportional to its weight, and not to its input."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.normalize(x))


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        SamePadding(3, 8, 2, 2), nn.ReLU(), SamePadding(8, 8, 2, groups=8), nn.Flatten(), Casting(200, 4)
    )


ALSO = (SamePadding, Casting)
IMAGES = torch.randn(6, 3, 9, 9, generator=torch.Generator().manual_seed(1))


def converted(method="lsq"):
    model = net()
    done = convert(model, pair=recipes.pair(method, 3), batch=IMAGES, first_last="quantized", also=ALSO)
    calibrate(model, IMAGES)
    return model, done


def by_hand(model):
    """The three layers' products, written out."""
    first, _, second, _, last = model
    x = F.pad(first.input_quantizer(IMAGES), (0, 1, 0, 1))
    x = F.conv2d(x, first.quantized_weight(), first.scaled_bias(), 2).relu()
    x = F.pad(second.input_quantizer(x), (0, 1, 0, 1))
    x = F.conv2d(x, second.quantized_weight(), second.scaled_bias(), groups=8)
    return F.linear(last.input_quantizer(x.flatten(1)), last.quantized_weight(), last.scaled_bias())


@pytest.mark.parametrize("method", ["lsq", "daq"])  # DAQ has an output scale
def test_the_own_forward_pass_runs_with_quantized_weight_and_input(method):
    model, done = converted(method)
    assert [row.kind for row in done.rows] == ["SamePadding", "depthwise SamePadding", "Casting"]
    assert all(row.quantized for row in done.rows)
    assert torch.equal(model(IMAGES), by_hand(model))
    model(IMAGES).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_it_is_copied_pickled_and_undone():
    model, _ = converted()
    want = model(IMAGES)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(IMAGES), want)
        assert other[0].weight is not model[0].weight
        assert_same_state(other, fingerprint(model))
    deconvert(model)
    assert type(model[0]) is SamePadding
    assert torch.equal(model(IMAGES), net()(IMAGES))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of Dynamo
def test_it_compiles_as_a_whole():
    model, _ = converted()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert torch.equal(compiled(IMAGES), model(IMAGES))


@pytest.mark.parametrize(
    ("build", "what"),
    [(lambda: Standardizing(3, 4, 3), "weight"), (lambda: Rectifying(9, 4), "input")],
)
def test_a_forward_pass_that_is_no_product_is_refused(build, what):
    model = nn.Sequential(build())
    convert(model, pair=recipes.pair("lsq", 3), first_last="quantized", also=type(model[0]))
    with pytest.raises(ValueError, match=f"'0': the forward pass of .* is not proportional to its {what}"):
        calibrate(model, IMAGES if what == "weight" else IMAGES.flatten(0, 2))


def test_what_also_refuses():
    model = net()
    with pytest.raises(TypeError, match=r"subclasses of them can be quantized, got .*Conv1d"):
        convert(model, pair=recipes.pair("lsq", 3), also=nn.Conv1d)
    with pytest.raises(ValueError, match="also names Standardizing, which no layer of the model is"):
        convert(model, pair=recipes.pair("lsq", 3), also=[SamePadding, Standardizing])
    with pytest.raises(
        ValueError, match=r"2 layers: SamePadding, a subclass of Conv2d, is not named by also="
    ):
        convert(model, pair=recipes.pair("lsq", 3))
