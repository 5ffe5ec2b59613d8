"""Descent: where a surrogate's gradient takes a number."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from qviz.core import _check
from qviz.core.codebook import Codebook
from qviz.core.quantizer import Quantizer


@torch.no_grad()
def descend(
    q: Quantizer, x: Tensor | np.ndarray, target: float, *, steps: int = 30, rate: float = 0.1
) -> Tensor:
    """Move numbers by gradient descent on (Q(x) - target)² / 2, each for itself: the smallest training.

    x ← x - rate · (Q(x) - target) · dQ/dx, with the surrogate's slope for dQ/dx. The same as a loop with
    autograd (a test holds the two together), at a fraction of its time.

    Args:
        q: A calibrated quantizer with one scale and a rounding that is not random.
        x: Where the numbers start, shape (n,), finite.
        target: What Q(x) should be.
        steps: The number of steps, >= 0.
        rate: The learning rate.

    Returns:
        Where the numbers are before and after each step, float64, shape (steps + 1, n).

    Raises:
        TypeError, ValueError: x is not floating point, empty, NaN or infinite; there are several scales; the
            output is in another unit than x; the rounding is random.

    Example:
        >>> from qviz import Fixed, recipes
        >>> start = torch.tensor([1.2, 3.4])  # inside the grid 0 … 3, and outside
        >>> for clipped in (True, False):
        ...     q = recipes.ste(2, signed=False, clipped=clipped, range=Fixed(1.0))
        ...     [round(v, 2) for v in descend(q, start, 2.0, steps=20)[-1].tolist()]
        [1.5, 3.4]
        [1.5, 2.4]
    """
    surrogate, opened = q.surrogate, q.codebook.open
    borders = q.rounding.borders(q.codebook)
    if borders is None:
        raise ValueError("a random rounding, or one by elements, has no one path")
    if not q.range.rescale:
        raise ValueError("the output is in another unit than x")
    x = _check.finite(_check.float_tensor(x)).detach().double().flatten()
    if q.range.scale is None or q.range.scale.numel() != 1:
        raise ValueError(f"one scale is needed, got {q.range.scale}")
    scale, offset = (None if p is None else p.double().flatten() for p in q.range(x))
    book = Codebook(q.codebook.knots, q.codebook.levels)  # a learned one would make its knots at each step
    book.open, knots, levels = opened, book.knots, book.levels
    low, high = knots[0], knots[-1]
    gaps = levels.diff() / knots.diff()
    path = [x]
    for _ in range(steps):
        u = x / scale if offset is None else (x - offset) / scale
        cell, t = book.locate(u)
        inside = (u > low if opened else u >= low) & (u <= high)
        slope = torch.where(inside, surrogate.slope(t) * gaps[cell], 0.0 if surrogate.clipped else 1.0)
        value = book.emit(cell, surrogate.relax(t)) if q.soft else levels[torch.bucketize(u, borders)]
        y = value * scale if offset is None else value * scale + offset
        x = x - rate * (y - target) * slope
        path.append(x)
    return torch.stack(path)
