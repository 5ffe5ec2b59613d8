"""Measured: the figures of one quantizer on one tensor, each computed once, when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from qviz.core import _check
from qviz.core.groups import Grouped, bits_per_value
from qviz.core.quantizer import Quantizer
from qviz.core.range import Range
from qviz.core.rounding import Stochastic
from qviz.core.summary import CellStats, Summary
from qviz.measure import metrics
from qviz.measure.table import Row

Method = Quantizer | Callable[[Tensor], Tensor]


class Measured:
    """The figures of a quantizer (or of any function) on a tensor; panels and tables share one object.

    Where borders and one scale per row tell everything (:func:`searchable`), the figures follow from the
    summary without a pass over x, in microseconds. Every other quantizer is run once. Errors are in units
    of x: where a quantizer's outputs have a unit of their own (DAQ, N2UQ), what its codes stand for on the
    axis of x is its knots, and the error is theirs; where its range transforms x first (DoReFa), the error
    is that against the transformed x. :attr:`note` says so. Half precision is measured in float32.

    Args:
        q: A calibrated quantizer, or a function that returns a tensor of x's shape.
        data: The tensor, or its summary (which is then shared too).
        name: What messages call the method.

    Attributes:
        q: The quantizer or function.
        data: The summary.
        name: The name.

    Raises:
        ValueError: The quantizer is not calibrated, or its channels are not those of x.

    Example:
        >>> from qviz import Fixed, post
        >>> x = torch.tensor([-2.0, -0.6, 0.05, 0.3, 0.43])
        >>> figures = Measured(Quantizer(post(4), range=Fixed(1.0)), x)
        >>> round(figures.mse, 4), figures.counts.tolist()[:3], round(figures.largest_error, 2)
        (0.204, [1, 0, 1], 1.0)
    """

    def __init__(self, q: Method, data: Summary | Tensor | np.ndarray, name: str = "Q") -> None:
        self.q, self.name = q, name
        self.data = data if isinstance(data, Summary) else Summary(data)
        if isinstance(q, Quantizer) and not q.calibrated:
            raise ValueError(f"{name}: {uncalibrated(q)}; call observe(x) on it first")

    @cached_property
    def summarized(self) -> bool:
        """Whether the figures come from the summary alone."""
        return isinstance(self.q, Quantizer) and searchable(self.q)

    @cached_property
    def _rows(self) -> Summary:
        """The summary whose rows are the quantizer's channels."""
        if matches(self.q, self.data):
            return self.data
        _check.axis(self.q.range.axis, self.data.x, self.q.range.scale.numel())
        return Summary(self.data.x, self.q.range.axis)

    @cached_property
    def _run(self) -> Run:
        return run_once(self.q, self.data.x, self.name)

    @cached_property
    def cells(self) -> CellStats:
        """Count, squared error and largest error of each code (of a function: each output), shape (K,)."""
        if self.summarized:
            return self._rows.cells(*_searched(self.q))
        run, k = self._run, self._run.levels
        worst = torch.zeros(k, dtype=torch.float64).scatter_reduce_(0, run.codes, run.error.abs(), "amax")
        return CellStats(
            torch.bincount(run.codes, minlength=k), torch.bincount(run.codes, run.error.square(), k), worst
        )

    @property
    def counts(self) -> Tensor:
        """How many values each code gets, int64, shape (K,)."""
        return self.cells.count

    @cached_property
    def mse(self) -> float:
        """The mean squared error, in units of x²."""
        return float(self.cells.sse.sum()) / self.data.numel

    @property
    def largest_error(self) -> float:
        """The largest absolute error, in units of x."""
        return float(self.cells.max_error.max())

    @cached_property
    def sqnr_db(self) -> float:
        """The signal-to-quantization-noise ratio, in dB."""
        energy = self.data.energy() if self.summarized else self._run.energy
        return metrics.sqnr_from(energy, float(self.cells.sse.sum()))

    @cached_property
    def entropy(self) -> float:
        """The entropy of the codes, in bits."""
        return metrics.entropy_bits(self.counts)

    def error_counts(self, edges: Tensor | np.ndarray) -> np.ndarray:
        """Count the errors Q(x) - x in each bin.

        Args:
            edges: The ends of the bins, increasing, in units of x, shape (m,).

        Returns:
            int64, shape (m - 1,).
        """
        edges = torch.as_tensor(edges, dtype=torch.float64)
        if self.summarized:
            return self._rows.error_counts(*_searched(self.q), edges).numpy()
        return np.histogram(self._run.error.numpy(), edges.numpy())[0]

    @property
    def note(self) -> str:
        """What one should know to read the figures, or ""."""
        if not isinstance(self.q, Quantizer):
            return ""
        notes, book = [], self.q.codebook
        if book.name.endswith(" paper"):
            notes.append(f"the paper's grid: its {len(book)} levels need {book.bits} bits to store")
        if not self.q.range.rescale:
            notes.append("its outputs have a unit of their own, so the error is that of its knots")
        if self.q.soft:
            which = "codes cannot hold them" if self.q.range.rescale else "they do not have the error shown"
            notes.append(f"its forward pass is soft: outputs lie between the levels, and {which}")
        if type(self.q.range).transform is not Range.transform:
            notes.append("the error is that against the x which the range has transformed")
        if isinstance(self.q.rounding, Stochastic):
            notes.append("rounds at random: the figures of one draw")
        dead = metrics.dead_levels(self.counts)
        if dead:
            notes.append(f"{dead} of {len(self.counts)} levels unused")
        return "; ".join(notes)

    def row(self, name: str) -> Row:
        """Return the line of a table.

        Args:
            name: The name of the method.
        """
        levels = len(self.counts)
        bits = max(1, (levels - 1).bit_length())
        scales = getattr(self.q.range, "scale", None) if isinstance(self.q, Quantizer) else None
        several = scales is not None and scales.numel() > 1
        scale, clip = _scale_and_clip(self.q) if isinstance(self.q, Quantizer) else (None, None)
        return Row(
            method=name,
            levels=levels,
            bits=bits,
            bits_per_value=bits_per_value(self.q, self.data.numel) if several else bits,
            mse=self.mse,
            sqnr_db=self.sqnr_db,
            entropy=self.entropy,
            scale=scale,
            clip=clip,
            note=self.note,
        )


