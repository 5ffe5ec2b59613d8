"""Step pictures: what :mod:`qviz.explore.step` shows of a learned step, and of one for each sample."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from qviz.core.quantizer import Quantizer
from qviz.core.range import Fixed
from qviz.core.summary import Summary
from qviz.explore import tensors
from qviz.explore.descent import Place
from qviz.measure import ErrorParts, error_parts
from qviz.measure.metrics import sqnr_from
from qviz.plot import panels
from qviz.plot.scene import Axis, Line, Mark, Panel, Points, Rug, Rule, Scene, Steps, Table

if TYPE_CHECKING:
    from qviz.explore.step import StepChoice, StepModel

ERROR, LEVELS = "Error against the step", "Levels over the values"
STEP = "step s (units of x)"


def learned(model: StepModel, c: StepChoice) -> Scene:
    """Return the error against the step, the levels over the values, and the way of the step: LSQ, PACT."""
    about, data = model.curves(c), tensors.summary(model.source(c))
    way = model.descent(c).way(c.iteration)
    place, steps = way[-1], np.array([float(p.steps[0]) for p in way])
    at = {"start": steps[0], "now": steps[-1], "least error": about.best}
    parts = error_parts(data, about.book, torch.tensor(list(at.values()), dtype=torch.float64))
    curves = {"MSE": about.parts.mse, "clipping": about.parts.clipping, "rounding": about.parts.rounding}
    marks: list[Mark] = [
        Line(role, about.steps, _positive(curve), label=name)
        for role, (name, curve) in zip("abc", curves.items(), strict=True)
    ]
    marks.append(Rule("ideal", about.best, label="least error"))
    marks.append(Points("data", steps[:1], parts.mse[:1].numpy(), label="start"))
    marks.append(Points("d", steps[-1:], parts.mse[1:2].numpy(), "x", label="now"))
    error = Panel(
        ERROR,
        Axis(STEP, about.steps[0], about.steps[-1], log=True),
        _log_axis("mean squared error", [about.parts]),
        tuple(marks),
        f"At the step {steps[-1]:.4g} the MSE is {parts.mse[1]:.4g}: {parts.clipping[1]:.4g} from values "
        f"that are cut off and {parts.rounding[1]:.4g} from rounding. It is least, {parts.mse[2]:.4g}, at "
        f"{about.best:.4g}. Smaller steps cut off the ends of the data, larger ones round more coarsely.",
    )
    levels = f"{c.method}, {len(about.book)} levels on {c.tensor}"
    table = _table(at, parts, data)
    return Scene(
        f"{levels}: s = {steps[-1]:.4g}, iteration {c.iteration}",
        (error, _levels(model, c, data), _way(model, c, steps)),
        table,
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


def _levels(model: StepModel, c: StepChoice, data: Summary) -> Panel:
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


def _way(model: StepModel, c: StepChoice, steps: np.ndarray) -> Panel:
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
    y = Axis(STEP, about.steps[0], about.steps[-1], log=True)
    x = Axis("iteration", ends.low - 2.0, ends.high + 2.0)
    return Panel("The learned step", x, y, marks, text)


def adaptive(model: StepModel, c: StepChoice) -> Scene:
    """Return two samples under one step and under steps of their own, and every sample's β: ASQ."""
    about, found, place = model.curves(c), model.samples(c), model.place(c)
    own, pair = place.steps.numpy(), {"A": c.a - 1, "B": c.b - 1}
    rows, values, marks = [], {}, []
    for role, (name, i) in zip("ab", pair.items(), strict=True):
        at = error_parts(found.data[i], about.book, torch.tensor([c.step, own[i]], dtype=torch.float64)).mse
        marks.append(Line(role, about.steps, _positive(found.parts[i].mse), label=f"MSE of {name}"))
        marks.append(Points("c", np.array([c.step]), at[:1].numpy(), "x"))
        marks.append(Points(role, own[i : i + 1], at[1:].numpy(), label=f"{name} at s β(x)"))
        power = found.data[i].energy() / found.data[i].numel
        numbers = {
            "mean": found.mean[i],
            "best step": found.best[i],
            "one step": c.step,
            "SQNR": sqnr_from(power, float(at[0])),
            "β": own[i] / place.learned,
            "s β": own[i],
            "SQNR, s β": sqnr_from(power, float(at[1])),
        }
        rows.append((name, *(f"{v:.2f}" if "SQNR" in k else f"{v:.3g}" for k, v in numbers.items())))
        values[name] = {k: float(v) if math.isfinite(v) else None for k, v in numbers.items()}
    marks.append(Rule("c", c.step, label="one step"))
    error = Panel(
        ERROR,
        Axis(STEP, about.steps[0], about.steps[-1], log=True),
        _log_axis("mean squared error", [found.parts[0], found.parts[-1]]),
        tuple(marks),
        " ".join(
            f"Sample {name} is best served by the step {v['best step']:.4g}; it has {v['SQNR'] or 0:.2f} dB "
            f"at the one step {c.step:.4g} and {v['SQNR, s β'] or 0:.2f} dB at its own, {v['s β']:.4g}."
            for name, v in values.items()
        ),
    )
    whole = {"one step": np.full(len(own), c.step), "s β(x)": own}
    noise = {name: _sqnr(model, c, steps) for name, steps in whole.items()}
    told = ", ".join(f"{value:.2f} dB with {name}" for name, value in noise.items())
    return Scene(
        f"ASQ, {len(about.book)} levels on {c.tensor}: s = {place.learned:.4g}, iteration {c.iteration}",
        (error, _two_histograms(model, c, own), _betas(model, c, own / place.learned)),
        Table(("sample", *values["A"]), tuple(rows), ("a", "b"), values),
        f"All {len(own)} samples together: {told}. {c.tensor}: {model.source(c).about}.",
    )


