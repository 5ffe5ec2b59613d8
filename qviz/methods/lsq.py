"""LSQ: Esser et al., "Learned Step Size Quantization", ICLR 2020, arXiv:1902.08153.

With u = x / s, n and p the lowest and the highest level, N the number of values that share the step:

    forward   y = s round(clip(u, n, p))                                   equations (1), (2)
    backward  dy/dx = 1 where n <= u <= p, else 0
              dy/ds = round(u) - u inside, n below, p above                equation (3)
              the step's gradient is multiplied by 1 / sqrt(N p)           section 2.2
    start     s = 2 mean|x| / sqrt(p)                                      section 2.1

The paper counts N by weights or features of a layer; released code, followed here, by all values of the
tensor.
"""

from __future__ import annotations

import importlib
import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from qviz.core.codebook import Codebook
from qviz.core.grids import uniform
from qviz.core.learned import LearnedRange, positive, scale_gradient
from qviz.core.quantizer import Quantizer
from qviz.core.recipe import recipe
from qviz.core.search import search_rows
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


def _weight(bits: int, layer: nn.Module, **options: Any) -> Quantizer:
    return lsq(bits, **options)


def _act(bits: int, layer: nn.Module, signed: bool, **options: Any) -> Quantizer:
    return lsq(bits, signed=signed, **options)


def per_channel(bits: int, layer: nn.Module, **options: Any) -> Quantizer:
    """Return LSQ for a layer's weight with one step per output channel."""
    return lsq(bits, channels=outputs(layer), **options)


METHOD = Method(_weight, _act)
"""One learned step a layer for weights and for inputs."""


def __getattr__(name: str) -> Any:
    """Return what stood here before LSQ+ had a file of its own: networks that were pickled whole name it."""
    if name in ("LearnedAffine", "lsq_plus"):
        return getattr(importlib.import_module("qviz.methods.lsq_plus"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
