"""Lab 1: mistakes are named, right answers in any style earn all, the master is what students get."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from qviz.labs.variants import variant
from qviz.recipes import lsq as lsq_recipe
from tests.labs import suite

NAME = "lab1-uniform"
LAB = suite.lab_of(NAME)


def affine_by_hand(low, high, bits):
    low, high = (low if low < 0 else 0.0), (high if high > 0 else 0.0)
    scale = (high - low) / (2**bits - 1)
    return [scale, math.floor(0.5 - low / scale)]


def affine_in_numpy(low, high, bits):
    ends = np.clip([low, high], [-np.inf, 0], [0, np.inf])
    scale = np.ptp(ends) / (2**bits - 1)
    return np.float32(scale), np.rint(-ends[0] / scale).astype(np.int32)


def affine_in_torch(low, high, bits):
    ends = torch.tensor([min(low, 0.0), max(high, 0.0)])
    scale = (ends[1] - ends[0]) / (2**bits - 1)
    return scale, (-ends[0] / scale).round().int()


def quantize_by_hand(x, scale, zero, bits):
    return [max(0, min(2**bits - 1, round(float(v) / scale) + zero)) for v in x]


def quantize_in_place(x, scale, zero, bits):
    x /= scale
    np.rint(x, out=x)
    x += zero
    return x.clip(0, 2**bits - 1, out=x).astype(np.uint8)


def quantize_in_double(x, scale, zero, bits):
    return np.minimum(np.maximum(np.round(np.float64(x) / scale) + zero, 0), 2**bits - 1).astype(int)


def dequantize_by_hand(codes, scale, zero):
    return [(int(code) - zero) * scale for code in codes]


def dequantize_in_double(codes, scale, zero):
    return scale * codes.astype(np.float64) - scale * zero


def dequantize_in_torch(codes, scale, zero):
    return (codes.to(torch.int16) - zero) * scale


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, low, high):
        ctx.inside = (u >= low) & (u <= high)
        return u.round().clamp(low, high)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.inside, None, None


def through_in_torch(x, scale, low, high):
    return scale * Rounded.apply(x / scale, low, high)


def through_in_double_torch(x, scale, low, high):
    u = (x.double() / scale).clip(low, high)
    return scale * (u + (u.round() - u).detach())


def through_in_numpy(x, scale, low, high):
    return np.rint(np.clip(x / scale, low, high)) * scale


def through_in_numpy_backward(x, scale, low, high, cotangent):
    return (np.where((x / scale < low) | (x / scale > high), 0, cotangent),)


def through_by_hand(x, scale, low, high):
    return np.array([scale * min(high, max(low, round(float(v) / scale))) for v in x])


def through_by_hand_backward(x, scale, low, high, cotangent):
    return ([float(g) if low <= v / scale <= high else 0.0 for v, g in zip(x, cotangent, strict=True)],)


class Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, step, low, high):
        u = x / step
        ctx.slope = torch.where(u < low, low, torch.where(u > high, high, u.round() - u))
        ctx.factor = 1 / math.sqrt(x.numel() * high)
        return step * u.round().clamp(low, high)

    @staticmethod
    def backward(ctx, gradient):
        return None, (gradient * ctx.slope).sum() * ctx.factor, None, None


def lsq_in_torch(x, step, low, high):
    return Step.apply(x, step, low, high)


def lsq_with_hook_torch(x, step, low, high):
    step = step * 1.0
    if step.requires_grad:
        step.register_hook(lambda gradient: gradient / math.sqrt(x.numel() * high))
    u = torch.clamp(x / step, low, high)
    return step * (u + (u.round() - u).detach())


def lsq_in_numpy(x, step, low, high):
    return np.rint(np.clip(x / step, low, high)) * step


def lsq_in_numpy_backward(x, step, low, high, cotangent):
    u = x.astype(np.float64) / step
    slope = np.clip(np.rint(u), low, high) - u * ((u >= low) & (u <= high))
    return (np.dot(cotangent, slope) / np.sqrt(x.size * high),)


def lsq_by_hand(x, step, low, high):
    return np.array([float(step) * min(high, max(low, round(float(v / step)))) for v in x])


def lsq_by_hand_backward(x, step, low, high, cotangent):
    total = 0.0
    for v, g in zip(x, cotangent, strict=True):
        u = float(v) / float(step)
        total += float(g) * (low if u < low else high if u > high else round(u) - u)
    return (total * (len(x) * high) ** -0.5,)


ANSWERS = {
    "affine": (affine_by_hand, affine_in_numpy, affine_in_torch),
    "quantize": (quantize_by_hand, quantize_in_place, quantize_in_double),
    "dequantize": (dequantize_by_hand, dequantize_in_double, dequantize_in_torch),
    "straight_through": (through_in_torch, through_in_double_torch, through_in_numpy, through_by_hand),
    "lsq": (lsq_in_torch, lsq_with_hook_torch, lsq_in_numpy, lsq_by_hand),
}


def styles(question):
    """The master's answer and others: function, arrays and, with numpy, the gradients by hand."""
    yield suite.as_handed_out(NAME, True)[question], "torch", None
    for answer in ANSWERS[question]:
        arrays = "torch" if "torch" in answer.__name__ else "numpy"
        yield answer, arrays, globals().get(f"{answer.__name__}_backward")


