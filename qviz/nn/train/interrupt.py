"""Interrupt: Ctrl-C, or a notebook's stop button, ends a run between two steps and not inside one."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class Interrupt:
    """While it is entered, the first SIGINT sets :attr:`asked`, the second raises KeyboardInterrupt.

    A step that is broken off in the middle leaves weights that no uninterrupted run ever had. Outside the
    main thread, where Python allows no signal handlers, nothing is changed.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before = None

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
