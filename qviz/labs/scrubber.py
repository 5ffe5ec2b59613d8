"""A preprocessor for nbgrader's feedback: hidden cells keep their hint and lose everything else."""

from __future__ import annotations

from typing import Any

from nbconvert.preprocessors import Preprocessor
from traitlets import Bool

from qviz.labs.hidden import HINT
from qviz.labs.nbgrader import is_hidden


class ScrubHidden(Preprocessor):
    """Takes tracebacks and printed text out of the cells that grade by hidden cases."""

    enabled = Bool(True, help="nbconvert's own are off until a configuration turns them on").tag(config=True)

    def preprocess_cell(self, cell: Any, resources: Any, index: int) -> tuple[Any, Any]:
        """Return the cell with harmless outputs."""
        if cell.get("cell_type") == "code" and is_hidden(cell):
            cell["outputs"] = [kept for output in cell["outputs"] if (kept := _scrubbed(output))]
        return cell, resources


def _scrubbed(output: Any) -> Any | None:
    """An output without what a hidden case might have shown."""
    if output["output_type"] == "error":
        own = output["ename"] == "AssertionError"
        text = f"{HINT}{output['evalue']}" if own and output["evalue"] else "This cell ended with an error."
        output.update(evalue=output["evalue"] if own else "", traceback=[text])
        return output
    if output["output_type"] == "stream" and output["name"] == "stdout":
        lines = [line for line in output["text"].splitlines() if line.startswith(HINT)]
        output["text"] = "\n".join(lines)
        return output if lines else None
    return None
