"""A release: the same bytes twice, nothing of the solution, the student's own values, locked."""

import json
import re
from pathlib import Path

import jupytext
import nbformat
import numpy as np
import pytest

from qviz.cli import main
from qviz.labs import build, key, manifest, master, roster, secret, source
from qviz.labs.cells import text_value
from qviz.labs.variants import made_by, variant
from tests.tools import pair_labs

FIXTURES = Path(__file__).parent / "fixtures"
SECRET = b"sixteen bytes or more"
LAB = source.load("lab0-steps", FIXTURES)
MASTER = source.notebook("lab0-steps", FIXTURES)
PARTS = master.read(MASTER, LAB)


def released(student="common"):
    return build.release(LAB, PARTS, variant(LAB, SECRET, student))


def cells(notebook):
    return {cell["id"]: cell for cell in notebook["cells"]}


def run(capsys, *args):
    try:
        code = main([str(arg) for arg in args])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("file", pair_labs.masters(), ids=lambda file: file.stem)
def test_a_master_is_what_its_script_says(file):
    ours, theirs = pair_labs.paired(file), nbformat.read(file.with_suffix(".ipynb"), as_version=4)
    assert nbformat.writes(ours) == nbformat.writes(theirs), "run python -m tests.tools.pair_labs"
    lab = source.load(file.stem, file.parent)
    assert master.read(ours, lab)
    assert "jupytext" not in theirs.metadata


def test_a_release_is_a_valid_notebook_without_outputs_and_always_the_same_bytes():
    first, second = (build.as_bytes(released("Anna")) for _ in range(2))
    assert first == second
    notebook = nbformat.reads(first.decode(), as_version=4)
    nbformat.validate(notebook)
    assert set(notebook.metadata) == {"kernelspec", "language_info", "qviz"}
    assert not any(cell.get("outputs") or cell.get("attachments") for cell in notebook.cells)


def test_a_release_has_no_solution_and_says_where_answers_go():
    made = cells(released())
    assert "np.clip" not in json.dumps(released())
    assert "SOLUTION" not in json.dumps(released())
    assert 'raise NotImplementedError("quantize")' in master.text_of(made["quantize"])
    assert master.text_of(made["best_step"]) == "best_step = ''"
    assert master.text_of(made["why"]) == "*Your answer here.*"


def test_the_quotes_of_a_state_hold_the_json_that_is_pasted_between_them():
    state = {"method": "LSQ", "step": 0.1, "kind": "soft argmax, fixed β"}
    blank = master.text_of(cells(released())["best_step"])
    half = len(blank) - 1
    pasted = blank[:half] + json.dumps(state, ensure_ascii=False) + blank[half:]
    assert json.loads(text_value(pasted, "best_step")) == state


def test_all_but_the_answers_are_locked():
    for name, cell in cells(released()).items():
        assert cell["metadata"]["deletable"] is False
        assert cell["metadata"].get("editable", True) == (name in ("quantize", "why", "best_step"))


def test_a_students_values_and_points_stand_in_the_release():
    own = variant(LAB, SECRET, "Anna")
    text = "\n".join(master.text_of(cell) for cell in released("Anna")["cells"])
    assert f"BITS = {own.params['BITS']}\nSEED = {own.data_seed}\n" in text
    assert "Quantize (3 points)" in text
    assert "The best step (1 point)" in text
    assert str(own.hidden_seed) not in text


def test_the_manifest_proves_whose_it_is_and_what_the_data_are():
    notebook = json.loads(build.as_bytes(released("Anna")))
    said = manifest.read(notebook)
    assert made_by(LAB, SECRET, "anna ", said.mac)
    assert not made_by(LAB, SECRET, "Berta", said.mac)
    x = np.random.RandomState(said.data_seed).randn(64)
    assert said.data == {"x": manifest.array_sha256(x)}
    answers = {cell.question: cell for cell in said.cells if cell.kind == "answer"}
    assert answers["quantize"].functions == ("quantize",)
    assert {q: cell.points for q, cell in answers.items()} == {"quantize": 3, "why": 2, "best_step": 1}


@pytest.mark.parametrize("said", [None, 7, {}, {"cells": 3}, {"cells": [{"functions": None}]}])
def test_a_manifest_that_somebody_wrote_is_none(said):
    assert manifest.read({"metadata": {"qviz": said}}) is None


@pytest.mark.parametrize(
    ("index", "changes", "says"),
    [
        (3, {"metadata": {"incorrectly_encoded_metadata": "qviz={}"}}, r"after \[markdown\]"),
        (3, {"metadata": {"qviz": {"answers": "quantize"}}}, "qviz takes one of"),
        (3, {"metadata": {}}, "its questions are"),
        (4, {"metadata": {"qviz": {"answer": "quantize"}}}, "two answers"),
        (4, {"metadata": {"qviz": {"tests": "dequantize"}}}, "no question 'dequantize'"),
        (3, {"source": "def quantize(x):\n    return x"}, "needs ### BEGIN SOLUTION"),
        (3, {"source": "def q(x):\n    ### BEGIN SOLUTION\n    ### END SOLUTION"}, "no function quantize"),
        (3, {"cell_type": "markdown"}, "wrong type"),
        (1, {"metadata": {}}, "no cell marked given"),
    ],
)
def test_a_master_that_does_not_fit_is_refused(index, changes, says):
    changed = json.loads(json.dumps(MASTER))
    changed["cells"][index] |= changes
    with pytest.raises(ValueError, match=says):
        master.read(changed, LAB)


