"""``qviz train``: one experiment, or a queue of them, with a row of the ledger for each that is finished."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qviz.cli.experiments import carry_out, numbers, queue
from qviz.cli.usage import UsageError, install, missing
from qviz.core._text import some

if TYPE_CHECKING:
    from qviz.nn.runs import Experiment, Row

NUMBERS = {"epochs": int, "batch_size": int, "lr": float, "max_steps": int}

WITH_QUEUE = ("queue", "ledger", "folder", "resume", "command", "run", "passed_on")
"""Options that go together with ``--queue``; the file says everything else."""


def add_to(commands: Any) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser("train", help="train a quantized network, or a queue of them")
    parser.add_argument("--recipe", help="fp32, ste, lsq, pact, daq, asq, pot, post, adq or aquant")
    parser.add_argument("--bits", metavar="W[,A]", help="bits of weights and activations, such as 2 or 4,8")
    parser.add_argument("--model", help="resnet20, resnet18, resnet34 or mobilenet_v2")
    parser.add_argument("--data", help="cifar10 or imagenet")
    parser.add_argument("--size", help="smoke, laptop or full (the paper's schedule)")
    parser.add_argument("--seeds", metavar="S[,S…]", help="one run each (default: 0)")
    parser.add_argument("--first-last", dest="first_last", help="fp, 8bit or quantized")
    parser.add_argument("--average-bits", dest="average_bits", type=float, help="mixed precision of weights")
    parser.add_argument("--start", help="shipped, published, scratch or a .safetensors file")
    parser.add_argument("--images", type=int, help="train on so many images only")
    parser.add_argument("--source", help="full or sample, to insist on one")
    for name, kind in NUMBERS.items():
        option = "--" + name.replace("_", "-")
        parser.add_argument(option, dest=name, type=kind, help="instead of the schedule's")
    parser.add_argument("--precision", help="fp32 or bf16")
    parser.add_argument("--compile", action="store_true", help="run the network through torch.compile")
    parser.add_argument(
        "--queue", type=Path, metavar="FILE", help="a .toml file of experiments, instead of one"
    )
    parser.add_argument("--resume", action="store_true", help="go on with a run that was stopped or killed")
    parser.add_argument(
        "--ledger", type=Path, metavar="FILE", help="where to write the row (see qviz results)"
    )
    parser.add_argument("--folder", type=Path, metavar="DIR", help="for checkpoints and logs")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Train, write rows, and print them."""
    absent = missing("train")
    if absent:
        raise UsageError(f"training needs {', '.join(absent)}: {install('train')}")
    from qviz.nn.runs import Experiment, Ledger, contract, known, run

    ledger = Ledger(options.ledger)

    def begin(experiment: Experiment) -> Row | None:
        if options.resume and options.queue is None:
            _say_what_resumes(experiment, options.folder)
        resume = options.resume or options.queue is not None
        return run(experiment, folder=options.folder, ledger=ledger, resume=resume)

    return carry_out(
        queue(options, Experiment, WITH_QUEUE) if options.queue else [_experiment(options)],
        ledger,
        known=lambda experiment: known(experiment, ledger) if options.queue else None,
        contract=lambda experiment: contract(experiment, ledger=ledger),
        run=begin,
        stopped="stopped; the same command with --resume goes on",
    )


def _say_what_resumes(experiment: Experiment, folder: Path | None) -> None:
    """Say so where ``--resume`` finds nothing to go on with, and which runs with other options there are."""
    from qviz.nn.runs import folder_of, runs_of, source_of

    source = source_of(experiment)
    if runs_of(experiment, source, folder):
        return
    home = folder_of(experiment, source, folder).parent
    others = sorted(path.name for path in home.glob(f"{experiment.name}-*"))
    print(
        f"--resume: no run with exactly these options was begun in {home}; this one starts anew"
        + (f" (with other options there are {some(others)})" if others else "")
    )


def _experiment(options: argparse.Namespace) -> Experiment:
    from qviz.nn.runs import Experiment

    if options.recipe is None:
        raise UsageError("give --recipe (such as daq) and --bits, or --queue FILE")
    names = ("recipe", "model", "data", "size", "first_last", "average_bits", "start", "images", "source")
    fields = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.bits is not None and options.recipe == "fp32":
        raise UsageError(f"fp32 quantizes nothing: leave out --bits {options.bits}")
    if options.bits is not None:
        fields |= dict(zip(("w_bits", "a_bits"), numbers("bits", options.bits, most=2), strict=False))
    elif options.recipe != "fp32":
        raise UsageError(f"--recipe {options.recipe} needs --bits, such as 2 or 4,8")
    if options.seeds is not None:
        fields["seeds"] = tuple(numbers("seeds", options.seeds))
    overrides = {name: getattr(options, name) for name in (*NUMBERS, "precision")}
    overrides = {name: value for name, value in overrides.items() if value is not None}
    if options.compile:
        overrides["compile"] = True
    try:
        return Experiment(**fields, overrides=overrides)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error
