"""Two measures of what training a quantizer gets wrong: the quantizer gap and the gradient mismatch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from qviz.core import _check
from qviz.core.probe import probe
from qviz.core.quantizer import Quantizer
from qviz.core.range import Fixed
from qviz.core.rounding import Stochastic


@dataclass(frozen=True)
class Deviation:
    """How far two functions are apart on some data.

    Attributes:
        mean: The mean absolute difference.
        max: The largest absolute difference.
    """

    mean: float
    max: float

    @classmethod
    def of(cls, difference: Tensor) -> Deviation:
        """Return the mean and the largest size of the numbers of a tensor."""
        size = difference.detach().abs()
        return cls(float(size.mean()), float(size.max()))


def quantizer_gap(q: Quantizer, x: Tensor | np.ndarray) -> Deviation:
    """Measure the quantizer gap: |output in training - output at test time|, over x.

    Training computes what ``q`` computes: the relaxed value when it was made with ``soft=True``, else a
    level. At test time the same parts compute a level. So the gap is 0 for every quantizer that rounds in its
    forward pass, and 0 (to rounding errors) for a soft one under DAQ's temperature controller, whose soft
    argmax *is* rounding; a soft argmax at a fixed temperature has one. In units of y.

    Args:
        q: A calibrated quantizer.
        x: The data, any shape, finite; computed in float64.

    Raises:
        TypeError, ValueError: x is not floating point, empty, NaN or infinite; the rounding is random.

    References:
        The term is that of Kim, Lee and Ham, "Distance-aware Quantization", ICCV 2021, arXiv:2108.06983; its
        measure as a mean and maximum over data is this project's.

    Example:
        >>> from qviz.recipes import daq_weight, soft_argmax
        >>> x = torch.linspace(0.0, 3.0, 3001)
        >>> gap = quantizer_gap(soft_argmax(2, beta=5.0, bounds=(0.0, 3.0)), x)
        >>> round(gap.mean, 4), round(gap.max, 4)  # of levels that are 2/3 apart
        (0.0363, 0.0855)
        >>> quantizer_gap(daq_weight(2, bounds=(0.0, 3.0)), x)
        Deviation(mean=0.0, max=0.0)
    """
    x = _input(q, x)
    hard = Quantizer(q.codebook, q.rounding, q.surrogate, q.range)
    return Deviation.of(probe(q, x).y - probe(hard, x).y)


def gradient_mismatch(q: Quantizer, x: Tensor | np.ndarray, *, window: float | None = None) -> Deviation:
    """Measure the gradient mismatch: |slope of the backward pass - slope of the forward pass|, over x.

    Both are slopes of the level as a function of u (the range is held fixed), divided by the mean slope of
    the staircase, (last - first level) / (last - first knot); so the straight-through estimator's slope is 1
    on a uniform grid. The slope of the backward pass is what the surrogate hands on. That of the forward pass
    is:

    - ``window=None``: the derivative of the function that the forward pass computes, wherever it has one.
      It is 0 for a forward pass that rounds, so the mismatch is the surrogate itself: 1 for
      straight-through, 0.448 and 0.922 for DAQ with σ = 1 and 2. It is 0 for a soft forward pass with its
      own gradient. This is the complaint as the paper words it: the zero derivative of rounding is replaced.
    - a window of w cells (mean width): the difference quotient (f(u + w / 2) - f(u - w / 2)) / w, which
      sees jumps too. On a uniform grid inside its range, straight-through has 2 (1 - w) for w <= 1, so none
      at w = 1: its slope is exactly that of the staircase averaged over a step. A soft argmax at a high fixed
      temperature has almost 1: its own jump at the transition point (of the kernel, or nearly a jump) does
      not reach the gradient.

    No one number says which quantizer trains better; compare at the scale at which the data move.

    Args:
        q: A calibrated quantizer.
        x: The data, any shape, finite; computed in float64. Saturated values count as they are (0 for a
            clipped surrogate).
        window: The width of the window, > 0, in mean cells; None for the derivative.

    Raises:
        TypeError, ValueError: x is not floating point, empty, NaN or infinite; the rounding is random; one
            level alone; the window is not positive and finite.

    References:
        The term as in Kim, Lee and Ham, "Distance-aware Quantization", ICCV 2021, arXiv:2108.06983; both
        measures are this project's, and the mean slope of DAQ below is derived from the paper's equations.

    Example:
        >>> from qviz.recipes import daq_weight, soft_argmax, ste
        >>> x = (torch.arange(3000.0) + 0.5) / 1000.0
        >>> contestants = [ste(2, signed=False, range=Fixed(1.0)), daq_weight(2, bounds=(0.0, 3.0))]
        >>> contestants.append(soft_argmax(2, beta=5.0, bounds=(0.0, 3.0)))
        >>> [round(gradient_mismatch(q, x).mean, 3) for q in contestants]
        [1.0, 0.448, 0.0]
        >>> [round(gradient_mismatch(q, x, window=0.5).mean, 3) for q in contestants]
        [1.0, 0.945, 0.757]
    """
    backward, forward = slopes(q, x, window=window)
    return Deviation.of(backward - forward)


class Slopes(NamedTuple):
    """Two slopes at every x, relative to the mean slope of the staircase; each of the shape of x.

    Attributes:
        backward: What the surrogate hands on.
        forward: That of the function which the forward pass computes.
    """

    backward: Tensor
    forward: Tensor


def slopes(q: Quantizer, x: Tensor | np.ndarray, *, window: float | None = None) -> Slopes:
    """Return the two slopes that :func:`gradient_mismatch` compares, at every x.

    Args:
        q: As there.
        x: As there.
        window: As there.

    Raises:
        TypeError, ValueError: As there.

    Example:
        >>> from qviz.recipes import ste
        >>> pair = slopes(ste(2, signed=False, range=Fixed(1.0)), torch.tensor([0.2, 1.4, 3.5]))
        >>> pair.backward.tolist(), pair.forward.tolist()
        ([1.0, 1.0, 0.0], [0.0, 0.0, 0.0])
    """
    x = _input(q, x)
    book = q.codebook
    if len(book) < 2:
        raise ValueError("a codebook of one level has no slope")
    if window is not None and not 0 < window < math.inf:
        raise ValueError(f"window must be positive and finite, got {window}")
    knots, levels = book.knots.detach().double(), book.levels.double()
    width = float(knots[-1] - knots[0]) / (len(book) - 1)
    core = Quantizer(book, q.rounding, q.surrogate, Fixed(1.0), soft=q.soft)
    with torch.no_grad():
        u = q._normalize(x)[0].double()
        forward = _slope(core.reference, u, width, window)
    relative = float((knots[-1] - knots[0]) / (levels[-1] - levels[0]))
    return Slopes(probe(core, u).dydx * relative, forward * relative)


def _slope(f: Callable[[Tensor], Tensor], u: Tensor, width: float, window: float | None) -> Tensor:
    """Return the difference quotient over the window, or the derivative where there is one."""
    if window is not None:
        w = window * width
        return (f(u + w / 2) - f(u - w / 2)) / w
    h = 1e-7 * width
    here = f(u)
    right, left = (f(u + h) - here) / h, (here - f(u - h)) / h
    # at most one side meets a jump, and there it is huge; elsewhere the two agree
    return torch.where(right.abs() < left.abs(), right, left)


def _input(q: Quantizer, x: Tensor | np.ndarray) -> Tensor:
    if isinstance(q.rounding, Stochastic):
        raise ValueError("a random rounding has no one output to compare; got Stochastic")
    return _check.finite(_check.float_tensor(x)).detach().double()
