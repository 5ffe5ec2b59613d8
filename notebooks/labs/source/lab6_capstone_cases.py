"""Lab 6, the capstone: right answers, hidden cases, typical mistakes, and what a file earns. Not for students."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qviz.explore import BudgetModel, network
from qviz.labs import capstone, leaderboard
from qviz.labs.model import Case, Function, Handed, Lab, Mistake, State, Variant, Written

Array = np.ndarray
IMAGES = 500
POINTS, READABLE = 12, 3
"""The most that a file earns, and what it earns if it keeps format and budget, whatever its accuracy."""
SHARES = tuple(round(0.2 + 0.05 * i, 2) for i in range(21))
"""The candidates for a step, as shares of the widest."""


def size(layers: Sequence[Sequence[int]], floats: int) -> int:
    """Bytes: codes at the fewest bits, tables and floats at 32."""
    return math.ceil((sum(n * (k - 1).bit_length() + 32 * t for n, k, t in layers) + 32 * floats) / 8)


def decode(codes: Array, levels: Array, scale: Array | None) -> Array:
    """Weights from codes; levels for the tensor or for each output channel, and a scale for each."""
    rows = codes.reshape(len(codes), -1)
    found = levels[rows] if levels.ndim == 1 else np.take_along_axis(levels, rows, 1)
    return (found if scale is None else found * scale[:, None]).reshape(codes.shape)


def best_step(w: Array, bits: int) -> tuple[Array, Array]:
    """Codes and step of each output channel, the step with the least squared error of the candidates."""
    return _best(w, bits)


def _best(
    w: Array,
    bits: int,
    *,
    shares: Sequence[float] = SHARES,
    error: Callable[[Array], Array] = np.square,
    together: bool = False,
    low: int | None = None,
    widest: int | None = None,
    clipped: bool = True,
    kept: bool = True,
    rounded: Callable[[Array], Array] = np.rint,
    first: int | None = None,
) -> tuple[Array, Array]:
    """The right answer; the options are the ways to be wrong."""
    half = 2 ** (bits - 1)
    low, high = -half if low is None else low, half - 1
    rows = w.reshape(len(w), -1)
    reach = np.abs(rows).max(1, keepdims=True)
    reach = np.full_like(reach, reach.max()) if together else reach
    tried = []
    for share in shares:
        step = share * reach / (half if widest is None else widest)
        on = rounded(rows / step)
        seen = np.clip(on, low, high) if clipped else on
        cost = error(seen * step - rows).sum(1)
        tried.append((np.full_like(cost, cost.sum()) if together else cost, step[:, 0]))
    at = np.argmin([cost for cost, _ in tried], 0)
    step = np.array([s for _, s in tried])[at, np.arange(len(w))]
    codes = rounded(rows / step[:, None])
    codes = np.clip(codes, low, high) if kept else codes
    return (codes - (low if first is None else first)).astype(int).reshape(w.shape), step


def _size_cases(v: Variant) -> list[Case]:
    rng, cases = v.rng(1), []
    for _ in range(3):
        layers = [
            [int(n), int(k), int(t)]
            for n, k, t in zip(
                1 + 2 * rng.randint(50, 5000, 4), (8, 5, 16, 9), rng.randint(20, 300, 4), strict=True
            )
        ]
        layers[0][0] += -sum(n * (k - 1).bit_length() for n, k, _ in layers) % 8 + 3
        cases.append(Case((layers, int(rng.randint(100, 3000)))))
    return cases


def _decode_cases(v: Variant) -> list[Case]:
    rng, cases = v.rng(2), []
    for shape, channelwise, scaled in (
        ((5, 5, 3, 3), False, True),
        ((4, 4), True, False),
        ((6, 6, 1, 1), True, True),
    ):
        levels = np.sort(rng.randn(*((shape[0], 8) if channelwise else (8,))))
        scale = rng.uniform(0.5, 2.0, shape[0]) if scaled else None
        cases.append(Case((rng.randint(0, 8, shape), levels, scale)))
    return cases


def _step_cases(v: Variant) -> list[Case]:
    rng, cases = v.rng(3), []
    for bits, shape in ((2, (4, 3, 3, 3)), (3, (5, 20)), (4, (4, 30))):
        w = np.array([_clear_row(rng, bits, shape[1:]) for _ in range(shape[0])])
        cases.append(Case((w, bits)))
    return cases


def _clear_row(rng: np.random.RandomState, bits: int, shape: tuple[int, ...]) -> Array:
    """A channel whose best step is best by far enough, with no weight near a border."""
    while True:
        row = rng.standard_t(4, shape) * rng.uniform(0.2, 3.0)
        row = np.sign(rng.rand() - 0.5) * row + 0.1
        half, reach = 2 ** (bits - 1), np.abs(row).max()
        steps = [share * reach / half for share in SHARES]
        cost = [np.square(np.clip(np.rint(row / s), -half, half - 1) * s - row).sum() for s in steps]
        least, second = np.sort(cost)[:2]
        place = row / steps[int(np.argmin(cost))]
        if second > 1.001 * least and np.abs(place - np.floor(place) - 0.5).min() > 1e-3:
            return row


def measured(v: Variant, path: Path) -> tuple[float, list[str]]:
    """What a file earns: its size by its codes, its accuracy on images that the hidden seed chooses."""
    handed, budget = capstone.read(path), v.params["BUDGET"]
    if handed.bytes > budget:
        over = handed.bytes - budget
        return 0.0, [
            f"{handed.bytes:,} bytes are {over:,} over the budget of {budget:,}, so nothing was measured."
        ]
    images, labels = network.sample("test")
    chosen = torch.from_numpy(np.sort(v.rng(4).permutation(len(labels))[:IMAGES]))
    own, floating = (
        100 * float(capstone.right(net, images[chosen], labels[chosen]).double().mean())
        for net in (handed.network(), network.resnet20())
    )
    plain, spent = leaderboard.reference(budget)
    reached = min(max((plain - (floating - own)) / (plain - spent), 0.0), 1.0)
    return READABLE + (POINTS - READABLE) * reached, [
        f"{handed.about['name']}: {handed.bytes:,} bytes of {budget:,}.",
        f"Top-1 {own:.1f} % on {IMAGES} images, {floating:.1f} % in floating point.",
        f"At this budget equal bits lose {plain:.1f} points, allocated bits {spent:.1f}; yours {floating - own:.1f}.",
    ]


@cache
def _explorer() -> BudgetModel:
    return BudgetModel()


def _spent(v: Variant, state: Mapping[str, Any]) -> dict[str, bool]:
    model, average, estimate = _explorer(), v.params["AVERAGE"], v.params["ESTIMATE"]
    c = model.restored(state)
    asked = c.way == "by hand" and c.estimate == estimate and c.budget == average
    within = asked and model.costs.average(c.bits) <= average + 1e-9
    least = model.costs.shares(model.costs.spent("exact", estimate, average), estimate).sum()
    return {
        "budget and estimate are those of the question, and the bits were set by hand": asked,
        "the average, weighted by parameters, is within the budget": within,
        "the sum of costs is at most 1.5 times the least": within
        and float(model.costs.shares(c.bits, estimate).sum()) <= 1.5 * least,
    }


def _spent_answer(v: Variant) -> dict[str, Any]:
    average, estimate = v.params["AVERAGE"], v.params["ESTIMATE"]
    bits = list(_explorer().costs.spent("greedy", estimate, average))
    return {"budget": average, "way": "by hand", "estimate": estimate, "bits": bits}


def _sized(bits: Callable[[int], float], table: int = 32, floating: int = 32) -> Callable[..., int]:
    return lambda layers, floats: math.ceil(
        (sum(n * bits(k) + table * t for n, k, t in layers) + floating * floats) / 8
    )


def _exact_bits(k: int) -> int:
    return (k - 1).bit_length()


SIZE = Function(
    "size",
    2,
    size,
    _size_cases,
    {
        "a byte for each code": Mistake(
            _sized(lambda k: 8),
            "You count codes as the file has them. How many bits does a code of 8 levels need?",
        ),
        "rounded down": Mistake(
            _sized(lambda k: int(math.log2(k))),
            "Right for 8 and 16 levels, too small for 5 and 9. Which code of 9 levels finds no room in your bits?",
        ),
        "fractions of bits": Mistake(
            _sized(math.log2),
            "Your codes have fractions of a bit. How many whole bits does one code of 5 levels take?",
        ),
        "whole bytes for each layer": Mistake(
            lambda layers, floats: 4 * floats + sum(size([layer], 0) for layer in layers),
            "A few bytes too many. What is rounded up, and how often?",
        ),
        "a bit too many": Mistake(
            _sized(lambda k: k.bit_length()),
            "Too large for 8 and 16 levels only. Which is the largest code of 8 levels?",
        ),
        "tables are free": Mistake(
            _sized(_exact_bits, table=0), "You have codes that nobody can decode. What else has to be stored?"
        ),
        "floats are free": Mistake(
            _sized(_exact_bits, floating=0), "Codes and tables are counted. What stays in floating point?"
        ),
        "tables by the byte": Mistake(
            _sized(_exact_bits, table=4),
            "Codes are right. In which unit do you add the tables: bits or bytes?",
        ),
        "rounded down at the end": Mistake(
            lambda layers, floats: (size(layers, floats) * 8 - 1) // 8,
            "A byte too few. A file of 9 bits: how many bytes has it?",
        ),
    },
)
DECODE = Function(
    "decode",
    3,
    decode,
    _decode_cases,
    {
        "scale of input channels": Mistake(
            lambda codes, levels, scale: (
                decode(codes, levels, None)
                * (1 if scale is None else scale.reshape((1, -1) + (1,) * (codes.ndim - 2)))
            ),
            "Right without scales. Along which axis are the output channels?",
        ),
        "the first table for all": Mistake(
            lambda codes, levels, scale: decode(codes, levels if levels.ndim == 1 else levels[0], scale),
            "Right with one table. Where each output channel has its own, which one did you read?",
        ),
        "scale left out": Mistake(
            lambda codes, levels, scale: decode(codes, levels, None),
            "Right without scales. What are the levels multiplied by?",
        ),
        "scale upside down": Mistake(
            lambda codes, levels, scale: decode(codes, levels, None if scale is None else 1 / scale),
            "Right without scales. Twice the scale: should weights get larger or smaller?",
        ),
        "codes around zero": Mistake(
            lambda codes, levels, scale: decode(codes - levels.shape[-1] // 2, levels, scale),
            "You took codes to be around zero. Which level has code 0?",
        ),
    },
)
STEP = Function(
    "best_step",
    4,
    best_step,
    _step_cases,
    {
        "no search": Mistake(
            lambda w, bits: _best(w, bits, shares=(1.0,)),
            "Your steps reach the largest weight. Is the error least where nothing is clipped?",
        ),
        "one step for all": Mistake(
            lambda w, bits: _best(w, bits, together=True),
            "All your steps are equal. Does a channel of small weights want the step of a large one?",
        ),
        "codes around zero": Mistake(
            lambda w, bits: _best(w, bits, first=0),
            "Steps are right, codes are negative. With which number do codes begin?",
        ),
        "symmetric grid": Mistake(
            lambda w, bits: _best(w, bits, low=1 - 2 ** (bits - 1)),
            "Your grid has as many levels below zero as above. Count them: how many can the bits name?",
        ),
        "the other end": Mistake(
            lambda w, bits: _best(w, bits, widest=2 ** (bits - 1) - 1),
            "Your candidates are all too large by one factor, most at 2 bits. Which end of the grid is the widest "
            "step made for?",
        ),
        "absolute error": Mistake(
            lambda w, bits: _best(w, bits, error=np.abs),
            "Some channels have another step than the least *squared* error wants. What do you add up?",
        ),
        "error before clipping": Mistake(
            lambda w, bits: _best(w, bits, clipped=False),
            "You always find the smallest step. Does your error know what clipping does to large weights?",
        ),
        "codes not clipped": Mistake(
            lambda w, bits: _best(w, bits, kept=False),
            "The steps are right, but some codes are below 0 or above the top. Which codes exist?",
        ),
        "rounded down": Mistake(
            lambda w, bits: _best(w, bits, rounded=np.floor),
            "Your integers are those below. The largest error of a rounding is half a step; what is yours?",
        ),
    },
)
RUBRIC = """\
- 1 point: what was done can be repeated: bits of each layer, how levels were found, what else was changed.
- 1 point: a comparison in which one thing differs (bits equal against allocated; statistics of batch normalization
  estimated again or not; …), with size and accuracy of both.
