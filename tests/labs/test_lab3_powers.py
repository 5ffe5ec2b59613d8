"""Lab 3: mistakes are named, right answers in any style earn all, the master is what students get."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import qviz
from qviz.export.lut import post_lut, split_accumulate, table_dot
from qviz.labs.variants import variant
from tests.labs import suite

NAME = "lab3-powers"
LAB = suite.lab_of(NAME)


def powers_by_hand(bits, ratio):
    found = [0.0]
    for j in range(2 ** (bits - 1) - 1):
        found += [ratio**-j, -(ratio**-j)]
    return sorted(found)


def powers_in_place(bits, ratio):
    middle = 2 ** (bits - 1) - 1
    levels = np.zeros(2 * middle + 1)
    levels[middle + 1 :] = np.logspace(1 - middle, 0, middle, base=ratio)
    levels -= levels[::-1]
    return levels


def powers_in_torch(bits, ratio):
    magnitudes = torch.pow(ratio, -torch.arange(2 ** (bits - 1) - 1, dtype=torch.float64))
    return torch.cat([magnitudes, torch.zeros(1), -magnitudes]).sort().values


def nearest_by_hand(w, alpha, levels):
    found = np.empty(w.shape)
    for o, row in enumerate(w):
        for i, v in enumerate(row):
            found[o, i] = alpha[o] * min(levels, key=lambda level, d=v / alpha[o]: (abs(d - level), level))
    return found


def nearest_in_place(w, alpha, levels):
    w /= alpha[:, None]
    codes = sum((w > border).astype(int) for border in (levels[1:] + levels[:-1]) / 2)
    return np.take(levels, codes) * alpha[:, None]


def nearest_in_double(w, alpha, levels):
    grid = np.float64(alpha)[:, None] * levels
    return np.stack(
        [g[np.abs(row[:, None] - g).argmin(1)] for row, g in zip(np.float64(w), grid, strict=True)]
    )


def nearest_in_torch(w, alpha, levels):
    codes = torch.bucketize(w / alpha.unsqueeze(1), (levels[1:] + levels[:-1]) / 2)
    return levels[codes] * alpha.unsqueeze(1)


def split_in_numpy(sign, exponent, activations, shift):
    weight = np.where(exponent >= 0, sign << (shift - np.maximum(exponent, 0) // 2), 0)
    return [weight @ (activations * (exponent % 2 == parity)) for parity in (0, 1)]


def split_by_horner(sign, exponent, activations, shift):
    sums = []
    for parity in (0, 1):
        total = 0
        for s in range(shift + 1):
            total = 2 * total + int((sign * activations)[exponent == 2 * s + parity].sum())
        sums.append(total)
    return tuple(sums)


def split_in_place(sign, exponent, activations, shift):
    activations *= sign
    activations[exponent < 0] = 0
    activations <<= shift - exponent.clip(0) // 2
    return activations[exponent % 2 == 0].sum(), activations[exponent % 2 == 1].sum()


def split_in_torch(sign, exponent, activations, shift):
    terms = sign * torch.bitwise_left_shift(
        activations, shift - exponent.clamp(min=0).div(2, rounding_mode="floor")
    )
    odd = exponent.remainder(2) == 1
    return terms[~odd & (exponent >= 0)].sum(), terms[odd & (exponent >= 0)].sum()


def combine_by_shift(even, odd, shift, alpha, step):
    return (even * alpha + odd * 0.5**0.5 * alpha) * step / (1 << shift)


def combine_in_single(even, odd, shift, alpha, step):
    return np.float32(alpha) * np.float32(step) * np.ldexp(even + odd * np.sqrt(0.5), -shift)


def combine_in_torch(even, odd, shift, alpha, step):
    return torch.tensor([float(even), odd / 2**0.5]).sum() * alpha * step * 0.5**shift


def products_by_hand(levels, bits):
    return [[level * a for a in range(2**bits)] for level in levels if level >= 0]


def products_in_place(levels, bits):
    table = np.zeros(((len(levels) + 1) // 2, 2**bits))
    for a in range(1, 2**bits):
        table[:, a] = table[:, a - 1] + levels[len(levels) // 2 :]
    return table


def products_in_torch(levels, bits):
    return torch.outer(levels[len(levels) // 2 :], torch.arange(2**bits).to(levels))


ANSWERS = {
    "powers": (powers_by_hand, powers_in_place, powers_in_torch),
    "nearest": (nearest_by_hand, nearest_in_place, nearest_in_double, nearest_in_torch),
    "split": (split_in_numpy, split_by_horner, split_in_place, split_in_torch),
    "combine": (combine_by_shift, combine_in_single, combine_in_torch),
    "products": (products_by_hand, products_in_place, products_in_torch),
}


def styles(question):
    """The master's answer and others, with the arrays that they take."""
    yield suite.as_handed_out(NAME, True)[question], "numpy"
    for answer in ANSWERS[question]:
        yield answer, "torch" if "torch" in answer.__name__ else "numpy"


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
    for answer, arrays in styles(question):
        space = suite.as_handed_out(NAME, True, ARRAYS=arrays)
        others = {name: next(s[0] for s in styles(name) if s[1] == arrays) for name in suite.functions(NAME)}
        suite.public_tests(NAME, question, {**space, **others, question: answer})
    space = suite.as_handed_out(NAME, False)
    with pytest.raises(NotImplementedError, match=question):
        suite.public_tests(NAME, question, {**suite.as_handed_out(NAME, True), question: space[question]})
    assert suite.verdict(NAME, question, 0, space[question]).points == 0


