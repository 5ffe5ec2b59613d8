"""Inspect: the front of the room."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import nn

from qviz.inspection.beside import attempt, beside
from qviz.inspection.copies import spare, steady
from qviz.inspection.explain import explained
from qviz.inspection.inspection import Inspection, Whole
from qviz.inspection.loss import Given, Judge, kind
from qviz.inspection.networks import Networks, networks
from qviz.inspection.passes import Measurement
from qviz.inspection.progress import steps
from qviz.inspection.samples import Chunk, chunks, joined
from qviz.inspection.views import LayerView, Sensitivity
from qviz.inspection.whole import bytes_of, outputs, spending
from qviz.methods.method import Pair
from qviz.methods.pairs import pair as pair_named
from qviz.nn.batches import Batch
from qviz.nn.report import Row
from qviz.nn.train.batch import size

CHUNK = 8
"""So many samples run at a time; outputs of all layers of one chunk are kept."""

CALIBRATION, PROBES = 32, 16
"""A float model is calibrated on so many of the samples, and sensitivities are measured on so many."""


def inspect(
    model: nn.Module,
    images: Batch | Iterable[Batch],
    *,
    pair: Pair | Mapping[str, Pair | None] | None = None,
    recipe: str | None = None,
    bits: int | tuple[int, int] | None = None,
    first_last: str = "8bit",
    skip: str | Iterable[str] = (),
    fold: bool | None = None,
    reference: nn.Module | None = None,
    name: str = "",
    loss: Given | None = None,
    sensitivity: bool = True,
    top: int = 10,
    show: bool = False,
) -> Inspection:
    """Look at what quantization does to each layer of a model, and why.

    A float model is copied, BatchNorm is folded where that can be done, and the copy is converted and
    calibrated. A model that is converted (after ``fit`` or ``ptq``) is inspected as it is. The model itself
    stays as it was.

    Args:
        model: Any module, in floating point or converted.
        images: What it takes: a tensor or an array, samples in axis 0, some dozens; a pair (images, labels);
            a mapping of keyword arguments; or a loader of these, of which the first eight batches count. As
            for :func:`~qviz.nn.calibration.calibrate`, a list of several tensors is refused; so is a tuple
            of several inputs, which are given as a mapping.
            Labels that are whole numbers are classes, (N,) of scores (N, classes) or (N, …) of maps
            (N, classes, …), judged by cross-entropy; those in floating point have the outputs' shape, judged
            by mean squared error. Without labels scores (N, classes) are judged by their KL divergence from
            the float network's, and other outputs by their relative squared error.
        pair: What quantizes a float model, as :func:`qviz.recipes.pair` returns it.
        recipe: Instead of a pair: its name, such as "post".
        bits: With a recipe: bits of weights and inputs, or one number for both.
        first_last: As for :func:`~qviz.nn.convert.convert`.
        skip: As for :func:`~qviz.nn.convert.convert`.
        fold: Whether to fold BatchNorm; None where that can be done and the pair keeps units.
        reference: Of a converted model, the float network to compare with; by default the model with its
            quantizers off. After ``ptq`` give ``report.reference``.
        name: What to call the network; by default the class's name.
        loss: (output, labels) -> a tensor of one number, the mean over some samples, to judge by instead; it
            gets what the model returns, and None where there are no labels. The bit budget has its own.
        sensitivity: Whether to measure what each layer costs alone, two runs of 16 samples a layer, and what
            bits of weights buy.
        top: For so many of the worst layers things are tried.
        show: Whether to show progress.

    Raises:
        ValueError, TypeError: Images that are empty, not finite or not what the model takes; labels that do
            not fit the outputs; a model without a layer to quantize, or with weights that are not finite;
            what ``convert`` and ``calibrate`` refuse.
        RuntimeError: A converted model is not calibrated.

    Example:
        >>> from qviz.nn.models import create
        >>> images = torch.rand(4, 3, 32, 32)
        >>> found = inspect(create("resnet20"), images, recipe="lsq", bits=4, sensitivity=False, top=0)
        >>> len(found.quantized), found["conv1"].weight.codes.bits, found["layer1.0.conv1"].weight.codes.bits
        (20, 8, 4)
    """
    began = time.monotonic()
    chosen = _pair(pair, recipe, bits)
    samples = chunks(images, CHUNK)
    with torch.random.fork_rng(devices=[]):
        with spare(model) as copy:
            name = name or type(copy).__name__
            output = attempt(copy, samples[0])
            if loss is None:
                kind(output, samples[0].labels)  # refuses labels before anything is measured
        nets = networks(
            model,
            _first(samples, CALIBRATION),
            chosen,
            first_last=first_last,
            skip=skip,
            fold=fold,
            reference=reference,
        )
        packed = bytes_of(nets)
        measured = Measurement(nets)
        total = len(samples) + sensitivity * (len(nets.layers) + len(nets.layers) + 3)
        total += min(top, len(nets.layers))
        with steady(nets.reference, nets.quantized), steps(total, show=show) as step:
            notes = beside(nets.reference, samples[0])
            ratio, agreement = outputs(samples, measured, step)
            judge = Judge(nets, samples[: -(-PROBES // CHUNK)], loss)
            costs = judge.sensitivities(step) if sensitivity else {}
            spent, why = spending(nets, chosen, judge.samples, step) if sensitivity else (None, "")
            found = Inspection(
                model=name,
                pair=_words(chosen, nets),
                samples=sum(size(chunk.inputs, None) for chunk in samples),
                loss=judge.kind,
                layers=tuple(_view(row, nets, measured, costs) for row in nets.report.rows),
                whole=Whole(
                    ratio, agreement if judge.classes else None, judge.loss(nets.quantized) - judge.base
                ),
                size=packed,
                budget=spent,
                notes=(*nets.notes, *notes, *filter(None, [why])),
            )
            found = explained(found, nets, samples, top, step)
    return replace(found, seconds=time.monotonic() - began)


def _pair(pair: object, recipe: str | None, bits: int | tuple[int, int] | None) -> object:
    if recipe is None:
        if bits is not None:
            raise ValueError(f"bits={bits!r} belong to a recipe=; a pair has its own")
        return pair
    if pair is not None:
        raise ValueError("give pair= or recipe=, not both")
    if bits is None:
        raise ValueError(f"recipe={recipe!r} needs bits=, such as 4 or (4, 8)")
    both = bits if isinstance(bits, tuple) else (bits,)
    if len(both) > 2:
        raise ValueError(f"bits must be one number, or those of weights and inputs, got {bits!r}")
    return pair_named(recipe, *both)


def _first(samples: list[Chunk], most: int) -> object:
    """Return the inputs of the first samples as one batch."""
    return joined(samples[: -(-most // CHUNK)])


def _view(row: Row, nets: Networks, measured: Measurement, costs: Mapping[str, Sensitivity]) -> LayerView:
    module = nets.quantized.get_submodule(row.name)
    shape = tuple(module.weight.shape) if isinstance(getattr(module, "weight", None), torch.Tensor) else ()
    if row.name not in nets.layers:
        return LayerView(row.name, row.kind, shape, row.parameters, False, row.note)
    weight, read, outputs, note = measured.of(row.name)
    why = "; ".join(filter(None, (row.note, note)))
    return LayerView(
        row.name, row.kind, shape, row.parameters, True, why, weight, read, outputs, costs.get(row.name)
    )


def _words(pair: object, nets: Networks) -> str:
    if isinstance(pair, Pair):
        return f"{pair.name} W{pair.w_bits}A{pair.a_bits}"
    return "a pair for each layer" if isinstance(pair, Mapping) else "converted"
