"""LSQ: Esser et al., "Learned Step Size Quantization", ICLR 2020, arXiv:1902.08153, and LSQ+, 2004.09576.

With u = x / s, n and p the lowest and the highest level, N the number of values that share the step:

    forward   y = s round(clip(u, n, p))                                   equations (1), (2)
    backward  dy/dx = 1 where n <= u <= p, else 0
              dy/ds = round(u) - u inside, n below, p above                equation (3)
              the step's gradient is multiplied by 1 / sqrt(N p)           section 2.2
    start     s = 2 mean|x| / sqrt(p)                                      section 2.1

LSQ+ (Bhalgat et al., CVPR Workshops 2020) adds an offset o: u = (x - o) / s, y = o + s round(...), and
dy/do = 1 outside the range, 0 inside.

The paper counts N by weights or features of a layer; released code, followed here, by all values of the
tensor. The min-max start of LSQ+ is this project's choice; the paper searches for the least squared error.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from qviz.core.codebook import Codebook
from qviz.core.grids import uniform
from qviz.core.learned import LearnedRange, positive, scale_gradient
from qviz.core.quantizer import Quantizer
from qviz.core.range import search_rows
from qviz.core.recipe import recipe
from qviz.methods.method import Method, outputs


class LearnedStep(LearnedRange):
    """One positive step per tensor or per channel, learned with the LSQ gradient scale.

    u = x / step. The gradient that reaches ``step`` is multiplied by 1 / sqrt(n qmax), n the number of values
    that share the step (with the batch, as released code has it).

    Args:
        qmax: largest level of the codebook that this range feeds.
        init: starting step(s) > 0; default: ``observe``.
        start: what ``observe`` does: "lsq" sets 2 mean|x| / sqrt(qmax) as the paper has it, "mse" searches
            the step with the least squared error.
        channels: number of channels, or None. axis: their axis.

    Raises:
        ValueError: qmax or init is not positive; an unknown start.

    References:
        Esser et al., "Learned Step Size Quantization", ICLR 2020, arXiv:1902.08153, sections 2.1 and 2.2.
    """

    starts: ClassVar[tuple[str, ...]] = ("lsq", "mse")
    magnitudes = ("step",)

    def __init__(
        self,
        qmax: float,
        init: float | Tensor | None = None,
        *,
        start: str = "lsq",
        channels: int | None = None,
        axis: int = 0,
    ) -> None:
        super().__init__(channels, axis)
        if not qmax > 0:
            raise ValueError(f"qmax must be positive, got {qmax}")
        if start not in self.starts:
            raise ValueError(f"start must be one of {', '.join(self.starts)}, got {start!r}")
        self.qmax, self.start = float(qmax), start
        self.step = self._parameter(init)

    def _scale(self) -> Tensor:
        return positive(self.step)

    def _factor(self, x: Tensor) -> float:
        return 1.0 / math.sqrt(x.numel() * self.replicas / (self.channels or 1) * self.qmax)

    def values(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the step with its scaled gradient."""
        return scale_gradient(self._scale(), self._factor(x)), None

    def _fit(self, rows: Tensor, codebook: Codebook, borders: Tensor | None) -> tuple[Tensor, None]:
        if self.start == "mse":
            return search_rows(rows, codebook, borders), None
        return 2.0 * rows.abs().mean(1) / math.sqrt(self.qmax), None

    @torch.no_grad()
    def _set(self, scale: Tensor, offset: Tensor | None) -> None:
        self.step.copy_(scale)


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
def lsq(
    bits: int,
    *,
    signed: bool = True,
    step: float | Tensor | None = None,
    start: str = "lsq",
    channels: int | None = None,
    axis: int = 0,
) -> Quantizer:
    """LSQ: uniform levels, a learned step with scaled gradient.

    d y / d s is level - u inside, the end level outside, times 1 / sqrt(n qmax).

    Args:
        bits: 1 to 8.
        signed: Whether the grid has negative levels.
        step: Starting step(s) > 0 in the unit of x; default: ``observe``.
        start: What ``observe`` does: "lsq" sets 2 mean|x| / sqrt(qmax), "mse" searches the least squared
            error.
        channels: Number of channels with a step each; None for one step in all.
        axis: The axis of the channels.

    Raises:
        ValueError: Bits are out of range, a step is not positive, or start is unknown.

    References:
        Esser et al., ICLR 2020, arXiv:1902.08153, equations (1) to (3). The paper counts n by weights or
        features of a layer, released code (followed here) by all values of the tensor.

    Example:
        >>> lsq(2, step=0.5)(torch.tensor([-9.0, 0.3, 0.9])).tolist()
        [-1.0, 0.5, 0.5]
    """
    book = uniform(bits, signed=signed)
    return Quantizer(book, range=LearnedStep(book.hi, step, start=start, channels=channels, axis=axis))


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


def _weight(bits: int, layer: nn.Module, **options: Any) -> Quantizer:
    return lsq(bits, **options)


def _act(bits: int, layer: nn.Module, signed: bool, **options: Any) -> Quantizer:
    return lsq(bits, signed=signed, **options)


def _act_plus(bits: int, layer: nn.Module, signed: bool, **options: Any) -> Quantizer:
    return lsq_plus(bits, signed=signed, **{"start": "mse", **options})


def per_channel(bits: int, layer: nn.Module, **options: Any) -> Quantizer:
    """Return LSQ for a layer's weight with one step per output channel."""
    return lsq(bits, channels=outputs(layer), **options)


METHOD = Method(_weight, _act)
"""One learned step a layer for weights and for inputs."""

PLUS = Method(_weight, _act_plus)
"""LSQ for weights, LSQ+ with an error-minimizing start for inputs."""
