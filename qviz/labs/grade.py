"""Grade a folder of submissions: this process has the hidden cases and runs nothing of a student's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from qviz.core._files import locked, write_atomically
from qviz.labs import collected, feedback, results
from qviz.labs.collected import Submission
from qviz.labs.examine import Examiner
from qviz.labs.master import Part
from qviz.labs.model import Lab, Written
from qviz.labs.results import Log, Mark, Result
from qviz.labs.roster import safe
from qviz.labs.sandbox import Limits, Worker, Zygote, isolation


@dataclass(frozen=True)
class Graded:
    """What a run did.

    Args:
        results: Of all submissions, in the order of their students.
        known: How many of them an earlier run had graded.
        failed: How many could not be graded; the next run tries them again.
    """

    results: tuple[Result, ...]
    known: int
    failed: int

    def summary(self, lab: Lab) -> str:
        """Return in a few lines how many there are, what they earned, and where to look."""
        totals = sorted(result.total for result in self.results)
        noted = sum(bool(result.notes) for result in self.results)
        by_hand = sum(question.points for question in lab.questions if isinstance(question, Written))
        lines = [
            f"{lab.name}: {len(totals)} submissions, {self.known} of them graded before",
            f"median {totals[len(totals) // 2]:.4g} of {lab.points - by_hand:g} points"
            + (f", {by_hand:g} more by hand" if by_hand else ""),
            f"notes on {noted}",
        ]
        if self.failed:
            lines.append(f"{self.failed} could not be graded: see their notes, and run this again")
        return "\n".join(lines)


def grade(
    submissions: Path,
    lab: Lab,
    *,
    out: Path,
    secret: bytes,
    html: Path | None = None,
    jobs: int = 2,
    timeout: float = 60,
    roster: Sequence[str] | None = None,
    weak_isolation: bool = False,
    parts: tuple[Part, ...] | None = None,
    zygote: Zygote | None = None,
    said: Callable[[Result], None] = lambda result: None,
) -> Graded:
    """Grade all submissions and write a table; a run that was killed goes on where it was.

    Every result is a line of JSON in ``out`` with the suffix .jsonl as soon as it is there. The table and
    the pages are made of these lines at the end, in one go.

    Args:
        submissions: The folder or zip.
        lab: The lab.
        out: The table, a CSV.
        secret: The course's secret.
        html: The folder for the students' pages.
        jobs: How many submissions are graded at a time.
        timeout: Seconds for one submission.
        roster: The ids of the course; without it a file's name is its student's id.
        weak_isolation: Whether to go on where nothing protects this machine's files from students' code.
        parts: The lab's master, by which a locked cell that was changed is noticed.
        zygote: Makes the workers; None starts one for this run.
        said: Called with each new result.

    Raises:
        ValueError: A parameter is wrong, or there is nothing to grade.
        RuntimeError: Students' code cannot be isolated here, or no worker starts.
        BlockingIOError: Another run writes the same table.
    """
    if jobs < 1:
        raise ValueError(f"at least one job is needed, got {jobs}")
    if not isolation.landlock() and not weak_isolation:
        raise RuntimeError(
            "this machine has no Landlock (Linux 5.13 or later), so nothing would protect its files from "
            "students' code: grade on one that has, or in a container with --weak-isolation"
        )
    limits = Limits(wall_seconds=timeout)
    found = collected.find(submissions, lab.name, roster)
    isolation.hide()
    out.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(locked(out.with_suffix(".lock"), wait=False))
        log = Log(out.with_suffix(".jsonl"))
        keys = [key_of(one, lab, secret) for one in found]
        known = sum(key in log.known for key in keys)
        todo = [(key, one) for key, one in zip(keys, found, strict=True) if key not in log.known]
        failed = _grade_all(todo, lab, secret, limits, parts, jobs, log, zygote, said) if todo else {}
        done = [
            replace(log.known.get(key) or failed[key], student=one.student, name=one.name)
            for key, one in zip(keys, found, strict=True)
        ]
        write_atomically(out, results.table(lab, done).encode("utf-8", "replace"))
        if html is not None:
            html.mkdir(parents=True, exist_ok=True)
            for result in done:
                page = feedback.page(lab, result).encode("utf-8", "replace")
                write_atomically(html / f"{safe(result.student)}.html", page)
    return Graded(tuple(done), known, len(failed))


def key_of(submission: Submission, lab: Lab, secret: bytes) -> str:
    """Return what a result depends on, as a SHA-256: the files, the lab's version, and the hidden seed."""
    digest = hashlib.sha256(repr((lab.name, lab.version, submission.student, submission.problem)).encode())
    digest.update(hashlib.sha256(secret).digest())
    for name, content in sorted({"": submission.notebook or b"", **submission.files}.items()):
        digest.update(f"{name!r} {len(content)} ".encode())
        digest.update(content)
    return digest.hexdigest()


def _grade_all(
    todo: Sequence[tuple[str, Submission]],
    lab: Lab,
    secret: bytes,
    limits: Limits,
    parts: tuple[Part, ...] | None,
    jobs: int,
    log: Log,
    zygote: Zygote | None,
    said: Callable[[Result], None],
) -> dict[str, Result]:
    """Grade in threads that share one zygote; return results that are to be tried again by the next run."""
    failed: dict[str, Result] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ExitStack() as stack:
            ready = zygote or stack.enter_context(Zygote())
            pool = stack.enter_context(ThreadPoolExecutor(jobs))

            def start(limits: Limits) -> Worker:
                return ready.worker(limits)

            examiner = Examiner(lab, secret, start, limits, parts)
            futures = {pool.submit(examiner.examine, one): (key, one) for key, one in todo}
            stack.callback(pool.shutdown, wait=False, cancel_futures=True)
            for future in as_completed(futures):
                key, one = futures[future]
                error = future.exception()
                if isinstance(error, Exception):
                    failed[key] = _failed(lab, one, error)
                else:
                    log.append(key, future.result())
                said(log.known.get(key) or failed[key])
    finally:
        torch.set_num_threads(threads)
    return failed


def _failed(lab: Lab, submission: Submission, error: Exception) -> Result:
    """The row of a submission on which grading itself failed: it must not stop the others."""
    marks = {q.name: Mark(None, q.points, "Not graded yet.") for q in lab.questions}
    note = f"not graded, look at it by hand: {type(error).__name__}: {error}"
    return Result(submission.student, submission.name, marks, "", (note[:300],))
