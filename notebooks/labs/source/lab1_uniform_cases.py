"""Lab 1: what checks a uniform quantizer, its straight-through gradient and LSQ's gradient of the step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qviz.labs.model import Case, Function, Lab, Mistake, State, Variant, Written

SATURATED, ENDS, INSIDE = "where x saturates", "at the outermost levels", "inside the range"
VARIANTS = tuple(
    {"BITS": bits, "TENSOR": f"{tensor} (real)", "SQNR": sqnr}
    for bits, sqnr in ((3, 11.0), (4, 16.0), (5, 20.0))
    for tensor in ("expand", "project", "classifier")
)


def data(variant: Variant) -> dict[str, np.ndarray]:
    """The numbers that the notebook quantizes."""
    return {"x": (0.4 * np.random.RandomState(variant.data_seed).randn(200)).astype(np.float32)}


def between(rng: np.random.RandomState, low: float, high: float, count: int) -> np.ndarray:
    """Numbers in units of the scale, none of them near the middle of two integers."""
    u = rng.uniform(low, high, count)
    return np.where(np.abs(u - np.floor(u) - 0.5) < 0.02, u + 0.05, u)


def affine(low: float, high: float, bits: int) -> tuple[float, int]:
    """The right answer."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / (2**bits - 1)
    return scale, round(-low / scale)


def affine_cases(variant: Variant) -> list[Case]:
    """Ranges on both sides of zero, and on one side only; the zero point is no tie."""
    rng, cases = variant.rng(1), []
    for bits in (3, 4, 6, 8):
        top = 2**bits - 1
        for part in (0.3, 0.55, 0.9):
            width = rng.uniform(0.5, 4.0)
            low = -width * (rng.randint(1, top - 1) + part) / top
            cases.append(Case((low, width + low, bits), "around zero"))
        a, b = rng.uniform(0.2, 1.0), rng.uniform(1.5, 3.0)
        cases += [Case((a, b, bits), "of one sign"), Case((-b, -a, bits), "of one sign")]
    return cases


def _affine_of(low: float, high: float, steps: int) -> tuple[float, int]:
    scale = (high - low) / steps
    return scale, round(-low / scale)


def _affine_symmetric(low: float, high: float, bits: int) -> tuple[float, int]:
    return 2 * max(abs(low), abs(high)) / (2**bits - 1), 2 ** (bits - 1)


AFFINE = Function(
    "affine",
    3,
    affine,
    affine_cases,
    {
        "zero outside": Mistake(
            lambda low, high, bits: _affine_of(low, high, 2**bits - 1),
            "Take a range that lies on one side of zero: which code does the number 0 get, and does that code exist?",
        ),
        "levels for steps": Mistake(
            lambda low, high, bits: _affine_of(min(low, 0.0), max(high, 0.0), 2**bits),
            "Your scale is a little too small. Draw the codes of 2 bits on a line and count the gaps between them.",
        ),
        "upside down": Mistake(
            lambda low, high, bits: (1 / affine(low, high, bits)[0], affine(low, high, bits)[1]),
            "Look at the units: is your scale in x for one code, or in codes for one x?",
        ),
        "truncated": Mistake(
            lambda low, high, bits: (
                affine(low, high, bits)[0],
                int(-min(low, 0.0) / affine(low, high, bits)[0]),
            ),
            "Your zero point is sometimes one too small. What does int() do to 2.9?",
        ),
        "not rounded": Mistake(
            lambda low, high, bits: (
                affine(low, high, bits)[0],
                -min(low, 0.0) / affine(low, high, bits)[0],
            ),
            "Your scale is right, but your zero point has a fraction. It is a code: what kind of number is a code?",
        ),
        "sign": Mistake(
            lambda low, high, bits: (affine(low, high, bits)[0], -affine(low, high, bits)[1]),
            "Look at the sign of your zero point: codes are never negative, and one of them stands for 0.",
        ),
        "symmetric": Mistake(
            _affine_symmetric,
            "Your range is the same on both sides of zero. How many of the codes are used if nearly all x are positive?",
        ),
    },
)


def quantize(x: np.ndarray, scale: float, zero: int, bits: int) -> np.ndarray:
    """The right answer."""
    return np.clip(np.rint(x / scale) + zero, 0, 2**bits - 1).astype(np.int64)


