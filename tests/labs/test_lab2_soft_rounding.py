"""Lab 2: mistakes are named, right answers in any style earn all, the master is what students get."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from qviz.core.range import Fixed
from qviz.labs.variants import variant
from qviz.measure import gradient_mismatch, quantizer_gap
from qviz.recipes import daq_weight, soft_argmax, ste
from tests.labs import suite

NAME = "lab2-soft-rounding"
LAB = suite.lab_of(NAME)


def scores_in_numpy(x, sigma):
    t = x - np.floor(x)
    damped, upper = np.exp(-1 / sigma**2), t > 0.5
    return np.exp(-t) * np.where(upper, damped, 1), np.exp(t - 1) * np.where(upper, 1, damped)


def soft_in_numpy(x, beta, sigma):
    low, high = scores_in_numpy(x, sigma)
    return np.floor(x) + 1 / (1 + np.exp(-beta * (high - low)))


def soft_in_numpy_backward(x, beta, sigma, cotangent):
    low, high = scores_in_numpy(x, sigma)
    m = 1 / (1 + np.exp(-beta * (high - low)))
    return (cotangent * beta * m * (1 - m) * (low + high),)


def soft_by_hand(x, beta, sigma):
    return np.array([soft_one(float(v), beta, sigma)[0] for v in x])


def soft_by_hand_backward(x, beta, sigma, cotangent):
    return ([g * soft_one(float(v), beta, sigma)[1] for v, g in zip(x, cotangent, strict=True)],)


def soft_one(v, beta, sigma):
    f = math.floor(v)
    near = f if v - f <= 0.5 else f + 1
    weight = [math.exp(-abs(v - q)) * math.exp(-((q - near) ** 2) / sigma**2) for q in (f, f + 1)]
    m = 1 / (1 + math.exp(-beta * (weight[1] - weight[0])))
    return f + m, beta * m * (1 - m) * sum(weight)


def soft_by_softmax_in_torch(x, beta, sigma):
    levels = torch.stack([x.detach().floor(), x.detach().floor() + 1])
    distance = (x - levels).abs()
    far = (levels - levels.gather(0, distance.argmin(0, keepdim=True))) ** 2
    return (torch.softmax(beta * torch.exp(-distance - far / sigma**2), 0) * levels).sum(0)


def soft_in_double_torch(x, beta, sigma):
    low, high = scores_in_torch(x.double(), sigma)
    return torch.floor(x.detach()) + torch.sigmoid(beta * (high - low))


def scores_in_torch(x, sigma):
    t = x - x.detach().floor()
    far = math.exp(-(sigma**-2))
    weight = torch.where(t > 0.5, far, 1.0)
    return weight * (-t).exp(), far / weight * (t - 1).exp()


def temperature_in_numpy(x, gamma, sigma):
    low, high = scores_in_numpy(x, sigma)
    return gamma / np.abs(low - high)


def temperature_in_double(x, gamma, sigma):
    return temperature_in_numpy(x.astype(np.float64), gamma, sigma)


def temperature_by_hand(x, gamma, sigma):
    found = []
    for v in x:
        t = min(float(v) % 1, 1 - float(v) % 1)
        found.append(gamma / (math.exp(-t) - math.exp(t - 1 - sigma**-2)))
    return found


def temperature_in_torch(x, gamma, sigma):
    low, high = scores_in_torch(x, sigma)
    return gamma / torch.abs(high - low)


def daq_in_numpy(x, gamma, sigma, top):
    return np.ceil(np.clip(x, 0, top) - 0.5)


def daq_in_numpy_backward(x, gamma, sigma, top, cotangent):
    reach = np.abs(x - np.floor(x) - 0.5) + 1 / (2 * sigma**2)
    return (cotangent * gamma / (2 * np.sinh(gamma)) / np.tanh(reach) * ((x >= 0) & (x <= top)),)


def daq_by_hand(x, gamma, sigma, top):
    return [math.ceil(min(max(float(v), 0.0), top) - 0.5) for v in x]


def daq_by_hand_backward(x, gamma, sigma, top, cotangent):
    slopes = daq_in_numpy_backward(x, gamma, sigma, top, np.ones(len(x)))[0]
    return ([float(g) * float(slope) for g, slope in zip(cotangent, slopes, strict=True)],)


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, gamma, sigma, top):
        ctx.slope = torch.from_numpy(daq_in_numpy_backward(x.numpy(), gamma, sigma, top, 1)[0])
        return torch.ceil(x.clamp(0, top) - 0.5)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.slope, None, None, None


def daq_in_torch(x, gamma, sigma, top):
    return Rounded.apply(x, gamma, sigma, top)


def daq_by_levels_in_torch(x, gamma, sigma, top):
    x = x.clamp(0, top).double()
    floor, shift = x.detach().floor(), 1 / (math.exp(gamma) - 1)
    low, high = scores_in_torch(x, sigma)
    beta = (gamma / (low - high).abs()).detach()
    m = torch.sigmoid(beta * (high - low))
    return (floor - shift) * (1 - m) + (floor + 1 + shift) * m


def gap_by_hand(soft, x):
    sizes = [abs(float(s) - round(float(v))) for s, v in zip(soft, x, strict=True)]
    return [sum(sizes) / len(sizes), max(sizes)]


def gap_in_place(soft, x):
    soft -= np.rint(x)
    np.abs(soft, out=soft)
    return soft.mean(), soft.max()


def gap_in_double(soft, x):
    size = np.abs(np.float64(soft) - np.floor(x + np.float64(0.5)))
    return size.mean(), np.max(size)


def mismatch_by_hand(slope, below, above, width):
    found = 0.0
    for g, a, b in zip(slope, below, above, strict=True):
        found += abs(float(g) - (float(b) - float(a)) / width) / len(slope)
    return found


def mismatch_in_place(slope, below, above, width):
    slope -= (above - below) / np.float32(width)
    return np.abs(slope).mean()


def mismatch_in_double(slope, below, above, width):
    return np.linalg.norm((np.float64(slope) * width - above + below) / width, 1) / slope.size


ANSWERS = {
    "soft_round": (soft_by_softmax_in_torch, soft_in_double_torch, soft_in_numpy, soft_by_hand),
    "temperature": (
        temperature_in_torch,
        temperature_in_numpy,
        temperature_in_double,
        temperature_by_hand,
    ),
    "daq_round": (daq_in_torch, daq_by_levels_in_torch, daq_in_numpy, daq_by_hand),
    "gap": (gap_by_hand, gap_in_place, gap_in_double),
    "mismatch": (mismatch_by_hand, mismatch_in_place, mismatch_in_double),
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
    for params in LAB.variants:
        suite.public_tests(NAME, question, suite.as_handed_out(NAME, True, **params))
    for answer, arrays, backward in styles(question):
        space = suite.as_handed_out(NAME, True, ARRAYS=arrays)
        others = {name: next(s for s in styles(name) if s[1] == arrays) for name in suite.functions(NAME)[:3]}
        for name, (function, _, slope) in {**others, question: (answer, arrays, backward)}.items():
            space |= {name: function} | ({f"{name}_backward": slope} if slope else {})
        suite.public_tests(NAME, question, space)
    space = suite.as_handed_out(NAME, False)
    with pytest.raises(NotImplementedError, match=question):
        suite.public_tests(NAME, question, space)
    assert suite.verdict(NAME, question, 0, space[question], "torch").points == 0


def test_the_references_are_what_the_library_does():
    cases = suite.cases_of(NAME)
    at = (np.arange(300) + 0.25) / 100  # 0 … 3, no ties
    x = torch.tensor(at, requires_grad=True)
    library = {
        "soft": (soft_argmax(2, beta=5.0, sigma=1.0, bounds=(0.0, 3.0)), cases.soft_round(x, 5.0, 1.0)),
        "daq": (daq_weight(2, bounds=(0.0, 3.0)), cases.daq_round(x, 2.0, 1.0, 3)),
    }
    for quantizer, mine in library.values():
        inner = torch.tensor(at, requires_grad=True)
        (theirs := quantizer(inner)).sum().backward()
        torch.testing.assert_close(mine, theirs * 1.5 + 1.5)  # a weight of DAQ lies in [-1, 1]
        torch.testing.assert_close(torch.autograd.grad(mine.sum(), x)[0], inner.grad * 1.5)
    soft = library["soft"][1].detach().numpy()
    gaps = quantizer_gap(library["soft"][0], torch.tensor(at))
    np.testing.assert_allclose(cases.gap(soft, at), np.multiply((gaps.mean, gaps.max), 1.5))
    below, above = (np.clip(np.rint(at + side), 0, 3) for side in (-0.15, 0.15))
    measured = gradient_mismatch(ste(2, signed=False, range=Fixed(1.0)), torch.tensor(at), window=0.3)
    assert cases.mismatch(np.ones(300), below, above, 0.3) == pytest.approx(measured.mean)


@pytest.mark.parametrize("row", range(len(LAB.variants)))
def test_one_temperature_of_the_slider_is_right_and_its_neighbors_are_not(row):
    asked = LAB.question("smallest_beta")
    mine = replace(variant(LAB, suite.SECRET), params=LAB.variants[row])
    best = asked.answer(mine)
    assert list(asked.check(mine, best).values()) == [True, True]
    assert list(asked.check(mine, {**best, "beta": best["beta"] + 0.5}).values()) == [True, False]
    assert list(asked.check(mine, {**best, "beta": best["beta"] - 0.5}).values()) == [False, False]
    for other in ({"sigma": 1.0}, {"soft": False}, {"kind": "DAQ, controller"}):
        assert not any(asked.check(mine, {**best, **other}).values())


def test_a_state_that_no_explorer_has_is_refused_and_the_masters_is_right():
    asked = LAB.question("smallest_beta")
    mine = replace(variant(LAB, suite.SECRET), params=LAB.variants[2])
    with pytest.raises(ValueError, match="unknown controls"):
        asked.check(mine, {"level": 3})
    assert all(asked.check(mine, json.loads(suite.as_handed_out(NAME, True)["smallest_beta"])).values())
