"""Trace: the forward pass of a network in eval mode, as a list of steps; torch.fx looks, nothing is run."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

from torch import fx, nn

from qviz.core._text import article
from qviz.export.calls import CALLS, called, changes_its_input, of_a_shape
from qviz.export.exported import Step
from qviz.export.packed import PackedConv2d, PackedLinear
from qviz.nn.layers import QuantConv2d, QuantLinear
from qviz.nn.modules import evaluating

_CONVOLUTIONS, _LINEAR = (nn.Conv2d, QuantConv2d, PackedConv2d), (nn.Linear, QuantLinear, PackedLinear)
_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout2d)
_LEAVES = (
    *_CONVOLUTIONS,
    *_LINEAR,
    *_NOTHING,
    nn.BatchNorm2d,
    nn.ReLU,
    nn.ReLU6,
    nn.MaxPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Flatten,
)


def trace(model: nn.Module) -> tuple[tuple[Step, ...], str]:
    """Return what a network computes in eval mode, as steps, or why it cannot be said in these.

    Convolutions and linear layers (quantized ones too), BatchNorm2d, ReLU, ReLU6, MaxPool2d,
    AdaptiveAvgPool2d(1), Flatten and dropout are understood as modules; of functions and methods additions,
    relu, relu6, clamp, padding of channels by zeros, slices of rows and columns, dropout, flatten, and the
    mean over rows and columns. Where a ReLU or an addition works in place, what is read later is its result;
    where it works on a slice or a flattened map, the whole may not be read later.

    Args:
        model: Any module of one tensor to one tensor. Its modes stay as they are.

    Returns:
        The steps and "", or no steps and a sentence that names what cannot be traced.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
        >>> [(step.op, step.inputs) for step in trace(net)[0]]
        [('input', ()), ('conv', (0,)), ('relu', (1,)), ('flatten', (2,)), ('linear', (3,))]
        >>> trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid()))
        ((), 'the module 1 is a Sigmoid, which no step stands for')
    """
    try:
        for name, module in model.named_modules():
            hooks = module._forward_hooks or module._forward_pre_hooks
            if hooks or "forward" in vars(module):
                what = "hooks" if hooks else "a forward set on the instance"
                raise Unknown(
                    f"the module {name or type(model).__name__} has {what}, which no step stands for"
                )
        with evaluating(model):
            graph = _Tracer().trace(model)
        return _Steps(dict(model.named_modules())).of(graph), ""
    except Unknown as reason:
        return (), str(reason)


class Unknown(Exception):
    """What no step stands for, as a sentence."""


class _Stand(fx.Proxy):
    """Stands for a tensor; of its own ``+=`` it says that it works in place."""

    def __iadd__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})


class _Tracer(fx.Tracer):
    """Looks into a module unless a step stands for it as a whole."""

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Stand(node, self)

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        if type(module) in _LEAVES:
            return True
        torchs = type(module).__module__.startswith("torch.nn") and not isinstance(module, nn.Sequential)
        if torchs or isinstance(module, (nn.Conv2d, nn.Linear)):
            raise Unknown(f"the module {name} is {article(type(module).__name__)}, which no step stands for")
        return False

    def trace(self, root: nn.Module, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        if type(root) in _LEAVES:
            raise Unknown(f"{article(type(root).__name__)} by itself is a layer and no network")
        try:
            return super().trace(root, concrete_args)
        except Unknown:
            raise
        except Exception as problem:  # the model's own code, run on stand-ins for tensors, may raise anything
            said = " ".join(str(problem).split())
            raise Unknown(f"the forward pass of {type(root).__name__} depends on values: {said}") from problem


class _Steps:
    """Steps made from a graph, one node after the other.

    Args:
        modules: Of the network, by name.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self.modules = modules
        self.steps: list[Step] = []
        self.number: dict[fx.Node, int] = {}
        self.memory: dict[int, int] = {}

    def of(self, graph: fx.Graph) -> tuple[Step, ...]:
        for node in graph.nodes:
            if node.op == "output":
                if not isinstance(node.args[0], fx.Node):
                    raise Unknown(f"the network returns {node.args[0]!r} and not one tensor")
                if self._read(node.args[0]) != len(self.steps) - 1:
                    raise Unknown("the network does not return what it computes last")
            elif node.users or node.op == "placeholder" or self._in_place(node):
                self._add(node)
        return tuple(self.steps)

    def _add(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            if self.steps:
                raise Unknown(f"the network takes a second input, {node.target}")
            self.number[node] = self._new("input")
        elif node.op == "call_module":
            self._place(node, self._module(str(node.target), node))
        elif node.op in ("call_function", "call_method"):
            if not of_a_shape(node):
                self._place(node, self._function(node))
        else:
            raise Unknown(f"the network reads {node.target} itself, outside of any layer")

    def _in_place(self, node: fx.Node) -> bool:
        """Whether a node changes what it reads."""
        if node.op == "call_module":
            return bool(getattr(self.modules[str(node.target)], "inplace", False))
        return changes_its_input(node)

    def _place(self, node: fx.Node, step: int) -> None:
        """Note the step of a node; where the node works in place, all that reads its input reads the step."""
        if self._in_place(node):
            before = self._read(node.args[0])
            self.memory[step] = self.memory[before]
            for other, number in self.number.items():
                if number == before:
                    self.number[other] = step
                elif self.memory[number] == self.memory[before] and any(user > node for user in other.users):
                    raise Unknown(f"{called(node)} changes a part of {other}, which is read later")
        self.number[node] = step

    def _new(self, op: str, *inputs: int, name: str = "", **args: Any) -> int:
        self.steps.append(Step(op, inputs, name, args))
        step = len(self.steps) - 1
        self.memory[step] = self.memory[inputs[0]] if op in ("flatten", "subsample") else step
        return step

    def _read(self, value: Any) -> int:
        if not isinstance(value, fx.Node) or value not in self.number:
            raise Unknown(f"the network computes with {value}, which is no map that a step made")
        return self.number[value]

    def _module(self, name: str, node: fx.Node) -> int:
        module, x = self.modules[name], self._read(node.args[0] if node.args else None)
        if type(module) in _CONVOLUTIONS:
            return self._convolution(name, module, x)
        if type(module) in _LINEAR:
            return self._new("linear", x, name=name)
        if isinstance(module, _NOTHING):
            return x
        if isinstance(module, nn.BatchNorm2d):
            if module.running_mean is None:
                raise Unknown(f"the BatchNorm {name} keeps no statistics, so each batch has its own")
            return self._new("batchnorm", x, name=name, eps=module.eps)
        if isinstance(module, nn.ReLU6):
            return self._new("clip", x, low=0.0, high=6.0)
        if isinstance(module, nn.ReLU):
            return self._new("relu", x)
        if isinstance(module, nn.MaxPool2d):
            return self._maximum(name, module, x)
        if isinstance(module, nn.AdaptiveAvgPool2d):
            if module.output_size not in (1, (1, 1)):
                raise Unknown(f"the pool {name} averages to {module.output_size} and not to one pixel")
            return self._new("mean", x)
        if (module.start_dim, module.end_dim) != (1, -1):
            raise Unknown(f"the module {name} flattens axes {module.start_dim} to {module.end_dim}")
        return self._new("flatten", x)

    def _convolution(self, name: str, module: nn.Conv2d, x: int) -> int:
        reach = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        padding = {"valid": [0, 0], "same": [r // 2 for r in reach]}.get(str(module.padding))
        if module.padding == "same" and any(r % 2 for r in reach):
            raise Unknown(f"the convolution {name} pads more on one side than on the other")
        padding = list(module.padding) if padding is None else padding
        if module.padding_mode != "zeros":
            raise Unknown(f"the convolution {name} pads by {module.padding_mode} and not by zeros")
        shape = {"stride": list(module.stride), "padding": padding, "dilation": list(module.dilation)}
        return self._new("conv", x, name=name, **shape, groups=module.groups)

    def _maximum(self, name: str, module: nn.MaxPool2d, x: int) -> int:
        if module.ceil_mode or module.return_indices or _pair(module.dilation) != [1, 1]:
            raise Unknown(f"the pool {name} has ceil_mode, return_indices or dilation")
        sizes = {"kernel": module.kernel_size, "stride": module.stride, "padding": module.padding}
        return self._new("maxpool", x, **{key: _pair(value) for key, value in sizes.items()})

    def _function(self, node: fx.Node) -> int:
        try:
            made = CALLS[node.target](*node.args, **node.kwargs)
        except (KeyError, TypeError):  # another function, or arguments that none of these takes
            made = None
        if made is None:
            given = ", ".join([*map(str, node.args), *(f"{k}={v}" for k, v in node.kwargs.items())])
            raise Unknown(f"the network calls {called(node)}({given}), which no step stands for")
        inputs, steps = made
        numbers = [self._read(value) for value in inputs]
        for op, args in steps:
            numbers = [self._new(op, *numbers, **args)]
        return numbers[0]


def _pair(value: Any) -> list[int]:
    return list(value) if isinstance(value, tuple | list) else [value, value]