def quantize_cases(variant: Variant) -> list[Case]:
    """Numbers inside and outside the range; ties with a scale that is a power of two."""
    rng, cases = variant.rng(2), []
    for bits in (2, 4, 8):
        top, scale = 2**bits - 1, rng.uniform(0.02, 0.3)
        zero = rng.randint(1, top)
        for group, margin in ((INSIDE, 0.0), (SATURATED, 0.6 * top)):
            u = between(rng, -zero - margin, top - zero + margin, 60)
            cases.append(Case(((scale * u).astype(np.float32), scale, int(zero), bits), group))
    u = np.array([-5.5, -4.5, -3.5, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5, 4.5])
    return [*cases, Case(((0.25 * u).astype(np.float32), 0.25, 7, 4), "ties")]


def _codes(u: np.ndarray, zero: int, bits: int) -> np.ndarray:
    return np.clip(u + zero, 0, 2**bits - 1).astype(np.int64)


QUANTIZE = Function(
    "quantize",
    3,
    quantize,
    quantize_cases,
    {
        "zero after the clamp": Mistake(
            lambda x, s, z, b: (np.clip(np.rint(x / s), 0, 2**b - 1) + z).astype(np.int64),
            "Some of your codes do not exist, and negative x are lost. Print your largest code: which comes first, the zero point or the limits?",
        ),
        "signed limits": Mistake(
            lambda x, s, z, b: np.clip(np.rint(x / s) + z, -(2 ** (b - 1)), 2 ** (b - 1) - 1).astype(
                np.int64
            ),
            "Your limits are those of signed integers. Which codes does the text allow, and what is the zero point for?",
        ),
        "one code too many": Mistake(
            lambda x, s, z, b: np.clip(np.rint(x / s) + z, 0, 2**b).astype(np.int64),
            "Count your codes at 2 bits.",
        ),
        "no limits": Mistake(
            lambda x, s, z, b: (np.rint(x / s) + z).astype(np.int64),
            "Quantize a number far outside the range: does its code fit into the bits?",
        ),
        "truncated": Mistake(
            lambda x, s, z, b: _codes(np.trunc(x / s), z, b),
            "Your largest error is a whole step, and the cell around 0 is twice as wide as the others. What does a conversion to integers do to 0.9?",
        ),
        "floor": Mistake(
            lambda x, s, z, b: _codes(np.floor(x / s), z, b),
            "Your codes are too low on average. The largest error of a rounding is half a step; how large is yours?",
        ),
        "ties up": Mistake(
            lambda x, s, z, b: _codes(np.floor(x / s + 0.5), z, b),
            "Only ties are wrong. Look at 0.5, 1.5 and 2.5 steps, and read the sentence on ties again.",
        ),
        "ties away": Mistake(
            lambda x, s, z, b: _codes(np.sign(x) * np.floor(np.abs(x / s) + 0.5), z, b),
            "Only ties are wrong, and yours are symmetric around 0. Look at 0.5 and −0.5 steps, and read the sentence on ties again.",
        ),
        "zero before the rounding": Mistake(
            lambda x, s, z, b: _codes(np.rint(x / s + z), 0, b),
            "Only ties are wrong, and only with an odd zero point. What is rounded: x in steps, or something else?",
        ),
        "floats": Mistake(
            lambda x, s, z, b: quantize(x, s, z, b).astype(np.float32),
            "The numbers are right, but a code is an integer. Look at the dtype of your result.",
        ),
    },
    typed=True,
    apart=("ties",),
)


def dequantize(codes: np.ndarray, scale: float, zero: int) -> np.ndarray:
    """The right answer."""
    return (codes.astype(np.float32) - zero) * np.float32(scale)


def dequantize_cases(variant: Variant) -> list[Case]:
    """Codes as wide integers, and as they are stored."""
    rng, cases = variant.rng(3), []
    for dtype, group in ((np.int64, ""), (np.uint8, "8-bit storage")):
        for bits in (3, 8):
            zero = int(rng.randint(2, 2**bits - 1))
            codes = rng.randint(0, 2**bits, 40)
            codes[:2] = 0, 2**bits - 1
            cases.append(Case((codes.astype(dtype), rng.uniform(0.02, 0.3), zero), group))
    return cases


