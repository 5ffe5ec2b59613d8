"""Copies: networks that may be run at will, whatever they do to themselves or to what they read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_map_only

from qviz.core._text import some
from qviz.export.packed import PackedLayer
from qviz.nn.copies import deep_copy
from qviz.nn.modules import eager, uncompiled
from qviz.nn.quant_layer import QuantLayer


def copied(model: nn.Module) -> nn.Module:
    """Return a deep copy in eval mode; of a compiled model, of what was compiled.

    Raises:
        TypeError: It is no module, or something in it cannot be copied.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {model!r:.60}")
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError("the layers of a scripted model cannot be quantized: give the module it was made of")
    return deep_copy(uncompiled(model)).eval()


@contextmanager
def steady(*models: nn.Module) -> Iterator[None]:
    """Let models read copies of their inputs, and draw the same random numbers in each run."""

    def before(_: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        torch.default_generator.manual_seed(0)
        return tree_map_only(Tensor, Tensor.clone, (args, kwargs))

    with eager(), ExitStack() as hooks:
        for model in models:
            hooks.callback(model.register_forward_pre_hook(before, prepend=True, with_kwargs=True).remove)
        yield


@contextmanager
def spare(model: nn.Module) -> Iterator[nn.Module]:
    """Give a copy of a model, steady, to be run in its place, if it can be run.

    Raises:
        TypeError: It is no module, or cannot be copied.
        ValueError: Some of its numbers are NaN or infinite; it was loaded from an exported file.
        RuntimeError: It is converted and not calibrated.
    """
    copy = copied(model)
    for name, layer in copy.named_modules():
        if isinstance(layer, QuantLayer) and not layer.calibrated:
            raise RuntimeError(f"layer {name!r} is not calibrated yet: call calibrate(model, images) first")
        if isinstance(layer, PackedLayer):
            raise ValueError(
                "an exported model holds codes and no weights: inspect the one it was saved from"
            )
    _check_numbers(copy, "model")
    with steady(copy):
        yield copy


def check_reference(model: nn.Module, reference: nn.Module, layers: Iterable[str]) -> None:
    """Refuse a reference that is not the float network of a converted model.

    Raises:
        ValueError: It is quantized itself or has numbers that are NaN; it lacks a layer, has one of another
            kind or shape, or BatchNorm where the model has none.
    """
    if any(isinstance(module, QuantLayer) for module in reference.modules()):
        raise ValueError("the reference is quantized itself: give the float network")
    _check_numbers(reference, "reference")
    theirs = dict(reference.named_modules())
    for name in layers:
        own, other = model.get_submodule(name), theirs.get(name)
        if type(other) is not own.float_type or other.weight.shape != own.weight.shape:
            found = "no such layer" if other is None else f"{type(other).__name__}({other.extra_repr()})"
            raise ValueError(
                f"layer {name!r} is a {own.float_type.__name__} with a weight {tuple(own.weight.shape)}; "
                f"the reference has {found}"
            )
    own, other = (
        {name for name, m in net.named_modules() if isinstance(m, _BatchNorm)} for net in (model, reference)
    )
    if odd := sorted(own ^ other):
        where = "reference has" if odd[0] in other else "model has"
        raise ValueError(
            f"only the {where} the BatchNorm {odd[0]!r}: give as reference the network that was converted, "
            "such as the reference of ptq's report"
        )


def _check_numbers(model: nn.Module, what: str) -> None:
    """Refuse weights that are NaN or infinite, with each layer's count."""
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    masks = {key for key, _ in model.named_buffers()}  # which are minus infinity where nothing may pass
    counts = {key: _unfinite(value, masks=key in masks) for key, value in named.items()}
    bad = {key: n for key, n in counts.items() if n}
    if bad:
        texts = [f"{key} has {n:,} of {named[key].numel():,}" for key, n in bad.items()]
        raise ValueError(f"numbers of the {what} are NaN or infinite: {some(texts)}")


def _unfinite(value: Tensor, *, masks: bool) -> int:
    if is_lazy(value) or value.is_meta or not value.is_floating_point():
        return 0
    value = value.detach()
    return int((value.isnan() if masks else ~value.isfinite()).sum())
