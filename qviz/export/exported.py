"""Exported: a whole network as tables and a list of steps, what every format and runner here works from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from qviz.export.tables import LayerTables

OPS = {
    "input": "the images, (N, C, H, W)",
    "conv": "the layer `name` of a 4-d map; stride, padding, dilation (pairs), groups",
    "linear": "the layer `name`, of the last axis",
    "batchnorm": "(x - mean) / sqrt(var + eps) * weight + bias of the module `name`; eps",
    "relu": "max(x, 0)",
    "clip": "min(max(x, low), high); low, high",
    "add": "the sum of two maps of one shape",
    "maxpool": "the largest value of each window; kernel, stride, padding (pairs)",
    "mean": "the mean over rows and columns, (N, C, 1, 1)",
    "flatten": "(N, C H W)",
    "subsample": "every `step`-th row and column, from the first",
    "pad_channels": "`before` and `after` channels of zeros around those of x",
}
"""What a step can be, and the arguments that it has."""


@dataclass(frozen=True)
class Step:
    """One operation of a network.

    Attributes:
        op: One of ``OPS``.
        inputs: Numbers of the earlier steps that it reads.
        name: The module whose tensors it uses, as in the state dict; "" where it has none.
        args: Its arguments, plain JSON values.
    """

    op: str
    inputs: tuple[int, ...] = ()
    name: str = ""
    args: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, eq=False)
class Exported:
    """A network outside of this package.

    Attributes:
        layers: The tables of each convolution and linear layer, by the module's name.
        tensors: All other tensors of the model's state by their key there (BatchNorm's; without counts).
        program: What is computed, step by step, the last one being the output; empty where the forward
            pass of the model is not made of ``OPS`` alone.
        untraceable: Why ``program`` is empty, as a sentence; "" where it is not.
        about: Plain JSON values that travel along: "model" (a name that ``qviz.nn.models.create`` knows, or
            ""), "shape" (of one image), "mean" and "std" (that images are normalized by, one number a
            channel), "policy" (of first and last layer) and whatever else is worth knowing.
    """

    layers: Mapping[str, LayerTables]
    tensors: Mapping[str, Tensor]
    program: tuple[Step, ...] = ()
    untraceable: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)
