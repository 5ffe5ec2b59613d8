"""A student's answers are found whatever editors and students did to the cells; damage is in words."""

import copy
import json
from pathlib import Path

import pytest

from qviz.labs import build, manifest, master, source
from qviz.labs.cells import is_blank, text_value
from qviz.labs.match import kinds_of, kinds_said, match
from qviz.labs.variants import variant

FIXTURES = Path(__file__).parent / "fixtures"
LAB = source.load("lab0-steps", FIXTURES)
PARTS = master.read(source.notebook("lab0-steps", FIXTURES), LAB)
RELEASE = build.release(LAB, PARTS, variant(LAB, b"sixteen bytes or more", "Anna"))
FRESH = manifest.read(RELEASE)
QUANTIZE = "def quantize(x, s, bits):\n    return x\n"
STATE = "best_step = '''{\"bits\": 3}'''"
WHY = "Because it is flat."


def cell_of(notebook, name):
    return next(cell for cell in notebook["cells"] if cell["id"] == name)


def solved():
    notebook = copy.deepcopy(RELEASE)
    for name, text in {"quantize": QUANTIZE, "why": WHY, "best_step": STATE}.items():
        cell_of(notebook, name)["source"] = text
    return notebook


def nothing(notebook):
    pass


def deleted(notebook):
    notebook["cells"].remove(cell_of(notebook, "quantize"))


def twice(notebook):
    at = notebook["cells"].index(cell_of(notebook, "quantize"))
    notebook["cells"].insert(at, {**cell_of(notebook, "quantize"), "id": "copied", "source": "x = 1"})


def twice_and_blank(notebook):
    blank = cell_of(RELEASE, "quantize")
    notebook["cells"].append({**blank, "id": "copied"})


def retyped(notebook):
    cell_of(notebook, "quantize")["cell_type"] = "markdown"


def colab(notebook):
    for cell in notebook["cells"]:
        cell["metadata"] = {"id": cell.pop("id"), "outputId": "x"}
    notebook["nbformat_minor"] = 0
    notebook["metadata"] = {"colab": {}}


def bare(notebook):
    for number, cell in enumerate(notebook["cells"]):
        cell |= {"metadata": {}, "id": f"c{number}"}
    notebook["metadata"] = {}


def elsewhere(notebook):
    cell_of(notebook, "quantize")["source"] = "import math"
    notebook["cells"].append({"cell_type": "code", "id": "new", "metadata": {}, "source": QUANTIZE})


def renamed(notebook):
    cell_of(notebook, "quantize")["source"] = "def quantise(x, s, bits):\n    return x\n"


def tampered(notebook):
    cell_of(notebook, "quantize-tests")["source"] = "assert True"


def hostile(notebook):
    odd = [3, None, {}, {"cell_type": [], "source": [[], 7], "metadata": [1], "id": {}}]
    notebook["cells"] = [*odd, *notebook["cells"], {"cell_type": "code", "source": "(" * 100_000}]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (nothing, []),
        (colab, []),
        (hostile, []),
        (twice, ["`quantize` is there twice: keep one (number 5 counts)"]),
        (twice_and_blank, ["`quantize` is there twice: keep one (number 4 counts)"]),
        (retyped, ["`quantize` became markdown: turn it back into code"]),
        (tampered, ["a locked cell (tests of `quantize`) was changed or deleted"]),
        (elsewhere, ["`quantize` is defined outside its answer cell, in cell 10"]),
        (bare, ["`quantize` has lost its metadata", "`why` has lost", "`best_step` has lost"]),
    ],
)
def test_answers_are_found_and_damage_is_named(change, says):
    notebook = solved()
    change(notebook)
    found = match(json.loads(json.dumps(notebook)), LAB, FRESH)
    assert found.answers == {"quantize": QUANTIZE, "why": WHY, "best_step": STATE}
    assert not found.blank
    assert len(found.damage) == len(says)
    assert all(part in sentence for part, sentence in zip(says, found.damage, strict=True))
    code = [question for question, _ in found.code]
    assert code.count("quantize") == code.count("best_step") == 1
    assert not any("assert" in text or "NotImplementedError" in text for _, text in found.code)


def test_what_is_missing_or_renamed_is_named():
    notebook = solved()
    renamed(notebook)
    assert match(notebook, LAB).damage == (
        "the answer cell `quantize` does not define the function quantize",
    )
    deleted(notebook)
    found = match(notebook, LAB)
    assert "quantize" not in found.answers
    assert found.damage == ("the answer cell `quantize` is missing: put it back, or have it repaired",)


def test_a_blank_release_has_blank_answers():
    found = match(RELEASE, LAB, FRESH)
    assert found.blank == {"quantize", "why", "best_step"}
    assert found.damage == ()


def test_what_is_no_notebook_is_refused():
    for content in ({}, {"cells": {}}, [], None):
        with pytest.raises(ValueError, match="no notebook"):
            match(content, LAB)


def test_a_manifest_says_how_questions_are_answered():
    assert kinds_said(FRESH) == kinds_of(LAB)


def test_blank_and_filled_in_are_told_apart():
    stub = 'def f(x):\n    """Doc."""\n    raise NotImplementedError("f")\n'
    assert is_blank(stub, "f")
    assert not is_blank(stub.replace("raise", "return x\n    raise"), "f")
    assert not is_blank("def f(:", "f")
    assert text_value("!ls\na = b = '1'\nb = 2", "b") == "1"
