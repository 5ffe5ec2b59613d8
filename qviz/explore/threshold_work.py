"""Threshold work: what a quantizer of N2UQ does with the values, and what one looks at."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from qviz.core.probe import Probe, probe
from qviz.core.quantizer import Quantizer
from qviz.core.rounding import Stochastic
from qviz.core.summary import Summary
from qviz.explore.drift import values
from qviz.explore.tensors import Source
from qviz.measure import metrics
from qviz.methods.n2uq import n2uq_activation
from qviz.plot.panels import limits

LOSSES = ("mean of y", "squared error")
WINDOW = 0.2
"""Half the window of the difference quotient, in equal widths."""


@dataclass(frozen=True, eq=False)
class Work:
    """What a quantizer does with the values, as far as it does not depend on what one looks at.

    Attributes:
        q: The quantizer, in float64.
        data: The values.
        scale: Its input scale s.
        loss: One of :data:`LOSSES`.
    """

    q: Quantizer
    data: Summary
    scale: float
    loss: str

    @property
    def unit(self) -> float:
        """The distance D of two levels."""
        return float(self.q.levels[1])

    @cached_property
    def knots(self) -> np.ndarray:
        """The ends of the segments, in units of v."""
        return self.q.codebook.knots.detach().numpy()

    @cached_property
    def thresholds(self) -> np.ndarray:
        """The thresholds, in units of x."""
        return self.q.codebook.borders.detach().numpy() / self.scale

    @cached_property
    def counts(self) -> np.ndarray:
        """How many values get each code."""
        return metrics.occupancy(self.q, self.data.x).numpy()

    def _loss(self) -> Tensor:
        y = self.q(self.data.x)
        return y.mean() if self.loss == LOSSES[0] else (y - self.scale * self.data.x).square().mean()

    def value(self) -> float:
        """Return the loss: the mean of y, or the mean of (y - v)²."""
        with torch.no_grad():
            return float(self._loss())

    @cached_property
    def gradient(self) -> np.ndarray:
        """The derivative of the loss by each width, as the backward pass has it."""
        (found,) = torch.autograd.grad(self._loss(), self.q.codebook.widths)
        return found.numpy()

    @cached_property
    def quotient(self) -> np.ndarray:
        """The difference quotient of the loss by each width: what the rounded outputs really do."""
        half, size = WINDOW * self.unit, self.q.codebook.widths
        found = []
        with torch.no_grad():
            for j, a in enumerate(size.tolist()):
                low = max(a - half, 0.5 * a)
                size[j] = a + half
                above = self.value()
                size[j] = low
                found.append((above - self.value()) / (a + half - low))
                size[j] = a
        return np.array(found)

    @cached_property
    def slope(self) -> np.ndarray:
        """The slope dy/dx in each segment, as the backward pass has it."""
        middle = torch.from_numpy((self.knots[1:] + self.knots[:-1]) / 2 / self.scale)
        return probe(self.q, middle).dydx.numpy()

    def expectation(self, at: np.ndarray) -> np.ndarray:
        """Return what the backward pass takes for the output: the expectation of random rounding."""
        soft = Quantizer(self.q.codebook, range=self.q.range, soft=True)
        with torch.no_grad():
            return soft(torch.from_numpy(at)).numpy()

    def drawn(self, at: np.ndarray, draws: int) -> np.ndarray:
        """Return the mean of some random roundings at each place."""
        dice = Stochastic(torch.Generator().manual_seed(0))
        random = Quantizer(self.q.codebook, dice, range=self.q.range)
        with torch.no_grad():
            return random(torch.from_numpy(at).expand(draws, -1).contiguous()).mean(0).numpy()


@lru_cache(maxsize=8)
def work(source: Source, bits: int, begin: float, widths: tuple[float, ...], scale: float, loss: str) -> Work:
    """Return the work of the method's quantizer with these parameters; the last ones are kept."""
    q = n2uq_activation(bits, start=begin, widths=widths).double()
    with torch.no_grad():
        q.range.scale_in.fill_(scale)
        q.codebook.start.fill_(begin)
        q.codebook.widths.copy_(torch.tensor(widths, dtype=torch.float64))
    return Work(q, values(source), scale, loss)


def shown(source: Source) -> tuple[float, float]:
    """Return the ends of an axis: zero and the values, but not the far end of a long tail."""
    data = values(source)
    low, high = limits(data)
    tail = float(data.rows.flatten()[int(0.995 * (data.numel - 1))])
    high = min(high, 1.25 * tail) if tail > 0 else high
    return min(low, -0.02 * high if high > 0 else low), max(high, -0.02 * low)


@dataclass(frozen=True, eq=False)
class Bench:
    """A quantizer at work, and what one looks at.

    Attributes:
        work: What it does with the values.
        x: The one number that is followed.
        chosen: The index of the chosen threshold.
        draws: How often each place is rounded at random.
        ends: The ends of the x axis.
    """

    work: Work
    x: float
    chosen: int
    draws: int
    ends: tuple[float, float]

    @property
    def visible(self) -> np.ndarray:
        """Which thresholds are on the axis."""
        return (self.work.thresholds >= self.ends[0]) & (self.work.thresholds <= self.ends[1])

    @property
    def outer(self) -> np.ndarray:
        """Which of the first and the last end of the segments are on the axis."""
        at = self.work.knots[[0, -1]] / self.work.scale
        return (at >= self.ends[0]) & (at <= self.ends[1])

    @cached_property
    def number(self) -> Probe:
        """Everything that happens to the one number."""
        return probe(self.work.q, torch.tensor([self.x], dtype=torch.float64))
