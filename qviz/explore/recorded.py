"""Recorded: panels and figures of runs that were recorded, at one of their steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qviz.nn.train.recording import LayerRecording
from qviz.plot.scene import Axis, Line, Mark, Panel, Points, Rug, Rule, Steps, Table

TRAIL = 10
"""Weights whose code changed within so many frames stand out."""
FIGURES = {
    "codes changed": ("changed", "codes that changed (% a step)", 100.0),
    "codes that went back": ("returned", "codes that went back (% a step)", 100.0),
    "loss": ("loss", "loss of the step's images", 1.0),
    "accuracy": ("top1", "accuracy on the step's images (%)", 100.0),
}
"""Curves that each recording has: their arrays, axes and factors."""
HEADERS = ("run", "step", "loss", "changes", "returns", "error (%)", "levels in use")
NOTES = (
    "changes: of the code of a weight, up to this step; mean over the layer",
    "returns: those of them that took the last change back",
    "error: |quantized − master| / |master| of the weights shown",
)


@dataclass(frozen=True)
class Shown:
    """A run and the frame that is shown.

    Attributes:
        name: Its name in the picture.
        run: The recording.
        frame: The number of the frame.
        role: How it is drawn.
    """

    name: str
    run: LayerRecording
    frame: int
    role: str

    @property
    def step(self) -> int:
        """The step of the frame."""
        return int(self.run.steps[self.frame])

    def figures(self) -> dict[str, float]:
        """Return the numbers of the run's row in the table, by column."""
        run, f = self.run, self.frame
        passed = np.diff(run.steps, prepend=0)[: f + 1]
        size = float(np.linalg.norm(run.master[f]))
        numbers = (
            self.step,
            float(run.loss[f]),
            float(run.changed[: f + 1] @ passed),
            float(run.returned[: f + 1] @ passed),
            100.0 * float(np.linalg.norm(run.quantized[f] - run.master[f])) / size if size else 0.0,
            len(np.unique(run.codes[f])),
        )
        return dict(zip(HEADERS[1:], numbers, strict=True))

    def weight(self, number: int) -> int:
        """Return the index of a weight by its number; the last one where there are fewer."""
        return min(number - 1, self.run.master.shape[1] - 1)


def table(shown: list[Shown]) -> Table:
    """Return a row of figures for each run."""
    rows, values = [], {}
    for one in shown:
        row = one.figures()
        step, loss, *counts, error, levels = row.values()
        cells = [str(step), "–" if np.isnan(loss) else f"{loss:.3f}", *(f"{n:.3f}" for n in counts)]
        rows.append((one.name, *cells, f"{error:.1f}", f"{levels} of {one.run.levels.shape[1]}"))
        values[one.name] = {name: None if np.isnan(n) else n for name, n in row.items()}
    return Table(HEADERS, tuple(rows), tuple(one.role for one in shown), values, NOTES)


def grid(shown: Shown, number: int) -> Panel:
    """Return the weights of a frame on the treads of their grid, and one of them as a dot."""
    run, f = shown.run, shown.frame
    master, quantized, levels = run.master[f], run.quantized[f], run.levels[f].astype(np.float64)
    low, high = _reach(run.master, run.levels)
    marks: list[Mark] = [Line("ideal", np.array([low, high]), np.array([low, high]), label="no rounding")]
    borders = run.values.get("weight borders")
    if borders is not None:
        edges = np.concatenate([[low], np.clip(borders[f], low, high), [high]])
        marks.append(Steps("data", edges, levels, label="the grid"))
    past = run.codes[max(f - TRAIL, 0) : f + 1].astype(np.int64)
    moved, half = (np.diff(past, axis=0) != 0).any(0), 0.03 * (high - low)
    for some, role, label in ((~moved, shown.role, shown.name), (moved, "e", "code changed just before")):
        at, height = master[some].astype(np.float64), quantized[some].astype(np.float64)
        marks.append(Rug(role, at, height - half, height + half, label=label))
    k = shown.weight(number)
    dot = (np.array([float(row[k])]) for row in (master, quantized))
    marks.append(Points("d", *dot, "x", label="weight to follow"))
    text = (
        f"{master.size} weights at step {shown.step} on {len(levels)} levels from {levels[0]:.3g} to "
        f"{levels[-1]:.3g}; {int(moved.sum())} of them changed their code since step "
        f"{run.steps[max(f - TRAIL, 0)]}. Weight {k + 1} is {master[k]:.4g} and becomes {quantized[k]:.4g}."
    )
    x, y = Axis("master weight", low, high), Axis("level it is sent to", low, high)
    return Panel(shown.name, x, y, tuple(marks), text)


