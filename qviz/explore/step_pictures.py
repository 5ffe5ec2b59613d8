"""Step pictures: what :mod:`qviz.explore.step` shows of one learned step, LSQ's or PACT's."""

from __future__ import annotations

import math

import numpy as np
import torch

from qviz.core.summary import Summary
from qviz.explore import tensors
from qviz.explore.descent import Place
from qviz.explore.step_data import Curves
from qviz.explore.step_place import PlaceModel, StepChoice
from qviz.measure import ErrorParts, error_parts
from qviz.measure.metrics import sqnr_from
from qviz.plot import panels
from qviz.plot.scene import Axis, Line, Mark, Panel, Points, Rule, Scene, Table

ERROR, LEVELS = "Error against the step", "Levels over the values"
STEP = "step s (units of x)"


def scene(model: PlaceModel, c: StepChoice) -> Scene:
    """Return the error against the step, the levels over the values, and the way of the step: LSQ, PACT."""
    about, data = model.curves(c), tensors.summary(model.source(c))
    way = model.descent(c).way(c.iteration)
    place, steps = way[-1], np.array([float(p.steps[0]) for p in way])
    at = {"start": steps[0], "now": steps[-1], "least error": about.best}
    parts = error_parts(data, about.book, torch.tensor(list(at.values()), dtype=torch.float64))
    curves = {"MSE": about.parts.mse, "clipping": about.parts.clipping, "rounding": about.parts.rounding}
    marks: list[Mark] = [
        Line(role, about.steps, positive(curve), label=name)
        for role, (name, curve) in zip("abc", curves.items(), strict=True)
    ]
    marks.append(Rule("ideal", about.best, label="least error"))
    marks.append(Points("data", steps[:1], parts.mse[:1].numpy(), label="start"))
    marks.append(Points("d", steps[-1:], parts.mse[1:2].numpy(), "x", label="now"))
    text = (
        f"At the step {steps[-1]:.4g} the MSE is {parts.mse[1]:.4g}: {parts.clipping[1]:.4g} from values "
        f"that are cut off and {parts.rounding[1]:.4g} from rounding. It is least, {parts.mse[2]:.4g}, at "
        f"{about.best:.4g}. Smaller steps cut off the ends of the data, larger ones round more coarsely."
    )
    levels = f"{c.method}, {len(about.book)} levels on {c.tensor}"
    return Scene(
        f"{levels}: s = {steps[-1]:.4g}, iteration {c.iteration}",
        (error_panel(about, [about.parts], marks, text), _levels(model, c, data), _way(model, c, steps)),
        _table(at, parts, data),
        f"{_pulls(c, place)} {c.tensor}: {model.source(c).about}.",
    )


def _pulls(c: StepChoice, place: Place) -> str:
    """Return what pulls at the learned number."""
    name = "the clip α" if c.method == "PACT" else "the step"
    said = (
        f"The gradient of {name}: rounding pulls it down with {place.rounding:.3g}, "
        f"clipping pushes it up with {0.0 - place.clipping:.3g}"
    )
    if c.method == "PACT":
        said += f", the regularizer pulls it down with {2 * c.decay * place.learned:.3g}"
    return f"{said}."


def _table(at: dict[str, float], parts: ErrorParts, data: Summary) -> Table:
    """Return the error and its parts at some steps: the legend of the curves."""
    rows, values = [], {}
    for name, curve in (("MSE", parts.mse), ("clipping", parts.clipping), ("rounding", parts.rounding)):
        cells = [float(v) for v in curve]
        rows.append((name, *(f"{v:.3g}" for v in cells)))
        values[name] = dict(zip(at, cells, strict=True))
    noise = [sqnr_from(data.energy() / data.numel, float(v)) for v in parts.mse]
    rows.append(("SQNR (dB)", *(f"{v:.2f}" for v in noise)))
    values["SQNR (dB)"] = {n: v if math.isfinite(v) else None for n, v in zip(at, noise, strict=True)}
    headers = ("", *(f"{name}, s = {step:.4g}" for name, step in at.items()))
    return Table(headers, tuple(rows), ("a", "b", "c", "data"), values)


def _levels(model: PlaceModel, c: StepChoice, data: Summary) -> Panel:
    """Return the levels over the histogram, with a handle at the clip and the one number."""
    q = model.quantizer(c)
    panel = panels.levels(data, {"levels": q})
    clip, number = float(q.range.scale) * q.codebook.hi, model.number(c)
    rug = panel.marks[1]
    low = 0.04 * panel.y.high
    ends = np.array([c.x, number["y"]])
    marks = [*panel.marks, Points("e", ends[:1], np.array([low]), "x", label="number x")]
    if clip <= panel.x.high:
        height = np.array([(rug.low + rug.high) / 2])
        marks.append(Points("d", np.array([clip]), height, "x", label="clip"))
    marks.append(Line("e", ends, np.full(2, low)))
    own = "α" if c.method == "PACT" else "s"
    text = (
        f"{panel.text} The clip is at {clip:.4g}. One number: x = {c.x:.4g}, u = x / s = {number['u']:.4g} "
        f"goes to the level {number['code']} and comes out as y = {number['y']:.4g}. "
        f"In the backward pass dy/dx = {number['dydx']:.0f} and dy/d{own} = {number['slope']:.4g}."
    )
    return Panel(LEVELS, panel.x, panel.y, tuple(marks), text)


def _way(model: PlaceModel, c: StepChoice, steps: np.ndarray) -> Panel:
    """Return the step over the iterations."""
    about = model.curves(c)
    ends = model.controls(c)["iteration"]
    marks = (
        Line("d", np.arange(len(steps), dtype=float), steps),
        Rule("ideal", about.best, "y", label="least error"),
        Points("d", np.array([float(c.iteration)]), steps[-1:], label="now"),
    )
    text = (
        f"The step starts at {steps[0]:.4g} and is {steps[-1]:.4g} after {c.iteration} iterations, "
        f"{steps[-1] / about.best:.3g} times the step with the least error."
    )
    x = Axis("iteration", ends.low - 2.0, ends.high + 2.0)
    return Panel("The learned step", x, steps_axis(about), marks, text)


def headline(model: PlaceModel, c: StepChoice) -> dict[str, float]:
    """Return what a picture is compared by."""
    data, about, place = tensors.summary(model.source(c)), model.curves(c), model.place(c)
    mse = float(error_parts(data, about.book, place.steps).mse[0])
    noise = sqnr_from(data.energy() / data.numel, mse)
    return {"step (units of x)": float(place.steps[0]), "MSE": mse, "SQNR (dB)": noise}


def positive(curve: torch.Tensor) -> np.ndarray:
    """Return a curve for a log axis: what is not positive is a gap."""
    values = curve.numpy()
    return np.where(values > 0, values, np.nan)


def error_panel(about: Curves, parts: list[ErrorParts], marks: list[Mark], text: str) -> Panel:
    """Return errors against the step, with their parts down to a tenth of the least error."""
    mse = np.concatenate([p.mse.numpy() for p in parts])
    seen = mse[mse > 1e-9 * mse.max()] if mse.max() > 0 else np.ones(1)
    y = Axis("mean squared error", 0.1 * float(seen.min()), 2.0 * float(seen.max()), log=True)
    return Panel(ERROR, steps_axis(about), y, tuple(marks), text)


def steps_axis(about: Curves) -> Axis:
    """Return the axis of all steps."""
    return Axis(STEP, about.steps[0], about.steps[-1], log=True)
