"""The capstone's reference curves, and a table of files that were handed in, the best first."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qviz.explore import network
from qviz.explore.bit_budget_data import costs
from qviz.labs import capstone

FILE = "network.safetensors"


def reference(size: int) -> tuple[float, float]:
    """Return how many points of top-1 two plain methods lose within a size, interpolated between their sizes.

    Both round to uniform grids with the step of the least squared error for each output channel. The first
    gives all layers the same bits, the second allocates bits exactly by Fisher costs. The figures are those
    of ``data/bit_budget.json``, on all 2,000 test images; ``python data/make_bit_budget.py`` made them.

    Args:
        size: Bytes as :attr:`~qviz.labs.capstone.Handed.bytes` counts them.
    """
    known = costs()
    rows = sum(shape[0] for shape in capstone.layers().values())
    parts = sum(math.prod(shape) for shape in capstone.floats().values())

    def lost(allocations: list[tuple[int, ...]]) -> float:
        tables = [4 * (rows + parts + sum(2**b for b in bits)) for bits in allocations]
        sizes = [1000 * known.kilobytes(bits) + t for bits, t in zip(allocations, tables, strict=True)]
        drops = [known.floating.top1 - known.trials[bits].top1 for bits in allocations]
        return float(np.interp(size, sizes, drops))

    equal = [(b,) * len(known.names) for b in known.bits]
    spent = [known.spent("exact", "Fisher", budget) for budget in known.budgets]
    return lost(equal), lost(spent)


@dataclass(frozen=True)
class Entry:
    """A line of the leaderboard.

    Attributes:
        folder: Whose folder the file is in.
        name, method: What the file says.
        bytes: Its size as it counts.
        top1: The accuracy in percent; NaN if it could not be read.
        problem: Why it could not.
    """

    folder: str
    name: str
    method: str
    bytes: int
    top1: float
    problem: str = ""


def ranked(folder: str | Path, images: int = 500) -> list[Entry]:
    """Measure every ``network.safetensors`` in a folder's folders, all on the same first test images.

    Grades are made on other images for each student, so that accuracies in them do not compare as well.

    Args:
        folder: Has one folder for each student.
        images: How many of the embedded test images, from the first.

    Returns:
        The best accuracy first, of equal ones the smallest; files that cannot be read come last.

    Raises:
        ValueError: There is no such file in any folder.
    """
    files = sorted(Path(folder).glob(f"*/{FILE}"))
    if not files:
        raise ValueError(f"no folder in {str(folder)!r} has a file {FILE}")
    entries = [_entry(file, images) for file in files]
    return sorted(entries, key=lambda e: (math.isnan(e.top1), -e.top1, e.bytes, e.folder))


def text(entries: Iterable[Entry]) -> str:
    """Return a leaderboard as lines of text."""
    lines = [f"{'':>3}  {'top-1':>7}  {'bytes':>9}  name: method"]
    for place, entry in enumerate(entries, 1):
        if entry.problem:
            lines.append(f"  -  {'-':>7}  {'-':>9}  {entry.folder}: {entry.problem}")
        else:
            said = f"{entry.name}: {entry.method}"
            lines.append(f"{place:3}  {entry.top1:5.1f} %  {entry.bytes:9,}  {said}")
    return "\n".join(lines)


def _entry(file: Path, images: int) -> Entry:
    try:
        handed = capstone.read(file)
    except ValueError as error:
        return Entry(file.parent.name, "", "", 0, math.nan, str(error))
    x, labels = (part[:images] for part in network.sample("test"))
    top1 = 100 * float(capstone.right(handed.network(), x, labels).double().mean())
    return Entry(file.parent.name, handed.about["name"], handed.about["method"], handed.bytes, top1)
