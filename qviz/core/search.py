"""Search: the scale that brings data onto a codebook with the least squared error."""

from __future__ import annotations

import torch
from torch import Tensor

from qviz.core.codebook import Codebook
from qviz.core.summary import SUMS_BELOW, Summary


def search_rows(rows: Tensor, codebook: Codebook, borders: Tensor | None = None) -> Tensor:
    """Return :func:`search_scale` of rows (C, n), some rows at a time, so that little memory is needed."""
    some = max(1, SUMS_BELOW // rows.shape[1])
    return torch.cat([search_scale(Summary.of_rows(part), codebook, borders) for part in rows.split(some)])


def search_scale(summary: Summary, codebook: Codebook, borders: Tensor | None = None) -> Tensor:
    """Return the scale with the least squared error for each row of the summary, float64, shape (C,)."""
    borders = codebook.borders if borders is None else borders
    top = radius(summary.ends(), codebook).amax(1)
    top = torch.where(top > 0, top, torch.ones_like(top))
    lowest = torch.finfo(summary.rows.dtype).tiny  # the scale is used in the data's dtype
    highest = torch.finfo(summary.rows.dtype).max / max(
        codebook.reach, codebook.levels.abs().max().item(), 1.0
    )
    around, ratio = top[:, None], 2.0 ** (1 / 16)
    steps = torch.arange(-160.0, 17.0, dtype=torch.float64)
    for _ in range(4):
        scales = (around[:, :, None] * ratio**steps).flatten(1).clamp(lowest, highest)
        error = summary.sse(codebook.levels, borders, scales)
        best = error.topk(min(4, error.shape[1]), largest=False).indices  # neighbors, or other valleys
        around = scales.gather(1, best)
        ratio, steps = ratio ** (1 / 6), torch.arange(-6.0, 7.0, dtype=torch.float64)
    return around[:, 0]


def radius(rows: Tensor, codebook: Codebook) -> Tensor:
    """Return how large the scale must be for each value to fall inside the knots; >= 0."""
    radius = torch.zeros_like(rows)
    if codebook.hi > 0:
        radius = torch.maximum(radius, rows / codebook.hi)
    if codebook.lo < 0:
        radius = torch.maximum(radius, rows / codebook.lo)
    return radius
