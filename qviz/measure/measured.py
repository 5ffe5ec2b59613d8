"""Measure: the figures of a quantizer on summarised data, exact and in microseconds."""

from __future__ import annotations

import torch
from torch import Tensor

from qviz.core.quantizer import Quantizer
from qviz.core.summary import CellStats, Summary
from qviz.measure import metrics
from qviz.measure.compare import Row


def searchable(q: Quantizer) -> bool:
    """Return whether borders and one scale per row tell everything about ``q``.

    They do not where there is an offset or chance, where the output is in another unit than x (DAQ, N2UQ),
    and where the scale depends on x (ASQ).
    """
    plain = q.range.rescale and not q.range.reads_input and q.range.calibrated and q.range.offset is None
    return plain and q.rounding.borders(q.codebook) is not None


def matches(q: Quantizer, data: Summary) -> bool:
    """Return whether the channels of ``q`` are the rows of ``data`` (or it has one scale in all)."""
    if q.range.scale.numel() == 1:
        return True
    return (
        data.axis is not None
        and data.axis == q.range.axis % data.x.ndim
        and q.range.scale.numel() == len(data.rows)
    )


def cell_stats(q: Quantizer, data: Summary) -> CellStats:
    """Return count, squared error and largest error of each code, shape (K,).

    Args:
        q: a calibrated quantizer; per channel it needs a summary of the same axis.
        data: the summarised tensor.

    Raises:
        ValueError: the quantizer is not :func:`searchable`, or its channels are not the summary's.
    """
    levels, borders, scale = _searched(q, data)
    return data.cells(levels, borders, scale)


def error_counts(q: Quantizer, data: Summary, edges: Tensor) -> Tensor:
    """Count the errors Q(x) - x in each bin; int64, shape (len(edges) - 1,).

    Args:
        q: as in :func:`cell_stats`.
        data: the summarised tensor.
        edges: increasing, in units of x.
    """
    levels, borders, scale = _searched(q, data)
    return data.error_counts(levels, borders, scale, edges)


def row(name: str, q: Quantizer, data: Summary) -> Row:
    """Return the line of :func:`qviz.compare` for ``q``, from the summary alone."""
    stats = cell_stats(q, data)
    sse = float(stats.sse.sum())
    scale = q.range.scale
    return Row(
        method=name,
        levels=len(q.codebook),
        bits=q.codebook.bits,
        mse=sse / data.numel,
        sqnr_db=metrics.sqnr_from(data.energy(), sse),
        entropy=metrics.entropy_bits(stats.count),
        scale=float(scale) if scale.ndim == 0 else None,
    )


def _searched(q: Quantizer, data: Summary) -> tuple[Tensor, Tensor, Tensor]:
    if not searchable(q):
        raise ValueError("a summary cannot stand for a random rounding, an offset or an uncalibrated range")
    scale = torch.atleast_1d(q.range.scale)
    if not matches(q, data):
        raise ValueError(
            f"the quantizer has {len(scale)} channels on axis {q.range.axis}, "
            f"the summary {len(data.rows)} on axis {data.axis}"
        )
    return q.codebook.levels, q.rounding.borders(q.codebook), scale
