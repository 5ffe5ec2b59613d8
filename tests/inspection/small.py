"""A small network with every kind of layer, and what an inspection finds in it."""

import functools
from collections import OrderedDict

import torch
from torch import nn

from qviz.inspection import Inspection, inspect


def network(seed: int = 0) -> nn.Module:
    """Two convolutions, one of them depthwise, a linear layer, and a transposed one that is not quantized."""
    torch.manual_seed(seed)
    layers = OrderedDict(
        first=nn.Conv2d(3, 8, 3, padding=1),
        act=nn.ReLU(),
        wide=nn.Conv2d(8, 8, 3, padding=1, groups=8),
        up=nn.ConvTranspose2d(8, 4, 2),
        flat=nn.Flatten(),
        last=nn.Linear(4 * 81, 5),
    )
    return nn.Sequential(layers)


@functools.cache
def inspection(recipe: str = "lsq", bits: int = 4, **how: object) -> Inspection:
    """Return what is found in the network on six images of noise; it is frozen, so it may be shared."""
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return inspect(network(), images, recipe=recipe, bits=bits, name="small", **how)
