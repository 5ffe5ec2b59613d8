"""Run of a post-training quantization: quantize with each seed of an experiment, test, and write its row."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qviz.core._files import file_sha256, make_folder, write_atomically
from qviz.core._text import count
from qviz.nn.ptq import PTQReport, ptq
from qviz.nn.ptq.resume import taken_up
from qviz.nn.runs.ledger import Ledger, Row, table
from qviz.nn.runs.ptq_experiment import PTQExperiment
from qviz.nn.runs.ptq_prepare import PTQPrepared, prepare_ptq, source_of_ptq
from qviz.nn.runs.run import folder_of, processor, revision
from qviz.nn.runs.tables import PTQ, SEEN
from qviz.nn.train import evaluate
from qviz.nn.train.packing import pack_weights, unpack_weights


def run_ptq(
    experiment: PTQExperiment,
    *,
    folder: str | Path | None = None,
    root: str | Path | None = None,
    ledger: Ledger | None = None,
    progress: bool = True,
    say: Callable[[str], object] = print,
) -> Row | None:
    """Quantize with every seed and return the row; with a ledger, write it there.

    The quantized network of each seed is kept in a file of its own, with the report and the accuracy. A seed
    that has been finished by the same revision of the code is not done again; one that was stopped goes on
    behind the last block that is done, to the same bits.

    Args:
        experiment: What to run.
        folder: Where the networks go; None for ``runs`` in the cache folder (``$QVIZ_DATA``).
        root: The folder of the data, as for :func:`prepare_ptq`.
        ledger: Where to write the row; None writes none.
        progress: Whether to show what is done.
        say: Takes what is to be shown.

    Returns:
        The row; None if it was stopped by hand (run it again to go on).

    Raises:
        ValueError, TypeError, FileNotFoundError, CheckpointError, OSError: As :func:`prepare_ptq` and
            :func:`~qviz.nn.ptq.ptq`; a file that was kept is damaged, or none can be written.
    """
    if ledger is not None:
        ledger.check()
    source = source_of_ptq(experiment, root)
    files = [folder_of(experiment, source, folder) / f"seed{seed}.safetensors" for seed in experiment.seeds]
    make_folder(files[0].parent, f"quantized networks cannot be written to {files[0].parent}")
    done = []
    for seed, file in zip(experiment.seeds, files, strict=True):
        _, found = _kept(file)
        if found is None:
            if progress:
                say(f"{experiment.name}, seed {seed}: {experiment.images:,} images, into {file}")
            found = _one(experiment, prepare_ptq(experiment, seed=seed, root=root), seed, file, progress, say)
        elif progress:
            say(f"{experiment.name}, seed {seed}: done before, in {file}")
        if found is None:
            return None
        done.append(found)
    row = _row(experiment, source, done, file_sha256(files[0]))
    if ledger is not None:
        try:
            ledger.put(row)
        except (OSError, ValueError):
            say(table([row]))
            raise
    return row


def _kept(file: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Return tensors and figures of a seed, None if not by this revision of the code, as committed."""
    if not file.is_file() or revision().endswith("+"):
        return {}, None
    tensors, figures = unpack_weights(file.read_bytes(), file)
    return tensors, figures if figures["revision"] == revision() else None


def _one(
    experiment: PTQExperiment,
    ready: PTQPrepared,
    seed: int,
    file: Path,
    progress: bool,
    say: Callable[[str], object],
) -> dict[str, Any] | None:
    """Quantize with one seed, test, and keep the network; None if it was stopped."""
    settings = experiment.settings(seed)
    part = file.with_name(f"stopped-{file.name}")
    tensors, before = _kept(part)
    report = before and taken_up(ready.model, ready.images, settings, tensors, before["report"])
    if report and progress:
        say(f"goes on behind {report.results[-1].name}, where it was stopped")
    how = {"source": ready.origin, "show": progress, "resume": report}
    report = ptq(ready.model, ready.images, **vars(settings), **how)
    if progress:
        say(str(report))
    if not report.finished:
        if report.results:
            kept = {"revision": revision(), "report": report.to_dict()}
            write_atomically(part, pack_weights(ready.model, kept))
        return None
    figures = {
        "top1": 100.0 * evaluate(ready.model, ready.test)["top1"],
        "fp_top1": 100.0 * evaluate(report.reference, ready.test)["top1"],
        "minutes": report.seconds / 60.0,
        "levels": _levels(report),
        "description": ready.description,
        "origin": ready.origin,
        "hardware": _hardware(ready.images.device),
        "revision": revision(),
        "experiment": experiment.to_dict() | {"seed": seed},
        "report": report.to_dict(),
    }
    write_atomically(file, pack_weights(ready.model, figures))
    part.unlink(missing_ok=True)
    return figures


def _levels(report: PTQReport) -> tuple[int | None, int | None]:
    """Return the levels of weights and activations in the layers at the experiment's own bits."""
    pair = report.settings.pair
    own = [row for row in report.conversion.rows if (row.w_bits, row.a_bits) == (pair.w_bits, pair.a_bits)]
    weights, acts = {row.w_levels for row in own}, {row.a_levels for row in own}
    return (weights.pop() if len(weights) == 1 else None, acts.pop() if len(acts) == 1 else None)


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, fp32"
    return f"CPU ({processor()}), {count(torch.get_num_threads(), 'thread')}, fp32"


def _row(experiment: PTQExperiment, source: str, done: list[dict[str, Any]], sha256: str) -> Row:
    top1, first = [one["top1"] for one in done], done[0]
    w_levels, a_levels = first["levels"]
    return Row(
        kind=PTQ,
        method=experiment.method,
        w_bits=experiment.w_bits,
        a_bits=experiment.a_bits,
        w_levels=w_levels,
        a_levels=a_levels,
        first_last=experiment.first_last,
        model=experiment.model,
        data=first["description"],
        epochs=0,
        calibration=experiment.images,
        iterations=experiment.iterations,
        n_seeds=len(done),
        top1_mean=round(statistics.mean(top1), 3),
        top1_std=round(statistics.stdev(top1), 3) if len(top1) > 1 else None,
        fp_top1=round(first["fp_top1"], 3),
        minutes=round(statistics.mean(one["minutes"] for one in done), 2),
        hardware=first["hardware"],
        config_sha256=experiment.sha256(source),
        checkpoint_sha256=sha256,
        revision=revision(),
        note=_note(experiment),
    )


def _note(experiment: PTQExperiment) -> str:
    parts = [f"{experiment.correction} corrected"] if experiment.correction else []
    parts += [f"border by {experiment.border}"] if experiment.border not in (None, "channel") else []
    parts += [f"window {experiment.window:g}"] if experiment.window < math.inf else []
    parts += ["biases learned"] if experiment.bias else []
    parts += ["layer by layer"] if experiment.order == "layer" else []
    parts += [] if experiment.gate else ["no gate"]
    parts += [f"{name} {value}" for name, value in experiment.overrides.items()]
    if experiment.start != "shipped":
        parts.append(f"from weights with sha256 {file_sha256(experiment.weights())[:12]}")
    return ", ".join([*parts, SEEN] if experiment.start == "shipped" else parts)
