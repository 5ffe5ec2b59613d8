"""Which cell of a student's notebook answers which question, whatever editors have done to it.

A cell is found by its nbgrader id, by ``metadata.qviz``, by its id, by ``metadata.id`` (Colab),
and at last by the function that it defines or the text that it assigns; an answer in words also by the
release's cells around it. Nothing is executed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from qviz.labs import cells as read_cells
from qviz.labs.cells import Cell, is_blank
from qviz.labs.manifest import Manifest
from qviz.labs.model import Function, Handed, Lab, Written

Kind = Literal["function", "state", "written"]


@dataclass(frozen=True)
class Matched:
    """A student's notebook, understood.

    Args:
        answers: The text that answers each question; a question without any cell is absent.
        blank: Questions whose answer is as it was handed out.
        places: The cell of each answer, by its index in ``cells``.
        code: The code to run, in order, each with its question (None for other cells). Tests of the lab are
            left out, and blank copies of what is answered elsewhere.
        damage: What is wrong with the notebook and what to do, a sentence each.
        cells: All cells.
    """

    answers: Mapping[str, str]
    blank: frozenset[str]
    places: Mapping[str, int]
    code: tuple[tuple[str | None, str], ...]
    damage: tuple[str, ...]
    cells: tuple[Cell, ...]


def match(notebook: Mapping[str, Any], lab: Lab, fresh: Manifest | None = None) -> Matched:
    """Find the answers to a lab's questions in a notebook.

    Args:
        notebook: The notebook as JSON; nothing in it is trusted.
        lab: The lab.
        fresh: The manifest of the release that the student got; with it, what was locked is looked after too.

    Raises:
        ValueError: It is no notebook at all.
    """
    return match_kinds(notebook, kinds_of(lab), fresh)


def kinds_of(lab: Lab) -> dict[str, Kind]:
    """Return how each question that the notebook answers is answered."""
    return {
        q.name: "written" if isinstance(q, Written) else "function" if isinstance(q, Function) else "state"
        for q in lab.questions
        if not isinstance(q, Handed)
    }


def kinds_said(fresh: Manifest) -> dict[str, Kind]:
    """Return how each question is answered, from a manifest alone."""
    return {
        str(cell.question): "written" if cell.markdown else "function" if cell.functions else "state"
        for cell in fresh.cells
        if cell.kind == "answer"
    }


def match_kinds(
    notebook: Mapping[str, Any], kinds: Mapping[str, Kind], fresh: Manifest | None = None
) -> Matched:
    """Find the answers to questions of some kinds; as :func:`match`."""
    cells = read_cells.read(notebook, fresh)
    answers, places, blank, damage, dropped = {}, {}, set(), [], set()
    for name, kind in kinds.items():
        found = _candidates(cells, name, kind, fresh)
        if not found:
            damage.append(f"the answer cell `{name}` is missing: put it back, or have it repaired")
            continue
        empty = {i for i in found if is_blank(cells[i].text, name)}
        place = _best(cells, found, empty, name)
        answers[name], places[name] = cells[place].text, place
        if place in empty:
            blank.add(name)
        dropped |= empty - {place}
        damage += _damage(cells, found, place, name, kind)
    damage += _damage_of_locked(cells, fresh)
    return Matched(
        answers, frozenset(blank), places, _code(cells, kinds, places, dropped, fresh), tuple(damage), cells
    )


def _candidates(cells: Sequence[Cell], name: str, kind: Kind, fresh: Manifest | None) -> list[int]:
    """The cells that may answer a question, in order."""
    found = [
        i
        for i, cell in enumerate(cells)
        if cell.locked is None
        and not cell.tests
        and (name in cell.names or (kind != "written" and name in cell.defines))
    ]
    return found or (_between(cells, name, fresh) if kind == "written" else [])


def _between(cells: Sequence[Cell], name: str, fresh: Manifest | None) -> list[int]:
    """The text cells between the locked cells that stood around an answer in words."""
    if fresh is None:
        return []
    ids = [cell.id for cell in fresh.cells]
    at = next((i for i, cell in enumerate(fresh.cells) if cell.question == name), len(ids))
    before, after = set(ids[:at]), set(ids[at + 1 :])
    start = max((i for i, cell in enumerate(cells) if cell.locked in before), default=None)
    if start is None or at == 0 or cells[start].locked != ids[at - 1]:
        return []
    stop = next((i for i in range(start, len(cells)) if cells[i].locked in after), len(cells))
    return [i for i in range(start + 1, stop) if cells[i].kind == "markdown"][:1]


def _best(cells: Sequence[Cell], found: Sequence[int], empty: set[int], name: str) -> int:
    """The cell that is graded: the last that is filled in and makes the name, as running them all does."""
    full = [i for i in found if i not in empty]
    making = [i for i in full if name in cells[i].defines]
    return (making or full or list(found))[-1]


def _damage(cells: Sequence[Cell], found: Sequence[int], place: int, name: str, kind: Kind) -> list[str]:
    said = []
    marked = [i for i in found if name in cells[i].names]
    if len(marked) > 1:
        times = "twice" if len(marked) == 2 else f"{len(marked)} times"
        said.append(f"the answer cell `{name}` is there {times}: keep one (number {place + 1} counts)")
    elif marked and place not in marked:
        said.append(f"`{name}` is defined outside its answer cell, in cell {place + 1}: move it there")
    elif not marked:
        said.append(f"the answer cell `{name}` has lost its metadata; it was found by what is in it")
    wanted = "markdown" if kind == "written" else "code"
    if cells[place].kind != wanted:
        said.append(f"the answer cell `{name}` became {cells[place].kind}: turn it back into {wanted}")
    if kind != "written" and name not in cells[place].defines:
        what = "define the function" if kind == "function" else "assign the text"
        said.append(f"the answer cell `{name}` does not {what} {name}")
    return said


def _damage_of_locked(cells: Sequence[Cell], fresh: Manifest | None) -> list[str]:
    there = {cell.locked for cell in cells}
    lost = [cell for cell in fresh.cells if cell.kind != "answer" and cell.id not in there] if fresh else []
    what = {"tests": "tests of `{}`", "given": "given values", "code": "code", "text": "text"}
    return [
        f"a locked cell ({what[cell.kind].format(cell.question)}) was changed or deleted"
        for cell in lost
        if cell.kind in what and cell.kind != "text"
    ]


def _code(
    cells: Sequence[Cell],
    kinds: Mapping[str, Kind],
    places: Mapping[str, int],
    dropped: set[int],
    fresh: Manifest | None,
) -> tuple[tuple[str | None, str], ...]:
    tests = {cell.id for cell in fresh.cells if cell.kind == "tests"} if fresh else set()
    by_place = {place: name for name, place in places.items() if kinds[name] != "written"}
    return tuple(
        (by_place.get(i), cell.text)
        for i, cell in enumerate(cells)
        if (i in by_place or cell.kind == "code")
        and i not in dropped
        and not cell.tests
        and (cell.locked is None or cell.locked not in tests)
    )