DEQUANTIZE = Function(
    "dequantize",
    2,
    dequantize,
    dequantize_cases,
    {
        "wraps": Mistake(
            lambda codes, s, z: (codes - np.asarray(z, codes.dtype)).astype(np.float32) * s,
            "Right for wide integers, wrong for codes stored in 8 bits without a sign. What is 3 − 5 in that type?",
        ),
        "zero not scaled": Mistake(
            lambda codes, s, z: codes.astype(np.float32) * s - z,
            "All your results are off by one constant. The code z must come back as 0: does it?",
        ),
        "zero forgotten": Mistake(
            lambda codes, s, z: codes.astype(np.float32) * s,
            "None of your results is negative. Which code stands for 0?",
        ),
        "zero added": Mistake(
            lambda codes, s, z: (codes.astype(np.float32) + z) * s,
            "Go back the way that quantize came, in the reverse order: with which sign does the zero point return?",
        ),
        "divided": Mistake(
            lambda codes, s, z: (codes.astype(np.float32) - z) / s,
            "Look at the units: how far apart should two neighboring results be?",
        ),
    },
    apart=("8-bit storage",),
)


def straight_through(x: Tensor, scale: float, low: int, high: int) -> Tensor:
    """The right answer: the clamp's own gradient, and the identity's in place of the rounding's."""
    u = (x / scale).clamp(low, high)
    return scale * (u.round() + (u - u.detach()))


def ranges(rng: np.random.RandomState, count: int) -> list[tuple[np.ndarray, float, int, int, str]]:
    """Numbers, a scale, the end levels and where the numbers are; signed and unsigned."""
    found = []
    for low, high in ((-8, 7), (0, 7), (-4, 3)):
        scale = float(np.float32(rng.uniform(0.05, 0.3)))
        inside = between(rng, low + 0.1, high - 0.1, count)
        outside = np.concatenate([between(rng, high + 0.1, high + 4, count), [high + 0.3, low - 0.3]])
        for u, group in ((inside, INSIDE), (np.concatenate([inside[:20], outside]), SATURATED)):
            found.append(((scale * u).astype(np.float32), scale, low, high, group))
    return found


def through_cases(variant: Variant) -> list[Case]:
    """Inside, outside, and exactly on the outermost levels (0 among them, as after a ReLU)."""
    rng = variant.rng(4)
    ends = np.array([-2.0, -1.75, 0.25, 1.5]), 0.25, -8, 6, ENDS
    zeros = np.array([0.0, 0.5, 0.0, 1.75]), 0.25, 0, 7, ENDS
    return [
        Case((x.astype(np.float32), *rest), group, (0,), rng.randn(len(x)).astype(np.float32))
        for x, *rest, group in (*ranges(rng, 40), ends, zeros)
    ]


def _handed(value: Tensor, through: Tensor) -> Tensor:
    """A value with another tensor's gradient."""
    return value.detach() + (through - through.detach())


def _hard(x: Tensor, scale: float, low: int, high: int) -> Tensor:
    return scale * (x / scale).clamp(low, high).round()


def _masked(x: Tensor, scale: float, low: int, high: int, inside: Tensor) -> Tensor:
    return _handed(_hard(x, scale, low, high), x * inside)


def _ends_halved(x: Tensor, scale: float, low: int, high: int) -> Tensor:
    u = torch.maximum(torch.minimum(x / scale, torch.tensor(float(high))), torch.tensor(float(low)))
    return scale * _handed(u.round(), u)


