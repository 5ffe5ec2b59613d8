"""Learn: the roundings, steps, borders and biases of one block, against what the float block gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from qviz.core.quantizer import Quantizer
from qviz.nn.layers import adapt
from qviz.nn.modules import hooked
from qviz.nn.ptq.during import dropping, only, swapped
from qviz.nn.ptq.options import Options
from qviz.nn.ptq.undecided import Undecided, beta
from qviz.nn.ptq.windows import Windows
from qviz.nn.quant_layer import QuantLayer, mixed

Tell = Callable[[int, float], None]
"""Is told the number of a step and its loss."""


@dataclass(frozen=True)
class Learned:
    """What a block's learning came to; losses on the first 256 images that it learned from.

    Attributes:
        first: The loss before.
        soft: The loss at the end, with weights as far as they were decided.
        hard: The loss with all decisions made.
        undecided: The share of weights that were not decided before that.
    """

    first: float
    soft: float
    hard: float
    undecided: float


@dataclass(frozen=True)
class Task:
    """A block and what it is to do.

    Attributes:
        block: The quantized module.
        float_block: The same in floating point.
        layers: Its layers that are quantized, with their float weights.
        x: Inputs in the quantized network, samples in axis 0.
        x_float: Those in the float network.
        y: Outputs of the float network.
    """

    block: nn.Module
    float_block: nn.Module
    layers: Mapping[QuantLayer, Tensor]
    x: Tensor
    x_float: Tensor
    y: Tensor


def loss(out: Tensor, target: Tensor) -> Tensor:
    """Return the mean over batch and space of the sum over channels of the squared difference.

    Both of shape (N, C, …). The released code of BRECQ and QDrop has it so.

    References:
        Li et al., "BRECQ", ICLR 2021, arXiv:2102.05426. Wei et al., "QDrop", ICLR 2022, arXiv:2203.05740.
    """
    return (out - target).square().sum(1).mean()


@torch.no_grad()
def error(block: nn.Module, x: Tensor, y: Tensor, batch: int = 128) -> float:
    """Return :func:`loss` over all samples, some at a time."""
    parts = zip(x.split(batch), y.split(batch), strict=True)
    return sum(float(loss(block(a), b)) * len(a) for a, b in parts) / len(x)


def learn(task: Task, options: Options, generator: torch.Generator, tell: Tell | None = None) -> Learned:
    """Learn a block and write what was learned into it: weights on their levels, steps, borders, biases.

    Nothing is undone if it is broken off.

    Args:
        task: The block, in eval mode.
        options: How.
        generator: Where all random numbers come from.
        tell: Is called after each step.
    """
    found, past = [], 0
    for stage in options.stages:
        told = tell and (lambda step, now, past=past: tell(past + step, now))
        found.append(_stage(task, stage, generator, told))
        past += stage.iterations
    return replace(found[0], hard=found[-1].hard)


def _stage(task: Task, options: Options, generator: torch.Generator, tell: Tell | None) -> Learned:
    some = task.x[:256], task.y[:256]
    first = error(task.block, *some)
    undecided = {
        layer: Undecided(layer.weight_quantizer, w)
        for layer, w in task.layers.items()
        if options.weights and layer.weight_quantizer is not None
    }
    roundings = list(undecided.values())
    groups = _groups(task, roundings, options)
    with swapped(undecided):
        with dropping(task.layers, options.drop, generator), only(task.block, groups):
            _descend(task, roundings, groups, first, options, generator, tell)
        soft = error(task.block, *some)
    with torch.no_grad():
        for layer, one in undecided.items():
            layer.weight.copy_(one.hard())
    hard = error(task.block, *some)
    return Learned(first, soft, hard, sum(u.open() for u in roundings) / _free(roundings))


def _free(undecided: list[Undecided]) -> int:
    return max(sum(int(u.free.sum()) for u in undecided), 1)


def _descend(
    task: Task,
    undecided: list[Undecided],
    groups: list[dict],
    first: float,
    options: Options,
    generator: torch.Generator,
    tell: Tell | None,
) -> None:
    if not groups:
        return
    optimizer = torch.optim.Adam(groups)
    free = _free(undecided)
    windows = None
    if options.windows and all(_by_itself(layer.input_quantizer) for layer in task.layers):
        windows = Windows.of(task.float_block, task.x_float[:2])
    for step in range(options.iterations):
        x, y = _draw(task, options, windows, generator)
        out = task.block(x[0])
        now = loss(out if windows is None else out[(..., *x[1])], y) / max(first, 1e-30)
        power = beta(step, options.iterations, options.warm_up)
        total = now
        if power is not None and undecided:
            total = now + options.regularizer / free * sum(u.regularizer(power) for u in undecided)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()
        left = 0.5 * (1.0 + math.cos(math.pi * (step + 1) / options.iterations))
        for group in optimizer.param_groups:
            group["lr"] = group["start"] * (left if group["falls"] else 1.0)
        adapt(task.block)  # keeps borders monotone
        if tell is not None:
            tell(step, float(now.detach()) * first)


def _by_itself(q: Quantizer | None) -> bool:
    """Return whether a value's code depends on no other value of the map (ASQ's step, fused borders)."""
    return q is None or not (q.range.reads_input or getattr(q.rounding, "kernel", None) is not None)


def _draw(
    task: Task, options: Options, windows: Windows | None, generator: torch.Generator
) -> tuple[tuple[Tensor, tuple[slice, slice] | None], Tensor]:
    """Return a batch: the input and where its window lies in the output, and the output that is wanted."""
    at = torch.randint(len(task.x), (options.batch,), generator=generator).to(task.x.device)
    x, y, inside = task.x[at], task.y[at], None
    x_float = task.x_float[at] if options.drop else None
    if windows is not None:
        place = windows.draw(y, generator)
        x, inside = windows.cut(x, place)
        x_float = windows.cut(x_float, place)[0] if options.drop else None
        y = windows.target(y, place)
    if options.drop:
        x = mixed(x, x_float, options.drop, generator)
    return (x, inside), y


def _groups(task: Task, undecided: list[Undecided], options: Options) -> list[dict]:
    """Return the optimizer's groups: each with its first learning rate and whether that falls."""
    groups = [([u.v for u in undecided], options.round_lr, False)] if undecided else []
    spread = _spread(task) if options.bias_lr else {}
    for layer in task.layers:
        q = layer.input_quantizer
        if q is not None:
            for p in q.range.parameters():
                groups.append(([p], options.step_lr * float(p.detach().abs().mean()), True))
            groups.append((list(q.rounding.parameters()), options.border_lr, True))
        if options.bias_lr and layer.bias is not None:
            groups.append(([layer.bias], options.bias_lr * spread[layer], True))
    return [
        {"params": params, "lr": lr, "start": lr, "falls": falls}
        for params, lr, falls in groups
        if params and lr > 0.0
    ]


def _spread(task: Task) -> dict[QuantLayer, float]:
    """Return the standard deviation of each layer's output."""
    found: dict[QuantLayer, float] = {}

    def note(layer: nn.Module, args: tuple, out: Tensor) -> None:
        found[layer] = float(out.std())

    with hooked(task.layers, after=note), torch.no_grad():
        task.block(task.x[:64])
    return found
