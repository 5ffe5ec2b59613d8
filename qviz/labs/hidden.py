"""The hidden cases inside somebody else's grader: nbgrader and otter call one function.

They run a student's code in the process that knows the answers, so this is a convenience and no protection.
The variant is the one for all, made from the course's secret.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qviz.labs import secret, source
from qviz.labs.judge import Verdict, judge, run
from qviz.labs.model import Answer, Function, Handed, Lab, State, Variant
from qviz.labs.variants import variant

SOURCE = "QVIZ_LABS_SOURCE"
HINT = "Hint: "


def score(lab: str, question: str, names: Mapping[str, Any], whole: bool = False) -> float:
    """Grade one answer among a student's names; what is wrong is printed.

    Args:
        lab: The lab's name.
        question: The question's name.
        names: The student's names and what they stand for.
        whole: Whether only a right answer passes.

    Returns:
        The points that it earned.

    Raises:
        AssertionError: It earned none, or not all where the whole is asked for; the message is the hint.
    """
    folder = os.environ.get(SOURCE)
    known = source.load(lab, Path(folder) if folder else None)
    own = variant(known, secret.read() or secret.PUBLISHED)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        with contextlib.redirect_stderr(io.StringIO()):
            found = _verdict(known, question, own, names)
    if found.points == 0 or (whole and found.points < found.of):
        raise AssertionError(found.text) from None
    if found.text:
        print(f"{HINT}{found.text}")
    return float(found.points)


def _verdict(lab: Lab, name: str, own: Variant, names: Mapping[str, Any]) -> Verdict:
    question = lab.question(name)
    if isinstance(question, Function):
        function = names.get(name)
        if not callable(function):
            return Verdict(0, question.points, text=f"{name} is no function.")
        arrays = "torch" if names.get("ARRAYS", question.arrays) == "torch" else "numpy"
        backward = names.get(f"{name}_backward")
        if backward is None and any(case.wrt for case in question.cases(own)):
            arrays = "torch"

        def call(case: Any) -> Answer:
            return run(function, case, arrays, backward)

        return judge(question, list(question.cases(own)), call)
    if isinstance(question, State):
        return _of_state(question, own, names.get(name))
    if isinstance(question, Handed):
        try:
            points, said = question.measure(own, Path(question.file))
        except (ValueError, OSError) as error:
            return Verdict(0, question.points, text=str(error))
        return Verdict(points, question.points, text="" if points == question.points else " ".join(said))
    raise ValueError(f"{name!r} is graded by hand")


def _of_state(question: State, own: Variant, text: object) -> Verdict:
    try:
        state = json.loads(text) if isinstance(text, str) else None
        if not isinstance(state, dict):
            raise ValueError(f"{question.name} is no explorer's state")
        parts = dict(question.check(own, state))
    except (ValueError, RecursionError) as error:
        return Verdict(0, question.points, text=str(error))
    wrong = [sentence for sentence, right in parts.items() if not right]
    text = f"Not so: {'; '.join(wrong)}." if wrong else ""
    return Verdict(question.points * (1 - len(wrong) / len(parts)), question.points, parts, None, text)
