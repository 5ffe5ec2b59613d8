"""Announcement: what is about to be trained, in a few lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import Tensor, nn

from qviz.core._text import count, some
from qviz.core.quantizer import Quantizer
from qviz.nn.modules import split
from qviz.nn.train.config import TrainConfig
from qviz.nn.train.packing import hash_weights

PLAIN = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the convolutions and linear layers of a model, without those inside quantizers."""
    inside = {id(m) for q in model.modules() if isinstance(q, Quantizer) for m in q.modules()}
    return [(n, m) for n, m in model.named_modules() if isinstance(m, PLAIN) and id(m) not in inside]


def _width(module: nn.Module, kind: str) -> str | None:
    q = getattr(module, f"{kind}_quantizer", None)
    if not isinstance(q, Quantizer):
        return None
    bits = q.codebook.bits
    return f"{count(bits, 'bit')} ({len(q.codebook)} levels)"


def quantized(model: nn.Module) -> list[str]:
    """Say in sentences which layers are quantized, to how many bits and levels, and which are not."""
    found = layers(model)
    kinds: Counter[str] = Counter()
    weights: Counter[str] = Counter()
    full = []
    for name, module in found:
        w, a = _width(module, "weight"), _width(module, "input")
        if w is None and a is None:
            full.append(name)
            continue
        kind = f"weights {w or 'full precision'}, inputs {a or 'full precision'}"
        kinds[kind] += 1
        weights[kind] += module.weight.numel()
    lines = [f"  {count(n, 'layer')} with {weights[kind]:,} weights: {kind}" for kind, n in kinds.items()]
    if full and kinds:
        lines.append(f"  {count(len(full), 'layer')} in full precision: {some(full, 4)}")
    return lines or [f"  nothing is quantized: {len(found)} layers in full precision"]


def facts(model: nn.Module, per_epoch: int, machine: dict[str, Any]) -> dict[str, Any]:
    """Return what a History carries besides figures; plain types."""
    return {
        "model": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps_per_epoch": per_epoch,
        "quantized": [line.strip() for line in quantized(model)],
        **machine,
    }


def objective(
    loss: Callable[..., Any] | None,
    metric: Callable[..., Any] | None,
    teacher: nn.Module | None,
    teacher_share: float,
) -> dict[str, Any]:
    """Return what a run learns and is judged by, so that it is not gone on with by something else.

    Functions are told by their qualified names, modules by their classes, a teacher by its weights too; what
    is not given is None.
    """
    found: dict[str, Any] = {"loss": _named(loss), "metric": _named(metric), "teacher": None}
    if teacher is not None:
        state = {name: value for name, value in teacher.state_dict().items() if isinstance(value, Tensor)}
        found["teacher"] = f"{_named(teacher)} with weights {hash_weights(state)[:12]}"
        found["teacher_share"] = teacher_share
    return found


def _named(what: Callable[..., Any] | None) -> str | None:
    while isinstance(what, partial):
        what = what.func
    return None if what is None else getattr(what, "__qualname__", type(what).__qualname__)


def _size(train: Iterable[Any]) -> str:
    """Say how many images a step has, where the loader tells; a list of batches does not."""
    size = getattr(train, "batch_size", None)
    most = "at most " if getattr(train, "drop_last", True) is False else ""
    return "" if size is None else f" of {most}{count(size, 'image')}"


def describe(
    model: nn.Module, train: Iterable[Any], config: TrainConfig, per_epoch: int, start: int, machine: str
) -> str:
    """Return the lines that ``fit`` prints before it starts."""
    own = split(model)[1]
    total = sum(p.numel() for p in model.parameters())
    of_quantizers = sum(p.numel() for p in own.values())
    steps = config.epochs * per_epoch
    stop = f", stopping at step {config.max_steps:,}" if config.max_steps is not None else ""
    goes_on = f", going on from step {start:,}" if start else ""
    return "\n".join(
        [
            f"{type(model).__name__}: {total:,} parameters, {of_quantizers:,} of them the quantizers'",
            *quantized(model),
            f"  {config.epochs} epochs of {per_epoch:,} steps = {steps:,} steps{_size(train)}{stop}{goes_on}",
            f"  {machine}",
        ]
    )
