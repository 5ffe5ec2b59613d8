"""Recipe: which function made a quantizer, and with which arguments."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

P = ParamSpec("P")
Q = TypeVar("Q")


@dataclass(frozen=True)
class Recipe:
    """The name of the function that made a quantizer, and the arguments that it was given.

    Attributes:
        name: The function's name, such as "lsq".
        arguments: The arguments that differ from the defaults, by name, as far as they are numbers, texts,
        lists of these or
            None. Tensors, generators and ranges are not kept: they are not what one reads a name for.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        """Return the call, such as ``lsq(bits=4, signed=False)``."""
        return f"{self.name}({', '.join(f'{k}={v!r}' for k, v in self.arguments.items())})"

    def to_tensor(self) -> Tensor:
        """Return the recipe as the bytes of a JSON text, uint8: a form that every state dict can hold."""
        text = json.dumps({"name": self.name, "arguments": dict(self.arguments)})
        return torch.tensor(list(text.encode()), dtype=torch.uint8)

    @classmethod
    def from_tensor(cls, data: Tensor) -> Recipe | None:
        """Return the recipe that :meth:`to_tensor` wrote; None for an empty tensor."""
        return cls(**json.loads(bytes(data.tolist()))) if data.numel() else None


class Made(nn.Module):
    """A module that knows which recipe made it, and says so in its state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.recipe: Recipe | None = None

    def get_extra_state(self) -> Tensor:
        """Return the recipe, for the state dict: the bytes of a JSON text."""
        return torch.empty(0, dtype=torch.uint8) if self.recipe is None else self.recipe.to_tensor()

    def set_extra_state(self, state: Tensor | None) -> None:
        """Take over the recipe of a state dict; one from before recipes were kept changes nothing."""
        if state is not None:
            self.recipe = Recipe.from_tensor(state)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict({f"{prefix}_extra_state": None, **state}, prefix, *args, **kwargs)


def recipe(function: Callable[P, Q]) -> Callable[P, Q]:
    """Note on each quantizer that ``function`` returns which recipe made it, as ``q.recipe``.

    A decorator, for the recipes here and for your own.

    Example:
        >>> from qviz import Quantizer, uniform
        >>> @recipe
        ... def mine(bits: int, *, signed: bool = True) -> Quantizer:
        ...     return Quantizer(uniform(bits, signed=signed))
        >>> str(mine(3, signed=False).recipe)
        'mine(bits=3, signed=False)'
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def make(*args: P.args, **kwargs: P.kwargs) -> Q:
        quantizer = function(*args, **kwargs)
        given = signature.bind(*args, **kwargs).arguments
        defaults = {k: p.default for k, p in signature.parameters.items()}
        told = {
            k: v for k, v in given.items() if _plain(v) and not (_plain(defaults[k]) and v == defaults[k])
        }
        quantizer.recipe = Recipe(function.__name__, told)
        return quantizer

    return make


def _plain(value: Any) -> bool:
    """Whether JSON can hold the value."""
    if isinstance(value, (list, tuple)):
        return all(_plain(v) for v in value)
    return value is None or isinstance(value, (bool, int, float, str))
