"""Network: the shipped ResNet-20 and the embedded images, loaded once for all explorers."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping

from torch import Tensor, nn

from qviz import shipped
from qviz.nn.data.augment import CIFAR10_MEAN, CIFAR10_STD, normalize
from qviz.nn.models import create
from qviz.nn.weights import load_weights

CHECKPOINT = "resnet20_fp32.safetensors"


@functools.cache
def resnet20() -> nn.Module:
    """Return the shipped ResNet-20 in floating point, in eval mode; it is shared, so leave it as it is."""
    return load_weights(create("resnet20"), shipped.checkpoint(CHECKPOINT)).eval()


@functools.cache
def sample(split: str = "test") -> tuple[Tensor, Tensor]:
    """Return the 2,000 embedded images of a split, normalized as in training, and their labels."""
    images, labels = shipped.cifar10_sample(split)
    return normalize(images, CIFAR10_MEAN, CIFAR10_STD), labels


def with_weights(weights: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of the network in which the named layers have other weights."""
    net = copy.deepcopy(resnet20())
    for name, w in weights.items():
        net.get_submodule(name).weight.data.copy_(w)
    return net
