"""A master notebook, read: which cell is what, which part of an answer is the solution."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from qviz.labs.model import Function, Handed, Lab, State, Written

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
HERE = "# your code here"
WRITE_HERE = "*Your answer here.*"

Kind = Literal["text", "code", "given", "tests", "answer"]
_KEYS = {"given", "tests", "answer"}


@dataclass(frozen=True)
class Part:
    """One cell of a master.

    Args:
        id: The same in every build: the question's name for an answer, else made from the cell's text.
        kind: What the cell is for.
        source: Its text, solution and all.
        markdown: Whether it is text rather than code.
        question: The question that an answer answers, or that tests test.
    """

    id: str
    kind: Kind
    source: str
    markdown: bool
    question: str | None = None

    @property
    def solved(self) -> str:
        """The text with its solution, without the marks around it."""
        return "\n".join(line for line in self.source.splitlines() if line.strip() not in (BEGIN, END))

    @property
    def blank(self) -> str:
        """The text with every solution taken out, as a student gets it."""
        if self.kind != "answer":
            return self.source
        if self.markdown:
            return WRITE_HERE
        lines: list[str] = []
        region: list[str] | None = None
        for line in self.source.splitlines():
            if line.strip() == BEGIN:
                region = []
            elif line.strip() == END:
                indent = line[: len(line) - len(line.lstrip())]
                lines += _stub(indent, str(self.question), "\n".join(region or []))
                region = None
            else:
                (lines if region is None else region).append(line)
        return "\n".join(lines)


def read(notebook: Mapping[str, Any], lab: Lab) -> tuple[Part, ...]:
    """Read a master.

    Args:
        notebook: The notebook as JSON.
        lab: Whose questions the cells name.

    Raises:
        ValueError: A cell's metadata, a solution's marks or the questions do not fit, one sentence.
    """
    parts: list[Part] = []
    for number, cell in enumerate(notebook["cells"], 1):
        if cell["cell_type"] != "raw":
            parts.append(_part(cell, f"cell {number} of {lab.name!r}", [p.id for p in parts]))
    answers = [part.question for part in parts if part.kind == "answer"]
    asked = [q.name for q in lab.questions if not isinstance(q, Handed)]
    if sorted(map(str, answers)) != sorted(asked):
        raise ValueError(f"the master of {lab.name!r} answers {answers}, its questions are {asked}")
    for part in parts:
        if part.kind == "tests":
            lab.question(str(part.question))
        if part.kind == "answer":
            _check_answer(part, lab)
    if lab.variants[0] and not any(part.kind == "given" for part in parts):
        raise ValueError(f"the master of {lab.name!r} has no cell marked given for {list(lab.variants[0])}")
    return tuple(parts)


def with_values(source: str, values: Mapping[str, Any]) -> str:
    """Replace the literals of top-level assignments ``NAME = literal``.

    Args:
        source: The text of a cell.
        values: New values by name; names that the cell does not assign are left out.
    """
    lines = source.encode().splitlines()
    for node in reversed(ast.parse(source).body):
        if not isinstance(node, ast.Assign) or len(node.targets) != 1:
            continue
        target, value = node.targets[0], node.value
        if not isinstance(target, ast.Name) or target.id not in values:
            continue
        first, last = value.lineno - 1, int(value.end_lineno or value.lineno) - 1
        tail = lines[last][value.end_col_offset :]
        lines[first : last + 1] = [
            lines[first][: value.col_offset] + literal(values[target.id]).encode() + tail
        ]
    return b"\n".join(lines).decode()


def assigned(source: str) -> set[str]:
    """Return the names that a cell assigns at top level."""
    nodes = [node for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    return {target.id for node in nodes for target in node.targets if isinstance(target, ast.Name)}


def literal(value: object) -> str:
    """Return a value as Python text that gives the value back.

    Raises:
        ValueError: No literal does.
    """
    text = repr(value)
    try:
        same = ast.literal_eval(text) == value
    except (ValueError, SyntaxError) as error:
        raise ValueError(f"a parameter of a variant is a literal, got {text:.80}") from error
    if not same:
        raise ValueError(f"a parameter of a variant is a literal, got {text:.80}")
    return text


def text_of(cell: Mapping[str, Any]) -> str:
    """Return a cell's text, which JSON has as a string or as a list of lines."""
    source = cell.get("source", "")
    return source if isinstance(source, str) else "".join(map(str, source))


def functions(source: str) -> tuple[str, ...]:
    """Return the names that a code cell defines at top level as functions; none if it is no Python."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    return tuple(node.name for node in body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def _part(cell: Mapping[str, Any], where: str, taken: Sequence[str]) -> Part:
    metadata, source = cell.get("metadata", {}), text_of(cell)
    if "incorrectly_encoded_metadata" in metadata:
        raise ValueError(f"{where}: write the metadata after [markdown]: # %% [markdown] qviz={{...}}")
    marks = metadata.get("qviz", {})
    if not isinstance(marks, Mapping) or len(marks) > 1 or not set(marks) <= _KEYS:
        raise ValueError(f"{where}: qviz takes one of {sorted(_KEYS)}, got {marks!r}")
    markdown = cell["cell_type"] == "markdown"
    kind: Any = next(iter(marks), "text" if markdown else "code")
    question = None if kind in ("text", "code", "given") else str(marks[kind])
    name = question if kind == "answer" else f"{question}-tests" if kind == "tests" else _hash(source)
    if kind == "answer" and name in taken:
        raise ValueError(f"{where}: the question {name!r} has two answers")
    if markdown and kind in ("given", "tests"):
        raise ValueError(f"{where}: a cell marked {kind} is code")
    return Part(_free(str(name), taken), kind, source, markdown, question)


def _free(name: str, taken: Sequence[str]) -> str:
    """A cell's id that no other has, and that notebooks may have: at most 64 letters."""
    name, number = name[:58], 1
    while (wanted := name if number == 1 else f"{name}-{number}") in taken:
        number += 1
    return wanted


def _hash(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()[:12]


def _stub(indent: str, question: str, solution: str) -> list[str]:
    """What stands where a solution stood: in a function an exception, for a top-level text an empty one.

    The text has single quotes, because the JSON that is pasted between them has double ones.
    """
    if indent:
        return [f"{indent}{HERE}", f'{indent}raise NotImplementedError("{question}")']
    return [f"{question} = ''"] if question in assigned(solution) else [HERE]


def _check_answer(part: Part, lab: Lab) -> None:
    question = lab.question(str(part.question))
    if part.markdown != isinstance(question, Written):
        raise ValueError(f"the answer {part.question!r} of {lab.name!r} is in a cell of the wrong type")
    if part.markdown:
        return
    marks = [line.strip() for line in part.source.splitlines() if line.strip() in (BEGIN, END)]
    if not marks or marks != [BEGIN, END] * (len(marks) // 2):
        raise ValueError(f"the answer {part.question!r} of {lab.name!r} needs {BEGIN} before {END}")
    defined = functions(part.blank) if isinstance(question, Function) else assigned(part.blank)
    if question.name not in defined:
        kind = "assigns no top-level" if isinstance(question, State) else "defines no function"
        raise ValueError(f"the answer cell of {question.name!r} in {lab.name!r} {kind} {question.name}")
