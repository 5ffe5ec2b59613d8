"""Submissions, found in a folder or archive and read whole, with limits on everything.

A submission is ``STUDENT.ipynb``, a folder ``STUDENT/`` with a notebook and perhaps other files, or a zip of
such a folder; all of them may lie in a folder or in one zip. The student is who the file or folder is named
after, never who the notebook says.
"""

from __future__ import annotations

import contextlib
import json
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from qviz.labs import manifest
from qviz.labs.roster import safe
from qviz.labs.sandbox.wire import nesting
from qviz.labs.variants import same_student

FILE_BYTES = 5 << 20
ALL_BYTES = 64 << 20
FILES = 200
DEPTH = 60
_LONGEST = 150
_UNREADABLE = (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, RuntimeError)
_SKIPPED = ("__MACOSX", ".ipynb_checkpoints")


@dataclass(frozen=True)
class Submission:
    """What one student handed in.

    Args:
        student: The student's id.
        name: Where it was found, below the folder of all.
        notebook: The notebook's bytes; None where there is none that can be read.
        files: What lies beside it, by name.
        problem: Why there is no notebook, or what is odd, a sentence; empty if nothing is.
    """

    student: str
    name: str
    notebook: bytes | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    problem: str = ""


def find(place: Path, lab: str, roster: Sequence[str] | None = None) -> list[Submission]:
    """Return all submissions in a folder or zip, in the order of their students.

    Args:
        place: The folder or zip.
        lab: The lab's name, which may stand before the student's in a file's name.
        roster: The ids of the course; without it a file's name is the id.

    Raises:
        ValueError: There is nothing that can be a submission, or two are one student's.
    """
    if not place.exists():
        raise ValueError(f"no folder or zip of submissions {str(place)!r}")
    found = _in_zip(place, lab) if place.is_file() else _in_folder(place, lab)
    known = {same_student(student): student for student in roster or ()}
    known |= {safe(student): student for student in roster or ()}
    submissions: dict[str, Submission] = {}
    for one in found:
        named = _named(one, known, roster is not None)
        if (other := submissions.get(same_student(named.student))) is not None:
            raise ValueError(f"{other.name} and {one.name} are both of {named.student!r}: keep one")
        submissions[same_student(named.student)] = named
    if not submissions:
        raise ValueError(f"no submission in {place}: neither notebooks nor folders nor zips with notebooks")
    return [submissions[key] for key in sorted(submissions)]


def lab_of(place: Path, names: Sequence[str]) -> str:
    """Return the lab that most notebooks in a folder or zip say they are of.

    Raises:
        ValueError: None of them says that it is of a lab that is known.
    """
    said: Counter[str] = Counter()
    for submission in find(place, ""):
        with contextlib.suppress(ValueError):
            found = manifest.read(parsed(submission.notebook or b""))
            said[found.lab if found is not None else ""] += 1
    known = [name for name, _ in said.most_common() if name in names]
    if not known:
        raise ValueError(
            f"no notebook in {place} says which lab it is: give --lab, one of {', '.join(names)}"
        )
    return known[0]


def parsed(notebook: bytes) -> dict[str, Any]:
    """Return a notebook's JSON.

    Raises:
        ValueError: It is none, or it is nested too deeply, one sentence.
    """
    if nesting(notebook, DEPTH) > DEPTH:
        raise ValueError(f"the notebook's JSON is nested deeper than {DEPTH} levels")
    try:
        content = json.loads(notebook)
    except (ValueError, RecursionError) as error:
        raise ValueError("the file is no notebook: its JSON is damaged") from error
    if not isinstance(content, dict):
        raise ValueError("the file is no notebook: its JSON is no object")
    return content


def _named(one: Submission, known: Mapping[str, str], has_roster: bool) -> Submission:
    """The submission under the roster's spelling of its student."""
    student = known.get(one.student) or known.get(same_student(one.student))
    problem = one.problem
    if student is None and has_roster:
        problem = f"{problem} {one.student} is not in the roster.".strip()
    return Submission(student or one.student, one.name, one.notebook, one.files, problem)


def _student(stem: str, lab: str) -> str:
    """Return the id that a name stands for, as text that every file and hash takes."""
    plain = stem.encode("utf-8", "replace").decode()[:_LONGEST].strip()
    return plain.removeprefix(f"{lab}-") or plain or "unnamed"


