"""Flow: from which layers' outputs a result was computed, as a pass of the network shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from qviz.nn.modules import hooked, hooks_around

OVERWRITES = ("copy_", "fill_", "zero_")
"""Operations after which nothing of a tensor's values is left, if it is the whole of its storage."""


class Flow(TorchDispatchMode):
    """Follows the outputs of layers through all operations, also those without gradients.

    A value that becomes a Python number may steer everything after it: it counts as part of every result. Of
    what leaves torch (numpy) nothing is seen.

    Args:
        layers: Whose outputs, as they are before forward hooks, are followed from their calls on.

    Example:
        >>> one, other = nn.Linear(2, 2), nn.Linear(2, 2)
        >>> with Flow([one, other]) as flow:
        ...     unused, y = one(torch.ones(2)), other(torch.ones(2)).relu().argmax()
        >>> flow.origin(y) == {other}
        True
    """

    supports_higher_order_operators = True

    def __init__(self, layers: Iterable[nn.Module] = ()) -> None:
        super().__init__()
        self.called: set[nn.Module] = set()
        self.used: set[nn.Module] = set()
        self._from: dict[int, frozenset[nn.Module]] = {}
        self._everywhere: frozenset[nn.Module] = frozenset()
        self._hooks = hooked(layers, after=self._after, first=True)

    def __enter__(self) -> Flow:
        self._hooks.__enter__()
        return super().__enter__()

    def __exit__(self, *problem: Any) -> None:
        super().__exit__(*problem)
        self._hooks.__exit__(*problem)

    def see(self, result: Any) -> None:
        """Take what the network returned; where no tensor is found in it, all may be in it."""
        self.used |= self.origin(result) if next(_tensors(result), None) is not None else self.called

    def replaced(self, model: nn.Module) -> dict[nn.Module, frozenset[int]]:
        """Return, for each layer that ran, the forward hooks that were seen to replace its output, by key.

        These are all hooks on and around a layer whose output is in nothing that the model returned.
        """
        around = hooks_around(model)
        return {x: frozenset() if x in self.used else around.get(x, frozenset()) for x in self.called}

    def origin(self, result: Any) -> frozenset[nn.Module]:
        """Return the layers whose outputs the tensors in a result were computed from."""
        return self._everywhere.union(*map(self._of, _tensors(result)))

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        read = args[1:] if _overwrites(func, args) else (args, kwargs)
        origin = frozenset().union(*map(self._of, _tensors(read)))
        made = list(_tensors(result))
        for t in made:
            self._mark(t, origin)
        if not made:  # a number, or nothing, as of what writes into several tensors
            self._everywhere |= origin
        return result

    def _after(self, layer: nn.Module, args: tuple, output: Any) -> None:
        self.called.add(layer)
        for y in _tensors(output):
            self._mark(y, self._of(y) | {layer})

    def _of(self, t: Tensor) -> frozenset[nn.Module]:
        return self._from.get(_storage(t), frozenset())

    def _mark(self, t: Tensor, origin: frozenset[nn.Module]) -> None:
        if storage := _storage(t):
            self._from[storage] = origin
        else:
            self._everywhere |= origin


def _overwrites(func: Any, args: tuple) -> bool:
    if func.__name__.partition(".")[0] not in OVERWRITES:
        return False
    return args[0].numel() * args[0].itemsize == args[0].untyped_storage().nbytes()


def _tensors(value: Any) -> Iterator[Tensor]:
    """Return the tensors in lists, mappings and the like, and in objects such as dataclasses."""
    for leaf in tree_leaves(value):
        if isinstance(leaf, Tensor):
            yield leaf
        elif hasattr(leaf, "__dict__"):
            yield from (t for t in tree_leaves(vars(leaf)) if isinstance(t, Tensor))


def _storage(t: Tensor) -> int:
    """Return where the storage of a tensor begins; 0 where that is not seen."""
    plain = type(t) in (Tensor, nn.Parameter) and t.layout is torch.strided and not t.is_meta
    try:
        return t.untyped_storage().data_ptr() if plain else 0
    except NotImplementedError:  # of torch.func, inside vmap
        return 0
