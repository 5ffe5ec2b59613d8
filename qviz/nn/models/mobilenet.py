"""MobileNetV2: inverted residuals and linear bottlenecks, with the state-dict keys of torchvision's file."""

from __future__ import annotations

from torch import Tensor, nn

# expansion t, channels c, repeats n, stride s of the first block: table 2 of the paper
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_STEM, _LAST = 32, 1280


class InvertedResidual(nn.Module):
    """Expand by 1 × 1, filter each channel by 3 × 3, project by 1 × 1; no ReLU after the projection.

    The output is signed, so the next layer's input quantizer has to be. x is added where the shape stays.

    Args:
        width_in: Channels of x.
        width: Channels of y.
        stride: 1, or 2 to halve the map.
        expansion: T, how many times wider the middle is; at 1 there is no expansion layer.

    References:
        Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, section 3.3 and
        table 1. arXiv:1801.04381
    """

    def __init__(self, width_in: int, width: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = width_in * expansion
        layers: list[nn.Module] = [] if expansion == 1 else [_conv_bn_relu6(width_in, middle, 1)]
        layers.append(_conv_bn_relu6(middle, middle, 3, stride, groups=middle))
        layers += [nn.Conv2d(middle, width, 1, bias=False), nn.BatchNorm2d(width)]
        self.conv = nn.Sequential(*layers)
        self.residual = stride == 1 and width_in == width

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, width_in, H, W) to (N, width, H / stride, W / stride), both rounded up."""
        out = self.conv(x)
        return x + out if self.residual else out


class MobileNetV2(nn.Module):
    """The network of width 1: a 3 × 3 convolution, 17 inverted residuals, a 1 × 1 one, a linear layer.

    Args:
        num_classes: Outputs.
        dropout: Probability before the linear layer.

    References:
        Sandler et al., table 2.
    """

    def __init__(self, num_classes: int = 1000, dropout: float = 0.2) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv_bn_relu6(3, _STEM, 3, 2)]
        width_in = _STEM
        for expansion, width, repeats, first_stride in _STAGES:
            for i in range(repeats):
                layers.append(InvertedResidual(width_in, width, first_stride if i == 0 else 1, expansion))
                width_in = width
        layers.append(_conv_bn_relu6(width_in, _LAST, 1))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(_LAST, num_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        nn.init.normal_(self.classifier[1].weight, std=0.01)
        nn.init.zeros_(self.classifier[1].bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to logits (N, num_classes)."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def mobilenet_v2(num_classes: int = 1000) -> MobileNetV2:
    """Return MobileNetV2 of width 1: 3,504,872 parameters with 1000 classes."""
    return MobileNetV2(num_classes)


def _conv_bn_relu6(width_in: int, width: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(width_in, width, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU6())