STRAIGHT_THROUGH = Function(
    "straight_through",
    4,
    straight_through,
    through_cases,
    {
        "no stand-in": Mistake(
            _hard,
            "Your gradient is 0 everywhere. What is the slope of a staircase, and what should stand in for it?",
        ),
        "no mask": Mistake(
            lambda x, s, low, high: _handed(_hard(x, s, low, high), x),
            "Your gradient is the same everywhere. Move a number that is far outside the range a little: does the output move?",
        ),
        "mask after rounding": Mistake(
            lambda x, s, low, high: _masked(
                x, s, low, high, ((x / s).round() >= low) & ((x / s).round() <= high)
            ),
            "Your mask is wrong within half a step outside the range. Which number do you compare with the ends, the rounded one or the one before?",
        ),
        "open ends": Mistake(
            lambda x, s, low, high: _masked(x, s, low, high, (x / s > low) & (x / s < high)),
            "Only numbers that lie exactly on the outermost levels are wrong. Think of the zeros after a ReLU: are the ends part of the range?",
        ),
        "ends halved": Mistake(
            _ends_halved,
            "Only numbers that lie exactly on the outermost levels are wrong: they get half a gradient. Which function limits your numbers, and what is its slope there?",
        ),
        "gradient of u": Mistake(
            lambda x, s, low, high: _handed(_hard(x, s, low, high), (x / s).clamp(low, high)),
            "Your gradient is off by a constant that depends on the scale. The output is in units of x: how far does it move when x moves by 1?",
        ),
        "scale times": Mistake(
            lambda x, s, low, high: _handed(_hard(x, s, low, high), s * x.clamp(s * low, s * high)),
            "Your gradient shrinks with the scale. x is divided by it and the result multiplied by it: what remains?",
        ),
        "no clamp": Mistake(
            lambda x, s, low, high: s * _handed((x / s).round(), x / s),
            "Your output leaves the range. Which levels exist?",
        ),
        "codes": Mistake(
            lambda x, s, low, high: straight_through(x, s, low, high) / s,
            "Your output is counted in steps. In which unit should it be?",
        ),
    },
    arrays="torch",
)


def lsq(x: Tensor, step: Tensor, low: int, high: int) -> Tensor:
    """The right answer: straight-through, with a step whose gradient is multiplied by 1 / sqrt(N p)."""
    return _lsq(x, step, low, high, (x.numel() * high) ** -0.5)


def lsq_cases(variant: Variant) -> list[Case]:
    """Numbers inside and outside, in tensors of different sizes."""
    rng = variant.rng(5)
    cases = []
    for x, scale, low, high, group in (*ranges(rng, 30), *ranges(rng, 150)):
        cotangent = rng.uniform(0.5, 1.5, len(x)).astype(np.float32)
        step = np.array(scale, np.float32)
        cases.append(Case((x, step, low, high), group, (1,), cotangent))
    return cases


def _lsq(x: Tensor, step: Tensor, low: int, high: int, factor: float) -> Tensor:
    step = _handed(step, step * factor)
    u = (x / step).clamp(low, high)
    return step * _handed(u.round(), u)


def _with_slope(x: Tensor, step: Tensor, low: int, high: int, slope: Tensor) -> Tensor:
    """LSQ's value and factor, with another derivative by the step."""
    factor = (x.numel() * high) ** -0.5
    return _handed(_hard(x, step.detach(), low, high), step * slope.detach() * factor)


def _parts(x: Tensor, step: Tensor, low: int, high: int) -> tuple[Tensor, Tensor, Tensor]:
    u = x / step
    return u, u.clamp(low, high).round(), (u >= low) & (u <= high)


def _own(slope: Any) -> Any:
    """An answer with the derivative that a function of u, code and mask gives."""

    def answer(x: Tensor, step: Tensor, low: int, high: int) -> Tensor:
        return _with_slope(x, step, low, high, slope(*_parts(x, step, low, high)))

    return answer


