"""Convert: turn the convolutions and linear layers of any model into quantized ones, and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from qviz.core._text import some
from qviz.methods.method import Pair
from qviz.nn.batches import Batch
from qviz.nn.calibration import calibrate as calibrate
from qviz.nn.modules import uncompiled
from qviz.nn.own_forward import quantized
from qviz.nn.plan import Bits, Names, Order, Plan, eight_bits, pairs, plan
from qviz.nn.quant_layer import QuantLayer
from qviz.nn.report import Report as Report
from qviz.nn.report import Row as Row
from qviz.nn.report import report as report
from qviz.nn.survey import survey

POLICIES = ("fp", "8bit", "quantized")

UNREACHED = "not quantized: the batch does not reach it"


def convert(
    model: nn.Module,
    *,
    pair: Pair | Mapping[str, Pair | None],
    bits: Mapping[str, Bits] | None = None,
    first_last: str = "fp",
    skip: str | Iterable[str] = (),
    signed: Mapping[str, bool] | None = None,
    batch: Batch | None = None,
    also: type[nn.Module] | Iterable[type[nn.Module]] = (),
) -> Report:
    """Quantize every nn.Conv2d and nn.Linear of a model, in place, and report what was and was not done.

    The layers themselves change (so one that is used in several places is quantized once, in all of them);
    their parameters stay the same objects under the same names. Nothing changes if an error is raised.
    Afterwards :func:`calibrate` the model. Fold BatchNorm and load weights before; a weight that changes
    after the calibration, other than by training, is warned of when the model runs in eval mode, and stands
    in its :func:`report`.

    Args:
        model: any module; of a compiled one, what was compiled. Layers of other types, subclasses, and layers
            whose weight is computed (parametrized, weight norm, lazy) stay as they are, with the reason in
            the report.
        pair: what quantizes: a :func:`qviz.recipes.pair`, a :class:`~qviz.methods.method.Pair` of your own
            functions, or one for each layer by name, where None leaves the layer as it is.
        bits: with one pair, for mixed precision: the weight bits of some layers by name, or their (weight,
            activation) bits; the others have the pair's. An allocation of :mod:`qviz.nn.allocate` is applied
            by ``bits=dict(zip(layers, allocation.bits))``.
        first_last: what becomes of the first and the last layer: "fp", nothing; "8bit", LSQ with 8 bits for
            weight and input; "quantized", the same as of all others.
        skip: names of layers, or patterns (``"features.0.*"``), to leave as they are. It does not make
            another layer the first or the last.
        signed: whether the input of a layer may be negative, by name; overrides what the batch or the
            rule says.
        batch: as for :func:`calibrate`, for one pass of the float model: "first" and "last" are then those
            that run first and last, an input is signed if it has any negative value (in any process),
            layers that the batch does not reach are left out, and the report says of which layers something
            else reads the weight too, in floating point, and of which a forward hook replaces the output.
            Without it, nothing of that is seen, first and last are those of registration, the first layer's
            input is signed and all others are not (they follow a ReLU).
        also: subclasses of nn.Conv2d and nn.Linear to quantize too. Their own forward pass runs, with the
            quantized input and weight: right for one that pads or casts (timm's Conv2dSame); one that
            standardizes its weight is refused by :func:`calibrate`.

    Raises:
        ValueError: no layer that could be quantized, or none that the batch reaches; a name or pattern that
            matches none; bits or a pair for a layer that is left out, or none for one that is not; a layer
            that is already quantized; what the recipes refuse.
        TypeError: a pair is none, a recipe does not return a quantizer, or ``also`` has other classes.

    Example:
        >>> from qviz import recipes
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(),
        ...                     nn.Linear(64, 2))
        >>> images = torch.linspace(-1, 1, 192).reshape(1, 3, 8, 8)
        >>> done = convert(net, pair=recipes.pair("post", 4), batch=images)
        >>> done.row("2").kind, done.row("2").w_bits, done.row("2").w_levels, done.row("2").a_levels
        ('depthwise Conv2d', 4, 15, 16)
        >>> done.row("0").note, done.row("4").w_bits
        ('first layer, left in floating point', 32)
        >>> calibrate(net, images)
        >>> net(images).shape
        torch.Size([1, 2])
    """
    if first_last not in POLICIES:
        raise ValueError(f"first_last must be one of {', '.join(POLICIES)}, got {first_last!r}")
    model = uncompiled(model)
    layers = _candidates(model, _classes(also, model))
    names = Names(model, layers)
    given, named = pairs(pair, bits, names)
    left = dict.fromkeys(names.matching(skip), "skipped")
    signs = {names.one(name, "signed"): bool(value) for name, value in (signed or {}).items()}
    order = Order.of(model, layers, batch)
    roles = order.roles()
    plans: dict[str, Plan] = {}
    for name, layer in layers.items():
        sign = signs.get(name, order.negative[name])
        if name in left:
            continue
        if name not in order.names:
            left[name] = UNREACHED
        elif name in roles and first_last == "fp":
            left[name] = f"{roles[name]} layer, left in floating point"
        elif name in roles and first_last == "8bit":
            plans[name] = eight_bits(sign)
        elif name not in given:
            raise ValueError(f"pair has no entry for layer {name!r}; give None to leave it as it is")
        else:
            plans[name] = plan(given[name], name, layer, sign)
    if unused := named - (plans.keys() - (roles.keys() if first_last == "8bit" else ())):
        what = "pair" if isinstance(pair, Mapping) else "bits"
        raise ValueError(f"{what} names {min(unused)!r}, which skip= or first_last= leave out")
    unreached = [repr(name) for name, why in left.items() if why == UNREACHED]
    if unreached and not plans:
        raise ValueError(f"the batch reaches none of the layers to be quantized, which are {some(unreached)}")
    for name in [name for name, made in plans.items() if made.empty]:
        left[name] = "left in floating point"
        del plans[name]
    _carry_out(plans, layers)
    for layer, hooks in order.replaced.items():
        if isinstance(layer, QuantLayer):
            layer._watch.judge(hooks)
    notes = {}
    for name in layers:
        role = f"{roles[name]} layer" if name in roles and name not in left else ""
        made = plans[name].note if name in plans else ""
        past = "its weight is also read past the layer" if name in order.past and name in plans else ""
        notes[name] = "; ".join(filter(None, (left.get(name), role, made, past, names.aliases(name))))
    return report(model, notes=notes, first_last=first_last)


def _classes(also: type[nn.Module] | Iterable[type[nn.Module]], model: nn.Module) -> set[type[nn.Module]]:
    """Return the classes that ``also`` names, checked."""
    classes = {also} if isinstance(also, type) else set(also)
    for kind in classes:
        quantized(kind)
    if unused := classes - {type(module) for module in model.modules()}:
        raise ValueError(
            f"also names {min(kind.__name__ for kind in unused)}, which no layer of the model is"
        )
    return classes


def _candidates(model: nn.Module, also: Collection[type[nn.Module]]) -> dict[str, nn.Module]:
    """Return the layers that can be quantized, by name."""
    surveyed = survey(model, also)
    for name, (layer, _) in surveyed.items():
        if isinstance(layer, QuantLayer):
            raise ValueError(f"layer {name!r} is quantized already: deconvert the model first")
    found = {name: layer for name, (layer, obstacle) in surveyed.items() if obstacle is None}
    if not found:
        text = f"{type(model).__name__} has no Conv2d or Linear layer that could be quantized"
        reasons = Counter(str(obstacle).removeprefix("not quantized: ") for _, obstacle in surveyed.values())
        counted = [f"{n} layer{'s' * (n > 1)}: {reason}" for reason, n in reasons.most_common()]
        raise ValueError("; ".join([text, *counted]))
    return found


def _carry_out(plans: Mapping[str, Plan], layers: Mapping[str, nn.Module]) -> None:
    """Quantize all the layers, or none if one of them refuses."""
    done: list[QuantLayer] = []
    try:
        for name, plan in plans.items():
            done.append(plan.carry_out(layers[name]))
    except (TypeError, ValueError) as problem:
        for layer in done:
            layer.release()
        raise type(problem)(f"layer {name!r}: {problem}") from problem


def deconvert(model: nn.Module, *, bake: bool = False) -> nn.Module:
    """Turn every quantized layer back into the float layer it was, in place; return the model.

    Weights and biases stay the same objects, with the values that training gave them.

    Args:
        model: any module.
        bake: write the quantized weights and the bias (times the output scale) into the parameters, so that
            the float model computes with them. A weight or bias that other modules hold too (tied
            embeddings, views of one tensor) stays as it is for them: the layer gets one of its own.

    Raises:
        ValueError: bake, and an input quantizer maps its input to another unit (DAQ, N2UQ), so that the
            weights mean nothing for the input itself; a layer was parametrized or pruned after it was
            converted, so that its weight is computed. Nothing is changed then.
        RuntimeError: bake, and a layer is not calibrated.
    """
    layers = {name: m for name, m in model.named_modules() if isinstance(m, QuantLayer)}
    for name, layer in layers.items():
        if is_parametrized(layer):
            raise ValueError(
                f"layer {name!r} was parametrized after convert: remove its parametrizations first"
            )
    if bake:
        tied = _tied(model)
        with torch.no_grad():
            baked = {name: _baked(name, layer) for name, layer in layers.items()}
            for name, values in baked.items():
                for which, value in values.items():
                    held = getattr(layers[name], which)
                    if _storage(held) in tied:
                        setattr(layers[name], which, nn.Parameter(value.clone(), held.requires_grad))
                    else:
                        held.copy_(value)
    for layer in layers.values():
        layer.release()
    return model


def _storage(t: Tensor) -> int:
    return t.untyped_storage().data_ptr()


def _tied(model: nn.Module) -> set[int]:
    """Return the storages that more than one module, or more than one name of a module, reads from."""
    held = [
        _storage(t)
        for module in model.modules()
        for t in (*module._parameters.values(), *module._buffers.values())
        if t is not None and not is_lazy(t) and t.numel()
    ]
    return {storage for storage, uses in Counter(held).items() if uses > 1}


def _baked(name: str, layer: QuantLayer) -> dict[str, Tensor]:
    """Return what baking writes, by parameter: the weight, and the bias where the output scale changes it."""
    q, bias = layer.input_quantizer, layer.scaled_bias()
    parts = {"weight": None} if bias is None or layer.output_scale is None else {"weight": None, "bias": bias}
    if computed := [which for which in parts if which not in layer._parameters]:
        raise ValueError(
            f"layer {name!r} cannot be baked: a hook computes its {computed[0]} (pruning, weight norm)"
        )
    if not layer.calibrated:
        raise RuntimeError(f"layer {name!r} is not calibrated: there is no quantized weight to bake")
    if q is not None and not q.range.rescale:
        raise ValueError(
            f"layer {name!r} cannot be baked: {type(q.range).__name__} maps its input to another unit"
        )
    return {**parts, "weight": layer.quantized_weight()}
