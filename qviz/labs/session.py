"""A student's notebook that has been run in a worker, and is run again in a new one where a call ended it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from qviz.labs.judge import Call
from qviz.labs.model import Answer, Arrays, Case, Function
from qviz.labs.sandbox import Limits, Worker

STARTS = 8


class Session:
    """The code cells of a notebook, run. A context manager.

    Args:
        start: Makes a worker with some limits.
        code: The cells in order.
        limits: What the submission may use; the wall time is that of all its workers together.

    Attributes:
        isolation: The layers that were active, in words.
        ended: For each cell that ended a worker its number, from 1, and how.
    """

    def __init__(self, start: Callable[[Limits], Worker], code: Sequence[str], limits: Limits) -> None:
        self.isolation = ""
        self.ended: dict[int, str] = {}
        self._start, self._code, self._limits = start, list(code), limits
        self._until = time.monotonic() + limits.wall_seconds
        self._worker: Worker | None = None
        self._starts = 0
        self._run()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        if self._worker is not None:
            self._worker.close()

    def calls(self, question: Function, cases: Sequence[Case], wanted: Arrays | None) -> Call:
        """Return how to call the student's function for a question.

        It gets arrays of the kind that the student wants, and of the other kind if it fails with those: a
        wrong guess of ours costs nobody a point. A call that ends the worker is not made again.
        """
        self._revive()
        first: Arrays = wanted or question.arrays
        answer = Answer()
        for kind in (first, "torch" if first == "numpy" else "numpy"):
            answer = self._call(question.name, cases[0], kind)
            if answer.failure is None:
                return partial(self._case, question.name, kind)
            if self._worker is None or self._worker.ended:
                return lambda case: answer
        return partial(self._case, question.name, first)

    @property
    def alive(self) -> bool:
        """Whether there is a worker with the notebook; else its limits are used up."""
        self._revive()
        return self._worker is not None

    def has(self, name: str) -> bool:
        """Whether the notebook defines a function of this name."""
        return self._worker is not None and self._worker.has(name)

    def _case(self, name: str, kind: Arrays, case: Case) -> Answer:
        return self._call(name, case, kind)

    def _call(self, name: str, case: Case, kind: Arrays) -> Answer:
        if self._worker is None:
            return Answer(failure="time limit")
        return self._worker.call(name, case.args, arrays=kind, wrt=case.wrt, cotangent=case.cotangent)

    def _revive(self) -> None:
        """Where the worker has ended, run the notebook in a new one."""
        if self._worker is not None and self._worker.ended:
            self._run()

    def _run(self) -> None:
        """Run the cells in a worker; a cell that ends it is left out of the next one."""
        while True:
            if self._worker is not None:
                self._worker.close()
                self._worker = None
            left = self._until - time.monotonic()
            if left < 1 or self._starts >= STARTS:
                return
            self._starts += 1
            self._worker = self._start(replace(self._limits, wall_seconds=left))
            self.isolation = self._worker.isolation
            if self._all_cells(self._worker):
                return

    def _all_cells(self, worker: Worker) -> bool:
        for number, source in enumerate(self._code, 1):
            if number not in self.ended:
                worker.cell(source)
                if worker.ended:
                    self.ended[number] = worker.ended
                    return False
        return True


def arrays_wanted(sources: Sequence[str], text_value: Callable[[str, str], Any]) -> Arrays | None:
    """Return what the student wants functions to be called with: the last ``ARRAYS = "numpy"`` or "torch"."""
    said = [text_value(source, "ARRAYS") for source in sources]
    return next((value for value in reversed(said) if value in ("numpy", "torch")), None)
