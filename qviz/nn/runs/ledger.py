"""Ledger: one row a run, in a JSON file that only the runner writes."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qviz.nn.download import cache_dir, locked
from qviz.shipped import data_dir

NAME = "results.json"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one experiment gave.

    Attributes:
        method: a name of ``qviz.recipes.pair``.
        w_bits, a_bits: bits; a fraction where layers differ (the average by parameters).
        w_levels, a_levels: levels of the codebooks; None in floating point or where layers differ.
        first_last: policy for the first and last layer.
        model, data: names; ``data`` says how many images where it was not all.
        epochs: of this run.
        n_seeds: how many runs. top1_mean, top1_std: in percent, of the last epoch on the test images; the
            sample standard deviation, None for one seed.
        minutes: of one run, on average, with evaluations. hardware: where.
        config_sha256: of experiment and configuration. checkpoint_sha256: of the first seed's last weights.
        revision: of the code.
        paper_top1, paper_conditions: what the paper reports, and for what; None where it reports nothing,
            and for runs on a part of the data.
        note: what else a reader must know.
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


FIELDS = tuple(f.name for f in dataclasses.fields(Row))


def default_ledger() -> Path:
    """Return where results go: ``data/results.json`` of a checkout, else ``results.json`` in the cache."""
    folder = data_dir()
    inside = (folder.parent / "pyproject.toml").is_file() and os.access(folder, os.W_OK)
    return (folder if inside else cache_dir()) / NAME


class Ledger:
    """The rows of a results file, in the order in which they were written.

    Args:
        path: of the file; None for :func:`default_ledger`. It need not exist yet.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = default_ledger() if path is None else Path(path).expanduser()

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows())

    def rows(self) -> list[Row]:
        """Read the file.

        Raises:
            ValueError: it is not a ledger.
        """
        if not self.path.is_file():
            return []
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            return [Row(**row) for row in found["rows"]]
        except (ValueError, TypeError, KeyError) as problem:
            raise ValueError(f"{self.path} is not a ledger of qviz: {problem}") from problem

    def find(self, config_sha256: str) -> Row | None:
        """Return the row of a configuration, or None."""
        return next((row for row in self if row.config_sha256 == config_sha256), None)

    def put(self, row: Row) -> None:
        """Write a row, in the place of one of the same configuration; the file is replaced in one piece."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.path.with_name(self.path.name + ".lock")):
            rows = self.rows()
            at = next((i for i, r in enumerate(rows) if r.config_sha256 == row.config_sha256), len(rows))
            rows[at : at + 1] = [row]
            text = json.dumps({"rows": [dataclasses.asdict(r) for r in rows]}, indent=1) + "\n"
            part = self.path.with_name(self.path.name + ".part")
            part.write_text(text, encoding="utf-8")
            part.replace(self.path)

    def table(self, *, markdown: bool = False) -> str:
        """Return the rows as a table, the longest-known figures first to the eye: method, bits, accuracy."""
        return table(self.rows(), markdown=markdown)


HEADS = ("method", "W bits", "A bits", "model", "data", "epochs", "seeds", "top-1 %", "paper %", "minutes")


def table(rows: list[Row], *, markdown: bool = False) -> str:
    """Return rows as an aligned text table, or in Markdown."""
    body = [_cells(row) for row in rows]
    if markdown:
        lines = [HEADS, ["---"] * len(HEADS), *body]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)
    widths = [max(len(line[i]) for line in [HEADS, *body]) for i in range(len(HEADS))]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in [HEADS, *body]
    )


def _cells(row: Row) -> list[str]:
    spread = "" if row.top1_std is None else f" ± {row.top1_std:.2f}"
    name = row.method + (f" ({row.note})" if row.note else "")
    name += "" if row.first_last == "fp" or row.method == "fp32" else f", first and last {row.first_last}"
    return [
        name,
        f"{row.w_bits:g}",
        f"{row.a_bits:g}",
        row.model,
        row.data,
        str(row.epochs),
        str(row.n_seeds),
        f"{row.top1_mean:.2f}{spread}",
        "–" if row.paper_top1 is None else f"{row.paper_top1:g}",
        f"{row.minutes:.0f}" if row.minutes >= 10 else f"{row.minutes:.1f}",
    ]


def as_dict(row: Row) -> dict[str, Any]:
    """Return a row as plain values."""
    return dataclasses.asdict(row)
