"""Lab 4, codebooks: right answers, hidden cases and typical mistakes. Not for students."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from qviz.explore import CodebookModel
from qviz.labs.model import Case, Function, Lab, Mistake, State, Variant, Written

Array = np.ndarray
STEP = 60
"""The step of the drift at which the explorer's question looks."""


def quantile_start(w: Array, m: int) -> Array:
    """Zero between m quantiles of the weights of each sign, at the positions (i - 1/2) / m."""
    p = (np.arange(1, m + 1) - 0.5) / m
    return _around_zero(w[w < 0], w[w > 0], p)


def nearest(w: Array, levels: Array) -> Array:
    """The index of the nearest level; the lower one where two are equally near."""
    return np.searchsorted((levels[1:] + levels[:-1]) / 2, w)


def step(w: Array, levels: Array, decay: float) -> tuple[Array, Array]:
    """The weights on the present levels, and the levels after one moving average; zero is pinned."""
    codes, means = nearest(w, levels), _means(w, levels, levels)
    return levels[codes], _pinned(decay * levels + (1 - decay) * means)


def moving(counts: Array, sums: Array, w: Array, decay: float, eps: float) -> tuple[Array, Array, Array]:
    """Counts and sums after one moving average, and the levels by smoothed counts."""
    n, s = _statistics(w, sums / counts)
    counts, sums = decay * counts + (1 - decay) * n, decay * sums + (1 - decay) * s
    return counts, sums, sums / _smoothed(counts, eps)


def allocate(omega: Array, sizes: Sequence[int], bits: Sequence[int], budget: float) -> list[int]:
    """The greedy allocation: again and again the raise that gains most for a parameter, if it still fits."""
    return _greedy(omega, sizes, bits, budget)


def _around_zero(below: Array, above: Array, p: Array) -> Array:
    return np.concatenate([-np.quantile(-below, p)[::-1], [0.0], np.quantile(above, p)])


def _statistics(w: Array, levels: Array) -> tuple[Array, Array]:
    codes, k = nearest(w, levels), len(levels)
    return np.bincount(codes, minlength=k).astype(float), np.bincount(codes, w, minlength=k)


def _means(w: Array, levels: Array, idle: Array | float) -> Array:
    n, s = _statistics(w, levels)
    return np.where(n > 0, s / np.maximum(n, 1), idle)


