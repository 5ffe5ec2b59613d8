"""Format: the small number formats of today on one tensor at one budget, with the bits of scales counted."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from qviz.core import formats, grids, groups
from qviz.core.codebook import Codebook
from qviz.core.quantizer import Quantizer
from qviz.core.range import Fixed, MinMax
from qviz.explore import paste, tensors
from qviz.explore.controls import Number, Pick, Text, control
from qviz.explore.model import Model, Page, changed
from qviz.explore.tensors import Source
from qviz.measure import Measured
from qviz.plot import panels
from qviz.plot.scene import Axis, Panel, Points, Rug, Rule, Scene, Table

PASTED = "pasted numbers"
GROUPS = {"4 bits": 128, "4.125 bits": 128, "4.25 bits": 64, "4.5 bits": 32, "5 bits": 16, "8 bits": 16}
"""The budgets, and the smallest group whose 16-bit scale fits into them (the largest one where none does)."""
SLACK = 0.01
"""A budget may be exceeded by as much, in bits: the one scale of a whole tensor."""
NUMBERS = "0.12 -0.48 0.05 0.31 -0.02 0.22 -0.17 0.09\n1.90 -0.06 0.14 -0.35 0.27 0.01 -0.21 0.40"


@dataclass(frozen=True)
class Format:
    """A number format: a codebook, and how many bits its scales take.

    Attributes:
        book: Builds the levels.
        bits: What a code takes.
        size: The values that share a scale; 0 means the whole tensor, None what the budget allows.
        scale: The bits of a scale.
        once: The bits that the whole tensor takes besides.
        make: Builds the quantizer of values in rows of ``size``, where the format has a rule of its own.
    """

    book: Callable[[], Codebook]
    bits: int = 4
    size: int | None = None
    scale: int = 16
    once: int = 0
    make: Callable[[], Quantizer] | None = None


FORMATS = {
    "INT4 per tensor": Format(lambda: grids.uniform(4), size=0, scale=32),
    "INT4 groups": Format(lambda: grids.uniform(4)),
    "NF4 groups": Format(formats.nf4),
    "FP4 groups": Format(formats.fp4),
    "POST groups": Format(lambda: grids.post(4)),
    "APoT groups": Format(lambda: grids.apot(4)),
    "MXFP4": Format(formats.fp4, size=32, scale=8, make=groups.mxfp4),
    "NVFP4": Format(formats.fp4, size=16, scale=8, once=32, make=groups.nvfp4),
    "FP8 E4M3": Format(formats.fp8_e4m3, bits=8, size=0, scale=32),
    "INT8 per tensor": Format(lambda: grids.uniform(8), bits=8, size=0, scale=32),
}


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


@dataclass(frozen=True, eq=False)
class Coded:
    """A tensor in a format.

    Attributes:
        q: The quantizer, of values in rows of ``size``.
        size: How many values share a scale.
        bits: The bits of a value, its part of the scales counted.
        measured: Its figures.
    """

    q: Quantizer
    size: int
    bits: float
    measured: Measured

    def scale(self, i: int) -> float:
        """Return the scale of the i-th value."""
        return float(self.q.range.scale.flatten()[i // self.size if self.q.range.scale.numel() > 1 else 0])


def in_rows(x: Tensor, size: int) -> Tensor:
    """Return values in rows of ``size``, in the order of memory; the last row is filled up with zeros."""
    return torch.nn.functional.pad(x.flatten(), (0, -x.numel() % size)).view(-1, size)


@functools.lru_cache(maxsize=48)
def coded(source: Source, name: str, group: int) -> Coded:
    """Return a tensor in a format; ``group`` is the size of groups that the format leaves open."""
    data, spec = tensors.summary(source), FORMATS[name]
    if spec.size == 0:
        q = Quantizer(spec.book(), range=MinMax()).observe(data.x)
        return Coded(q, data.numel, spec.bits + spec.scale / data.numel, Measured(q, data, name))
    size = min(spec.size or group, spec.size or data.numel)
    rows = in_rows(data.x, size)
    made = spec.make() if spec.make else _grouped(spec, size)
    q = made.observe(rows)

    def run(x: Tensor) -> Tensor:
        return q(in_rows(x, size)).flatten()[: x.numel()].view(x.shape)

    bits = spec.bits + (spec.scale * len(rows) + spec.once) / data.numel
    return Coded(q, size, bits, Measured(run, data, name))


def _grouped(spec: Format, size: int) -> Quantizer:
    return Quantizer(spec.book(), range=groups.Grouped(size, stored=torch.float16))


@functools.lru_cache(maxsize=4)
def pasted(text: str) -> tuple[Source, str]:
    """Return the numbers of a text as a source, and what could not be read."""
    values, problem = paste.read(text)
    return Source(lambda: torch.from_numpy(values), None, f"{len(values):,} shown"), problem


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
        """Return the tensors, and the number of the last value."""
        count = tensors.summary(self.source(c)).numel
        return {"tensor": {"options": tuple(self.sources)}, "place": {"high": count}}

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
        made = {name: self.coded(c, name) for name in FORMATS}
        within = self.within(c, made)
        best = max(within, key=lambda n: made[n].measured.sqnr_db, default=None)
        told = (
            f"Within {c.budget} a value {best} has the least error."
            if best
            else f"No format fits into {c.budget} a value: the scales of so few values count too much."
        )
        parts = (self._plane(c, made), self._group(c), self._error(c))
        problem = pasted(c.numbers)[1] if c.tensor == PASTED else ""
        about = (problem, told, f"{c.tensor}: {self.source(c).about}.")
        title = f"Formats on {c.tensor} within {c.budget} a value"
        return Scene(title, parts, self._table(c, made, within), " ".join(filter(None, about)))

    def within(self, c: FormatChoice, made: dict[str, Coded]) -> list[str]:
        """Return the formats that fit into the budget."""
        return [name for name, m in made.items() if m.bits <= float(c.budget.split()[0]) + SLACK]

    def _role(self, c: FormatChoice, name: str) -> str:
        return "a" if name == c.a else "b" if name == c.b else "data"

    def _plane(self, c: FormatChoice, made: dict[str, Coded]) -> Panel:
        bits = np.array([m.bits for m in made.values()])
        noise = np.array([m.measured.sqnr_db for m in made.values()])
        seen = np.isfinite(noise)
        named = {
            role: [i for i, n in enumerate(made) if self._role(c, n) == role and seen[i]] for role in "ab"
        }
        marks = [Points("data", bits[seen], noise[seen], label="all formats")]
        marks += [
            Points(role, bits[at], noise[at], label=f"{role.upper()}: {list(made)[at[0]]}")
            for role, at in named.items()
            if at
        ]
        budget = float(c.budget.split()[0])
        marks.append(Rule("ideal", budget + SLACK, label="budget"))
        low, high = (noise[seen].min(), noise[seen].max()) if seen.any() else (0.0, 1.0)
        y = Axis("SQNR (dB)", 5.0 * np.floor(low / 5.0 - 0.2), 5.0 * np.ceil(high / 5.0 + 0.2))
        x = Axis("bits a value, scales counted", 3.8, max(8.6, 1.03 * float(bits.max())))
        text = " ".join(f"{n}: {m.bits:.3f} bits, {m.measured.sqnr_db:.2f} dB." for n, m in made.items())
        return Panel("Error against bits", x, y, tuple(marks), text)

    def _group(self, c: FormatChoice) -> Panel:
        _, values = self.neighbors(c)
        value, i = float(tensors.summary(self.source(c)).x.flatten()[c.place - 1]), c.place - 1
        spare = 0.08 * float(np.ptp(values)) or 0.5 * (abs(value) or 1.0)
        low, high = float(values.min()) - spare, float(values.max()) + spare
        marks: list = [Rug("data", values, 0.0, 1.0, label="neighbors in memory")]
        words = [
            f"Value {c.place} is {value:.4g}, among {len(values)} neighbors up to {np.abs(values).max():.4g}."
        ]
        for role, name, base in (("a", c.a, 1.2), ("b", c.b, 2.4)):
            made = self.coded(c, name)
            scale, slot = made.scale(i), role.upper()
            q = Quantizer(made.q.codebook, range=Fixed(scale if scale > 0 else 1.0))
            places, y = panels.level_positions(q), float(q(torch.tensor([value], dtype=torch.float64)))
            shown = places[(places >= low) & (places <= high)]
            marks.append(Rug(role, shown, base, base + 1.0, label=f"levels of {slot}: {name}"))
            marks.append(Points(role, np.array([y]), np.array([base + 0.5])))
            words.append(
                f"{slot}, {name}: x / scale = {value:.4g} / {scale:.4g} = {value / (scale or 1.0):.4g} goes "
                f"to the level {y / (scale or 1.0):.4g}, y = {y:.4g}, error {y - value:.3g}; "
                f"{len(shown)} of {len(places)} levels lie among the neighbors."
            )
        marks.append(Points("e", np.array([value]), np.array([0.5]), "x", label="one value"))
        return Panel(
            "One group of neighbors",
            Axis("x", low, high),
            Axis("values · A · B", -0.2, 3.6),
            tuple(marks),
            " ".join(words),
        )

    def _error(self, c: FormatChoice) -> Panel:
        both = {f"{slot}: {name}": self.coded(c, name).measured for slot, name in (("A", c.a), ("B", c.b))}
        return panels.error(tensors.summary(self.source(c)), both)

    def _table(self, c: FormatChoice, made: dict[str, Coded], within: list[str]) -> Table:
        rows, values = [], {}
        for name, m in made.items():
            code, noise = FORMATS[name].bits, m.measured.sqnr_db
            fits = "yes" if name in within else "no"
            bits = f"{code} + {m.bits - code:.3f}"
            rows.append((name, f"{m.size:,}", bits, str(len(m.q.codebook)), f"{noise:.2f}", fits))
            values[name] = {
                "group": m.size,
                "bits": m.bits,
                "levels": len(m.q.codebook),
                "sqnr_db": noise if np.isfinite(noise) else None,
                "fits": name in within,
            }
        headers = ("format", "values a scale", "bits: code + scale", "levels", "SQNR dB", "fits")
        return Table(headers, tuple(rows), tuple(self._role(c, n) for n in made), values)
