"""What a release says about itself in ``metadata.qviz``: which lab, whose, and what each cell was."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from qviz.labs.master import Kind, Part, functions
from qviz.labs.model import Function, Lab, Variant


@dataclass(frozen=True)
class Cell:
    """What a release's cell was when it was built.

    Args:
        id: Its id.
        kind: What it is for.
        markdown: Whether it is text rather than code.
        question: The question that it answers or tests.
        points: What a right answer earns; 0 for what is no answer.
        sha256: Of its text; of an answer, of its blank.
        functions: Names of the functions that an answer has to define.
        text: Its text, from which a damaged notebook is repaired.
    """

    id: str
    kind: Kind
    markdown: bool
    question: str | None
    points: float
    sha256: str
    functions: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Manifest:
    """What a release is.

    Args:
        lab: The lab's name.
        version: The lab's version.
        student: Whose it is, or "common".
        data_seed: The seed of the data that it shows.
        mac: Proof that the instructor built it.
        cells: Its cells in order.
        data: SHA-256 of the arrays that its data are, by name.
    """

    lab: str
    version: int
    student: str
    data_seed: int
    mac: str
    cells: tuple[Cell, ...]
    data: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        """The manifest as JSON values."""
        return asdict(self)


def of(lab: Lab, variant: Variant, parts: Sequence[tuple[Part, str]]) -> Manifest:
    """Return the manifest of a release.

    Args:
        lab: The lab.
        variant: The student's variant.
        parts: The cells, each with the text that it has in the release.
    """
    return Manifest(
        lab=lab.name,
        version=lab.version,
        student=variant.student,
        data_seed=variant.data_seed,
        mac=variant.mac,
        cells=tuple(_cell(lab, part, text) for part, text in parts),
        data={name: array_sha256(array) for name, array in lab.data(variant).items()},
    )


def read(notebook: Mapping[str, Any]) -> Manifest | None:
    """Return what a notebook says of itself; None if it says nothing, or nothing that a release says.

    A student can write anything there: none of it is trusted in grading.
    """
    metadata = notebook.get("metadata")
    said = metadata.get("qviz") if isinstance(metadata, Mapping) else None
    try:
        cells = tuple(Cell(**{**cell, "functions": tuple(cell["functions"])}) for cell in said["cells"])
        manifest = Manifest(**{**said, "cells": cells})
    except (TypeError, KeyError, AttributeError):
        return None
    texts = [manifest.lab, manifest.student, manifest.mac, *(cell.id for cell in cells)]
    texts += [cell.text for cell in cells] + [cell.kind for cell in cells]
    fine = all(isinstance(text, str) for text in texts) and isinstance(manifest.version, int)
    return manifest if fine and isinstance(manifest.data, Mapping) else None


def text_sha256(text: str) -> str:
    """Return the SHA-256 of a cell's text; trailing white space and line endings do not count."""
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    return hashlib.sha256("\n".join(lines).strip("\n").encode("utf-8", "surrogatepass")).hexdigest()


def array_sha256(array: np.ndarray) -> str:
    """Return the SHA-256 of an array's type, shape and little-endian bytes."""
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    head = f"{array.dtype.str} {array.shape} ".encode()
    return hashlib.sha256(head + array.tobytes()).hexdigest()


def _cell(lab: Lab, part: Part, text: str) -> Cell:
    question = lab.question(part.question) if part.question is not None else None
    answers = part.kind == "answer" and question is not None
    return Cell(
        id=part.id,
        kind=part.kind,
        markdown=part.markdown,
        question=part.question,
        points=question.points if answers and question is not None else 0,
        sha256=text_sha256(text),
        functions=functions(text) if isinstance(question, Function) and answers else (),
        text=text,
    )
