"""TimeMachine: watch recorded runs learn to be quantized."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from qviz.explore.time_machine import TimeModel
from qviz.nn.train.recording import LayerRecording
from qviz.widgets.explorer import Explorer


class TimeMachine(Explorer):
    """Scrub two recorded trainings, step by step: weights on their grids, one weight's path, curves.

    Drag the dot on a grid to follow another weight, or the dots over the steps to travel in time.

    Args:
        *runs: Recordings of your own, or the files that they were saved to (see
            :class:`~qviz.nn.LayerRecorder`); by default four that ship with the package.
        show: The names of the controls on the page, all by default.

    Raises:
        ValueError: A file is no recording, or two runs have one name.
        FileNotFoundError: There is no such file.

    Example:
        >>> machine = TimeMachine()
        >>> machine.step.value = 20
        >>> machine.scene().title[:7]
        'Step 20'
    """

    model: TimeModel

    def __init__(self, *runs: LayerRecording | str | Path, show: Iterable[str] | None = None) -> None:
        super().__init__(TimeModel(*runs), show=show)
