"""Predictions: what is right, how far off, and that nothing is told before."""

import pytest

from qviz.explore import Question


@pytest.mark.parametrize(
    ("guess", "right", "said"),
    [
        (5.0, True, "0.5 dB too low. That is near enough."),
        ("8", False, "2.5 dB too high."),
        (" −1 ", False, "6.5 dB"),
    ],
)
def test_a_number_is_told_its_distance(guess, right, said):
    verdict = Question("How much?", lambda: 5.5, unit="dB", within=0.5, why="Because.").verdict(guess)
    assert verdict.right is right
    assert "it is 5.5 dB" in verdict.text
    assert said in verdict.text
    assert verdict.text.endswith("Because.")


def test_without_a_tolerance_a_number_is_neither_right_nor_wrong():
    assert Question("How much?", 2).verdict(3) == (
        None,
        "You said 3; it is 2. Your prediction is 1 too high.",
    )
    assert Question("How much?", 40, unit="%").verdict(40.0).text == "You said 40%; it is 40%. You hit it."


def test_a_choice_is_right_or_wrong():
    ask = Question("Which?", lambda: "b", options=["a", "b"])
    assert ask.verdict("b") == (True, "Yes: b.")
    assert ask.verdict("a") == (False, "You chose “a”. It is “b”.")


@pytest.mark.parametrize("guess", ["", "four", float("nan"), "inf"])
def test_what_is_no_number_is_refused(guess):
    with pytest.raises(ValueError, match="type a number"):
        Question("How much?", 1).read(guess)


def test_bad_questions_are_refused():
    for text, options in ((" ", ()), ("Which?", ["a"]), ("Which?", ["a", "b"])):
        with pytest.raises(ValueError, match=r"empty|two options|not among"):
            Question(text, "c", options)
    with pytest.raises(TypeError, match="'c'"):
        Question("Which?", lambda: "c").verdict(1)
