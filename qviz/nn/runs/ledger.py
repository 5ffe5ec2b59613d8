"""Ledger: one row a run, in a JSON file that only the runner writes."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, get_type_hints

from qviz.core import _text
from qviz.core._files import locked, make_folder, write_atomically
from qviz.nn.download import cache_dir
from qviz.nn.runs.tables import PTQ
from qviz.nn.runs.tables import table as table
from qviz.shipped import data_dir

NAME = "results.json"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one experiment gave.

    Attributes:
        method: A name of ``qviz.recipes.pair``.
        w_bits, a_bits: Bits; a fraction where layers differ (the average by parameters).
        w_levels, a_levels: The levels of the codebooks; None in floating point or where layers differ.
        first_last: The policy for the first and last layer.
        model, data: Their names; ``data`` says how many images where it was not all.
        epochs: The epochs of this run.
        n_seeds: How many runs there were.
        top1_mean: Percent of the test images, after the last epoch.
        top1_std: The sample standard deviation of that over the seeds; None for one.
        minutes: The time of one run, on average, with evaluations.
        hardware: Where it took that.
        config_sha256: The hash of experiment and configuration.
        checkpoint_sha256: The hash of the first seed's last weights.
        revision: The revision of the code.
        paper_top1, paper_conditions: What the paper reports, and for what; None where it reports nothing,
            and for runs on a part of the data.
        note: What else a reader must know.
        kind: "training", or "PTQ" for post-training quantization. Of that, ``method`` is one of
            ``qviz.nn.ptq``, ``epochs`` is 0, and ``minutes`` are those of the quantization alone.
        calibration: How many images a post-training quantization saw, those that it held out included.
        iterations: Its steps of a block, None where it reconstructs none.
        fp_top1: Percent of the test images before the quantization.
    """

    method: str
    w_bits: float
    a_bits: float
    w_levels: int | None
    a_levels: int | None
    first_last: str
    model: str
    data: str
    epochs: int
    n_seeds: int
    top1_mean: float
    top1_std: float | None
    minutes: float
    hardware: str
    config_sha256: str
    checkpoint_sha256: str
    revision: str
    paper_top1: float | None = None
    paper_conditions: str | None = None
    note: str = ""
    kind: str = "training"
    calibration: int | None = None
    iterations: int | None = None
    fp_top1: float | None = None


FIELDS = tuple(f.name for f in dataclasses.fields(Row))

OF_PTQ = ("kind", "calibration", "iterations", "fp_top1")
"""The fields that are written for post-training quantization only, so that older readers know all others."""


def _written(row: Row) -> dict[str, Any]:
    """Return what the file has of a row."""
    return {name: value for name, value in as_dict(row).items() if row.kind == PTQ or name not in OF_PTQ}


@cache
def _types() -> dict[str, type | UnionType]:
    return {name: kind | int if kind is float else kind for name, kind in get_type_hints(Row).items()}


def _row(number: int, fields: object) -> Row:
    """Return a row of the file after checking that it has the fields of a Row, of the right types.

    Raises:
        ValueError: It has not; the message names the row and the field.
    """
    if not isinstance(fields, dict):
        raise ValueError(f"row {number} must be an object with fields, got {fields!r}")
    if extra := [name for name in fields if name not in FIELDS]:
        raise ValueError(
            f"row {number} has a field {extra[0]!r} that this qviz does not know; a newer one may have "
            "written it"
        )
    needed = [f.name for f in dataclasses.fields(Row) if f.default is dataclasses.MISSING]
    if missing := [name for name in needed if name not in fields]:
        raise ValueError(f"row {number} lacks {_text.some(missing)}")
    for name, value in fields.items():
        if isinstance(value, bool) or not isinstance(value, _types()[name]):
            raise ValueError(f"row {number} has {name} = {value!r}, which cannot be")
    return Row(**fields)


def default_ledger() -> Path:
    """Return where results go: ``data/results.json`` of a checkout, else ``results.json`` in the cache."""
    folder = data_dir()
    inside = (folder.parent / "pyproject.toml").is_file() and os.access(folder, os.W_OK)
    return (folder if inside else cache_dir()) / NAME


def with_shipped(ledger: Ledger) -> list[Row]:
    """Return a ledger's rows and, of other configurations, those that travel with qviz.

    An installed package has its user's ledger in the cache folder, and the rows of the project beside its
    data.
    """
    rows = ledger.rows()
    have = {row.config_sha256 for row in rows}
    shipped = Ledger(data_dir() / NAME).rows() if ledger.path == default_ledger() else []
    return rows + [row for row in shipped if row.config_sha256 not in have]


class Ledger:
    """The rows of a results file, in the order in which they were written.

    Args:
        path: The file; None for :func:`default_ledger`. It need not exist yet.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = default_ledger() if path is None else Path(path).expanduser()

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows())

    def rows(self) -> list[Row]:
        """Read the file.

        Raises:
            ValueError: It is not a ledger.
            OSError: It cannot be read.
        """
        if not self.path.exists():
            return []
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            if not isinstance(found, dict) or not isinstance(found.get("rows"), list):
                raise ValueError('it must hold an object with a list "rows"')
            return [_row(number, fields) for number, fields in enumerate(found["rows"], 1)]
        except ValueError as problem:
            raise ValueError(f"{self.path} is not a ledger of qviz: {problem}") from problem

    def check(self) -> None:
        """See, before a training that may take hours, that its row can be written.

        Raises:
            ValueError: The file is not a ledger.
            OSError: The file cannot be read, or none can be written in its place.
        """
        self.rows()
        make_folder(self.path.parent, f"results cannot be written to {self.path}")

    def find(self, config_sha256: str) -> Row | None:
        """Return the row of a configuration, or None."""
        return next((row for row in self if row.config_sha256 == config_sha256), None)

    def put(self, row: Row) -> None:
        """Write a row, in the place of one of the same configuration; the file is replaced in one piece."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.path.with_name(f".{self.path.name}.lock")):
            rows = self.rows()
            at = next((i for i, r in enumerate(rows) if r.config_sha256 == row.config_sha256), len(rows))
            rows[at : at + 1] = [row]
            text = json.dumps({"rows": [_written(r) for r in rows]}, indent=1) + "\n"
            write_atomically(self.path, text.encode())

    def table(self, *, markdown: bool = False) -> str:
        """Return the rows as a text or Markdown table: method, bits, model, accuracy, minutes."""
        return table(self.rows(), markdown=markdown)


def as_dict(row: Row) -> dict[str, Any]:
    """Return a row as plain values."""
    return dataclasses.asdict(row)
