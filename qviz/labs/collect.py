"""Hand a class's submissions over to nbgrader, repaired first: it stops at a duplicated cell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qviz.core._files import write_atomically
from qviz.labs import build, collected, manifest, nbgrader, repair
from qviz.labs.master import Part
from qviz.labs.match import match
from qviz.labs.model import Handed, Lab, Variant
from qviz.labs.roster import safe


@dataclass(frozen=True)
class Collected:
    """One submission.

    Args:
        student: The name of its folder or file.
        path: Where it was written; None if it was not.
        said: What was wrong with it.
    """

    student: str
    path: Path | None
    said: tuple[str, ...]


def collect(
    lab: Lab, parts: tuple[Part, ...], variant: Variant, submissions: Path, course: Path
) -> Iterator[Collected]:
    """Write each submission, repaired, into nbgrader's ``submitted`` and tell what was done.

    Args:
        lab: The lab.
        parts: Its master.
        variant: The variant of the course's release.
        submissions: A folder or zip of them, as grading takes it.
        course: The folder of the nbgrader course.

    Raises:
        ValueError: There is no submission.
        OSError: One cannot be written.
    """
    fresh = nbgrader.student_notebook(lab, parts, variant)
    said = manifest.of(lab, variant, build.texts(lab, parts, variant))
    for handed in collected.find(submissions, lab.name):
        student = safe(handed.student)
        if handed.notebook is None:
            yield Collected(student, None, (handed.problem,))
            continue
        try:
            matched = match(collected.parsed(handed.notebook), lab, said)
        except ValueError as error:
            yield Collected(student, None, (str(error),))
            continue
        folder = course / "submitted" / student / lab.name
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{lab.name}.ipynb"
        write_atomically(path, build.as_bytes(repair.repaired(fresh, matched)))
        for question in lab.questions:
            if isinstance(question, Handed) and question.file in handed.files:
                write_atomically(folder / question.file, handed.files[question.file])
        yield Collected(student, path, tuple(filter(None, (handed.problem, *matched.damage))))
