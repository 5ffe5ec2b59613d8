"""Small networks and plain formulas for the tests of layers and conversion."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qviz.methods.pairs import NAMES
from tests.slow import slow

QUANTIZED = [name for name in NAMES if name not in ("fp32", "adaround")]  # AdaRound is for after training
UNLIKE = ["daq", "asq", "adq"]
EACH = [*UNLIKE, *slow(*(name for name in QUANTIZED if name not in UNLIKE))]


class Block(nn.Module):
    """A basic block with the parameter-free shortcut: stride, and zeros for the channels that are missing."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.stride, self.more = stride, after - before

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))
        return (y + shortcut).relu()


class SmallResNet(nn.Module):
    """ResNet-20's shape with one block a stage: 8 layers that can be quantized, 6 of them inside."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = nn.Sequential(Block(width, width, 1))
        self.layer2 = nn.Sequential(Block(width, 2 * width, 2))
        self.layer3 = nn.Sequential(Block(2 * width, 4 * width, 2))
        self.fc = nn.Linear(4 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.bn1(self.conv1(x)).relu())))
        return self.fc(x.mean((2, 3)))


INSIDE = [f"layer{stage}.0.conv{k}" for stage in (1, 2, 3) for k in (1, 2)]


def resnet(seed: int = 0, width: int = 8) -> SmallResNet:
    """A small ResNet with weights of one seed."""
    torch.manual_seed(seed)
    return SmallResNet(width)


def images(n: int = 8, size: int = 12, seed: int = 0) -> Tensor:
    """Random images, of both signs."""
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def rounded(x: Tensor, step: Tensor | float, low: int, high: int) -> Tensor:
    """The nearest multiple of step between low and high steps; ties go down."""
    return (x / step - 0.5).ceil().clamp(low, high) * step


def fingerprint(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the state dict."""
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


def assert_same_state(model: nn.Module, before: dict[str, Tensor]) -> None:
    """The state dict is bit for bit what it was."""
    now = model.state_dict()
    assert now.keys() == before.keys()
    for key, value in before.items():
        assert torch.equal(now[key], value), key
