"""Results: one line of JSON for each submission as it comes, and a table made of them at the end."""

from __future__ import annotations

import csv
import io
import json
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qviz.labs.model import Lab


@dataclass(frozen=True)
class Mark:
    """What one answer earned.

    Args:
        points: What it earned; None where a person decides.
        of: What a right answer earns.
        text: The hint or diagnosis for the student.
        mistake: The typical mistake that it makes, if it makes one.
        parts: What was checked, and whether it is right.
        words: The student's own words, where a person decides.
    """

    points: float | None
    of: float
    text: str = ""
    mistake: str | None = None
    parts: Mapping[str, bool] = field(default_factory=dict)
    words: str = ""


@dataclass(frozen=True)
class Result:
    """What a submission earned.

    Args:
        student: The student's id.
        name: The file or folder.
        marks: By question, in the lab's order.
        isolation: The layers around the student's code, in words; empty where none was run.
        notes: For the instructor, never for the student.
    """

    student: str
    name: str
    marks: Mapping[str, Mark]
    isolation: str
    notes: tuple[str, ...]

    @property
    def total(self) -> float:
        """The points without those that a person gives."""
        return sum(mark.points or 0.0 for mark in self.marks.values())


class Log:
    """The lines of a run, each on the disk before the next submission counts as graded.

    Args:
        path: The file. What a killed run left in it is read; half a line at its end is dropped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, Result] = {}
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        for line in lines:
            if line.endswith(b"\n") and (entry := _entry(line)) is not None:
                self.known[entry[0]] = entry[1]
        if lines and not lines[-1].endswith(b"\n"):
            self._write(b"\n")

    def append(self, key: str, result: Result) -> None:
        """Add a line and wait until it is on the disk."""
        line = json.dumps({"key": key, **asdict(result)}, ensure_ascii=True).encode() + b"\n"
        with self._lock:
            self._write(line)
            self.known[key] = result

    def _write(self, data: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


def table(lab: Lab, results: Iterable[Result]) -> str:
    """Return the grades as CSV: a row for each student, an empty field where a person decides."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = [question.name for question in lab.questions]
    writer.writerow(["student", *names, "total", "of", "by hand", "isolation", "notes", "file"])
    for result in results:
        by_hand = [name for name in names if result.marks[name].points is None]
        points = [_number(result.marks[name].points) for name in names]
        row = [result.student, *points, _number(result.total), _number(lab.points), " ".join(by_hand)]
        row += [result.isolation, "; ".join(result.notes), result.name]
        writer.writerow([harmless(field) for field in row])
    return file.getvalue()


def harmless(text: str) -> str:
    """Return a field of a table; one that a spreadsheet would take for a formula gets a quote before it.

    Example:
        >>> harmless("=1+1"), harmless("-1.5"), harmless("Zoë")
        ("'=1+1", '-1.5', 'Zoë')
    """
    if not text.lstrip().startswith(("=", "+", "-", "@")) and not text.startswith(("\t", "\r", "\n")):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def _number(points: float | None) -> str:
    return "" if points is None else f"{round(points, 4):g}"


def _entry(line: bytes) -> tuple[str, Result] | None:
    """A line of ours; None for one that is none, as half a line before a new one is."""
    try:
        said: dict[str, Any] = json.loads(line)
        marks = {name: Mark(**mark) for name, mark in said.pop("marks").items()}
        notes: Sequence[str] = said.pop("notes")
        return said.pop("key"), Result(marks=marks, notes=tuple(notes), **said)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