def _pinned(levels: Array) -> Array:
    levels = levels.copy()
    levels[len(levels) // 2] = 0.0
    return levels


def _smoothed(counts: Array, eps: float) -> Array:
    return (counts + eps) / (counts.sum() + len(counts) * eps) * counts.sum()


def _greedy(
    omega: Array,
    sizes: Sequence[int],
    bits: Sequence[int],
    budget: float,
    *,
    weights: Sequence[int] | None = None,
    value: Callable[[Array, int, int], float] | None = None,
    stops: bool = False,
    strict: bool = False,
) -> list[int]:
    """Spend greedily; the options are the ways to be wrong."""
    weights = sizes if weights is None else weights
    value = value or (lambda row, at, n: (row[at] - row[at + 1]) / (n * (bits[at + 1] - bits[at])))
    at, limit = [0] * len(sizes), budget * sum(weights) + (0 if not strict else -1e-9)

    def fits(layer: int) -> bool:
        raised = [bits[k + (i == layer)] for i, k in enumerate(at)]
        return sum(n * b for n, b in zip(weights, raised, strict=True)) <= limit

    while True:
        open_ = [i for i in range(len(sizes)) if at[i] + 1 < len(bits) and (stops or fits(i))]
        if not open_:
            break
        best = max(open_, key=lambda i: value(omega[i], at[i], sizes[i]))
        if not fits(best):
            break
        at[best] += 1
    return [bits[k] for k in at]


def _weights(rng: np.random.RandomState, count: int = 400) -> Array:
    """Weights that are not symmetric, a tenth of them exactly zero."""
    w = rng.randn(count)
    w = np.where(w > 0, 1.5 * w, w) * rng.uniform(0.5, 2.0)
    w[rng.rand(count) < 0.1] = 0.0
    return w


def _apart(w: Array, levels: Array) -> Array:
    """The weights that no rounding of the arithmetic can bring to another level."""
    borders = (levels[1:] + levels[:-1]) / 2
    return w[np.abs(w[:, None] - borders).min(1) > 1e-3]


def _start_cases(v: Variant) -> list[Case]:
    rng = v.rng(1)
    return [Case((_weights(rng), m), f"with {m} levels a sign") for m in (3, 7)]


def _nearest_cases(v: Variant) -> list[Case]:
    rng = v.rng(2)
    cases = []
    for m in (1, 3):
        levels = np.sort(np.concatenate([[0.0], -rng.uniform(0.1, 1, m), rng.uniform(0.1, 3, m)]))
        cases.append(Case((_apart(2 * rng.randn(80), levels), levels)))
    levels = np.array([-2.0, -0.5, 0.0, 1.0, 4.0]) * 2.0 ** rng.randint(-2, 3)
    middle = (levels[1:] + levels[:-1]) / 2
    return [*cases, Case((middle[rng.permutation(4)], levels), "ties")]


def _step_cases(v: Variant) -> list[Case]:
    rng, cases = v.rng(3), []
    for m, decay in ((3, 0.9), (1, round(rng.uniform(0.3, 0.7), 2))):
        w = _weights(rng)
        levels = quantile_start(w, m)
        cases.append(Case((_apart(1.3 * w, levels), levels, decay), "where every level is used"))
    w = np.abs(_weights(rng, 60)) * 0.2 - 0.05
    levels = np.array([-3.0, -1.0, 0.0, 0.2, 5.0])
    return [*cases, Case((_apart(w, levels), levels, 0.8), "levels without weights")]


def _moving_cases(v: Variant) -> list[Case]:
    rng, cases = v.rng(4), []
    for decay in (0.9, 0.5):
        w = _weights(rng)
        levels = quantile_start(w, 3)
        counts = rng.randint(20, 90, 7).astype(float)
        cases.append(Case((counts, counts * levels, _apart(1.2 * w, levels), decay, 0.5)))
    levels, counts = np.array([-4.0, 0.0, 0.5, 6.0]), rng.randint(5, 30, 4).astype(float)
    w = _apart(rng.uniform(-0.5, 1.0, 40), levels)
    return [*cases, Case((counts, counts * levels, w, 0.8, 0.1), "levels without weights")]


def _allocate_cases(v: Variant) -> list[Case]:
    rng, cases = v.rng(5), []
    for _ in range(8):
        sizes = [int(n) for n in 100 * rng.randint(1, 12, 6)]
        falls = np.sort(rng.uniform(0.1, 1.0, (6, 3)))[:, ::-1] * 4.0 ** -np.arange(3)
        omega = np.cumsum(np.c_[rng.uniform(0, 0.1, 6), (falls * rng.uniform(1, 9, (6, 1)))[:, ::-1]], 1)
        cases.append(Case((omega[:, ::-1].copy(), sizes, [2, 3, 4, 5], 2.75 + 0.25 * rng.randint(4))))
    order = rng.permutation(4)
    rows = np.array([[8, 2, 0.5], [4, 1, 0.25], [2, 0.5, 0.125], [1, 0.25, 0.0625]])
    sizes = [int(n) for n in np.array([100, 400, 400, 100])[order]]
    stuck = np.array([[1.0, 0.99, 0.985], [0.1, 0.02, 0.01]]) * rng.uniform(1, 9)
    cases.append(Case((stuck, [200, 200], [2, 3, 4], 2.5)))
    return [*cases, Case((rows[order], sizes, [2, 3, 4], 2.8), "where the budget is met exactly")]


def _updated_first(w: Array, levels: Array, decay: float) -> tuple[Array, Array]:
    new = step(w, levels, decay)[1]
    return new[nearest(w, new)], new


def _moved(change: Callable[..., Array]) -> Callable[..., tuple[Array, Array]]:
    """A mistake of the moving average alone."""
    return lambda w, levels, decay: (levels[nearest(w, levels)], change(w, levels, decay))


def _all_levels_mean(w: Array, levels: Array, decay: float, idle: float) -> Array:
    return _pinned(decay * levels + (1 - decay) * _means(w, levels, idle))


def _summed(w: Array, levels: Array, decay: float) -> Array:
    n, s = _statistics(w, levels)
    return _pinned(np.where(n > 0, decay * levels + (1 - decay) * s, levels))


def _state(
    change: Callable[..., tuple[Array, Array]], level: Callable[..., Array] | None = None
) -> Callable[..., tuple[Array, Array, Array]]:
    """A mistake in counts and sums, or in how levels are made from them."""

    def wrong(counts: Array, sums: Array, w: Array, decay: float, eps: float) -> tuple[Array, Array, Array]:
        n, s = _statistics(w, sums / counts)
        new, total = change(counts, sums, n, s, decay)
        return new, total, (level or (lambda c, t, e: t / _smoothed(c, e)))(new, total, eps)

    return wrong


def _right(counts: Array, sums: Array, n: Array, s: Array, d: float) -> tuple[Array, Array]:
    return d * counts + (1 - d) * n, d * sums + (1 - d) * s


def _smoothed_kept(
    counts: Array, sums: Array, w: Array, decay: float, eps: float
) -> tuple[Array, Array, Array]:
    counts, sums, levels = moving(counts, sums, w, decay, eps)
    return _smoothed(counts, eps), sums, levels


@cache
def _explorer() -> CodebookModel:
    return CodebookModel()


def _ratio(choice: Any, decay: float) -> float:
    return _explorer().headline(replace(choice, decay=decay))["MSE ÷ least MSE"]


def _explored(v: Variant, state: Mapping[str, Any]) -> dict[str, bool]:
    model, limit = _explorer(), v.params["LIMIT"]
    c = model.restored(state)
    asked = c.bits == v.params["BITS"] and c.speed == v.params["SPEED"] and c.start == "quantile"
    asked &= c.drift == "grow" and c.step == STEP and c.tensor == model.start.tensor and c.pinned
    good = asked and _ratio(c, c.decay) <= limit
    return {
        f"bits, start, drift, speed and step {STEP} are those of the question": asked,
        "the error is at most the limit times the least": good,
        "with a decay larger by 0.01 it is not": good and _ratio(c, round(c.decay + 0.01, 2)) > limit,
    }


@cache
def _best_decay(bits: int, speed: float, limit: float) -> float:
    model = _explorer()
    c = replace(model.start, bits=bits, speed=speed, drift="grow", step=STEP)
    return (bisect.bisect_right(range(100), limit, key=lambda i: _ratio(c, i / 100)) - 1) / 100


def _explored_answer(v: Variant) -> dict[str, Any]:
    bits, speed, limit = (v.params[name] for name in ("BITS", "SPEED", "LIMIT"))
    known = {"bits": bits, "start": "quantile", "drift": "grow", "speed": speed, "step": STEP}
    return {**known, "decay": _best_decay(bits, speed, limit)}


START = Function(
    "quantile_start",
    3,
    quantile_start,
    _start_cases,
    {
        "the largest weight is a level": Mistake(
            lambda w, m: _around_zero(w[w < 0], w[w > 0], np.arange(1, m + 1) / m),
            "Your outermost levels are the largest weights themselves. At which share of the weights does the "
            "text put the last quantile?",
        ),
        "positions i/(m+1)": Mistake(
            lambda w, m: _around_zero(w[w < 0], w[w > 0], np.arange(1, m + 1) / (m + 1)),
            "Your quantiles are evenly spread, but between other ends. For m = 1 they are right: compare the "
            "positions for m = 2 with the text.",
        ),
        "both signs together": Mistake(
            lambda w, m: _around_zero(-np.abs(w[w != 0]), np.abs(w[w != 0]), (np.arange(1, m + 1) - 0.5) / m),
            "Your levels are symmetric, these weights are not. Whose quantiles are the negative levels?",
        ),
        "no split by sign": Mistake(
            lambda w, m: np.quantile(w, (np.arange(2 * m + 1) + 0.5) / (2 * m + 1)),
            "Your levels are quantiles of all weights at once. Look at the one in the middle: what has it to be?",
        ),
        "zero left out": Mistake(
            lambda w, m: np.delete(quantile_start(w, m), m),
            "You return one level too few. Which number can your codebook not represent?",
        ),
        "zeros counted as positive": Mistake(
            lambda w, m: _around_zero(w[w < 0], w[w >= 0], (np.arange(1, m + 1) - 0.5) / m),
            "Only your positive levels are off, all of them too small. Which weights have no sign?",
        ),
        "negative side not turned": Mistake(
            lambda w, m: np.r_[quantile_start(w, m)[:m][::-1], quantile_start(w, m)[m:]],
            "The right numbers in an order that does not increase. Print the first three.",
        ),
    },
)
NEAREST = Function(
    "nearest",
    3,
    nearest,
    _nearest_cases,
    {
        "ties go up": Mistake(
            lambda w, levels: np.searchsorted((levels[1:] + levels[:-1]) / 2, w, side="right"),
            "Only weights exactly in the middle of two levels are off. Read the sentence on ties.",
        ),
        "the level below": Mistake(
            lambda w, levels: np.clip(np.searchsorted(levels, w, side="right") - 1, 0, len(levels) - 1),
            "Your code is that of the last level below the weight. Take a weight just below a level: which is nearer?",
        ),
        "evenly spaced levels": Mistake(
            lambda w, levels: np.clip(
                np.rint((w - levels[0]) / ((levels[-1] - levels[0]) / (len(levels) - 1))),
                0,
                len(levels) - 1,
            ).astype(int),
            "You found the code as on a uniform grid. Are the distances between these levels equal?",
        ),
        "levels for codes": Mistake(
            lambda w, levels: levels[nearest(w, levels)],
            "You return what a weight becomes. A code says which level that is.",
        ),
        "codes around zero": Mistake(
            lambda w, levels: nearest(w, levels) - len(levels) // 2,
            "Your codes are all too small by one number. With which number do they begin?",
        ),
    },
    apart=("ties",),
)
STEPPED = Function(
    "step",
    4,
    step,
    _step_cases,
    {
        "update first": Mistake(
            _updated_first,
            "The new levels are right, the quantized weights are not. With which codebook was the forward pass "
            "to be computed?",
        ),
        "decay on the new": Mistake(
            lambda w, levels, decay: step(w, levels, 1 - decay),
            "Your levels move by the wrong share of the way. With a decay of 0.99, should they hurry?",
        ),
        "no memory": Mistake(
            lambda w, levels, decay: step(w, levels, 0.0),
            "Your levels are where Lloyd's algorithm would put them at once. What is the decay for?",
        ),
        "idle levels drawn to zero": Mistake(
            _moved(lambda w, levels, decay: _all_levels_mean(w, levels, decay, 0.0)),
            "Levels that serve weights are right. A level that nobody is near: where is it after ten steps?",
        ),
        "idle levels are lost": Mistake(
            _moved(lambda w, levels, decay: _all_levels_mean(w, levels, decay, np.nan)),
            "Levels that serve weights are right. What is the mean of no weights at all?",
        ),
        "zero moves": Mistake(
            _moved(lambda w, levels, decay: decay * levels + (1 - decay) * _means(w, levels, levels)),
            "Only the level in the middle is off. Which one is pinned?",
        ),
        "sum for mean": Mistake(
            _moved(_summed),
            "Your levels run away, those with many weights farthest. What is a level drawn to?",
        ),
        "means of the quantized": Mistake(
            _moved(lambda w, levels, decay: levels),
            "Your levels do not move. Of which numbers did you take the mean in each cell?",
        ),
    },
    apart=("levels without weights",),
)
MOVING = Function(
    "moving",
    4,
    moving,
    _moving_cases,
    {
        "sums without memory": Mistake(
            _state(lambda c, t, n, s, d: (d * c + (1 - d) * n, s)),
            "Your counts are right. Feed the same weights again and again: do sums and counts both remember?",
        ),
        "counts without memory": Mistake(
            _state(lambda c, t, n, s, d: (n, d * t + (1 - d) * s)),
            "Your sums are right. Feed the same weights again and again: do sums and counts both remember?",
        ),
        "means for sums": Mistake(
            _state(lambda c, t, n, s, d: (d * c + (1 - d) * n, d * t + (1 - d) * s / np.maximum(n, 1))),
            "Your counts are right, your sums far too small. What is added up, and what is divided only at the end?",
        ),
        "decay on the new": Mistake(
            _state(lambda c, t, n, s, d: _right(c, t, n, s, 1 - d)),
            "Counts and sums move by the wrong share of the way. With a decay of 0.99, do they hurry?",
        ),
        "idle levels do not decay": Mistake(
            _state(
                lambda c, t, n, s, d: (
                    np.where(n > 0, d * c + (1 - d) * n, c),
                    np.where(n > 0, d * t + (1 - d) * s, t),
                )
            ),
            "Only levels without weights are off. Is a count that was not fed today still what it was yesterday?",
        ),
        "smoothing without the total": Mistake(
            _state(_right, lambda c, t, e: t / ((c + e) / (c.sum() + len(c) * e))),
            "Counts and sums are right, every level is too large by one factor. Add up your smoothed counts: what "
            "should they come to?",
        ),
        "no smoothing": Mistake(
            _state(_right, lambda c, t, e: t / c),
            "Counts and sums are right, the levels are off by a little, those with few weights most. What is eps for?",
        ),
        "smoothed counts kept": Mistake(
            _smoothed_kept,
            "The levels are right, the counts are not. Which counts is the next step to start from?",
        ),
    },
    apart=("levels without weights",),
)
ALLOCATE = Function(
    "allocate",
    4,
    allocate,
    _allocate_cases,
    {
        "unweighted budget": Mistake(
            lambda o, n, b, budget: _greedy(o, n, b, budget, weights=[1] * len(n)),
            "You average over layers. A layer of 1,000 weights and one of 10: do their bits cost the same? Weight "
            "your average by parameters.",
        ),
        "gain of the whole layer": Mistake(
            lambda o, n, b, budget: _greedy(o, n, b, budget, value=lambda row, at, n: row[at] - row[at + 1]),
            "Within the budget, but not the greedy choice: you compare what raises gain. What do they cost?",
        ),
        "largest cost first": Mistake(
            lambda o, n, b, budget: _greedy(o, n, b, budget, value=lambda row, at, n: row[at]),
            "You raise the layer that is worst. Is it also the one that gets better by the raise?",
        ),
        "largest layer first": Mistake(
            lambda o, n, b, budget: _greedy(o, n, b, budget, value=lambda row, at, n: n),
            "The sizes alone decide in your choice. What does the network lose where?",
        ),
        "stops at the first that is too large": Mistake(
            lambda o, n, b, budget: _greedy(o, n, b, budget, stops=True),
            "You leave money on the table. When the best raise does not fit, who else might like what is left?",
        ),
        "budget never met": Mistake(
            lambda o, n, b, budget: _greedy(o, n, b, budget, strict=True),
            "Right, except where the last raise would spend the budget to the last bit. Is that allowed?",
        ),
    },
)
RUBRIC = """\
- 1 point: perplexity is 2 to the entropy of the codes, so it depends on how equally levels are used; a level
  used once counts as used but adds almost nothing. So 40 is no count of levels.
- 1 point: levels are a buffer: no gradient reaches them (`grad` is None) and the optimizer does not know them.
- 1 point: what moves them is the moving average after each step, and a loop that leaves it out keeps the start.
"""
MODEL_ANSWER = """\
Perplexity is 2 to the entropy of the codes: so many levels *in equal use* would have that entropy. All 63 may be
used, some of them rarely; or 23 may be dead. One has to count them. And nothing trains the levels: they are a buffer,
without gradient, and are drawn to the means of their cells after each step. If the loop forgets this, they stay
where they started, whatever the optimizer does.
"""
VARIANTS = tuple(
    {"BITS": bits, "SPEED": speed, "LIMIT": limit}
    for bits, limit, speeds in ((3, 1.3, (0.5, 1.0, 1.5, 2.0, 2.5)), (2, 1.05, (1.0, 1.5, 2.0, 2.5, 3.0)))
    for speed in speeds
)
LAB = Lab(
    name="lab4-codebooks",
    title="Codebooks that follow the weights",
    version=1,
    minutes=75,
    questions=(
        START,
        NEAREST,
        STEPPED,
        MOVING,
        ALLOCATE,
        State("decay", 3, _explored, _explored_answer),
        Written("perplexity", 3, RUBRIC, MODEL_ANSWER),
    ),
    variants=VARIANTS,
)
