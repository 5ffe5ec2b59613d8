"""``qviz labs``: the instructor's and the student's commands around assignable labs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qviz.cli.usage import UsageError

if TYPE_CHECKING:
    from qviz.labs.model import Lab, Variant

FORMATS = ("release", "nbgrader", "otter")


def add_to(commands: Any) -> None:
    """Declare the command and its subcommands."""
    parser = commands.add_parser("labs", help="build, check, collect and grade labs for a class")
    parser.set_defaults(run=lambda options: parser.error("no subcommand; see --help"))
    labs = parser.add_subparsers(metavar="SUBCOMMAND")
    _add_list(labs)
    _add_build(labs)
    _add_key(labs)
    _add_grade(labs)
    _add_check(labs)
    _add_collect(labs)


def _add_list(labs: Any) -> None:
    parser = labs.add_parser("list", help="the labs, with their points and minutes")
    _source_option(parser)
    parser.set_defaults(run=_reporting(run_list))


def _add_build(labs: Any) -> None:
    parser = labs.add_parser("build", help="write students' notebooks")
    parser.add_argument("lab", metavar="LAB", help="a name from qviz labs list")
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--student-id", metavar="ID", help="whose notebook (default: one for all)")
    who.add_argument("--roster", type=Path, metavar="CSV", help="one for each student of a course")
    parser.add_argument("--out", type=Path, default=Path("release"), metavar="DIR")
    parser.add_argument("--format", choices=FORMATS, default="release")
    _secret_option(parser)
    _source_option(parser)
    parser.set_defaults(run=_reporting(run_build))


def _add_key(labs: Any) -> None:
    parser = labs.add_parser("key", help="print what is expected of a student")
    parser.add_argument("lab", metavar="LAB", help="a name from qviz labs list")
    parser.add_argument("--student-id", metavar="ID", help="whose (default: that of the release for all)")
    _secret_option(parser)
    _source_option(parser)
    parser.set_defaults(run=_reporting(run_key))


def _add_grade(labs: Any) -> None:
    parser = labs.add_parser("grade", help="grade a folder of submissions")
    parser.add_argument("submissions", type=Path, metavar="SUBMISSIONS", help="a folder, or a zip of one")
    parser.add_argument("--lab", metavar="LAB", help="which lab (default: the one that the notebooks name)")
    parser.add_argument("--out", type=Path, default=Path("grades.csv"), metavar="CSV")
    parser.add_argument("--html", type=Path, metavar="DIR", help="a page for each student")
    parser.add_argument("--roster", type=Path, metavar="CSV", help="who is in the course")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="submissions at a time (default: 2)")
    parser.add_argument("--timeout", type=float, default=60, metavar="S", help="seconds each (default: 60)")
    parser.add_argument(
        "--weak-isolation", action="store_true", help="go on where nothing protects this machine's files"
    )
    _secret_option(parser)
    _source_option(parser)
    parser.set_defaults(run=_reporting(run_grade))


def _add_check(labs: Any) -> None:
    parser = labs.add_parser("check", help="run the public tests on a notebook, and repair it")
    parser.add_argument("notebook", type=Path, metavar="NOTEBOOK")
    parser.add_argument("--repair", type=Path, metavar="OUT", help="write the answers into a fresh release")
    parser.add_argument("--release", type=Path, metavar="FILE", help="the release as it was handed out")
    parser.set_defaults(run=_reporting(run_check))


def _add_collect(labs: Any) -> None:
    parser = labs.add_parser("collect", help="repair submissions and hand them over to nbgrader")
    parser.add_argument(
        "submissions", type=Path, metavar="SUBMISSIONS", help="a folder with a file a student"
    )
    parser.add_argument("lab", metavar="LAB", help="a name from qviz labs list")
    parser.add_argument(
        "--nbgrader", type=Path, required=True, metavar="COURSE", help="nbgrader's course folder"
    )
    _secret_option(parser)
    _source_option(parser)
    parser.set_defaults(run=_reporting(run_collect))


def run_list(options: argparse.Namespace) -> int:
    """Print a table of the labs."""
    from qviz.core._text import table
    from qviz.labs import source

    labs = [source.load(name, options.source) for name in source.names(options.source)]
    rows = [
        [lab.name, lab.title, str(len(lab.questions)), f"{lab.points:g}", str(lab.minutes)] for lab in labs
    ]
    print(table(["lab", "title", "questions", "points", "minutes"], rows, right=[2, 3, 4]))
    return 0


def run_build(options: argparse.Namespace) -> int:
    """Write the notebooks, and print each, or how many there are."""
    from qviz.labs import handout, roster

    lab, secret = _lab(options), _secret(options)
    if options.roster is not None:
        students = roster.read(options.roster)
        made = handout.write_roster(lab, students, secret, options.out, options.format, options.source)
        print(f"{len(students)} notebooks in {options.out}; {handout.KEYS} beside them is yours alone")
    else:
        variant = _variant(lab, secret, options.student_id)
        made = handout.write(lab, variant, options.out, options.format, options.source)
        for path in made:
            print(path)
        if options.format != "release":
            print("this is the instructor's notebook, with solutions: hand out what is made from it")
    return 0


def run_key(options: argparse.Namespace) -> int:
    """Print a student's key as CSV."""
    from qviz.labs import key

    lab = _lab(options)
    print(key.as_csv(key.of(lab, _variant(lab, _secret(options), options.student_id))), end="")
    return 0


