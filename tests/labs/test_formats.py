"""The lab for nbgrader and otter: their formats, the one function they call; both from end to end."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest

from qviz.labs import build, handout, hidden, master, nbgrader, otter, secret
from qviz.labs.variants import variant
from tests.labs import test_match as notebooks
from tests.labs.test_build import run
from tests.labs.test_match import LAB, PARTS, cell_of

FIXTURES = Path(__file__).parent / "fixtures"
SECRET = b"sixteen bytes or more"
COMMON = variant(LAB, SECRET)
RIGHT = {part.question: part.solved for part in PARTS if part.kind == "answer"}
NO_SLOPE = "def quantize_backward(x, s, bits, cotangent):\n    return (0 * x,)\n"
WHERE = ("--source", FIXTURES)


@pytest.fixture
def course(monkeypatch):
    monkeypatch.setenv(hidden.SOURCE, str(FIXTURES))
    monkeypatch.setenv(secret.VARIABLE, SECRET.decode())


def answered(text, bits):
    notebook = build.release(LAB, PARTS, COMMON)
    state = f"best_step = '''{json.dumps({'bits': bits})}'''"
    for name, answer in {"quantize": text, "why": "Flat.", "best_step": state}.items():
        cell_of(notebook, name)["source"] = answer
    return notebook


def names(text, **more):
    made = {"np": np, **more}
    exec(text, made)
    return made


def test_the_hidden_cases_give_points_and_a_hint(course, capsys):
    assert hidden.score("lab0-steps", "quantize", names(RIGHT["quantize"])) == 3
    assert capsys.readouterr().out == ""
    assert hidden.score("lab0-steps", "quantize", names(RIGHT["quantize"] + NO_SLOPE)) == 1.5
    assert capsys.readouterr().out == "Hint: What is the slope of a staircase?\n"
    with pytest.raises(AssertionError, match="staircase"):
        hidden.score("lab0-steps", "quantize", names(RIGHT["quantize"] + NO_SLOPE), whole=True)
    bits = COMMON.params["BITS"]
    assert hidden.score("lab0-steps", "best_step", {"best_step": json.dumps({"bits": bits})}) == 1


@pytest.mark.parametrize(
    ("question", "made", "says"),
    [
        ("quantize", {}, "quantize is no function"),
        ("quantize", {"quantize": lambda x, s, bits: 1 / 0}, "ended with ZeroDivisionError"),
        ("best_step", {"best_step": "{"}, "Expecting"),
        ("best_step", {"best_step": "[" * 10_000}, "recursion"),
        ("best_step", {"best_step": '{"bits": 99}'}, "Not so: the bits are yours"),
    ],
)
def test_no_points_are_an_assertion_with_the_reason(course, question, made, says):
    with pytest.raises(AssertionError, match=says):
        hidden.score("lab0-steps", question, made)


def test_nbgraders_cells_have_what_its_schema_asks_for():
    made = nbgrader.source_notebook(LAB, PARTS, COMMON)
    marks = {cell["metadata"]["nbgrader"]["grade_id"]: cell["metadata"]["nbgrader"] for cell in made["cells"]}
    assert len(marks) == len(made["cells"])
    assert all(set(m) - {"points"} == set(marks["why"]) - {"points"} for m in marks.values())
    assert {name: m["points"] for name, m in marks.items() if m["grade"]} == nbgrader.points(LAB)
    assert [name for name, m in marks.items() if m["solution"]] == ["quantize", "why", "best_step"]
    assert "np.clip" in master.text_of(cell_of(made, "quantize"))
    lines = master.text_of(cell_of(made, "quantize-hidden")).splitlines()
    assert lines[1] == nbgrader.BEGIN
    assert lines[2:4] == [
        "from qviz.labs.hidden import score",
        "score('lab0-steps', 'quantize', globals())",
    ]
    student = json.dumps(nbgrader.student_notebook(LAB, PARTS, COMMON))
    assert "np.clip" not in student
    assert "labs.hidden" not in student


def test_feedback_keeps_the_hint_and_nothing_else():
    pytest.importorskip("nbconvert")
    from qviz.labs.scrubber import ScrubHidden

    made = cell_of(nbgrader.source_notebook(LAB, PARTS, COMMON), "quantize-hidden")
    made["outputs"] = [
        {"output_type": "error", "ename": "AssertionError", "evalue": "Look.", "traceback": ["x = 3.14"]},
        {"output_type": "error", "ename": "KeyError", "evalue": "3.14", "traceback": ["x = 3.14"]},
        {"output_type": "stream", "name": "stdout", "text": "3.14\nHint: Look.\n"},
        {"output_type": "stream", "name": "stderr", "text": "3.14"},
        {"output_type": "execute_result", "data": {"text/plain": "3.14"}},
    ]
    kept, _ = ScrubHidden()(nbformat.from_dict(build.notebook([made], {})), {})
    shown = json.dumps(kept.cells[0].outputs)
    assert "3.14" not in shown
    assert shown.count("Hint: Look.") == 2


def test_otters_questions_are_between_raw_cells():
    made = otter.notebook(LAB, PARTS, COMMON)
    raw = [master.text_of(cell).splitlines()[0] for cell in made["cells"] if cell["cell_type"] == "raw"]
    solution = ["# BEGIN QUESTION", "# BEGIN SOLUTION", "# END SOLUTION"]
    tests = ["# BEGIN TESTS", "# END TESTS"]
    question, by_hand = [*solution, *tests, "# END QUESTION"], [*solution, "# END QUESTION"]
    assert raw == ["# ASSIGNMENT CONFIG", *question, *by_hand, *question]
    assert "###" not in json.dumps(made)


def test_a_roster_is_for_releases(tmp_path):
    with pytest.raises(ValueError, match="one notebook for all"):
        handout.write_roster(LAB, ["Anna"], SECRET, tmp_path, "otter", FIXTURES)


def prepared(folder, capsys):
    """A course with four submissions, collected by the command."""
    code, out, _ = run(capsys, "labs", "build", "lab0-steps", "--format", "nbgrader", "--out", folder, *WHERE)
    assert (code, "instructor's notebook" in out) == (0, True)
    handed = folder.parent / "handed"
    handed.mkdir()
    bits = COMMON.params["BITS"]
    twice = answered(RIGHT["quantize"], bits)
    notebooks.twice(twice)
    for student, notebook in {
        "right": answered(RIGHT["quantize"], bits),
        "lab0-steps-wrong": answered(RIGHT["quantize"] + NO_SLOPE, bits + 1),
        "twice": twice,
    }.items():
        (handed / f"{student}.ipynb").write_bytes(build.as_bytes(notebook))
    (handed / "broken").mkdir()
    (handed / "broken" / "x.ipynb").write_text("{")
    code, out, _ = run(capsys, "labs", "collect", handed, "lab0-steps", "--nbgrader", folder, *WHERE)
    assert code == 1
    return out


def test_collect_repairs_before_it_hands_over(course, tmp_path, capsys):
    out = prepared(tmp_path / "course", capsys)
    assert "twice: the answer cell `quantize` is there twice" in out
    assert "broken: " in out
    assert "3 submissions in" in out
    for student in ("right", "wrong", "twice"):
        file = tmp_path / "course" / "submitted" / student / "lab0-steps" / "lab0-steps.ipynb"
        made = json.loads(file.read_text())
        marks = [cell["metadata"].get("nbgrader", {}).get("grade_id") for cell in made["cells"]]
        named = [mark for mark in marks if mark]
        assert len(named) == len(set(named)) == len(nbgrader.source_notebook(LAB, PARTS, COMMON)["cells"])
        assert master.text_of(cell_of(made, "quantize")).startswith("def quantize")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("nbgrader") is None, reason="nbgrader is not installed")
def test_nbgrader_from_source_to_feedback(course, tmp_path, capsys):
    folder = tmp_path / "course"
    prepared(folder, capsys)
    told = in_process("nbgrader_run.py", folder, "lab0-steps")
    assert told["validate"] == {}
    assert all(told[key] for key in told if key.startswith(("generate", "autograde", "feedback")))
    full = {"quantize-hidden": 3, "best_step-hidden": 1, "why": None}
    assert told["grades"] == {
        "right": full,
        "twice": full,
        "wrong": {**full, "quantize-hidden": 1.5, "best_step-hidden": 0},
    }
    release = (folder / "release" / "lab0-steps" / "lab0-steps.ipynb").read_text()
    pages = [path.read_text() for path in folder.glob("feedback/*/*/*.html")]
    assert len(pages) == 3
    assert not any("labs.hidden" in text or "(most recent call last)" in text for text in [release, *pages])
    assert "np.clip" not in release
    assert sum("Hint: What is the slope" in text for text in pages) == 1


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("otter") is None, reason="otter-grader is not installed")
def test_otter_assigns_and_grades(course, tmp_path):
    (file,) = handout.write(LAB, COMMON, tmp_path, "otter", FIXTURES)
    told = in_process("otter_run.py", file, RIGHT["quantize"])
    assert told["student"] == {"solution": False, "hidden": False}
    assert told["right"] == {"quantize": 3, "best_step": 0}


def in_process(script, *args):
    """Run a script beside this file, away from this process's warnings, with its commands on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, Path(__file__).parent / script, *args],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])
