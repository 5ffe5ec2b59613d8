"""Lab 3: what checks power-of-two grids, and a layer computed by shifts, additions and a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from qviz.labs.model import Case, Function, Lab, Mistake, State, Variant, Written

ROOT = 2**0.5
VARIANTS = tuple(
    {"TENSOR": f"{tensor} (real)", "LEAD": lead}
    for tensor, leads in (("expand", (0.5, 1.0, 1.25, 2.0, 2.5)), ("project", (1.0, 1.5, 2.0, 2.5)))
    for lead in leads
)


def data(variant: Variant) -> dict[str, np.ndarray]:
    """The weights of the notebook, (12, 12)."""
    return {"w": (0.1 * np.random.RandomState(variant.data_seed).randn(12, 12)).astype(np.float32)}


def powers(bits: int, ratio: float) -> np.ndarray:
    """The right answer."""
    return _both_signs(ratio ** -np.arange(2 ** (bits - 1) - 1.0))


def _both_signs(magnitudes: np.ndarray) -> np.ndarray:
    return np.sort(np.concatenate([-magnitudes, [0.0], magnitudes]))


def powers_cases(variant: Variant) -> list[Case]:
    """POT, POST and a ratio that is neither."""
    ratio = float(np.round(variant.rng(1).uniform(1.2, 1.35), 3))
    return [Case((bits, r)) for bits in (2, 3, 4, 5) for r in (2.0, ROOT, ratio)]


POWERS = Function(
    "powers",
    3,
    powers,
    powers_cases,
    {
        "one magnitude too many": Mistake(
            lambda bits, ratio: _both_signs(ratio ** -np.arange(2.0 ** (bits - 1))),
            "Count your levels. How many different codes do b bits have, and do all of yours fit?",
        ),
        "sign forgotten": Mistake(
            lambda bits, ratio: _both_signs(ratio ** -np.arange(2.0**bits - 1)),
            "You have about twice as many levels as there are codes. Which bit is spent on something else than the exponent?",
        ),
        "one magnitude too few": Mistake(
            lambda bits, ratio: _both_signs(ratio ** -np.arange(2.0 ** (bits - 1) - 2)),
            "Count your levels: two more would fit.",
        ),
        "zero forgotten": Mistake(
            lambda bits, ratio: powers(bits, ratio)[powers(bits, ratio) != 0],
            "Which level is nearest to a weight of 0?",
        ),
        "base two": Mistake(
            lambda bits, ratio: powers(bits, 2.0),
            "Divide each of your levels by the next smaller one. Is that the ratio that was asked for?",
        ),
        "root of the ratio": Mistake(
            lambda bits, ratio: powers(bits, ratio**0.5),
            "Divide each of your levels by the next smaller one. Is that the ratio that was asked for, or its root?",
        ),
        "positive exponents": Mistake(
            lambda bits, ratio: _both_signs(ratio ** np.arange(2 ** (bits - 1) - 1.0)),
            "Some of your levels are above 1. In which direction do the exponents go?",
        ),
        "smallest is one": Mistake(
            lambda bits, ratio: _both_signs(ratio ** -np.arange(1, 2.0 ** (bits - 1))),
            "Where is your outermost level? The clip goes on it.",
        ),
        "positive only": Mistake(
            lambda bits, ratio: powers(bits, ratio)[2 ** (bits - 1) - 1 :],
            "Weights have two signs. Do your levels?",
        ),
        "falling": Mistake(
            lambda bits, ratio: powers(bits, ratio)[::-1],
            "All levels are there. In which order are they asked for?",
        ),
    },
)


def nearest(w: np.ndarray, alpha: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The right answer: argmin takes the first, hence the lower, of two levels that are equally near."""
    d = w / alpha[:, None]
    return alpha[:, None] * levels[np.abs(d[..., None] - levels).argmin(-1)]


