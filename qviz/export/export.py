"""Export: a model as an :class:`~qviz.export.exported.Exported`, and from there into a file and back."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from qviz.core.quantizer import Quantizer
from qviz.export.exported import Exported, Step
from qviz.export.tables import LayerTables, layer_tables
from qviz.nn.layers import QuantConv2d, QuantLayer, QuantLinear

_LAYERS = (nn.Conv2d, nn.Linear, QuantConv2d, QuantLinear)
_DTYPES = (torch.float32, torch.int64, torch.int32, torch.uint8, torch.bool)


@torch.no_grad()
def describe(
    model: nn.Module,
    *,
    shape: Sequence[int] | None = None,
    name: str = "",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    policy: str = "",
    **more: Any,
) -> Exported:
    """Return a model, converted or not, as tables and steps that answer as it does in eval mode.

    Args:
        model: A float32 model, calibrated where it is quantized.
        shape: Of one image, such as (3, 32, 32).
        name: One of ``qviz.nn.models.NAMES``, where it is one of these.
        mean: What is subtracted from images, a number for each channel.
        std: What they are then divided by, a number for each channel.
        policy: Of first and last layer: "fp", "8bit" or "quantized".
        **more: Plain JSON values that travel along.

    Raises:
        ValueError: A quantizer has no table (it rounds at random, by its neighbors, or is soft), a layer has
            a forward pass of its own, or a tensor is not float32.
        RuntimeError: A layer is not calibrated.
    """
    layers: dict[str, LayerTables] = {}
    tensors: dict[str, Tensor] = {}
    inside: set[nn.Module] = set()
    for key, module in model.named_modules():
        if module in inside:
            continue
        if isinstance(module, Quantizer):
            inside |= set(module.modules())
        elif type(module) in _LAYERS:
            inside |= set(module.modules())
            layers[key] = _tables(key, module)
        elif isinstance(module, QuantLayer):
            raise ValueError(
                f"layer {key!r} is a {type(module).__name__}, which has a forward pass of its own"
            )
        else:
            tensors |= _own(key, module)
    program, untraceable = _program(model)
    about = {"model": name, "shape": shape, "mean": mean, "std": std, "policy": policy, **more}
    plain = {key: list(v) if isinstance(v, tuple) else v for key, v in about.items() if v is not None}
    return Exported(layers, tensors, program, untraceable, plain)


def _tables(key: str, module: nn.Module) -> LayerTables:
    if module.weight.dtype != torch.float32:
        raise ValueError(f"layer {key!r} is {module.weight.dtype}; call model.float() first")
    try:
        return layer_tables(module)
    except ValueError as problem:
        raise ValueError(f"layer {key!r}: {problem}") from problem


def _own(key: str, module: nn.Module) -> dict[str, Tensor]:
    """Return what a module itself has in the model's state, without BatchNorm's count of batches."""
    state = dict(module.named_parameters(recurse=False))
    kept = module._non_persistent_buffers_set
    state |= {name: v for name, v in module.named_buffers(recurse=False) if name not in kept}
    found = {f"{key}.{name}".lstrip("."): v for name, v in state.items() if name != "num_batches_tracked"}
    for full, value in found.items():
        if value.dtype not in _DTYPES:
            raise ValueError(f"the tensor {full!r} is {value.dtype}; call model.float() first")
    return {full: value.detach().clone() for full, value in found.items()}


def _program(model: nn.Module) -> tuple[tuple[Step, ...], str]:
    if find_spec("qviz.export.trace") is None:
        return (), "this version of qviz does not trace networks"
    from qviz.export.trace import trace

    return trace(model)
