"""Folding: a BatchNorm's fixed scale and shift go into the layer before it.

In eval mode BatchNorm is y = γ (x - μ) / sqrt(σ² + ε) + β with fixed numbers, one each a channel. After
x = w * input + b this is one layer with

    w' = w γ / sqrt(σ² + ε)        b' = (b - μ) γ / sqrt(σ² + ε) + β

so that what is quantized is the weight that the network computes with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves, tree_map_only

from qviz.core._text import article
from qviz.nn.batches import Batch, batches_of, forward
from qviz.nn.calibration import untouched
from qviz.nn.modules import eager, evaluating, hooked
from qviz.nn.ptq.fold_watch import NORMS, Watch
from qviz.nn.quant_layer import QuantLayer


def fold_batchnorm(model: nn.Module, batch: Batch, *more: Batch) -> nn.Module:
    """Fold each BatchNorm into the nn.Conv2d or nn.Linear before it, in place; return the model.

    A run of each batch shows which BatchNorm reads the output of which layer; names and places in the model
    do not matter. The layer gets a new weight and a bias, the BatchNorm becomes an nn.Identity. A BatchNorm
    after anything else, such as an output that a ReLU has changed in place, stays as it is.

    Each batch then runs once more with the BatchNorms folded. Every tensor that the model returns has to be
    as before but for float noise: the norm of its change may be √ε of its own norm, where ε is the machine
    epsilon of the coarsest dtype that a layer computes in (3e-4 for float32; 3e-2 on a GPU, whose products
    may be in TF32). ResNets and MobileNets change by 1e-6.

    Args:
        model: A float model in eval mode.
        batch: As for :func:`~qviz.nn.calibration.calibrate`, the first of a loader; one sample is enough to
            find the BatchNorms.
        more: Further batches. Whatever the model does with other images only, such as another branch, these
            have to show.

    Raises:
        ValueError: A fold would change what the model computes, or could not be seen to be right: the layer
            or its BatchNorm is called several times, has hooks or is in train mode, something else reads the
            layer's output, the BatchNorm keeps no statistics, a hook computes the layer's weight (pruning,
            weight norm), or the layer is quantized already; or what the model returns is another than before.
            Nothing is changed then.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()).eval()
        >>> x = torch.randn(2, 3, 8, 8)
        >>> before = net(x)
        >>> torch.allclose(fold_batchnorm(net, x)(x), before, atol=1e-5)
        True
        >>> net[1], net[0].bias.shape
        (Identity(), torch.Size([4]))
    """
    names = {module: name for name, module in model.named_modules()}
    if quantized := [name for module, name in names.items() if isinstance(module, QuantLayer)]:
        raise ValueError(f"layer {quantized[0]!r} is quantized already: fold the float model before convert")
    if not any(type(module) in NORMS for module in names):
        return model
    watch = Watch(names)
    with torch.inference_mode(False), torch.no_grad(), evaluating(model), eager():
        for one in (next(batches_of(some)) for some in (batch, *more)):
            with watch.seeing():
                expected = _answers(model, one)
                watch.note(expected)
            for norm, layer in watch.pairs.items():
                if why := watch.obstacle(layer, norm):
                    text = f"BatchNorm {names[norm]!r} cannot be folded into layer {names[layer]!r}: {why}"
                    raise ValueError(text)
            if watch.pairs:
                _check(model, one, expected, watch)
        _Fold(model, watch.pairs).swap()
    return model


def _answers(model: nn.Module, batch: Batch) -> list[Tensor]:
    """Run the model on a copy of the batch, and return the tensors that it returns; it stays as it was."""

    def before(_: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        return tree_map_only(Tensor, Tensor.clone, (args, kwargs))

    with untouched(model), hooked([model], before=before):
        output = forward(model, batch)
    if found := _tensors(output):
        return found
    raise ValueError(
        f"BatchNorm cannot be folded: the model returns {article(type(output).__name__)}, in which no tensor "
        "would show a change"
    )


def _tensors(values: Any) -> list[Tensor]:
    """Return the tensors in any nesting of tuples, lists, mappings and dataclasses."""
    found = []
    for value in tree_leaves(values):
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, Mapping):
            found += _tensors(list(value.values()))
        elif is_dataclass(value) and not isinstance(value, type):
            found += _tensors([getattr(value, field.name) for field in fields(value)])
    return found


def _check(model: nn.Module, batch: Batch, expected: list[Tensor], watch: Watch) -> None:
    """Refuse a fold that changes what the model returns for a batch."""
    fold = _Fold(model, watch.pairs)
    fold.swap()
    try:
        found = _answers(model, batch)
    except Exception as problem:  # whatever the model's own code raises where it misses its BatchNorm
        raise ValueError(f"the model does not run once BatchNorm is folded: {problem}") from problem
    finally:
        fold.swap()
    far, most = _distance(found, expected), watch.eps**0.5
    if far > most:
        change = (
            "shape, or numbers that are not finite"
            if math.isinf(far)
            else f"numbers ({far:.2g} of their norm)"
        )
        raise ValueError(
            f"{type(model).__name__} returns other {change} once BatchNorm is folded, and float noise is "
            f"{most:.1g} at most: it reads the BatchNorm, or the layer before it, in a way of its own"
        )


def _distance(found: list[Tensor], expected: list[Tensor]) -> float:
    """Return the largest norm of the change of a tensor, as a share of its norm.

    Of whole numbers and truth values, the share of those that changed; infinity for another shape or NaN.
    """
    if [t.shape for t in found] != [t.shape for t in expected]:
        return torch.inf
    return max(_change(a, b) for a, b in zip(found, expected, strict=True))


def _change(a: Tensor, b: Tensor) -> float:
    same = (a == b) | (a.isnan() & b.isnan())
    if bool(same.all()):
        return 0.0
    if not (b.is_floating_point() or b.is_complex()):
        return float((~same).double().mean())
    size = b.where(b.isfinite(), 0.0).abs().double().norm()
    change = float((a - b).where(~same, 0.0).abs().double().norm() / size)
    return torch.inf if math.isnan(change) else change


class _Fold:
    """Layers with their BatchNorms folded in, and nn.Identity in place of these.

    Args:
        model: The model; it stays as it is until the first swap.
        pairs: The BatchNorms, each with the layer before it.
    """

    def __init__(self, model: nn.Module, pairs: Mapping[nn.Module, nn.Module]) -> None:
        self._parameters = {layer: _parameters(layer, norm) for norm, layer in pairs.items()}
        self._children = {
            (parent, name): nn.Identity().train(child.training)
            for parent in model.modules()
            for name, child in parent._modules.items()
            if child in pairs
        }

    def swap(self) -> None:
        """Put all that into the model, or back what was there."""
        for layer, (weight, bias) in self._parameters.items():
            self._parameters[layer] = layer.weight, layer.bias
            layer.weight, layer.bias = weight, bias
        for (parent, name), child in self._children.items():
            self._children[parent, name] = parent._modules[name]
            parent._modules[name] = child


def _parameters(layer: nn.Module, norm: _BatchNorm) -> tuple[nn.Parameter, nn.Parameter]:
    """Return the weight and the bias of a layer with its BatchNorm folded in."""
    w, mean, variance = layer.weight, norm.running_mean.double(), norm.running_var.double()
    factor = (variance + norm.eps).rsqrt() * (1.0 if norm.weight is None else norm.weight.double())
    bias = (0.0 if layer.bias is None else layer.bias.double()) - mean
    bias = bias * factor + (0.0 if norm.bias is None else norm.bias.double())
    scaled = w.double() * factor.view(-1, *[1] * (w.ndim - 1))
    # parameters of its own: what else holds the old weight keeps it as it was
    made = (nn.Parameter(t.to(w.dtype), w.requires_grad) for t in (scaled, bias))
    return tuple(made)
