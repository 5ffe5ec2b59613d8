"""Question: a prediction that a reader makes before the answer is computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

Answer = float | str
"""A number, or one of the options."""


class Verdict(NamedTuple):
    """What is said of a prediction.

    Attributes:
        right: Whether it was right; None where nothing says how near is near enough.
        text: The answer, and how far off the prediction was.
    """

    right: bool | None
    text: str


@dataclass(frozen=True)
class Question:
    """A question with one answer, a number or one of some options.

    Args:
        text: The question.
        answer: The answer, or a function that returns it; it is called only when somebody has answered.
        options: What can be chosen; without options the answer is a number.
        unit: The unit of the number.
        within: How far off a number may be and still be right, in the same unit.
        why: What explains the answer, shown after it.

    Raises:
        ValueError: The question is empty, there is one option, or the answer is not among them.
        TypeError: The answer is no number where there are no options.
    """

    text: str
    answer: Answer | Callable[[], Answer]
    options: Sequence[str] = ()
    unit: str = ""
    within: float | None = None
    why: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot be answered."""
        object.__setattr__(self, "options", tuple(self.options))
        if not self.text.strip():
            raise ValueError("a question needs a text, got an empty one")
        if len(self.options) == 1:
            raise ValueError(f"a choice needs two options at least, got {self.options}")
        if not callable(self.answer):
            self._checked(self.answer)

    def _checked(self, answer: Answer) -> Answer:
        if self.options:
            if answer not in self.options:
                raise ValueError(f"the answer {answer!r} is not among the options {self.options}")
            return answer
        if isinstance(answer, str):
            raise TypeError(f"without options the answer must be a number, got {answer!r}")
        return float(answer)

    def truth(self) -> Answer:
        """Return the answer, computed if it has to be."""
        return self._checked(self.answer() if callable(self.answer) else self.answer)

    def read(self, guess: Answer) -> Answer:
        """Return a prediction as it is compared: a number, typed or not, or one of the options.

        Raises:
            ValueError: It is neither.
        """
        if self.options:
            if guess not in self.options:
                raise ValueError(f"choose one of {', '.join(self.options)}; got {guess!r}")
            return guess
        try:
            number = float(guess.strip().replace("−", "-") if isinstance(guess, str) else guess)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"type a number, such as 2.5; got {guess!r}")
        return number

    def verdict(self, guess: Answer) -> Verdict:
        """Return whether a prediction is right, and the answer.

        Raises:
            ValueError: The prediction is neither a number nor one of the options.
        """
        said, truth = self.read(guess), self.truth()
        if self.options:
            right = said == truth
            text = f"Yes: {truth}." if right else f"You chose “{said}”. It is “{truth}”."
        else:
            right, text = self._distance(said, truth)
        return Verdict(right, f"{text} {self.why}".strip())

    def _distance(self, said: float, truth: float) -> tuple[bool | None, str]:
        off = said - truth
        right = None if self.within is None else abs(off) <= self.within
        both = f"You said {self._with_unit(said)}; it is {self._with_unit(truth)}."
        if math.isclose(said, truth, rel_tol=5e-4):
            return right, f"{both} You hit it."
        side = "too high" if off > 0 else "too low"
        near = " That is near enough." if right else ""
        return right, f"{both} Your prediction is {self._with_unit(abs(off))} {side}.{near}"

    def _with_unit(self, value: float) -> str:
        return f"{value:.4g}{'' if self.unit == '%' else ' '}{self.unit}".strip()
