"""Networks: copies of what is inspected and of the same network in floating point."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from qviz.core._text import some
from qviz.methods.method import Pair
from qviz.nn.batches import Batch
from qviz.nn.calibration import calibrate
from qviz.nn.convert import convert, deconvert
from qviz.nn.layers import QuantLayer
from qviz.nn.ptq.fold import fold_batchnorm
from qviz.nn.report import Report, report
from qviz.nn.train.batch import each


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
        ValueError: Weights are not finite; a pair for a converted model or none for a float one; a
            reference for a float model; what ``convert``, ``calibrate`` and ``fold_batchnorm`` refuse.
        RuntimeError: A converted model is not calibrated.
    """
    _check_weights(model)
    if any(isinstance(module, QuantLayer) for module in model.modules()):
        return _converted(model, pair, reference)
    if reference is not None:
        raise ValueError("reference= belongs to a converted model; this one is in floating point itself")
    if pair is None:
        raise ValueError(
            "the model is in floating point: give pair= or recipe=, and bits=, to say how to quantize it"
        )
    twin = deepcopy(model).eval()
    one = each(batch, lambda t: t[:1])
    notes = [] if not _has_batchnorm(twin) else [_folded(twin, one, pair, fold)]
    quantized = deepcopy(twin)
    done = convert(quantized, pair=pair, first_last=first_last, skip=skip, batch=batch)
    calibrate(quantized, batch)
    return Networks(quantized, twin, done, _quantized(quantized), tuple(notes))


def _converted(model: nn.Module, pair: object, reference: nn.Module | None) -> Networks:
    if pair is not None:
        raise ValueError(
            "the model is converted already and is inspected as it is: leave out pair=, recipe= and bits="
        )
    quantized = deepcopy(model).eval()
    layers = _quantized(quantized)
    for name in layers:
        try:
            quantized.get_submodule(name)._check()
        except RuntimeError as problem:
            raise RuntimeError(f"layer {name!r}: {problem}") from problem
    note = "the float network is the one that was given as reference"
    if reference is None:
        note = (
            "the float network is this one with its quantizers off: its weights are those that training left"
        )
        reference = deconvert(deepcopy(quantized))
    return Networks(quantized, deepcopy(reference).eval(), report(quantized), layers, (note,))


def _quantized(model: nn.Module) -> tuple[str, ...]:
    return tuple(name for name, module in model.named_modules() if isinstance(module, QuantLayer))


def _has_batchnorm(model: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def _folded(model: nn.Module, batch: Batch, pair: Pair | Mapping[str, Pair | None], fold: bool | None) -> str:
    """Fold BatchNorm where that is right, and return the sentence that says so."""
    if fold is False:
        return "BatchNorm was left as it is"
    pairs = pair.values() if isinstance(pair, Mapping) else (pair,)
    if fold is None and not all(one is None or keeps_unit(one) for one in pairs):
        return "BatchNorm was not folded: it takes away the unit that these quantizers give their outputs"
    try:
        fold_batchnorm(model, batch)
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
    return not pair.standardize and not pair.output_scale and all(q.range.rescale for q in made)


def _check_weights(model: nn.Module) -> None:
    """Refuse weights that are NaN or infinite, with each layer's count."""
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    bad = {key: _unfinite(value) for key, value in named.items() if _unfinite(value)}
    if bad:
        texts = [f"{key} has {n:,} of {named[key].numel():,}" for key, n in bad.items()]
        raise ValueError(f"numbers of the model are NaN or infinite: {some(texts)}")


def _unfinite(value: Tensor) -> int:
    if not value.is_floating_point() or value.is_meta:
        return 0
    return int((~value.detach().isfinite()).sum())
