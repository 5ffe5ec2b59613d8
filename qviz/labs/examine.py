"""One submission, graded: its answers found, its functions called in a worker, its texts read."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from qviz.labs import build, manifest
from qviz.labs.cells import text_value
from qviz.labs.collected import Submission, parsed
from qviz.labs.judge import Verdict, judge
from qviz.labs.manifest import Manifest
from qviz.labs.master import Part
from qviz.labs.match import Matched, match
from qviz.labs.model import Case, Handed, Lab, State, Variant, Written
from qviz.labs.remarks import remarks
from qviz.labs.results import Mark, Result
from qviz.labs.sandbox import Limits, Worker
from qviz.labs.sandbox.wire import nesting
from qviz.labs.session import Session, arrays_wanted
from qviz.labs.variants import COMMON, made_by, variant

STATE_BYTES = 1 << 20
STATE_DEPTH = 20
_MAC = 12


@dataclass(frozen=True)
class Examiner:
    """What all submissions to a lab are graded with.

    Args:
        lab: The lab.
        secret: The course's secret.
        start: Makes a worker with some limits.
        limits: What a submission may use.
        parts: The lab's master, by which a locked cell that was changed is noticed; None without.
    """

    lab: Lab
    secret: bytes
    start: Callable[[Limits], Worker]
    limits: Limits
    parts: tuple[Part, ...] | None = None

    def examine(self, submission: Submission) -> Result:
        """Return what a submission earned. It raises nothing that a student could cause."""
        mine, notes = self.variant_of(submission)
        if submission.problem:
            notes.append(submission.problem)
        blank = Result(submission.student, submission.name, {}, "", ())
        if submission.notebook is None:
            return replace(blank, marks=self._nothing("There is no notebook."), notes=tuple(notes))
        fresh = None if self.parts is None else self._fresh(mine)
        try:
            content = parsed(submission.notebook)
            found = match(content, self.lab, fresh)
        except (ValueError, RecursionError) as error:
            sentence = f"{str(error)[:1].upper()}{str(error)[1:]}."
            return replace(blank, marks=self._nothing(sentence), notes=(*notes, sentence))
        notes += [*found.damage, *remarks(_own_code(found, fresh))]
        with Session(self.start, [source for _, source in found.code], self.limits) as session:
            marks = self._marks(submission, found, mine, session)
            notes += [f"cell {number} of the code ended with: {how}" for number, how in session.ended.items()]
            return replace(blank, marks=marks, isolation=session.isolation, notes=tuple(notes))

    def variant_of(self, submission: Submission) -> tuple[Variant, list[str]]:
        """Return the variant that a submission is graded as, and what is odd about the one that it has."""
        mine, common = (variant(self.lab, self.secret, who) for who in (submission.student, COMMON))
        content = submission.notebook or b""
        if not content or mine.mac[:_MAC].encode() in content:
            return mine, []
        if common.mac[:_MAC].encode() in content:
            return common, []
        try:
            said = manifest.read(parsed(content))
        except ValueError:
            return mine, []
        try:
            known = said is not None and made_by(self.lab, self.secret, said.student, said.mac)
        except ValueError:
            known = False
        return mine, ["this is the variant of another student" if known else "variant unknown"]

    def _fresh(self, mine: Variant) -> Manifest:
        assert self.parts is not None
        return manifest.of(self.lab, mine, build.texts(self.lab, self.parts, mine))

    def _nothing(self, why: str) -> dict[str, Mark]:
        return {q.name: Mark(0.0, q.points, why) for q in self.lab.questions}

    def _marks(
        self, submission: Submission, found: Matched, mine: Variant, session: Session
    ) -> dict[str, Mark]:
        wanted = arrays_wanted([source for _, source in found.code], text_value)
        marks = {}
        for question in self.lab.questions:
            if isinstance(question, Handed):
                marks[question.name] = _handed(question, submission, mine)
            elif question.name not in found.answers or question.name in found.blank:
                marks[question.name] = Mark(0.0, question.points, "Not answered.")
            elif isinstance(question, Written):
                words = found.answers[question.name]
                marks[question.name] = Mark(None, question.points, "Graded by hand.", words=words)
            elif isinstance(question, State):
                marks[question.name] = _state(question, found.answers[question.name], mine)
            elif not session.alive:
                marks[question.name] = Mark(
                    0.0, question.points, "The notebook ran into its limits before this."
                )
            elif not session.has(question.name):
                text = f"After your cells have run there is no function {question.name}."
                marks[question.name] = Mark(0.0, question.points, text)
            else:
                cases = shuffled(list(question.cases(mine)), mine.hidden_seed)
                verdict = judge(question, cases, session.calls(question, cases, wanted))
                marks[question.name] = _marked(verdict)
        return marks


def shuffled(cases: list[Case], seed: int) -> list[Case]:
    """Return cases in an order that nobody can know, the first one again at the end.

    A function that counts its calls, or keeps what it saw, gives itself away.
    """
    order = np.random.RandomState(seed).permutation(len(cases))
    return [cases[place] for place in (*order, order[0])]


def _marked(verdict: Verdict) -> Mark:
    return Mark(
        float(verdict.points), verdict.of, verdict.text or "Right.", verdict.mistake, dict(verdict.parts)
    )


def _own_code(found: Matched, fresh: Manifest | None) -> list[str]:
    """The cells that are not the lab's own; where that is not known, the answers."""
    if fresh is None:
        return [source for question, source in found.code if question is not None]
    locked = {cell.text for cell in found.cells if cell.locked is not None}
    return [source for _, source in found.code if source not in locked]


