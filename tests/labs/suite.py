"""What the tests of every lab share: its cases, its master's cells, and verdicts over many students."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path
from types import ModuleType

import jupytext
import pytest

from qviz.labs.judge import judge, run
from qviz.labs.model import Function, Lab, State
from qviz.labs.variants import variant

SOURCE = Path(__file__).resolve().parents[2] / "notebooks/labs/source"
SECRET = b"the secret of a course"
FEW = range(5)
MANY = pytest.param(range(100), marks=pytest.mark.slow, id="100 students")
STUDENTS = [pytest.param(FEW, id="5 students"), MANY]
SOLUTION = re.compile(r"( *)### BEGIN SOLUTION\n.*?### END SOLUTION", re.DOTALL)


@cache
def cases_of(name: str) -> ModuleType:
    """The module of a lab's cases."""
    path = SOURCE / f"{name.replace('-', '_')}_cases.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lab_of(name: str) -> Lab:
    return cases_of(name).LAB


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
def cells(name: str) -> tuple[tuple[str, dict, str], ...]:
    """The code cells of a master: what kind, its qviz metadata, source."""
    notebook = jupytext.read(SOURCE / f"{name}.py", fmt="py:percent")
    return tuple((c.cell_type, c.metadata.get("qviz", {}), c.source) for c in notebook.cells)


def blank(source: str, name: str) -> str:
    """An answer cell as a release has it."""
    if f"def {name}" not in source:
        return f'{name} = ""'
    return SOLUTION.sub(lambda found: f'{found[1]}raise NotImplementedError("{name}")', source)


def as_handed_out(name: str, solved: bool, **values: object) -> dict:
    """What the given cells and the answers of a master define, with a variant's values."""
    space: dict = {}
    for kind, role, source in cells(name):
        if kind != "code" or not {"given", "answer"} & set(role):
            continue
        if "given" in role:
            for key, value in values.items():
                source, count = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value!r}", source)
                assert count == 1, f"the given cell assigns {key} in one line at top level"
        elif not solved:
            source = blank(source, role["answer"])
        exec(compile(source, f"{name}: {role}", "exec"), space)
    return space


def public_tests(name: str, question: str, space: dict) -> None:
    """Run the public tests of a question with what a student has defined."""
    found = [source for _, role, source in cells(name) if role.get("tests") == question]
    assert len(found) == 1, question
    exec(compile(found[0], f"{name}: tests of {question}", "exec"), dict(space))


def complete(name: str, minutes: int = 90) -> None:
    """A lab has all that a lab needs, and its master asks for exactly its questions, in their order."""
    lab = lab_of(name)
    asked = [role["answer"] for _, role, _ in cells(name) if "answer" in role]
    assert asked == [q.name for q in lab.questions]
    assert 4 <= len(asked) <= 7
    assert lab.name == name
    assert lab.minutes <= minutes
    assert len(lab.variants) >= 8
    assert len(mistakes(name)) >= 12
    text = "\n".join(source for kind, _, source in cells(name) if kind == "markdown")
    assert len(re.findall(r"(?m)^# ", text)) == 1
    for question in lab.questions:
        assert "{{points:" + question.name + "}}" in text
    as_handed_out(name, True, **{"SEED": 1, **lab.variants[-1]})


def state_is_right(name: str, question: str, student: object) -> None:
    """The model answer of an explorer question passes its own check."""
    lab = lab_of(name)
    asked, mine = lab.question(question), variant(lab, SECRET, str(student))
    assert isinstance(asked, State)
    assert all(asked.check(mine, asked.answer(mine)).values()), mine.params