def _sqnr(model: StepModel, c: StepChoice, steps: np.ndarray) -> float:
    """Return the SQNR of all samples, each with its step."""
    found = model.samples(c)
    scales = torch.from_numpy(np.ascontiguousarray(steps)).reshape(-1, 1)
    book = model.curves(c).book
    sse = float(found.whole.sse(book.levels, book.borders, scales).sum())
    return sqnr_from(found.whole.energy(), sse)


def _two_histograms(model: StepModel, c: StepChoice, own: np.ndarray) -> Panel:
    """Return how the values of both samples above zero are spread, and the levels of each step."""
    found, book = model.samples(c), model.curves(c).book
    high = 1.02 * float(found.whole.rows.max()) or 1.0
    edges = np.linspace(0.0, high, 61)
    marks: list[Mark] = []
    top, said = 0.0, []
    for role, name, i in (("a", "A", c.a - 1), ("b", "B", c.b - 1)):
        data = found.data[i]
        share = data.histogram(torch.from_numpy(edges)).numpy() / data.numel * 100
        marks.append(Steps(role, edges, share, label=f"values of {name} above 0"))
        top = max(top, float(share.max()))
        said.append(
            f"{name}: {share.sum():.0f} % of the values are above 0, the largest is {data.ends()[0, 1]:.3g}."
        )
    top = top or 1.0
    rugs = (("c", c.step, "one step"), ("a", own[c.a - 1], "A: s β(x)"), ("b", own[c.b - 1], "B: s β(x)"))
    for k, (role, step, label) in enumerate(rugs):
        q = Quantizer(book, range=Fixed(float(step)))
        at, bottom = panels.level_positions(q), top * (1.06 + 0.13 * k)
        marks.append(Rug(role, at[at <= high], bottom, bottom + 0.1 * top, label=f"levels, {label}"))
    y = Axis("share of values (%)", 0.0, 1.47 * top)
    return Panel(LEVELS, Axis("x", 0.0, high), y, tuple(marks), " ".join(said))


def _betas(model: StepModel, c: StepChoice, beta: np.ndarray) -> Panel:
    """Return β of each sample over its mean, and the β that would bring it to its own best step."""
    found, place = model.samples(c), model.place(c)
    wanted, pair = found.best / place.learned, np.array([c.a - 1, c.b - 1])
    low, high = float(found.mean.min()), float(found.mean.max())
    spare = 0.05 * (high - low) or 0.5 * (abs(high) or 1.0)
    marks = (
        Points("data", found.mean, wanted, label="what would be best"),
        Points("c", found.mean, beta, label="β(x)"),
        *(
            Points(r, found.mean[[i]], beta[[i]], label=f"β of {n}")
            for r, n, i in zip("ab", "AB", pair, strict=True)
        ),
    )
    off = float(np.abs(np.log2(beta / wanted)).mean())
    text = (
        f"β(x) goes from {beta.min():.3g} to {beta.max():.3g} over {len(beta)} samples; the best steps ask "
        f"for {wanted.min():.3g} to {wanted.max():.3g}. On average β is off by a factor {2**off:.3g}."
    )
    top = 1.1 * max(2.0, float(found.best.max()) / model.curves(c).slider.nearest(c.step))
    return Panel(
        "β of each sample",
        Axis("mean of the sample", low - spare, high + spare),
        Axis("β", 0.0, top),
        marks,
        text,
    )


def headline(model: StepModel, c: StepChoice) -> dict[str, float]:
    """Return what a picture is compared by."""
    place = model.place(c)
    if c.method == "ASQ":
        own = place.steps.numpy()
        one = _sqnr(model, c, np.full(len(own), c.step))
        return {"SQNR with one step (dB)": one, "SQNR with s β(x) (dB)": _sqnr(model, c, own)}
    data, about = tensors.summary(model.source(c)), model.curves(c)
    mse = float(error_parts(data, about.book, place.steps).mse[0])
    power = data.energy() / data.numel
    return {"step (units of x)": float(place.steps[0]), "MSE": mse, "SQNR (dB)": sqnr_from(power, mse)}


def _positive(curve: torch.Tensor) -> np.ndarray:
    """Return a curve for a log axis: what is not positive is a gap."""
    values = curve.numpy()
    return np.where(values > 0, values, np.nan)


def _log_axis(label: str, parts: list[ErrorParts]) -> Axis:
    """Return an axis that shows the errors, and their parts down to a tenth of the least error."""
    mse = np.concatenate([p.mse.numpy() for p in parts])
    seen = mse[mse > 1e-9 * mse.max()] if mse.max() > 0 else np.ones(1)
    return Axis(label, 0.1 * float(seen.min()), 2.0 * float(seen.max()), log=True)
