"""Capture: what the layers of a network read and give when it sees a batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from qviz.nn.batches import Batch, batches_of, forward
from qviz.nn.modules import evaluating, hooked, uncompiled


@dataclass
class Tapped:
    """Inputs and outputs of a layer, one of each a call, in the order of the calls."""

    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)


@contextmanager
def tap(model: nn.Module, layers: Iterable[str]) -> Iterator[dict[str, Tapped]]:
    """Copy what the named layers read and give, for as long as the context lasts.

    Args:
        model: Any module, converted or not; inputs are those before any quantizer of the layer.
        layers: Names, as ``model.named_modules()`` has them.

    Yields:
        What was seen so far, by name: detached copies of the first argument and of the output.

    Raises:
        ValueError: The model has no such layer.

    Example:
        >>> net = nn.Sequential(nn.ReLU(), nn.Linear(2, 1))
        >>> with tap(net, ["0"]) as seen:
        ...     _ = net(torch.tensor([[-1.0, 2.0]]))
        >>> seen["0"].inputs[0].tolist(), seen["0"].outputs[0].tolist()
        ([[-1.0, 2.0]], [[0.0, 2.0]])
    """
    modules, names = dict(uncompiled(model).named_modules()), list(layers)
    if unknown := [name for name in names if name not in modules]:
        raise ValueError(f"the model has no layer {unknown[0]!r}")
    seen = {modules[name]: Tapped() for name in names}

    def before(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        seen[module].inputs.append(_copy(args[0] if args else next(iter(kwargs.values()))))

    def after(module: nn.Module, args: tuple, output: Any) -> None:
        seen[module].outputs.append(_copy(output))

    with hooked(seen, before=before, after=after):
        yield {name: seen[modules[name]] for name in names}


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


@torch.no_grad()
def inputs(model: nn.Module, layers: Iterable[str], batch: Batch | Iterable[Batch]) -> dict[str, Tensor]:
    """Return the input of each named layer, before any quantizer of that layer; one pass in eval mode.

    Of a layer that is used several times it is the input of the first use. The model stays as it is.

    Args:
        model: Any module, converted or not.
        layers: Names, as ``model.named_modules()`` has them.
        batch: What the model takes, as for :func:`~qviz.nn.calibration.calibrate`; the first of a loader.

    Raises:
        ValueError: The model has no such layer, or the batch does not reach it.

    Example:
        >>> net = nn.Sequential(nn.ReLU(), nn.Linear(2, 1))
        >>> inputs(net, ["1"], torch.tensor([[-1.0, 2.0]]))["1"].tolist()
        [[0.0, 2.0]]
    """
    with evaluating(model), tap(model, layers) as seen:
        forward(model, next(batches_of(batch)))
    if missed := [name for name, tapped in seen.items() if not tapped.inputs]:
        raise ValueError(f"the batch does not reach the layer {missed[0]!r}")
    return {name: tapped.inputs[0] for name, tapped in seen.items()}
