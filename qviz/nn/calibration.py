"""Calibration: passes of a few batches, in which each quantizer is set on what it will see."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parameter import is_lazy

from qviz.core.quantizer import Quantizer
from qviz.nn.batches import Batch, batches_of, forward, samples
from qviz.nn.batchnorm import batch_statistics, reestimate_batchnorm
from qviz.nn.flow import Flow
from qviz.nn.modules import hooked, hooks_around, uncompiled
from qviz.nn.quant_layer import QuantLayer, Reduce

KEPT = 2**20
"""So many values of one call of a layer are kept, for the case that the layer runs again."""


ENOUGH = 64
"""From so many samples on, calibration re-estimates BatchNorm's statistics by itself."""


def calibrate(
    model: nn.Module,
    batch: Batch | Iterable[Batch],
    *,
    batchnorm: bool | None = None,
    reduce: Reduce | None = None,
) -> None:
    """Set every quantizer from one batch or a few, in the order in which the layers run.

    Each layer is set on the input that the layers before it give once they are quantized: weight first,
    then input, then output scale. A layer that runs several times (a recurrent cell, a head that is shared)
    is set on the inputs of all its calls together; above a million values a call, on rows of it at equal
    distances. Everything is set anew, whatever it was before.

    At the end BatchNorm's running statistics, which are those of the network in floating point, are
    re-estimated on the same batches (:func:`~qviz.nn.batchnorm.reestimate_batchnorm`): without that, DAQ at
    four bits on the shipped ResNet-20 has 11 % top-1 before training, with it 80 %.

    The passes run in the mode the model is in, without gradients; only BatchNorm uses the batch's statistics
    in eval mode too, if its own are to be re-estimated: else every layer would be set on inputs that are
    normalized by wrong numbers (PACT at four bits on that ResNet-20 would end with 10 %, not 90 %). Apart
    from the quantizers, the output scales and BatchNorm nothing is changed: other buffers, parameters, and
    the state of torch's random generators are afterwards as they were.

    Args:
        model: A converted model.
        batch: What the model takes: a tensor, an array, a mapping of keyword arguments, or a pair (inputs,
            labels), of which the labels are not used, and the inputs may be a tuple of arguments. Or a
            loader or an iterator of these, or a list of pairs or mappings, of which the first eight are
            taken. A list of several tensors says neither and is refused: ``iter(batches)`` gives batches.
        batchnorm: Whether BatchNorm's statistics are re-estimated; by default, where the batches hold 64
            samples or more, as fewer are no estimate.
        reduce: Takes a tensor to its mean over the processes; each has another part of the batch and the
            same weights, and all end with the same quantizers. Default: ``torch.distributed``, where it is
            initialized.

    Raises:
        TypeError: The batch is nothing that a model takes, or could be one batch as well as several.
        ValueError: The model has no quantized layer, a lazy one, or one on the meta device; the batch does
            not reach one; a layer ran without its quantizers; a weight or an input is NaN or infinite.

    Warns:
        UserWarning: An input has negative values and its quantizer no negative levels; a forward hook
            replaces the output of a layer.
    """
    model = uncompiled(model)
    names = {module: name for name, module in model.named_modules() if isinstance(module, QuantLayer)}
    if not names:
        raise ValueError("the model has no quantized layer: convert it first")
    if reduce is None and several():
        reduce = _mean
    seen = {layer: _Seen(layer, name, reduce) for layer, name in names.items()}

    def before(layer: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        x = args[0] if args else kwargs["input"]
        if x.numel():  # zero rows, of an expert that nothing was sent to, tell nothing
            seen[layer].note(x)
            worked.difference_update(_quantizers(layer))  # observing runs them too

    def after(q: nn.Module, args: tuple, output: Tensor) -> None:
        worked.add(q)

    worked: set[nn.Module] = set()
    batches = list(batches_of(batch))
    if batchnorm is None:
        batchnorm = sum(map(samples, batches)) >= ENOUGH
    quantizers = [q for layer in names for q in _quantizers(layer)]
    with batch_statistics(model) if batchnorm else nullcontext(), hooked(quantizers, after=after):
        for one in batches:
            run(model, one, names, before)
    if missed := [repr(one.name) for one in seen.values() if not one.calls]:
        raise ValueError(
            f"the batch does not reach {', '.join(missed)} in this mode of the model: "
            "give convert the batch, or leave them out with its skip="
        )
    if idle := [repr(name) for layer, name in names.items() if not worked.issuperset(_quantizers(layer))]:
        raise ValueError(
            f"{', '.join(idle)} ran without quantizing: something calls another forward than the layer's own"
        )
    for one in seen.values():
        one.finish()
    if batchnorm:
        reestimate_batchnorm(model, iter(batches), reduce=reduce)
    look_at_hooks(model, batches[0])
    around = hooks_around(model)
    if replaced := [
        repr(name) for layer, name in names.items() if layer._watch.replaced(around.get(layer, ()))
    ]:
        warnings.warn(
            f"a forward hook replaces the output of {', '.join(replaced)}: the report does not count that as "
            "quantized",
            stacklevel=2,
        )
    if cut := [repr(one.name) for one in seen.values() if one.cut]:
        warnings.warn(
            f"inputs of {', '.join(cut)} have negative values, which their unsigned quantizers set to 0: "
            "give convert a batch, or signed=",
            stacklevel=2,
        )


def look_at_hooks(model: nn.Module, batch: Batch) -> None:
    """See in a pass, if the model has forward hooks, which layers' outputs they replace."""
    if not any(module._forward_hooks for module in model.modules()):
        return
    layers = [module for module in model.modules() if isinstance(module, QuantLayer)]
    with Flow(layers) as flow:
        flow.see(run(model, batch))
    for layer, hooks in flow.replaced(model).items():
        layer._watch.judge(hooks)


class _Seen:
    """The inputs of one layer so far; the layer is set anew whenever the number of its calls has doubled."""

    def __init__(self, layer: QuantLayer, name: str, reduce: Reduce | None) -> None:
        self.layer, self.name, self._reduce = layer, name, reduce
        self.calls, self.cut = 0, False
        self._inputs: list[Tensor] = []
        self._pending = False

    def note(self, x: Tensor) -> None:
        """Take in the input of a call."""
        self.calls += 1
        q = self.layer.input_quantizer
        if q is not None and q.codebook.lo >= 0 and q.range.offset is None:
            self.cut = self.cut or bool((x < 0).any())
        x = self.layer._batched(x)
        self._pending = self.calls & (self.calls - 1) != 0
        if not self._pending:
            self._observe([*self._inputs, x])
        self._inputs.append(x[:: -(-x.numel() // KEPT)].detach().clone())

    def finish(self) -> None:
        """Set the layer on the calls since the last doubling too."""
        if self._pending:
            self._observe(self._inputs)

    def _observe(self, inputs: list[Tensor]) -> None:
        try:
            self.layer.observe(together(inputs), self._reduce)
        except (TypeError, ValueError) as problem:
            raise type(problem)(f"layer {self.name!r}: {problem}") from problem


def together(inputs: list[Tensor]) -> Tensor:
    """Return inputs of several calls as one, samples in axis 0; small maps repeat up to the largest's size.

    So each call counts the same, all values are there, and a sample keeps its own statistics.
    """
    if len(inputs) == 1:
        return inputs[0]
    if len({x.shape[1:] for x in inputs}) == 1:
        return torch.cat(inputs)
    flat = [x.flatten(2) for x in inputs]
    size = max(x.shape[2] for x in flat)
    return torch.cat([x[:, :, torch.arange(size, device=x.device) % x.shape[2]] for x in flat]).unsqueeze(-1)


def _quantizers(layer: QuantLayer) -> list[Quantizer]:
    return [q for q in (layer.weight_quantizer, layer.input_quantizer) if q is not None]


@torch.no_grad()
def run(
    model: nn.Module,
    batch: Batch,
    layers: Iterable[nn.Module] = (),
    hook: Callable[..., None] | None = None,
) -> Any:
    """Run the model once with a hook before each of the layers; leave its buffers and RNG as they were.

    Return what it returns.

    Raises:
        ValueError: A parameter or a buffer has no values, as it is lazy or on the meta device.
    """
    for name, t in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(t):
            raise ValueError(f"{name} is lazy and has no shape yet: run the model on a batch before convert")
        if t.is_meta:
            raise ValueError(
                f"{name} is on the meta device and has no values: load the model's weights first"
            )
    with hooked(layers, before=hook), untouched(model):
        return forward(model, batch)


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
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
                module._buffers[name] = buffer
                if not torch.equal(buffer, value):  # one made by expand() cannot be written to at all
                    buffer.copy_(value)


def several() -> bool:
    """Return whether torch.distributed runs several processes."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def _mean(t: Tensor) -> Tensor:
    t = t.clone()
    distributed.all_reduce(t)
    return t / distributed.get_world_size()
