"""Clipping: how much of the squared error is cut off beyond the end levels, and how much is rounding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qviz.core.codebook import Codebook
from qviz.core.summary import Summary


@dataclass(frozen=True)
class ErrorParts:
    """The mean squared error of a codebook at some scales, in two parts; each float64, shape (S,).

    Attributes:
        clipping: The part of values beyond the end knots.
        rounding: The part of values between them.
    """

    clipping: Tensor
    rounding: Tensor

    @property
    def mse(self) -> Tensor:
        """The sum of both."""
        return self.clipping + self.rounding


def error_parts(data: Summary, codebook: Codebook, scales: Tensor) -> ErrorParts:
    """Split the mean squared error at each scale into clipping and rounding.

    Values beyond the end knots are cut off, all others are rounded to the nearest level; small scales cut
    off much, large ones round coarsely.

    Args:
        data: The summary of the tensor; all rows share a scale.
        codebook: The grid; its levels are its knots.
        scales: What x is divided by, > 0, shape (S,).

    Raises:
        ValueError: The levels of the codebook are not its knots.

    Example:
        >>> from qviz.core.grids import uniform
        >>> parts = error_parts(Summary(torch.tensor([0.25, 5.0])), uniform(2), torch.tensor([1.0, 4.0]))
        >>> parts.clipping.tolist(), parts.rounding.tolist()
        ([8.0, 0.5], [0.03125, 0.03125])
    """
    if not codebook.identity:
        raise ValueError("clipping is told from rounding where levels are knots; these levels are not")
    rows = scales.double().reshape(1, -1).expand(len(data.rows), -1)
    low, high = codebook.levels[:1], codebook.levels[-1:]
    levels = torch.cat([low, codebook.levels, high])  # the end levels twice: for what is cut off, and inside
    sse = data.sse_by_level(levels, torch.cat([low, codebook.borders, high]), rows).sum(0) / data.numel
    return ErrorParts(sse[:, 0] + sse[:, -1], sse[:, 1:-1].sum(1))