- 1 point: says on which images anything was chosen or learned, and that these are not the images of the final figure.
- 1 point: says what an accuracy on 500 images can tell: a standard error near 1.5 points.
"""
MODEL_ANSWER = """\
Bits by the greedy rule with Fisher costs, 2.75 on average; steps by `best_step`; then the means and variances of batch
normalization estimated again on 1,000 training images. At the same size: equal bits x %, allocated bits y %, with
statistics estimated again z %. Costs and statistics come from training images alone. The test images were looked at three times, for the three
figures above, and not to choose anything. Differences of less than three points on 500 images say nothing.
"""
ROWS = (
    (106_000, 2.5, "loss rise"),
    (108_000, 2.75, "Fisher"),
    (110_000, 3.0, "loss rise"),
    (112_000, 3.25, "Fisher"),
    (114_000, 2.5, "Fisher"),
    (116_000, 2.75, "loss rise"),
    (118_000, 3.0, "Fisher"),
    (120_000, 3.25, "loss rise"),
)
LAB = Lab(
    name="lab6-capstone",
    title="Capstone: a network under a byte budget",
    version=1,
    minutes=90,
    questions=(
        SIZE,
        DECODE,
        STEP,
        State("spent", 3, _spent, _spent_answer),
        Handed("network", POINTS, "network.safetensors", measured),
        Written("report", 4, RUBRIC, MODEL_ANSWER),
    ),
    variants=tuple({"BUDGET": b, "AVERAGE": a, "ESTIMATE": e} for b, a, e in ROWS),
)