def _in_folder(place: Path, lab: str) -> Iterator[Submission]:
    for path in sorted(place.iterdir()):
        if path.name.startswith(".") or path.name in _SKIPPED:
            continue
        student = _student(path.stem if path.suffix in (".ipynb", ".zip") else path.name, lab)
        if path.is_symlink():
            yield Submission(student, path.name, problem="It is a link, which is not followed.")
        elif path.is_dir():
            yield _whole(student, path.name, _files_of(path))
        elif path.suffix == ".ipynb":
            yield _whole(student, path.name, [(path.name, path.stat().st_size, path)])
        elif path.suffix == ".zip":
            yield _archive(student, path)


def _files_of(folder: Path) -> list[tuple[str, int, Path]]:
    """The files of a student's folder itself; a lab needs no folders in it."""
    entries = sorted(folder.iterdir())[: FILES + 1]
    return [(e.name, e.lstat().st_size, e) for e in entries if e.is_file() and not e.is_symlink()]


def _whole(student: str, name: str, entries: Iterable[tuple[str, int, Any]]) -> Submission:
    """Read a submission's files, each and all within their limits."""
    contents, total, left_out = {}, 0, []
    for entry, size, source in entries:
        total += min(size, FILE_BYTES + 1)
        if size > FILE_BYTES or total > ALL_BYTES or len(contents) >= FILES:
            left_out.append(entry)
            continue
        data = source.read_bytes() if isinstance(source, Path) else source(FILE_BYTES)
        if data is None:
            left_out.append(entry)
        else:
            contents[entry] = data
    said = f"Left out for its size: {', '.join(sorted(left_out)[:5])}." if left_out else ""
    notebooks = sorted(entry for entry in contents if entry.endswith(".ipynb"))
    if len(notebooks) != 1:
        what = f"There are {len(notebooks)} notebooks" if notebooks else "There is no notebook"
        return Submission(student, name, None, contents, f"{what}. {said}".strip())
    return Submission(student, name, contents.pop(notebooks[0]), contents, said)


def _archive(student: str, path: Path) -> Submission:
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive)
            return _whole(student, path.name, [(m[-1], info.file_size, r) for m, info, r in members])
    except _UNREADABLE as error:
        return Submission(student, path.name, problem=f"The zip cannot be read: {error}.")


def _in_zip(place: Path, lab: str) -> list[Submission]:
    """The submissions of one archive: notebooks, or a folder for each student, at its top or in a folder."""
    by_student: dict[str, list[tuple[str, int, Any]]] = {}
    try:
        with zipfile.ZipFile(place) as archive:
            members = _members(archive)
            top = {parts[0] for parts, _, _ in members}
            if len(top) == 1 and all(len(parts) > 1 for parts, _, _ in members):
                below = {len(parts) for parts, _, _ in members}
                members = (
                    [(p[1:], i, r) for p, i, r in members] if max(below) > 2 or _flat(members) else members
                )
            for parts, info, read in members:
                student = _student(PurePosixPath(parts[0]).stem if len(parts) == 1 else parts[0], lab)
                by_student.setdefault(student, []).append((parts[-1], info.file_size, read))
            return [_whole(student, student, entries) for student, entries in sorted(by_student.items())]
    except _UNREADABLE as error:
        raise ValueError(f"{place} cannot be read as a zip: {error}") from error


def _flat(members: Sequence[tuple[tuple[str, ...], Any, Any]]) -> bool:
    """Whether a folder holds several notebooks, so that it is the folder of all and not a student's."""
    return sum(parts[-1].endswith(".ipynb") for parts, _, _ in members) > 1


def _members(archive: zipfile.ZipFile) -> list[tuple[tuple[str, ...], zipfile.ZipInfo, Any]]:
    """The files of an archive with the parts of their names.

    Raises:
        ValueError: A name leads out of the archive, or is a link, or there are too many.
    """
    members = []
    for info in archive.infolist():
        parts = PurePosixPath(info.filename.replace("\\", "/")).parts
        if info.is_dir() or any(part in _SKIPPED or part.startswith("._") for part in parts):
            continue
        if not parts or parts[0] == "/" or ".." in parts or ":" in parts[0]:
            raise ValueError(f"the name {info.filename[:80]!r} leads out of the archive")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise ValueError(f"{info.filename[:80]!r} is a link")
        members.append((parts, info, _reader(archive, info)))
    if len(members) > FILES * 10:
        raise ValueError(f"there are {len(members)} files; {FILES * 10} are the most")
    return members


def _reader(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Any:
    def read(most: int) -> bytes | None:
        """At most so many bytes, whatever the archive says its size is; None if there are more."""
        with archive.open(info) as file:
            data = file.read(most + 1)
        return data if len(data) <= most else None

    return read
