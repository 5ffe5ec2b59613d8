"""Grids by name, fitted to a tensor, with a range that a named rule finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from qviz.core.codebook import Codebook
from qviz.core.quantizer import Quantizer
from qviz.core.range import MSE, Fixed, MinMax, Percentile, Range
from qviz.core.search import search_scale
from qviz.explore import tensors
from qviz.explore.tensors import Source
from qviz.measure import build_grid, grid_names

MANUAL = "manual clip"
SEARCH = "MSE search"
RULES: dict[str, Callable[[int | None], Range]] = {
    SEARCH: MSE,
    "min–max": MinMax,
    "percentile 99.9": lambda axis: Percentile(99.9, axis),
    "percentile 99": lambda axis: Percentile(99.0, axis),
}
PAPER = ("POT paper", "POST paper")

GridMaker = Callable[[Tensor, int], Codebook]
OwnGrids = Mapping[str, Codebook | GridMaker]


class Grids:
    """The grids that an explorer offers; each is built once, and so is each range that a rule finds.

    Args:
        own: A user's grids, from a name to a codebook or to a function of (tensor, bits) that returns one.
        reserved: Names that no own grid may have, besides those of the built-in ones.

    Raises:
        TypeError: An own grid is neither a codebook nor callable.
        ValueError: The name of an own grid is taken.
    """

    def __init__(self, own: OwnGrids | None = None, reserved: tuple[str, ...] = ()) -> None:
        self.own = dict(own or {})
        for name, grid in self.own.items():
            if name in (*grid_names(4), *PAPER, *reserved):
                raise ValueError(f"a grid named {name!r} exists already; choose another name")
            if not isinstance(grid, Codebook) and not callable(grid):
                raise TypeError(f"grid {name!r} must be a Codebook or a function, got {type(grid).__name__}")
        self._made: dict[tuple, Any] = {}

    def _once(self, key: tuple, make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def names(self, bits: int) -> tuple[str, ...]:
        """Return the grids that exist at a bit width; those of the POT and POST code end at 7 bits."""
        return (*grid_names(bits), *(PAPER if bits < 8 else ()), *self.own)

    def book(self, name: str, source: Source, bits: int) -> Codebook:
        """Return a grid, fitted to the tensor where it is a fitted one.

        Raises:
            TypeError: An own function returns no codebook.
            ValueError: There is no such grid at these bits.
        """
        return self._once((name, source, bits), lambda: self._build(name, source, bits))

    def _build(self, name: str, source: Source, bits: int) -> Codebook:
        x = tensors.summary(source).x
        if name in PAPER:
            return build_grid(name.split()[0], x, bits, grid="paper")
        if name not in self.own:
            return build_grid(name, x, bits)
        made = self.own[name]
        made = made if isinstance(made, Codebook) else made(x, bits)
        if not isinstance(made, Codebook):
            raise TypeError(f"grid {name!r}: the function must return a Codebook, got {type(made).__name__}")
        return made

    def fitted(
        self, name: str, source: Source, bits: int, rule: str = SEARCH, axis: int | None = None
    ) -> Quantizer:
        """Return a new quantizer with the range that a rule finds.

        Args:
            name: The grid.
            source: The tensor.
            bits: The bit width.
            rule: One of :data:`RULES`.
            axis: The axis of the channels that have a scale each, or None for one scale.
        """
        book = self.book(name, source, bits)
        scale = self._once((name, source, bits, rule, axis), lambda: _scale(book, source, rule, axis))
        return Quantizer(book, range=Fixed(scale, axis=axis))

    def clipped(self, name: str, source: Source, bits: int, clip: float) -> Quantizer:
        """Return a new quantizer whose outermost level is at ``clip``, in units of x."""
        book = self.book(name, source, bits)
        return Quantizer(book, range=Fixed(clip / (book.reach or 1.0)))


def clip(q: Quantizer) -> float:
    """Return where the outermost level of a quantizer is, in units of x; per channel at the median scale."""
    return float(torch.atleast_1d(q.range.scale).median()) * q.codebook.reach


def _scale(book: Codebook, source: Source, rule: str, axis: int | None) -> Tensor:
    data = tensors.summary(source, axis)
    if rule == SEARCH:  # on the summary, which is there already
        scale = search_scale(data, book)
        return scale if axis is not None else scale[0]
    return RULES[rule](axis).observe(data.x, book).scale
