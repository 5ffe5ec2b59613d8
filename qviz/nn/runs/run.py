"""Run: train an experiment with each of its seeds, and write its row."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from qviz import __version__
from qviz.core._files import file_sha256
from qviz.nn.convert import Report
from qviz.nn.download import cache_dir
from qviz.nn.runs.experiment import STARTS, Experiment
from qviz.nn.runs.ledger import Ledger, Row, table
from qviz.nn.runs.prepare import Prepared, prepare, source_of
from qviz.nn.runs.published import published
from qviz.nn.train import History, fit
from qviz.nn.train.checkpoint import LAST
from qviz.shipped import data_dir

_TOLD = ("epochs", "precision", "compile")  # overrides that a row's epochs and hardware tell
_WORDS = {"freeze_codebooks 0.0": "codebooks stay as they start"}


def run(
    experiment: Experiment,
    *,
    folder: str | Path | None = None,
    root: str | Path | None = None,
    ledger: Ledger | None = None,
    resume: bool = True,
    progress: bool = True,
    say: Callable[[str], object] = print,
    before: Sequence[Row] = (),
) -> Row | None:
    """Train with every seed and return the row; with a ledger, write it there.

    Each seed has a folder of its own with checkpoints and History. A run that was stopped or killed goes on
    from its last checkpoint when the same experiment is run again.

    Args:
        experiment: What to run.
        folder: Where the runs go; None for ``runs`` in the cache folder (``$QVIZ_DATA``).
        root: The folder of the data, as for :func:`prepare`.
        ledger: Where to write the row; None writes none.
        resume: Whether to go on with runs that were begun; False refuses a folder that holds one.
        progress: Whether to show what is done.
        say: Takes one line on what was found.
        before: The rows of the runs that made the weights to begin with, where they belong to the method;
            their epochs and minutes are added to this row's.

    Returns:
        The row; None if the run was stopped by hand (run it again to go on).

    Raises:
        ValueError, FileNotFoundError, CheckpointError, DivergenceError, OSError: As ``prepare`` and ``fit``.
    """
    writes = ledger is not None and int(os.environ.get("RANK", "0")) == 0
    if writes:
        ledger.check()
    results: list[History] = []
    for seed in experiment.seeds:
        ready = prepare(experiment, seed=seed, root=root)
        place = folder_of(experiment, ready.source, folder) / f"seed{seed}"
        if progress:
            say(f"{experiment.name}, seed {seed}: {ready.description}, in {place}")
        history = fit(
            ready.model,
            ready.train,
            ready.config,
            val=ready.val,
            test=ready.test,
            folder=place,
            resume=resume,
            progress=progress,
        )
        if history.interrupted or not history.finished:
            return None
        results.append(history)
        if seed == experiment.seeds[0]:
            first = ready, file_sha256(place / LAST)
    row = _row(experiment, *first, results, before)
    if writes:
        try:
            ledger.put(row)
        except (OSError, ValueError):
            say(table([row]))  # hours of training must not end in an error message alone
            raise
    return row


def runs_of(experiment: Experiment, source: str, folder: str | Path | None = None) -> list[Path]:
    """Return the folders of an experiment's runs that hold a checkpoint.

    Args:
        experiment: The experiment; runs with other options have other folders.
        source: "full" or "sample", the data.
        folder: The folder of all runs, as for :func:`run`.
    """
    found = folder_of(experiment, source, folder).glob("seed*/checkpoints/[0-9]*")
    return sorted({checkpoint.parent.parent for checkpoint in found})


def known(experiment: Experiment, ledger: Ledger) -> Row | None:
    """Return the experiment's row if the ledger has it, on whichever data there are now.

    Raises:
        FileNotFoundError: The data that the experiment asks for are not there.
    """
    return ledger.find(experiment.sha256(source_of(experiment)))


def folder_of(experiment: Experiment, source: str, folder: str | Path | None = None) -> Path:
    """Return the folder of an experiment's runs, in ``folder`` or in ``runs`` of the cache folder.

    Args:
        experiment: The experiment that is run.
        source: "full" or "sample", the data.
        folder: The folder of all runs, as for :func:`run`.
    """
    home = cache_dir() / "runs" if folder is None else Path(folder).expanduser()
    return home / f"{experiment.name}-{experiment.sha256(source)[:8]}"


def _row(
    experiment: Experiment,
    ready: Prepared,
    checkpoint_sha256: str,
    results: list[History],
    before: Sequence[Row],
) -> Row:
    top1 = [100.0 * history.epochs[-1]["test_top1"] for history in results]
    minutes = statistics.mean(history.epochs[-1]["minutes"] for history in results)
    found = ready.allocation
    w_bits = experiment.w_bits if found is None else round(found.average, 4)
    whole = ready.source == "full" and experiment.images is None
    paper_top1, conditions = (
        published(experiment.recipe, experiment.model, experiment.data, w_bits, experiment.a_bits)
        if whole
        else (None, None)
    )
    w_levels, a_levels = _levels(ready.report)
    return Row(
        method=experiment.recipe,
        w_bits=w_bits,
        a_bits=experiment.a_bits,
        w_levels=w_levels,
        a_levels=a_levels,
        first_last=experiment.first_last if experiment.recipe != "fp32" else "fp",
        model=experiment.model,
        data=ready.description,
        epochs=ready.config.epochs + sum(row.epochs for row in before),
        n_seeds=len(results),
        top1_mean=round(statistics.mean(top1), 3),
        top1_std=round(statistics.stdev(top1), 3) if len(top1) > 1 else None,
        minutes=round(minutes + sum(row.minutes for row in before), 2),
        hardware=hardware(results[0]),
        config_sha256=experiment.sha256(ready.source),
        checkpoint_sha256=checkpoint_sha256,
        revision=revision(),
        paper_top1=paper_top1,
        paper_conditions=conditions,
        note=_note(experiment, len(before)),
    )


def _levels(report: Report | None) -> tuple[int | None, int | None]:
    """Return the levels of weights and activations that all layers at the method's bits share, else None."""
    if report is None:
        return None, None
    kept = [row for row in report.rows if row.w_bits != 32 or row.a_bits != 32]
    weights, acts = {row.w_levels for row in kept}, {row.a_levels for row in kept}
    return (weights.pop() if len(weights) == 1 else None, acts.pop() if len(acts) == 1 else None)


