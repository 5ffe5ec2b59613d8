"""Perturb: change one layer of a network and nothing else, for as long as a measurement takes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from qviz.core import _check
from qviz.core.quantizer import Quantizer
from qviz.core.range import Range
from qviz.nn.modules import eager

Loss = Callable[[nn.Module, Any], Tensor]
Factory = Callable[[int], Callable[[Tensor], Tensor]]


def candidates(bits: Sequence[int]) -> tuple[int, ...]:
    """Return the bit widths to choose from, after a check that they increase."""
    bits = tuple(_check.bits(b, 1, 32, "candidates") for b in bits)
    if not bits or any(b <= a for a, b in itertools.pairwise(bits)):
        raise ValueError(f"candidates must increase, got {bits}")
    return bits


@contextmanager
def changed(module: nn.Module, what: str, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let a layer compute with a changed weight, or on a changed input."""

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        if args:
            return (change(args[0]).to(args[0].dtype), *args[1:]), kwargs
        first = next(iter(kwargs))
        return args, kwargs | {first: change(kwargs[first]).to(kwargs[first].dtype)}

    if what == "activation":
        with module.register_forward_pre_hook(hook, with_kwargs=True):
            yield
        return
    original = module.weight.data
    module.weight.data = change(original).to(original.dtype)
    try:
        yield
    finally:
        module.weight.data = original


def prepare(
    model: nn.Module,
    layers: Sequence[str],
    batches: Iterable[Any],
    bits: Sequence[int] = (1,),
    what: str = "weight",
) -> tuple[list[nn.Parameter], list[Any], tuple[int, ...]]:
    """Return the weights of the layers, the batches and the candidates, after all checks.

    Raises:
        ValueError, TypeError: As for :func:`~qviz.nn.sensitivity.fisher`.
    """
    layers, batches = list(layers), list(batches)
    if what not in ("weight", "activation"):
        raise ValueError(f'what must be "weight" or "activation", got {what!r}')
    if not layers or not batches:
        raise ValueError(f"need layers and batches, got {len(layers)} layers and {len(batches)} batches")
    weights = []
    for name in layers if what == "weight" else ():
        w = getattr(model.get_submodule(name), "weight", None)
        if not isinstance(w, nn.Parameter):
            raise TypeError(f"layer {name!r} has no parameter weight, got {type(w).__name__}")
        weights.append(w)
    return weights, batches, candidates(bits)


@contextmanager
def as_it_was(model: nn.Module, weights: list[nn.Parameter]) -> Iterator[None]:
    """Put the model in eval mode and the weights on the tape; put everything back at the end."""
    modes = [(module, module.training) for module in model.modules()]
    tape = [w.requires_grad for w in weights]
    model.eval()
    for w in weights:
        w.requires_grad_(True)
    try:
        with eager():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for w, needed in zip(weights, tape, strict=True):
            w.requires_grad_(needed)


@torch.no_grad()
def quantized(quantizer: Factory, bits: int, w: Tensor) -> Tensor:
    """Return Q_b(w); a quantizer is calibrated on w first.

    Raises:
        ValueError: As :func:`fitted`, or Q(w) has another shape.
    """
    w = w.detach()
    y = fitted(quantizer(bits), w)(w)
    if y.shape != w.shape:
        raise ValueError(f"Q(w) must have the shape {tuple(w.shape)} of w, got {tuple(y.shape)}")
    return y.detach()


@torch.no_grad()
def fitted(q: Callable[[Tensor], Tensor], w: Tensor) -> Callable[[Tensor], Tensor]:
    """Return q; a quantizer is calibrated on w.

    Raises:
        ValueError: Its levels have a unit of their own.
    """
    if isinstance(q, Quantizer):
        if not q.range.rescale or type(q.range).transform is not Range.transform:
            what = q.recipe or type(q.range).__name__
            raise ValueError(
                f"{what} has levels in a unit of its own: their distance from the weights is no error, "
                "and the network's loss with them tells nothing"
            )
        q.observe(w)
    return q


def scalar(value: Tensor) -> Tensor:
    """Return a loss, after a check that it is one number.

    Raises:
        TypeError: It is none.
    """
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise TypeError(f"the loss must return a scalar tensor, got {getattr(value, 'shape', value)!r}")
    return value
