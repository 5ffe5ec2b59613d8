"""Compare: one tensor, several quantizers, one small table."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from qviz.core import _check
from qviz.core._text import count
from qviz.core.codebook import Codebook
from qviz.core.grids import apot, lloyd, post, pot, quantile, uniform
from qviz.core.quantizer import Quantizer
from qviz.core.range import Fixed, Range
from qviz.core.search import search_scale
from qviz.core.summary import Summary
from qviz.measure.measured import Measured
from qviz.measure.table import HEADERS, Comparison, Row

__all__ = ["HEADERS", "Comparison", "Row", "build_grid", "compare", "grid_names"]

Method = Codebook | Quantizer | Callable[[Tensor], Tensor]


def grid_names(bits: int) -> tuple[str, ...]:
    """Return the names of the grids that exist at a bit width."""
    return (
        ("uniform", "POT", "POST", "APoT", "quantile", "Lloyd")
        if bits > 1
        else ("uniform", "quantile", "Lloyd")
    )


def canonical(name: str, bits: int) -> str:
    """Return the name of a grid as :func:`grid_names` spells it; upper and lower case are one.

    Raises:
        ValueError: There is no such grid at these bits.
    """
    for known in grid_names(bits):
        if known.casefold() == name.casefold():
            return known
    if name.casefold() in (known.casefold() for known in grid_names(8)):
        raise ValueError(f"{name}: bits must be 2 to 8, got {bits}")
    raise ValueError(f"unknown grid {name!r}; there are {grid_names(bits)}")


def build_grid(name: str, x: Tensor, bits: int, **options: str) -> Codebook:
    """Build a grid by its name; where x has no negative value, an unsigned one if there is one.

    Unsigned POT and POST end at 7 bits, and their "paper" grids are signed.

    Args:
        name: One of :func:`grid_names`.
        x: The values that the fitted grids are fitted to.
        bits: The bit width, 1 to 8.
        **options: Passed on to the builder, as ``grid="paper"`` for POT and POST.

    Raises:
        ValueError: The name is unknown, or the grid does not exist at these bits.
    """
    name = canonical(name, bits)
    if name in ("quantile", "Lloyd"):
        return {"quantile": quantile, "Lloyd": lloyd}[name](x, bits)
    signed = bool((x < 0).any())
    if name in ("POT", "POST"):
        signed = signed or bits == 8 or options.get("grid") == "paper"
    return {"uniform": uniform, "POT": pot, "POST": post, "APoT": apot}[name](bits, signed=signed, **options)


def _grid_note(name: str, book: Codebook, bits: int) -> str:
    if name in ("quantile", "Lloyd"):
        return f"{count(len(book), 'level')}, as values repeat" if len(book) < 2**bits else ""
    return "unsigned, as x has no negative value" if book.lo >= 0 else ""


def compare(
    x: Tensor | np.ndarray,
    methods: Mapping[str, Method] | Sequence[str] | None = None,
    *,
    bits: int = 4,
    range: Range | float | None = None,
) -> Comparison:
    """Quantize ``x`` with several methods and tabulate error, entropy and clip.

    Each codebook is brought to the scale with the least squared error, unless ``range`` is given; a
    Quantizer that is calibrated is used as it is, and so is any callable.

    Args:
        x: The tensor, any shape, finite, floating point.
        methods: Names among uniform, POT, POST, APoT, quantile, Lloyd in upper or lower case (default all),
            or a mapping from a name to a Codebook, a Quantizer or a callable that returns a tensor of x's
            shape.
        bits: The bit width of the named methods, 1 to 8.
        range: A Range for every codebook, or a number: the clip, where the outermost knot goes.

    Returns:
        The rows, with notes where a figure needs one: a grid that became unsigned, levels that no value
        uses, outputs in another unit than x.

    Raises:
        TypeError, ValueError: x is unfit, a name is unknown, bits are out of range, a callable returns
            another shape.

    Example:
        >>> import torch
        >>> g = torch.Generator().manual_seed(0)
        >>> table = compare(torch.randn(100_000, generator=g), ["POT", "POST"], bits=4)
        >>> table["POT"].levels, round(table["POT"].mse, 3), round(table["POST"].mse, 3)
        (15, 0.038, 0.013)
    """
    x = _check.finite(_check.float_tensor(x)).detach()
    bits = _check.bits(bits, 1, 8, "compare")
    if methods is None:
        methods = grid_names(bits)
    if isinstance(methods, str):
        methods = [methods]
    notes = {}
    if not isinstance(methods, Mapping):
        for name in methods:
            if not isinstance(name, str):
                raise TypeError(f"a method in a list is a grid's name, got {type(name).__name__}")
        methods = {name: build_grid(name, x, bits) for name in (canonical(name, bits) for name in methods)}
        notes = {name: _grid_note(name, book, bits) for name, book in methods.items()}
    for name in methods:
        if not isinstance(name, str):
            raise TypeError(f"a method's name must be a str, got {name!r}")
    summary = Summary(x)  # sorted once
    rows = []
    for name, method in methods.items():
        row = Measured(_ready(name, method, summary, range), summary, name).row(name)
        rows.append(replace(row, note="; ".join(filter(None, (notes.get(name), row.note)))))
    return Comparison(tuple(rows))


def _ready(
    name: str, method: Method, summary: Summary, range: Range | float | None
) -> Quantizer | Callable[[Tensor], Tensor]:
    """Return a calibrated quantizer (the user's own stays as it was), or the callable."""
    if isinstance(method, Codebook):
        return Quantizer(method, range=_range_for(method, range, summary)).observe(summary.x)
    if isinstance(method, Quantizer):
        return method if method.calibrated else copy.deepcopy(method).observe(summary.x)
    if not callable(method):
        raise TypeError(
            f"{name}: a method is a Codebook, a Quantizer or a callable, got {type(method).__name__}"
        )
    return method


def _range_for(codebook: Codebook, range: Range | float | None, summary: Summary) -> Range:
    """Return a range of the codebook's own; ``observe`` calibrates it, or does nothing if it is fixed."""
    if range is None:
        return Fixed(search_scale(summary, codebook)[0])
    if isinstance(range, Range):
        return copy.deepcopy(range)
    if isinstance(range, bool) or not isinstance(range, (int, float)) or not 0 < range < float("inf"):
        raise ValueError(f"range must be a Range or a positive clip, got {range!r}")
    return Fixed(float(range) / codebook.reach)
