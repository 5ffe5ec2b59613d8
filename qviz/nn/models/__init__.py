"""Models: the networks that the papers quantize, with the state-dict keys of the published files.

>>> sum(p.numel() for p in create("resnet20").parameters())
269722
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from qviz.nn.models.cifar_resnet import CifarResNet as CifarResNet
from qviz.nn.models.cifar_resnet import resnet20 as resnet20
from qviz.nn.models.mobilenet import MobileNetV2 as MobileNetV2
from qviz.nn.models.mobilenet import mobilenet_v2 as mobilenet_v2
from qviz.nn.models.resnet import ResNet as ResNet
from qviz.nn.models.resnet import resnet18 as resnet18
from qviz.nn.models.resnet import resnet34 as resnet34

_BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "resnet20": resnet20,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "mobilenet_v2": mobilenet_v2,
}
NAMES = tuple(_BUILDERS)


def create(name: str, *, num_classes: int | None = None) -> nn.Module:
    """Return a model by its name, with random weights, in training mode, on the CPU.

    Args:
        name: One of ``NAMES``. "resnet20" is for images of 32 × 32, the others are for 224 × 224 and take
            other sizes too.
        num_classes: Width of the last layer; None for the published one: 10 for "resnet20", else 1000.

    Raises:
        ValueError: No model has that name, or ``num_classes`` is not positive.
        TypeError: ``num_classes`` is no whole number.
    """
    if name not in _BUILDERS:
        raise ValueError(f"No model is named {name!r}; choose from {', '.join(NAMES)}.")
    if num_classes is None:
        return _BUILDERS[name]()
    if isinstance(num_classes, bool) or not isinstance(num_classes, int):
        raise TypeError(f"num_classes must be a whole number, got {num_classes!r}.")
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}.")
    return _BUILDERS[name](num_classes)
