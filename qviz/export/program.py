"""Program: the steps of an exported network, run in floating point; the reference for every other runner."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qviz.export.exported import Exported, Step
from qviz.export.packed import equip
from qviz.export.shapes import shapes

_NORM = ("running_mean", "running_var", "weight", "bias")
T = TypeVar("T")


def run(steps: Sequence[Step], make: Callable[[int, Sequence[T]], T]) -> Iterator[tuple[int, T]]:
    """Make the value of each step from those of its inputs; keep a value until its last reader has it.

    Args:
        steps: In order; each reads earlier ones.
        make: Returns the value of a step, given its number and the values of its inputs.

    Yields:
        The number of a step and its value; the last one is the output.
    """
    last = {number: i for i, step in enumerate(steps) for number in step.inputs}
    values: dict[int, T] = {}
    for i, step in enumerate(steps):
        values[i] = make(i, [values[number] for number in step.inputs])
        yield i, values[i]
        for number in [number for number in values if last.get(number, i) <= i]:
            del values[number]


def product(step: Step, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the convolution or the linear product that a step stands for."""
    if step.op == "linear":
        return F.linear(x, weight, bias)
    a = step.args
    return F.conv2d(x, weight, bias, a["stride"], a["padding"], a["dilation"], a["groups"])


def as_rows(step: Step, x: Tensor) -> Tensor:
    """Return a layer's input as its table reads it, channels on axis 1: that of a linear layer as (-1, C)."""
    return x.flatten(0, -2) if step.op == "linear" else x


def norm(step: Step, x: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    """Return the BatchNorm that a step stands for."""
    mean, var = tensors[f"{step.name}.running_mean"], tensors[f"{step.name}.running_var"]
    weight, bias = tensors.get(f"{step.name}.weight"), tensors.get(f"{step.name}.bias")
    return F.batch_norm(x, mean, var, weight, bias, False, 0.0, step.args["eps"])


def simple(step: Step, values: Sequence[Tensor]) -> Tensor:
    """Return what a step without tensors of its own makes of its inputs."""
    x, a = values[0], step.args
    if step.op == "relu":
        return x.relu()
    if step.op == "clip":
        return x.clamp(a["low"], a["high"])
    if step.op == "add":
        return values[0] + values[1]
    if step.op == "maxpool":
        return F.max_pool2d(x, a["kernel"], a["stride"], a["padding"])
    if step.op == "mean":
        return x.mean((2, 3), keepdim=True)
    if step.op == "flatten":
        return x.flatten(1)
    if step.op == "subsample":
        return x[:, :, :: a["step"], :: a["step"]]
    if step.op == "pad_channels":
        return F.pad(x, (0, 0, 0, 0, a["before"], a["after"]))
    raise ValueError(f"no step is called {step.op!r}")


class Program(nn.Module):
    """The network of an :class:`~qviz.export.exported.Exported` in float32, bit for bit the traced one.

    Its layers stand under their own names in ``net``, so that the state dict has the keys of the file.

    Args:
        exported: Its program must not be empty.

    Raises:
        ValueError: It is, with the reason; (in use) images of this size do not fit a layer.
    """

    def __init__(self, exported: Exported) -> None:
        super().__init__()
        if not exported.program:
            raise ValueError(f"the network cannot be run step by step: {exported.untraceable}")
        self.exported = exported
        self.net = nn.Module()
        for name, step in {step.name: step for step in exported.program if step.name}.items():
            _place(self.net, name, _module(step, exported))
        self._fitting: tuple[int, ...] = ()
        self.eval()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return the output for images as the network takes them, float32."""
        return collections.deque(self.values(images), maxlen=1)[0][1]

    def values(self, images: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield the number of each step and its value."""
        if images.shape[1:] != self._fitting:
            shapes(self.exported, images.shape[1:])
            self._fitting = images.shape[1:]
        return run(
            self.exported.program, lambda i, inputs: self._value(self.exported.program[i], inputs or [images])
        )

    def _value(self, step: Step, inputs: Sequence[Tensor]) -> Tensor:
        if step.op == "input":
            return inputs[0]
        return self.net.get_submodule(step.name)(inputs[0]) if step.name else simple(step, inputs)


def _module(step: Step, exported: Exported) -> nn.Module:
    """Return the module that a step with a name stands for, on the CPU."""
    if step.op == "batchnorm":
        mean, var, weight, bias = (exported.tensors.get(f"{step.name}.{key}") for key in _NORM)
        module = nn.BatchNorm2d(len(mean), step.args["eps"], affine=weight is not None)
        module.running_mean, module.running_var = mean, var
        module.weight, module.bias = (None if v is None else nn.Parameter(v, False) for v in (weight, bias))
        return module
    tables, a = exported.layers[step.name], step.args
    out, rows, *kernel = tables.shape
    if step.op == "linear":
        layer = nn.Linear(rows, out, device="meta")
    else:
        pairs = (tuple(a[key]) for key in ("stride", "padding", "dilation"))
        layer = nn.Conv2d(rows * a["groups"], out, tuple(kernel), *pairs, a["groups"], device="meta")
    return equip(layer, tables, torch.device("cpu"))


def _place(root: nn.Module, name: str, module: nn.Module) -> None:
    *path, last = name.split(".")
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root._modules[part]
    root.add_module(last, module)
