"""Step data: what of a tensor does not depend on where its step is, and the descents of the step."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qviz import recipes
from qviz.core.codebook import Codebook
from qviz.core.grids import uniform
from qviz.core.search import search_scale
from qviz.core.summary import Summary
from qviz.explore import photos, tensors
from qviz.explore.controls import Slide
from qviz.explore.descent import Descent
from qviz.explore.tensors import YOURS, Offer, Source
from qviz.measure import ErrorParts, error_parts

SAMPLES = 20
"""Of a tensor with more samples, ASQ is shown on as many, evenly spaced."""
LARGEST = 1e15
"""The largest value: Adam squares gradients in float32, and they grow with the square of the values."""


def offered(x: Tensor | np.ndarray | None) -> Offer:
    """Return the tensors on offer, photos among them; values too large to descend on are left out."""
    found = tensors.offered(x)
    if YOURS in found and (top := float(found[YOURS].make().abs().max())) > LARGEST:
        found = tensors.offered()
        found.problem = f"Your tensor is left out: {top:.3g} is too large to descend in float32."
    found[photos.NAME] = photos.SOURCE
    return found


@dataclass(frozen=True, eq=False)
class Curves:
    """What does not depend on where the step is.

    Attributes:
        book: The levels, in units of the step.
        best: The step with the least error.
        steps: The steps of the curves, (161,).
        parts: The error at these steps.
        begin: Where the recipe starts by itself.
    """

    book: Codebook
    best: float
    steps: np.ndarray
    parts: ErrorParts
    begin: float

    @property
    def slider(self) -> Slide:
        """The slider of the step: from a tenth of the best step to four times as much, in round numbers."""
        grain = float(f"{self.best / 50:.1g}")
        return Slide("Step", low=5 * grain, high=200 * grain, step=grain)


@functools.lru_cache(maxsize=32)
def curves(source: Source, method: str, bits: int) -> Curves:
    """Return the curves of a tensor."""
    data = tensors.summary(source)
    book = uniform(bits, signed=bool((data.rows[:, 0] < 0).any()))
    best = float(search_scale(data, book)[0])
    steps = best * np.geomspace(0.1, 8.0, 161)
    made = recipes.pact_activation(bits) if method == "PACT" else recipes.lsq(bits, signed=book.lo < 0)
    begin = float(made.observe(data.x).range.scale)
    return Curves(book, best, steps, error_parts(data, book, torch.from_numpy(steps)), begin)


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples of a tensor with one row each, in the order of their own best steps.

    Attributes:
        x: The samples, (N, C, ...).
        whole: Their summary, with a row for each.
        data: The summary of each alone.
        best: Their own best steps, (N,).
        parts: The error of each at the steps of the curves.
        mean: The mean of each.
    """

    x: Tensor
    whole: Summary
    data: tuple[Summary, ...]
    best: np.ndarray
    parts: tuple[ErrorParts, ...]
    mean: np.ndarray


@functools.lru_cache(maxsize=8)
def samples(source: Source, bits: int) -> Samples:
    """Return the samples of a tensor: all rows, or 20 of them."""
    x, about = tensors.summary(source).x, curves(source, "ASQ", bits)
    x = x[:: max(1, len(x) // SAMPLES)][:SAMPLES]
    best = search_scale(Summary(x, 0), about.book)
    order = best.argsort(stable=True)
    x, data = x[order], tuple(Summary(x[int(i)]) for i in order)
    parts = tuple(error_parts(d, about.book, torch.from_numpy(about.steps)) for d in data)
    return Samples(x, Summary(x, 0), data, best[order].numpy(), parts, x.double().flatten(1).mean(1).numpy())


@functools.lru_cache(maxsize=16)
def descent(source: Source, method: str, bits: int, step: float, decay: float) -> Descent:
    """Return a descent; those that were asked for last are kept as far as they went."""
    x = samples(source, bits).x if method == "ASQ" else tensors.summary(source).x
    return Descent(method, x, bits, step, curves(source, method, bits).best, decay)