def _off(d: np.ndarray, borders: np.ndarray) -> np.ndarray:
    """Numbers moved off the borders between two levels."""
    close = np.abs(d[..., None] - borders).min(-1) < 1e-3
    return np.where(close, d + 0.004, d)


def _middles(levels: np.ndarray) -> np.ndarray:
    return (levels[1:] + levels[:-1]) / 2


def nearest_cases(variant: Variant) -> list[Case]:
    """Square matrices, so that an α on the wrong axis fits; and ties, exact in binary."""
    rng, cases = variant.rng(2), []
    for bits, ratio in ((3, 2.0), (3, ROOT), (4, ROOT), (4, 2.0)):
        levels = powers(bits, ratio).astype(np.float32)
        d = _off(
            np.concatenate([rng.uniform(-1.4, 1.4, (12, 8)), 0.2 * rng.randn(12, 4)], 1), _middles(levels)
        )
        alpha = rng.uniform(0.05, 0.5, 12).astype(np.float32)
        cases.append(Case(((d * alpha[:, None]).astype(np.float32), alpha, levels), f"{bits} bits"))
    levels = powers(4, 2.0).astype(np.float32)
    d = np.stack(
        [_middles(levels)[:4], _middles(levels)[-4:], [-0.375, 0.375, -0.75, 0.75], _middles(levels)[4:8]]
    )
    alpha = np.array([0.5, 2.0, 0.25, 1.0], np.float32)
    return [*cases, Case(((d * alpha[:, None]).astype(np.float32), alpha, levels), "ties")]


def _picked(
    w: np.ndarray, alpha: np.ndarray, levels: np.ndarray, borders: np.ndarray, up: bool = False
) -> np.ndarray:
    """Levels by the borders between them; a number on a border goes down."""
    side = "right" if up else "left"
    return alpha[:, None] * levels[np.searchsorted(borders, w / alpha[:, None], side=side)]


def _log_borders(levels: np.ndarray) -> np.ndarray:
    """The geometric middle of two levels of one sign; beside 0 the arithmetic one."""
    a, b = levels[:-1], levels[1:]
    return np.where(a * b == 0, (a + b) / 2, np.sign(a) * np.sqrt(np.abs(a * b))).astype(np.float32)


def _nonzero(levels: np.ndarray) -> np.ndarray:
    return levels[levels != 0]


NEAREST = Function(
    "nearest",
    4,
    nearest,
    nearest_cases,
    {
        "rounded exponents": Mistake(
            lambda w, alpha, levels: _picked(w, alpha, levels, _log_borders(levels)),
            "Some weights between two levels go to the farther one. Where is the middle between two of your levels: do you round the weight or its exponent?",
        ),
        "ties up": Mistake(
            lambda w, alpha, levels: _picked(w, alpha, levels, _middles(levels), up=True),
            "Only ties are wrong. Read the sentence on ties, and look at one on each side of 0.",
        ),
        "ties to zero": Mistake(
            lambda w, alpha, levels: (
                np.sign(w) * _picked(np.abs(w), alpha, levels[levels >= 0], _middles(levels[levels >= 0]))
            ),
            "Only ties below 0 are wrong. Which is the lower of two negative levels?",
        ),
        "ties away": Mistake(
            lambda w, alpha, levels: (
                np.sign(w)
                * _picked(np.abs(w), alpha, levels[levels >= 0], _middles(levels[levels >= 0]), up=True)
            ),
            "Only ties above 0 are wrong. Which of the two levels does the text name?",
        ),
        "not scaled back": Mistake(
            lambda w, alpha, levels: nearest(w, alpha, levels) / alpha[:, None],
            "Your results are levels in [−1, 1]. In which unit should they be?",
        ),
        "not scaled before": Mistake(
            lambda w, alpha, levels: alpha[:, None] * nearest(w, np.ones_like(alpha), levels),
            "Most of your weights become 0. Are weight and level in one unit when you compare them?",
        ),
        "wrong axis": Mistake(
            lambda w, alpha, levels: nearest(w.T, alpha, levels).T,
            "Change one α and see which weights move: a row, or a column? Which of them is an output channel?",
        ),
        "always down": Mistake(
            lambda w, alpha, levels: _picked(w, alpha, levels, levels[1:], up=True),
            "Your weights only ever get smaller. Is the next level below also the nearest one?",
        ),
        "never zero": Mistake(
            lambda w, alpha, levels: nearest(w, alpha, _nonzero(levels)),
            "None of your weights becomes 0. Is that level left out?",
        ),
        "sign lost": Mistake(
            lambda w, alpha, levels: np.abs(nearest(w, alpha, levels)),
            "Where are the negative weights?",
        ),
        "indices": Mistake(
            lambda w, alpha, levels: np.abs((w / alpha[:, None])[..., None] - levels).argmin(-1),
            "Your results are integers. Are they levels, or places in the list of levels?",
        ),
    },
    apart=("ties",),
)


