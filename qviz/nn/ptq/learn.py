"""Learn: the roundings, steps, borders and biases of one block, against what the float block gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from qviz.core.quantizer import Quantizer
from qviz.nn.layers import QuantLayer, adapt, mixed
from qviz.nn.ptq.undecided import Undecided, beta
from qviz.nn.ptq.windows import Windows

Tell = Callable[[int, float], None]
"""Is told the number of a step and its loss."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a block is reconstructed.

    Attributes:
        iterations: Steps of Adam, at least 1.
        batch: Images a step, drawn with replacement.
        drop: The probability that a value stays unquantized in a step (QDrop): of the block's input, and
            inside the block; 0 for BRECQ.
        round_lr: The learning rate of V, which has no unit; it stays, all others fall to 0 as a cosine.
        step_lr: Of the activations' steps, as a share of each step.
        border_lr: Of the borders' coefficients, which have no unit.
        bias_lr: Of the biases, as a share of the standard deviation of their layer's output; 0 keeps them.
        weights: Whether roundings are learned; False keeps the weights.
        regularizer: The weight of AdaRound's regularizer: so many times the block's first loss if all weights
            were undecided. Relative, because an absolute one wants another value for each network.
        warm_up: The share of the steps before it sets in.
        windows: Whether to work on half-size windows where a block allows it (see
            :class:`~qviz.nn.ptq.windows.Windows`, and no input quantizer looks at more than the value).
        borders_after: So many steps more in which borders are learned by themselves, after the rest; None
            learns them together with it.

    Raises:
        ValueError: A number is out of range.
    """

    iterations: int = 2000
    batch: int = 32
    drop: float = 0.0
    round_lr: float = 1e-1
    step_lr: float = 5e-3
    border_lr: float = 3e-2
    bias_lr: float = 0.0
    weights: bool = True
    regularizer: float = 3.0
    warm_up: float = 0.2
    windows: bool = True
    borders_after: int | None = None

    def __post_init__(self) -> None:
        for name in ("iterations", "batch", "borders_after"):
            value = getattr(self, name)
            if value is None and name == "borders_after":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        for name in ("drop", "warm_up"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name)!r}")
        for name in ("round_lr", "step_lr", "border_lr", "bias_lr", "regularizer"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and not negative, got {getattr(self, name)!r}")

    @property
    def stages(self) -> tuple[Options, ...]:
        """What is learned one after the other, each without ``borders_after``."""
        if self.borders_after is None:
            return (self,)
        alone = {"weights": False, "step_lr": 0.0, "bias_lr": 0.0, "iterations": self.borders_after}
        return tuple(replace(self, borders_after=None, **what) for what in ({"border_lr": 0.0}, alone))


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
    undecided = {}
    if options.weights:
        undecided = {
            layer: Undecided(layer.weight_quantizer, w)
            for layer, w in task.layers.items()
            if layer.weight_quantizer is not None
        }
    free = sum(int(u.free.sum()) for u in undecided.values())
    groups = _groups(task, list(undecided.values()), options)
    with _swapped(undecided), _dropping(task, options.drop, generator), _only(task.block, groups):
        _descend(task, list(undecided.values()), groups, first, options, generator, tell)
    with _swapped(undecided):
        soft = error(task.block, *some)
    with torch.no_grad():
        for layer, one in undecided.items():
            layer.weight.copy_(one.hard())
    hard = error(task.block, *some)
    return Learned(first, soft, hard, sum(u.open() for u in undecided.values()) / max(free, 1))


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
    free = max(sum(int(u.free.sum()) for u in undecided), 1)
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

    handles = [layer.register_forward_hook(note) for layer in task.layers]
    try:
        with torch.no_grad():
            task.block(task.x[:64])
    finally:
        for handle in handles:
            handle.remove()
    return found


@contextmanager
def _swapped(undecided: Mapping[QuantLayer, Undecided]) -> Iterator[None]:
    """Let undecided weights stand in the layers."""
    own = {layer: layer.weight_quantizer for layer in undecided}
    try:
        for layer, one in undecided.items():
            layer._modules["weight_quantizer"] = one
        yield
    finally:
        for layer, quantizer in own.items():
            layer._modules["weight_quantizer"] = quantizer


@contextmanager
def _only(block: nn.Module, groups: list[dict]) -> Iterator[None]:
    """Let autograd follow the parameters in the groups, and no others of the block."""
    learned = {p for group in groups for p in group["params"]}
    before = {p: p.requires_grad for p in learned | set(block.parameters())}
    try:
        for p in before:
            p.requires_grad_(p in learned)
        yield
    finally:
        for p, followed in before.items():
            p.requires_grad_(followed)
            p.grad = None


@contextmanager
def _dropping(task: Task, drop: float, generator: torch.Generator) -> Iterator[None]:
    """Let the layers mix float values into their quantized inputs (QDrop); all else stays in eval mode."""
    mixed = [layer for layer in task.layers if drop and layer.input_quantizer is not None]
    try:
        for layer in mixed:
            layer.mix(drop, generator)
            layer.training = True
        yield
    finally:
        for layer in mixed:
            layer.training = False
            layer.mix(0.0)
