"""Progress: one bar for the whole inspection, where somebody looks and tqdm is installed."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from qviz.nn.train.progress import in_notebook


@contextmanager
def steps(total: int, *, show: bool) -> Iterator[Callable[[str], None]]:
    """Yield a function that is called with what comes next, once for each of ``total`` steps.

    Args:
        total: How many steps there will be.
        show: Whether to show them, on standard error; in a log file or a pipe nothing is shown.
    """
    seen = show and (sys.stderr.isatty() or in_notebook())
    if not seen or importlib.util.find_spec("tqdm") is None:
        yield lambda _: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="step", leave=False, dynamic_ncols=True) as bar:

        def step(what: str) -> None:
            bar.set_description_str(what, refresh=False)
            bar.update()

        yield step
