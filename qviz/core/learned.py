"""Learned ranges: steps, clips and bounds that training moves, each with its paper's gradient."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from qviz.core import _check
from qviz.core.codebook import Codebook, keep_float64
from qviz.core.range import Range, radius, search_scale
from qviz.core.summary import Summary

TINY = torch.finfo(torch.float32).eps
"""Learned scales stay above this."""


class LearnedRange(Range):
    """A range whose numbers are float32 parameters, one each or one per channel.

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
        """Set the parameters from data, in place (an optimiser that holds them goes on working)."""
        _check.axis(self.axis, _check.float_tensor(x), self.channels)
        super().observe(x, codebook, borders)
        self._ready = True
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._ready |= any(prefix + name in state_dict for name in self._parameters)


def scale_gradient(p: Tensor, factor: float) -> Tensor:
    """Return p, bit for bit, with its gradient multiplied by ``factor``."""
    return p.detach() + (p - p.detach()) * factor


class LearnedStep(LearnedRange):
    """One positive step per tensor or per channel, learned with the LSQ gradient scale.

    u = x / step. The gradient that reaches ``step`` is multiplied by 1 / sqrt(n qmax), n the number of values
    that share the step (with the batch, as released code has it).

    Args:
        qmax: largest level of the codebook that this range feeds.
        init: starting step(s) > 0; default: ``observe`` sets 2 mean|x| / sqrt(qmax).
        channels: number of channels, or None. axis: their axis.

    Raises:
        ValueError: qmax or init is not positive.

    References:
        Esser et al., "Learned Step Size Quantization", ICLR 2020, arXiv:1902.08153, sections 2.1 and 2.2.
    """

    def __init__(
        self,
        qmax: float,
        init: float | Tensor | None = None,
        *,
        channels: int | None = None,
        axis: int = 0,
    ) -> None:
        super().__init__(channels, axis)
        if not qmax > 0:
            raise ValueError(f"qmax must be positive, got {qmax}")
        self.qmax = float(qmax)
        self.step = self._parameter(init)

    def _scale(self) -> Tensor:
        return self.step.abs().clamp(min=TINY)

    def _factor(self, x: Tensor) -> float:
        return 1.0 / math.sqrt(x.numel() * self.replicas / (self.channels or 1) * self.qmax)

    def values(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the step with its scaled gradient."""
        return scale_gradient(self._scale(), self._factor(x)), None

    def _fit(self, rows: Tensor, codebook: Codebook, borders: Tensor | None) -> tuple[Tensor, None]:
        return 2.0 * rows.abs().mean(1) / math.sqrt(self.qmax), None

    @torch.no_grad()
    def _set(self, scale: Tensor, offset: Tensor | None) -> None:
        self.step.copy_(scale)


class LearnedAffine(LearnedStep):
    """A learned step and a learned offset (LSQ+), both with the LSQ gradient scale.

    u = (x - shift) / step. Without ``init``, ``observe`` puts minimum and maximum on the end knots.

    Args:
        qmax: as in :class:`LearnedStep`.
        init: starting step(s). shift: starting offset(s), used with ``init``.
        channels: number of channels, or None. axis: their axis.

    References:
        Bhalgat et al., "LSQ+", CVPR Workshops 2020, arXiv:2004.09576. Gradients as in the code of
        ZouJiu1/LSQplus: d y / d offset is 1 outside the range and 0 inside. The min-max start is this
        project's choice (the paper searches for the least squared error).
    """

    def __init__(
        self,
        qmax: float,
        init: float | Tensor | None = None,
        shift: float | Tensor = 0.0,
        *,
        channels: int | None = None,
        axis: int = 0,
    ) -> None:
        super().__init__(qmax, init, channels=channels, axis=axis)
        ready = self._ready
        self.shift = self._parameter(shift, positive=False)
        self._ready = ready

    def _offset(self) -> Tensor:
        return self.shift

    def values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return step and offset with their scaled gradients."""
        return scale_gradient(self._scale(), self._factor(x)), scale_gradient(self.shift, self._factor(x))

    def _fit(self, rows: Tensor, codebook: Codebook, borders: Tensor | None) -> tuple[Tensor, Tensor]:
        scale = (rows.amax(1) - rows.amin(1)) / max(codebook.hi - codebook.lo, 1.0)
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        return scale, rows.amin(1) - scale * codebook.lo

    @torch.no_grad()
    def _set(self, scale: Tensor, offset: Tensor) -> None:
        self.step.copy_(scale)
        self.shift.copy_(offset.reshape(self.shift.shape))


class LearnedClip(LearnedRange):
    """A learned clip α: the outermost knot lies at α.

    Args:
        reach: the outermost knot, in units of u; scale = α / reach.
        init: starting clip(s) > 0; default: ``observe``.
        start: what ``observe`` does: "mse" searches the clip with the least squared error, "quantile" takes
            the 0.99 quantile of |x| (ASQ's code), "max" the largest |x|.
        through: "hard", the clip sees the rounding error too (POST, APoT); "soft", it sees only what is cut
            off (PACT: dy/dα = 1 above the clip and 0 inside).
        normalise: multiply the gradient by 1 / sqrt(n), n the values that share the clip (POST).
        channels: number of channels, or None. axis: their axis.

    Raises:
        ValueError: an unknown start, or init not positive.

    References:
        Choi et al., "PACT", 2018, arXiv:1805.06085, section 3. Li et al., "APoT", ICLR 2020,
        arXiv:1909.13144, section 2.3. Zhou et al. (ASQ), arXiv:2504.17263, released code post.py; the lower
        bound on α is added here.
    """

    def __init__(
        self,
        reach: float = 1.0,
        init: float | Tensor | None = None,
        *,
        start: str = "mse",
        through: str = "hard",
        normalise: bool = False,
        channels: int | None = None,
        axis: int = 0,
    ) -> None:
        super().__init__(channels, axis)
        if start not in ("mse", "quantile", "max"):
            raise ValueError(f'start must be "mse", "quantile" or "max", got {start!r}')
        if not 0 < reach < math.inf:
            raise ValueError(f"reach must be positive and finite, got {reach}")
        self.reach, self.start, self.through, self.normalise = (
            float(reach),
            start,
            through,
            normalise,
        )
        self.clip = self._parameter(init)

    def _scale(self) -> Tensor:
        return self.clip.abs().clamp(min=TINY) / self.reach

    def values(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return clip / reach, its gradient scaled where asked for."""
        if not self.normalise:
            return self._scale(), None
        factor = 1.0 / math.sqrt(x.numel() * self.replicas / (self.channels or 1))
        return scale_gradient(self._scale(), factor), None

    def _fit(self, rows: Tensor, codebook: Codebook, borders: Tensor | None) -> tuple[Tensor, None]:
        if self.start == "mse":
            return search_scale(Summary.of_rows(rows), codebook, borders), None
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


class LearnedBounds(LearnedRange):
    """DAQ's learned bounds: u = R (x - l) / (u_b - l), and no multiplication on the way out.

    Args:
        top: R, the last knot; the knots are 0 … R.
        signed: learn both bounds; False fixes the lower one at 0 (post-ReLU activations).
        spread: ``observe`` sets mean ± spread standard deviations when ``centred``, else 0 ± spread of them.
        centred: see spread; weights yes, activations no.
        init: (lower, upper) to start from.

    Raises:
        ValueError: lower >= upper.

    References:
        Kim, Lee and Ham, "Distance-aware Quantization", ICCV 2021, arXiv:2108.06983, equation (1) and
        released code.
    """

    rescale = False

    def __init__(
        self,
        top: int,
        *,
        signed: bool = True,
        spread: float = 3.0,
        centred: bool = True,
        init: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        if init is not None and not -math.inf < init[0] < init[1] < math.inf:
            raise ValueError(
                f"bounds must be finite, the lower one below the upper, got {init[0]} and {init[1]}"
            )
        if init is not None and not signed and init[0] != 0:
            raise ValueError(f"an unsigned range has the lower bound 0, got {init[0]}")
        self.top, self.signed, self.spread, self.centred = (
            int(top),
            signed,
            float(spread),
            centred,
        )
        low, high = init if init is not None else (-1.0 if signed else 0.0, 1.0)
        self.upper = nn.Parameter(torch.tensor(float(high)))
        if signed:
            self.lower = nn.Parameter(torch.tensor(float(low)))
        else:
            self.register_buffer("lower", torch.zeros(()))
        self._ready = init is not None

    def _scale(self) -> Tensor:
        return (self.upper - self.lower).clamp(min=TINY) / self.top

    def _offset(self) -> Tensor | None:
        return self.lower if self.signed else None

    def _fit(self, rows: Tensor, codebook: Codebook, borders: Tensor | None) -> tuple[Tensor, Tensor]:
        mean, std = rows.mean(1), rows.std(1) if rows.shape[1] > 1 else torch.zeros_like(rows[:, 0])
        half = self.spread * torch.where(std > 0, std, torch.ones_like(std))  # a constant: any width will do
        low = (mean if self.centred else 0.0 * mean) - half if self.signed else torch.zeros_like(mean)
        high = (mean if self.centred else 0.0 * mean) + half
        return (high - low) / self.top, low

    @torch.no_grad()
    def _set(self, scale: Tensor, offset: Tensor) -> None:
        self.lower.copy_(offset.reshape(()))
        self.upper.copy_((offset + scale * self.top).reshape(()))


class AdaptiveStep(LearnedStep):
    """ASQ's step: s β(x), where a small network reads the sample and answers with one positive number.

    β = head(features), features = the mean over all positions of each channel; two linear layers C → C // 4
    → 1 with ReLU between and after (one layer for C < 8), and a floor of 1e-8. It starts near 1. The
    gradient of s is scaled as in LSQ, that of β is not; x gets a gradient through β as well.

    Args:
        qmax: largest level of the codebook.
        channels: C, the length of axis 1 of x.
        mode: "paper" ends in ReLU and the floor (where the sum is negative β stands still: a dead zone);
            "softplus" ends in softplus, which is 1 at the start too and has no dead zone (this project's
            addition).
        init: starting step > 0.

    Shapes:
        x: (N, C), (N, C, L), (N, C, H, W) …; the scale is (N, 1, 1, 1) accordingly.

    Raises:
        ValueError: unknown mode; x without a batch axis or with another C.

    References:
        Zhou et al., "Precision Neural Network Quantization via Learnable Adaptive Modules" (ASQ), 2025,
        arXiv:2504.17263, released code asq.py. The output is code * s β, as the code has it; a published
        review prints code * s.
    """

    def __init__(
        self,
        qmax: float,
        channels: int,
        *,
        mode: str = "paper",
        init: float | Tensor | None = None,
    ) -> None:
        super().__init__(qmax, init)
        if mode not in ("paper", "softplus"):
            raise ValueError(f'mode must be "paper" or "softplus", got {mode!r}')
        if channels < 1:
            raise ValueError(f"channels must be positive, got {channels}")
        self.inputs, self.mode = channels, mode
        last = nn.Linear(channels // 4 if channels >= 8 else channels, 1)
        nn.init.normal_(last.weight, std=0.01)
        nn.init.constant_(last.bias, 1.0 if mode == "paper" else math.log(math.e - 1.0))
        head = [nn.Linear(channels, channels // 4), nn.ReLU()] if channels >= 8 else []
        self.adapter = nn.Sequential(*head, last)

    reads_input = True

    def beta(self, x: Tensor) -> Tensor:
        """Return β for each sample, shape (N, 1, …, 1) with the axes of x."""
        if x.ndim < 2 or x.shape[1] != self.inputs:
            raise ValueError(f"x must be (N, {self.inputs}, ...), got shape {tuple(x.shape)}")
        pooled = x.flatten(2).mean(2) if x.ndim > 2 else x
        z = self.adapter(pooled.to(self.adapter[-1].weight.dtype))
        b = (torch.relu(z) if self.mode == "paper" else nn.functional.softplus(z)).clamp(min=1e-8)
        return b.view(-1, *(1,) * (x.ndim - 1))

    def values(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return s β, one for each sample."""
        s, _ = super().values(x)
        return s * self.beta(x), None


class InOutScale(LearnedRange):
    """N2UQ's two scales: u = scale_in * x going in, and scale_out times the level going out.

    References:
        Liu et al., "Nonuniform-to-Uniform Quantization", CVPR 2022, arXiv:2111.14826, released code.
    """

    rescale = False

    def __init__(self) -> None:
        super().__init__()
        self.scale_in = nn.Parameter(torch.ones(()))
        self.scale_out = nn.Parameter(torch.ones(()))
        self._ready = True

    def _scale(self) -> Tensor:
        return self.scale_in.reciprocal()

    @property
    def gain(self) -> Tensor:
        """The scale of the output."""
        return self.scale_out

    def observe(self, x: Tensor, codebook: Codebook, borders: Tensor | None = None) -> InOutScale:
        """Return self; both scales start at 1, as in the released code."""
        return self


class TanhRange(Range):
    """DoReFa's weight transform: z = tanh(w) / max|tanh(w)| in [-1, 1], divided evenly into n steps.

    Args:
        top: n = 2^b - 1.

    References:
        Zhou et al., "DoReFa-Net", 2016, arXiv:1606.06160, equation (9).
    """

    def __init__(self, top: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(2.0 / top, dtype=torch.float64))
        self.register_buffer("offset", torch.tensor(-1.0, dtype=torch.float64))

    _apply = keep_float64

    @property
    def calibrated(self) -> bool:
        """True: there is nothing to calibrate."""
        return True

    def observe(self, x: Tensor, codebook: Codebook, borders: Tensor | None = None) -> TanhRange:
        """Return self."""
        return self

    def values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return 2 / n and -1."""
        return self.scale, self.offset

    def transform(self, x: Tensor) -> Tensor:
        """Return tanh(x) / max|tanh(x)|; zeros stay zeros."""
        z = torch.tanh(x)
        top = z.abs().max()
        return z / torch.where(top > 0, top, torch.ones_like(top))
