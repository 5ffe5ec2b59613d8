"""Write the .ipynb beside each master of a lab, without outputs, the same bytes for the same script.

    python -m tests.tools.pair_labs [FILE.py ...]

Building a lab reads the .ipynb, so that an instructor needs no jupytext.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nbformat import NotebookNode

from qviz.labs import source
from qviz.labs.master import read as read_master
from tests.tools.execute_notebooks import ROOT, read, write

FOLDERS = (ROOT / "notebooks" / "labs" / "source", ROOT / "tests" / "labs" / "fixtures")


def main() -> int:
    """Write the notebooks of the masters on the command line, or of all; return 1 if one does not fit."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.pair_labs")
    parser.add_argument("files", nargs="*", type=Path, help="percent scripts (default: all masters)")
    failed = 0
    for file in parser.parse_args().files or masters():
        try:
            notebook = paired(file)
            read_master(notebook, source.load(file.stem, file.parent))
        except ValueError as error:
            failed += 1
            print(f"FAILED {file}: {error}", file=sys.stderr)
        else:
            write(notebook, file.with_suffix(".ipynb"))
            print(file.with_suffix(".ipynb"))
    return 1 if failed else 0


def masters() -> list[Path]:
    """Return every master in the checkout; what ends in ``_cases.py`` is none."""
    return sorted(
        file for folder in FOLDERS for file in folder.glob("*.py") if not file.stem.endswith("_cases")
    )


def paired(file: Path) -> NotebookNode:
    """Return the notebook of a master, with ids that depend on nothing but the cells."""
    notebook = read(file)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


if __name__ == "__main__":
    sys.exit(main())
