"""Inputs: what a layer reads and gives, some images at a time, without running what comes after it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from qviz.core._text import article
from qviz.nn.modules import evaluating, hooked
from qviz.nn.quant_layer import QuantLayer

BATCH = 128
"""So many images run at a time."""


class _Reached(Exception):
    """The module has given its last output: the rest of the run is not needed."""


@torch.no_grad()
def reads(
    model: nn.Module, images: Tensor, name: str, *, calls: int = 1, batch: int = BATCH
) -> Iterator[tuple[Tensor, Any]]:
    """Run the model up to a module, some images at a time, and yield what it reads and gives in each call.

    The model is in eval mode during each run, and in its own modes again between them.

    Args:
        model: Any module, converted or not; inputs are those before any quantizer of the module.
        images: What the model takes, samples in axis 0.
        name: The module's name, as ``model.named_modules()`` has it.
        calls: How many calls of the module in one run are waited for; a shared module has several.
        batch: How many images run at a time.

    Yields:
        Copy of the first argument, and the output: of each call, batch by batch.

    Raises:
        ValueError: The model has no such module, or the images do not reach it so many times.
    """
    module = dict(model.named_modules()).get(name)
    if module is None:
        raise ValueError(f"the model has no module {name!r}")
    seen: list[Any] = []

    def before(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        x = args[0] if args else next(iter(kwargs.values()))
        seen.append(x.clone() if isinstance(x, Tensor) else x)  # the module may change it in place

    def after(module: nn.Module, args: tuple, output: Any) -> None:
        seen.append(output)
        if len(seen) == 2 * calls:
            raise _Reached

    for part in images.split(batch):
        with hooked([module], before=before, after=after), evaluating(model), suppress(_Reached):
            model(part)
        if len(seen) < 2 * calls:
            raise ValueError(f"the images reach {name!r} {len(seen) // 2} times in one run, not {calls}")
        yield from zip(seen[::2], seen[1::2], strict=True)
        seen.clear()


def collect(model: nn.Module, images: Tensor, name: str, *, batch: int = BATCH) -> tuple[Tensor, Tensor]:
    """Return the input and the output of a module for all images; the run ends at its first call.

    Args:
        model: Any module, converted or not; it stays as it is.
        images: What the model takes, samples in axis 0.
        name: The module's name, as ``model.named_modules()`` has it.
        batch: How many images run at a time; memory is that of one such run and of what is returned.

    Raises:
        ValueError: The model has no such module, the images do not reach it, or its input or its output is no
            tensor with the images in axis 0.

    Example:
        >>> net = nn.Sequential(nn.ReLU(), nn.Linear(2, 1), nn.Flatten())
        >>> x, y = collect(net, torch.tensor([[-1.0, 2.0], [3.0, 4.0]]), "0", batch=1)
        >>> x.tolist(), y.tolist()
        ([[-1.0, 2.0], [3.0, 4.0]], [[0.0, 2.0], [3.0, 4.0]])
    """
    found: list[Tensor] = []
    for what, values in zip(
        ("input", "output"), zip(*reads(model, images, name, batch=batch), strict=True), strict=True
    ):
        if not all(isinstance(value, Tensor) for value in values):
            raise ValueError(f"the {what} of {name!r} is {article(type(values[0]).__name__)} and no tensor")
        found.append(torch.cat(values))
        if len(found[-1]) != len(images):
            raise ValueError(f"the {what} of {name!r} has {len(found[-1])} rows for {len(images)} images")
    return found[0], found[1]


@torch.no_grad()
def other_rows(model: nn.Module, images: Tensor, names: Collection[str]) -> dict[str, str]:
    """Return, in words, which modules have other rows than the images and cannot be learned image by image.

    Experts that get some of the images, for instance, or layers of windows and of steps in time.
    """
    found: dict[str, str] = {}
    known = {model.get_submodule(name): name for name in names}

    def after(module: nn.Module, args: tuple, output: Any) -> None:
        for t in (*args[:1], output):
            if isinstance(t, Tensor) and t.ndim and len(t) != len(images):
                found[known[module]] = f"{known[module]!r} has {len(t)} rows for {len(images)} images"

    with hooked(known, after=after), evaluating(model):
        model(images)
    return found


@torch.no_grad()
def quantized_layers(model: nn.Module, images: Tensor) -> dict[str, int]:
    """Return the quantized layers in the order in which they first run, and how often each is called.

    Args:
        model: A converted model; it stays as it is.
        images: What it takes; the first two run.

    Raises:
        ValueError: The model has no quantized layer, or the images do not reach one.
    """
    names = {module: name for name, module in model.named_modules() if isinstance(module, QuantLayer)}
    if not names:
        raise ValueError("the model has no quantized layer: convert it first")
    calls: Counter[str] = Counter()

    def note(layer: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        calls[names[layer]] += 1

    with hooked(names, before=note), evaluating(model):
        model(images[:2])
    if missed := [name for name in names.values() if name not in calls]:
        raise ValueError(f"the images do not reach {missed[0]!r}")
    return dict(calls)
