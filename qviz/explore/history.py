"""History: what undo and redo go back and forth in."""

from __future__ import annotations

import time
from typing import Any, Generic, TypeVar

C = TypeVar("C")
ONE_STEP_S = 1.0
"""Moves of one control that follow each other within this time are undone together."""


class History(Generic[C]):
    """The choices before and after the present one."""

    def __init__(self) -> None:
        self.past: list[C] = []
        self.future: list[C] = []
        self._last: tuple[Any, float] = ("", 0.0)

    def moved(self, before: C, move: Any, within_s: float = ONE_STEP_S) -> None:
        """Note that ``before`` was left by a move; moves with the same name that follow in time are one."""
        now = time.monotonic()
        if move != self._last[0] or now - self._last[1] > within_s:
            self.past.append(before)
        self.future.clear()
        self._last = (move, now)

    def back(self, present: C) -> C:
        """Return the choice before, or the present one if there is none."""
        return self._travel(present, self.past, self.future)

    def forth(self, present: C) -> C:
        """Return the choice that undo left, or the present one if there is none."""
        return self._travel(present, self.future, self.past)

    def _travel(self, present: C, origin: list[C], target: list[C]) -> C:
        if not origin:
            return present
        target.append(present)
        self._last = ("", 0.0)
        return origin.pop()