def run_grade(options: argparse.Namespace) -> int:
    """Grade, and print what came out; 1 where something could not be graded."""
    from qviz.labs import collected, grade, master, roster, source

    name = options.lab or collected.lab_of(options.submissions, source.names(options.source))
    lab = source.load(name, options.source)
    try:
        done = grade.grade(
            options.submissions,
            lab,
            out=options.out,
            secret=_secret(options),
            html=options.html,
            jobs=options.jobs,
            timeout=options.timeout,
            roster=None if options.roster is None else roster.read(options.roster),
            weak_isolation=options.weak_isolation,
            parts=master.read(source.notebook(name, options.source), lab),
        )
    except RuntimeError as error:
        raise UsageError(str(error)) from error
    print(done.summary(lab))
    print(options.out)
    return 1 if done.failed else 0


def run_check(options: argparse.Namespace) -> int:
    """Print what the public tests say and what is damaged; return 1 if anything is wrong."""
    from qviz.labs import build, checking, here, repair, running
    from qviz.labs.sandbox import isolation

    content = here.read(options.notebook)
    said = here.said_by(here.read(options.release) if options.release else content)
    found = checking.match_said(content, said)
    run = running.in_sandbox if isolation.landlock() else running.in_process
    report = checking.report(said, run(said, found), found)
    print(report)
    if options.repair is not None:
        if options.repair.exists():
            raise UsageError(f"{options.repair} exists: name a new file")
        options.repair.write_bytes(build.as_bytes(repair.repaired(build.from_manifest(said), found)))
        print(f"{options.repair} has the answers in a fresh release")
    return 0 if report.fine else 1


def run_collect(options: argparse.Namespace) -> int:
    """Write the submissions, and print what was wrong with which; return 1 if one could not be taken."""
    from qviz.core._text import count
    from qviz.labs import collect, master, source

    lab = _lab(options)
    parts = master.read(source.notebook(lab.name, options.source), lab)
    variant = _variant(lab, _secret(options), None)
    done = list(collect.collect(lab, parts, variant, options.submissions, options.nbgrader))
    for one in done:
        for sentence in one.said:
            print(f"{one.student}: {sentence}")
    left = sum(one.path is None for one in done)
    print(f"{count(len(done) - left, 'submission')} in {options.nbgrader / 'submitted'}, {left} not taken")
    return 1 if left else 0


def _reporting(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """A command whose sentences about bad input are the user's errors."""

    def reported(options: argparse.Namespace) -> int:
        try:
            return run(options)
        except ValueError as error:
            raise UsageError(str(error)) from error

    return reported


def _secret_option(parser: Any) -> None:
    parser.add_argument(
        "--secret", type=Path, metavar="FILE", help="the course's secret (default: QVIZ_LABS_SECRET)"
    )


def _source_option(parser: Any) -> None:
    parser.add_argument("--source", type=Path, metavar="DIR", help="the masters (default: the checkout's)")


def _lab(options: argparse.Namespace) -> Lab:
    from qviz.labs import source

    return source.load(options.lab, options.source)


def _secret(options: argparse.Namespace) -> bytes:
    """The course's secret; for the release for all, the published one where there is none."""
    from qviz.labs import secret

    found = secret.read(options.secret)
    if found is not None:
        return found
    if getattr(options, "student_id", None) or getattr(options, "roster", None):
        raise UsageError("students' variants need the course's secret: --secret FILE or QVIZ_LABS_SECRET")
    words = "no secret: the published one is taken, so everybody can compute the hidden cases"
    print(words, file=sys.stderr)  # stdout may be a key, as CSV
    return secret.PUBLISHED


def _variant(lab: Lab, secret: bytes, student: str | None) -> Variant:
    from qviz.labs.variants import COMMON, variant

    return variant(lab, secret, COMMON if student is None else student)
