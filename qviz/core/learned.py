"""Learned ranges: steps, clips and bounds that training moves, each with its paper's gradient."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from qviz.core import _check
from qviz.core.codebook import Codebook
from qviz.core.range import Range
from qviz.core.search import radius, search_rows

MIN_SCALE = 1e-30
"""Lower bound of learned scales, far below any data and far above the smallest float32."""


class LearnedRange(Range):
    """A range whose scale and offset are float32 parameters: one for the tensor, or one per channel.

    Args:
        channels: how many channels ``axis`` has; None for one number in all.
        axis: the channel axis; used with ``channels`` only.

    Attributes:
        replicas: number of processes that share the batch, each of which sees an equal part of x. A gradient
            that is scaled by the number of values counts those of all processes; 1 unless training sets it.

    Raises:
        ValueError: channels is not positive.
    """

    replicas: int = 1

    def __init__(self, channels: int | None = None, axis: int = 0) -> None:
        if channels is not None and channels < 1:
            raise ValueError(f"channels must be positive, got {channels}")
        super().__init__(None if channels is None else axis)
        self.channels = channels
        self._ready = False

    @property
    def calibrated(self) -> bool:
        """Whether the parameters were given, observed or loaded."""
        return self._ready

    @property
    def scale(self) -> Tensor:
        """The present scale, detached."""
        return self._scale().detach()

    @property
    def offset(self) -> Tensor | None:
        """The present offset, detached; None where there is none."""
        offset = self._offset()
        return None if offset is None else offset.detach()

    def _parameter(self, init: float | Tensor | None, *, positive: bool = True) -> nn.Parameter:
        """Return a parameter of this range's shape; ``init`` marks the range as calibrated."""
        shape = () if self.channels is None else (self.channels,)
        if init is None:
            return nn.Parameter(torch.ones(shape))
        value = torch.as_tensor(init, dtype=torch.float32).detach()
        if value.ndim > 1 or value.numel() not in (1, self.channels or 1):
            raise ValueError(
                f"init has shape {tuple(value.shape)}, which does not fit channels={self.channels}"
            )
        if not bool(torch.isfinite(value).all()) or (positive and not bool((value > 0).all())):
            raise ValueError(
                f"init must be {'positive and ' if positive else ''}finite, got {value.tolist()}"
            )
        self._ready = True
        return nn.Parameter(value.expand(shape).clone())

    def _scale(self) -> Tensor:
        raise NotImplementedError

    def _offset(self) -> Tensor | None:
        return None

    def values(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return scale and offset."""
        return self._scale(), self._offset()

    def observe(self, x: Tensor, codebook: Codebook, borders: Tensor | None = None) -> LearnedRange:
        """Set the parameters from data, in place (an optimizer that holds them goes on working)."""
        _check.axis(self.axis, _check.float_tensor(x), self.channels)
        super().observe(x, codebook, borders)
        self._ready = True
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._ready |= any(prefix + name in state_dict for name in self._parameters)


def at_least(p: Tensor) -> Tensor:
    """Return p, at least MIN_SCALE; the gradient passes as if nothing were cut off, so that p can return."""
    return torch.where(p < MIN_SCALE, MIN_SCALE + (p - p.detach()), p)


def positive(p: Tensor) -> Tensor:
    """Return |p|, at least MIN_SCALE, with the derivative 1 at 0 where that of abs is 0."""
    return at_least(torch.where(p < 0, -p, p))


def scale_gradient(p: Tensor, factor: float) -> Tensor:
    """Return p, bit for bit, with its gradient multiplied by ``factor``."""
    return p.detach() + (p - p.detach()) * factor


class LearnedClip(LearnedRange):
    """A learned clip α: the outermost knot lies at α.

    Args:
        reach: the outermost knot, in units of u; scale = α / reach.
        init: starting clip(s) > 0; default: ``observe``.
        start: what ``observe`` does: "mse" searches the clip with the least squared error, "quantile" takes
            the 0.99 quantile of |x| (ASQ's code), "max" the largest |x|.
        through: "hard", the clip sees the rounding error too (POST, APoT); "soft", it sees only what is cut
            off (PACT: dy/dα = 1 above the clip and 0 inside).
        normalize: multiply the gradient by 1 / sqrt(n), n the values that share the clip (POST).
        channels: number of channels, or None. axis: their axis.

    Raises:
        ValueError: an unknown start, or init not positive.

    References:
        Choi et al., "PACT", 2018, arXiv:1805.06085, section 3. Li et al., "APoT", ICLR 2020,
        arXiv:1909.13144, section 2.3. Zhou et al. (ASQ), arXiv:2504.17263, released code post.py; the lower
        bound on α is added here.
    """

    magnitudes = ("clip",)

    def __init__(
        self,
        reach: float = 1.0,
        init: float | Tensor | None = None,
        *,
        start: str = "mse",
        through: str = "hard",
        normalize: bool = False,
        channels: int | None = None,
        axis: int = 0,
    ) -> None:
        super().__init__(channels, axis)
        if start not in ("mse", "quantile", "max"):
            raise ValueError(f'start must be "mse", "quantile" or "max", got {start!r}')
        if not 0 < reach < math.inf:
            raise ValueError(f"reach must be positive and finite, got {reach}")
        self.reach, self.start, self.through, self.normalize = (
            float(reach),
            start,
            through,
            normalize,
        )
        self.clip = self._parameter(init)

    def _scale(self) -> Tensor:
        return positive(self.clip) / self.reach

    def values(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return clip / reach, its gradient scaled where asked for."""
        if not self.normalize:
            return self._scale(), None
        factor = 1.0 / math.sqrt(x.numel() * self.replicas / (self.channels or 1))
        return scale_gradient(self._scale(), factor), None

    def _fit(self, rows: Tensor, codebook: Codebook, borders: Tensor | None) -> tuple[Tensor, None]:
        if self.start == "mse":
            return search_rows(rows, codebook, borders), None
        if self.start == "max":
            return radius(rows, codebook).amax(1), None
        order = rows.abs().sort(1).values
        at = 0.99 * (order.shape[1] - 1)
        low, part = math.floor(at), at - math.floor(at)
        clip = order[:, low] * (1 - part) + order[:, min(low + 1, order.shape[1] - 1)] * part
        return clip / self.reach, None

    @torch.no_grad()
    def _set(self, scale: Tensor, offset: Tensor | None) -> None:
        self.clip.copy_(scale * self.reach)
