"""Describe: a model as an :class:`~qviz.export.exported.Exported`, and what was exported in a model again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from qviz.core._text import article, some
from qviz.export.check import DTYPES, dtype_of
from qviz.export.exported import Exported
from qviz.export.fold import layer_tables
from qviz.export.packed import PackedConv2d, PackedLinear, equip
from qviz.export.program import Program
from qviz.export.tables import LayerTables
from qviz.export.trace import trace
from qviz.nn.copies import deep_copy
from qviz.nn.layers import QuantConv2d, QuantLayer, QuantLinear
from qviz.nn.modules import evaluating
from qviz.nn.survey import HOOK

_LAYERS = (nn.Conv2d, nn.Linear, QuantConv2d, QuantLinear, PackedConv2d, PackedLinear)


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
        model: A float32 model, calibrated where it is quantized, or what :func:`~qviz.export.load`
            returned.
        shape: Of one image, such as (3, 32, 32). With it the steps are run on two random images; where they
            do not answer as the model does, bit for bit, there are none, and a sentence says so.
        name: One of ``qviz.nn.models.NAMES``, where it is one of these.
        mean: What is subtracted from images, a number for each channel.
        std: What they are then divided by, a number for each channel.
        policy: Of first and last layer: "fp", "8bit" or "quantized".
        **more: Plain JSON values that travel along.

    Raises:
        ValueError: A quantizer has no table (it rounds at random, by its neighbors, or is soft), a layer has
            a forward pass of its own, a tensor is not float32, or images of the shape do not fit.
        RuntimeError: A layer is not calibrated.
    """
    if any(value.device.type != "cpu" for value in (*model.parameters(), *model.buffers())):
        model = deep_copy(model).cpu()
    read = model.exported if isinstance(model, Program) else None
    layers, own = _parts(model if read is None else model.net)
    tables = {key: _tables(key, layer) for key, layer in layers.items()}
    for key, value in own.items():
        if dtype_of(value) not in DTYPES:
            raise ValueError(f"the tensor {key!r} is {value.dtype}; call model.float() first")
    about = {"model": name, "policy": policy, **more}
    about |= {} if shape is None else {"shape": [int(n) for n in shape]}
    about |= {
        key: [float(v) for v in given] for key, given in (("mean", mean), ("std", std)) if given is not None
    }
    tensors = {key: value.detach().clone() for key, value in own.items()}
    if read is not None:
        about = {**read.about, **{key: value for key, value in about.items() if value != ""}}
        tables, tensors = {**read.layers, **tables}, {**read.tensors, **tensors}
        return replace(read, layers=tables, tensors=tensors, about=about)
    exported = Exported(tables, tensors, *trace(model), about)
    if exported.program and shape is not None and (far := _apart(exported, model)):
        why = f"on random images its steps answer up to {far:.3g} from what {type(model).__name__} answers"
        return replace(exported, program=(), untraceable=why)
    return exported


def _tables(name: str, layer: nn.Module) -> LayerTables:
    if layer.weight.dtype != torch.float32:
        raise ValueError(f"layer {name!r} is {layer.weight.dtype}; call model.float() first")
    try:
        return layer_tables(layer)
    except ValueError as problem:
        raise ValueError(f"layer {name!r}: {problem}") from problem


def _apart(exported: Exported, model: nn.Module) -> float:
    """Return by how much the steps and the model differ on two random images; 0 for the same bits."""
    x = torch.randn(2, *exported.about["shape"], generator=torch.Generator().manual_seed(0))
    found = Program(exported)(x)
    with evaluating(model):
        expected = model(x)
    if found.shape != expected.shape:
        return torch.inf
    alike = torch.allclose(found, expected, rtol=0, atol=0, equal_nan=True)
    return 0.0 if alike else float((found - expected).abs().max())


@torch.no_grad()
def put_into(exported: Exported, model: nn.Module) -> nn.Module:
    """Give a model of the architecture that was exported its layers and tensors, in place; return it.

    Args:
        exported: What was read.
        model: Of the same architecture, converted or not; it comes back in eval mode.

    Raises:
        ValueError: Its layers or tensors have other names or shapes; it stays as it was.
    """
    layers, own = _parts(model)
    there = {key: tuple(tables.shape) for key, tables in exported.layers.items()}
    there |= {key: tuple(value.shape) for key, value in exported.tensors.items()}
    here = {key: tuple(layer.weight.shape) for key, layer in layers.items()}
    here |= {key: tuple(value.shape) for key, value in own.items()}
    if there != here:
        both = sorted(there.keys() & here.keys())
        other = [f"{k} {there[k]} there, {here[k]} here" for k in both if there[k] != here[k]]
        missing, extra = sorted(here.keys() - there.keys()), sorted(there.keys() - here.keys())
        raise ValueError(
            f"the file belongs to another model: missing there {some(missing)}; not here {some(extra)}; "
            f"other shapes {some(other)}"
        )
    for key, layer in layers.items():
        equip(layer, exported.layers[key])
    for key, value in own.items():
        value.copy_(exported.tensors[key])
    return model.eval()


def _parts(model: nn.Module) -> tuple[dict[str, nn.Module], dict[str, Tensor]]:
    """Return convolutions and linear layers by name, and what the other modules have in the model's state.

    BatchNorm's count of batches is left out, as no answer depends on it.
    """
    layers: dict[str, nn.Module] = {}
    tensors: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if any(name.startswith(f"{layer}.") for layer in layers):
            continue
        if type(module) in _LAYERS:
            if not name:
                raise ValueError(
                    f"the model is {article(type(module).__name__)} itself, and a file has names for "
                    "layers: put it into an nn.Sequential"
                )
            if "weight" in vars(module):  # and maybe not the latest
                raise ValueError(
                    f"layer {name!r}: {HOOK}, which no file holds: make it permanent, as prune.remove does"
                )
            layers[name] = module
        elif isinstance(module, QuantLayer):
            kind = article(type(module).__name__)
            raise ValueError(f"layer {name!r} is {kind}, which has a forward pass of its own")
        else:
            tensors |= {f"{name}.{key}".lstrip("."): value for key, value in _state(module).items()}
    return layers, tensors


def _state(module: nn.Module) -> dict[str, Tensor]:
    state = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
    left_out = {"num_batches_tracked", *module._non_persistent_buffers_set}
    return {key: value for key, value in state.items() if key not in left_out}
