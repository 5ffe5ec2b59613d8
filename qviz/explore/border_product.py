"""Product: the error of one weight times one activation, both rounded, and its map over all of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
import torch
from torch import Tensor

from qviz.core.grids import uniform
from qviz.core.quantizer import Quantizer
from qviz.core.range import Fixed
from qviz.core.rounding import CellBorder
from qviz.methods.aquant_border import optimal_border

FINE = 65
"""So many weights and so many activations has a map."""
Cuts = tuple[float, ...] | None
"""The thresholds of the cells, or None for the best ones of each weight."""


@dataclass(frozen=True, eq=False)
class Surface:
    """The error |w' x' - w u| of every product on a grid of weights and activations, in steps.

    Attributes:
        w: Weights, (W,).
        u: Activations, (U,).
        values: The errors, (U, W).
        cuts: The thresholds of each cell at each weight, (R, W).
    """

    w: np.ndarray
    u: np.ndarray
    values: np.ndarray
    cuts: np.ndarray


def rounded(bits: int, w: Tensor) -> Tensor:
    """Return weights, in steps, on the nearest level of a signed uniform grid."""
    return Quantizer(uniform(bits), range=Fixed(1.0))(w)


def thresholds(bits: int, w: Tensor, cuts: Cuts) -> Tensor:
    """Return the thresholds at each weight, (R, W); the best border is at one half where w' = 0."""
    if cuts is not None:
        return torch.tensor(cuts, dtype=torch.float64)[:, None].expand(-1, len(w))
    cells, w_hat = torch.arange(2**bits - 1, dtype=torch.float64), rounded(bits, w)
    safe = torch.where(w_hat == 0, torch.ones_like(w), w_hat)
    border = optimal_border(torch.where(w_hat == 0, torch.ones_like(w), w), safe, cells)
    return cells[:, None] + border.clamp(0.0, 1.0).T


def integers(bits: int, u: Tensor, cuts: Tensor) -> Tensor:
    """Return what activations (U, W), in steps, are rounded to by thresholds (R, W)."""
    book = uniform(bits, signed=False)
    return Quantizer(book, CellBorder(book, cuts), range=Fixed(1.0))(u)


@lru_cache(maxsize=64)
def surface(bits: int, cuts: Cuts) -> Surface:
    """Return the map for some thresholds."""
    half = 2 ** (bits - 1)
    w = torch.linspace(-half - 0.5, half - 0.5, FINE, dtype=torch.float64)
    u = torch.linspace(0.0, 2**bits - 1, FINE, dtype=torch.float64)
    at = thresholds(bits, w, cuts)
    x = integers(bits, u[:, None].expand(-1, FINE), at)
    values = (rounded(bits, w) * x - u[:, None] * w).abs()
    return Surface(w.numpy(), u.numpy(), values.numpy(), at.numpy())


@dataclass(frozen=True, eq=False)
class Product:
    """One product, and the map that it lies on.

    Attributes:
        bits: Of both grids.
        w, w_hat: The weight and its level.
        u: The activation; cell its cell, t its fraction there.
        border: The border of its cell; x what it is rounded to.
        whose: Whose border it is: "" for that of all weights.
        error: w' x' - w u.
        surface: The map.
    """

    bits: int
    w: float
    w_hat: float
    u: float
    cell: int
    t: float
    border: float
    whose: str
    x: float
    error: float
    surface: Surface

    @classmethod
    def of(cls, bits: int, w: float, u: float, cuts: Cuts) -> Self:
        """Return the product of w and u, in steps, the activation rounded by some thresholds or the best."""
        weight = torch.tensor([w], dtype=torch.float64)
        at = thresholds(bits, weight, cuts)
        cell = min(int(u), len(at) - 1)
        x = float(integers(bits, torch.tensor([[u]], dtype=torch.float64), at))
        w_hat = float(rounded(bits, weight)) + 0.0  # no -0 on the page
        border = float(at[cell, 0]) - cell
        whose = " (the best for this weight)" if cuts is None else ""
        error, shown = w_hat * x - w * u, surface(bits, cuts)
        return cls(bits, w, w_hat, u, cell, u - cell, border, whose, x, error, shown)

    @property
    def words(self) -> tuple[str, str]:
        """The arithmetic, in two lines."""
        sign = ">" if self.t > self.border else "≤"
        return (
            f"w = {self.w:.3g} → w' = {self.w_hat:g}; u = {self.u:.3g}: cell {self.cell}, t = {self.t:.3g} "
            f"{sign} B = {self.border:.3g}{self.whose} → x' = {self.x:g}",
            f"w'x' − wu = {self.w_hat * self.x + 0.0:.3g} − {self.w * self.u:.3g} = {self.error:.3g}",
        )
