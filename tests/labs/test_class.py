"""A class of right, wrong, broken and hostile submissions: every grade as expected, nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from qviz.labs import grade, source
from qviz.labs.sandbox import isolation
from tests.labs import synthetic

LAB = "lab4-codebooks"


@pytest.mark.slow
@pytest.mark.skipif(not isolation.landlock(), reason="this kernel has no Landlock")
def test_a_class_is_graded_as_expected(zygote, tmp_path):
    lab, hidden = source.load(LAB), tmp_path / "hidden.py"
    hidden.write_text("'hidden 4711'")
    students = synthetic.class_of(60, lab, tmp_path / "in", hidden)
    done = grade.grade(
        tmp_path / "in",
        lab,
        out=tmp_path / "grades.csv",
        secret=synthetic.SECRET,
        zygote=zygote,
        html=tmp_path / "h",
    )
    assert done.failed == 0
    for student, result in zip(students, done.results, strict=True):
        assert result.student == student.name
        assert student.least - 1e-9 <= result.total <= student.most + 1e-9, result
        assert student.note in " ".join(result.notes), result
    assert hidden.read_text() == "'hidden 4711'"
    assert "hidden 4711" not in "".join(path.read_text() for path in (tmp_path / "h").iterdir())
    assert not [path for path in zygote._home.iterdir() if path.is_dir()]
    children = Path(f"/proc/{zygote.pid}/task/{zygote.pid}/children")
    assert not children.exists() or children.read_text() == ""
