"""ASQ and POST: Zhou et al., "Precision Neural Network Quantization via Learnable Adaptive Modules", 2025,
arXiv:2504.17263.

Activations, ASQ: a small network reads each sample's channel means and answers with one factor β > 0, so that
every sample n has its own step s β[n]; with p = 2^b - 1:

    forward   y = s β round(clip(x / (s β), 0, p))
    backward  δ = round(v) - v inside, 0 below, p above, for v = x / (s β);  G[n] = Σ g δ over sample n
              dL/ds = Σ_n β[n] G[n] / sqrt(p N),  dL/dβ[n] = s G[n]  (no factor on this branch)
              dy/dx = 1 inside, else 0, and a second path through β

Weights, POST: the levels {0, ±2^(-j/2)} (POT: {0, ±2^-j}) under a clip α per output channel:

    forward   y = α nearest(clip(w / α, -1, 1)), nearest in the linear domain
    backward  dy/dw = 1 inside, else 0;  dy/dα = level - w / α inside, sign(w) outside; α's times 1 / sqrt(N)

Released code, followed here: asq.py, post.py. As shipped its base is 2 (POT); sqrt(2) stands in a comment,
and in the text. A published review prints the output as code * s; the code has code * s β.

INFERRED: the strict grid of 2^b - 1 levels (the code's, ``grid="paper"``, has 2^b + 1) and the least-error
start of α (the code's is ``start="quantile"``) as defaults. ``mode="softplus"`` is this project's remedy for
the dead zone of the released ReLU.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from qviz.core.codebook import Codebook
from qviz.core.grids import Grid, post, pot, uniform
from qviz.core.learned import LearnedClip
from qviz.core.quantizer import Quantizer
from qviz.core.recipe import recipe
from qviz.methods.lsq import LearnedStep, lsq, per_channel
from qviz.methods.method import Method, inputs, outputs


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


@recipe
def asq_activation(bits: int, channels: int, *, mode: str = "paper", step: float | None = None) -> Quantizer:
    """ASQ: unsigned uniform levels, step s β(x) with β from a small network that reads the sample.

    ``mode="softplus"`` is this project's remedy for the dead zone of the released ReLU.

    Args:
        bits: 1 to 8.
        channels: The length of axis 1 of x.
        mode: "paper" or "softplus", how the network ends; see :class:`AdaptiveStep`.
        step: The step s to start with, > 0, in the unit of x; default: ``observe``.

    Raises:
        ValueError: Bits are out of range, the mode is unknown, or step or channels are not positive.

    References:
        Zhou et al., 2025, arXiv:2504.17263, released code asq.py; a published review prints the output as
        code * s, the code (followed here) has code * s β.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> q = asq_activation(3, 2, step=0.25)
        >>> q.range.beta(torch.ones(3, 2)).shape  # one factor a sample
        torch.Size([3, 1])
    """
    book = uniform(bits, signed=False)
    return Quantizer(book, range=AdaptiveStep(book.hi, channels, mode=mode, init=step))


@recipe
def pot_weight(
    bits: int,
    *,
    channels: int | None = None,
    axis: int = 0,
    grid: Grid = "strict",
    start: str = "mse",
    alpha: float | Tensor | None = None,
) -> Quantizer:
    """Powers of two under a learned clip α per output channel.

    d y / d α is level - u inside and the sign outside, times 1 / sqrt(n per channel).

    Args:
        bits: 2 to 8 (to 7 for the grid "paper").
        channels: Number of output channels with a clip each; None for one clip in all.
        axis: The axis of the channels.
        grid: "strict" or "paper"; see :func:`qviz.core.grids.pot`.
        start: How ``observe`` finds α: "mse", "quantile" or "max".
        alpha: Clip(s) to start with, > 0, in the unit of the weights; default: ``observe``.

    Raises:
        ValueError: Bits are out of range, grid or start is unknown, or alpha is not positive.

    References:
        Zhou et al., 2025, arXiv:2504.17263, released code post.py, which as shipped trains this grid (base
        2). The strict grid and the MSE search for α are this project's defaults (INFERRED);
        ``grid="paper"`` and ``start="quantile"`` are the code's.

    Example:
        >>> pot_weight(3, alpha=2.0)(torch.tensor([-5.0, 0.7, 1.4])).tolist()
        [-2.0, 0.5, 1.0]
    """
    return _clipped(pot(bits, grid=grid), alpha, start, channels, axis)


@recipe
def post_weight(
    bits: int,
    *,
    channels: int | None = None,
    axis: int = 0,
    grid: Grid = "strict",
    start: str = "mse",
    alpha: float | Tensor | None = None,
) -> Quantizer:
    """Powers of the square root of two under a learned clip α per output channel.

    Args:
        bits: 2 to 8 (to 7 for the grid "paper").
        channels: Number of output channels with a clip each; None for one clip in all.
        axis: The axis of the channels.
        grid: "strict" or "paper"; see :func:`qviz.core.grids.post`.
        start: How ``observe`` finds α: "mse", "quantile" or "max".
        alpha: Clip(s) to start with, > 0, in the unit of the weights; default: ``observe``.

    Raises:
        ValueError: Bits are out of range, grid or start is unknown, or alpha is not positive.

    References:
        As :func:`pot_weight`, with base sqrt(2), which the code has commented out and the text asks for.

    Example:
        >>> [round(v, 4) for v in post_weight(3, alpha=2.0)(torch.tensor([-5.0, 0.7, 1.4])).tolist()]
        [-2.0, 1.0, 1.4142]
    """
    return _clipped(post(bits, grid=grid), alpha, start, channels, axis)


def _clipped(
    book: Codebook,
    alpha: float | Tensor | None,
    start: str,
    channels: int | None,
    axis: int,
) -> Quantizer:
    return Quantizer(
        book,
        range=LearnedClip(1.0, alpha, start=start, normalize=True, channels=channels, axis=axis),
    )


def _act(bits: int, layer: nn.Module, signed: bool, **options: Any) -> Quantizer:
    return lsq(bits) if signed else asq_activation(bits, inputs(layer), **options)


def _pot(bits: int, layer: nn.Module, **options: Any) -> Quantizer:
    return pot_weight(bits, channels=outputs(layer), **options)


def _post(bits: int, layer: nn.Module, **options: Any) -> Quantizer:
    return post_weight(bits, channels=outputs(layer), **options)


METHOD = Method(per_channel, _act)
"""LSQ with one step a channel for weights (the code's ResNet-34), ASQ for inputs."""

POT = Method(_pot, _act)
"""Powers of two, a clip a channel, and ASQ: the released code as shipped."""

POST = Method(_post, _act)
"""Powers of the square root of two, a clip a channel, and ASQ, as the paper has it."""
