"""Format: the small number formats of today on one tensor at one budget, with the bits of scales counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from qviz.explore import format_panels, tensors
from qviz.explore.controls import Number, Pick, Text, control
from qviz.explore.format_data import FORMATS, PASTED, Coded, coded, pasted
from qviz.explore.model import Model, Page, changed
from qviz.explore.tensors import Source
from qviz.plot.scene import Scene

GROUPS = {"4 bits": 128, "4.125 bits": 128, "4.25 bits": 64, "4.5 bits": 32, "5 bits": 16, "8 bits": 16}
"""The budgets, and the smallest group whose 16-bit scale fits into them (the largest one where none does)."""
NUMBERS = "0.12 -0.48 0.05 0.31 -0.02 0.22 -0.17 0.09\n1.90 -0.06 0.14 -0.35 0.27 0.01 -0.21 0.40"


@dataclass(frozen=True)
class FormatChoice:
    """Two formats on one tensor, a budget, and one of its values."""

    tensor: str = control("", Pick("Tensor", "The values that are quantized."))
    budget: str = control(
        "4.25 bits",
        Pick("Budget", "Bits a value may take, its part of the scales counted.", options=tuple(GROUPS)),
    )
    a: str = control("INT4 groups", Pick("Format A", "The first format.", options=tuple(FORMATS)))
    b: str = control("NF4 groups", Pick("Format B", "The second format.", options=tuple(FORMATS)))
    place: int = control(1, Number("Value no.", "One value, in the order of memory.", low=1, high=1, step=1))
    numbers: str = control(
        NUMBERS, Text("Numbers", "Paste numbers here: a column, a list, a printed tensor.", rows=3)
    )


class FormatModel(Model[FormatChoice]):
    """INT4, NF4, FP4, MXFP4, NVFP4, FP8, POST and APoT on one tensor at one budget.

    The arguments, and what is refused, are those of :class:`~qviz.widgets.FormatExplorer`.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "Made for normal weights": {"a": "INT4 groups", "b": "NF4 groups"},
        "The hardware's two": {"budget": "4.5 bits", "a": "MXFP4", "b": "NVFP4"},
        "An outlier in a group": {"tensor": "act_outlier (real)", "a": "INT4 per tensor", "b": "INT4 groups"},
        "Powers and sums of powers": {"a": "POST groups", "b": "APoT groups"},
        "Eight bits": {"budget": "8 bits", "a": "FP8 E4M3", "b": "INT8 per tensor"},
    }
    rescales = ("tensor", "numbers")

    def __init__(
        self, x: Tensor | np.ndarray | None = None, *, tensor: str | None = None, budget: str = "4.25 bits"
    ) -> None:
        self.sources = tensors.offered(x)
        del self.sources[tensors.BIG]  # ten formats on 1e6 values would take a second
        self.sources[PASTED] = pasted(NUMBERS)[0]
        if budget not in GROUPS:
            raise ValueError(f"unknown budget {budget!r}; there are {list(GROUPS)}")
        self.start = FormatChoice(tensors.first(self.sources, tensor, "expand (real)"), budget)

    def source(self, c: FormatChoice) -> Source:
        """Return the tensor, or the numbers that were pasted."""
        return pasted(c.numbers)[0] if c.tensor == PASTED else self.sources[c.tensor]

    def coded(self, c: FormatChoice, name: str) -> Coded:
        """Return the tensor in a format, at the choice's budget."""
        return coded(self.source(c), name, GROUPS[c.budget])

    def limits(self, c: FormatChoice) -> dict[str, dict[str, Any]]:
        """Return the number of the last value."""
        count = tensors.summary(self.source(c)).numel
        return {"place": {"high": count}}

    def settled(self, before: FormatChoice, after: FormatChoice) -> FormatChoice:
        """Show numbers as soon as they are pasted."""
        if "numbers" in changed(before, after):
            after = replace(after, tensor=PASTED)
        return self.followed(after)

    def followed(self, c: FormatChoice) -> FormatChoice:
        """Keep the value's number inside the tensor."""
        return self.inside(c, "place")

    def dragged(self, c: FormatChoice, panel: int, mark: int, index: int, x: float, y: float) -> FormatChoice:
        """Choose the neighbor that is nearest to where the dot was dropped."""
        at, values = self.neighbors(c)
        return replace(c, place=int(at[np.abs(values - x).argmin()]) + 1)

    def neighbors(self, c: FormatChoice) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers (from 0) and the values of A's group around the one value: at most 128."""
        x = tensors.summary(self.source(c)).x.flatten()
        size = min(self.coded(c, c.a).size, 128)
        first = (c.place - 1) // size * size
        values = x[first : first + size].double().numpy()
        return np.arange(first, first + len(values)), values

    def headline(self, c: FormatChoice) -> dict[str, float]:
        """Return SQNR and bits of both formats."""
        both = {"A": self.coded(c, c.a), "B": self.coded(c, c.b)}
        noise = {f"SQNR of {slot} (dB)": made.measured.sqnr_db for slot, made in both.items()}
        return noise | {f"bits of {slot}": made.bits for slot, made in both.items()}

    def page(self, c: FormatChoice, names: tuple[str, ...] = ()) -> Page:
        """Return a page of all formats A, or of other controls."""
        return super().page(c, names or ("a",))

    def scene(self, c: FormatChoice) -> Scene:
        """Return error against bits, one group of neighbors, the error histogram and the table."""
        return format_panels.scene(self, c)
