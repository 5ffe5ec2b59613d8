"""Releases as files: for all, for a student, or a folder for each student of a roster with a key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qviz.core._files import write_atomically
from qviz.labs import build, key, source, variants
from qviz.labs.master import Part, read
from qviz.labs.model import Lab, Variant

KEYS = "keys.csv"


def write(
    lab: Lab, variant: Variant, folder: Path, form: str = "release", masters: Path | None = None
) -> list[Path]:
    """Write one release and return its files.

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
    parts = read(source.notebook(lab.name, masters), lab)
    path = build.place(folder, lab, variant.student)
    return [_save(path, build.as_bytes(build.release(lab, parts, variant)))]


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
    parts: tuple[Part, ...] = read(source.notebook(lab.name, masters), lab)
    paths, entries = [], []
    for student in students:
        variant = variants.variant(lab, secret, student)
        path = build.place(folder, lab, student, one_each=True)
        paths.append(_save(path, build.as_bytes(build.release(lab, parts, variant))))
        entries += key.of(lab, variant)
    return [*paths, _save(folder / KEYS, key.as_csv(entries).encode())]


def _save(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return path