@pytest.mark.parametrize("bits", [3, 4])
def test_the_references_are_what_the_library_does(bits):
    cases = suite.cases_of(NAME)
    levels = cases.powers(bits, 2**0.5)
    np.testing.assert_allclose(levels, qviz.post(bits).levels, rtol=1e-6)
    np.testing.assert_allclose(cases.powers(bits, 2.0), qviz.pot(bits).levels)

    rng = np.random.RandomState(0)
    w, a = rng.randn(6, 40), rng.randint(0, 2**bits, 40)
    alpha = np.abs(w).max(1)
    quantizer = qviz.Quantizer(qviz.post(bits), range=qviz.Fixed(torch.tensor(alpha), axis=0))
    mine, theirs = cases.nearest(w, alpha, levels), quantizer(torch.tensor(w)).numpy()
    np.testing.assert_allclose(mine, theirs, atol=1e-6)

    lut, codes = post_lut(bits), quantizer.codes(torch.tensor(w))[0].long()
    sign, exponent = lut.sign[codes], lut.exponent[lut.magnitude[codes].long()]
    sign, exponent = sign.numpy().astype(int), exponent.numpy().astype(int)
    sums = split_accumulate(lut, codes, torch.tensor(a))
    assert cases.split(sign, exponent, a, lut.shift) == (sums.even, sums.odd)
    total = cases.combine(sums.even, sums.odd, lut.shift, alpha[0], 0.1)
    assert total == pytest.approx(mine[0] @ (0.1 * a), abs=1e-6)
    np.testing.assert_allclose(cases.products(levels, bits), lut.products)
    rows = cases.products(levels, bits)[lut.magnitude[codes].long(), a]
    assert (sign * rows).sum() == pytest.approx(table_dot(lut, codes, torch.tensor(a)).item())


@pytest.mark.parametrize("row", range(len(LAB.variants)))
def test_one_clip_of_the_slider_is_right_and_its_neighbors_are_not(row):
    asked = LAB.question("largest_clip")
    mine = replace(variant(LAB, suite.SECRET), params=LAB.variants[row])
    best = asked.answer(mine)
    assert list(asked.check(mine, best).values()) == [True, True]
    assert list(asked.check(mine, {**best, "clip": best["clip"] + 0.005}).values()) == [False, False]
    assert list(asked.check(mine, {**best, "clip": best["clip"] - 0.005}).values()) == [True, False]
    assert all(asked.check(mine, {**best, "grid_a": "POT", "grid_b": "POST"}).values())
    for other in ({"grid_a": "uniform"}, {"rule": "MSE search"}, {"bits": 5}, {"per_channel": True}):
        assert not any(asked.check(mine, {**best, **other}).values())


def test_a_state_that_no_explorer_has_is_refused_and_the_masters_is_right():
    asked = LAB.question("largest_clip")
    mine = replace(variant(LAB, suite.SECRET), params=LAB.variants[0])
    with pytest.raises(ValueError, match="unknown controls"):
        asked.check(mine, {"step": 3})
    assert all(asked.check(mine, json.loads(suite.as_handed_out(NAME, True)["largest_clip"])).values())
