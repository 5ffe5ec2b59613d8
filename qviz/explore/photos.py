"""Photos: real activations whose scale differs from image to image."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from qviz import shipped
from qviz.explore.tensors import Source

NAME = "ResNet-20, 20 images (real)"
LAYER = "layer3.0.conv2"
COUNT, FOG = 20, 0.15


def fogged(images: Tensor, contrast: float = FOG) -> Tensor:
    """Return images, uint8 (N, C, H, W), whose contrast is a part of what it was, around each channel's mean.

    Example:
        >>> fogged(torch.tensor([[[[0, 200]]]], dtype=torch.uint8), 0.5).flatten().tolist()
        [50, 150]
    """
    mean = images.float().mean((2, 3), keepdim=True)
    return (mean + contrast * (images - mean)).round().to(torch.uint8)


@functools.cache
def activations() -> Tensor:
    """Return what a layer of the shipped ResNet-20 reads of 20 images, every second one in fog."""
    from qviz.nn import load_weights
    from qviz.nn.capture import inputs
    from qviz.nn.data.augment import CIFAR10_MEAN, CIFAR10_STD, normalize
    from qviz.nn.models import create

    images = shipped.cifar10_sample("train")[0][:COUNT]
    images[1::2] = fogged(images[1::2])
    net = load_weights(create("resnet20"), shipped.checkpoint("resnet20_fp32.safetensors"))
    return inputs(net, [LAYER], normalize(images, CIFAR10_MEAN, CIFAR10_STD))[LAYER]


SOURCE = Source(
    activations,
    0,
    f"what {LAYER} of the shipped ResNet-20 reads, after a ReLU, of {COUNT} images of CIFAR-10; "
    f"of every second one the contrast was lowered to {FOG:.0%}, as in fog",
)
