"""Lab 5: mistakes are named, right answers in any style earn all, the master is what students get."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from qviz.core.grids import uniform
from qviz.explore import BorderModel
from qviz.labs.variants import variant
from qviz.methods.aquant import AdaptiveBorder
from qviz.methods.aquant_border import optimal_border, ratio
from tests.labs import suite

NAME = "lab5-borders"
LAB = suite.lab_of(NAME)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def curve(b, v):
    return sigmoid(b[0] + b[1] * v + b[2] * v**2)


def border_by_hand(w, w_hat, n):
    return [w_hat * (k + 0.5) / w - k for k in n]


def border_in_place(w, w_hat, n):
    out = np.full(len(n), 0.5)
    out += (n + 0.5) * (w_hat / w - 1)
    return out


def border_of_the_library(w, w_hat, n):
    return optimal_border(w, w_hat, n)


def rho_by_hand(w, w_hat):
    found = []
    for c in range(w.shape[1]):
        energy = sum(a * a for a in w_hat[:, c].ravel())
        both = sum(a * b for a, b in zip(w_hat[:, c].ravel(), w[:, c].ravel(), strict=True))
        found.append(both / energy if energy else 1.0)
    return found


def rho_by_einsum(w, w_hat):
    energy = np.einsum("ocij,ocij->c", w_hat, w_hat)
    energy[energy == 0] = np.inf
    return np.where(np.isinf(energy), 1, np.einsum("ocij,ocij->c", w_hat, w) / energy)


def rho_of_the_library(w, w_hat):
    return ratio(w, w_hat)


def bordered_by_hand(u, b, top):
    out = np.zeros_like(u)
    for i, c in np.ndindex(*u.shape):
        held = min(max(u[i, c], 0), top)
        n = min(int(held), top - 1)
        out[i, c] = n + (held - n > curve(b[:, c], held / top))
    return out


def bordered_by_hand_backward(u, b, top, cotangent):
    du, db = np.zeros_like(u), np.zeros_like(b)
    for i, c in np.ndindex(*u.shape):
        if 0 < u[i, c] < top:
            v = u[i, c] / top
            slope = curve(b[:, c], v) * (1 - curve(b[:, c], v))
            du[i, c] = cotangent[i, c]
            db[:, c] -= cotangent[i, c] * slope * v ** np.arange(3)
    return du, db


def bordered_in_place(u, b, top):
    np.clip(u, 0, top, out=u)
    u += 1 - curve(b, u / top)
    return np.clip(np.ceil(u) - 1, 0, top)


def bordered_in_place_backward(u, b, top, cotangent):
    cotangent *= (u > 0) & (u < top)
    v = np.clip(u, 0, top) / top
    slope = -cotangent * curve(b, v) * (1 - curve(b, v))
    return cotangent, np.stack([slope.sum(0), (slope * v).sum(0), (slope * v * v).sum(0)])


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, b, top):
        held = u.clamp(0, top)
        v = held / top
        border = torch.sigmoid(b[0] + b[1] * v + b[2] * v * v)
        ctx.save_for_backward((u > 0) & (u < top), v, border)
        return (held - border).ceil().clamp(0, top)

    @staticmethod
    def backward(ctx, g):
        inside, v, border = ctx.saved_tensors
        g = g * inside
        powers = torch.stack([torch.ones_like(v), v, v * v])
        return g, -(g * border * (1 - border) * powers).sum(1), None


def bordered_in_torch(u, b, top):
    return Straight.apply(u, b, top)


def loss_by_hand(x, u, w, w_hat):
    total = 0.0
    for i, o in np.ndindex(len(x), len(w)):
        total += (sum(w_hat[o] * x[i]) - sum(w[o] * u[i])) ** 2
    return total / len(x)


def loss_backward(x, u, w, w_hat, cotangent):
    return (2 * cotangent / len(x) * (x @ w_hat.T - u @ w.T) @ w_hat,)


def loss_in_place(x, u, w, w_hat):
    missed = x @ w_hat.T
    missed -= u @ w.T
    missed *= missed
    return np.float64(missed.sum() / len(x))


def loss_in_torch(x, u, w, w_hat):
    lhs, rhs = torch.einsum("nc,oc->no", x, w_hat), torch.nn.functional.linear(u, w)
    return torch.nn.functional.mse_loss(lhs, rhs, reduction="sum") / len(x)


def thresholds_by_hand(b, top):
    table = []
    for c in range(b.shape[1]):
        row = []
        for n in range(top):
            low, high = n, n + 1
            for _ in range(40):
                middle = (low + high) / 2
                if middle - n < curve(b[:, c], middle / top):
                    low = middle
                else:
                    high = middle
            row.append(low)
        table.append(row)
    return table


def thresholds_by_newton(b, top):
    n = np.arange(top)
    t = n + 0.5 + np.zeros((b.shape[1], 1))
    for _ in range(12):
        v = t / top
        height = sigmoid(b[0][:, None] + b[1][:, None] * v + b[2][:, None] * v * v)
        slope = height * (1 - height) * (b[1][:, None] + 2 * b[2][:, None] * v) / top
        t -= (t - n - height) / (1 - slope)
    return t


def thresholds_of_the_library(b, top):
    made = AdaptiveBorder(top, channels=b.shape[1])
    made.b.data = b.clone()
    return made.freeze(uniform(top.bit_length(), signed=False)).border.T


PLAIN, TORCH = ("numpy", None), ("torch", None)
ANSWERS = {
    "best_border": (
        (border_by_hand, *PLAIN),
        (border_in_place, *PLAIN),
        (border_of_the_library, *TORCH),
    ),
    "rho": ((rho_by_hand, *PLAIN), (rho_by_einsum, *PLAIN), (rho_of_the_library, *TORCH)),
    "bordered": (
        (bordered_by_hand, "numpy", bordered_by_hand_backward),
        (bordered_in_place, "numpy", bordered_in_place_backward),
        (bordered_in_torch, *TORCH),
    ),
    "output_loss": (
        (loss_by_hand, "numpy", loss_backward),
        (loss_in_place, "numpy", loss_backward),
        (loss_in_torch, *TORCH),
    ),
    "thresholds": (
        (thresholds_by_hand, *PLAIN),
        (thresholds_by_newton, *PLAIN),
        (thresholds_of_the_library, *TORCH),
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
    for answer in ((solved, *TORCH), *ANSWERS[question]):
        suite.earns_all(NAME, question, students, *answer)


@pytest.mark.parametrize("question", suite.functions(NAME))
def test_public_tests_pass_with_the_solution_and_a_blank_earns_nothing(question):
    suite.public_tests(NAME, question, suite.as_handed_out(NAME, True))
    numpy = suite.as_handed_out(NAME, True, ARRAYS="numpy")
    numpy[question], _, numpy[f"{question}_backward"] = ANSWERS[question][0]
    numpy[question].__name__ = question
    suite.public_tests(NAME, question, numpy)
    space = suite.as_handed_out(NAME, False)
    with pytest.raises(NotImplementedError, match=question):
        suite.public_tests(NAME, question, space)
    assert suite.verdict(NAME, question, 0, space[question], *TORCH).points == 0


@pytest.mark.slow
@pytest.mark.parametrize("params", LAB.variants[::6])
def test_borders_learn_on_the_real_layer(params, capsys):
    space = suite.as_handed_out(NAME, True, **params)
    (cell,) = [part.source for part in suite.parts(NAME) if "def learned(" in part.source]
    exec(cell, space)
    found = [float(line.split()[-2]) for line in capsys.readouterr().out.splitlines()[1:]]
    assert found[0] < 90, "the border helps"
    assert found[1] < 90, "and so does the control"


def test_a_border_bent_by_hand_reaches_every_target_and_no_bend_does_not():
    asked = LAB.question("bent")
    for params in LAB.variants[::2]:
        mine = replace(variant(LAB, suite.SECRET), params=params)
        best = asked.answer(mine)
        explorer = BorderModel()
        assert all(asked.check(mine, explorer.state(explorer.restored(best))).values())
        assert list(asked.check(mine, {**best, "low": 0.5, "middle": 0.5, "high": 0.5}).values()) == [
            True,
            False,
        ]
        assert not any(asked.check(mine, {**best, "border": "learned"}).values())
    written = json.loads(suite.as_handed_out(NAME, True)["bent"])
    assert written == asked.answer(replace(mine, params=LAB.variants[0]))


def test_an_error_that_the_explorer_shows_as_the_target_reaches_it():
    params = {"NETWORK": "least squares", "BITS": 3, "TARGET": 94.0, "SHARE": 1.0}
    mine = replace(variant(LAB, suite.SECRET), params=params)
    borders = {"low": 0.4, "middle": 0.75, "high": 0.7}
    bent = {"network": "least squares", "bits": 3, "border": "by hand", **borders}
    explorer = BorderModel()
    assert 94 < explorer.error(explorer.restored(bent)) < 94.05
    assert all(LAB.question("bent").check(mine, bent).values())
    assert not all(LAB.question("bent").check(mine, {**bent, "high": 0.6}).values())