def _note(experiment: Experiment, before: int) -> str:
    parts = []
    if experiment.average_bits is not None:
        parts.append(f"mixed precision by {experiment.sensitivity.replace('_', ' ')}")
    for name, options in (("weights", experiment.weight_options), ("activations", experiment.act_options)):
        parts += [f"{name} {key} {value}" for key, value in options.items()]
    if before:
        parts.append(f"the last of {before + 1} runs, all counted")
    else:
        others = [f"{key} {value}" for key, value in experiment.overrides.items() if key not in _TOLD]
        parts += [_WORDS.get(words, words) for words in others]
    if not experiment.held_out:
        parts.append("trained on the held-out images too")
    if experiment.recipe != "fp32" and experiment.start == "scratch":
        parts.append("from scratch")
    if experiment.start not in STARTS and not before:
        parts.append(f"from weights with sha256 {file_sha256(experiment.weights())[:12]}")
    return ", ".join(parts)


def hardware(history: History) -> str:
    """Return what a run was computed on: a GPU's name or the processor's, with threads and precision."""
    return history.meta["device"].replace("CPU", f"CPU ({processor()})", 1)


def processor() -> str:
    """Return the processor's name."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def revision() -> str:
    """Return the commit of the checkout (with + where files have changed since), else the version."""
    home = data_dir().parent
    try:
        commit = _git(home, "rev-parse", "--short=12", "HEAD")
        changed = _git(home, "status", "--porcelain", "--untracked-files=no", "--", "qviz")
    except (OSError, subprocess.CalledProcessError):
        return __version__
    return commit + ("+" if changed else "")


def _git(folder: Path, *args: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *args], capture_output=True, text=True, check=True)
    return done.stdout.strip()
