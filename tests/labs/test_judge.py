"""The judge on a function of three mistakes: value and gradient are told apart, mistakes are named."""

import numpy as np
import pytest
import torch

from qviz.labs.judge import agree, judge, run
from qviz.labs.model import Answer, Case, Function, Lab, Mistake
from qviz.labs.variants import made_by, variant


class Through(torch.autograd.Function):
    """Rounding with slope 1."""

    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def rounded(x, s):
    return Through.apply((x / s).clamp(-2, 2)) * s


def cases(variant):
    x = variant.rng().randn(50)
    ties = np.array([0.5, 1.5])
    return [Case((x, 0.7), "inside", wrt=(0,), cotangent=np.ones(50)), Case((ties, 1.0), "ties")]


QUESTION = Function(
    "rounded",
    3,
    rounded,
    cases,
    {
        "no clamp": Mistake(lambda x, s: Through.apply(x / s) * s, "Which codes exist?"),
        "no slope": Mistake(
            lambda x, s: ((x / s).clamp(-2, 2)).round() * s, "What is the slope of a staircase?"
        ),
        "away": Mistake(lambda x, s: ((x / s).clamp(-2, 2) + 0.5).floor() * s, "Look at the ties."),
    },
    arrays="torch",
    apart=("ties",),
)
LAB = Lab("lab0", "A lab", 1, 5, (QUESTION,), variants=({"bits": 2}, {"bits": 3}))
SECRET = b"sixteen bytes or more"
V = variant(LAB, SECRET, "Anna")


def verdict(function, backward=None, arrays="torch"):
    return judge(QUESTION, cases(V), lambda case: run(function, case, arrays, backward))


def numpy_rounded(x, s):
    return np.clip(np.rint(x / s), -2, 2) * s


def numpy_backward(x, s, cotangent):
    return (cotangent * (np.abs(x / s) <= 2),)


@pytest.mark.parametrize("answer", [(rounded, None, "torch"), (numpy_rounded, numpy_backward, "numpy")])
def test_a_right_answer_in_any_style_earns_all(answer):
    found = verdict(*answer)
    assert found.points == 3
    assert found.parts == {"values": True, "gradients": True, "values, ties": True}
    assert found.text == ""


@pytest.mark.parametrize(("mistake", "points"), [("no clamp", 1), ("no slope", 2), ("away", 1)])
def test_a_typical_mistake_is_named_and_hinted(mistake, points):
    found = verdict(QUESTION.mistakes[mistake].answer)
    assert (found.mistake, found.points) == (mistake, points)
    assert found.text == QUESTION.mistakes[mistake].hint


def test_what_no_mistake_explains_is_diagnosed_without_a_number():
    found = verdict(lambda x, s: rounded(x, s) * (1 + 0.01 * (x == 1.5)))
    assert found.text == "Values, gradients right; values, ties wrong."
    found = verdict(lambda x, s: 1 / 0)
    assert (found.points, found.text) == (0, "A call ended with ZeroDivisionError.")
    failed = judge(QUESTION, cases(V), lambda case: Answer(failure="KeyError", line=4))
    assert failed.text == "A call ended with KeyError in line 4 of your cell."


def test_results_agree_by_shape_structure_number_and_type():
    assert agree((1, np.array([np.nan])), [1.0, np.array([np.nan])], 0, 0)
    assert agree([[1, 2.0], (3, 4)], np.array([[1, 2], [3, 4]]), 0, 0)
    assert not agree([[1, 2], [3]], np.array([[1, 2], [3, 4]]), 1, 1)
    assert not agree(np.ones((2, 1)), np.ones(2), 1, 1)
    assert agree((np.array(1.0), np.array(2)), (1.0, 2), 0, 0)  # a pair of tensors without dimensions
    assert not agree({"a": 1}, {"b": 1}, 1, 1)
    assert not agree(1.0, 1, 0, 0, typed=True)
    assert not agree("1", 1, 9, 9)
    assert not agree(True, None, 9, 9)


@pytest.mark.parametrize(
    "value",
    [
        [[1, 2], [3]],
        [[[1, 2], [3]]],
        [1, [2]],
        [np.zeros(3), 1],
        [[1], "a"],
        {"a": [2**255]},
        [None],
        2**255,
        "",
    ],
)
def test_any_plain_result_can_be_compared(value):
    """A student can return it, and it must not stop the grading."""
    answer = Answer(value, (value,))
    found = judge(QUESTION, cases(variant(LAB, b"sixteen bytes or more", "anna")), lambda case: answer)
    assert found.points == 0


def test_a_variant_is_the_students_own_and_proves_its_maker():
    assert variant(LAB, SECRET, "  ＡＮＮＡ ").hidden_seed == V.hidden_seed
    assert variant(LAB, SECRET, "0123").hidden_seed != variant(LAB, SECRET, "123").hidden_seed
    assert variant(LAB, SECRET + b"!", "Anna").hidden_seed != V.hidden_seed
    assert made_by(LAB, SECRET, "anna", V.mac)
    assert not made_by(LAB, SECRET, "Bert", V.mac)
    assert {variant(LAB, SECRET, str(i)).params["bits"] for i in range(40)} == {2, 3}
    with pytest.raises(ValueError, match="at least 16 bytes, got 5"):
        variant(LAB, b"short")
