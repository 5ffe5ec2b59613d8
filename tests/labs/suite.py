"""What the tests of every lab share: its cases, its master's cells, and verdicts over many students."""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from qviz.labs.judge import judge, run
from qviz.labs.master import Part, assigned, read, with_values
from qviz.labs.model import Function, Handed, Lab
from qviz.labs.source import load
from qviz.labs.variants import variant
from tests.tools.pair_labs import paired

SOURCE = Path(__file__).resolve().parents[2] / "notebooks/labs/source"
SECRET = b"the secret of a course"
FEW = range(5)
MANY = pytest.param(range(100), marks=pytest.mark.slow, id="100 students")
STUDENTS = [pytest.param(FEW, id="5 students"), MANY]


@cache
def lab_of(name: str) -> Lab:
    return load(name, SOURCE)


def cases_of(name: str) -> ModuleType:
    """The module of a lab's cases, with its references."""
    return sys.modules[lab_of(name).questions[0].cases.__module__]


def functions(name: str) -> list[str]:
    return [q.name for q in lab_of(name).questions if isinstance(q, Function)]


def mistakes(name: str) -> list[tuple[str, str]]:
    """All mistakes of a lab: question and name."""
    return [(q, mistake) for q in functions(name) for mistake in lab_of(name).question(q).mistakes]


def verdict(name: str, question: str, student: object, function, arrays="numpy", backward=None):
    """What a function earns with one student's hidden cases."""
    asked = lab_of(name).question(question)
    cases = asked.cases(variant(lab_of(name), SECRET, str(student)))
    return judge(asked, cases, lambda case: run(function, case, arrays, backward))


def hinted_with_its_own(name: str, question: str, mistake: str, students) -> None:
    """The mistake loses points and is named, whoever makes it."""
    asked = lab_of(name).question(question)
    for student in students:
        found = verdict(name, question, student, asked.mistakes[mistake].answer, asked.arrays)
        assert (found.mistake, found.text) == (mistake, asked.mistakes[mistake].hint), student
        assert found.points < found.of


def earns_all(name: str, question: str, students, *answer) -> None:
    """A right answer earns every point, whoever gives it."""
    for student in students:
        found = verdict(name, question, student, *answer)
        assert found.points == found.of, (student, found)


@cache
def parts(name: str) -> tuple[Part, ...]:
    """The cells of a master."""
    return read(paired(SOURCE / f"{name}.py"), lab_of(name))


def as_handed_out(name: str, solved: bool, **values: object) -> dict:
    """What the given cells and the answers of a master define, with a variant's values."""
    space: dict = {}
    for part in parts(name):
        if part.kind == "given":
            assert set(values) - {"ARRAYS"} <= assigned(part.source)
            exec(compile(with_values(part.source, values), f"{name}: given", "exec"), space)
        elif part.kind == "answer" and not part.markdown:
            exec(compile(part.solved if solved else part.blank, f"{name}: {part.id}", "exec"), space)
    return space


def public_tests(name: str, question: str, space: dict) -> None:
    """Run the public tests of a question with what a student has defined."""
    (found,) = [part.source for part in parts(name) if (part.kind, part.question) == ("tests", question)]
    exec(compile(found, f"{name}: tests of {question}", "exec"), dict(space))


def complete(name: str) -> None:
    """A lab has all that a lab needs, and its master asks for exactly its questions, in their order."""
    lab = lab_of(name)
    asked = [part.question for part in parts(name) if part.kind == "answer"]
    assert asked == [q.name for q in lab.questions if not isinstance(q, Handed)]
    assert 4 <= len(lab.questions) <= 7
    assert lab.minutes <= 90
    assert len(lab.variants) >= 8
    assert len(mistakes(name)) >= 12
    text = "\n".join(part.source for part in parts(name) if part.markdown)
    assert len(re.findall(r"(?m)^# ", text)) == 1
    for question in lab.questions:
        assert "{{points:" + question.name + "}}" in text
    as_handed_out(name, True, **{"SEED": 1, **lab.variants[-1]})
