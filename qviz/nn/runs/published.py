"""Published figures, to stand beside a row: top-1 in percent and what it was measured on."""

from __future__ import annotations

_DAQ = "ImageNet, 100 epochs of 256, first and last layer in floating point (Kim et al., ICCV 2021, table 2)"
_DAQ_CIFAR = (
    "400 epochs of 256, no BatchNorm after the stem, one before the last layer; figure as quoted by the "
    "README of iimmortall/QuantLib"
)
_LSQ = "ImageNet, as quoted by Kim et al., ICCV 2021, table 2"
_ADQ = "ImageNet, 2.81 bits on average (Jia et al., arXiv:2510.19760, abstract)"

PUBLISHED: dict[tuple[str, str, str, float, float], tuple[float, str]] = {
    ("daq", "resnet20", "cifar10", 1, 1): (85.8, _DAQ_CIFAR),
    ("daq", "resnet20", "cifar10", 1, 32): (91.2, _DAQ_CIFAR),
    ("daq", "resnet18", "imagenet", 1, 1): (56.2, _DAQ),
    ("daq", "resnet18", "imagenet", 1, 2): (64.6, _DAQ),
    ("daq", "resnet18", "imagenet", 2, 2): (66.9, _DAQ),
    ("daq", "resnet18", "imagenet", 3, 3): (69.6, _DAQ),
    ("daq", "resnet18", "imagenet", 4, 4): (70.5, _DAQ),
    ("lsq", "resnet18", "imagenet", 2, 2): (66.8, _LSQ),
    ("lsq", "resnet18", "imagenet", 3, 3): (69.3, _LSQ),
    ("lsq", "resnet18", "imagenet", 4, 4): (70.7, _LSQ),
    ("adq", "resnet18", "imagenet", 2.81, 2.81): (71.512, _ADQ),
}
"""By method, model, data, weight bits and activation bits."""


def published(
    method: str, model: str, data: str, w_bits: float, a_bits: float
) -> tuple[float | None, str | None]:
    """Return the published top-1 and its conditions, or (None, None)."""
    return PUBLISHED.get((method, model, data, w_bits, a_bits), (None, None))
