"""What a lab is: its questions, the calls that check their answers, and the mistakes that people make.

A lab is two files in ``notebooks/labs/source``: the master notebook, and beside it ``<name>_cases.py`` that
ends in ``LAB = Lab(...)``. The master is what students see, less its solutions; the cases never leave the
instructor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

Arrays = Literal["numpy", "torch"]
"""What a function is called with: numpy arrays, or torch tensors of the same numbers."""


@dataclass(frozen=True)
class Variant:
    """What differs from student to student: parameters from the lab's table, and seeds.

    Args:
        lab: the lab's name.
        student: the student's id as it was given, or "common".
        params: one row of ``Lab.variants``.
        data_seed: seed of the data that the release shows, below 2**32.
        hidden_seed: seed of the hidden cases; it is in no release.
        mac: proof that the instructor made this variant, hexadecimal.
    """

    lab: str
    student: str
    params: Mapping[str, Any]
    data_seed: int
    hidden_seed: int
    mac: str

    def rng(self, use: int = 0) -> np.random.RandomState:
        """A generator of hidden cases, the same on every version of numpy; ``use`` tells several apart."""
        return np.random.RandomState((self.hidden_seed + 0x9E3779B1 * use) % 2**32)


@dataclass(frozen=True)
class Case:
    """One call of a student's function.

    Args:
        args: positional arguments: arrays, numbers, strings, None, or sequences of those.
        group: the part of the inputs that the case is from, as a diagnosis names it ("where x saturates").
        wrt: positions of the arguments to differentiate by; none asks for values only.
        cotangent: what the gradient starts from, of the result's shape; needed with ``wrt``.
    """

    args: tuple[Any, ...]
    group: str = ""
    wrt: tuple[int, ...] = ()
    cotangent: np.ndarray | None = None


@dataclass(frozen=True)
class Alien:
    """A student's result that is no plain data: only the name of its type crosses to the grader."""

    type_name: str


@dataclass(frozen=True)
class Answer:
    """What one call gave.

    Args:
        value: numbers, strings, None, numpy arrays, lists, tuples and dicts of those, or an ``Alien``.
        gradients: one array for each argument of ``Case.wrt``; None where none were asked for or the call
        failed.
        failure: the name of the exception, or how the process ended; None where the call returned.
        line: the line of the failure in the student's own cell.
    """

    value: Any = None
    gradients: tuple[Any, ...] | None = None
    failure: str | None = None
    line: int | None = None


@dataclass(frozen=True)
class Mistake:
    """A typical wrong answer, and what to say to somebody who gives it.

    Args:
        answer: a function with the question's signature that makes the mistake.
        hint: a sentence or two that name what is wrong and ask for one look; never the formula.
    """

    answer: Callable[..., Any]
    hint: str


@dataclass(frozen=True)
class Function:
    """A question that is answered by a function of its name.

    Points are shared equally by the parts that are checked: ``values``; ``gradients`` where a case asks for
    them; ``types`` where ``typed``; and the values of each group in ``apart``. A part is right when all its
    cases agree.

    Args:
        name: the function's name, which is the question's too.
        points: what a right answer earns.
        reference: the right answer.
        cases: the hidden calls of a variant.
        mistakes: typical wrong answers by a short name; where several fit, the first is named.
        arrays: what ``reference`` and the mistakes are written for. With gradients it is "torch".
        typed: whether integers must come as integers and floating point as floating point.
        apart: groups whose values are a part of their own ("ties").
        rtol: relative tolerance of values and gradients.
        atol: absolute tolerance of values and gradients.
    """

    name: str
    points: float
    reference: Callable[..., Any]
    cases: Callable[[Variant], Sequence[Case]]
    mistakes: Mapping[str, Mistake] = field(default_factory=dict)
    arrays: Arrays = "numpy"
    typed: bool = False
    apart: tuple[str, ...] = ()
    rtol: float = 1e-5
    atol: float = 1e-6


@dataclass(frozen=True)
class Written:
    """A question that is answered in words and graded by hand.

    Args:
        name: the question's name.
        points: what a right answer earns.
        rubric: what earns how many points, Markdown.
        answer: a model answer, Markdown.
    """

    name: str
    points: float
    rubric: str
    answer: str


@dataclass(frozen=True)
class State:
    """A question that is answered by an explorer's state: JSON in a text, ``name = '''{...}'''``.

    Args:
        name: the question's name, and the variable's.
        points: shared equally by what ``check`` names.
        check: from a variant and the state (a dict of JSON values) to sentences and whether each is true; a
        sentence
            says what is asked for ("the step is the one with the least error, to 2 %"). It raises ValueError
            for a state that no explorer has.
        answer: a right state of a variant.
    """

    name: str
    points: float
    check: Callable[[Variant, Mapping[str, Any]], Mapping[str, bool]]
    answer: Callable[[Variant], Mapping[str, Any]]


@dataclass(frozen=True)
class Handed:
    """A question that is answered by a file beside the notebook, which the grader measures itself.

    Args:
        name: the question's name.
        points: what the best earns.
        file: the file's name.
        measure: from a variant and the file to points earned and sentences that say why. It raises
        ValueError, one
            sentence, for a file that is not what was asked for. It trusts nothing in the file.
    """

    name: str
    points: float
    file: str
    measure: Callable[[Variant, Path], tuple[float, Sequence[str]]]


Question = Function | Written | State | Handed


@dataclass(frozen=True)
class Lab:
    """One lab.

    Args:
        name: its short name, as in ``lab1-uniform``; the master is ``<name>.py``, a percent script.
        title: one line.
        version: changes whenever an answer that was right would no longer be.
        minutes: how long a student needs.
        questions: in the order of the notebook.
        variants: the table of checked parameters, of equal difficulty; each row has the same names. The
        master's cell
            marked ``given`` assigns them (and SEED) at top level, and a build puts the variant's values in.
        data: the arrays that the ``given`` cell makes from a variant, by name; their SHA-256 are in the
        manifest.
    """

    name: str
    title: str
    version: int
    minutes: int
    questions: tuple[Question, ...]
    variants: tuple[Mapping[str, Any], ...] = ({},)
    data: Callable[[Variant], Mapping[str, np.ndarray]] = lambda variant: {}

    def __post_init__(self) -> None:
        names = [q.name for q in self.questions]
        if len(set(names)) < len(names):
            raise ValueError(f"lab {self.name!r} has two questions of one name among {names}")
        if not self.variants or any(set(row) != set(self.variants[0]) for row in self.variants):
            raise ValueError(
                f"lab {self.name!r} needs variants with the same names in each, got {self.variants!r}"
            )

    def question(self, name: str) -> Question:
        """The question of a name.

        Raises:
            ValueError: the lab has no such question.
        """
        for question in self.questions:
            if question.name == name:
                return question
        raise ValueError(
            f"lab {self.name!r} has no question {name!r}; it has {[q.name for q in self.questions]}"
        )

    @property
    def points(self) -> float:
        """What all questions together earn."""
        return sum(question.points for question in self.questions)
