"""Grading a class: what each submission earns, and what becomes of those that are broken or hostile."""

from __future__ import annotations

import copy
import csv
import io
import json
import signal
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

from qviz.cli import main
from qviz.labs import build, collected, examine, grade, master, results, roster, source
from qviz.labs.collected import Submission
from qviz.labs.model import Case
from qviz.labs.remarks import remarks
from qviz.labs.sandbox import Limits, isolation
from qviz.labs.variants import variant

FIXTURES = Path(__file__).parent / "fixtures"
SECRET = b"sixteen bytes or more"
LAB = source.load("lab0-steps", FIXTURES)
PARTS = master.read(source.notebook("lab0-steps", FIXTURES), LAB)
SHORT = Limits(call_seconds=1, wall_seconds=20)
RIGHT = {
    "quantize": (
        "import torch\ndef quantize(x, s, bits):\n    x = torch.as_tensor(x)\n"
        "    q = (x / s).clamp(0, 2**bits - 1)\n    return (q + (q.round() - q).detach()) * s"
    ),
    "why": "Zero, but training needs one.",
    "best_step": None,
}
pytestmark = pytest.mark.skipif(not isolation.landlock(), reason="this kernel has no Landlock")


def handed_in(student, answers=None, of=None):
    """A student's notebook: the release with answers in it."""
    mine = variant(LAB, SECRET, of or student)
    notebook = build.release(LAB, PARTS, mine)
    right = {**RIGHT, "best_step": f"best_step = {json.dumps(json.dumps({'bits': mine.params['BITS']}))}"}
    for cell in notebook["cells"]:
        if cell["id"] in right:
            cell["source"] = (answers or {}).get(cell["id"], right[cell["id"]])
    return notebook


def saved(folder, student, answers=None, **how):
    folder.mkdir(exist_ok=True)
    path = folder / f"{student}.ipynb"
    path.write_text(json.dumps(handed_in(student, answers, **how)))
    return path


@pytest.fixture
def examined(zygote):
    def examined(notebook, student="anna", limits=SHORT, **files):
        data = notebook if isinstance(notebook, bytes) else json.dumps(notebook).encode()
        examiner = examine.Examiner(LAB, SECRET, zygote.worker, limits, PARTS)
        return examiner.examine(Submission(student, f"{student}.ipynb", data, files))

    return examined


def points(result):
    return {name: mark.points for name, mark in result.marks.items()}


FULL = {"quantize": 3, "why": None, "best_step": 1}


def test_a_right_answer_earns_all_and_the_words_wait_for_a_person(examined):
    result = examined(handed_in("anna"))
    assert points(result) == FULL
    assert result.notes == ()
    assert result.marks["why"].words == RIGHT["why"]
    assert "landlock" in result.isolation


def test_a_blank_release_earns_nothing(examined):
    result = examined(build.release(LAB, PARTS, variant(LAB, SECRET, "anna")))
    assert points(result) == {"quantize": 0, "why": 0, "best_step": 0}
    assert {mark.text for mark in result.marks.values()} == {"Not answered."}


HEAD = "import numpy as np, torch\ndef quantize(x, s, bits):\n"
CLAMP = "    q = (torch.as_tensor(x) / s).clamp(0, 2**bits - 1)\n"
NUMPY = HEAD + "    return np.clip(np.rint(x / s), 0, 2**bits - 1) * s\n"
ANSWERS = {
    "a mistake": (
        f"{HEAD}    q = torch.as_tensor(x) / s\n    return (q + (q.round() - q).detach()) * s",
        *(0, "Which codes exist?"),
    ),
    "another": (f"{HEAD}{CLAMP}    return q.round() * s", 1.5, "slope of a staircase"),
    "numpy": (
        f"{NUMPY}def quantize_backward(x, s, bits, g):\n"
        "    return (g * ((x / s >= 0) & (x / s <= 2**bits - 1)),)",
        *(3, "Right."),
    ),
    "numpy without gradient": (f"ARRAYS = 'numpy'\n{NUMPY}", 1.5, "gradients wrong"),
    "error": ("def quantize(x, s, bits):\n    return x + 'secret'", 0, "TypeError in line 2 of your cell"),
    "loop": (f"{HEAD}    while True: pass", 0, "ended with time limit"),
    "exit": (f"{HEAD}    import os; os._exit(0)", 0, "ended with process ended"),
    "name": ("def quantise(x, s, bits): return x", 0, "no function quantize"),
    "syntax": ("def quantize(:", 0, "no function quantize"),
    "telling": (
        f"{HEAD}    kind = type(f'X{{x[0]}}', (Exception,), {{}})\n    raise kind",
        0,
        "with Exception in",
    ),
    "equal": (f"class A:\n    def __eq__(s, o): return True\n{HEAD}    return A()", 0, "of type object"),
    "counting": (
        f"n = 0\n{HEAD}    global n; n += 1\n{CLAMP}"
        "    return (q + (q.round() - q).detach()) * s * (1 if n < 4 else 2)",
        *(None, "wrong"),
    ),
}
"""What was written, what it earns (None: less than all), and what the student is told."""


