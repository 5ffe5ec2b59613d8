"""Beside: what a network computes between its layers, where nothing is quantized."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from typing import Any

from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode

from qviz.core._text import count
from qviz.inspection.answers import answer
from qviz.inspection.samples import Chunk, shapes
from qviz.nn.calibration import run
from qviz.nn.modules import hooked
from qviz.nn.quant_layer import QuantLayer
from qviz.nn.survey import survey

_SECOND = {"mm": 0, "bmm": 0, "mv": 0, "dot": 0, "convolution": 0, "addmm": 1, "baddbmm": 1, "addbmm": 1}
"""Where the two operands begin among the arguments of torch's products."""

_KINDS = {
    "attention": ("scaled_dot_product", "multi_head_attention", "transformer_encoder_layer"),
    "softmax": ("softmax",),
    "normalization": ("layer_norm", "batch_norm", "group_norm", "rms_norm"),
}
"""Parts of the names of torch's other operators."""

_WORDS = {
    "attention": "attention (products of activations and a softmax)",
    "product": "matrix product of activations with each other",
    "softmax": "softmax",
    "normalization": "normalization",
    "sum": "sum of activations",
    "gate": "elementwise product of activations",
}
_PLURALS = {
    "attention": "attentions (products of activations and a softmax)",
    "product": "matrix products of activations with each other",
    "softmax": "softmaxes",
    "sum": "sums of activations",
    "gate": "elementwise products of activations",
}


def beside(model: nn.Module, chunk: Chunk) -> tuple[str, ...]:
    """Run a model once, and return notes of what it computes between its layers, if it does.

    A layer is what :func:`~qviz.nn.survey.survey` finds; what happens inside one is its own row's matter.

    Args:
        model: Any module, converted or not; it stays as it is.
        chunk: What it takes.

    Raises:
        ValueError, TypeError: As :func:`attempt`.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Softmax(1))
        >>> beside(net, Chunk(torch.rand(2, 4)))
        ('In floating point between the layers, in one run: 1 softmax, 1 normalization.',)
    """
    watch = _Watch(model)
    attempt(model, chunk, watch)
    return watch.note()


def attempt(model: nn.Module, chunk: Chunk, watch: _Watch | None = None) -> Any:
    """Run a model once and return its output, or say why it does not run.

    Args:
        model: Any module, converted or not; it stays as it is.
        chunk: What it takes.
        watch: Sees what runs, and is told when a layer does.

    Raises:
        ValueError: The model does not run on it, with what torch said and in which layer; a parameter is
            lazy or on the meta device.
        TypeError: It returns nothing to compare.
        RuntimeError: A quantized layer is not calibrated.
    """
    layers, kept, running = _leaves(model), [], []

    def before(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        running.append(module)
        if watch is not None:
            watch.inside = module in layers

    def after(module: nn.Module, args: tuple, output: Any) -> None:
        running.pop()
        if watch is not None:
            watch.inside = False
        if module is model:
            kept.append(output)

    try:
        with hooked({model, *layers}, after=after), watch or nullcontext():
            run(model, chunk.inputs, {model: "", **layers}, before)
    except Exception as problem:
        if not running or (isinstance(running[-1], QuantLayer) and not running[-1].calibrated):
            raise
        where = f"in layer {name!r}: " if (name := layers.get(running[-1])) else ""
        said = (str(problem) or type(problem).__name__).splitlines()[0]
        raise ValueError(
            f"the model does not run on samples of shape {shapes(chunk.inputs)}: {where}{said}"
        ) from problem
    answer(kept[-1])
    return kept[-1]


def _leaves(model: nn.Module) -> dict[nn.Module, str]:
    """Return the layers that hold no other layer, with their names; scripted ones take no hooks."""
    layers = survey(model).items()
    found = {module: name for name, (module, _) in layers if not isinstance(module, ScriptModule)}
    return {
        module: name
        for module, name in found.items()
        if not any(inner in found for inner in module.modules() if inner is not module)
    }


class _Watch(TorchDispatchMode):
    """Counts the operators between the layers that a deployed network would have to quantize too.

    Args:
        model: Products with a weight of its own are not counted.

    Attributes:
        inside: Whether a layer runs.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inside, self._counts = False, Counter()
        held = (t for t in (*model.parameters(), *model.buffers()) if not is_lazy(t))
        self._own = {t.untyped_storage().data_ptr() for t in held}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if not self.inside and (kind := self._kind(func.overloadpacket.__name__.strip("_"), args)):
            self._counts[kind] += 1
        return func(*args, **(kwargs or {}))

    def _kind(self, name: str, args: tuple) -> str:
        if name in _SECOND:
            first = _SECOND[name]
            return "product" if all(map(self._activation, args[first : first + 2])) else ""
        if name in ("add", "mul"):
            both = all(map(self._activation, args[:2])) and args[0].ndim == args[1].ndim > 0
            alike = both and (name == "mul" or args[0].shape == args[1].shape)
            return {"add": "sum", "mul": "gate"}[name] if alike else ""
        return next((kind for kind, parts in _KINDS.items() if any(part in name for part in parts)), "")

    def _activation(self, value: Any) -> bool:
        """Whether a value is a tensor that was computed from the samples, as far as can be told."""
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return False
        return value.untyped_storage().data_ptr() not in self._own

    def note(self) -> tuple[str, ...]:
        """Return the sentence that says what was counted; none if there was nothing."""
        parts = [
            f"{n:,} {_PLURALS[kind]}" if n > 1 and kind in _PLURALS else count(n, _WORDS[kind])
            for kind in _WORDS
            if (n := self._counts[kind])
        ]
        return (f"In floating point between the layers, in one run: {', '.join(parts)}.",) if parts else ()
