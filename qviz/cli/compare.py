"""``qviz compare FILE``: the tensors of a file through every grid, as a table, as CSV or as JSON."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qviz.cli.usage import UsageError

if TYPE_CHECKING:
    from qviz.measure import Comparison, Tables


def add_to(commands: Any) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser("compare", help="the tensors of a file through every grid")
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="a .safetensors file, its .index.json or folder, a .pt, .pth, .bin, .ckpt, .npz or .npy file",
    )
    parser.add_argument("--tensor", metavar="PATTERN", help="which ones, with * and ?: '*.proj.*'")
    parser.add_argument("--bits", type=int, default=4, help="bits per value (default: %(default)s)")
    parser.add_argument(
        "--sample", type=int, metavar="N", help="draw N values of a larger tensor (default: take all)"
    )
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="print JSON instead of the table")
    shape.add_argument("--csv", action="store_true", help="print CSV, a line for each tensor and method")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print what ``qviz.compare_tensors`` says of the file; of one tensor, the whole table."""
    try:
        tables = _compare(options.file, options.tensor or "*", options.bits, options.sample)
    except (ValueError, TypeError) as error:
        text = str(error)
        raise UsageError(text if text.startswith(str(options.file)) else f"{options.file}: {text}") from error
    for name, reason in tables.skipped.items():
        print(f"skipped {name}: {reason}", file=sys.stderr)
    if options.csv:
        tables.to_csv(sys.stdout)
        return 0
    shown: Tables | Comparison = next(iter(tables.values())) if len(tables) == 1 else tables
    print(json.dumps(shown.to_dict(), indent=1, allow_nan=False) if options.json else shown)
    return 0


def _compare(file: Path, pattern: str, bits: int, sample: int | None) -> Tables:
    from qviz.measure import Checkpoint, compare_tensors

    return compare_tensors(Checkpoint(file), bits=bits, pattern=pattern, sample=sample, progress=_progress())


def _progress() -> Callable[[list[str]], Iterable[str]]:
    """Return tqdm where it is installed and somebody looks, else nothing that shows."""
    if not sys.stderr.isatty() or importlib.util.find_spec("tqdm") is None:
        return iter
    from tqdm import tqdm

    return lambda names: tqdm(names, unit="tensor", leave=False)
