"""LSQ+: Bhalgat et al., "LSQ+: Improving low-bit quantization through learnable offsets and better
initialization", CVPR Workshops 2020, arXiv:2004.09576.

:mod:`LSQ <qviz.methods.lsq>` with an offset o: u = (x - o) / s, y = o + s round(clip(u, n, p)), and
dy/do = 1 outside the range, 0 inside, times LSQ's factor. The min-max start is this project's choice; the
paper searches for the least squared error.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from qviz.core.codebook import Codebook
from qviz.core.grids import uniform
from qviz.core.learned import scale_gradient
from qviz.core.quantizer import Quantizer
from qviz.core.recipe import recipe
from qviz.methods.lsq import METHOD as LSQ
from qviz.methods.lsq import LearnedStep
from qviz.methods.method import Method


class LearnedAffine(LearnedStep):
    """A learned step and a learned offset (LSQ+), both with the LSQ gradient scale.

    u = (x - shift) / step. Without ``init``, ``observe`` sets both.

    Args:
        qmax: As in :class:`LearnedStep`.
        init: Starting step(s) > 0.
        shift: Starting offset(s), used with ``init``.
        start: What ``observe`` does: "minmax" puts minimum and maximum on the end knots; "mse" also tries
        ends
            further inside, 32 x 32 of them, and takes those with the least squared error on up to 4,096
            values.
        channels: Number of channels, or None.
        axis: Their axis.

    Raises:
        ValueError: ``start`` is unknown, or ``init`` is not positive.

    References:
        Bhalgat et al., "LSQ+", CVPR Workshops 2020, arXiv:2004.09576. Gradients as in the code of
        ZouJiu1/LSQplus: d y / d offset is 1 outside the range and 0 inside. The min-max start is this
        project's choice (the paper searches for the least squared error).
    """

    starts = ("minmax", "mse")

    def __init__(
        self,
        qmax: float,
        init: float | Tensor | None = None,
        shift: float | Tensor = 0.0,
        *,
        start: str = "minmax",
        channels: int | None = None,
        axis: int = 0,
    ) -> None:
        super().__init__(qmax, init, start=start, channels=channels, axis=axis)
        ready = self._ready
        self.shift = self._parameter(shift, positive=False)
        self._ready = ready

    def _offset(self) -> Tensor:
        return self.shift

    def values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return step and offset with their scaled gradients."""
        return scale_gradient(self._scale(), self._factor(x)), scale_gradient(self.shift, self._factor(x))

    def _fit(self, rows: Tensor, codebook: Codebook, borders: Tensor | None) -> tuple[Tensor, Tensor]:
        low, high = rows.amin(1), rows.amax(1)
        if self.start == "mse":
            low, high = _least_error(rows, low, high, codebook)
        scale = (high - low) / max(codebook.hi - codebook.lo, 1.0)
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        return scale, low - scale * codebook.lo

    @torch.no_grad()
    def _set(self, scale: Tensor, offset: Tensor) -> None:
        self.step.copy_(scale)
        self.shift.copy_(offset.reshape(self.shift.shape))


def _least_error(rows: Tensor, low: Tensor, high: Tensor, codebook: Codebook) -> tuple[Tensor, Tensor]:
    """Return the ends, (C,) each, between which uniform levels have the least squared error."""
    if rows.shape[1] > 4096:  # evenly spaced order statistics, the extremes included
        at = torch.linspace(0, rows.shape[1] - 1, 4096, device=rows.device).round().long()
        rows = rows.sort(1).values[:, at]
    inside = torch.linspace(0.0, 0.9, 32, dtype=rows.dtype, device=rows.device)
    best = [low.clone(), high.clone(), torch.full_like(low, math.inf)]
    steps, width = codebook.hi - codebook.lo, high - low
    for part in inside:
        a = low + part * width
        for other in inside[inside < 1 - part]:
            b = high - other * width
            s = ((b - a) / max(steps, 1.0)).clamp(min=torch.finfo(rows.dtype).tiny)[:, None]
            y = ((rows - a[:, None]) / s).round().clamp(0, steps) * s + a[:, None]
            error = (y - rows).square().mean(1)
            better = error < best[2]
            best = [torch.where(better, new, old) for new, old in zip((a, b, error), best, strict=True)]
    return best[0], best[1]


@recipe
def lsq_plus(
    bits: int,
    *,
    signed: bool = True,
    step: float | Tensor | None = None,
    offset: float | Tensor = 0.0,
    start: str = "minmax",
    channels: int | None = None,
    axis: int = 0,
) -> Quantizer:
    """LSQ+: LSQ with a learned offset.

    d y / d offset is 1 outside the range and 0 inside, times the LSQ factor.

    Args:
        bits: 1 to 8.
        signed: Whether the grid has negative levels.
        step: Starting step(s) > 0 in the unit of x; default: ``observe`` sets step and offset.
        offset: Starting offset(s) in the unit of x, used with ``step``.
        start: What ``observe`` does, "minmax" or "mse"; see :class:`LearnedAffine`.
        channels: Number of channels with a step each; None for one step in all.
        axis: The axis of the channels.

    Raises:
        ValueError: Bits are out of range, a step is not positive, or start is unknown.

    References:
        Bhalgat et al., 2020, arXiv:2004.09576. The min-max start is this project's choice.

    Example:
        >>> q = lsq_plus(2, signed=False, step=0.5, offset=-1.0)
        >>> q(torch.tensor([-9.0, -0.7, 0.3])).tolist()
        [-1.0, -0.5, 0.5]
    """
    book = uniform(bits, signed=signed)
    return Quantizer(
        book, range=LearnedAffine(book.hi, step, offset, start=start, channels=channels, axis=axis)
    )


def _act(bits: int, layer: nn.Module, signed: bool, **options: Any) -> Quantizer:
    return lsq_plus(bits, signed=signed, **{"start": "mse", **options})


METHOD = Method(LSQ.weight, _act)
"""LSQ for weights, LSQ+ with an error-minimizing start for inputs."""
