"""Survey: every layer of a model by its name, and why it cannot be quantized."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from qviz.core._text import article
from qviz.core.quantizer import Quantizer
from qviz.nn.modules import hooks_around
from qviz.nn.quant_layer import QuantLayer

OWN_FORWARD = "not quantized: this instance has a forward of its own (accelerate and LoRA patches set one)"

REPLACED = "not counted as quantized: a forward hook replaces its output (report with batch= looks again)"

HOOK = "a hook computes its weight (weight norm, spectral norm or pruning)"


def survey(
    model: nn.Module, also: Collection[type[nn.Module]] = ()
) -> dict[str, tuple[nn.Module, str | None]]:
    """Find every layer by its name, with the reason why it cannot be quantized, or None where it can.

    A layer is a module that itself holds a parameter of two or more dimensions; a parametrized one counts as
    one layer, and so does one that torch.ao has quantized, whose weight is no parameter. What belongs to a
    quantizer is left out.
    """
    inside: set[int] = set()
    bypassed: dict[int, str] = {}
    around = hooks_around(model)
    found: dict[str, tuple[nn.Module, str | None]] = {}
    for name, module in model.named_modules():
        if id(module) in inside:
            continue
        if isinstance(module, Quantizer):
            inside |= {id(m) for m in module.modules()}
            continue
        if isinstance(module, nn.TransformerEncoderLayer):
            reason = "not quantized: nn.TransformerEncoderLayer reads this weight past the layer in eval mode"
            bypassed |= {id(module.linear1): reason, id(module.linear2): reason}
        if isinstance(module, nn.MultiheadAttention):
            reason = "not quantized: nn.MultiheadAttention reads this weight past the layer"
            bypassed[id(module.out_proj)] = reason
        if is_parametrized(module):
            inside |= {id(m) for m in module.parametrizations.modules()}
        if any(is_lazy(p) or p.ndim > 1 for p in held(module).values()):
            found[name] = module, _obstacle(module, bypassed, also, around.get(module, ()))
    return found


def _obstacle(
    module: nn.Module, bypassed: Mapping[int, str], also: Collection[type[nn.Module]], hooks: Collection[int]
) -> str | None:
    """Return why a layer cannot be quantized; None where it can, or is already."""
    kind = type(module)
    if isinstance(module, QuantLayer):
        if "forward" in vars(module):
            return OWN_FORWARD
        return REPLACED if module._watch.replaced(hooks) else None
    if is_parametrized(module):
        return "not quantized: its parameters are parametrized"
    if any(is_lazy(p) for p in held(module).values()):
        return "not quantized: lazy, its shape is not known before a first batch"
    if foreign := next((p.dtype for p in held(module).values() if not p.is_floating_point()), None):
        return f"not quantized: its weight is {foreign}, not floating point"
    if id(module) in bypassed:
        return bypassed[id(module)]
    if kind not in (nn.Conv2d, nn.Linear, *also):
        for base in (nn.Conv2d, nn.Linear):
            if isinstance(module, base):
                return f"not quantized: {kind.__name__}, a subclass of {base.__name__}, is not named by also="
        return f"not quantized: only Conv2d and Linear are, this is {article(kind.__name__)}"
    if "forward" in vars(module):
        return OWN_FORWARD
    if "weight" not in held(module):
        return f"not quantized: {HOOK}"
    return None


def _packed(module: nn.Module) -> bool:
    """Return whether it is one of torch.ao's quantized layers."""
    return hasattr(module, "_packed_params") and callable(getattr(module, "weight", None))


def held(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters of the float layer itself, those of its parametrizations included."""
    if _packed(module):
        return {"weight": module.weight()}
    found = dict(module.named_parameters(recurse=False))
    if isinstance(module, QuantLayer):
        found.pop("output_scale", None)
    if is_parametrized(module):
        found |= dict(module.parametrizations.named_parameters())
    return found
