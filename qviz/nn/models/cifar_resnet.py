"""ResNet for CIFAR: three stages of 16, 32 and 64 channels on maps of 32, 16 and 8 pixels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class CifarBlock(nn.Module):
    """y = relu(shortcut(x) + bn(conv(relu(bn(conv(x)))))), with a shortcut that has no parameters.

    Option A of the paper: where the block halves the map and doubles the channels, the shortcut takes every
    second row and column and fills the new channels with zeros. INFERRED: the zeros come after the channels
    that exist; the paper does not say where.

    Args:
        width_in: Channels of x.
        width: Channels of y, at least ``width_in``.
        stride: 1, or 2 to halve the map.

    References:
        He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, sections 3.3 and 4.2.
        arXiv:1512.03385
    """

    def __init__(self, width_in: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.stride = stride
        self.added = width - width_in

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, width_in, H, W) to (N, width, H / stride, W / stride), both rounded up."""
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu2(out + self.shortcut(x))

    def shortcut(self, x: Tensor) -> Tensor:
        """Subsample the map and append zero channels; x itself where the shape stays."""
        if self.stride != 1:
            x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.added)) if self.added else x


class CifarResNet(nn.Module):
    """The network of 6n + 2 layers: a 3 × 3 convolution, three stages of n blocks, a mean, a linear layer.

    Args:
        blocks: N, blocks a stage; 3 gives ResNet-20.
        num_classes: Outputs.

    References:
        He et al., section 4.2: architecture; weights start as in He et al. 2015 (arXiv:1502.01852), as there.
    """

    def __init__(self, blocks: int, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = _stage(16, 16, blocks, stride=1)
        self.layer2 = _stage(16, 32, blocks, stride=2)
        self.layer3 = _stage(32, 64, blocks, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 3, 32, 32) to logits (N, num_classes)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.avgpool(x).flatten(1))


def resnet20(num_classes: int = 10) -> CifarResNet:
    """Return ResNet-20 for CIFAR: 19 convolutions and a linear layer, 269,722 parameters with 10 classes.

    References:
        He et al., section 4.2 and table 6 (0.27 M parameters, 8.75 % error).
    """
    return CifarResNet(3, num_classes)


def _stage(width_in: int, width: int, blocks: int, *, stride: int) -> nn.Sequential:
    rest = [CifarBlock(width, width) for _ in range(blocks - 1)]
    return nn.Sequential(CifarBlock(width_in, width, stride), *rest)
