"""Time machine: a network learns to be quantized, frame by frame, two runs side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from qviz.explore import recorded
from qviz.explore.controls import Number, Pick, Slide, control
from qviz.explore.frames import NONE, Shown, curves, opened, presets, restless, told
from qviz.explore.model import Action, Model
from qviz.nn.train.recording import LayerRecording
from qviz.plot.scene import Scene

PAGE_FRAMES = 16


@dataclass(frozen=True)
class TimeChoice:
    """Two runs, a step, and one weight to follow."""

    run_a: str = control("", Pick("Run A", "The first run."))
    run_b: str = control(NONE, Pick("Run B", "The second run, shown at the same step."))
    step: int = control(
        0, Slide("Step", "The training step, of both runs.", low=0, high=1, step=1, play=True)
    )
    weight: int = control(1, Number("Weight", "The weight to follow, by its number.", low=1, high=2, step=1))
    curve: str = control("codes changed", Pick("Curve", "What the last picture shows over the steps."))


class TimeModel(Model[TimeChoice]):
    """Master and quantized weights of two recorded runs, locked at one step, and how they got there.

    Args:
        runs: Recordings, or their files; by default the four that ship with the package.

    Raises:
        ValueError: A file is no recording, or two runs have one name.
        FileNotFoundError: There is no such file.
    """

    rescales = ("run_a", "run_b", "weight", "curve")

    def __init__(self, *runs: LayerRecording | str | Path) -> None:
        self.runs = opened(*runs)
        self.last = max(1, *(int(run.steps[-1]) for run in self.runs.values()))
        first, second = (*self.runs, NONE)[:2]
        self.start = TimeChoice(first, second, weight=restless(self.runs[first])[0])
        self.presets: Mapping[str, Mapping[str, Any]] = presets(self.runs, self.last, own=bool(runs))

    def shown(self, c: TimeChoice) -> list[Shown]:
        """Return both runs at the step; without run B, run A now and at its start."""
        a = self.runs[c.run_a]
        now = Shown(f"A: {c.run_a}", a, a.frame(c.step), "a")
        if c.run_b == NONE:
            return [now, Shown(f"the start of {c.run_a}", a, 0, "b")]
        b = self.runs[c.run_b]
        return [now, Shown(f"B: {c.run_b}", b, b.frame(c.step), "b")]

    def limits(self, c: TimeChoice) -> dict[str, dict[str, Any]]:
        """Return the runs, the last step, the number of weights, and the curves."""
        count = self.runs[c.run_a].master.shape[1] if c.run_a in self.runs else 1
        return {
            "run_a": {"options": tuple(self.runs)},
            "run_b": {"options": (*self.runs, NONE)},
            "step": {"high": self.last},
            "weight": {"high": count},
            "curve": {"options": curves(self.runs)},
        }

    def followed(self, choice: TimeChoice) -> TimeChoice:
        """Keep the weight among those that run A has."""
        return self.inside(choice, "weight")

    def actions(self, choice: TimeChoice) -> dict[str, Action[TimeChoice]]:
        """Return the button that finds weights whose codes change often."""
        text = "Follow the weight of run A whose code changed most often; press again for the next one"
        return {"next_restless": Action("Next restless weight", text, self._next)}

    def _next(self, c: TimeChoice) -> TimeChoice:
        order = restless(self.runs[c.run_a])
        return replace(c, weight=order[(order.index(c.weight) + 1) % len(order)])

    def dragged(self, c: TimeChoice, panel: int, mark: int, index: int, x: float, y: float) -> TimeChoice:
        """Follow the weight nearest to where the dot was dropped, or go to that step."""
        if panel > 1:
            return replace(c, step=round(min(max(x, 0), self.last)))
        one = self.shown(c)[panel]
        return self.followed(replace(c, weight=int(np.abs(one.run.master[one.frame] - x).argmin()) + 1))

    def headline(self, choice: TimeChoice) -> dict[str, float]:
        """Return error and restlessness of each run at the step."""
        return {
            f"{one.name[:1]}: {what}": one.figures()[column]
            for one in self._runs(choice)
            for what, column in (("changes of code a weight", "changes"), ("error (%)", "error (%)"))
        }

    def scene(self, choice: TimeChoice) -> Scene:
        """Return both grids with the weights on them, one weight over the steps, and a curve."""
        c, shown, runs = choice, self.shown(choice), self._runs(choice)
        panels = (
            *(recorded.grid(one, c.weight) for one in shown),
            recorded.path(runs, c.weight, c.step, self.last),
            recorded.curve(runs, c.curve, c.step, self.last),
        )
        return Scene(f"Step {c.step} of {self.last}", panels, recorded.table(shown), told(runs))

    def _runs(self, c: TimeChoice) -> list[Shown]:
        """Return the runs, each once."""
        return self.shown(c)[: 1 if c.run_b == NONE else 2]

    def paged(self, choice: TimeChoice) -> dict[str, tuple[Any, ...]]:
        """Return sixteen steps."""
        steps = np.unique(np.linspace(0, self.last, PAGE_FRAMES).round().astype(int))
        return {"step": tuple(steps.tolist())}
