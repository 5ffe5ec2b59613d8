"""What an instructor needs to answer "is my number right?": a student's values and what is expected."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from qviz.labs.judge import run
from qviz.labs.model import Function, Lab, State, Variant, Written

HEAD = ("student", "lab", "question", "what", "expected")
_MOST = 8


@dataclass(frozen=True)
class Entry:
    """One line of a key.

    Args:
        student: The student's id.
        lab: The lab's name.
        question: The question; empty for what concerns the whole lab.
        what: What the value is.
        expected: The value, numbers to 6 digits.
    """

    student: str
    lab: str
    question: str
    what: str
    expected: str


def of(lab: Lab, variant: Variant) -> list[Entry]:
    """Return the key of a student: parameters, data, the first hidden case of each group, rubrics."""
    return [Entry(variant.student, lab.name, *line) for line in _lines(lab, variant)]


def as_csv(entries: Iterable[Entry]) -> str:
    """Return a key as CSV; a text that a spreadsheet would take for a formula gets a quote before it."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(HEAD)
    for entry in entries:
        writer.writerow([_harmless(field) for field in astuple(entry)])
    return file.getvalue()


def _lines(lab: Lab, variant: Variant) -> Iterator[tuple[str, str, str]]:
    for name, value in variant.params.items():
        yield "", name, _shown(value)
    yield "", "SEED", str(variant.data_seed)
    for name, array in lab.data(variant).items():
        yield "", f"{name}, first of {array.size}", _shown(array)
    for question in lab.questions:
        if isinstance(question, State):
            yield question.name, "a right state", json.dumps(question.answer(variant), sort_keys=True)
        elif isinstance(question, Written):
            yield question.name, "the rubric", " ".join(question.rubric.split())
            yield question.name, "a right answer", " ".join(question.answer.split())
        elif isinstance(question, Function):
            yield from _calls(question, variant)


def _calls(question: Function, variant: Variant) -> Iterator[tuple[str, str, str]]:
    seen = set()
    for case in question.cases(variant):
        if case.group in seen:
            continue
        seen.add(case.group)
        right = run(question.reference, case, question.arrays)
        call = f"{question.name}({', '.join(map(_shown, case.args))})"
        yield question.name, f"{case.group}: {call}".removeprefix(": "), _shown(right.value)
        for place, gradient in zip(case.wrt, right.gradients or (), strict=False):
            yield question.name, f"gradient of argument {place + 1}, {case.group}", _shown(gradient)


def _shown(value: Any) -> str:
    """A value in short: numbers to 6 digits, the first few of an array."""
    if isinstance(value, np.ndarray) and value.ndim:
        first = " ".join(_shown(number) for number in value.ravel()[:_MOST])
        return f"[{first}{' …' if value.size > _MOST else ''}]"
    if isinstance(value, (bool, np.bool_, str)) or value is None:
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "(" + ", ".join(map(_shown, value)) + ")"
    if hasattr(value, "detach"):
        return _shown(value.detach().numpy())
    return f"{float(value):.6g}"


def _harmless(text: str) -> str:
    try:
        float(text)
    except ValueError:
        return f"'{text}" if text[:1] in tuple("=+-@\t\r") else text
    return text
