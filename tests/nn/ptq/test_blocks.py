"""Blocks by the graph of one run."""

import pytest
import torch
from torch import nn

from qviz.nn.models import create
from qviz.nn.ptq import Block, find_blocks


def names(found):
    return [block.name for block in found]


def test_inverted_residuals_are_blocks_with_and_without_a_shortcut():
    found, notes = find_blocks(create("mobilenet_v2"), torch.rand(1, 3, 64, 64))
    assert notes == []
    assert names(found) == [
        "features.0.0",
        *(f"features.{i}" for i in range(1, 18)),
        "features.18.0",
        "classifier.1",
    ]
    assert found[2].layers == tuple(f"features.2.conv.{name}" for name in ("0.0", "1.0", "2"))


def test_a_shortcut_convolution_belongs_to_its_block():
    found, notes = find_blocks(create("resnet18"), torch.rand(1, 3, 64, 64))
    assert notes == []
    assert found[3] == Block("layer2.0", ("layer2.0.conv1", "layer2.0.conv2", "layer2.0.downsample.0"))


class Own(nn.Module):
    """A shortcut in the network's own forward, a layer that runs twice, squeeze and excitation inside."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.a, self.b = nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.Conv2d(8, 8, 1)
        self.twice = nn.Conv2d(8, 8, 1)
        self.gated = Gated()
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.b(self.a(x).relu())
        x = self.twice(self.twice(x))
        return self.head(self.gated(x).mean((2, 3)))


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.squeeze, self.excite = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)

    def forward(self, x):
        y = self.conv(x)
        return x + y * torch.sigmoid(self.excite(self.squeeze(y.mean((2, 3), keepdim=True)).relu()))


def test_what_cannot_be_cut_stands_alone_and_is_said():
    net = Own()
    found, notes = find_blocks(net, torch.rand(2, 3, 8, 8))
    assert names(found) == ["stem", "a", "b", "gated", "head"]
    assert found[3].layers == ("gated.conv", "gated.squeeze", "gated.excite")
    assert notes == [
        "'twice' runs 2 times and is left out",
        "no module holds just a, b: each is taken by itself",
    ]
    assert all(not p.grad_fn and p.grad is None for p in net.parameters())


def test_two_shortcuts_in_one_module_are_not_one_block():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.d = (nn.Linear(4, 4) for _ in range(4))

        def forward(self, x):
            x = x + self.b(self.a(x).relu())
            return x + self.d(self.c(x).relu())

    found, notes = find_blocks(nn.Sequential(Two(), nn.Linear(4, 2)), torch.rand(2, 4))
    assert names(found) == ["0.a", "0.b", "0.c", "0.d", "1"]
    assert len(notes) == 2


def test_an_output_that_is_no_tensor_leaves_layers():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            x = x + self.a(x)
            return x, self.b(x)

    found, notes = find_blocks(Pair(), torch.rand(2, 4))
    assert names(found) == ["a", "b"]
    assert "tuple" in notes[0]


def test_only_the_layers_that_are_asked_for():
    found, _ = find_blocks(create("resnet20"), torch.rand(1, 3, 32, 32), ["layer1.0.conv2", "fc"])
    assert found == [Block("layer1.0", ("layer1.0.conv2",)), Block("fc", ("fc",))]


def test_a_batch_that_the_model_does_not_take():
    with pytest.raises(RuntimeError):
        find_blocks(nn.Linear(3, 2), torch.rand(2, 4))
