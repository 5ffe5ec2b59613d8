"""Table: figures as text, with the numbers behind it, before anything draws it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qviz.measure.compare import HEADERS, Comparison


@dataclass(frozen=True)
class Table:
    """A table of text, with the numbers behind it.

    Attributes:
        headers: The names of all columns; the first column names the rows.
        rows: One tuple of texts per row, as long as the headers.
        roles: The role of each row, for its swatch; empty for a table without swatches.
        values: The same as plain numbers, {row: {column: value}}, ready for strict JSON.
        notes: What one should know to read the figures, a line each, below the table.
        opens: The label of a list whose options are the rows' names: a row that is clicked sets it; "" where
            rows are only read.
        opened: The name that the list has at present.

    Raises:
        ValueError: A row has another length than the headers, or the roles have another than the rows.
    """

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    roles: tuple[str, ...] = ()
    values: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    opens: str = ""
    opened: str = ""

    def __post_init__(self) -> None:
        """Refuse what is not a table."""
        lengths = {len(row) for row in self.rows} - {len(self.headers)}
        if lengths:
            raise ValueError(f"every row needs {len(self.headers)} cells, got rows of {sorted(lengths)}")
        if self.roles and len(self.roles) != len(self.rows):
            raise ValueError(f"{len(self.rows)} rows need as many roles, got {len(self.roles)}")

    @classmethod
    def of(cls, comparison: Comparison, roles: tuple[str, ...] = ()) -> Table:
        """Return the table of a comparison, with its notes."""
        figures = tuple(comparison.cells()), roles, comparison.to_dict()
        return cls(tuple(HEADERS), *figures, tuple(comparison.notes()))

    @property
    def text(self) -> str:
        """One sentence per row, and the notes."""
        said = []
        for name, *cells in self.rows:
            columns = zip(self.headers[1:], cells, strict=True)
            said.append(f"{name}: " + ", ".join(f"{header} {cell}" for header, cell in columns) + ".")
        return " ".join([*said, *(f"{note}." for note in self.notes)])
