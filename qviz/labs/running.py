"""Run a notebook's code and its public tests away from this process: in the sandbox, or in a plain one."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import tempfile
from typing import Any

from qviz.labs import harness
from qviz.labs.checking import Seen, tests_of
from qviz.labs.manifest import Manifest
from qviz.labs.match import Matched
from qviz.labs.sandbox import cells

_MARK = "qviz-labs-check:"
_SECONDS = 120
_CHILD = """
import json, sys
given = json.load(sys.stdin)
parts = [{"__name__": "part"} for text in given["sources"]]
for names, text in zip(parts, given["sources"]):
    exec(text, names)
notebook = parts[0]["Notebook"]()
ends = [notebook.run(text) for text in given["cells"]]
seen = parts[1]["examined"](given["tests"], given["arrays"], notebook.names)
print("\\n" + given["mark"] + json.dumps({**seen, "ends": ends}))
"""


def in_sandbox(said: Manifest, found: Matched) -> Seen:
    """Run a notebook in the sandbox that grading uses; qviz cannot be imported there."""
    from qviz.labs.sandbox import Limits, Zygote

    limits = Limits(call_seconds=30, wall_seconds=_SECONDS, cpu_seconds=_SECONDS)
    with Zygote() as zygote, zygote.worker(limits=limits) as worker:
        done = [worker.cell(text) for _, text in found.code]
        ends = [(cell.error, cell.line) for cell in done]
        ask = f"examined({tests_of(said)!r}, {list(said.data)!r}, dict(globals()))"
        script = f"{inspect.getsource(harness)}\nimport json\nprint({_MARK!r} + json.dumps({ask}))"
        printed = worker.cell(script).output
        return _seen(said, found, printed, ends, worker.ended or "the tests did not end")


def in_process(said: Manifest, found: Matched) -> Seen:
    """Run a notebook in a process of its own, which may do whatever the user may."""
    given = {
        "sources": [inspect.getsource(cells), inspect.getsource(harness)],
        "cells": [text for _, text in found.code],
        "tests": tests_of(said),
        "arrays": list(said.data),
        "mark": _MARK,
    }
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-c", _CHILD],
                input=json.dumps(given),
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                cwd=folder,
                env={**os.environ, "MPLBACKEND": "agg"},
                check=False,
            )
        except subprocess.TimeoutExpired:
            return _seen(said, found, "", [], "time limit")
    return _seen(said, found, done.stdout, [], "process ended")


def _seen(said: Manifest, found: Matched, printed: str, ends: list[Any], otherwise: str) -> Seen:
    """Read what was printed; without it, every test fails for one reason."""
    line = next((line for line in reversed(printed.splitlines()) if line.startswith(_MARK)), "")
    try:
        told = json.loads(line.removeprefix(_MARK))
        tests = [(str(question), why if why is None else str(why)) for question, why in told["tests"]]
        arrays = {str(name): str(digest) for name, digest in told["arrays"].items()}
        ends = ends or told["ends"]
        tests = tests if [q for q, _ in tests] == [q for q, _ in tests_of(said)] else []
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        tests, arrays = [], {}
    if not tests:
        tests = [(question, otherwise) for question, _ in tests_of(said)]
    return Seen(tests, arrays, _ends(said, found, ends))


def _ends(said: Manifest, found: Matched, ends: list[Any]) -> list[str]:
    """Cells of the student's that ended with an error, in words; the lab's own need qviz, or what failed."""
    own = {cell.text for cell in found.cells if cell.locked is not None}
    sentences = []
    for (name, text), end in zip(found.code, ends, strict=False):
        if text in own or not end or end[0] is None:
            continue
        what = f"the cell of `{name}`" if name else f"your cell {text.strip().splitlines()[0][:40]!r}"
        where = f" in line {end[1]}" if end[1] else ""
        sentences.append(f"{what} ends with {end[0]}{where}")
    return sentences
