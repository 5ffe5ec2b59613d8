"""ptq: from a float network and some hundred images to a quantized one, by one of the field's methods."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from torch import Tensor, nn

from qviz.methods.method import Pair
from qviz.nn.convert import convert
from qviz.nn.copies import deep_copy
from qviz.nn.modules import evaluating, uncompiled
from qviz.nn.plan import Order
from qviz.nn.ptq.adaround import adaround
from qviz.nn.ptq.bias import bias_correction
from qviz.nn.ptq.blocks import Block, find_blocks
from qviz.nn.ptq.borders import add_borders, fold_borders
from qviz.nn.ptq.fold import fold_batchnorm
from qviz.nn.ptq.gate import Gate
from qviz.nn.ptq.gptq import gptq
from qviz.nn.ptq.inputs import BATCH, other_rows, quantized_layers
from qviz.nn.ptq.layerwise import SEEN
from qviz.nn.ptq.nearest import nearest
from qviz.nn.ptq.options import Options
from qviz.nn.ptq.progress import Stopped
from qviz.nn.ptq.reconstruct import jobs, reconstruct, whole
from qviz.nn.ptq.report import PTQReport
from qviz.nn.ptq.settings import LEARNED, WHOLE, Settings, checked, pair_of, split
from qviz.nn.ptq.weights import WeightGrid, refuse_tied
from qviz.nn.report import report as summary
from qviz.nn.survey import survey
from qviz.nn.train.interrupt import Interrupt


def ptq(
    model: nn.Module,
    images: Tensor,
    *,
    w_bits: int | None = None,
    a_bits: int | None = None,
    method: str = "qdrop",
    pair: Pair | None = None,
    first_last: str = "8bit",
    skip: str | Sequence[str] = (),
    order: str = "block",
    blocks: Sequence[Block] | None = None,
    options: Options | None = None,
    correction: str | None = None,
    border: str | None = None,
    window: float = math.inf,
    gate: bool = True,
    seed: int = 0,
    source: str = "",
    show: bool = True,
    resume: PTQReport | None = None,
) -> PTQReport:
    """Quantize a trained network in place, from images without labels.

    ===========  ==========================================================================================
    method       after BatchNorm is folded and every step is set by the least squared error
    ===========  ==========================================================================================
    nearest      nothing: weights and activations round to nearest (see also ``correction``)
    closed-form  levels, steps and biases of one layer after the other by linear algebra (GPTQ and more: see
                 :mod:`qviz.nn.ptq.gptq`), without iterations
    adaround     roundings of weights are learned, layer by layer (1,000 iterations each)
    brecq        roundings of weights and steps of activations are learned, block by block
    qdrop        the same while half of the activations stay unquantized at random
    aquant       the same, and a border of rounding for each input channel is learned too (INFERRED),
                 and folded into a table of thresholds at the end
    ===========  ==========================================================================================

    BatchNorm is folded into the layers before it; with each image that is not held out the model runs once
    before and once after, and has to return the same.

    A layer that runs several times is learned once, from all its calls, by "closed-form", "adaround" and
    ``correction``; the methods that learn blocks leave it out, rounded to nearest, and the report says so,
    as they do with a layer by itself whose rows are not the images (experts, windows, steps in time).
    Two layers that hold one weight are refused, but by "nearest", which writes to none.

    As for :func:`~qviz.nn.convert`, a layer whose weight is computed (pruned, under weight norm) stays in
    floating point, and the report says so. After ``torch.nn.utils.prune.remove`` it is a layer as any other;
    its zeros stay zeros if weights round to nearest and zero is a level, as with the pair "lsq" (the usual
    weights have an offset, and it need not be).

    The result is a converted model as any other: ``evaluate``, ``fit``, ``deconvert`` and ``state_dict`` work
    on it. To load such a state dict: fold a fresh model, :func:`~qviz.nn.convert` it with
    ``report.settings.pair`` (for "aquant" then ``add_borders`` and ``fold_borders``), and load.

    A quarter of the images is held out. A block stays as it was learned only if neither its own error nor
    that of the network's output on these images has grown, else it is taken back and the report says so.
    "closed-form", "adaround" and ``correction`` are judged as a whole.

    Args:
        model: In floating point, in eval mode, trained.
        images: What it takes, samples in axis 0; 1,024 are usual. Labels are not needed.
        w_bits: Bits of weights, 1 to 8; 32 leaves them in floating point.
        a_bits: Bits of activations; by default as many.
        method: See the table.
        pair: Quantizers instead of the usual ones (for weights uniform levels with a step and an offset for
            each output channel, for activations uniform levels). It has the bits.
        first_last: As for :func:`~qviz.nn.convert`. With "8bit" the first and the last layer round to
            nearest.
        skip: As for :func:`~qviz.nn.convert`.
        order: "block", or "layer" to learn each layer by itself.
        blocks: Instead of those that the graph of a run shows.
        options: How a block is learned, instead of the method's way.
        correction: For "nearest": "mean" gives each output channel its mean in floating point, "std" its
            standard deviation too; see :func:`~qviz.nn.ptq.bias.bias_correction`.
        border: For "aquant": "channel" (default), "layer", "cell" or "fused"; see ``add_borders``.
        window: For "aquant": how far from its border a value may lie to move it, as a fraction of a cell.
        gate: False keeps every block, and measures.
        seed: Of all random numbers.
        source: What the images are, for the report, such as "training images of this network".
        show: Whether to show progress.
        resume: The report of a run that was stopped: goes on where it ended, with the same model and
            arguments, and comes to the same bits as without the stop.

    Raises:
        ValueError, TypeError: Images that are too few to hold some out, NaN or infinite, or that the model
            does not take; an unknown name; bits out of range; a model that is quantized already or in train
            mode; a fold that would change it; a layer that a method has no meaning for, by name; a model that
            cannot be copied. It is then as it was.

    Example:
        >>> import torch
        >>> from qviz.nn.models import create
        >>> net = create("resnet20").eval()
        >>> report = ptq(net, torch.rand(16, 3, 32, 32), w_bits=4, method="nearest", show=False)
        >>> report.held, round(report.conversion.average_bits, 2)
        (4, 4.02)
    """
    began, model = time.monotonic(), uncompiled(model)
    settings = Settings(
        pair=pair_of(w_bits, a_bits, pair),
        method=method,
        first_last=first_last,
        skip=skip,
        order=order,
        options=options,
        correction=correction,
        border=border,
        window=window,
        gate=gate,
        seed=seed,
    )
    fit, held = split(checked(images), seed)
    if model.training:
        raise ValueError("the model is in train mode: call model.eval() first")
    if resume is None:
        trial = deep_copy(model)  # refuses here, before anything is changed
        fold_batchnorm(trial, fit[:1], *fit.split(BATCH))
        refuse_tied(model, *_written(trial, fit, begin(trial, fit, settings, blocks)))
        with Interrupt() as pressed:  # Ctrl-C waits: half a conversion is of no use
            report = begin(model, fit, settings, blocks)
        report.source, report.images, report.held = source, len(fit), len(held)
    else:
        report, pressed = _resumed(resume, settings), None
    with evaluating(model):
        judge = Gate(model, report.reference, held, strict=gate)
        if resume is None:
            report.output_first = judge.output_error()
        with suppress(Stopped):
            if pressed is None or not pressed.asked:
                _carry_out(model, fit, judge, report, show)
                report.finished = True
        report.output_last, report.agreement = judge.output_error(), judge.agreement()
    notes = {row.name: row.note for row in report.conversion.rows}
    report.conversion = summary(model, notes=notes, first_last=first_last)
    report.seconds += time.monotonic() - began
    return report


def begin(model: nn.Module, fit: Tensor, settings: Settings, blocks: Sequence[Block] | None) -> PTQReport:
    """Fold, convert and calibrate; return the report so far."""
    fold_batchnorm(model, fit[:1], fit[:BATCH])
    reference = deep_copy(model)
    found, notes = ([], []) if settings.method not in LEARNED else find_blocks(reference, fit[:2])
    conversion = convert(
        model, pair=settings.pair, first_last=settings.first_last, skip=settings.skip, batch=fit[:SEEN]
    )
    ends = _ends(reference, fit[:2]) if settings.first_last == "8bit" else ()
    if settings.method == "aquant":
        add_borders(model, settings.border or "channel", window=settings.window, skip=ends)
    nearest(model, fit)
    if blocks is not None:
        found, notes = list(blocks), []
        calls = quantized_layers(model, fit)
        if several := [name for block in found for name in block.layers if calls.get(name, 1) > 1]:
            raise ValueError(f"the blocks name {several[0]!r}, which runs {calls[several[0]]} times in a run")
    if settings.method in LEARNED:
        found = jobs(model, found, settings.order, ends)  # refuses
        apart = other_rows(reference, fit[:BATCH], [block.name for block in found])
        found = [block for block in found if block.name not in apart]
        notes = [*notes, *(f"{why} and is left out" for why in apart.values())]
    elif settings.method in WHOLE or settings.correction == "std":
        for name in quantized_layers(model, fit):
            WeightGrid(model.get_submodule(name), name)  # refuses
    return PTQReport(settings, conversion, notes=notes, reference=reference, blocks=found, skip=tuple(ends))


def _written(model: nn.Module, fit: Tensor, begun: PTQReport) -> tuple[list[str], tuple[str, ...]]:
    """Return the layers that a method writes to, and which of their parameters."""
    settings = begun.settings
    if settings.method in LEARNED:
        todo = jobs(model, begun.blocks, settings.order, begun.skip)
        names, which = [name for block in todo for name in block.layers], ("weight", "bias")
    else:
        weights = settings.method in WHOLE or settings.correction == "std"
        names = list(quantized_layers(model, fit))
        which = ("weight", "bias") if weights else ("bias",) if settings.correction else ()
    return [name for name in names if model.get_submodule(name).weight_quantizer is not None], which


def _ends(model: nn.Module, batch: Tensor) -> list[str]:
    layers = {name: layer for name, (layer, obstacle) in survey(model).items() if obstacle is None}
    return list(Order.of(model, layers, batch).roles())


def _resumed(report: PTQReport, settings: Settings) -> PTQReport:
    if report.finished or report.reference is None:
        raise ValueError("resume= is the report of a run that has ended: there is nothing to go on with")
    if name := settings.difference(report.settings):
        was, now = getattr(report.settings, name), getattr(settings, name)
        raise ValueError(f"the run that was stopped had {name}={was!r}, got {now!r}")
    return report


def _carry_out(model: nn.Module, fit: Tensor, judge: Gate, report: PTQReport, show: bool) -> None:
    settings = report.settings
    if settings.method in LEARNED:
        reconstruct(
            model,
            fit,
            judge,
            blocks=report.blocks,
            order=settings.order,
            skip=report.skip,
            options=settings.learning,
            seed=settings.seed,
            show=show,
            done=report.results,
        )
    elif settings.method in WHOLE:
        stage = gptq if settings.method == "closed-form" else adaround
        report.results.append(whole(model, fit, judge, stage))
    elif settings.correction is not None:
        corrected = partial(bias_correction, std=settings.correction == "std")
        report.results.append(whole(model, fit, judge, corrected))
    if settings.method == "aquant":
        fold_borders(model)
