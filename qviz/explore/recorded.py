"""Recorded: panels and figures of runs that were recorded, at one of their steps."""

from __future__ import annotations

import numpy as np

from qviz.explore.frames import HEADERS, Shown, trajectory
from qviz.plot.scene import Axis, Line, Mark, Panel, Points, Rug, Rule, Steps, Table

TRAIL = 10
"""Weights whose code changed within so many frames stand out."""
NOTES = (
    "changes: of the code of a weight, up to this step; mean over the layer",
    "returns: those of them that took the last change back",
    "error: |quantized − master| / |master| of the weights shown",
)


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
        marks.append(Steps("c", edges, levels, label="the grid"))  # no background: before → now shows it
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