LSQ = Function(
    "lsq",
    4,
    lsq,
    lsq_cases,
    {
        "no factor": Mistake(
            lambda x, s, low, high: _lsq(x, s, low, high, 1.0),
            "The direction of your gradient is right, its length is not. By what is it off, and how does that depend on the number of values?",
        ),
        "factor squared": Mistake(
            lambda x, s, low, high: _lsq(x, s, low, high, 1 / (x.numel() * high)),
            "Your gradient is too short, the more so the more values there are. Look at the factor again: is a root missing?",
        ),
        "factor without p": Mistake(
            lambda x, s, low, high: _lsq(x, s, low, high, x.numel() ** -0.5),
            "Your factor knows how many values there are. What else stands in it?",
        ),
        "factor with all levels": Mistake(
            lambda x, s, low, high: _lsq(x, s, low, high, (x.numel() * (high - low)) ** -0.5),
            "Right for unsigned ranges only. Which integer stands in the factor: how many levels there are, or which is the highest?",
        ),
        "factor in the forward pass": Mistake(
            lambda x, s, low, high: straight_through(x, s * (x.numel() * high) ** -0.5, low, high),
            "Your output has changed. The factor belongs to the gradient alone: how can a tensor keep its value and yet get another gradient?",
        ),
        "code alone": Mistake(
            _own(lambda u, code, inside: code),
            "The step occurs twice in the formula of the output. Your gradient knows one of the two places: right where x saturates, wrong inside.",
        ),
        "other place alone": Mistake(
            _own(lambda u, code, inside: -u * inside),
            "The step occurs twice in the formula of the output. Your gradient lacks the factor in front.",
        ),
        "zero where saturated": Mistake(
            _own(lambda u, code, inside: (code - u) * inside),
            "Right inside, 0 where x saturates. Does a saturated output depend on the step?",
        ),
        "no mask": Mistake(
            _own(lambda u, code, inside: code - u),
            "Right inside, wrong where x saturates. There the output no longer depends on x: what is left in the derivative?",
        ),
        "no mask and no factor": Mistake(
            lambda x, s, low, high: s * _handed((x / s).clamp(low, high).round(), x / s),
            "Two things are missing. First take one saturated x: the output no longer depends on it, so what is left in the derivative? Then look at how long your gradient is.",
        ),
        "sign": Mistake(
            _own(lambda u, code, inside: torch.where(inside, u - code, -code)),
            "Your step would learn in the wrong direction. Take one saturated number: does its output grow with the step?",
        ),
        "mean": Mistake(
            lambda x, s, low, high: _lsq(x, s, low, high, (x.numel() * high) ** -0.5 / x.numel()),
            "One step serves all values. Do their gradients add up, or are they averaged?",
        ),
        "no gradient": Mistake(
            lambda x, s, low, high: straight_through(x, s.detach(), low, high),
            "No gradient reaches the step. Where does it leave the graph?",
        ),
    },
    arrays="torch",
    rtol=1e-4,
    atol=2e-5,  # large sums of float32 that nearly cancel
)


def largest_step(variant: Variant, state: Mapping[str, Any]) -> dict[str, bool]:
    """Check the state of a StepExplorer."""
    from qviz.explore.step import StepModel

    model = StepModel()
    choice = model.restored(state)
    asked = (choice.tensor, choice.bits, choice.method) == (
        variant.params["TENSOR"],
        variant.params["BITS"],
        "LSQ",
    )
    good = asked and choice.iteration == 0 and _sqnr(model, choice) >= variant.params["SQNR"]
    slider = model.curves(choice).slider
    wider = replace(choice, step=slider.nearest(choice.step + slider.step))
    return {
        "tensor, bits and method are those asked for, the iteration is 0, and the SQNR is reached": good,
        "at the slider's next larger step it is not reached": good
        and _sqnr(model, wider) < variant.params["SQNR"],
    }


def _sqnr(model: Any, choice: Any) -> float:
    return model.headline(choice)["SQNR (dB)"]


def largest_step_answer(variant: Variant) -> dict[str, Any]:
    """The state with the largest step of the slider that reaches the SQNR."""
    from qviz.explore.step import StepModel

    model = StepModel()
    choice = model.restored({"tensor": variant.params["TENSOR"], "bits": variant.params["BITS"]})
    about = model.curves(choice)
    choice = replace(choice, step=about.slider.nearest(about.best))
    while True:
        wider = replace(choice, step=about.slider.nearest(choice.step + about.slider.step))
        if _sqnr(model, wider) < variant.params["SQNR"]:
            return model.state(choice)
        choice = wider


WHY = Written(
    "why",
    2,
    "- 1 point: x alone cannot come back, since its gradient is 0 where it saturates; nothing but a regularizer moves it.\n"
    "- 1 point: the step can, since the output of a saturated x is the step times an end level, so its gradient is that "
    "level (times the factor); a larger step brings x back into the range, and gives it its gradient back.\n"
    "- Half a point off for a true sentence without its reason.",
    "Where x saturates, the clamp is flat, so the gradient of x is 0 and training with x alone leaves it there, however "
    "wrong it is. The output is the step times an end level, so the step still has a gradient. If the loss wants a larger "
    "output, the step grows until x is inside the range again, and from then on x learns too.",
)

LAB = Lab(
    name="lab1-uniform",
    title="A uniform quantizer, and two gradients that training needs",
    version=1,
    minutes=80,
    questions=(
        AFFINE,
        QUANTIZE,
        DEQUANTIZE,
        STRAIGHT_THROUGH,
        LSQ,
        State("largest_step", 2, largest_step, largest_step_answer),
        WHY,
    ),
    variants=VARIANTS,
    data=data,
)
