"""Contract: what a run is about to do and what may be expected of it, before it starts."""

from __future__ import annotations

import atexit
import math
import shutil
import tempfile
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from qviz.core._text import count
from qviz.nn.runs.experiment import Experiment
from qviz.nn.runs.ledger import Ledger, Row, with_shipped
from qviz.nn.runs.prepare import HELD_OUT, IMAGES_A_CLASS, SMOKE_IMAGES, source_of
from qviz.nn.runs.published import published
from qviz.nn.runs.run import folder_of
from qviz.nn.runs.schedule import SOURCES
from qviz.nn.runs.tables import PTQ, top1
from qviz.nn.train import TrainConfig
from qviz.nn.train.progress import TIMED, WARM_UP

if TYPE_CHECKING:
    from qviz.nn.runs.ptq_experiment import PTQExperiment

IMAGES = {"full": (45_000, 5_000, 10_000), "sample": (1_800, 200, 2_000)}
"""CIFAR-10's images for training, those held out of it, and for the test, by source."""

SEEDS = (0, 1, 2)
"""Seeds of rows that say what to expect, and how far runs lie apart."""

STARTS = {
    "shipped": "from the shipped FP32 checkpoint",
    "published": "from torchvision's published weights",
    "scratch": "from random weights",
    "made": "as its function makes it",
}
POLICIES = {
    "fp": "left in floating point",
    "8bit": "8 bits for weights and inputs (lsq)",
    "quantized": "quantized like all others",
}
LABEL, WIDTH = 14, 104
_CLASSES, _VAL, _ILSVRC_VAL = 10, 10, 50_000


def contract(experiment: Experiment, *, ledger: Ledger | None = None, root: str | Path | None = None) -> str:
    """Return what an experiment is about to do: data, schedule, seeds, policy, and what the ledger expects.

    Accuracy, spread and minutes are those of the ledger's row of exactly this experiment on the data that are
    here. Where it has none that is said, and rows of the same method, bits and network on other data or
    schedules are listed.

    Args:
        experiment: What is to run.
        ledger: Whose rows say what to expect. The default is the usual ledger; where that one is not the
            project's own, as in an installed package, the rows that travel with qviz are read too.
        root: The folder of the data, as for :func:`~qviz.nn.runs.prepare`.

    Raises:
        FileNotFoundError: The data that the experiment asks for are not there.
        ValueError: The ledger's file is damaged.
    """
    ledger = Ledger() if ledger is None else ledger
    source = source_of(experiment, root)
    config = experiment.config(source)
    rows = with_shipped(ledger)
    row = row_of(experiment, source, rows)
    quantized = experiment.recipe != "fp32"
    policy = POLICIES[experiment.first_last] if quantized else "in floating point, like the others"
    entries = [
        ("method", _method(experiment)),
        ("network", f"{experiment.model}, {STARTS.get(experiment.start, f'from {experiment.start}')}"),
        ("data", _data(experiment, source)),
        ("schedule", _schedule(experiment, config, quantized)),
        ("seeds", ", ".join(map(str, experiment.seeds))),
        ("first, last", f"first and last layer {policy}"),
        ("expected", _expected(experiment, row, ledger, _test_images(experiment, source))),
        ("minutes", minutes(row, f"fit gives an estimate after {WARM_UP + TIMED} steps")),
    ]
    entries += [("beside it", _short(other)) for other in _beside(experiment, rows, row)]
    paper = published(
        experiment.recipe, experiment.model, experiment.data, _w_bits(experiment), experiment.a_bits
    )
    if paper[0] is not None:
        entries.append(("published", f"{paper[0]:g} % top-1: {paper[1]}"))
    return "\n".join([f"{experiment.name}", *(line(*entry) for entry in entries)])


