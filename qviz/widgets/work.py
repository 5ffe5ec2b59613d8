"""Work: a long action of an explorer, in a thread of its own, with a bar and a way to stop it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import ipywidgets as w

from qviz.explore.model import Progress


class Work:
    """At most one long action at a time.

    Args:
        finish: What is told of an action's result, a function from the choice to another.
        changed: What is called when an action has begun or ended; with a sentence if it failed.

    Attributes:
        name: The name of the action that runs, or "".
        bar: How far it is.
    """

    def __init__(self, finish: Callable[[str, Any], None], changed: Callable[[str], None]) -> None:
        self._finish, self._changed = finish, changed
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.name = ""
        self.bar = w.FloatProgress(min=0.0, max=1.0, description="Working", layout={"display": "none"})

    def toggle(self, name: str, steps: Callable[[], Iterator[Progress]]) -> None:
        """Begin an action; if it runs already, stop it. While another one runs nothing happens."""
        if self.name:
            if self.name == name:
                self._stop.set()
            return
        self.name = name
        self._stop.clear()
        self.bar.value, self.bar.layout.display = 0.0, None
        self._changed("")
        self._thread = threading.Thread(target=self._run, args=(name, steps), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Return when no action runs."""
        if self._thread is not None:
            self._thread.join()

    def _run(self, name: str, steps: Callable[[], Iterator[Progress]]) -> None:
        problem = ""
        try:
            for step in steps():
                if self._stop.is_set():
                    break
                if callable(step):
                    self._finish(name, step)
                else:
                    self.bar.value = step
        except Exception as error:  # noqa: BLE001 (nobody else sees what ends a thread: the page says it)
            problem = f"{type(error).__name__}: {error}"
        finally:
            self.name, self.bar.layout.display = "", "none"
            self._changed(problem)
