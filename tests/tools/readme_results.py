"""Write the ledger's figures into the README: python -m tests.tools.readme_results"""

from __future__ import annotations

from pathlib import Path

from qviz.nn.runs import Experiment, Ledger
from qviz.nn.runs.ledger import table
from qviz.nn.runs.queue import read_queue
from qviz.nn.runs.tables import PTQ
from qviz.shipped import data_dir

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
QUEUE = ROOT / "notebooks" / "training" / "ledger.toml"
COLUMNS = {
    (False, False): "stays, 3 bits everywhere",
    (False, True): "stays, 3 bits on average",
    (True, False): "moves, 3 bits everywhere",
    (True, True): "moves, 3 bits on average",
}
"""Of the ablation, by whether the codebook moves and whether layers have bits of their own."""


def markers(name: str) -> tuple[str, str]:
    """Return the lines between which a table stands."""
    return f"<!-- {name}: written by tests/tools/readme_results.py -->", f"<!-- end of {name} -->"


def comparison(ledger: Ledger) -> str:
    """Return the table of the runs on all of CIFAR-10."""
    return _table(ledger, "training")


def quantizations(ledger: Ledger) -> str:
    """Return the table of post-training quantizations that were tested on all of CIFAR-10."""
    return _table(ledger, PTQ)


def _table(ledger: Ledger, kind: str) -> str:
    rows = [row for row in ledger if row.data == "cifar10" and row.kind == kind]
    return table(rows, markdown=True) if rows else "No row yet."


def ablation(ledger: Ledger, queue: list[Experiment]) -> str:
    """Return ADQ's ablation: top-1 by the codebook's start, in a row, and by what it may do, in a column."""
    found: dict[str, dict[tuple[bool, bool], str]] = {}
    for experiment in queue:
        if experiment.images is None:
            continue
        row = ledger.find(experiment.sha256("full"))
        setting = (
            experiment.config("full").freeze_codebooks > 0.0,
            experiment.average_bits is not None,
        )
        cells = found.setdefault(experiment.weight_options["init"], {})
        cells[setting] = "–" if row is None else f"{row.top1_mean:.2f}"
    lines = [("start", *COLUMNS.values()), ("---",) * (1 + len(COLUMNS))]
    lines += [(start, *(cells.get(setting, "–") for setting in COLUMNS)) for start, cells in found.items()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def rendered(text: str) -> str:
    """Return the README's text with the committed ledger's figures."""
    ledger = Ledger(data_dir() / "results.json")
    tables = {
        "results": comparison(ledger),
        "ablation": ablation(ledger, read_queue(QUEUE)),
        "ptq": quantizations(ledger),
    }
    for name, made in tables.items():
        start, end = markers(name)
        if start not in text or end not in text:
            raise ValueError(f"README.md has lost its markers {start!r} and {end!r}")
        before, rest = text.split(start)
        text = "\n".join([before + start, made, end + rest.split(end)[1]])
    return text


def main() -> None:
    """Write the tables."""
    README.write_text(rendered(README.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
