"""``qviz ptq``: one post-training quantization, or a queue of them, with a row of the ledger for each."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qviz.cli.experiments import carry_out, numbers, queue
from qviz.cli.usage import UsageError, install, missing

if TYPE_CHECKING:
    from qviz.nn.runs import PTQExperiment

FIELDS = (
    "method",
    "model",
    "images",
    "iterations",
    "correction",
    "border",
    "first_last",
    "order",
    "start",
    "source",
)
"""Options that are fields of a PTQExperiment as they stand."""

WITH_QUEUE = ("queue", "ledger", "folder", "command", "run", "passed_on")


def add_to(commands: Any) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser("ptq", help="quantize a trained network without training it")
    parser.add_argument("--method", help="nearest, closed-form, adaround, brecq, qdrop or aquant")
    parser.add_argument("--bits", metavar="W[,A]", help="bits of weights and activations, such as 2 or 4,8")
    parser.add_argument("--model", help="resnet20 (default), or another with --start")
    parser.add_argument("--images", type=int, help="training images to calibrate on (default: 1024)")
    parser.add_argument("--iterations", type=int, help="steps a block")
    parser.add_argument("--seeds", metavar="S[,S…]", help="one run each (default: 0)")
    parser.add_argument("--correction", help="of nearest: mean or std of each channel (as BatchNorm would)")
    parser.add_argument("--border", help="of aquant: channel (default), layer, cell or fused")
    parser.add_argument("--bias", action="store_true", help="learn biases too")
    parser.add_argument("--first-last", dest="first_last", help="8bit (default), fp or quantized")
    parser.add_argument("--order", help="block (default) or layer")
    parser.add_argument("--no-gate", dest="no_gate", action="store_true", help="keep every block as learned")
    parser.add_argument("--start", help="shipped (default) or a .safetensors file of weights")
    parser.add_argument("--source", help="full or sample of CIFAR-10, to insist on one")
    parser.add_argument(
        "--queue", type=Path, metavar="FILE", help="a .toml file of experiments, instead of one"
    )
    parser.add_argument(
        "--ledger", type=Path, metavar="FILE", help="where to write the row (see qviz results)"
    )
    parser.add_argument("--folder", type=Path, metavar="DIR", help="for the quantized networks")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Quantize, write rows, and print them."""
    absent = missing("train")
    if absent:
        raise UsageError(f"qviz ptq needs {', '.join(absent)}: {install('train')}")
    from qviz.nn.runs import Ledger, PTQExperiment, ptq_contract, run_ptq, source_of_ptq

    ledger = Ledger(options.ledger)

    def known(experiment: PTQExperiment) -> Any:
        return ledger.find(experiment.sha256(source_of_ptq(experiment))) if options.queue else None

    return carry_out(
        queue(options, PTQExperiment, WITH_QUEUE) if options.queue else [_experiment(options)],
        ledger,
        known=known,
        contract=lambda experiment: ptq_contract(experiment, ledger=ledger),
        run=lambda experiment: run_ptq(experiment, folder=options.folder, ledger=ledger),
        stopped="stopped; the same command goes on",
    )


def _experiment(options: argparse.Namespace) -> PTQExperiment:
    from qviz.nn.runs import PTQExperiment

    if options.method is None or options.bits is None:
        raise UsageError("give --method (such as qdrop) and --bits, such as 2 or 4,8; or --queue FILE")
    fields = {name: getattr(options, name) for name in FIELDS if getattr(options, name) is not None}
    fields |= dict(zip(("w_bits", "a_bits"), numbers("bits", options.bits, most=2), strict=False))
    if options.seeds is not None:
        fields["seeds"] = tuple(numbers("seeds", options.seeds))
    try:
        return PTQExperiment(**fields, bias=options.bias, gate=not options.no_gate)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error
