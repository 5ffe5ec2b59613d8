"""Contract of a post-training quantization: what it is about to do and what may be expected of it."""

from __future__ import annotations

from pathlib import Path

from qviz.core._text import count
from qviz.nn.runs.contract import IMAGES, POLICIES, STARTS, accuracy, line, minutes, row_of
from qviz.nn.runs.ledger import Ledger, Row, with_shipped
from qviz.nn.runs.ptq_experiment import PTQExperiment
from qviz.nn.runs.ptq_prepare import origin_of, source_of_ptq
from qviz.nn.runs.tables import PTQ, named, top1


def ptq_contract(
    experiment: PTQExperiment, *, ledger: Ledger | None = None, root: str | Path | None = None
) -> str:
    """Return what an experiment is about to do, and what the ledger expects of it.

    Accuracy and minutes are those of the ledger's row of exactly this experiment on the data that are here;
    rows of other methods on the same network at the same bits are listed beside it.

    Args:
        experiment: What is to run.
        ledger: Whose rows say what to expect, as for :func:`~qviz.nn.runs.contract`.
        root: The folder of the data, as for :func:`~qviz.nn.runs.prepare_ptq`.

    Raises:
        FileNotFoundError: The data or weights that the experiment asks for are not there.
        ValueError: The ledger's file is damaged.
    """
    ledger = Ledger() if ledger is None else ledger
    source = source_of_ptq(experiment, root)
    rows = with_shipped(ledger)
    row, images = row_of(experiment, source, rows), IMAGES[source][2]
    entries = [
        ("method", _method(experiment)),
        ("network", f"{experiment.model}, {STARTS.get(experiment.start, f'from {experiment.start}')}"),
        ("calibration", _calibration(experiment)),
        ("learning", _learning(experiment)),
        (
            "test",
            ("all of CIFAR-10" if source == "full" else "the sample of CIFAR-10") + f": {images:,} images",
        ),
        ("seeds", ", ".join(map(str, experiment.seeds))),
        ("first, last", f"first and last layer {POLICIES[experiment.first_last]}"),
        ("expected", accuracy(row, ledger, images, "quantization")),
        ("minutes", minutes(row, "a bar shows how much of a block is left")),
    ]
    beside = [other for other in rows if other != row and _same_bits(other, experiment)]
    entries += [("beside it", f"{named(other)}: {top1(other)} % on {other.data}") for other in beside]
    return "\n".join([experiment.name, *(line(*entry) for entry in entries)])


def _method(experiment: PTQExperiment) -> str:
    pair = experiment.settings(experiment.seeds[0]).pair
    sides = (("weights", experiment.w_bits, pair.weight), ("inputs", experiment.a_bits, pair.act))
    parts = [f"{what} {count(bits, 'bit') if q else 'in floating point'}" for what, bits, q in sides]
    if experiment.correction is not None:
        parts.append(f"each channel's mean{' and std' if experiment.correction == 'std' else ''} given back")
    if experiment.border is not None:
        parts.append(f"borders by {experiment.border}")
    return f"{experiment.method}: {', '.join(parts)}; uniform levels"


def _calibration(experiment: PTQExperiment) -> str:
    held = experiment.images // 4
    return (
        f"{experiment.images:,} {origin_of(experiment)}, drawn by the seed while classes take turns, without "
        f"augmentation; no label is read; {held:,} of them are held out "
        + ("and decide what stays" if experiment.gate else "and decide nothing")
    )


def _learning(experiment: PTQExperiment) -> str:
    options = experiment.options
    if options is None:
        return "roundings of weights, layer by layer" if experiment.method == "adaround" else "nothing"
    each = "layer" if experiment.order == "layer" else "block"
    words = f"{options.iterations:,} steps of {options.batch} images a {each}"
    if options.drop:
        words += f"; a value stays unquantized with probability {options.drop:g}"
    return words + ("; biases too" if options.bias_lr else "")


def _same_bits(row: Row, experiment: PTQExperiment) -> bool:
    bits = (experiment.model, experiment.w_bits, experiment.a_bits)
    return row.kind == PTQ and (row.model, row.w_bits, row.a_bits) == bits
