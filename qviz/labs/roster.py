"""Who is in the course, and how their files are named."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from pathlib import Path

from qviz.labs.variants import same_student

_HEADS = {"student", "student_id", "studentid", "id", "matriculation", "email"}


def read(file: Path) -> list[str]:
    """Return the ids of a roster, as texts: "0123" stays "0123".

    A roster is a CSV with commas or semicolons. The column called student, student_id or id is read, or the
    first one of a file without such a heading.

    Raises:
        ValueError: It cannot be read, has nobody, or has a student twice.
    """
    try:
        text = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the roster {file} cannot be read: {error}") from error
    first = text.splitlines()[0] if text.strip() else ""
    rows = [row for row in csv.reader(io.StringIO(text), delimiter=";" if ";" in first else ",") if any(row)]
    heads = [head.strip().lower() for head in rows[0]] if rows else []
    column = next((i for i, head in enumerate(heads) if head in _HEADS), None)
    students = [row[column or 0].strip() for row in rows[column is not None :] if len(row) > (column or 0)]
    students = [student for student in students if student]
    if not students:
        raise ValueError(f"the roster {file} names no student")
    seen: dict[str, str] = {}
    for student in students:
        if (key := same_student(student)) in seen:
            raise ValueError(f"the roster {file} has {seen[key]!r} and {student!r}, which are one student")
        seen[key] = student
    return students


def safe(student: str) -> str:
    """Return a name for a student's files that every file system takes and no two students share.

    Example:
        >>> safe("s0123"), safe("../Zoë")
        ('s0123', 'zo-eb8990')
    """
    written = same_student(student)
    name = re.sub(r"[^a-z0-9._-]", "_", written).strip("._-")[:60]
    if name != written:
        name = f"{name}-{hashlib.sha256(written.encode()).hexdigest()[:6]}".strip("-")
    return name
