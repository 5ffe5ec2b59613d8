"""A small network of every kind of layer, and the same with quantizers that are set."""

from __future__ import annotations

import copy

import torch
from torch import nn

from qviz import recipes
from qviz.methods.lsq import lsq
from qviz.methods.lsq_plus import lsq_plus
from qviz.methods.method import Method, Pair, outputs
from qviz.nn import convert
from qviz.nn.ptq.nearest import nearest


class Mixed(nn.Module):
    """A convolution, a shared one, a grouped one with stride, a depthwise one, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect")
        self.shared = nn.Conv2d(8, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 12, 3, stride=2, groups=2, bias=False)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=2, dilation=2, groups=12)
        self.linear = nn.Linear(12, 4)
        for layer in self.children():  # no channel is dead
            nn.init.kaiming_normal_(layer.weight)

    def forward(self, x):
        x = self.shared(self.shared(self.first(x).relu()).relu()).relu()
        return self.linear(self.depthwise(self.grouped(x).relu()).relu().amax((2, 3)))


def pair(bits: int, affine: bool = False) -> Pair:
    def weight(bits, layer):
        return (lsq_plus if affine else lsq)(bits, channels=outputs(layer), start="mse")

    return Method(weight, lambda bits, layer, signed: lsq(bits, signed=signed)).pair("mine", bits, 4, {}, {})


def quantized(given: Pair | str, n: int = 24):
    """The quantized network, the float one, and images."""
    torch.manual_seed(0)
    net, x = Mixed().eval(), torch.randn(n, 3, 9, 9)
    reference = copy.deepcopy(net)
    chosen = recipes.pair(given, 3, 4) if isinstance(given, str) else given
    convert(net, pair=chosen, first_last="quantized", batch=x)
    nearest(net, x)
    return net, reference, x
