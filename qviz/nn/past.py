"""Past: which layers' weights are read by something else than the layers, where no quantizer is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from qviz.nn.modules import hooked


class Past(TorchDispatchMode):
    """Sees, while a model runs, which layers' weights are read outside of the layers' own calls.

    Args:
        layers: Of the model, each with a parameter ``weight``.

    Attributes:
        layers: Those of which that is so, up to now.

    Example:
        >>> one, other = nn.Linear(2, 2), nn.Linear(2, 2)
        >>> with Past([one, other]) as past:
        ...     y = other(one(torch.ones(2))) @ one.weight.t()
        >>> past.layers == {one}
        True
    """

    supports_higher_order_operators = True

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers: set[nn.Module] = set()
        self._owners: dict[int, set[nn.Module]] = {}
        for layer in layers:
            self._owners.setdefault(_address(layer.weight), set()).add(layer)
        self._owners.pop(0, None)
        self._running: list[nn.Module] = []
        everyone = {layer for owners in self._owners.values() for layer in owners}
        self._hooks = hooked(everyone, before=self._enter, after=self._leave)

    def __enter__(self) -> Past:
        self._hooks.__enter__()
        return super().__enter__()

    def __exit__(self, *problem: Any) -> None:
        super().__exit__(*problem)
        self._hooks.__exit__(*problem)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        if not _only_like(func):
            for value in tree_leaves((args, kwargs)):
                owners = self._owners.get(_address(value)) if isinstance(value, Tensor) else None
                if owners and owners.isdisjoint(self._running):
                    self.layers |= owners
        return func(*args, **(kwargs or {}))

    def _enter(self, layer: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        self._running.append(layer)

    def _leave(self, layer: nn.Module, args: tuple, output: Any) -> None:
        self._running.pop()


def _address(t: Tensor) -> int:
    """Return where a tensor's values begin, the same for a view of the whole; 0 where that is not seen."""
    plain = type(t) in (Tensor, nn.Parameter) and t.layout is torch.strided and not t.is_meta
    return t.data_ptr() if plain else 0


def _only_like(func: Any) -> bool:
    """Return whether an operation reads a tensor's type and shape, and no value of it."""
    name = func.__name__.partition(".")[0]
    return name.startswith("new_") or name.endswith("_like")
