"""Table: the figures of several methods on one tensor, as rows that print."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

HEADERS = ("method", "levels", "bits", "MSE", "SQNR dB", "entropy", "clip")


@dataclass(frozen=True)
class Row:
    """One method's figures.

    Attributes:
        method: Its name.
        levels: How many levels it has.
        bits: What one stored code needs, ceil(log2 levels).
        bits_per_value: The same with the value's part of scales and offsets, where there is more than one
            scale: 4.25 for MXFP4. The table shows it.
        mse: The mean squared error, in units of x².
        sqnr_db: The signal-to-quantization-noise ratio, in dB.
        entropy: The entropy of the codes, in bits.
        scale: What x is divided by to reach the codebook's knots; None per channel, where it depends on x,
            and for a callable. For integer knots it is the step, for knots in [-1, 1] the clip.
        clip: The knot that is farthest from 0, in units of x: what lies beyond is cut off. None like scale.
        note: What one should know to read the figures, or "".
    """

    method: str
    levels: int
    bits: int
    bits_per_value: float
    mse: float
    sqnr_db: float
    entropy: float
    scale: float | None
    clip: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """The rows of a comparison; prints as a table, with the notes below, in text and in notebooks.

    Iterating gives the rows, in the order in which the methods were given.
    """

    rows: tuple[Row, ...]

    def __iter__(self) -> Iterator[Row]:
        """Return an iterator over the rows."""
        return iter(self.rows)

    def __len__(self) -> int:
        """Number of methods."""
        return len(self.rows)

    def __getitem__(self, method: str) -> Row:
        """Return the row of a method by its name, in upper or lower case.

        Raises:
            KeyError: There is no such method.
        """
        exact = [row for row in self.rows if row.method == method]
        blind = [row for row in self.rows if row.method.casefold() == str(method).casefold()]
        if found := exact or blind:
            return found[0]
        raise KeyError(f"no method {method!r}; there are {[row.method for row in self.rows]}")

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return {method: {column: value}}, ready for strict JSON: plain numbers, None for infinite ones."""
        return {
            row.method: {name: strict(value) for name, value in asdict(row).items() if name != "method"}
            for row in self.rows
        }

    def to_frame(self) -> pandas.DataFrame:
        """Return a pandas DataFrame with one row a method, indexed by the methods' names.

        Raises:
            ImportError: pandas is not installed.
        """
        return data_frame([asdict(row) for row in self.rows], "method")

    def cells(self) -> list[tuple[str, ...]]:
        """Return the rows as text, one string a column, as every front end shows them."""
        return [
            (
                row.method,
                str(row.levels),
                f"{row.bits_per_value:.2f}".rstrip("0").rstrip("."),
                f"{row.mse:#.4g}",
                f"{row.sqnr_db:.2f}",
                f"{row.entropy:.2f}",
                "–" if row.clip is None else f"{row.clip:#.4g}",
            )
            for row in self.rows
        ]

    def notes(self) -> list[str]:
        """Return a line "method: note" for each method that has a note."""
        return [f"{row.method}: {row.note}" for row in self.rows if row.note]

    def __str__(self) -> str:
        """Align the columns for a terminal, and put the notes below."""
        return "\n".join([aligned([HEADERS, *self.cells()]), *self.notes()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Return the same table as HTML."""
        head = "".join(f'<th scope="col">{header}</th>' for header in HEADERS)
        body = "".join(
            f'<tr><th scope="row">{html.escape(name)}</th>'
            + "".join(f"<td>{v}</td>" for v in figures)
            + "</tr>"
            for name, *figures in self.cells()
        )
        notes = "".join(f"<br>{html.escape(note)}" for note in self.notes())
        foot = f'<tfoot><tr><td colspan="{len(HEADERS)}">{notes[4:]}</td></tr></tfoot>' if notes else ""
        return (
            f'<table class="qviz-compare"><thead><tr>{head}</tr></thead><tbody>{body}</tbody>{foot}</table>'
        )


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Return lines of cells as text with aligned columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    )


def strict(value: Any) -> Any:
    """Return ``value`` for strict JSON, which has no infinity and no NaN: None for those."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def data_frame(records: list[dict[str, Any]], index: str | list[str]) -> pandas.DataFrame:
    """Return records as a pandas DataFrame with an index.

    Raises:
        ImportError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as problem:
        raise ImportError("to_frame() needs pandas: pip install 'qviz-quantization[plot]'") from problem
    return pandas.DataFrame(records).set_index(index)
