"""A student's notebook from a master: blank answers, the student's values, always the same bytes."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qviz.labs import manifest
from qviz.labs.master import Kind, Part, assigned, with_values
from qviz.labs.model import Lab, Variant
from qviz.labs.roster import safe
from qviz.labs.variants import COMMON

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
_POINTS = re.compile(r"\{\{points:(\w+)\}\}( points?\b)?")


def release(lab: Lab, parts: Sequence[Part], variant: Variant) -> dict[str, Any]:
    """Return the notebook that a student gets.

    Args:
        lab: The lab.
        parts: Its master.
        variant: The student's variant.

    Raises:
        ValueError: The master does not assign a parameter, or names points of no question.
    """
    return from_manifest(manifest.of(lab, variant, texts(lab, parts, variant)))


def from_manifest(said: manifest.Manifest) -> dict[str, Any]:
    """Return the notebook that a manifest describes, which is the release with blank answers."""
    cells = [cell(c.id, c.markdown, c.text, metadata(c.kind, c.question)) for c in said.cells]
    return notebook(cells, {"qviz": said.as_json()})


def texts(lab: Lab, parts: Sequence[Part], variant: Variant) -> list[tuple[Part, str]]:
    """Return each cell of a release with its text, the student's values put in, answers blank."""
    values = {**variant.params, "SEED": variant.data_seed}
    given = {name for part in parts if part.kind == "given" for name in assigned(part.source)}
    if absent := sorted(set(variant.params) - given):
        raise ValueError(f"no given cell of {lab.name!r} assigns {', '.join(absent)}")
    shown = []
    for number, part in enumerate(parts):
        text = with_values(part.blank, values) if part.kind == "given" else part.blank
        if part.markdown and part.kind == "text":
            text = _with_points(lab, text)
        if number == 0 and part.markdown:
            text = f"{text}\n\n{_colophon(lab, variant)}"
        shown.append((part, text))
    return shown


def cell(id: str, markdown: bool, text: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return a notebook's cell without outputs."""
    made = {"cell_type": "markdown" if markdown else "code", "id": id, "metadata": dict(metadata)}
    if not markdown:
        made |= {"execution_count": None, "outputs": []}
    return {**made, "source": text.splitlines(keepends=True)}


def metadata(kind: Kind, question: str | None) -> dict[str, Any]:
    """Return a cell's metadata: what it is for, and locked unless it is an answer."""
    mark = {"given": True} if kind == "given" else {kind: question}
    marks = {"qviz": mark} if kind in ("given", "tests", "answer") else {}
    return {"deletable": False, **({} if kind == "answer" else {"editable": False}), **marks}


def notebook(cells: Sequence[Mapping[str, Any]], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return a notebook of cells."""
    about = {"kernelspec": KERNEL, "language_info": {"name": "python"}, **metadata}
    return {"cells": list(cells), "metadata": about, "nbformat": 4, "nbformat_minor": 5}


def as_bytes(content: Mapping[str, Any]) -> bytes:
    """Return a notebook as a file has it: the same bytes for the same notebook, on every machine."""
    return (json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()


def place(folder: Path, lab: Lab, student: str, one_each: bool = False) -> Path:
    """Return where a student's notebook is written.

    Args:
        folder: The folder of all.
        lab: The lab.
        student: The student's id; "common" is not in the name.
        one_each: Whether every student has a folder.
    """
    name = lab.name if student == COMMON else f"{lab.name}-{safe(student)}"
    return (folder / safe(student) if one_each else folder) / f"{name}.ipynb"


def points_text(points: float) -> str:
    """Return points with their noun.

    Example:
        >>> points_text(1), points_text(2.5)
        ('1 point', '2.5 points')
    """
    return f"{points:g} point{'' if points == 1 else 's'}"


def _with_points(lab: Lab, text: str) -> str:
    def shown(match: re.Match[str]) -> str:
        return points_text(lab.question(match[1]).points)

    return _POINTS.sub(shown, text)


def _colophon(lab: Lab, variant: Variant) -> str:
    """The line that says whose notebook it is, for when the metadata are lost."""
    who = "for everybody" if variant.student == COMMON else f"for {html.escape(variant.student)}"
    return f"<small>{lab.name}, version {lab.version}, {who}, {variant.mac[:12]}</small>"