def run_folder(experiment: Experiment, source: str, *, seed: int | None = None) -> Path:
    """Return the folder of one seed's run: where :func:`~qviz.nn.runs.run` has it, below the cache folder.

    At size "smoke" it is a new temporary folder, gone at the end of the process: such a run is to show that
    everything works, so it must not go on from an earlier one.

    Args:
        experiment: What is run.
        source: "full" or "sample", as in ``prepare(experiment).source``.
        seed: The seed of the run; by default the experiment's first.
    """
    seed = experiment.seeds[0] if seed is None else seed
    if experiment.size == "smoke":
        folder = Path(tempfile.mkdtemp(prefix="qviz-smoke-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return folder
    return folder_of(experiment, source) / f"seed{seed}"


def line(label: str, text: str) -> str:
    """Return an entry: a label, and a text that is broken into lines beside it."""
    return textwrap.fill(
        text, WIDTH, initial_indent=f"{label:<{LABEL}}", subsequent_indent=" " * LABEL, break_on_hyphens=False
    )


def _w_bits(experiment: Experiment) -> float:
    return experiment.w_bits if experiment.average_bits is None else experiment.average_bits


def _method(experiment: Experiment) -> str:
    pair = experiment.pair()
    if experiment.recipe == "fp32":
        return "fp32: nothing is quantized"
    weights, acts = (count(b, "bit") for b in (experiment.w_bits, experiment.a_bits))
    if experiment.average_bits is not None:
        few = ", ".join(map(str, experiment.candidates[:-1]))
        weights = (
            f"{few} or {experiment.candidates[-1]} bits by layer, {experiment.average_bits:g} on average by "
            f"parameters (sensitivity: {experiment.sensitivity.replace('_', ' ')})"
        )
    parts = [
        f"weights {f'{weights}, {pair.weight.name}' if pair.weight else 'in floating point'}",
        f"inputs {f'{acts}, {pair.act.name}' if pair.act else 'in floating point'}",
    ]
    options = {**experiment.weight_options, **experiment.act_options}
    parts += [f"{key} {value}" for key, value in options.items()]
    return f"{experiment.recipe}: {'; '.join(parts)}"


def _data(experiment: Experiment, source: str) -> str:
    if experiment.loaders is not None:
        return f"{experiment.data}, of loaders of your own"
    if experiment.data == "imagenet":
        if source == "full":
            return "ImageNet (ILSVRC 2012) from a local folder; tested on its 50,000 validation images"
        train, val, test = _CLASSES * IMAGES_A_CLASS[experiment.size], _CLASSES * HELD_OUT, _CLASSES * _VAL
        what, limit = "a stand-in for ImageNet (10 classes of CIFAR-10, enlarged)", experiment.images
    else:
        train, val, test = (sum(IMAGES[source][:2]), *IMAGES[source][1:])
        limit = experiment.images or (SMOKE_IMAGES if experiment.size == "smoke" else None)
        what = "all of CIFAR-10" if source == "full" else "the embedded sample of CIFAR-10"
    if experiment.held_out:
        train -= val
    held = f", {val:,} held-out" if experiment.held_out else ""
    words = f"{what}: {min(limit or train, train):,} training{held} and {test:,} test images"
    if source == "sample" and experiment.size != "smoke" and experiment.data == "cifar10":
        words += "; for all 60,000: qviz.nn.data.cifar10(download=True)"
    return words


def _test_images(experiment: Experiment, source: str) -> int | None:
    if experiment.loaders is not None:
        return None
    if experiment.data == "imagenet":
        return _ILSVRC_VAL if source == "full" else _CLASSES * _VAL
    return IMAGES[source][2]


def _schedule(experiment: Experiment, config: TrainConfig, quantized: bool) -> str:
    epochs = count(config.epochs, "epoch")
    words = (
        f"{experiment.size}: {epochs} of {config.batch_size} images a step; {config.optimizer}, lr "
        f"{config.lr:g}, {config.schedule}, weight decay {config.weight_decay:g}"
    )
    if quantized and config.q_optimizer == "same":
        words += "; quantizers the same"
    elif quantized:
        words += f"; quantizers {config.q_optimizer}, lr {config.q_lr:g}, decay {config.q_weight_decay:g}"
    if config.max_steps is not None:
        words += f"; stops after {config.max_steps:,} steps"
    if experiment.size != "full":
        return words
    told = SOURCES["asq"]
    return f"{words}. {experiment.schedule_source.replace('as asq', f'as asq ({told})')}"


def row_of(experiment: Experiment | PTQExperiment, source: str, rows: list[Row]) -> Row | None:
    """Return the row of this experiment, best with the seeds that tell a spread."""
    known = {row.config_sha256: row for row in rows}
    wanted = [replace(experiment, seeds=seeds).sha256(source) for seeds in (SEEDS, experiment.seeds)]
    return next((known[key] for key in wanted if key in known), None)


def _expected(experiment: Experiment, row: Row | None, ledger: Ledger, images: int | None) -> str:
    if experiment.size == "smoke":
        return (
            "nothing: a smoke run shows that everything works; after so few steps its accuracy means nothing"
        )
    return accuracy(row, ledger, images, "the last epoch")


def accuracy(row: Row | None, ledger: Ledger, images: int | None, when: str) -> str:
    """Return what a row lets expect, with the error that so many test images leave."""
    if row is None:
        return f"not known: the ledger ({ledger.path.name}) has no row of this experiment on these data"
    number = "" if images is None else f"{images:,} "
    words = f"{top1(row)} % of the {number}test images, after {when}; "
    if row.top1_std is None:
        words += "one seed, so the spread over seeds is not known"
    else:
        words += f"± is the standard deviation of {row.n_seeds} seeds"
    if images is None:
        return words
    share = row.top1_mean / 100
    error = 100 * math.sqrt(share * (1 - share) / images)
    return words + f"; so many images leave a standard error of {error:.2f}"


def minutes(row: Row | None, until: str) -> str:
    """Return what a row says of the time; ``until`` is said where there is none."""
    if row is None:
        return f"not measured yet; {until}"
    return f"{row.minutes:.1f} a seed on {row.hardware}"


def _beside(experiment: Experiment, rows: list[Row], row: Row | None) -> list[Row]:
    """Return trainings with the same method, bits and network that are not this experiment's."""
    key = (experiment.recipe, experiment.model, experiment.a_bits)
    return [
        other
        for other in rows
        if other.kind != PTQ
        and other != row
        and (other.method, other.model, other.a_bits) == key
        and abs(other.w_bits - _w_bits(experiment)) < 0.05
    ]


def _short(row: Row) -> str:
    return (
        f"{top1(row)} % on {row.data}, {row.epochs} epochs, {count(row.n_seeds, 'seed')}"
        f", first and last {row.first_last}, {row.minutes:.1f} minutes on "
        f"{row.hardware}" + (f" ({row.note})" if row.note else "")
    )
