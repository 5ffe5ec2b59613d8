"""Does a release tell what only the instructor knows? Solutions, references, mistakes, hints, model answers.

Compared are lines of code by their tokens (spacing, comments and colors do not matter), statements by their
shape (names do not matter) and sentences by their words. What the master shows to everybody is no secret, but
for a model answer, which nobody shows on purpose. A real cipher is not broken.
"""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from qviz.labs import unpack
from qviz.labs.master import Part
from qviz.labs.model import Function, Lab, Variant, Written

_TOKEN = re.compile(r"[^\W\d]\w*|\d+(?:\.\d*)?(?:e[+-]?\d+)?|[^\s\w]")
_COLOR = re.compile(r"\x1b\[[0-9;]*m")
_SENTENCE = re.compile(r"(?<=[.!?:])\s+|\n\s*\n")
_FORBIDDEN = re.compile(
    r"\.git|.*\.db|.*\.py[co]|__pycache__|\.ipynb_checkpoints|\.jupyter|.*\.key|.*_cases\.py|keys\.csv|.*\.pkl"
)


@dataclass(frozen=True)
class Secrets:
    """What may not be in a release.

    Args:
        lines: Lines of code, as tokens with single spaces.
        shapes: Statements whose names are numbered.
        sentences: Sentences, as words with single spaces.
    """

    lines: frozenset[str]
    shapes: frozenset[str]
    sentences: frozenset[str]


def secrets(lab: Lab, parts: Sequence[Part], cases: str) -> Secrets:
    """Collect what a release of a lab may not have.

    Args:
        lab: The lab.
        parts: Its master.
        cases: The text of its cases.
    """
    code = [cases, *(part.solved for part in parts if part.kind == "answer" and not part.markdown)]
    words = [*_words_of(lab), *_docstrings(cases)]
    public = [part.blank for part in parts]
    shown_lines, shown_words = (" \n ".join(map(f, public)) for f in (_line, _words))
    shown_shapes = {shape for text in public for shape in _shapes(text)}
    return Secrets(
        lines=frozenset(line for text in code for line in _lines(text) if line not in shown_lines),
        shapes=frozenset(shape for text in code for shape in _shapes(text)) - shown_shapes,
        sentences=frozenset(s for text in words for s in _sentences(text) if s not in shown_words)
        | {s for q in lab.questions if isinstance(q, Written) for s in _sentences(q.answer)},
    )


def scan(content: bytes, name: str, secret: Secrets, variant: Variant | None = None) -> list[str]:
    """Return what a file tells that it may not, a sentence each; an empty list is a clean file.

    Args:
        content: The file's bytes.
        name: Its name, as it is shown.
        secret: What may not be in it.
        variant: Whose release it is; its hidden seed may not be in it either.
    """
    told = [*_structure(content, name)] if name.endswith(".ipynb") else []
    hidden = "" if variant is None else str(variant.hidden_seed)
    seen: set[str] = set()
    for found in unpack.from_bytes(content, name):
        if found.opaque:
            told.append(f"{found.where}: {found.opaque}, which cannot be looked into")
        elif found.text not in seen:
            seen.add(found.text)
            told += [f"{found.where}: {what}" for what in _told(found.text, secret, hidden)]
    return list(dict.fromkeys(told))


def scan_folder(folder: Path, secret: Secrets) -> list[str]:
    """Return what the files of a folder tell, and which of them should not be there at all."""
    told = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        bad = [part for part in path.relative_to(folder).parts if _FORBIDDEN.fullmatch(part)]
        if bad:
            told.append(f"{name}: {bad[0]} does not belong into a release")
        elif path.is_file():
            told += scan(path.read_bytes(), name, secret)
    return told


def _told(text: str, secret: Secrets, hidden: str) -> Iterator[str]:
    if hidden and re.search(rf"(?<!\d){hidden}(?!\d)", text):
        yield "the hidden seed"
    for disguise, shown in unpack.disguises(_COLOR.sub("", text)):
        how = f" ({disguise})" if disguise else ""
        if line := _first(secret.lines, _line(shown)):
            yield f"a line of the solution or of the cases{how}: {line[:60]}"
        if sentence := _first(secret.sentences, _words(shown)):
            yield f"a sentence that is the instructor's{how}: {sentence[:60]}"
        if not disguise and secret.shapes & set(_shapes(shown)):
            yield "a statement of the solution or of the cases under other names"


def _structure(content: bytes, name: str) -> Iterator[str]:
    """What a notebook that was never run does not have."""
    try:
        cells = json.loads(content)["cells"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return
    for number, cell in enumerate(cells, 1):
        for part in ("outputs", "attachments"):
            if cell.get(part):
                yield f"{name}, cell {number}: it has {part}"


def _first(wanted: Iterable[str], text: str) -> str | None:
    return next((one for one in wanted if one in text), None)


def _lines(code: str) -> Iterator[str]:
    """The lines of some code, without comments and docstrings, long enough to be somebody's."""
    rows: dict[int, list[str]] = {}
    try:
        for token in tokenize.generate_tokens(io.StringIO(_dedented(code)).readline):
            skipped = token.type in (tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT, tokenize.NL)
            if not skipped and token.start[0] == token.end[0]:
                rows.setdefault(token.start[0], []).append(token.string)
    except (tokenize.TokenError, IndentationError):
        rows = dict(enumerate([line] for line in code.splitlines()))
    for row in rows.values():
        line = _line(" ".join(row))
        if len(line) >= 14 and line.count(" ") >= 4:
            yield line


def _shapes(code: str) -> Iterator[str]:
    """Statements and bodies of lambdas with their names numbered, large enough to be somebody's."""
    try:
        tree = ast.parse(_dedented(code))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        try:
            tree = ast.parse("def _():\n" + "\n".join(f"    {line}" for line in code.splitlines()))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return
    for node in ast.walk(tree):
        inner = node.value if isinstance(node, ast.Return) else node
        inner = node.body if isinstance(node, ast.Lambda) else inner
        large = isinstance(node, (ast.Return, ast.Lambda, ast.Assign, ast.AugAssign, ast.For, ast.If))
        if large and inner is not None and sum(1 for _ in ast.walk(inner)) >= 14:
            yield _shape(inner)


def _shape(tree: ast.AST) -> str:
    numbers: dict[str, str] = {}
    text = ast.dump(tree)
    return re.sub(
        r"(?<=id=')\w+(?=')|(?<=arg=')\w+(?=')", lambda m: numbers.setdefault(m[0], f"_{len(numbers)}"), text
    )


def _words_of(lab: Lab) -> Iterator[str]:
    for question in lab.questions:
        if isinstance(question, Written):
            yield question.rubric
        elif isinstance(question, Function):
            yield from (mistake.hint for mistake in question.mistakes.values())


def _docstrings(code: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)):
            yield ast.get_docstring(node) or ""


def _sentences(text: str) -> Iterator[str]:
    for sentence in _SENTENCE.split(text):
        words = _words(sentence)
        if words.count(" ") >= 4:
            yield words


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _line(text: str) -> str:
    return " ".join(_TOKEN.findall(text))


def _dedented(code: str) -> str:
    lines = [line for line in code.splitlines() if line.strip()]
    least = min((len(line) - len(line.lstrip()) for line in lines), default=0)
    return "\n".join(line[least:] for line in code.splitlines())
