"""Networks: copies of what is inspected and of the same network in floating point."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import nn

from qviz.core._text import count
from qviz.core.quantizer import Quantizer
from qviz.core.range import Range
from qviz.inspection.copies import check_reference, copied, steady
from qviz.methods.method import Pair
from qviz.nn.batches import Batch
from qviz.nn.calibration import calibrate
from qviz.nn.convert import convert, deconvert
from qviz.nn.ptq.fold import fold_batchnorm
from qviz.nn.quant_layer import QuantLayer
from qviz.nn.report import Report, report
from qviz.nn.train.batch import each, size


@dataclass(frozen=True)
class Networks:
    """A quantized network and its twin in floating point, both in eval mode.

    Attributes:
        quantized: Converted and calibrated.
        reference: The same in floating point.
        report: What is quantized, and why the rest is not.
        layers: Names of the quantized layers.
        notes: What was done to get them, in sentences.
    """

    quantized: nn.Module
    reference: nn.Module
    report: Report
    layers: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())


def networks(
    model: nn.Module,
    batch: Batch,
    pair: Pair | Mapping[str, Pair | None] | None,
    *,
    first_last: str,
    skip: str | Iterable[str],
    fold: bool | None,
    reference: nn.Module | None,
) -> Networks:
    """Return what is to be inspected, as copies.

    Args:
        model: In floating point, or converted and calibrated.
        batch: What a float model is calibrated on.
        pair: What quantizes a float model.
        first_last: As for :func:`~qviz.nn.convert.convert`.
        skip: As for :func:`~qviz.nn.convert.convert`.
        fold: Whether BatchNorm is folded into a float model first; None where that can be done, and the
            pair's quantizers keep the unit of what they read.
        reference: The float twin of a converted model.

    Raises:
        ValueError: A pair for a converted model or none for a float one; a
            reference for a float model, or one of another network; nothing is quantized; what ``convert``,
            ``calibrate`` and ``fold_batchnorm`` refuse.
        TypeError: The model is none, or cannot be copied.
    """
    if any(isinstance(module, QuantLayer) for module in model.modules()):
        if pair is not None or skip or fold is not None:
            raise ValueError(
                "the model is converted already and is inspected as it is: leave out pair=, recipe=, bits=, "
                "skip= and fold="
            )
        return _converted(model, reference)
    if reference is not None:
        raise ValueError("reference= belongs to a converted model; this one is in floating point itself")
    if pair is None:
        raise ValueError(
            "the model is in floating point: give pair= or recipe=, and bits=, to say how to quantize it"
        )
    twin = copied(model)
    n = size(batch, None)
    one = each(batch, lambda t: t[:1] if t.ndim and len(t) == n else t)
    with steady(twin):
        note = _folded(twin, (one, batch), pair, fold)
    quantized = deepcopy(twin)
    with steady(quantized):
        torch.default_generator.manual_seed(0)  # ASQ's networks draw their start
        done = convert(quantized, pair=pair, first_last=first_last, skip=skip, batch=batch)
        layers = _quantized(quantized)
        if not layers:
            raise ValueError("no layer is quantized: pair=, skip= and first_last= leave them all as they are")
        calibrate(quantized, batch)
    return Networks(quantized, twin, done, layers, (note,) if note else ())


def _converted(model: nn.Module, reference: nn.Module | None) -> Networks:
    quantized = copied(model)
    layers = _quantized(quantized)
    if reference is None:
        twin = deconvert(deepcopy(quantized))
        notes = [_without_reference(quantized)]
    else:
        twin = copied(reference)
        check_reference(quantized, twin, layers)
        notes = ["the float network is the one that was given as reference"]
    if placed := sum(on_grid(quantized.get_submodule(name)) for name in layers):
        what = (
            "so that what they cost is not to be seen: give the float network as reference"
            if reference is None
            else "and what is said of a weight is said of the reference's, with the codes that it got"
        )
        notes.append(
            f"the weights of {count(placed, 'layer')} lie on their grids, as PTQ leaves them, {what}"
        )
    return Networks(quantized, twin, report(quantized), layers, tuple(notes))


def _without_reference(model: nn.Module) -> str:
    """Return what the float network is, if it is the model with its quantizers off."""
    note = "the float network is this one with its quantizers off: its weights are those that training left"
    if not _has_batchnorm(model):
        return note
    note += ", and BatchNorm's statistics are those of the quantized network"
    layers = [module for module in model.modules() if isinstance(module, QuantLayer)]
    if all(_in_unit(layer.standardize, (layer.weight_quantizer, layer.input_quantizer)) for layer in layers):
        return note
    return f"{note}, whose outputs have a unit of their own: better give the float network as reference="


@torch.no_grad()
def on_grid(layer: QuantLayer) -> bool:
    """Whether the weight of a layer is one of levels, as PTQ leaves it."""
    q = layer.weight_quantizer
    return q is not None and same_unit(q) and torch.equal(layer.quantized_weight(), layer.weight)


def _quantized(model: nn.Module) -> tuple[str, ...]:
    return tuple(name for name, module in model.named_modules() if isinstance(module, QuantLayer))


def _has_batchnorm(model: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def _folded(
    model: nn.Module, batches: tuple[Batch, ...], pair: Pair | Mapping[str, Pair | None], fold: bool | None
) -> str:
    """Fold BatchNorm where that is right, and return the sentence that says so; "" where there is none."""
    pairs = pair.values() if isinstance(pair, Mapping) else (pair,)
    in_unit = all(one is None or keeps_unit(one) for one in pairs)
    if not _has_batchnorm(model):
        lacks = "these quantizers give outputs a unit of their own, and no BatchNorm is there to take it away"
        return "" if in_unit else lacks
    if fold is False:
        return "BatchNorm was left as it is"
    if fold is None and not in_unit:
        return (
            "BatchNorm was not folded: it takes away the unit that these quantizers give their outputs; its "
            "statistics are those of the float network, and until training fits them the outputs are far off"
        )
    try:
        fold_batchnorm(model, *batches)
    except ValueError as problem:
        if fold:
            raise
        return f"BatchNorm was not folded: {problem}"
    return "BatchNorm was folded into the layers before it"


def keeps_unit(pair: Pair) -> bool:
    """Whether what the pair's quantizers return is in the unit of what they read."""
    with torch.random.fork_rng(devices=[]):
        layer = nn.Conv2d(8, 8, 1)
        made = [] if pair.weight is None else [pair.weight(layer)]
        made += [] if pair.act is None else [pair.act(layer, False)]
    return not pair.output_scale and _in_unit(pair.standardize, made)


def _in_unit(standardized: bool, quantizers: Iterable[Quantizer | None]) -> bool:
    return not standardized and all(q is None or same_unit(q) for q in quantizers)


def same_unit(q: Quantizer) -> bool:
    """Return whether what a quantizer returns is in the unit of what it reads."""
    kind = type(q.range)
    return q.range.rescale and kind.transform is Range.transform and kind.output is Range.output