@pytest.mark.parametrize(
    ("answer", "earned", "says"),
    ANSWERS.values(),
    ids=ANSWERS,
)
def test_an_answer_earns_its_points_and_a_hint(examined, answer, earned, says):
    result = examined(handed_in("anna", {"quantize": answer}))
    if earned is None:
        assert points(result)["quantize"] < 3
    else:
        assert points(result) == {**FULL, "quantize": earned}
    assert says in result.marks["quantize"].text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('"""{"bits": 77}"""', "Not so: the bits are yours."),
        ('"""[1]"""', "no object"),
        ('"""{"bits": NaN}"""', "not JSON"),
        ("'{' * 10 + 'x'", "does not assign a text"),
        (repr("[" * 100_000), "nested too deeply"),
        ("__import__('os').getcwd()", "does not assign a text"),
    ],
)
def test_a_state_is_read_and_never_run(examined, text, says):
    result = examined(handed_in("anna", {"best_step": f"best_step = {text}"}))
    assert points(result) == {**FULL, "best_step": 0}
    assert says in result.marks["best_step"].text


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"{", "JSON is damaged"),
        (b"[1]", "JSON is no object"),
        (b"[" * 2_000_000, "nested deeper"),
        (b"\xff\xfe\x00", "JSON is damaged"),
        (b"{}", "no list of cells"),
        (
            json.dumps({"cells": [1, None, {"cell_type": 3, "source": {"a": 1}, "metadata": []}]}).encode(),
            "missing",
        ),
    ],
)
def test_what_is_no_notebook_is_a_row_with_a_note(examined, data, says):
    result = examined(data)
    assert result.total == 0
    assert says in " ".join(result.notes)


def test_a_loop_in_one_cell_does_not_cost_the_others(examined):
    notebook = handed_in("anna")
    notebook["cells"].insert(
        1, {"cell_type": "code", "id": "mine", "metadata": {}, "source": "while True: pass"}
    )
    result = examined(notebook)
    assert points(result) == FULL
    assert any("ended with: time limit" in note for note in result.notes)


def test_whose_variant_it_is_is_noted(examined):
    assert "this is the variant of another student" in examined(handed_in("anna", of="bert")).notes
    lost = handed_in("anna")
    lost["metadata"] = {}
    assert "variant unknown" not in examined(lost).notes
    forged = json.loads(json.dumps(lost).replace(variant(LAB, SECRET, "anna").mac[:12], "0" * 12))
    assert "variant unknown" in examined(forged).notes
    assert examined(handed_in("anna", of="common")).notes == ()


def test_damage_is_noted_and_costs_nothing(examined):
    notebook = handed_in("anna")
    answer = next(cell for cell in notebook["cells"] if cell["id"] == "quantize")
    notebook["cells"].append(copy.deepcopy(answer))
    result = examined(notebook)
    assert points(result) == FULL
    assert any("`quantize` is there twice" in note for note in result.notes)


def test_cases_come_in_another_order_and_one_twice():
    cases = [Case((i,)) for i in range(6)]
    order = [case.args[0] for case in examine.shuffled(cases, 3)]
    assert sorted(order[:-1]) == list(range(6))
    assert order[-1] == order[0]
    assert order != [case.args[0] for case in examine.shuffled(cases, 4)]


