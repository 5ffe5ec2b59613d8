"""A student's check: the same words in kernel, sandbox and plain process; repair keeps the answers."""

import json
import sys
from types import ModuleType

import pytest

import qviz.labs
from qviz.labs import build, checking, harness, here, manifest, repair, running
from qviz.labs.match import match
from qviz.labs.sandbox import isolation
from tests.labs import test_match as notebooks
from tests.labs.test_build import run
from tests.labs.test_match import FRESH, LAB, RELEASE, cell_of

RIGHT = (
    "import numpy as np\ndef quantize(x, s, bits):\n    return np.clip(np.rint(x / s), 0, 2**bits - 1) * s\n"
)
WRONG = "def quantize(x, s, bits):\n    print('qviz-labs-check:{}')\n    return 0 * x + 0.25\n"
LOWEST = "which is the lowest level?"


def handed_in(text, state=notebooks.STATE):
    notebook = notebooks.solved()
    cell_of(notebook, "quantize")["source"] = text
    cell_of(notebook, "best_step")["source"] = state
    return notebook


def seen_in_kernel(said, found):
    names = {}
    for _, text in found.code:
        exec(text, names)
    return checking.in_kernel(said, names)


@pytest.mark.parametrize("way", [seen_in_kernel, running.in_process])
def test_the_words_are_the_same_wherever_the_tests_run(way):
    why = {}
    for name, text in {
        "right": RIGHT,
        "wrong": WRONG,
        "fails": "def quantize(x, s, bits):\n    1 / 0",
    }.items():
        notebook = handed_in(text)
        found = checking.match_said(notebook, FRESH)
        report = checking.report(FRESH, way(FRESH, found), found)
        why[name] = report.tests
        assert report.notes == ()
        assert report.fine == (name == "right")
    assert why["right"] == (("quantize", None),)
    assert why["wrong"] == (("quantize", LOWEST),)
    assert why["fails"] == (("quantize", "ZeroDivisionError: division by zero"),)


@pytest.mark.skipif(not isolation.landlock(), reason="this system has no Landlock")
@pytest.mark.slow
def test_the_words_are_the_same_in_the_sandbox(tmp_path, capsys):
    code, told, _ = run(capsys, "labs", "check", saved(tmp_path / "mine.ipynb", handed_in(WRONG)))
    assert code == 1
    assert told == f"lab0-steps, version 1, Anna\nquantize: {LOWEST}\n"


@pytest.fixture
def no_landlock(monkeypatch):
    monkeypatch.setattr(isolation, "landlock", lambda: False)


def saved(path, notebook):
    path.write_bytes(build.as_bytes(notebook))
    return path


def test_what_ends_a_run_is_said_for_every_test():
    found = checking.match_said(handed_in("import os\nos._exit(0)\ndef quantize(x): pass"), FRESH)
    seen = running.in_process(FRESH, found)
    assert seen.tests == [("quantize", "process ended")]


def test_cells_that_fail_data_that_differ_and_open_questions_are_noted():
    notebook = handed_in("x = 1\nquantize = None\n1 / 0", "best_step = 'half'")
    cell_of(notebook, "why")["source"] = ["*Your answer here.*"]
    found = checking.match_said(notebook, FRESH)
    notes = checking.report(FRESH, running.in_process(FRESH, found), found).notes
    assert len(notes) == 4
    assert "data `x` differ" in notes[0]
    assert notes[1] == "the cell of `quantize` ends with ZeroDivisionError in line 3"
    assert notes[2] == "`why` is not answered yet"
    assert "`best_step` is no state" in notes[3]


def test_a_blank_release_is_not_answered_yet():
    found = checking.match_said(RELEASE, FRESH)
    report = checking.report(FRESH, seen_in_kernel(FRESH, found), found)
    assert dict(report.tests) == {"quantize": "not answered yet"}