def test_the_lab_is_complete():
    suite.complete(NAME)


@pytest.mark.parametrize("students", suite.STUDENTS)
@pytest.mark.parametrize(("question", "mistake"), suite.mistakes(NAME))
def test_a_mistake_is_hinted_with_its_own_hint(question, mistake, students):
    suite.hinted_with_its_own(NAME, question, mistake, students)


@pytest.mark.parametrize("students", suite.STUDENTS)
@pytest.mark.parametrize("question", suite.functions(NAME))
def test_right_answers_of_every_style_earn_all(question, students):
    for style in styles(question):
        suite.earns_all(NAME, question, students, *style)


@pytest.mark.parametrize("question", suite.functions(NAME))
def test_public_tests_pass_with_any_right_answer_and_a_blank_earns_nothing(question):
    suite.public_tests(NAME, question, suite.as_handed_out(NAME, True))
    for answer, arrays, backward in styles(question):
        space = suite.as_handed_out(NAME, True, ARRAYS=arrays)
        others = {name: next(s for s in styles(name) if s[1] == arrays) for name in suite.functions(NAME)}
        for name, (function, _, slope) in {**others, question: (answer, arrays, backward)}.items():
            space |= {name: function} | ({f"{name}_backward": slope} if slope else {})
        suite.public_tests(NAME, question, space)
    space = suite.as_handed_out(NAME, False)
    with pytest.raises(NotImplementedError, match=question):
        suite.public_tests(NAME, question, space)
    assert suite.verdict(NAME, question, 0, space[question], "torch").points == 0


@pytest.mark.parametrize("low", [-8, 0])
def test_the_references_are_what_the_library_does(low):
    cases = suite.cases_of(NAME)
    x = torch.randn(300, generator=torch.Generator().manual_seed(0)) * 2
    x.requires_grad_()
    step = torch.tensor(0.31, requires_grad=True)
    high = 7 if low else 15
    recipe = lsq_recipe(4, signed=low < 0, step=0.31)
    recipe(x).sum().backward()
    wanted = x.grad.clone(), recipe.range.step.grad
    x.grad = None
    y = cases.lsq(x, step, low, high)
    y.sum().backward()
    torch.testing.assert_close(y, recipe(x))
    torch.testing.assert_close((x.grad, step.grad), (wanted[0], wanted[1].reshape(())), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("row", range(len(LAB.variants)))
def test_one_step_of_the_slider_is_right_and_its_neighbors_are_not(row):
    asked = LAB.question("largest_step")
    mine = replace(variant(LAB, suite.SECRET), params=LAB.variants[row])
    best = asked.answer(mine)
    grain = round(best["step"] / 150, 4)
    assert list(asked.check(mine, best).values()) == [True, True]
    assert list(asked.check(mine, {**best, "step": best["step"] + 2 * grain}).values()) == [False, False]
    assert list(asked.check(mine, {**best, "step": best["step"] - 2 * grain}).values()) == [True, False]
    assert not any(asked.check(mine, {**best, "bits": 2}).values())


def test_a_state_that_no_explorer_has_is_refused_and_the_masters_is_right():
    asked = LAB.question("largest_step")
    mine = replace(variant(LAB, suite.SECRET), params=LAB.variants[3])
    with pytest.raises(ValueError, match="unknown controls"):
        asked.check(mine, {"level": 3})
    assert all(asked.check(mine, json.loads(suite.as_handed_out(NAME, True)["largest_step"])).values())