@pytest.mark.parametrize(
    ("code", "note"),
    [
        ("import qviz.core", "imports qviz"),
        ("from gc import get_objects", "imports gc"),
        ("torch.fake_quantize_per_tensor_affine(x)", "uses fake_quantize_per_tensor_affine"),
        ("getattr(builtins, 'exec')('1')", "uses getattr(…, 'exec')"),
        ("__import__('os')", "uses __import__"),
        ("get_ipython().ast_transformers.append(1)", "uses ast_transformers"),
    ],
)
def test_what_is_notable_is_said(code, note):
    assert remarks(["x = 1", code, code]) == [note]


def zipped(path, entries):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def test_submissions_are_files_folders_and_zips_under_their_students_names(tmp_path):
    (tmp_path / "lab0-steps-anna.ipynb").write_text("{}")
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "any.ipynb").write_text("{}")
    (tmp_path / "bert" / "model.bin").write_bytes(b"12")
    zipped(tmp_path / "0123.zip", {"work/x.ipynb": "{}", "__MACOSX/._x.ipynb": ""})
    (tmp_path / ".DS_Store").write_text("")
    found = collected.find(tmp_path, "lab0-steps")
    assert [(one.student, one.notebook) for one in found] == [
        ("0123", b"{}"),
        ("anna", b"{}"),
        ("bert", b"{}"),
    ]
    assert found[2].files == {"model.bin": b"12"}
    whole = zipped(tmp_path / "all.zip", {"all/anna.ipynb": "{}", "all/bert.ipynb": "{}"})
    assert [one.student for one in collected.find(whole, "lab0-steps")] == ["anna", "bert"]


def test_a_roster_spells_the_students_and_names_who_is_not_in_it(tmp_path):
    for name in (roster.safe("Zoë"), "ANNA", "eve"):
        (tmp_path / f"{name}.ipynb").write_text("{}")
    found = {one.student: one.problem for one in collected.find(tmp_path, "", ["Zoë", "Anna"])}
    assert found == {"Anna": "", "Zoë": "", "eve": "eve is not in the roster."}


def test_what_is_too_large_linked_or_leads_out_is_not_read(tmp_path):
    place = tmp_path / "in"
    place.mkdir()
    (place / "big.ipynb").write_bytes(b" " * (collected.FILE_BYTES + 1))
    (place / "link.ipynb").symlink_to("/etc/passwd")
    (place / "folder").mkdir()
    (place / "folder" / "x.ipynb").symlink_to("/etc/passwd")
    zipped(place / "slip.zip", {"../../x.ipynb": "{}"})
    zipped(place / "bomb.zip", {"x.ipynb": b"0" * (collected.FILE_BYTES + 1)})
    (place / "broken.zip").write_bytes(b"PK\x03\x04nothing")
    (place / "two").mkdir()
    for name in "ab":
        (place / "two" / f"{name}.ipynb").write_text("{}")
    found = {one.student: one for one in collected.find(place, "")}
    assert all(one.notebook is None and one.problem for one in found.values()), found
    assert "leads out" in found["slip"].problem
    assert "2 notebooks" in found["two"].problem


def test_a_student_with_two_submissions_is_an_error(tmp_path):
    for name in ("Anna", "anna "):
        (tmp_path / f"{name}.ipynb").write_text("{}")
    with pytest.raises(ValueError, match="keep one"):
        collected.find(tmp_path, "")


def graded(folder, out, zygote, **how):
    return grade.grade(folder, LAB, out=out, secret=SECRET, parts=PARTS, timeout=20, zygote=zygote, **how)


def rows(out):
    return {row["student"]: row for row in csv.DictReader(io.StringIO(out.read_text()))}


