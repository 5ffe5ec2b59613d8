"""Calibration: one pass of one batch, in which each quantizer is set on what it will see."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn

from qviz.core.quantizer import Quantizer
from qviz.nn.layers import QuantLayer, Reduce

Batch = Tensor | tuple | list | Mapping


def calibrate(model: nn.Module, batch: Batch, *, reduce: Reduce | None = None) -> None:
    """Set every quantizer from one batch, in the order in which the layers run.

    Each layer is set on the input that the layers before it give once they are quantized: weight first,
    then input, then output scale. A layer that runs several times is set the first time. Everything is set
    anew, whatever it was before.

    The pass runs in the mode the model is in (so in train mode BatchNorm uses the batch's statistics, as
    the training that follows will), without gradients. Apart from the quantizers and output scales nothing is
    changed: running statistics and other buffers, parameters, and the state of torch's random generators are
    afterwards as they were.

    Args:
        model: a converted model.
        batch: what the model takes: a tensor, a mapping of keyword arguments, or a loader's (images, labels),
            of which the labels are not used.
        reduce: takes a tensor to its mean over the processes; each has another part of the batch and the
            same weights, and all end with the same quantizers. Default: ``torch.distributed``, where it is
            initialised.

    Raises:
        ValueError: the model has no quantized layer; the batch does not reach one; a weight or an input is
            NaN or infinite.

    Warns:
        UserWarning: an input has negative values and its quantizer no negative levels.
    """
    names = {module: name for name, module in model.named_modules() if isinstance(module, QuantLayer)}
    if not names:
        raise ValueError("the model has no quantized layer: convert it first")
    if reduce is None and several():
        reduce = _mean
    waiting, cut = dict(names), []

    def first_call(layer: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        if waiting.pop(layer, None) is not None:
            x = args[0] if args else kwargs["input"]
            try:
                layer.observe(x, reduce)
            except (TypeError, ValueError) as problem:
                raise type(problem)(f"layer {names[layer]!r}: {problem}") from problem
            if _cuts_negative(layer, x):
                cut.append(repr(names[layer]))

    run(model, batch, names, first_call)
    if waiting:
        raise ValueError(
            f"the batch does not reach {', '.join(map(repr, waiting.values()))} in this mode of the model: "
            "leave them out with skip= of convert"
        )
    if cut:
        warnings.warn(
            f"inputs of {', '.join(cut)} have negative values, which their unsigned quantizers set to 0: "
            "give convert a batch, or signed=",
            stacklevel=2,
        )


@torch.no_grad()
def run(model: nn.Module, batch: Batch, layers: Iterable[nn.Module], hook: Callable[..., None]) -> None:
    """Run the model once with a hook before each of the layers; leave its buffers and RNG as they were."""
    handles = [layer.register_forward_pre_hook(hook, with_kwargs=True) for layer in layers]
    try:
        with _untouched(model):
            if isinstance(batch, Mapping):
                model(**batch)
            else:
                model(batch[0] if isinstance(batch, (tuple, list)) else batch)
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Put back the buffers (the quantizers' apart) and the random generators."""
    own = {id(m) for q in model.modules() if isinstance(q, Quantizer) for m in q.modules()}
    kept = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        if id(module) not in own
        for name, buffer in module.named_buffers(recurse=False)
    ]
    devices = {t.device for t in model.parameters()} | {t.device for t in model.buffers()}
    with torch.random.fork_rng(devices=[d for d in devices if d.type == "cuda"]):
        try:
            yield
        finally:
            for module, name, buffer, value in kept:
                module._buffers[name] = buffer.copy_(value)


def _cuts_negative(layer: QuantLayer, x: Tensor) -> bool:
    q = layer.input_quantizer
    return q is not None and q.codebook.lo >= 0 and q.range.offset is None and bool((x < 0).any())


def several() -> bool:
    """Return whether torch.distributed runs several processes."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def _mean(t: Tensor) -> Tensor:
    t = t.clone()
    distributed.all_reduce(t)
    return t / distributed.get_world_size()
