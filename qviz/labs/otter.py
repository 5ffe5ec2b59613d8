"""A lab as the notebook that ``otter assign`` reads: raw cells around each question.

A convenience for courses that have otter; as with nbgrader, students' code runs beside the hidden tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qviz.labs import build
from qviz.labs.master import BEGIN, END, Part
from qviz.labs.model import Lab, State, Variant, Written

_CONFIG = """# ASSIGNMENT CONFIG
name: {name}
init_cell: true
export_cell: true
check_all_cell: false
tests:
    files: false"""


def notebook(lab: Lab, parts: Sequence[Part], variant: Variant) -> dict[str, Any]:
    """Return the instructor's notebook, with solutions and hidden tests; it is never handed out."""
    cells = [_raw("config", _CONFIG.format(name=lab.name))]
    for part, text in build.texts(lab, parts, variant):
        if part.kind == "answer":
            cells += _question(lab, part, [p for p in parts if p.question == part.question])
        elif part.kind != "tests":
            cells.append(build.cell(part.id, part.markdown, text, {}))
    return build.notebook(cells, {})


def _question(lab: Lab, answer: Part, parts: Sequence[Part]) -> list[dict[str, Any]]:
    name = str(answer.question)
    question = lab.question(name)
    by_hand = isinstance(question, Written)
    head = f"# BEGIN QUESTION\nname: {name}\npoints: {question.points:g}\nmanual: {str(by_hand).lower()}"
    text = (
        question.answer if isinstance(question, Written) else _solution(answer, isinstance(question, State))
    )
    cells = [
        _raw(f"{name}-begin", head),
        _raw(f"{name}-solution", "# BEGIN SOLUTION"),
        build.cell(name, answer.markdown, text, {"qviz": {"answer": name}}),
        _raw(f"{name}-solved", "# END SOLUTION"),
    ]
    if not by_hand:
        call = f"earned = score({lab.name!r}, {name!r}, globals(), whole=True)"
        call = f"from qviz.labs.hidden import score\n{call}"
        cells += [
            _raw(f"{name}-begin-tests", "# BEGIN TESTS"),
            *(
                build.cell(part.id, False, _case(part.source, 0), {})
                for part in parts
                if part.kind == "tests"
            ),
            build.cell(f"{name}-hidden", False, _case(call, question.points, hidden=True), {}),
            _raw(f"{name}-end-tests", "# END TESTS"),
        ]
    return [*cells, _raw(f"{name}-end", "# END QUESTION")]


def _solution(answer: Part, state: bool) -> str:
    """The answer with otter's marks; a state starts as an empty text."""
    begin = f"{answer.question} = ''\n# BEGIN SOLUTION NO PROMPT" if state else "# BEGIN SOLUTION"
    lines = []
    for line in answer.source.splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        marks = {BEGIN: begin, END: "# END SOLUTION"}
        lines.append(f"{indent}{marks[line.strip()]}" if line.strip() in marks else line)
    return "\n".join(lines)


def _case(text: str, points: float, hidden: bool = False) -> str:
    config = f'""" # BEGIN TEST CONFIG\npoints: {points:g}\nhidden: {str(hidden).lower()}\n"""'
    return f"{config} # END TEST CONFIG\n{text}"


def _raw(id: str, text: str) -> dict[str, Any]:
    return {"cell_type": "raw", "id": id, "metadata": {}, "source": text.splitlines(keepends=True)}