def test_a_parameter_that_no_cell_assigns_is_named():
    changed = json.loads(json.dumps(MASTER))
    changed["cells"][1]["source"] = "SEED = 1"
    with pytest.raises(ValueError, match="no given cell of 'lab0-steps' assigns BITS"):
        build.release(LAB, master.read(changed, LAB), variant(LAB, SECRET))


def test_values_replace_literals_and_nothing_else():
    text = "é = 1; BITS = (4,\n 5)  # bits\nif BITS:\n    BITS = 6\nx = BITS"
    assert (
        master.with_values(text, {"BITS": 3}) == "é = 1; BITS = 3  # bits\nif BITS:\n    BITS = 6\nx = BITS"
    )
    with pytest.raises(ValueError, match="a literal"):
        master.with_values("BITS = 4", {"BITS": np.arange(2)})


def test_a_roster_keeps_ids_as_they_are_and_makes_safe_names(tmp_path):
    file = tmp_path / "roster.csv"
    file.write_text("name;student_id\nAnna;0123\nBert;../x\n\n", "utf-8-sig")
    assert roster.read(file) == ["0123", "../x"]
    assert roster.safe("0123") == "0123"
    assert len({roster.safe(s) for s in ("../x", "..\\x", "x", "_x", "ä", "ö", "..", "/", "-x")}) == 9
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9._-]*", roster.safe(s)) for s in ("../x", "..", "ä", "-x"))
    file.write_text("0123\nANNA\nanna \n")
    with pytest.raises(ValueError, match="one student"):
        roster.read(file)


def test_a_secret_is_hexadecimal_or_text_and_long_enough(tmp_path):
    assert secret.read(None, {secret.VARIABLE: "00" * 16}) == bytes(16)
    assert secret.read(None, {secret.VARIABLE: "a text of many letters\n"}) == b"a text of many letters"
    assert secret.read(None, {}) is None
    (tmp_path / "s").write_text("short")
    with pytest.raises(ValueError, match="5 bytes; 16"):
        secret.read(tmp_path / "s", {})


def test_the_key_has_what_is_expected_and_no_formula():
    entries = key.of(LAB, variant(LAB, SECRET, "=1+1"))
    assert {entry.question for entry in entries} == {"", "quantize", "why", "best_step"}
    assert all(line.startswith("'=1+1,") for line in key.as_csv(entries).splitlines()[1:])


def test_the_commands_build_list_and_key(capsys, tmp_path, monkeypatch):
    where = ("--source", FIXTURES)
    code, out, _ = run(capsys, "labs", "list", *where)
    assert code == 0
    assert "lab0-steps  One step          3       6        5" in out
    monkeypatch.delenv(secret.VARIABLE, raising=False)
    code, _, err = run(capsys, "labs", "build", "lab0-steps", "--out", tmp_path, *where)
    assert code == 0
    assert "everybody can compute the hidden cases" in err
    for command in ("build", "key"):
        code, _, err = run(capsys, "labs", command, "lab0-steps", "--student-id", "Anna", *where)
        assert (code, "QVIZ_LABS_SECRET" in err) == (2, True)
    monkeypatch.setenv(secret.VARIABLE, SECRET.decode())
    (tmp_path / "roster.csv").write_text("student\n0123\nAnna\n")
    roll = ("--roster", tmp_path / "roster.csv", "--out", tmp_path / "out")
    code, _, _ = run(capsys, "labs", "build", "lab0-steps", *roll, *where)
    assert code == 0
    assert (tmp_path / "out" / "0123" / "lab0-steps-0123.ipynb").read_bytes() == build.as_bytes(
        released("0123")
    )
    lines = (tmp_path / "out" / "keys.csv").read_text().splitlines()
    assert {line.split(",")[0] for line in lines} == {"student", "0123", "Anna"}


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["labs"], "no subcommand"),
        (["labs", "build", "lab9", "--source", FIXTURES], "no lab 'lab9'"),
        (["labs", "list", "--source", "nowhere"], "no folder 'nowhere'"),
        (["labs", "build", "lab0-steps", "--format", "pdf"], "invalid choice: 'pdf'"),
    ],
)
def test_wrong_usage_is_one_line(capsys, args, says):
    code, _, err = run(capsys, *args)
    assert code == 2
    assert says in err
    assert err.count("\n") == 1


def test_the_script_is_what_jupytext_reads():
    text = (FIXTURES / "lab0-steps.py").read_text()
    assert len(jupytext.reads(text, fmt="py:percent").cells) == len(PARTS)
