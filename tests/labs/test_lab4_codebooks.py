"""Lab 4: mistakes are named, right answers in any style earn all, the master is what students get."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from qviz.explore import CodebookModel
from qviz.labs.variants import variant
from qviz.methods.adq import EMACodebook
from qviz.nn.allocate import greedy
from tests.labs import suite

NAME = "lab4-codebooks"
LAB = suite.lab_of(NAME)


def start_by_hand(w, m):
    def quantile(values, p):
        at = p * (len(values) - 1)
        low = int(at)
        high = min(low + 1, len(values) - 1)
        return values[low] + (at - low) * (values[high] - values[low])

    up, down = sorted(x for x in w if x > 0), sorted(-x for x in w if x < 0)
    right = [quantile(up, (i + 0.5) / m) for i in range(m)]
    return [-quantile(down, (i + 0.5) / m) for i in reversed(range(m))] + [0.0] + right


def start_in_torch(w, m):
    p = (torch.arange(m, dtype=w.dtype) + 0.5) / m
    return torch.cat([torch.quantile(w[w < 0], 1 - p).flip(0), w.new_zeros(1), torch.quantile(w[w > 0], p)])


def start_in_place(w, m):
    levels = np.zeros(2 * m + 1)
    for sign in (-1, 1):
        levels[m + sign * np.arange(1, m + 1)] = sign * np.quantile(
            sign * w[sign * w > 0], (np.arange(m) + 0.5) / m
        )
    return levels


def nearest_by_hand(w, levels):
    return [min(range(len(levels)), key=lambda k: (abs(x - levels[k]), k)) for x in w]


def nearest_by_distance(w, levels):
    return np.abs(w[:, None] - levels).argmin(1)


def nearest_in_torch(w, levels):
    return torch.bucketize(w, (levels[1:] + levels[:-1]) / 2)


def nearest_in_place(w, levels):
    codes = np.zeros(len(w), dtype=np.uint8)
    for middle in (levels[1:] + levels[:-1]) / 2:
        codes += w > middle
    return codes


def step_by_hand(w, levels, decay):
    codes, new = nearest_by_hand(w, levels), list(levels)
    for k in range(len(levels)):
        mine = [x for x, code in zip(w, codes, strict=True) if code == k]
        if mine and 2 * k + 1 != len(levels):
            new[k] = decay * levels[k] + (1 - decay) * sum(mine) / len(mine)
    return [levels[k] for k in codes], new


def step_in_torch(w, levels, decay):
    one_hot = torch.nn.functional.one_hot(nearest_in_torch(w, levels), len(levels)).to(w)
    count = one_hot.sum(0)
    mean = torch.where(count > 0, w @ one_hot / count.clamp(min=1), levels)
    new = torch.lerp(mean, levels, decay)
    new[len(levels) // 2] = 0
    return one_hot @ levels, new


def step_in_place(w, levels, decay):
    codes = nearest_by_distance(w, levels)
    w[:], old = levels[codes], w.copy()
    for k in set(codes.tolist()) - {len(levels) // 2}:
        levels[k] += (1 - decay) * (old[codes == k].mean() - levels[k])
    return w, levels


def moving_by_hand(counts, sums, w, decay, eps):
    codes = nearest_by_hand(w, [m / n for m, n in zip(sums, counts, strict=True)])
    new = [decay * c + (1 - decay) * codes.count(k) for k, c in enumerate(counts)]
    total = [
        decay * s + (1 - decay) * sum(x for x, code in zip(w, codes, strict=True) if code == k)
        for k, s in enumerate(sums)
    ]
    share = [(n + eps) / (sum(new) + len(new) * eps) for n in new]
    return new, total, [t / (p * sum(new)) for t, p in zip(total, share, strict=True)]


def moving_in_torch(counts, sums, w, decay, eps):
    one_hot = torch.nn.functional.one_hot(nearest_in_torch(w, sums / counts), len(counts)).to(w)
    counts = decay * counts + (1 - decay) * one_hot.sum(0)
    sums = decay * sums + (1 - decay) * w @ one_hot
    smoothed = (counts + eps) / (counts.sum() + len(counts) * eps) * counts.sum()
    return counts, sums, sums / smoothed


def moving_in_place(counts, sums, w, decay, eps):
    codes = nearest_by_distance(w, sums / counts)
    counts *= decay
    sums *= decay
    np.add.at(counts, codes, 1 - decay)
    np.add.at(sums, codes, (1 - decay) * w)
    return counts, sums, sums / (counts + eps) * (1 + len(counts) * eps / counts.sum())


def allocated_by_hand(omega, sizes, bits, budget):
    chosen = [bits[0]] * len(sizes)
    while True:
        best, layer = 0.0, None
        for i, n in enumerate(sizes):
            j = bits.index(chosen[i]) + 1
            if j == len(bits):
                continue
            tried = [*chosen[:i], bits[j], *chosen[i + 1 :]]
            gain = (omega[i][j - 1] - omega[i][j]) / (n * (bits[j] - bits[j - 1]))
            spent = sum(a * b for a, b in zip(sizes, tried, strict=True))
            if spent <= budget * sum(sizes) and gain > best:
                best, layer = gain, i
        if layer is None:
            return chosen
        chosen[layer] = bits[bits.index(chosen[layer]) + 1]


def allocated_in_torch(omega, sizes, bits, budget):
    n, b = torch.tensor(sizes).double(), torch.tensor(bits).double()
    cost = n[:, None] * b.diff()
    gain = -omega.diff(dim=1) / cost
    at, left = torch.zeros(len(n), dtype=torch.long), budget * n.sum() - n.sum() * b[0]
    for where in gain.flatten().argsort(descending=True).tolist():
        layer, j = divmod(where, len(bits) - 1)
        if at[layer] == j and cost[layer, j] <= left:
            at[layer], left = j + 1, left - cost[layer, j]
    return b[at].to(torch.int32)


ANSWERS = {
    "quantile_start": (start_by_hand, start_in_place, start_in_torch),
    "nearest": (nearest_by_hand, nearest_by_distance, nearest_in_place, nearest_in_torch),
    "step": (step_by_hand, step_in_place, step_in_torch),
    "moving": (moving_by_hand, moving_in_place, moving_in_torch),
    "allocate": (
        allocated_by_hand,
        lambda omega, sizes, bits, budget: greedy(omega, sizes, budget, bits).bits,
        allocated_in_torch,
    ),
}


def test_the_lab_is_complete():
    suite.complete(NAME)


@pytest.mark.parametrize("students", suite.STUDENTS)
@pytest.mark.parametrize(("question", "mistake"), suite.mistakes(NAME))
def test_a_mistake_is_hinted_with_its_own_hint(question, mistake, students):
    suite.hinted_with_its_own(NAME, question, mistake, students)


@pytest.mark.parametrize("students", suite.STUDENTS)
@pytest.mark.parametrize("question", suite.functions(NAME))
def test_right_answers_of_every_style_earn_all(question, students):
    solved = suite.as_handed_out(NAME, True)[question]
    for answer in (solved, *ANSWERS[question]):
        suite.earns_all(NAME, question, students, answer, "torch" if "torch" in answer.__name__ else "numpy")


@pytest.mark.parametrize("question", suite.functions(NAME))
def test_public_tests_pass_with_the_solution_and_a_blank_earns_nothing(question):
    suite.public_tests(NAME, question, suite.as_handed_out(NAME, True))
    suite.public_tests(NAME, question, suite.as_handed_out(NAME, True, ARRAYS="torch"))
    space = suite.as_handed_out(NAME, False)
    with pytest.raises(NotImplementedError, match=question):
        suite.public_tests(NAME, question, space)
    assert suite.verdict(NAME, question, 0, space[question]).points == 0


def test_the_references_are_what_the_library_does():
    cases = suite.cases_of(NAME)
    w = torch.randn(2000, generator=torch.Generator().manual_seed(0)).double()
    book = EMACodebook(4, decay=0.7)
    book.observe(w)
    levels = cases.quantile_start(w.numpy(), 7)
    np.testing.assert_allclose(book.levels, levels, rtol=1e-5, atol=1e-7)
    for _ in range(3):
        book.observe(1.1 * w)
        levels = cases.step(1.1 * w.numpy(), levels, 0.7)[1]
    np.testing.assert_allclose(book.levels, levels, rtol=1e-5, atol=1e-7)


def test_the_largest_decay_is_found_by_search_and_no_other_is_right():
    asked = LAB.question("decay")
    for params in (LAB.variants[0], LAB.variants[5]):
        mine = replace(variant(LAB, suite.SECRET), params=params)
        best = asked.answer(mine)
        explorer = CodebookModel(bits=params["BITS"])
        assert all(asked.check(mine, explorer.state(explorer.restored(best))).values())
        assert list(asked.check(mine, {**best, "decay": best["decay"] + 0.02}).values()) == [
            True,
            False,
            False,
        ]
        assert list(asked.check(mine, {**best, "decay": best["decay"] - 0.02}).values()) == [
            True,
            True,
            False,
        ]
        assert not any(asked.check(mine, {**best, "drift": "none"}).values())
    with pytest.raises(ValueError, match="unknown controls"):
        asked.check(mine, {"level": 3})
    written = json.loads(suite.as_handed_out(NAME, True)["decay"])
    assert written == asked.answer(replace(mine, params=LAB.variants[0]))
