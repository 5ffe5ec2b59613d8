"""Releases as files: for all, for a student, or a folder for each student of a roster with a key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qviz.core._files import write_atomically
from qviz.core._text import some
from qviz.labs import build, key, leaks, nbgrader, otter, source, variants
from qviz.labs.master import Part, read
from qviz.labs.model import Lab, Variant

KEYS = "keys.csv"


class Press:
    """Makes the releases of one lab, and lets none out that tells what it may not.

    Args:
        lab: The lab.
        masters: The folder of masters; None is the checkout's.

    Raises:
        ValueError: The master does not fit the lab.
    """

    def __init__(self, lab: Lab, masters: Path | None = None) -> None:
        self.lab = lab
        self.parts: tuple[Part, ...] = read(source.notebook(lab.name, masters), lab)
        self.secrets = leaks.secrets(lab, self.parts, source.cases_text(lab.name, masters))

    def release(self, variant: Variant, name: str = "the release") -> bytes:
        """Return a student's notebook as a file has it.

        Raises:
            ValueError: It would tell what only the instructor knows.
        """
        return self.checked(build.release(self.lab, self.parts, variant), variant, name)

    def checked(self, notebook: Mapping[str, Any], variant: Variant, name: str) -> bytes:
        """Return a notebook for students as a file has it; as :meth:`release`."""
        content = build.as_bytes(notebook)
        if told := leaks.scan(content, name, self.secrets, variant):
            raise ValueError(f"the release of {self.lab.name!r} would tell: {some(told)}")
        return content


def write(
    lab: Lab, variant: Variant, folder: Path, form: str = "release", masters: Path | None = None
) -> list[Path]:
    """Write one release and return its files; for nbgrader and otter it is the instructor's notebook.

    Args:
        lab: The lab.
        variant: Whose release.
        folder: Where.
        form: "release", "nbgrader" or "otter".
        masters: The folder of masters; None is the checkout's.

    Raises:
        ValueError: The master does not fit the lab, or something of its solution would leave.
        OSError: A file cannot be written.
    """
    press = Press(lab, masters)
    if form == "nbgrader":
        made = nbgrader.source_notebook(lab, press.parts, variant)
        press.checked(nbgrader.student_notebook(lab, press.parts, variant), variant, "the release")
        source_file = folder / "source" / lab.name / f"{lab.name}.ipynb"
        config = folder / "nbgrader_config.py"
        settings = [] if config.exists() else [_save(config, nbgrader.CONFIG.encode())]
        return [_save(source_file, build.as_bytes(made)), *settings]
    if form == "otter":
        made = otter.notebook(lab, press.parts, variant)
        return [_save(folder / f"{lab.name}-otter.ipynb", build.as_bytes(made))]
    path = build.place(folder, lab, variant.student)
    return [_save(path, press.release(variant, path.name))]


def write_roster(
    lab: Lab,
    students: Sequence[str],
    secret: bytes,
    folder: Path,
    form: str = "release",
    masters: Path | None = None,
) -> list[Path]:
    """Write a folder for each student, and the key of all beside them; the key stays with the instructor.

    Raises:
        ValueError: As :func:`write`, or a format that has one notebook for all.
        OSError: A file cannot be written.
    """
    if form != "release":
        raise ValueError(f"the format {form!r} has one notebook for all students; a roster needs release")
    press, paths, entries = Press(lab, masters), [], []
    for student in students:
        variant = variants.variant(lab, secret, student)
        path = build.place(folder, lab, student, one_each=True)
        paths.append(_save(path, press.release(variant, path.name)))
        entries += key.of(lab, variant)
    return [*paths, _save(folder / KEYS, key.as_csv(entries).encode())]


def _save(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return path
