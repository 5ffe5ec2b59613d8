"""Queue: a TOML file of experiments, run one after the other; those that the ledger has are skipped."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from qviz.nn.runs.experiment import Experiment

T = TypeVar("T")


def read_queue(path: str | Path, kind: type[T] = Experiment) -> list[T]:
    """Return the experiments of a queue file.

    Each ``[[run]]`` has fields of an experiment; a table ``[defaults]`` has those that all share.

    Args:
        path: The file.
        kind: What they are: :class:`Experiment`, or ``PTQExperiment``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not TOML, or a field is unknown or wrong; the message names the run.
    """
    path = Path(path).expanduser()
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ValueError(f"{path} is not TOML: {problem}") from problem
    runs = found.get("run")
    if set(found) - {"run", "defaults"} or not isinstance(runs, list) or not runs:
        raise ValueError(
            f"{path} must hold [[run]] tables and, if you like, [defaults]; "
            f"it holds {', '.join(found) or 'nothing'}"
        )
    defaults = found.get("defaults", {})
    return [_experiment(kind, {**defaults, **run}, f"{path}, run {i}") for i, run in enumerate(runs, 1)]


def _experiment(kind: type[T], fields: dict[str, Any], where: str) -> T:
    unknown = set(fields) - {field.name for field in dataclasses.fields(kind)}
    if unknown:
        raise ValueError(f"{where}: an experiment has no field {', '.join(sorted(unknown))}")
    try:
        return kind(**fields)
    except (TypeError, ValueError) as problem:
        raise ValueError(f"{where}: {problem}") from problem