def split(sign: np.ndarray, exponent: np.ndarray, activations: np.ndarray, shift: int) -> tuple[int, int]:
    """The right answer."""
    shifted = np.where(exponent < 0, 0, sign * (activations << (shift - np.maximum(exponent, 0) // 2)))
    odd = exponent % 2 == 1
    return int(shifted[~odd].sum()), int(shifted[odd].sum())


def split_cases(variant: Variant) -> list[Case]:
    """Weights of 3 to 5 bits, zeros among them."""
    rng, cases = variant.rng(3), []
    for bits in (3, 4, 5):
        top = 2 ** (bits - 1) - 2
        exponent = rng.randint(-1, top + 1, 40)
        exponent[:4] = -1, 0, 1, top
        activations = rng.randint(0, 2**bits, 40)
        activations[:4] = rng.randint(1, 2**bits, 4)
        cases.append(Case((rng.choice([-1, 1], 40), exponent, activations, top // 2)))
    return cases


def _sums(terms: np.ndarray, odd: np.ndarray) -> tuple[Any, Any]:
    return terms[~odd].sum().item(), terms[odd].sum().item()


def _split(shift_of: Any, sign_of: Any = lambda sign: sign) -> Any:
    """An answer that shifts by another amount, or takes the sign otherwise; zeros are left out."""

    def answer(sign: np.ndarray, exponent: np.ndarray, a: np.ndarray, shift: int) -> tuple[Any, Any]:
        j = np.maximum(exponent, 0)
        left = shift_of(j, shift)
        terms = np.where(left >= 0, a << np.maximum(left, 0), a >> np.maximum(-left, 0))
        return _sums(np.where(exponent < 0, 0, sign_of(sign) * terms), exponent % 2 == 1)

    return answer


def _zeros_counted(sign: np.ndarray, exponent: np.ndarray, a: np.ndarray, shift: int) -> tuple[int, int]:
    j = np.maximum(exponent, 0)
    return _sums(sign * (a << (shift - j // 2)), j % 2 == 1)


SPLIT = Function(
    "split",
    4,
    split,
    split_cases,
    {
        "odd shifted on": Mistake(
            _split(lambda j, shift: shift - (j + 1) // 2),
            "The even sum is right. Take one weight with j = 1 and the activation 1: by how much is it shifted, and what is left for the factor 1/√2 to do?",
        ),
        "zeros counted": Mistake(
            _zeros_counted,
            "You count too much. Which weights have the exponent −1, and what do they add?",
        ),
        "sign forgotten": Mistake(
            _split(lambda j, shift: shift - j // 2, np.abs),
            "Your sums never fall. Which of the arguments did you not use?",
        ),
        "shifted right": Mistake(
            _split(lambda j, shift: -(j // 2)),
            "Bits fall off at the right end. In which unit are the sums to be kept?",
        ),
        "shifted right, then left": Mistake(
            lambda sign, exponent, a, shift: tuple(
                v << shift for v in _split(lambda j, shift: -(j // 2))(sign, exponent, a, shift)
            ),
            "The unit is right, but bits have fallen off at the right end before. In which order do you shift?",
        ),
        "exponent for shift": Mistake(
            _split(lambda j, shift: shift - j),
            "Your shifts are too large. Two steps of j are one factor of 2: how many places is one shift?",
        ),
        "swapped": Mistake(lambda *args: split(*args)[::-1], "Which of the two sums comes first?"),
        "one sum": Mistake(
            lambda *args: (sum(split(*args)), 0),
            "Even and odd exponents are in one sum. What is different about the odd ones?",
        ),
        "floats": Mistake(
            lambda *args: tuple(map(float, split(*args))),
            "The numbers are right, but they are not integers. What does the hardware of this question have: shifts and additions, or floating point?",
        ),
    },
    typed=True,
)


def combine(even: int, odd: int, shift: int, alpha: float, step: float) -> float:
    """The right answer."""
    return alpha * step * (even + odd / ROOT) / 2**shift


def combine_cases(variant: Variant) -> list[Case]:
    """Sums as they come from a layer."""
    rng = variant.rng(4)
    return [
        Case((int(rng.randint(-500, 500)), int(rng.randint(20, 500)), shift, *rng.uniform(0.02, 0.6, 2)))
        for shift in (1, 3, 7)
    ]


COMBINE = Function(
    "combine",
    2,
    combine,
    combine_cases,
    {
        "root upside down": Mistake(
            lambda even, odd, shift, alpha, step: alpha * step * (even + odd * ROOT) / 2**shift,
            "One weight with j = 1: is it larger or smaller than 1?",
        ),
        "root of all": Mistake(
            lambda even, odd, shift, alpha, step: alpha * step * (even + odd) / ROOT / 2**shift,
            "Which of the two sums has a factor outstanding?",
        ),
        "root of the even": Mistake(
            lambda even, odd, shift, alpha, step: alpha * step * (even / ROOT + odd) / 2**shift,
            "Which of the two sums has a factor outstanding?",
        ),
        "root forgotten": Mistake(
            lambda even, odd, shift, alpha, step: alpha * step * (even + odd) / 2**shift,
            "The odd sum still lacks something. What?",
        ),
        "unit forgotten": Mistake(
            lambda even, odd, shift, alpha, step: alpha * step * (even + odd / ROOT),
            "In which unit did `split` keep its sums?",
        ),
        "unit upside down": Mistake(
            lambda even, odd, shift, alpha, step: alpha * step * (even + odd / ROOT) * 2**shift,
            "Your results are very large. Is the unit of the sums larger or smaller than 1?",
        ),
        "one scale": Mistake(
            lambda even, odd, shift, alpha, step: alpha * (even + odd / ROOT) / 2**shift,
            "Weights have a scale, and so have activations. Did you use both?",
        ),
    },
)


def products(levels: np.ndarray, bits: int) -> np.ndarray:
    """The right answer."""
    return np.outer(levels[levels >= 0], np.arange(2**bits))


def products_cases(variant: Variant) -> list[Case]:
    """Tables of different sizes; none is square."""
    rng = variant.rng(5)
    return [
        Case((powers(weight_bits, ratio), bits))
        for weight_bits, bits, ratio in (
            (3, 3, ROOT),
            (4, 4, 2.0),
            (4, 2, ROOT),
            (3, int(rng.randint(4, 7)), ROOT),
        )
    ]


PRODUCTS = Function(
    "products",
    3,
    products,
    products_cases,
    {
        "one code too few": Mistake(
            lambda levels, bits: products(levels, bits)[:, :-1],
            "Count your columns at 2 bits: which codes does an activation have?",
        ),
        "starts at one": Mistake(
            lambda levels, bits: np.outer(levels[levels >= 0], np.arange(1, 2**bits + 1)),
            "What does your table hold for the activation 0?",
        ),
        "zero row forgotten": Mistake(
            lambda levels, bits: products(levels, bits)[1:],
            "Which row is read for a weight of 0?",
        ),
        "all signs": Mistake(
            lambda levels, bits: np.outer(levels, np.arange(2**bits)),
            "Your table is nearly twice as large as it need be. What can be done to a product after it was looked up?",
        ),
        "transposed": Mistake(
            lambda levels, bits: products(levels, bits).T,
            "The numbers are right. Which index comes first?",
        ),
        "falling": Mistake(
            lambda levels, bits: products(levels, bits)[::-1],
            "All rows are there. In which order are they asked for?",
        ),
    },
)


def largest_clip(variant: Variant, state: Mapping[str, Any]) -> dict[str, bool]:
    """Check the state of a GridExplorer."""
    from qviz.explore.grid import GridModel

    model = GridModel()
    choice = model.restored(state)
    asked = (choice.tensor, choice.bits, choice.rule, choice.per_channel, {choice.grid_a, choice.grid_b}) == (
        variant.params["TENSOR"],
        4,
        "manual clip",
        False,
        {"POT", "POST"},
    )
    good = asked and _lead(model, choice) >= variant.params["LEAD"]
    return {
        "tensor, bits and grids are those asked for, the clip is manual, and POST is far enough ahead": good,
        "at the slider's next larger clip it no longer is": good
        and _lead(model, _wider(model, choice)) < variant.params["LEAD"],
    }


def _lead(model: Any, choice: Any) -> float:
    """By how many dB POST is ahead of POT."""
    found = {name.split()[3]: db for name, db in model.headline(choice).items() if name.startswith("SQNR")}
    return found["POST"] - found["POT"]


def _wider(model: Any, choice: Any) -> Any:
    slider = model.controls(choice)["clip"]
    return replace(choice, clip=slider.nearest(choice.clip + slider.step))


def largest_clip_answer(variant: Variant) -> dict[str, Any]:
    """The state with the largest clip of the slider with which POST is far enough ahead."""
    from qviz.explore.grid import GridModel

    model = GridModel()
    choice = model.restored({"tensor": variant.params["TENSOR"], "grid_a": "POST", "grid_b": "POT"})
    choice = replace(choice, rule="manual clip")
    while _lead(model, wider := _wider(model, choice)) >= variant.params["LEAD"]:
        choice = wider
    return model.state(choice)


WHY = Written(
    "why",
    2,
    "- 1 point: between two neighboring powers of 2 the largest error is a fixed part of the value (a third), whatever the "
    "bit width. New levels appear near zero only, where little is left to gain.\n"
    "- 1 point: √2 makes that part smaller (17 %), by an additional level in every octave, at the price of half the "
    "octaves. At 4 bits the octaves suffice and the finer spacing pays; at 3 bits the gap around zero is too wide.\n"
    "- Half a point off where POST is said to have more levels than POT at the same bit width.",
    "A further bit doubles the number of exponents, and all the new levels are smaller than the old ones. Large weights "
    "keep the gap of a factor of 2 and its error of up to a third. POST has the factor √2 instead, so their error is about "
    "half as large, but the same number of levels reaches down half as far. With the 7 magnitudes of 4 bits that is still "
    "an eighth of the clip, which is enough; with the 3 of 3 bits it is one half, and most weights lie below that.",
)

LAB = Lab(
    name="lab3-powers",
    title="Powers of two, powers of √2, and a layer without multiplications",
    version=1,
    minutes=80,
    questions=(
        POWERS,
        NEAREST,
        SPLIT,
        COMBINE,
        PRODUCTS,
        State("largest_clip", 2, largest_clip, largest_clip_answer),
        WHY,
    ),
    variants=VARIANTS,
    data=data,
)