def path(shown: list[Shown], number: int, step: int, last: int) -> Panel:
    """Return the path of one weight among the codes: where it lies, and which code it has."""
    marks: list[Mark] = []
    words, reach = [], []
    for one, role in zip(shown, "cf", strict=False):
        run, k, letter = one.run, one.weight(number), one.name[:1]
        at, cells, codes = run.steps.astype(float), run.in_cells[:, k], run.codes[:, k].astype(float)
        held = np.repeat(at, 2)[1:], np.repeat(codes, 2)[:-1]
        marks += [
            Line(role, *held, label=f"{letter}: code"),
            Line(one.role, at, cells, label=f"{letter}: master"),
        ]
        reach += [cells, codes]
        words.append(
            f"{one.name}: at step {one.step} the master weight lies at {cells[one.frame]:.2f} and has code "
            f"{codes[one.frame]:.0f}; its code changes {int((np.diff(codes) != 0).sum())} times in the run."
        )
    low, high = np.floor(min(map(np.min, reach))) - 0.6, np.ceil(max(map(np.max, reach))) + 0.6
    middles = np.arange(np.ceil(low - 0.5), high - 0.5) + 0.5
    x = np.tile([0.0, float(last), np.nan], len(middles))[:-1]
    y = np.column_stack([middles, middles, np.full(len(middles), np.nan)]).ravel()[:-1]
    lines = Line("ideal", x, y, label="middle between two levels")
    first = shown[0]
    now = _now(step, float(first.run.in_cells[first.frame, first.weight(number)]))
    axes = _steps(last), Axis("code", float(low), float(high))
    return Panel(f"Weight {number}", *axes, (lines, *marks, *now), " ".join(words))


def curve(shown: list[Shown], name: str, step: int, last: int) -> Panel:
    """Return a number, or some, over the steps of each run that has them."""
    marks: list[Mark] = []
    words, reach, here, label = [], [], [], name
    for one in shown:
        label, rows = trajectory(one.run, name)
        if not np.isfinite(rows).any():
            words.append(f"{one.name} has no {name}.")
            continue
        gap = np.full((1, rows.shape[1]), np.nan)
        x = np.tile(np.append(one.run.steps.astype(float), np.nan), rows.shape[1])[:-1]
        marks.append(Line(one.role, x, np.concatenate([rows, gap]).ravel(order="F")[:-1], label=one.name))
        reach.append(rows[np.isfinite(rows)])
        now = rows[one.frame][np.isfinite(rows[one.frame])]
        here += now[:1].tolist()
        words.append(f"{one.name}: {_span(now) if now.size else 'nothing yet'} at step {one.step}.")
    low, high = _reach(*reach) if reach else (0.0, 1.0)
    marks += _now(step, here[0] if here else (low + high) / 2)
    return Panel(
        f"{name[0].upper()}{name[1:]}", _steps(last), Axis(label, low, high), tuple(marks), " ".join(words)
    )


def curves(runs: Mapping[str, LayerRecording]) -> tuple[str, ...]:
    """Return the names of all curves that some run has."""
    return (*FIGURES, *dict.fromkeys(name for run in runs.values() for name in run.values))


def trajectory(run: LayerRecording, name: str) -> tuple[str, np.ndarray]:
    """Return the axis and the numbers, (R, n), of a curve; n = 0 where the run has none.

    What lies on the axis of the weights is divided by their standard deviation at the first frame, so that
    runs in different units (DAQ standardizes) can share a picture.
    """
    if name in FIGURES:
        array, label, factor = FIGURES[name]
        rows = factor * getattr(run, array).astype(np.float64)[:, None]
        if array in ("changed", "returned"):
            rows[0] = np.nan  # nothing can have changed yet
        return label, rows
    rows = run.values.get(name, np.zeros((len(run), 0))).astype(np.float64)
    if not name.startswith("weight ") or name.startswith("weight codebook"):
        return name, rows
    return f"{name} (first weights' std)", rows / (float(run.master[0].astype(np.float64).std()) or 1.0)


def _reach(*arrays: np.ndarray) -> tuple[float, float]:
    low, high = float(min(a.min() for a in arrays)), float(max(a.max() for a in arrays))
    spare = 0.06 * (high - low) or 0.5 * abs(high) or 1.0
    return low - spare, high + spare


def _now(step: int, y: float) -> list[Mark]:
    """Return the line of the present step, and the dot by which it is dragged."""
    dot = Points("d", np.array([float(step)]), np.array([y]), "x", label="now")
    return [Rule("data", float(step)), dot]


def _steps(last: int) -> Axis:
    return Axis("step", -0.02 * last - 0.5, 1.02 * last + 0.5)


def _span(values: np.ndarray) -> str:
    low, high = values.min(), values.max()
    return f"{low:.4g}" if len(values) == 1 else f"{low:.4g} … {high:.4g}"
