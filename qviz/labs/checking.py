"""The public tests of a lab on a student's notebook, with everything that is wrong with it in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qviz.labs.harness import examined
from qviz.labs.manifest import Manifest
from qviz.labs.match import Matched, kinds_said, match_kinds


@dataclass(frozen=True)
class Report:
    """What a check found.

    Args:
        about: Whose notebook of which lab it is.
        damage: What is wrong with the notebook, a sentence each.
        tests: Each question that has public tests, and why they fail; None if they pass.
        notes: What else is to be known: data that differ, cells that end with an error, open questions.
    """

    about: str
    damage: tuple[str, ...]
    tests: tuple[tuple[str, str | None], ...]
    notes: tuple[str, ...]

    @property
    def fine(self) -> bool:
        """Whether nothing is damaged and all public tests pass."""
        return not self.damage and all(why is None for _, why in self.tests)

    def __str__(self) -> str:
        lines = [self.about, *(f"damaged: {sentence}" for sentence in self.damage)]
        lines += [f"{name}: {'public tests pass' if why is None else why}" for name, why in self.tests]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


@dataclass(frozen=True)
class Seen:
    """What a run of a notebook's code showed.

    Args:
        tests: A question and why its test fails, for each test cell.
        arrays: SHA-256 of arrays, by name.
        ends: Cells that ended with an error, in words.
    """

    tests: Sequence[tuple[str, str | None]]
    arrays: Mapping[str, str | None]
    ends: Sequence[str] = ()


def match_said(notebook: Mapping[str, Any], said: Manifest) -> Matched:
    """Match a notebook with the release that a manifest describes."""
    return match_kinds(notebook, kinds_said(said), said)


def tests_of(said: Manifest) -> list[tuple[str, str]]:
    """Return the public tests of a release: questions and texts."""
    return [(str(cell.question), cell.text) for cell in said.cells if cell.kind == "tests"]


def in_kernel(said: Manifest, names: Mapping[str, Any]) -> Seen:
    """Run the public tests on names that are here, as in a notebook's kernel."""
    seen = examined(tests_of(said), list(said.data), dict(names))
    return Seen([(question, why) for question, why in seen["tests"]], seen["arrays"])


def report(said: Manifest, seen: Seen, found: Matched | None) -> Report:
    """Put together what is known.

    Args:
        said: The release's manifest.
        seen: What the run showed.
        found: The notebook, matched; None where only the kernel was looked at.
    """
    whys: dict[str, str | None] = {}
    for question, why in seen.tests:
        whys[question] = whys.get(question) or why
    notes = [
        f"your data `{name}` differ from those that were handed out: run the first cells again"
        for name, digest in said.data.items()
        if name in seen.arrays and seen.arrays[name] != digest
    ]
    tested = {question for question, _ in seen.tests}
    if found is not None:
        notes += seen.ends
        notes += [
            f"`{name}` is not answered yet" for name in kinds_said(said) if name in found.blank - tested
        ]
        notes += _state_notes(said, found)
    about = f"{said.lab}, version {said.version}, {said.student}"
    return Report(about, found.damage if found else (), tuple(whys.items()), tuple(notes))


def _state_notes(said: Manifest, found: Matched) -> list[str]:
    """States that are no JSON object, which no grader will read."""
    from qviz.labs.cells import text_value

    notes = []
    for name, kind in kinds_said(said).items():
        if kind == "state" and name in found.answers and name not in found.blank:
            try:
                fine = isinstance(json.loads(text_value(found.answers[name], name) or ""), dict)
            except (ValueError, RecursionError):
                fine = False
            if not fine:
                notes.append(f'`{name}` is no state of an explorer: give the JSON as {name} = """{{...}}"""')
    return notes