def test_a_class_is_graded_into_a_table_and_pages(zygote, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "grades.csv"
    saved(folder, "anna")
    saved(folder, "=bert()", {"why": "<script>alert(1)</script>", "quantize": "print('<b>hi')"})
    (folder / "eve.ipynb").write_text("{")
    done = graded(folder, out, zygote, html=tmp_path / "pages")
    assert (len(done.results), done.known, done.failed) == (3, 0, 0)
    table = rows(out)
    assert set(table) == {"anna", "'=bert()", "eve"}
    assert (table["anna"]["total"], table["anna"]["of"], table["anna"]["by hand"]) == ("4", "6", "why")
    assert table["anna"]["isolation"].endswith("seccomp")
    pages = {path.name: path.read_text() for path in (tmp_path / "pages").iterdir()}
    assert len(pages) == 3
    assert "<script>" not in "".join(pages.values())
    assert "JSON is damaged" in pages["eve.html"]
    before = out.read_bytes()
    assert graded(folder, out, zygote).known == 3
    assert out.read_bytes() == before
    saved(folder, "anna", {"quantize": "def quantize(x, s, bits): return x"})
    assert graded(folder, out, zygote).known == 2
    assert rows(out)["anna"]["total"] == "1"


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_to_the_same_table(zygote, tmp_path):
    folder, whole, out = tmp_path / "in", tmp_path / "whole.csv", tmp_path / "grades.csv"
    for number in range(8):
        saved(
            folder, f"s{number}", {"quantize": "def quantize(x, s, bits): return x"} if number % 2 else None
        )
    graded(folder, whole, zygote)
    code = f"""
        import os, signal, sys
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from tests.labs import test_grade as t
        from pathlib import Path
        seen = []
        def said(result):
            seen.append(result)
            if len(seen) == 3:
                os.kill(os.getpid(), signal.SIGKILL)
        t.graded(Path({str(folder)!r}), Path({str(out)!r}), None, said=said)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    log = out.with_suffix(".jsonl")
    assert not out.exists()
    assert log.read_bytes().count(b"\n") == 3
    with log.open("ab") as file:
        file.write(log.read_bytes().splitlines()[0][:50])
    assert graded(folder, out, zygote).known == 3
    assert out.read_bytes() == whole.read_bytes()


def test_without_landlock_it_refuses_unless_told(tmp_path, monkeypatch):
    saved(tmp_path / "in", "anna")
    monkeypatch.setattr(isolation, "landlock", lambda: 0)
    with pytest.raises(RuntimeError, match="--weak-isolation"):
        graded(tmp_path / "in", tmp_path / "grades.csv", None)


def test_a_failure_of_grading_itself_stops_nobody_else_and_is_tried_again(zygote, tmp_path, monkeypatch):
    folder, out = tmp_path / "in", tmp_path / "grades.csv"
    for student in ("anna", "bert"):
        saved(folder, student)
    right = examine.Examiner.examine

    def breaks(self, submission):
        if submission.student == "anna":
            raise OSError("no space")
        return right(self, submission)

    monkeypatch.setattr(examine.Examiner, "examine", breaks)
    assert graded(folder, out, zygote).failed == 1
    assert "not graded, look at it by hand: OSError: no space" in rows(out)["anna"]["notes"]
    assert rows(out)["bert"]["total"] == "4"
    monkeypatch.undo()
    assert graded(folder, out, zygote).known == 1
    assert rows(out)["anna"]["total"] == "4"


@pytest.mark.parametrize("text", ["=1+1", "+1+1", "-1+1", "@sum", " =1", "\t=1"])
def test_a_formula_gets_a_quote(text):
    assert results.harmless(text) == f"'{text}"


def run(capsys, *args):
    try:
        code = main([str(arg) for arg in args])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.slow
def test_the_command(capsys, tmp_path):
    saved(tmp_path / "in", "anna")
    (tmp_path / "secret").write_bytes(SECRET)
    args = [
        tmp_path / "in",
        "--source",
        FIXTURES,
        "--secret",
        tmp_path / "secret",
        "--out",
        tmp_path / "g.csv",
    ]
    code, out, err = run(capsys, "labs", "grade", *args, "--html", tmp_path / "pages")
    assert (code, err) == (0, "")
    assert "lab0-steps" in out
    assert "anna" in rows(tmp_path / "g.csv")
    assert (tmp_path / "pages" / "anna.html").exists()
    code, _, err = run(capsys, "labs", "grade", tmp_path / "absent", *args[1:])
    assert code == 2
    assert "absent" in err
