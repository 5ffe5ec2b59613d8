"""A class of students who are right, wrong, broken and hostile, with what each of them should earn."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from qviz.labs import build, master, source
from qviz.labs.model import Function, Lab, Written
from qviz.labs.variants import variant
from tests.labs import attacks

SECRET = b"the secret of a course"


@dataclass(frozen=True)
class Student:
    """What a student hands in: ``least`` to ``most`` points, and a word that the notes have."""

    name: str
    least: float
    most: float
    note: str = ""


def class_of(count: int, lab: Lab, folder: Path, hidden: Path) -> list[Student]:
    """Write the submissions of a class: of 20, 13 are right, 4 wrong, 1 broken and 2 hostile."""
    parts = master.read(source.notebook(lab.name), lab)
    automatic = lab.points - sum(q.points for q in lab.questions if isinstance(q, Written))
    question = [q for q in lab.questions if isinstance(q, Function)][-1]  # no later answer uses it
    folder.mkdir()
    students = []
    for number in range(count):
        name, round_, kind = f"s{number:03}", number // 20, number % 20
        notebook = solved(lab, parts, name)
        student = Student(name, automatic, automatic)
        text = None
        if 13 <= kind < 17:
            answer(notebook, question.name, f"def {question.name}(*args, **kwargs):\n    return 0\n")
            student = Student(name, automatic - question.points, automatic - question.points)
        elif kind == 17:
            text, student = broken(notebook, name, round_)
        elif kind == 18:
            student = hostile_cell(notebook, name, round_, automatic, hidden)
        elif kind == 19:
            student = hostile_answer(notebook, name, round_, automatic, question, hidden)
        (folder / f"{name}.ipynb").write_text(json.dumps(notebook) if text is None else text)
        students.append(student)
    return students


def solved(lab: Lab, parts: tuple[master.Part, ...], name: str) -> dict:
    """A release with the master's solutions."""
    mine = variant(lab, SECRET, name)
    notebook = build.release(lab, parts, mine)
    states = {q.name: q.answer(mine) for q in lab.questions if hasattr(q, "check")}
    for part in parts:
        if part.kind == "answer":
            text = part.solved
            if part.question in states:
                text = f"{part.question} = {json.dumps(json.dumps(states[part.question]))}"
            answer(notebook, part.id, text)
    return notebook


def answer(notebook: dict, name: str, text: str) -> None:
    next(cell for cell in notebook["cells"] if cell["id"] == name)["source"] = text


def broken(notebook: dict, name: str, round_: int) -> tuple[str, Student]:
    texts = [
        json.dumps(notebook)[:-200],
        "",
        "[" * 100_000,
        json.dumps({"cells": []}),
        json.dumps(notebook).replace('"cells"', '"worksheets"'),
    ]
    return texts[round_ % len(texts)], Student(name, 0, 0, "missing" if round_ % 5 == 3 else "notebook")


def source_of(text: str, hidden: Path) -> str:
    return text.format(
        hidden=str(hidden),
        temporary=tempfile.gettempdir(),
        grader=os.getpid(),
        package=str(Path(__file__).parents[2]),
    )


def hostile_cell(notebook: dict, name: str, round_: int, automatic: float, hidden: Path) -> Student:
    """An attack in a cell of its own, before the answers: they count, the attack does not."""
    errors = {key: text for key, (text, _) in attacks.ERRORS.items()}
    kind = [attacks.LOOPS, attacks.GAINS, attacks.DEATHS, errors][round_ % 4]
    text = list(kind.values())[round_ % len(kind)]
    cell = {"cell_type": "code", "id": "attack", "metadata": {}, "source": source_of(text, hidden)}
    notebook["cells"].insert(1, cell)
    return Student(
        name, automatic, automatic, "ended with" if kind in (attacks.LOOPS, attacks.DEATHS) else ""
    )


def hostile_answer(
    notebook: dict, name: str, round_: int, automatic: float, question: Function, hidden: Path
) -> Student:
    """An attack in place of an answer: it earns nothing, all others count."""
    kind = [attacks.DEATHS, attacks.LIES, attacks.GAINS, attacks.LOOPS][round_ % 4]
    lines = source_of(list(kind.values())[round_ % len(kind)], hidden).replace("\n", "\n    ")
    answer(notebook, question.name, f"def {question.name}(*args):\n    {lines}\n    return args[0]\n")
    return Student(name, automatic - question.points, automatic)
