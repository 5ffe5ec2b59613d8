"""Panels: the figures of an inspection as pictures in plain numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from qviz.inspection.choices import Budget
from qviz.inspection.views import LayerView, Values
from qviz.inspection.words import called, cost, db
from qviz.plot.scene import Axis, Bars, Line, Mark, Panel, Points

FEW = 32
"""So many levels are drawn as a line each; of more of them, the ends of these lines are joined."""

LOSSES = {
    "cross-entropy": "cross-entropy (nats)",
    "mse": "mean squared error",
    "kl": "KL divergence (nats)",
    "error": "error (share of the energy)",
    "given": "rise of the loss",
}
"""What the loss is called on an axis, by its short name."""


def histogram(values: Values, what: str) -> Panel:
    """Show how values are spread, on an axis where distances are ratios, and where their levels lie.

    Args:
        values: Of a weight or an input.
        what: "weight" or "input".
    """
    edges, share = np.array(values.edges), 100 * np.array(values.heights) / values.sample
    low, high = 50 / values.sample, max(150.0, 3 * float(share.max()))
    marks: list[Mark] = [Bars("data", edges, np.maximum(share, low), label="values")]
    text = (
        f"{values.count:,} values from {values.low:.3g} to {values.high:.3g}, standard deviation "
        f"{values.std:.3g}, kurtosis {values.kurtosis:.3g}."
    )
    left, right = edges[0], edges[-1]
    if values.codes is not None:
        at = np.array(values.codes.positions)
        marks += _levels(at, 100 * np.array(values.codes.counts) / values.count, low)
        reach = 0.5 * (right - left)
        left, right = max(min(left, at.min()), left - reach), min(max(right, at.max()), right + reach)
        text += (
            f" {values.codes.used} of {values.codes.levels} levels serve a value, "
            f"{int(((at < left) | (at > right)).sum())} of all lie outside the picture; "
            f"{values.codes.saturated:.2%} of the values saturate."
        )
    unit = "" if values.unit == "value" else " (steps)"
    spare = 0.03 * (right - left)
    x = Axis(f"{what}{unit}", float(left - spare), float(right + spare))
    title = f"{what.capitalize()} and its levels" if values.codes is not None else what.capitalize()
    return Panel(title, x, Axis("share of values (%)", low, high, log=True), tuple(marks), text)


def _levels(at: np.ndarray, share: np.ndarray, low: float) -> list[Mark]:
    """Return marks of levels: how high the share of values is that each serves, and those that serve none."""
    used = share > 0
    if len(at) > FEW:
        return [Line("a", at, np.where(used, np.maximum(share, low), np.nan), label="served by each level")]
    x, gap = at[used], np.full(int(used.sum()), np.nan)
    y = np.maximum(share[used], low)
    stems = np.column_stack([x, x, gap]).ravel(), np.column_stack([np.full_like(x, low), y, gap]).ravel()
    marks: list[Mark] = [Line("a", *stems, label="served by each level")]
    if not used.all():
        marks.append(
            Points("e", at[~used], np.full(int((~used).sum()), 1.3 * low), label="levels that serve none")
        )
    return marks


def decibels(value: float) -> str:
    """Return a ratio with its unit."""
    return f"{db(value)} dB"


def ratios(layers: Sequence[LayerView]) -> Panel | None:
    """Show the local and the cumulative ratio of every layer; None where there is no finite one."""
    found = {
        "local": [None if one.outputs is None else one.outputs.local for one in layers],
        "cumulative": [None if one.outputs is None else one.outputs.cumulative for one in layers],
    }
    names = [one.name for one in layers]
    return by_layer("Output of each layer", "signal to noise (dB)", found, names, decibels)


def costs(layers: Sequence[LayerView], loss: str) -> Panel | None:
    """Show what every layer costs alone, and what leaving it would gain; None where that was not measured.

    Args:
        layers: In order.
        loss: Of the inspection.
    """
    given = [one.sensitivity for one in layers]
    found = {
        "cost, quantized alone": [None if one is None else one.on for one in given],
        "gain, left in floating point": [None if one is None else one.off for one in given],
    }
    names = [one.name for one in layers]
    return by_layer("Cost of each layer, and gain of leaving it", LOSSES[loss], found, names, cost)


def pareto(budget: Budget) -> Panel | None:
    """Show what bits buy: predicted and measured loss over average bits, and that of all-equal bits.

    Losses of 0 or below are gaps, as distances on the axis are ratios; None where all are.
    """
    of = {
        "predicted": [(one.average, one.predicted) for one in budget.choices],
        "measured": [(one.average, one.measured) for one in budget.choices],
        "all equal, measured": [(one.average, one.measured) for one in budget.all_equal],
    }
    found = {
        name: np.array([xy for xy in row if 0 < xy[1] < np.inf]).reshape(-1, 2) for name, row in of.items()
    }
    found = {name: row for name, row in found.items() if len(row)}
    if not found:
        return None
    marks, words = [], []
    for name, row in found.items():
        role = "abc"[list(of).index(name)]
        marks += [Line(role, *row.T), Points(role, *row.T, label=name)]
        words.append(f"{name}: " + ", ".join(f"{cost(y)} at {x:.2f} bits" for x, y in row) + ".")
    held = np.concatenate(list(found.values()))
    x = Axis("average bits of a weight", float(held[:, 0].min()) - 0.2, float(held[:, 0].max()) + 0.2)
    losses = Axis(LOSSES[budget.loss], float(held[:, 1].min()) / 2, 2 * float(held[:, 1].max()), log=True)
    return Panel("What bits of weights buy", x, losses, tuple(marks), " ".join(words))


def by_layer(
    title: str,
    y: str,
    rows: Mapping[str, Sequence[float | None]],
    names: Sequence[str],
    said: Callable[[float], str],
) -> Panel | None:
    """Show one or two figures of every layer; None where there is no finite one.

    Args:
        title: The title.
        y: The label of the y axis.
        rows: Names of the figures mapped to one number a layer; None and infinities are gaps.
        names: Of the layers.
        said: How a figure is written in the text.
    """
    found = {name: np.array([np.nan if v is None else v for v in row]) for name, row in rows.items()}
    found = {name: np.where(np.isfinite(row), row, np.nan) for name, row in found.items()}
    found = {name: row for name, row in found.items() if not np.isnan(row).all()}
    if not found:
        return None
    power = _power(list(found.values()))
    at = np.arange(1.0, len(names) + 1)
    marks, words = [], []
    for role, (name, row) in zip("ab", found.items(), strict=False):
        seen, drawn = ~np.isnan(row), row / 10.0**power
        marks += [Line(role, at, drawn), Points(role, at[seen], drawn[seen], label=name)]
        ends = [
            f"{said(float(row[i]))} (layer {i + 1}, {called(names[i])})"
            for i in (int(np.nanargmin(row)), int(np.nanargmax(row)))
        ]
        words.append(f"{name}: from {ends[0]} to {ends[1]}.")
    held = np.concatenate([mark.y for mark in marks])
    low, high = min(0.0, float(np.nanmin(held))), max(0.0, float(np.nanmax(held)))
    spare = 0.06 * (high - low) or 1.0
    shown = Axis(y + (f", in 1e{power}" if power else ""), low - spare * (low < 0), high + spare)
    x = Axis("layer, in the table's order", 0.5, len(names) + 0.5)
    return Panel(title, x, shown, tuple(marks), " ".join(words))


def _power(rows: Sequence[np.ndarray]) -> int:
    """Return the power of ten that numbers are drawn in, so that those on the axis are short."""
    size = float(np.nanmax(np.abs(rows)))
    return 0 if size == 0 or 0.01 <= size < 1e4 else int(np.floor(np.log10(size)))
