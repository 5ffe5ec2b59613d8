"""The panels and the table of the codebook explorer, from the weights and the levels at one step."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from qviz.explore.codebook_moment import LEAST, Moment
from qviz.explore.drift import STEPS, Drift
from qviz.measure import metrics
from qviz.plot.panels import round_up
from qviz.plot.scene import Axis, Bars, Line, Mark, Panel, Points, Rug, Rule, Span, Table

BINS = 100
ROLES = ("a", "c", "b")
HEADERS = ("Levels", "MSE", "÷ least", "SQNR (dB)", "Entropy", "Perplexity", "Dead")


def over_weights(m: Moment) -> Panel:
    """Return the three sets of levels over the histogram of the weights, and the one weight."""
    low, high = m.moving.reach
    edges = np.linspace(low, high, BINS + 1)
    shares = [_share(m.moving, edges, step) for step in (0, STEPS, m.step)]
    top = max(float(share.max()) for share in shares)
    borders = np.concatenate([[low], np.clip(m.q.codebook.borders.numpy(), low, high), [high]])
    marks: list[Mark] = [
        Span("d", borders[m.k], borders[m.k + 1]),
        Bars("data", edges, shares[-1], label="weights"),
    ]
    for i, (role, name) in enumerate(zip(ROLES, m.books, strict=True)):
        bottom = top * (1.06 + 0.13 * i)
        marks.append(Rug(role, m.books[name], bottom, bottom + 0.10 * top, label=name))
    dead, height = m.levels[m.use[0] == 0], 1.11 * top
    marks += [
        Line("d", np.array([m.w, m.levels[m.k]]), np.array([0.03 * top, height])),
        Points("e", dead, np.full(len(dead), height), label="dead"),
        Points("d", m.levels[[m.k]], np.array([height])),
        Points("d", np.array([m.w]), np.array([0.03 * top]), "x", label="w and its level"),
    ]
    text = (
        f"Levels at step {m.step}: {', '.join(f'{v:.3g}' for v in m.levels)}. "
        f"Lloyd's optimum: {', '.join(f'{v:.3g}' for v in m.books[LEAST])}. "
        f"{len(dead)} of {len(m.levels)} levels are dead."
    )
    y = Axis("share of values (%)", 0.0, 1.47 * top)
    return Panel("Levels over the weights", Axis("w", low, high), y, tuple(marks), text)


def over_steps(m: Moment) -> Panel:
    """Return the way of every level up to now, and where its cell's mean draws it."""
    counts, means = m.use
    path, best = np.array(m.ran.path(m.step)), m.moving.optima(len(m.levels))
    now, alive = np.full(len(m.levels), float(m.step)), counts > 0
    marks = (
        _lines("b", best, "Lloyd's optimum"),
        _lines("a", path, "levels"),
        _lines("d", path[:, [m.k]], "the level of w"),
        Rule("ideal", m.step),
        Points("a", now, m.levels),
        Points("f", now[alive], means[alive], label="mean of its cell"),
    )
    text = (
        f"After {m.step} updates a level has moved by {np.abs(path[-1] - path[0]).max():.3g} at most; the "
        f"mean of a cell is {np.abs(means - m.levels)[alive].max():.3g} away from its level at most."
    )
    return Panel("Levels over the steps", Axis("step", 0, STEPS), Axis("level", *m.moving.reach), marks, text)


def distance(m: Moment) -> Panel:
    """Return the error of the moving and of the frozen levels, as a multiple of the least."""
    moved, still = m.ratio(m.ran.errors(m.step)), m.ratio(m.moving.still(m.ran.levels(0)))
    at = np.arange(STEPS + 1.0)
    marks = (
        Line("b", at[[0, -1]], np.ones(2), label="Lloyd's optimum"),
        Line("c", at, still, label="the start, frozen"),
        Line("a", at[: m.step + 1], moved, label="moving levels"),
        *([] if np.isnan(moved[-1]) else [Points("a", at[[m.step]], moved[[-1]])]),
    )
    text = (
        f"At step {m.step} the MSE of the moving levels is {moved[-1]:.3g} times the least possible with as "
        f"many levels; that of the start, frozen, is {still[m.step]:.3g} times the least."
    )
    if np.isnan(moved[-1]):
        text = "As many levels can have no error at all here, so there are no multiples of the least error."
    top = round_up(1.05 * float(np.nanmax([*moved, *still, 1.4])))
    spare = 0.05 * (top - 1.0)  # on top, so that no number of the axis meets the title
    y = Axis("MSE ÷ least MSE", 1.0 - spare, top + spare)
    return Panel("Distance to the optimum", Axis("step", 0, STEPS), y, marks, text)


def use(m: Moment) -> Panel:
    """Return the share of the weights that each level has."""
    counts = m.use[0]
    share, dead, equal = counts / counts.sum() * 100, counts == 0, 100 / len(counts)
    edges = np.append(m.numbers - 0.5, m.numbers[-1] + 0.5)
    marks = (
        Bars("a", edges, share, label="share of the weights"),
        Rule("ideal", equal, "y", label="equal shares"),
        Points("e", m.numbers[dead], np.zeros(dead.sum()), label="dead"),
        Points("d", m.numbers[[m.k]], share[[m.k]]),
    )
    text = (
        f"The shares have the entropy {metrics.entropy_bits(counts):.3g} bits, as much as "
        f"{metrics.perplexity(counts):.3g} levels in equal use (the perplexity), of {len(share)}; "
        f"{int(dead.sum())} are dead. The level of w has {share[m.k]:.3g} %."
    )
    y = Axis("share of values (%)", 0.0, round_up(1.05 * max(float(share.max()), 1.5 * equal)))
    x = Axis("number of the level", float(edges[0]), float(edges[-1]))
    return Panel("Use of the levels", x, y, marks, text)


def table(m: Moment) -> Table:
    """Return a row of figures for each set of levels."""
    return Table(HEADERS, tuple(_cells(name, row) for name, row in m.rows.items()), ROLES, m.rows)


def _cells(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    ratio = "—" if row["ratio"] is None else f"{row['ratio']:.3f}"
    figures = f"{row['sqnr_db']:.2f}", f"{row['entropy']:.2f}", f"{row['perplexity']:.2f}"
    return name, f"{row['mse']:.3g}", ratio, *figures, str(row["dead"])


def _share(moving: Drift, edges: np.ndarray, step: int) -> np.ndarray:
    """Return the histogram of the weights at a step, in percent."""
    found = moving.data.histogram(torch.from_numpy(moving.back(edges, step)))
    return found.numpy() / moving.data.numel * 100


def _lines(role: str, rows: np.ndarray, label: str) -> Line:
    """Return the columns of (steps, n) over the steps."""
    return Line.of(role, np.arange(float(len(rows)))[:, None], rows, label)


PARTS = (over_weights, over_steps, distance, use)
"""The panels, in order."""
