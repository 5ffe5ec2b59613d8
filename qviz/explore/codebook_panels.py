"""The panels of the codebook explorer, from the weights and the levels at one step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from qviz.core.codebook import Codebook
from qviz.core.quantizer import Quantizer
from qviz.core.range import Fixed
from qviz.explore.drift import STEPS, Drift, Run
from qviz.measure import metrics
from qviz.plot.panels import round_up
from qviz.plot.scene import Axis, Bars, Line, Mark, Panel, Points, Rug, Rule, Span

BINS = 100
EMA, FROZEN, LEAST = "moving", "frozen", "Lloyd"
ROLES = ("a", "c", "b")


@dataclass(frozen=True, eq=False)
class Moment:
    """The weights and the levels at one step.

    Attributes:
        moving: The weights.
        ran: The levels at every step.
        books: The levels that are compared, by name: those that move, the start, Lloyd's optimum.
        step: The step.
        w: The one weight that is followed.
        reach: The ends of the axes.
    """

    moving: Drift
    ran: Run
    books: Mapping[str, np.ndarray]
    step: int
    w: float
    reach: tuple[float, float]

    @property
    def levels(self) -> np.ndarray:
        """The levels that move."""
        return self.books[EMA]

    @cached_property
    def q(self) -> Quantizer:
        """The quantizer with these levels."""
        return Quantizer(Codebook(self.levels), range=Fixed(1.0))

    @cached_property
    def k(self) -> int:
        """The index of the level of w."""
        return int(self.q.codes(torch.tensor([self.w], dtype=torch.float64)))

    @cached_property
    def numbers(self) -> np.ndarray:
        """The numbers of the levels: 0 for the middle one, which starts at zero."""
        return np.arange(len(self.levels)) - (len(self.levels) - 1) // 2.0

    @cached_property
    def use(self) -> tuple[np.ndarray, np.ndarray]:
        """How many weights each level has, and their mean (NaN without any)."""
        now = self.moving.at(self.step)
        codes, count = self.q.codes(now).long(), len(self.levels)
        counts = torch.bincount(codes, minlength=count).numpy()
        sums = torch.bincount(codes, now, count).numpy()
        return counts, np.divide(sums, counts, out=np.full(count, np.nan), where=counts > 0)

    def ratio(self, errors: np.ndarray) -> np.ndarray:
        """Return the errors of the first steps as multiples of the least ones; NaN where these are zero."""
        least = self.moving.least(len(self.levels))[: len(errors)]
        return np.divide(errors, least, out=np.full(len(errors), np.nan), where=least > 0)


def arithmetic(m: Moment, decay: float, pinned: bool) -> str:
    """Return how the one weight is quantized, and what an update does with its level."""
    k, (counts, means) = m.k, m.use
    borders = np.concatenate([[-np.inf], m.q.codebook.borders.numpy(), [np.inf]])
    low, high = (f"{end:.4g}".replace("inf", "∞").replace("-∞", "−∞") for end in borders[[k, k + 1]])
    said = (
        f"w = {m.w:.4g} is in the cell from {low} to {high} of level "
        f"{m.numbers[k]:+.0f}, so Q(w) = {m.levels[k]:.4g}; its gradient passes with slope 1."
    )
    if pinned and m.numbers[k] == 0:
        return f"{said} This level is pinned to zero."
    if not counts[k]:
        return f"{said} No weight is in that cell: the level is dead, and stays where it is."
    drawn = decay * m.levels[k] + (1 - decay) * means[k]
    return (
        f"{said} The {counts[k]:,} weights there have mean {means[k]:.4g}; an update takes the level to "
        f"{decay:g} × {m.levels[k]:.4g} + {1 - decay:.2g} × {means[k]:.4g} = {drawn:.4g}."
    )


def over_weights(m: Moment) -> Panel:
    """Return the three sets of levels over the histogram of the weights, and the one weight."""
    low, high = m.reach
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
    return Panel("Levels over the steps", Axis("step", 0, STEPS), Axis("level", *m.reach), marks, text)


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


def _share(moving: Drift, edges: np.ndarray, step: int) -> np.ndarray:
    """Return the histogram of the weights at a step, in percent."""
    found = moving.data.histogram(torch.from_numpy(moving.back(edges, step)))
    return found.numpy() / moving.data.numel * 100


def _lines(role: str, rows: np.ndarray, label: str) -> Line:
    """Return the columns of (steps, n) over the steps."""
    return Line.of(role, np.arange(float(len(rows)))[:, None], rows, label)
