"""Queue: a TOML file of experiments, run one after the other; those that the ledger has are skipped."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

from qviz.nn.runs.experiment import Experiment


def read_queue(path: str | Path) -> list[Experiment]:
    """Return the experiments of a queue file.

    Each ``[[run]]`` has fields of an :class:`Experiment`; a table ``[defaults]`` has those that all share.

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
    return [_experiment(found.get("defaults", {}), run, f"{path}, run {i}") for i, run in enumerate(runs, 1)]


def _experiment(defaults: dict[str, Any], own: dict[str, Any], where: str) -> Experiment:
    fields = {**defaults, **own}
    unknown = set(fields) - {field.name for field in dataclasses.fields(Experiment)}
    if unknown:
        raise ValueError(f"{where}: an experiment has no field {', '.join(sorted(unknown))}")
    try:
        return Experiment(**fields)
    except (TypeError, ValueError) as problem:
        raise ValueError(f"{where}: {problem}") from problem