@dataclass(frozen=True)
class Run:
    """What one pass over x gives.

    Attributes:
        codes: Int64, flat.
        error: Q(x) - x, float64, flat.
        levels: How many there are.
        energy: The sum of x².
    """

    codes: Tensor
    error: Tensor
    levels: int
    energy: float


@torch.no_grad()
def run_once(q: Method, x: Tensor, name: str) -> Run:
    """Quantize x once and return codes and errors, in the unit that :class:`Measured` describes.

    Raises:
        ValueError: A callable returns no tensor of the shape of x; x holds NaN.
    """
    if not isinstance(q, Quantizer):
        y = q(x.clone())
        if not isinstance(y, Tensor) or y.shape != x.shape:
            got = f"shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(f"{name}: a callable must return a tensor of shape {tuple(x.shape)}, got {got}")
        values, codes = torch.unique(y, return_inverse=True)
        levels = len(values)
    else:
        x = x.to(_check.compute_dtype(x))
        codes, levels = q.codes(x).long(), len(q.codebook)
        if isinstance(q.rounding, Stochastic):
            y = q.dequantize(codes, x.dtype)  # the outputs of the codes that were drawn
        elif q.range.rescale:
            y = q(x)
        else:
            scale, offset = q.range(q.range.transform(x))
            y = q.codebook.knots.to(x.dtype)[codes] * scale + (0.0 if offset is None else offset)
        x = q.range.transform(x)
    x = x.detach().double().flatten().cpu()
    error = y.double().flatten().cpu() - x
    return Run(codes.flatten().cpu(), error, levels, float(x.square().sum()))


def uncalibrated(q: Quantizer) -> str:
    """Return in words what a quantizer that is not calibrated lacks."""
    return f"the quantizer's {'codebook has no levels' if q.range.calibrated else 'range has no scale'} yet"


def searchable(q: Quantizer) -> bool:
    """Return whether borders and one scale per row tell everything about ``q``.

    They do not where there is an offset or chance, where the output is in another unit than x (DAQ, N2UQ),
    where the border or the scale depends on x (AQuant, ASQ), where groups have scales of their own, and
    where the forward pass is soft.
    """
    if isinstance(q.range, Grouped):
        return False
    one = q.range.rescale and not q.range.reads_input and q.range.calibrated and q.range.offset is None
    return one and not q.soft and q.rounding.borders(q.codebook) is not None


def matches(q: Quantizer, data: Summary) -> bool:
    """Return whether the channels of ``q`` are the rows of ``data`` (or it has one scale in all)."""
    if q.range.scale.numel() == 1:
        return True
    same = data.axis is not None and data.axis == q.range.axis % data.x.ndim
    return same and q.range.scale.numel() == len(data.rows)


def _searched(q: Quantizer) -> tuple[Tensor, Tensor, Tensor]:
    scale = torch.atleast_1d(q.range.scale.detach())
    return q.codebook.levels.detach(), q.rounding.borders(q.codebook), scale


def _scale_and_clip(q: Quantizer) -> tuple[float | None, float | None]:
    """Return the one scale, and the knot farthest from 0 in units of x; None where there is no one scale."""
    scale = getattr(q.range, "scale", None)
    if scale is None or scale.numel() != 1 or q.range.reads_input or q.range.axis is not None:
        return None, None
    scale, offset = float(scale), 0.0 if q.range.offset is None else float(q.range.offset)
    return scale, max(abs(scale * q.codebook.lo + offset), abs(scale * q.codebook.hi + offset))
