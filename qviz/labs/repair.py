"""A student's answers in a fresh release, when an editor or a slip has damaged the notebook."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from qviz.labs import build
from qviz.labs.cells import Cell
from qviz.labs.match import Matched


def repaired(fresh: Mapping[str, Any], found: Matched) -> dict[str, Any]:
    """Put the answers into a fresh release; cells of the student's own stay behind the cells they followed.

    Args:
        fresh: The release, in any format; its answer cells are marked in ``metadata.qviz``.
        found: The student's notebook, matched with this release's manifest.
    """
    made = copy.deepcopy(dict(fresh))
    ids = {cell["id"] for cell in made["cells"]}
    own = _own(found, ids)
    cells = own.pop("", [])
    for cell in made["cells"]:
        name = cell["metadata"].get("qviz", {}).get("answer")
        if name in found.answers and name not in found.blank:
            cell["source"] = found.answers[name].splitlines(keepends=True)
        cells += [cell, *own.pop(cell["id"], [])]
    made["cells"] = cells
    return made


def _own(found: Matched, ids: set[str]) -> dict[str, list[dict[str, Any]]]:
    """The student's own cells, by the id of the release's cell that they follow; "" is before the first."""
    places = {place: name for name, place in found.places.items()}
    own: dict[str, list[dict[str, Any]]] = {}
    before, number = "", 0
    for i, cell in enumerate(found.cells):
        here = places.get(i) or cell.locked or next((name for name in cell.names if name in ids), None)
        if here is not None or cell.tests or cell.kind not in ("code", "markdown"):
            before = here if here in ids else before
            continue
        if not cell.text.strip() or _copied(cell, found.cells, places):
            continue
        number += 1
        made = build.cell(f"own-{number}", cell.kind == "markdown", cell.text, {})
        own.setdefault(before, []).append(made)
    return own


def _copied(cell: Cell, cells: Sequence[Cell], places: Mapping[int, str]) -> bool:
    """Whether a cell says again what an answer says."""
    return any(cells[place].text == cell.text for place in places)
