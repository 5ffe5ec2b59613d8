"""Paste: numbers from text that a reader has pasted, and what could not be read."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import numpy as np

MOST = 65_536
"""More numbers than this are not read."""
LARGEST = float(np.finfo(np.float32).max)
SEPARATORS = re.compile(r"[\s,;|()\[\]{}]+")
SHOWN = 3


class Pasted(NamedTuple):
    """What was read.

    Attributes:
        values: The numbers, float32, in their order; one 0 where there is none.
        problem: What was left out and why, in sentences; "" if nothing was.
    """

    values: np.ndarray
    problem: str


def read(text: str) -> Pasted:
    """Read the numbers of a text, such as a column of a spreadsheet or a printed list.

    Between numbers may stand spaces, line ends, commas, semicolons, bars and brackets. Where there are
    semicolons, a comma is a decimal comma.

    Example:
        >>> pasted = read("[0.5, -1e-2, x3]")
        >>> pasted.values.tolist() == [0.5, np.float32(-0.01)]
        True
        >>> pasted.problem
        "1 of 3 entries is no number: 'x3' (entry 3)."
        >>> read("0,5; 1,25").values.tolist()
        [0.5, 1.25]
    """
    entries = [e for e in SEPARATORS.split(text.replace(",", ".") if ";" in text else text) if e]
    found = [_number(entry) for entry in entries[:MOST]]
    said = []
    if strange := [i for i, v in enumerate(found) if v is None]:
        shown = ", ".join(f"{entries[i][:20]!r} (entry {i + 1})" for i in strange[:SHOWN])
        more = f" and {len(strange) - SHOWN} more" if len(strange) > SHOWN else ""
        verb = "is no number" if len(strange) == 1 else "are no numbers"
        said.append(f"{len(strange)} of {len(entries)} entries {verb}: {shown}{more}.")
    numbers = [v for v in found if v is not None]
    finite = [v for v in numbers if abs(v) <= LARGEST]
    if len(finite) < len(numbers):
        said.append(f"Left out: {len(numbers) - len(finite)} NaN, infinite or too large for float32.")
    if len(entries) > MOST:
        said.append(f"Only the first {MOST:,} of {len(entries):,} entries are read.")
    if not finite:
        said.append("There is no number to show yet; the picture shows a single 0.")
    return Pasted(np.array(finite or [0.0], dtype=np.float32), " ".join(said))


def _number(entry: str) -> float | None:
    """Return the number that an entry is, or None; a typographic minus is a minus."""
    try:
        value = float(entry.replace("\N{MINUS SIGN}", "-"))
    except ValueError:
        return None
    return math.inf if math.isnan(value) else value
