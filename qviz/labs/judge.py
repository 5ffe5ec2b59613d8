"""Is an answer right, and if not, which mistake is it?

Only numbers are compared, in the grader's process; how the student wrote the function does not matter. The
hint is that of the typical mistake whose numbers equal the student's on every case. Where none does, the
diagnosis says what is right and what is not, and where.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from qviz.labs.model import Alien, Answer, Arrays, Case, Function

Call = Callable[[Case], Answer]
"""Calls a student's function with one case."""


@dataclass(frozen=True)
class Verdict:
    """What an answer earned, and what to tell its author.

    Args:
        points: what it earned.
        of: what a right answer earns.
        parts: each part that was checked and whether it is right.
        mistake: the name of the typical mistake that it makes; None if it makes none that is known.
        text: the hint or the diagnosis; empty for a right answer.
    """

    points: float
    of: float
    parts: Mapping[str, bool] = field(default_factory=dict)
    mistake: str | None = None
    text: str = ""


def judge(question: Function, cases: Sequence[Case], call: Call) -> Verdict:
    """Call a student's function with all cases and compare.

    Args:
        question: what was asked.
        cases: the calls to make, in this order.
        call: makes one call; it does not raise.

    Returns:
        Points, parts and a text for the student. The text never has an input or an expected number in it.
    """
    expected = [run(question.reference, case, question.arrays) for case in cases]
    given = [call(case) for case in cases]
    parts: dict[str, bool] = {}
    wrong: list[tuple[str, str]] = []
    for case, got, want in zip(cases, given, expected, strict=True):
        if want.failure:
            raise ValueError(
                f"the reference of {question.name!r} fails with {want.failure} on a case of its own"
            )
        for part, right in _parts(question, case, got, want).items():
            parts[part] = parts.get(part, True) and right
            if not right:
                wrong.append((part, case.group))
    points = question.points * sum(parts.values()) / len(parts)
    if not wrong:
        return Verdict(points, question.points, parts)
    name = _mistake(question, cases, given)
    if name is not None:
        return Verdict(points, question.points, parts, name, question.mistakes[name].hint)
    return Verdict(points, question.points, parts, None, _diagnosis(given, parts, wrong))


def run(
    function: Callable[..., Any], case: Case, arrays: Arrays, backward: Callable[..., Any] | None = None
) -> Answer:
    """Call a function of our own in this process, as a worker calls a student's.

    Args:
        function: a reference, a typical mistake, or a solution in a test.
        case: the call. Arrays are copied, so that a function may write into them.
        arrays: what the function takes.
        backward: gives the gradients from the same arguments and the cotangent, in place of autograd.
    """
    args = [_converted(arg, arrays) for arg in case.args]
    for i in case.wrt if backward is None else ():
        args[i] = torch.as_tensor(args[i]).requires_grad_()
    try:
        value = function(*args)
        gradients = None
        if case.wrt and backward is not None:
            fresh = [_converted(arg, arrays) for arg in case.args]
            gradients = tuple(backward(*fresh, _converted(case.cotangent, arrays)))
        elif case.wrt:
            inputs = [args[i] for i in case.wrt]
            if value.requires_grad:
                start = torch.as_tensor(case.cotangent, dtype=value.dtype)
                gradients = torch.autograd.grad(value, inputs, start, allow_unused=True)
            else:
                gradients = [None] * len(inputs)
            gradients = tuple(
                torch.zeros_like(x) if g is None else g for x, g in zip(inputs, gradients, strict=True)
            )
    except Exception as problem:  # noqa: BLE001  whatever a wrong answer raises is its answer
        return Answer(failure=type(problem).__name__)
    return Answer(_plain(value), None if gradients is None else tuple(_plain(g) for g in gradients))


def agree(got: object, want: object, rtol: float, atol: float, typed: bool = False) -> bool:
    """Whether two results have one structure and shape, and numbers within rtol·|want| + atol of each other.

    NaN equals NaN. ``typed`` asks for integers where integers are wanted, and for floats where floats are.
    """
    if isinstance(want, Mapping):
        return (
            isinstance(got, Mapping)
            and set(got) == set(want)
            and all(agree(got[k], want[k], rtol, atol, typed) for k in want)
        )
    if isinstance(want, (list, tuple)) and not _numeric(want):
        return (
            isinstance(got, (list, tuple))
            and len(got) == len(want)
            and all(agree(g, w, rtol, atol, typed) for g, w in zip(got, want, strict=True))
        )
    if want is None or isinstance(want, str):
        return type(got) is type(want) and got == want
    got = _stacked(got)
    if not _numeric(got):
        return False
    a, b = np.asarray(got), np.asarray(want)
    if a.shape != b.shape or (typed and _kind(a) != _kind(b)):
        return False
    return bool(np.allclose(a.astype(np.float64), b.astype(np.float64), rtol=rtol, atol=atol, equal_nan=True))


