"""Hand a class's submissions over to nbgrader, repaired first: it stops at a duplicated cell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qviz.core._files import write_atomically
from qviz.labs import build, here, manifest, nbgrader, repair
from qviz.labs.master import Part
from qviz.labs.match import match
from qviz.labs.model import Lab, Variant
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
        submissions: ``STUDENT.ipynb``, ``LAB-STUDENT.ipynb`` or ``STUDENT/NAME.ipynb``.
        course: The folder of the nbgrader course.

    Raises:
        ValueError: There is no submission.
        OSError: One cannot be written.
    """
    fresh = nbgrader.student_notebook(lab, parts, variant)
    said = manifest.of(lab, variant, build.texts(lab, parts, variant))
    found = dict(_submissions(lab, submissions))
    if not found:
        raise ValueError(f"no notebooks in {submissions}")
    for student, files in sorted(found.items()):
        if len(files) > 1:
            yield Collected(student, None, (f"{len(files)} notebooks: keep one",))
            continue
        try:
            matched = match(here.read(files[0]), lab, said)
        except ValueError as error:
            yield Collected(student, None, (str(error),))
            continue
        path = course / "submitted" / student / lab.name / f"{lab.name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, build.as_bytes(repair.repaired(fresh, matched)))
        yield Collected(student, path, matched.damage)


def _submissions(lab: Lab, folder: Path) -> Iterator[tuple[str, list[Path]]]:
    """Students' names, safe for a path, and their notebooks; links and checkpoints are left out."""
    if not folder.is_dir():
        raise ValueError(f"no folder {str(folder)!r} of submissions")
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or path.name.startswith("."):
            continue
        if path.is_dir():
            inside = [file for file in sorted(path.glob("*.ipynb")) if not file.is_symlink()]
            if inside:
                yield safe(path.name), inside
        elif path.suffix == ".ipynb":
            yield safe(path.stem.removeprefix(f"{lab.name}-")), [path]
