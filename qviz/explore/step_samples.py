"""Step samples: what :mod:`qviz.explore.step` shows of a step for each sample, ASQ's."""

from __future__ import annotations

import math

import numpy as np
import torch

from qviz.core.quantizer import Quantizer
from qviz.core.range import Fixed
from qviz.explore.step_pictures import LEVELS, error_panel, positive
from qviz.explore.step_place import PlaceModel, StepChoice
from qviz.measure import error_parts
from qviz.measure.metrics import sqnr_from
from qviz.plot import panels
from qviz.plot.scene import Axis, Line, Mark, Panel, Points, Rug, Rule, Scene, Steps, Table


def scene(model: PlaceModel, c: StepChoice) -> Scene:
    """Return two samples under one step and under steps of their own, and every sample's β: ASQ."""
    about, found, place = model.curves(c), model.samples(c), model.place(c)
    own, pair = place.steps.numpy(), {"A": c.a - 1, "B": c.b - 1}
    rows, values, marks = [], {}, []
    for role, (name, i) in zip("ab", pair.items(), strict=True):
        at = error_parts(found.data[i], about.book, torch.tensor([c.step, own[i]], dtype=torch.float64)).mse
        marks.append(Line(role, about.steps, positive(found.parts[i].mse), label=f"MSE of {name}"))
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
    text = " ".join(
        f"Sample {name} is best served by the step {v['best step']:.4g}; it has {v['SQNR'] or 0:.2f} dB "
        f"at the one step {c.step:.4g} and {v['SQNR, s β'] or 0:.2f} dB at its own, {v['s β']:.4g}."
        for name, v in values.items()
    )
    error = error_panel(about, [found.parts[0], found.parts[-1]], marks, text)
    whole = {"one step": np.full(len(own), c.step), "s β(x)": own}
    noise = {name: _sqnr(model, c, steps) for name, steps in whole.items()}
    told = ", ".join(f"{value:.2f} dB with {name}" for name, value in noise.items())
    return Scene(
        f"ASQ, {len(about.book)} levels on {c.tensor}: s = {place.learned:.4g}, iteration {c.iteration}",
        (error, _two_histograms(model, c, own), _betas(model, c, own / place.learned)),
        Table(("sample", *values["A"]), tuple(rows), ("a", "b"), values),
        f"All {len(own)} samples together: {told}. {c.tensor}: {model.source(c).about}.",
    )


def _sqnr(model: PlaceModel, c: StepChoice, steps: np.ndarray) -> float:
    """Return the SQNR of all samples, each with its step."""
    found = model.samples(c)
    scales = torch.from_numpy(np.ascontiguousarray(steps)).reshape(-1, 1)
    book = model.curves(c).book
    sse = float(found.whole.sse(book.levels, book.borders, scales).sum())
    return sqnr_from(found.whole.energy(), sse)


def _two_histograms(model: PlaceModel, c: StepChoice, own: np.ndarray) -> Panel:
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


def _betas(model: PlaceModel, c: StepChoice, beta: np.ndarray) -> Panel:
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
    x = Axis("mean of the sample", low - spare, high + spare)
    return Panel("β of each sample", x, Axis("β", 0.0, top), marks, text)


def headline(model: PlaceModel, c: StepChoice) -> dict[str, float]:
    """Return what a picture is compared by."""
    own = model.place(c).steps.numpy()
    one = _sqnr(model, c, np.full(len(own), c.step))
    return {"SQNR with one step (dB)": one, "SQNR with s β(x) (dB)": _sqnr(model, c, own)}
