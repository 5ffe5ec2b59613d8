"""Tables: a comparison for each tensor of a checkpoint or state dict."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TextIO

import torch
from torch import Tensor

from qviz.core import _check
from qviz.core.range import Range
from qviz.measure.compare import Method, compare
from qviz.measure.table import Comparison, aligned, data_frame, strict

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Tables(Mapping[str, Comparison]):
    """One comparison for each tensor; prints as a table with a line for each tensor, SQNR in dB.

    Below it stands what one should know to read the figures, once for all tensors that it is said of.

    Attributes:
        tables: The comparisons by the tensors' names.
        numel: How many values each tensor has.
        skipped: Why a tensor has no comparison, by its name.
    """

    tables: dict[str, Comparison]
    numel: dict[str, int]
    skipped: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, tensor: str) -> Comparison:
        """Return the comparison of a tensor."""
        return self.tables[tensor]

    def __iter__(self) -> Iterator[str]:
        """Return an iterator over the tensors' names."""
        return iter(self.tables)

    def __len__(self) -> int:
        """Number of comparisons."""
        return len(self.tables)

    def __str__(self) -> str:
        """Align one line for each tensor: values, and the SQNR of each method."""
        methods = list(dict.fromkeys(row.method for table in self.tables.values() for row in table))
        lines = [("tensor", "values", *methods)]
        for name, table in self.tables.items():
            sqnr = {row.method: f"{row.sqnr_db:.2f}" for row in table}
            lines.append((name, f"{self.numel[name]:,}", *(sqnr.get(method, "–") for method in methods)))
        return "\n".join([aligned(lines), *self.notes()])

    def notes(self) -> list[str]:
        """Return a line "method: note: tensors" for each note, with the first few tensors that have it.

        Notes that differ in how many levels are one: "POT: 1 to 14 levels unused: conv1.weight, …".
        """
        found: dict[tuple[str, str], dict[str, str]] = {}
        for name, table in self.tables.items():
            for row in table:
                for note in filter(None, row.note.split("; ")):
                    words = re.sub(r"^\d+ (of \d+ )?levels?", "levels", note)
                    found.setdefault((row.method, words), {})[name] = note
        lines = []
        for (method, words), notes in found.items():
            said = next(iter(notes.values()))
            if len(set(notes.values())) > 1:  # they differ in how many levels
                numbers = [int(note.split()[0]) for note in notes.values()]
                least, most = min(numbers), max(numbers)
                said = f"{least} to {most} {words}" if least < most else f"{least} {words}"
            where = "" if len(notes) == len(self.tables) else f": {_some(list(notes), most=3)}"
            lines.append(f"{method}: {said}{where}")
        return lines

    __repr__ = __str__

    def records(self) -> list[dict[str, Any]]:
        """Return a flat dictionary for each tensor and method: plain numbers, None for infinite ones."""
        return [
            {"tensor": name, "values": self.numel[name], **{k: strict(v) for k, v in asdict(row).items()}}
            for name, table in self.tables.items()
            for row in table
        ]

    def to_dict(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return {tensor: {method: {column: value}}}, ready for strict JSON."""
        return {name: table.to_dict() for name, table in self.tables.items()}

    def to_csv(self, file: TextIO) -> None:
        """Write :meth:`records` as CSV with a header to an open text file."""
        records = self.records()
        writer = csv.DictWriter(file, list(records[0]) if records else ["tensor"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)

    def to_frame(self) -> pandas.DataFrame:
        """Return :meth:`records` as a pandas DataFrame, indexed by tensor and method.

        Raises:
            ImportError: pandas is not installed.
        """
        return data_frame(self.records(), ["tensor", "method"])


def compare_tensors(
    tensors: Mapping[str, Tensor],
    methods: Mapping[str, Method] | Sequence[str] | None = None,
    *,
    bits: int = 4,
    range: Range | float | None = None,
    pattern: str = "*",
    sample: int | None = None,
    progress: Callable[[list[str]], Iterable[str]] = iter,
) -> Tables:
    """Compare methods on every floating-point tensor of a checkpoint, one tensor at a time.

    Args:
        tensors: A :class:`Checkpoint`, a state dict, or any mapping from names to tensors.
        methods: As for :func:`qviz.compare`; named grids are fitted to each tensor.
        bits: As for :func:`qviz.compare`.
        range: As for :func:`qviz.compare`.
        pattern: Which names, with * and ?, as ``"*.proj.*"``.
        sample: Draw that many values of a larger tensor at random (seeded), so that huge ones take a
            moment; None takes all. The MSE of n values has a relative error of some sqrt(kurtosis / n).
        progress: Wraps the list of names, as ``tqdm.tqdm``, to show a bar.

    Returns:
        The comparisons; a tensor that cannot be compared (integers, NaN, sparse, empty) is in ``skipped``.

    Raises:
        TypeError, ValueError: bits or sample are out of range, no name matches the pattern, or none of the
            tensors can be compared.

    Example:
        >>> weights = {"a.proj.weight": torch.randn(64, 64), "a.bias": torch.zeros(64)}
        >>> list(compare_tensors(weights, ["POT", "POST"], pattern="*.proj.*"))
        ['a.proj.weight']
    """
    bits = _check.bits(bits, 1, 8, "compare")
    if sample is not None and (isinstance(sample, bool) or not isinstance(sample, int) or sample < 1):
        raise ValueError(f"sample must be a positive int or None, got {sample!r}")
    names = [name for name in tensors if fnmatchcase(name, pattern)]
    if not names:
        raise ValueError(f"no tensor matches {pattern!r}; there are {_some(list(tensors))}")
    done = Tables({}, {})
    for name in progress(names):
        try:
            x = tensors[name]
            if x.is_meta:
                raise ValueError("it is on the meta device, where tensors have no values")
            if x.layout != torch.strided or x.is_nested:
                layout = "nested" if x.is_nested else x.layout
                raise TypeError(f"its layout is {layout}; give a dense tensor, as x.to_dense() makes it")
            if x.is_floating_point() and x.dtype.itemsize == 1:
                x = x.float()  # torch computes nothing in FP8
            done.tables[name] = compare(_sampled(x, sample), methods, bits=bits, range=range)
            done.numel[name] = x.numel()
        except (TypeError, ValueError) as error:
            done.skipped[name] = str(error)
    if not done.tables:
        name, reason = next(iter(done.skipped.items()))
        which = "" if len(names) == 1 else f"none of {len(names)} tensors can be compared; "
        raise ValueError(f"{which}{name}: {reason}")
    return done


def _sampled(x: Tensor, n: int | None) -> Tensor:
    """Return x, or n of its values drawn with replacement by a generator of a fixed seed."""
    if n is None or x.numel() <= n:
        return x
    at = torch.randint(x.numel(), (n,), generator=torch.Generator().manual_seed(0))
    return x.detach().flatten()[at.to(x.device)]


def _some(names: list[str], most: int = 20) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more
