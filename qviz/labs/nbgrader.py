"""A lab as nbgrader's source notebook, with the configuration that makes nbgrader usable.

A convenience for courses that have nbgrader; it runs students' code beside the hidden tests, so it is not
tamper-proof.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qviz.labs import build, manifest
from qviz.labs.master import Part
from qviz.labs.model import Function, Lab, Question, State, Variant, Written

BEGIN, END = "### BEGIN HIDDEN TESTS", "### END HIDDEN TESTS"
NOTE = "# Grading calls your answer here, with other numbers."
CONFIG = '''"""nbgrader for labs of qviz: keep this file beside source/ and release/.

Grading needs the course's secret in QVIZ_LABS_SECRET, the folder of masters in QVIZ_LABS_SOURCE, and the
folder of nbgrader's commands on PATH. Hand out release/ only: gradebook.db has every hidden test.
"""

c = get_config()
c.CourseDirectory.course_id = "qviz"
c.Execute.timeout = 180  # importing torch alone may take 10 s on a busy machine
c.Execute.iopub_timeout = 60
c.Execute.startup_timeout = 180
c.Execute.execute_retries = 1
c.OverwriteCells.add_missing_cells = True  # a deleted test is put back
c.GenerateFeedback.preprocessors = [  # else every student reads every hidden test
    "nbgrader.preprocessors.ClearHiddenTests",
    "nbgrader.preprocessors.GetGrades",
    "qviz.labs.scrubber.ScrubHidden",
    "nbconvert.preprocessors.CSSHTMLHeaderPreprocessor",
]
'''


def source_notebook(lab: Lab, parts: Sequence[Part], variant: Variant) -> dict[str, Any]:
    """Return the instructor's notebook, with solutions and hidden tests; it is never handed out."""
    return _notebook(lab, parts, variant, solved=True)


def student_notebook(lab: Lab, parts: Sequence[Part], variant: Variant) -> dict[str, Any]:
    """Return what nbgrader would release, into which damaged submissions are repaired."""
    return _notebook(lab, parts, variant, solved=False)


def _notebook(lab: Lab, parts: Sequence[Part], variant: Variant, solved: bool) -> dict[str, Any]:
    shown = build.texts(lab, parts, variant)
    cells: list[dict[str, Any]] = []
    last = {part.question: part.id for part in parts if part.question is not None}
    for part, text in shown:
        question = lab.question(part.question) if part.question is not None else None
        if part.kind == "answer" and solved:
            text = question.answer if isinstance(question, Written) else part.source
        cells.append(_cell(part, text, question))
        if question is not None and last[part.question] == part.id and not isinstance(question, Written):
            cells.append(_hidden(lab, question, solved))
    asked = {part.question for part in parts}
    handed = [q for q in lab.questions if q.name not in asked and not isinstance(q, Written)]
    cells += [_hidden(lab, question, solved) for question in handed]
    about = {} if solved else {"qviz": manifest.of(lab, variant, shown).as_json()}
    return build.notebook(cells, about)


def _cell(part: Part, text: str, question: Question | None) -> dict[str, Any]:
    by_hand = isinstance(question, Written) and part.kind == "answer"
    marks = _marks(part.id, grade=by_hand, solution=part.kind == "answer")
    if by_hand and question is not None:
        marks["points"] = question.points
    return build.cell(
        part.id, part.markdown, text, {**build.metadata(part.kind, part.question), "nbgrader": marks}
    )


def _hidden(lab: Lab, question: Question, solved: bool) -> dict[str, Any]:
    """The graded cell: a region of two lines that call one function, which nbgrader takes out."""
    call = f"from qviz.labs.hidden import score\nscore({lab.name!r}, {question.name!r}, globals())"
    text = f"{NOTE}\n{BEGIN}\n{call}\n{END}" if solved else NOTE
    marks = {**_marks(f"{question.name}-hidden", grade=True, solution=False), "points": question.points}
    return build.cell(
        f"{question.name}-hidden", False, text, {"deletable": False, "editable": False, "nbgrader": marks}
    )


def _marks(name: str, grade: bool, solution: bool) -> dict[str, Any]:
    return {
        "schema_version": 3,
        "grade_id": name,
        "grade": grade,
        "solution": solution,
        "locked": not solution,
        "task": False,
    }


def is_hidden(cell: Mapping[str, Any]) -> bool:
    """Whether a cell is one that grades by hidden cases."""
    marks = cell.get("metadata", {}).get("nbgrader", {})
    return bool(marks.get("grade")) and not marks.get("solution")


def points(lab: Lab) -> dict[str, float]:
    """Return the points of each graded cell by its id, as nbgrader's gradebook has them."""
    return {
        q.name if isinstance(q, Written) else f"{q.name}-hidden": q.points
        for q in lab.questions
        if isinstance(q, (Function, State, Written))
    }
