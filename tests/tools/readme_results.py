"""Write the ledger's table into the README: python -m tests.tools.readme_results"""

from __future__ import annotations

from pathlib import Path

from qviz.core.shipped import data_dir
from qviz.nn.runs import Ledger
from qviz.nn.runs.ledger import table

README = Path(__file__).resolve().parents[2] / "README.md"
ALL = "cifar10"
START, END = "<!-- results: written by tests/tools/readme_results.py -->", "<!-- end of results -->"


def rendered(text: str) -> str:
    """Return the README's text with the committed ledger's rows on all of CIFAR-10."""
    if START not in text or END not in text:
        raise ValueError(f"README.md has lost its markers {START!r} and {END!r}")
    before, rest = text.split(START)
    rows = [row for row in Ledger(data_dir() / "results.json") if row.data == ALL]
    return "".join([before, START, "\n", table(rows, markdown=True), "\n", END, rest.split(END)[1]])


def main() -> None:
    """Write the table."""
    README.write_text(rendered(README.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
