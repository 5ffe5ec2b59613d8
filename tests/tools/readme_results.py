"""Write the ledger's table into the README: python -m tests.tools.readme_results"""

from __future__ import annotations

from pathlib import Path

from qviz.core.shipped import data_dir
from qviz.nn.runs import Ledger
from qviz.nn.runs.ledger import table

README = Path(__file__).resolve().parents[2] / "README.md"
TABLES = {"results": "cifar10", "ablation": "cifar10, 10,000 training images"}
"""What the rows' data are called, by the name in a table's markers."""


def markers(name: str) -> tuple[str, str]:
    """Return the lines between which a table stands."""
    return f"<!-- {name}: written by tests/tools/readme_results.py -->", f"<!-- end of {name} -->"


def rendered(text: str) -> str:
    """Return the README's text with the committed ledger's rows on all of CIFAR-10 and on a part of it."""
    ledger = Ledger(data_dir() / "results.json")
    for name, data in TABLES.items():
        start, end = markers(name)
        if start not in text or end not in text:
            raise ValueError(f"README.md has lost its markers {start!r} and {end!r}")
        before, rest = text.split(start)
        rows = [row for row in ledger if row.data == data]
        made = [table(rows, markdown=True)] if rows else []
        text = "\n".join([before + start, *made, end + rest.split(end)[1]])
    return text


def main() -> None:
    """Write the tables."""
    README.write_text(rendered(README.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
