"""Time machine: a network learns to be quantized, frame by frame, two runs side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from qviz import shipped
from qviz.explore import recorded
from qviz.explore.controls import Number, Pick, Slide, control
from qviz.explore.model import Action, Model
from qviz.explore.recorded import Shown
from qviz.nn.train.recording import LayerRecording
from qviz.plot.scene import Scene

SHIPPED = ("ste", "daq", "adq_static", "adq_ema")
NONE = "none: the start of run A"
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
        files = runs or [shipped.checkpoint(f"recording_{name}.safetensors") for name in SHIPPED]
        made = [run if isinstance(run, LayerRecording) else LayerRecording.load(run) for run in files]
        self.runs = {run.name: run for run in made}
        if len(self.runs) < len(made) or NONE in self.runs:
            raise ValueError(f"every run needs a name of its own, got {[run.name for run in made]}")
        self.last = max(1, *(int(run.steps[-1]) for run in made))
        first, second = (*self.runs, NONE)[:2]
        self.start = TimeChoice(first, second, weight=self.restless(first)[0])
        end, ways = {"step": self.last}, list(self.runs)[2:4]
        self.presets: Mapping[str, Mapping[str, Any]] = {
            f"{first}: before and after": {"run_a": first, "run_b": NONE, "curve": "loss", **end}
        }
        if not runs:
            codebooks = {"run_a": ways[0], "run_b": ways[1], "curve": "weight levels", **end}
            self.presets = {
                f"{first} against {second}": {"run_a": first, "run_b": second, **end},
                "codebook that stays, codebook that follows": codebooks,
                **self.presets,
            }

    def shown(self, c: TimeChoice) -> list[Shown]:
        """Return both runs at the step; without run B, run A now and at its start."""
        a = self.runs[c.run_a]
        now = Shown(f"A: {c.run_a}", a, a.frame(c.step), "a")
        if c.run_b == NONE:
            return [now, Shown(f"the start of {c.run_a}", a, 0, "b")]
        b = self.runs[c.run_b]
        return [now, Shown(f"B: {c.run_b}", b, b.frame(c.step), "b")]

    def restless(self, run: str) -> list[int]:
        """Return the numbers of a run's weights, the one whose code changed most often first."""
        count = (np.diff(self.runs[run].codes.astype(np.int64), axis=0) != 0).sum(0)
        return (np.argsort(-count, kind="stable") + 1).tolist()

    def limits(self, c: TimeChoice) -> dict[str, dict[str, Any]]:
        """Return the runs, the last step, the number of weights, and the curves."""
        count = self.runs[c.run_a].master.shape[1] if c.run_a in self.runs else 1
        return {
            "run_a": {"options": tuple(self.runs)},
            "run_b": {"options": (*self.runs, NONE)},
            "step": {"high": self.last},
            "weight": {"high": count},
            "curve": {"options": recorded.curves(self.runs)},
        }

    def followed(self, choice: TimeChoice) -> TimeChoice:
        """Keep the weight among those that run A has."""
        return self.inside(choice, "weight")

    def actions(self, choice: TimeChoice) -> dict[str, Action[TimeChoice]]:
        """Return the button that finds weights whose codes change often."""
        text = "Follow the weight of run A whose code changed most often; press again for the next one"
        return {"next_restless": Action("Next restless weight", text, self._next)}

    def _next(self, c: TimeChoice) -> TimeChoice:
        order = self.restless(c.run_a)
        return replace(c, weight=order[(order.index(c.weight) + 1) % len(order)])

    def dragged(
        self, choice: TimeChoice, panel: int, mark: int, index: int, x: float, y: float
    ) -> TimeChoice:
        """Follow the weight nearest to where the dot was dropped, or go to that step."""
        if panel > 1:
            return replace(choice, step=round(min(max(x, 0), self.last)))
        one = self.shown(choice)[panel]
        return self.followed(replace(choice, weight=int(np.abs(one.run.master[one.frame] - x).argmin()) + 1))

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
        about = " ".join(
            f"{one.name}: layer {one.run.about['layer']}, {' × '.join(map(str, one.run.about['shape']))}, "
            f"{one.run.master.shape[1]} of its weights."
            for one in runs
        )
        return Scene(f"Step {c.step} of {self.last}", panels, recorded.table(shown), about)

    def _runs(self, c: TimeChoice) -> list[Shown]:
        """Return the runs, each once."""
        return self.shown(c)[: 1 if c.run_b == NONE else 2]

    def paged(self, choice: TimeChoice) -> dict[str, tuple[Any, ...]]:
        """Return sixteen steps."""
        steps = np.unique(np.linspace(0, self.last, PAGE_FRAMES).round().astype(int))
        return {"step": tuple(steps.tolist())}