def _state(question: State, answer: str, mine: Variant) -> Mark:
    """An explorer's state is JSON in a text; it is parsed, never run."""
    text = text_value(answer, question.name)
    if text is None:
        return Mark(0.0, question.points, f'The cell does not assign a text: {question.name} = """{{…}}""".')
    try:
        checks = question.check(mine, _json(text))
    except ValueError as error:
        return Mark(0.0, question.points, f"That is no state of the explorer: {error}.")
    except Exception as error:  # noqa: BLE001  a check of a hostile state may fail in any way
        return Mark(0.0, question.points, f"That is no state of the explorer ({type(error).__name__}).")
    wrong = [f"Not so: {sentence}." for sentence, fine in checks.items() if not fine]
    points = question.points * sum(map(bool, checks.values())) / max(1, len(checks))
    return Mark(
        points, question.points, " ".join(wrong) or "Right.", parts={k: bool(v) for k, v in checks.items()}
    )


def _json(text: str) -> Mapping[str, Any]:
    data = text.encode("utf-8", "replace")
    if len(data) > STATE_BYTES or nesting(data, STATE_DEPTH) > STATE_DEPTH:
        raise ValueError("it is too long or nested too deeply")
    try:
        state = json.loads(data, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except ValueError as error:
        raise ValueError("it is not JSON") from error
    if not isinstance(state, dict):
        raise ValueError("it is JSON, but no object")
    return state


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _handed(question: Handed, submission: Submission, mine: Variant) -> Mark:
    """Measure a file that was handed in, in a folder of its own."""
    content = submission.files.get(question.file)
    if content is None:
        return Mark(0.0, question.points, f"There is no file {question.file} beside the notebook.")
    with tempfile.TemporaryDirectory(prefix="qviz-labs-") as folder:
        path = Path(folder) / question.file
        path.write_bytes(content)
        try:
            points, sentences = question.measure(mine, path)
        except ValueError as error:
            return Mark(0.0, question.points, f"{question.file} is not what was asked for: {error}.")
        except Exception as error:  # noqa: BLE001  a file that a student made may fail in any way
            return Mark(0.0, question.points, f"{question.file} cannot be read ({type(error).__name__}).")
    return Mark(min(max(float(points), 0.0), question.points), question.points, " ".join(sentences))
