"""Compare: one tensor, several quantizers, one small table."""

from __future__ import annotations

import copy
import functools
import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from qviz.core import _check
from qviz.core.codebook import Codebook
from qviz.core.grids import apot, lloyd, post, pot, quantile, uniform
from qviz.core.quantizer import Quantizer
from qviz.core.range import Fixed, Range, search_scale
from qviz.core.summary import Summary
from qviz.measure import metrics

Method = Codebook | Quantizer | Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Row:
    """One method's figures.

    Attributes:
        method: its name. levels: how many it has. bits: what one stored code needs, ceil(log2 levels).
        mse, sqnr_db: error against x. entropy: of the codes, in bits.
        scale: the step or clip that was found; None per channel or for a callable.
    """

    method: str
    levels: int
    bits: int
    mse: float
    sqnr_db: float
    entropy: float
    scale: float | None


HEADERS = ("method", "levels", "bits", "MSE", "SQNR dB", "entropy", "scale")


@dataclass(frozen=True)
class Comparison:
    """The rows of a comparison; prints as a table in text and in notebooks."""

    rows: tuple[Row, ...]

    def __getitem__(self, method: str) -> Row:
        """Return the row of a method by name.

        Raises:
            KeyError: no such method.
        """
        for row in self.rows:
            if row.method == method:
                return row
        raise KeyError(f"no method {method!r}; there are {[row.method for row in self.rows]}")

    def to_dict(self) -> dict[str, dict[str, float | int | str | None]]:
        """Return {method: {column: value}}, ready for strict JSON: plain numbers, None for infinite ones."""
        return {row.method: {k: _finite(v) for k, v in asdict(row).items()} for row in self.rows}

    def cells(self) -> list[tuple[str, ...]]:
        """Return the rows as text, one string a column, as every front end shows them."""
        return [
            (
                row.method,
                str(row.levels),
                str(row.bits),
                f"{row.mse:#.4g}",
                f"{row.sqnr_db:.2f}",
                f"{row.entropy:.2f}",
                "–" if row.scale is None else f"{row.scale:#.4g}",
            )
            for row in self.rows
        ]

    def __str__(self) -> str:
        """Align the columns for a terminal."""
        table = [HEADERS, *self.cells()]
        widths = [max(len(line[i]) for line in table) for i in range(len(HEADERS))]
        return "\n".join(
            "  ".join(
                v.ljust(w) if i == 0 else v.rjust(w)
                for i, (v, w) in enumerate(zip(line, widths, strict=True))
            )
            for line in table
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Return the same table as HTML."""
        head = "".join(f'<th scope="col">{h}</th>' for h in HEADERS)
        body = "".join(
            "<tr>"
            + f'<th scope="row">{html.escape(c[0])}</th>'
            + "".join(f"<td>{v}</td>" for v in c[1:])
            + "</tr>"
            for c in self.cells()
        )
        return f'<table class="qviz-compare"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _finite(value: float | int | str | None) -> float | int | str | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def grid_names(bits: int) -> tuple[str, ...]:
    """Return the names of the grids that exist at a bit width."""
    return (
        ("uniform", "POT", "POST", "APoT", "quantile", "Lloyd")
        if bits > 1
        else ("uniform", "quantile", "Lloyd")
    )


def build_grid(name: str, x: Tensor, bits: int, **options: str) -> Codebook:
    """Build a grid by its name; unsigned uniform where x has no negative value.

    Args:
        name: one of :func:`grid_names`.
        x: what the fitted grids are fitted to.
        bits: 1 to 8.
        **options: passed on to the builder, as ``grid="paper"`` for POT and POST.

    Raises:
        ValueError: unknown name, or bits that the grid does not have.
    """
    fixed = {"POT": pot, "POST": post, "APoT": apot}
    fitted = {"quantile": quantile, "Lloyd": lloyd}
    if name == "uniform":
        return uniform(bits, signed=bool((x < 0).any()))
    if name in fixed:
        return fixed[name](bits, **options)
    if name in fitted:
        return fitted[name](x, bits)
    raise ValueError(f"unknown grid {name!r}; there are {grid_names(bits)}")


def compare(
    x: Tensor | np.ndarray,
    methods: Mapping[str, Method] | Sequence[str] | None = None,
    *,
    bits: int = 4,
    range: Range | float | None = None,
) -> Comparison:
    """Quantize ``x`` with several methods and tabulate error, entropy and scale.

    Each codebook is brought to the scale with the least squared error, unless ``range`` is given; a
    Quantizer that is calibrated is used as it is, and so is any callable.

    Args:
        x: any shape, finite, floating point.
        methods: names among uniform, POT, POST, APoT, quantile, Lloyd (default all), or a mapping from
            a name to a Codebook, a Quantizer or a callable that returns a tensor of x's shape.
        bits: for the named methods, 1 to 8.
        range: a Range for every codebook, or a number: the clip, where the outermost knot goes.

    Raises:
        TypeError, ValueError: x is unfit, a name is unknown, bits are out of range, a callable returns
            another shape.

    Example:
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
    if not isinstance(methods, Mapping):
        methods = {name: build_grid(name, x, bits) for name in methods}
    for name in methods:
        if not isinstance(name, str):
            raise TypeError(f"a method's name must be a str, got {name!r}")
    summary = functools.cache(lambda: Summary(x))  # sorted once, when the first codebook needs it
    return Comparison(tuple(_row(name, method, x, range, summary) for name, method in methods.items()))


def _row(
    name: str,
    method: Method,
    x: Tensor,
    range: Range | float | None,
    summary: Callable[[], Summary],
) -> Row:
    if isinstance(method, Codebook):
        method = Quantizer(method, range=_range_for(method, range, summary)).observe(x)
    if not isinstance(method, Quantizer):
        return _callable_row(name, method, x)
    if not method.range.calibrated:
        method = copy.deepcopy(method).observe(x)
    counts = metrics.occupancy(method, x)
    with torch.no_grad():
        y = method(x)
    scale = float(method.range.scale) if method.range.scale.ndim == 0 else None
    return _figures(name, x, y, counts, len(method.codebook), scale)


def _range_for(codebook: Codebook, range: Range | float | None, summary: Callable[[], Summary]) -> Range:
    """Return a range of the codebook's own; ``observe`` calibrates it, or does nothing if it is fixed."""
    if range is None:
        return Fixed(search_scale(summary(), codebook)[0])
    if isinstance(range, Range):
        return copy.deepcopy(range)
    if isinstance(range, bool) or not isinstance(range, (int, float)) or not 0 < range < float("inf"):
        raise ValueError(f"range must be a Range or a positive clip, got {range!r}")
    return Fixed(float(range) / codebook.reach)


def _callable_row(name: str, method: Callable[[Tensor], Tensor], x: Tensor) -> Row:
    if not callable(method):
        raise TypeError(
            f"{name}: a method is a Codebook, a Quantizer or a callable, got {type(method).__name__}"
        )
    with torch.no_grad():
        y = method(x.clone())
    if not isinstance(y, Tensor) or y.shape != x.shape:
        got = f"shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(f"{name}: a callable must return a tensor of shape {tuple(x.shape)}, got {got}")
    values, counts = torch.unique(y, return_counts=True)
    return _figures(name, x, y, counts, len(values), None)


def _figures(name: str, x: Tensor, y: Tensor, counts: Tensor, levels: int, scale: float | None) -> Row:
    return Row(
        method=name,
        levels=levels,
        bits=max(1, (levels - 1).bit_length()),
        mse=metrics.mse(x, y),
        sqnr_db=metrics.sqnr_db(x, y),
        entropy=metrics.entropy_bits(counts),
        scale=scale,
    )
