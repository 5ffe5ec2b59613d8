"""Progress: a tqdm bar in a terminal or notebook, one line a minute in a log, nothing if it is not wanted."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from typing import Any

LOG_SECONDS = 60.0
"""Seconds between lines where there is no terminal."""
WARM_UP, TIMED = 5, 10
"""Steps before the clock starts, and steps that it runs, for the estimate of the time that is left."""


class Progress:
    """Shows step, loss, accuracy and the time that is left.

    In a terminal and in a notebook it is a tqdm bar on standard output; elsewhere (a log file, a pipe) a
    printed line once a minute and at each epoch's end, because bars fill logs with thousands of fragments.

    Args:
        steps: The steps of the whole run.
        done: Those of an earlier part of it.
        show: Whether to show anything.
    """

    def __init__(self, steps: int, done: int, *, show: bool) -> None:
        self.steps, self.done, self.warm, self.show = steps, done, done + WARM_UP, show
        self.told = time.monotonic()
        self.started: float | None = None
        self._bar: Any = None
        if show and (sys.stdout.isatty() or in_notebook()):
            self._bar = bar(steps, done)

    def say(self, line: str) -> None:
        """Print a line without tearing the bar."""
        if not self.show:
            return
        if self._bar is not None:
            self._bar.write(line, file=sys.stdout)
        else:
            print(line, flush=True)

    def update(self, step: int, epoch: int, figures: str) -> None:
        """Show that ``step`` is done, with the running figures of the epoch."""
        if not self.show:
            return
        if step == self.warm:
            self.started = time.monotonic()
        if self._bar is not None:
            self._bar.set_postfix_str(f"epoch {epoch}, {figures}", refresh=False)
            self._bar.update(step - self.done)
        elif time.monotonic() - self.told >= LOG_SECONDS:
            self.told = time.monotonic()
            print(
                f"step {step}/{self.steps}, epoch {epoch}: {figures}{self._left(step)}",
                flush=True,
            )
        self.done = step

    def _left(self, step: int) -> str:
        """Return how long the rest will take, once the first steps, which compile and warm up, are over."""
        if self.started is None or step == self.warm:
            return ""
        each = (time.monotonic() - self.started) / (step - self.warm)
        return f", {each * (self.steps - step) / 60:.1f} min left"

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()


class Timer:
    """Says once, as soon as enough steps were timed, how long the rest will take.

    The steps are the run's own, so that timing them costs nothing and disturbs nothing.
    """

    def __init__(self, progress: Progress, step: int, stop: int) -> None:
        self.progress, self.first, self.stop = progress, step, stop
        self.began = 0.0

    def tick(self, step: int) -> None:
        """Note that a step is done."""
        done = step - self.first
        if done == WARM_UP:
            self.began = time.monotonic()
        if done == WARM_UP + TIMED:
            each = (time.monotonic() - self.began) / TIMED
            left = _duration(each * (self.stop - step))
            self.progress.say(
                f"  about {left} left, evaluations not counted ({each:.3f} s a step, measured over {TIMED})"
            )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def epoch_line(row: Mapping[str, float]) -> str:
    """Return an epoch's row of the History as a line of text."""
    parts = []
    for name in ("train", "val", "test"):
        if f"{name}_loss" in row:
            text = f"{name} loss {row[f'{name}_loss']:.4f}"
            text += f", top1 {row[f'{name}_top1']:.2%}" if f"{name}_top1" in row else ""
            parts.append(text + (f", metric {row[f'{name}_metric']:.4g}" if f"{name}_metric" in row else ""))
    return f"epoch {row['epoch']}: {'; '.join(parts)}; {row['minutes']:.1f} min"


def figures(loss: float, name: str, value: float) -> str:
    """Return running figures for the bar; accuracy in percent, and nothing where there is no figure."""
    if math.isnan(value):
        return f"loss {loss:.3f}"
    return f"loss {loss:.3f}, {name} " + (f"{value:.1%}" if name == "top1" else f"{value:.4g}")


def in_notebook() -> bool:
    """Return whether a Jupyter kernel runs this."""
    shell = sys.modules.get("IPython")
    return shell is not None and getattr(shell.get_ipython(), "kernel", None) is not None


def bar(steps: int, done: int = 0, title: str | None = None) -> Any:
    """Return a tqdm bar on standard output.

    Raises:
        ImportError: tqdm is not installed.
    """
    try:
        from tqdm import tqdm
    except ImportError as problem:
        raise ImportError("training needs tqdm: pip install 'qviz-quantization[train]'") from problem
    return tqdm(
        total=steps,
        initial=done,
        desc=title,
        unit="step",
        file=sys.stdout,
        dynamic_ncols=True,
        mininterval=0.5,
        leave=True,
    )
