"""Lut numbers: the weights and activations whose dot product is computed, and the grids of both."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qviz import shipped
from qviz.core import _check, grids
from qviz.core.codebook import Codebook
from qviz.core.quantizer import Quantizer
from qviz.core.range import Fixed
from qviz.export.fold import input_table
from qviz.export.tables import InputTable

REAL, EASY = "a layer (real)", "easy numbers"
MOST = 16
"""The largest number of terms of one's own."""


@dataclass(frozen=True, eq=False)
class Numbers:
    """Weights and activations whose dot product is computed.

    Attributes:
        weights: (J,), float64.
        activations: (J,), float64.
        fit_weights: The weights that levels are fitted to; None for a scale of 1.
        fit_activations: The activations that the step is fitted to; None for a step of 1.
        about: What they are, in a sentence.
    """

    weights: np.ndarray
    activations: np.ndarray
    fit_weights: Tensor | None
    fit_activations: Tensor | None
    about: str


@functools.cache
def real() -> Numbers:
    """Return eight terms of a layer of MobileNetV2."""
    w, x = shipped.tensor("project_early").flatten(1), shipped.tensor("act_depthwise")
    some = (v.double().numpy() for v in (w[3, 1:9], x[139, 1:9]))
    about = "Inputs 2 to 9 of output 4 of a 1 × 1 convolution of MobileNetV2, at one place of an image"
    return Numbers(*some, w, x, about)


@functools.cache
def easy() -> Numbers:
    """Return powers of √2 and whole numbers, so that products come out even."""
    half = 0.5**0.5
    w = np.array([1.0, -0.5, half, 0.0, 0.25, -half / 2, 0.5, -1.0])
    x = np.array([3.0, 5.0, 2.0, 7.0, 9.0, 4.0, 1.0, 6.0])
    return Numbers(w, x, None, None, "Powers of √2 times whole numbers, with clip and step 1")


def own(w: Tensor | np.ndarray, x: Tensor | np.ndarray) -> Numbers:
    """Return one's own numbers.

    Raises:
        TypeError, ValueError: They are not finite floating-point vectors of one length from 2 to 16, or the
            weights are all alike.
    """
    w, x = (_check.finite(_check.float_tensor(v, n), n).detach() for v, n in ((w, "w"), (x, "x")))
    if w.ndim != 1 or w.shape != x.shape or not 2 <= len(w) <= MOST:
        shapes = f"{tuple(w.shape)} and {tuple(x.shape)}"
        raise ValueError(f"w and x must be vectors of one length, 2 to {MOST} numbers; got shapes {shapes}")
    if bool((w == w[0]).all()):
        raise ValueError(f"the weights must not all be alike, got {float(w[0]):.4g} in every place")
    return Numbers(
        w.double().cpu().numpy(), x.double().cpu().numpy(), w, x, f"{len(w)} numbers of yours each"
    )


@functools.lru_cache(maxsize=16)
def tables(n: Numbers, method: str, bits: int, a_bits: int) -> tuple[Quantizer, InputTable]:
    """Return the quantizer of the weights and the table of the activations, whatever is typed."""
    codes = grids.uniform(a_bits, signed=False)
    if method == "codebook":
        w = torch.from_numpy(n.weights) if n.fit_weights is None else n.fit_weights
        weight = Quantizer(grids.lloyd(w, bits), range=Fixed(1.0))
    else:
        book = {"uniform": grids.uniform, "POT": grids.pot, "POST": grids.post}[method](bits)
        weight = _fitted(book, 1.0 / book.hi, n.fit_weights)
    return weight, input_table(_fitted(codes, 1.0, n.fit_activations), 1)


def _fitted(book: Codebook, scale: float, values: Tensor | None) -> Quantizer:
    """Return a quantizer with the best scale for some values, or with a given one where there are none."""
    return Quantizer(book, range=Fixed(scale)) if values is None else Quantizer(book).observe(values)