def _parts(question: Function, case: Case, got: Answer, want: Answer) -> dict[str, bool]:
    """The parts that one case checks, and whether each is right."""
    tolerance = (question.rtol, question.atol)
    values = f"values, {case.group}" if case.group in question.apart else "values"
    parts = {values: got.failure is None and agree(got.value, want.value, *tolerance)}
    if case.wrt:
        parts["gradients"] = got.gradients is not None and agree(got.gradients, want.gradients, *tolerance)
    if question.typed:
        parts["types"] = parts[values] and agree(got.value, want.value, *tolerance, typed=True)
    return parts


def _mistake(question: Function, cases: Sequence[Case], given: Sequence[Answer]) -> str | None:
    """The first typical mistake whose answers are the student's."""
    for name, mistake in question.mistakes.items():
        answers = (run(mistake.answer, case, question.arrays) for case in cases)
        if all(_same(question, case, a, b) for case, a, b in zip(cases, given, answers, strict=True)):
            return name
    return None


def _same(question: Function, case: Case, got: Answer, want: Answer) -> bool:
    if got.failure or want.failure:
        return got.failure == want.failure
    tolerance = (question.rtol, question.atol)
    if not agree(got.value, want.value, *tolerance, question.typed):
        return False
    return not case.wrt or agree(got.gradients, want.gradients, *tolerance)


def _diagnosis(given: Iterable[Answer], parts: Mapping[str, bool], wrong: Sequence[tuple[str, str]]) -> str:
    """What is right, what is wrong and where, without a number of the hidden cases."""
    for answer in given:
        if answer.failure:
            where = "" if answer.line is None else f" in line {answer.line} of your cell"
            return f"A call ended with {answer.failure}{where}."
    for answer in given:
        if isinstance(answer.value, Alien):
            return f"The result is of type {answer.value.type_name}; numbers or an array are asked for."
    sentences = []
    for part in dict.fromkeys(part for part, _ in wrong):
        groups = list(dict.fromkeys(group for p, group in wrong if p == part and group))
        where = f" {', '.join(groups)}" if groups and "," not in part else ""
        sentences.append(f"{part} wrong{where}")
    right = [part for part, fine in parts.items() if fine]
    text = "; ".join(([f"{', '.join(right)} right"] if right else []) + sentences)
    return f"{text[0].upper()}{text[1:]}."


def _converted(value: object, arrays: Arrays) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy()) if arrays == "torch" else value.copy()
    if isinstance(value, (list, tuple)):
        return type(value)(_converted(v, arrays) for v in value)
    return value


def _plain(value: object) -> Any:
    """Tensors as arrays, all else as it is."""
    if isinstance(value, torch.Tensor):
        return value.detach().numpy()
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(_plain(v) for v in value)
    return value


def _stacked(value: object) -> object:
    """Nested sequences of numbers with equal lengths as an array; anything else as it is."""
    if not isinstance(value, (list, tuple)):
        return value
    rows = [_stacked(row) for row in value]
    even = len({np.shape(row) if _numeric(row) else None for row in rows}) == 1
    return np.asarray(rows) if even and _numeric(rows[0]) else value


def _numeric(value: object) -> bool:
    """Whether a value is a number, an array of numbers, or a flat sequence of numbers."""
    if isinstance(value, (list, tuple)):
        return len(value) > 0 and all(_single(v) for v in value)
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biuf"
    return _single(value)


def _single(value: object) -> bool:
    """Whether a value is one number."""
    if isinstance(value, np.ndarray):
        return value.ndim == 0 and value.dtype.kind in "biuf"
    return isinstance(value, (bool, int, float, np.number, np.bool_))


def _kind(array: np.ndarray) -> str:
    return "i" if array.dtype.kind in "biu" else array.dtype.kind
