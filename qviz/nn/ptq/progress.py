"""Progress: a bar for each block, and a way to stop between two steps."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from qviz.nn.train.interrupt import Interrupt
from qviz.nn.train.progress import LOG_SECONDS, bar, in_notebook


class Stopped(Exception):
    """Ctrl-C, or a notebook's stop button, was pressed; what is done is done."""


class Bar:
    """Shows the loss and the time that is left of one block, and raises Stopped where that is asked for.

    A tqdm bar in a terminal and in a notebook; elsewhere a line a minute.

    Args:
        title: The block.
        steps: How many there will be.
        pressed: Notes Ctrl-C.
        show: Whether to show anything.
    """

    def __init__(self, title: str, steps: int, pressed: Interrupt, *, show: bool) -> None:
        self.title, self.steps, self.show = title, steps, show
        self._pressed, self._bar, self._told = pressed, None, time.monotonic()

    def __enter__(self) -> Bar:
        if self.show and (sys.stdout.isatty() or in_notebook()):
            self._bar = bar(self.steps, title=self.title)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def step(self, step: int, loss: float) -> None:
        """Show that a step is done.

        Raises:
            Stopped: The user asks for it.
        """
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
            self._bar.update()
        elif self.show and time.monotonic() - self._told >= LOG_SECONDS:
            self._told = time.monotonic()
            print(f"{self.title}: step {step + 1} of {self.steps}, loss {loss:.4g}", flush=True)
        if self._pressed.asked:
            raise Stopped(f"stopped at step {step + 1} of {self.steps} of {self.title}")

    def say(self, line: str) -> None:
        """Print a line without tearing the bar."""
        if self._bar is not None:
            self._bar.write(line, file=sys.stdout)
        elif self.show:
            print(line, flush=True)
