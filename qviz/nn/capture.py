"""Capture: what the layers of a network read when it sees a batch."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from qviz.nn.modules import evaluating


@torch.no_grad()
def inputs(model: nn.Module, layers: Iterable[str], batch: Tensor) -> dict[str, Tensor]:
    """Return the input of each named layer, before any quantizer of that layer; one pass in eval mode.

    Of a layer that is used several times it is the input of the first use. The model stays as it is.

    Args:
        model: any module, converted or not.
        layers: names, as ``model.named_modules()`` has them.
        batch: what the model takes.

    Raises:
        ValueError: the model has no such layer, or the batch does not reach it.

    Example:
        >>> net = nn.Sequential(nn.ReLU(), nn.Linear(2, 1))
        >>> inputs(net, ["1"], torch.tensor([[-1.0, 2.0]]))["1"].tolist()
        [[0.0, 2.0]]
    """
    modules, seen = dict(model.named_modules()), {}
    names = list(layers)
    if unknown := [name for name in names if name not in modules]:
        raise ValueError(f"the model has no layer {unknown[0]!r}")

    def watch(name: str) -> torch.utils.hooks.RemovableHandle:
        def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            seen.setdefault(name, given[0].detach().clone())

        return modules[name].register_forward_pre_hook(note)

    handles = [watch(name) for name in names]
    try:
        with evaluating(model):
            model(batch)
    finally:
        for handle in handles:
            handle.remove()
    if missed := [name for name in names if name not in seen]:
        raise ValueError(f"the batch does not reach the layer {missed[0]!r}")
    return {name: seen[name] for name in names}
