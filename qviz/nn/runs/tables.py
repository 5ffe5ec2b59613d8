"""Tables: rows of the ledger, trainings and post-training quantizations each in a table of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qviz.core import _text

if TYPE_CHECKING:
    from qviz.nn.runs.ledger import Row

PTQ = "PTQ"
"""The kind of the rows of post-training quantization."""

SEEN = "calibrated on training images of this network"
"""Stands at the end of a note; a table says it in a head."""

HEADS = ("method", "W bits", "A bits", "model", "data", "epochs", "seeds", "top-1 %", "paper %", "minutes")
PTQ_HEADS = (
    *("method", "W bits", "A bits", "model", "data", "training images", "iterations", "seeds", "top-1 %"),
    *("from FP", "minutes"),
)


def table(rows: list[Row], *, markdown: bool = False) -> str:
    """Return rows as an aligned text table, or in Markdown; those of kind "PTQ" in a second one."""
    trained = [_cells(row) for row in rows if row.kind != PTQ]
    quantized = [_ptq_cells(row) for row in rows if row.kind == PTQ]
    made = _text.markdown if markdown else _text.table
    tables = [made(HEADS, trained)] if trained or not quantized else []
    return "\n\n".join(tables + ([made(PTQ_HEADS, quantized)] if quantized else []))


def named(row: Row) -> str:
    """Return the name of a post-training quantization: the method and what is unusual."""
    note = row.note.removesuffix(SEEN).removesuffix(", ")
    name = row.method + (f" ({note})" if note else "")
    return name + ("" if row.first_last == "8bit" else f", first and last {row.first_last}")


def _ptq_cells(row: Row) -> list[str]:
    return [
        named(row),
        f"{row.w_bits:g}",
        f"{row.a_bits:g}",
        row.model,
        row.data,
        "–" if row.calibration is None else f"{row.calibration:,}",
        "–" if row.iterations is None else f"{row.iterations:,}",
        str(row.n_seeds),
        top1(row),
        "–" if row.fp_top1 is None else f"{row.top1_mean - row.fp_top1:+.2f}",
        _minutes(row),
    ]


def top1(row: Row) -> str:
    """Return the accuracy of a row in percent, with its spread over the seeds where there are several."""
    return f"{row.top1_mean:.2f}" + ("" if row.top1_std is None else f" ± {row.top1_std:.2f}")


def _minutes(row: Row) -> str:
    return f"{row.minutes:.0f}" if row.minutes >= 10 else f"{row.minutes:.1f}"


def _cells(row: Row) -> list[str]:
    name = row.method + (f" ({row.note})" if row.note else "")
    name += "" if row.first_last == "fp" or row.method == "fp32" else f", first and last {row.first_last}"
    return [
        name,
        f"{row.w_bits:g}",
        f"{row.a_bits:g}",
        row.model,
        row.data,
        str(row.epochs),
        str(row.n_seeds),
        top1(row),
        "–" if row.paper_top1 is None else f"{row.paper_top1:g}",
        _minutes(row),
    ]
