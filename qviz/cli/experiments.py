"""What ``qviz train`` and ``qviz ptq`` share: numbers in options, queues, one experiment after the other."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from qviz.cli.usage import STOPPED, UsageError

if TYPE_CHECKING:
    from qviz.nn.runs import Experiment, Ledger, PTQExperiment, Row

E = TypeVar("E", "Experiment", "PTQExperiment")


def numbers(option: str, text: str, most: int | None = None) -> list[int]:
    """Return whole numbers that are separated by commas.

    Raises:
        UsageError: The text is something else, or has more than ``most`` of them.
    """
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--{option} takes whole numbers separated by commas, got {text!r}") from error
    if most is not None and len(found) > most:
        raise UsageError(f"--{option} takes at most {most} numbers, got {text!r}")
    return found


def queue(options: argparse.Namespace, kind: type[E], together: Sequence[str]) -> list[E]:
    """Return the experiments of ``--queue``.

    Args:
        options: The command's.
        kind: What the file's runs are.
        together: Options that go together with ``--queue``; the file says everything else.

    Raises:
        UsageError: There are other options, or the file is not as it should be.
    """
    from qviz.nn.runs import read_queue

    given = [name for name, value in vars(options).items() if value is not None and value is not False]
    if others := [f"--{name.replace('_', '-')}" for name in given if name not in together]:
        raise UsageError(f"--queue takes its experiments from the file; leave out {', '.join(others)}")
    try:
        return read_queue(options.queue, kind)
    except FileNotFoundError as error:
        raise UsageError(f"{options.queue}: no such file") from error
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error


def carry_out(
    experiments: Sequence[E],
    ledger: Ledger,
    *,
    known: Callable[[E], Row | None],
    contract: Callable[[E], str],
    run: Callable[[E], Row | None],
    stopped: str,
) -> int:
    """Run experiments and print their rows; return the command's exit code.

    Args:
        experiments: What to run.
        ledger: Where the rows go.
        known: Gives the row of an experiment that is not to be run again.
        contract: What is printed before.
        run: Gives the row, or None if it was stopped by hand.
        stopped: What is said then.

    Raises:
        UsageError: An experiment cannot be run.
    """
    from qviz.nn.runs.ledger import table

    for experiment in experiments:
        try:
            row = known(experiment)
            if row is None:
                ledger.check()
                if int(os.environ.get("RANK", "0")) == 0:
                    print(contract(experiment), flush=True)
                row = run(experiment)
            else:
                print(f"{experiment.name}: in {ledger.path} already")
        except (ValueError, OSError) as error:
            raise UsageError(f"{experiment.name}: {error}") from error
        if row is None:
            print(stopped)
            return STOPPED
        print(table([row]))
    return 0