def test_check_finds_the_notebook_that_is_running(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    with pytest.raises(ValueError, match="0 notebooks of labs"):
        qviz.labs.check()
    file = saved(tmp_path / "mine.ipynb", handed_in(RIGHT))
    names = {"check": qviz.labs.check}
    exec(RIGHT, names)
    exec("check()", names)
    saved(tmp_path / "other.ipynb", handed_in(RIGHT))
    exec("check('mine.ipynb')", names)
    monkeypatch.setenv("JPY_SESSION_NAME", str(file))
    exec("check()", names)
    monkeypatch.delenv("JPY_SESSION_NAME")
    exec("check()", {**names, "__vsc_ipynb_file__": str(file)})
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("quantize")]
    assert len(said) == 4
    assert all("NameError: name 'BITS'" in line for line in said)


def test_check_asks_colab_for_its_notebook(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    package, message = ModuleType("google.colab"), ModuleType("google.colab._message")
    message.blocking_request = lambda request, timeout_sec: {"ipynb": handed_in(RIGHT)}
    package._message = message
    monkeypatch.setitem(sys.modules, "google", ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", package)
    assert here.check_names({}).about == "lab0-steps, version 1, Anna"


CHANGES = [notebooks.twice, notebooks.retyped, notebooks.elsewhere, notebooks.bare, notebooks.colab]
CHANGES += [notebooks.tampered, notebooks.twice_and_blank]


@pytest.mark.parametrize("change", CHANGES)
def test_a_repaired_notebook_has_the_answers_and_no_damage(change):
    notebook = handed_in(RIGHT)
    cell_of(notebook, "quantize")["source"] = notebooks.QUANTIZE
    notebook["cells"].insert(3, {"cell_type": "code", "id": "h", "metadata": {}, "source": "helper = 1"})
    change(notebook)
    made = json.loads(build.as_bytes(repair.repaired(RELEASE, match(notebook, LAB, FRESH))))
    found = match(made, LAB, manifest.read(made))
    assert found.damage == ()
    assert found.answers == match(notebook, LAB, FRESH).answers
    order = [cell["id"] for cell in made["cells"]]
    assert order.index("own-1") < order.index("quantize")
    assert len(set(order)) == len(order)


def test_a_notebook_is_checked_and_repaired_from_what_it_says_itself(tmp_path, capsys, no_landlock):
    notebook = handed_in(RIGHT)
    notebooks.twice(notebook)
    file, out = saved(tmp_path / "mine.ipynb", notebook), tmp_path / "mended.ipynb"
    code, told, _ = run(capsys, "labs", "check", file, "--repair", out)
    assert code == 1
    assert "damaged: the answer cell `quantize` is there twice" in told
    assert "quantize: public tests pass" in told
    code, told, _ = run(capsys, "labs", "check", out)
    assert (code, "damaged" in told) == (0, False)
    code, _, err = run(capsys, "labs", "check", file, "--repair", out)
    assert (code, "exists" in err) == (2, True)


def test_without_metadata_the_release_is_asked_for(tmp_path, capsys, no_landlock):
    notebook = handed_in(RIGHT)
    notebooks.bare(notebook)
    file, release = saved(tmp_path / "mine.ipynb", notebook), saved(tmp_path / "release.ipynb", RELEASE)
    code, _, err = run(capsys, "labs", "check", file)
    assert (code, "--release FILE" in err) == (2, True)
    code, told, _ = run(capsys, "labs", "check", file, "--release", release)
    assert (code, "public tests pass" in told) == (1, True)


@pytest.mark.parametrize("content", ["{", "[]", "3", "[" * 100_000])
def test_what_is_no_notebook_is_one_line(tmp_path, capsys, content):
    (tmp_path / "x.ipynb").write_text(content)
    code, _, err = run(capsys, "labs", "check", tmp_path / "x.ipynb")
    assert (code, err.count("\n")) == (2, 1)
    assert "is no notebook" in err


def test_tests_change_none_of_the_students_names():
    names = {"x": 1}
    seen = harness.examined([("q", "y = x\nassert y == 1"), ("q", "assert y == 1")], [], names)
    assert seen["tests"] == [["q", None], ["q", "NameError: name 'y' is not defined"]]
    assert names == {"x": 1}
