"""The commands ``qviz`` and ``jupyter qviz``, one file each: lab, labs, gallery,
compare, inspect, train, ptq, results, export, verify, run, doctor.

Everything that a command needs is imported when it runs. What the user got wrong (a file, a name, an option)
is one line on stderr and exit code 2; exit code 1 means that something is broken.
"""

from __future__ import annotations

import argparse
import codecs
import os
import re
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from qviz import __version__
from qviz.cli import compare, doctor, export, gallery, inspect, lab, labs, ptq, results, run, train, verify
from qviz.cli.usage import STOPPED, UNREAD, UsageError, one_line

COMMANDS = (lab, labs, gallery, compare, inspect, train, ptq, results, export, verify, run, doctor)
_PLAIN = dict(zip("±–−×…’“”·", ("+-", "-", "-", "x", "...", "'", '"', '"', "-"), strict=True))
"""The signs of tables and messages in ASCII."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, without the usage text, and that guesses no options."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str) -> NoReturn:
        """Print one line on stderr and exit with code 2."""
        self.exit(2, f"{self.prog}: {one_line(message)}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 fine, 1 something is broken, 2 wrong usage."""
    args = list(sys.argv[1:] if argv is None else argv)
    passed_on: list[str] = []
    if args[:1] == ["lab"] and "--" in args:
        cut = args.index("--")
        args, passed_on = args[:cut], args[cut + 1 :]
    for stream in (sys.stdout, sys.stderr):  # not every terminal or pipe has ± and –
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="qviz.plain")
    parser = _parser()
    options = parser.parse_args(args, argparse.Namespace(passed_on=passed_on))
    if options.command is None:
        known = ", ".join(_name(command) for command in COMMANDS)
        parser.error(f"no command; choose {known} (or --help)")
    try:
        code = options.run(options)
        print(end="", flush=True)  # here, where a full disk or a closed pipe has its sentence
        return code
    except KeyboardInterrupt:
        print(f"qviz {options.command}: stopped", file=sys.stderr)
        return STOPPED
    except (UsageError, OSError) as error:
        _drop_unwritten()
        if isinstance(error, BrokenPipeError) or isinstance(error.__cause__, BrokenPipeError):
            return UNREAD  # nobody is there to read a sentence
        text = re.sub(r"\[Errno -?\d+\] ", "", one_line(str(error)))
        print(f"qviz {options.command}: {text}", file=sys.stderr)
        return 2


def _drop_unwritten() -> None:
    """Drop what stdout cannot write, or Python would fail at it once more, aloud, at its end."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _plain(problem: UnicodeError) -> tuple[str, int]:
    """Spell what an encoding lacks in ASCII, as an error handler of ``codecs``."""
    if not isinstance(problem, UnicodeEncodeError):
        raise problem
    missing = problem.object[problem.start : problem.end]
    return "".join(_PLAIN.get(letter, "?") for letter in missing), problem.end


codecs.register_error("qviz.plain", _plain)


def _name(command: ModuleType) -> str:
    return command.__name__.rsplit(".", 1)[-1]


def _parser() -> Parser:
    parser = Parser(
        prog="qviz",
        description="See, touch, train and check neural-network quantization.",
    )
    parser.add_argument("--version", action="version", version=f"qviz {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for command in COMMANDS:
        command.add_to(commands)
    return parser
