"""Execute the lessons in notebooks/ and write the .ipynb beside each, the same bytes for the same results.

    python -m tests.tools.execute_notebooks [FILE.py ...]

Outputs are kept, except live widget views: without their kernel these are an error message in every viewer,
and the picture and text beside them in the output are what is shown. Text on stderr is refused.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[2]
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def main() -> int:
    """Execute the notebooks named on the command line, or all; return 1 if one fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.execute_notebooks")
    parser.add_argument("files", nargs="*", type=Path, help="percent scripts (default: all in notebooks/)")
    files = parser.parse_args().files or lessons()
    failed = 0
    for file in files:
        start = time.monotonic()
        try:
            write(execute(read(file), file.parent), file.with_suffix(".ipynb"))
        except (CellExecutionError, ValueError) as error:
            failed += 1
            print(f"FAILED {file}: {error}", file=sys.stderr)
        else:
            print(f"{file}: {time.monotonic() - start:.1f} s")
    return 1 if failed else 0


def lessons() -> list[Path]:
    """Return every script of a notebook that is shipped with its outputs; the masters of labs are not."""
    folder = ROOT / "notebooks"
    return [file for file in sorted(folder.rglob("*.py")) if "labs" not in file.relative_to(folder).parts]


def read(file: Path) -> NotebookNode:
    """Return the notebook in a percent script, with cell ids that depend on nothing but the cells."""
    notebook = jupytext.read(file, fmt="py:percent")
    for number, cell in enumerate(notebook.cells):
        cell.metadata.pop("lines_to_next_cell", None)
        cell.id = hashlib.sha256(f"{number}\n{cell.source}".encode()).hexdigest()[:8]
    # Without jupytext's pairing: it would have Lab refuse to open a notebook newer than its script.
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    return notebook


def execute(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """Run every cell in ``folder`` and return the notebook with clean outputs.

    Raises:
        CellExecutionError: a cell failed.
        ValueError: a cell wrote to stderr.
    """
    metadata = nbformat.from_dict(notebook.metadata)
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    notebook.metadata = metadata
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [kept for output in cell.outputs if (kept := clean(output))]
    return notebook


def clean(output: NotebookNode) -> NotebookNode | None:
    """Return the output without its live widget view, or None if there is no picture besides.

    Raises:
        ValueError: It is text on stderr.
    """
    if output.output_type == "stream" and output.name == "stderr":
        raise ValueError(f"a cell wrote to stderr: {output.text.strip()}")
    if WIDGET_VIEW in output.get("data", {}):
        del output.data[WIDGET_VIEW]
        output.metadata.pop(WIDGET_VIEW, None)
        if "image/png" not in output.data:
            return None
    return output


def write(notebook: NotebookNode, file: Path) -> None:
    """Write a valid notebook, with a final line break as git likes it.

    Raises:
        ValidationError: the notebook is not valid (a ValueError).
    """
    nbformat.validate(notebook)
    file.write_text(nbformat.writes(notebook).rstrip("\n") + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
