"""The cells of a notebook that anybody may have written: read without trusting or running any of it."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qviz.labs.manifest import Manifest, text_sha256
from qviz.labs.master import WRITE_HERE

_LONGEST = 200_000
_SHELL = re.compile(r"(?m)^([ \t]*)[!%?].*$")
_DEFINED = re.compile(r"(?m)^(?:async[ \t]+)?def[ \t]+(\w+)[ \t]*\(")
_ASSIGNED = re.compile(r"(?m)^(\w+)[ \t]*=(?!=)")
_EMPTY = {"", WRITE_HERE, WRITE_HERE.strip("*"), "YOUR ANSWER HERE"}


@dataclass(frozen=True)
class Cell:
    """A cell of a student's notebook.

    Args:
        kind: "code", "markdown" or "raw".
        text: Its text.
        names: What its ids and metadata say it is, surest first.
        tests: Whether its metadata say that it has the lab's tests.
        defines: Names that it defines as functions or assigns, at top level.
        locked: The id that a locked cell of this text has in the release; None for other cells.
    """

    kind: str
    text: str
    names: tuple[str, ...]
    tests: bool
    defines: frozenset[str]
    locked: str | None = None


def read(notebook: Mapping[str, Any], fresh: Manifest | None = None) -> tuple[Cell, ...]:
    """Return the cells of a notebook.

    Args:
        notebook: The notebook as JSON.
        fresh: What the release was, which tells its locked cells by their text.

    Raises:
        ValueError: It is no notebook at all.
    """
    raw = notebook.get("cells") if isinstance(notebook, Mapping) else None
    if not isinstance(raw, list):
        raise ValueError("it is no notebook: it has no list of cells")
    locked = {cell.sha256: cell.id for cell in fresh.cells if cell.kind != "answer"} if fresh else {}
    return tuple(_cell(cell, locked) for cell in raw if isinstance(cell, Mapping))


def is_blank(text: str, name: str) -> bool:
    """Whether an answer is as it was handed out: only a raise, an empty text, or the invitation to write."""
    if text.strip() in _EMPTY:
        return True
    tree = parsed(text)
    if tree is None:
        return False
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            body = [part for part in node.body if not _is_text(part)]
            return len(body) == 1 and isinstance(body[0], ast.Raise)
    return text_value(text, name) == ""


def text_value(text: str, name: str) -> str | None:
    """Return the text that a cell assigns to a name, the last one; None if it assigns none."""
    tree, value = parsed(text), None
    for node in tree.body if tree else ():
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            if name in names and isinstance(node.value.value, str):
                value = node.value.value
    return value


def parsed(text: str) -> ast.Module | None:
    """Return the syntax tree of a code cell, lines for a shell left out; None if it has none."""
    if len(text) > _LONGEST:
        return None
    for attempt in (text, _SHELL.sub(r"\1pass", text)):
        try:
            return ast.parse(attempt)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
    return None


def _cell(cell: Mapping[str, Any], locked: Mapping[str, str]) -> Cell:
    source, metadata = cell.get("source", ""), _mapping(cell.get("metadata"))
    text = source if isinstance(source, str) else ""
    if isinstance(source, list):
        text = "".join(line for line in source if isinstance(line, str))
    grading, own = _mapping(metadata.get("nbgrader")), _mapping(metadata.get("qviz"))
    names = (grading.get("grade_id"), own.get("answer"), cell.get("id"), metadata.get("id"))
    tests = "tests" in own or (grading.get("locked") is True and grading.get("solution") is not True)
    return Cell(
        kind=str(cell.get("cell_type")),
        text=text,
        names=tuple(dict.fromkeys(name for name in names if isinstance(name, str))),
        tests=tests,
        defines=_defined(text),
        locked=locked.get(text_sha256(text)),
    )


def _defined(text: str) -> frozenset[str]:
    """The functions and variables that a cell makes at top level, guessed by its lines if it is no Python."""
    tree = parsed(text)
    if tree is None:
        return frozenset((*_DEFINED.findall(text[:_LONGEST]), *_ASSIGNED.findall(text[:_LONGEST])))
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return frozenset(names)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
