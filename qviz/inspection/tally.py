"""Tally: what values are made of, and what a quantizer makes of them, chunk by chunk."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qviz.core.quantizer import Quantizer
from qviz.core.range import Range
from qviz.core.rounding import Stochastic
from qviz.inspection.views import EMPTY, PLACED, Codes, Values
from qviz.measure import metrics
from qviz.measure.measured import run_once

SAMPLE = 2**18
"""So many values of a chunk are kept for histogram and moments."""

BINS = 96
TINY = 1e-6


class Tally:
    """Counts the values of a weight, or of all calls of a layer, and the codes that they get.

    Args:
        quantizer: Calibrated; None where the values stay in floating point.
        axis: Of the channels.
    """

    def __init__(self, quantizer: Quantizer | None, axis: int) -> None:
        self.q, self.axis = quantizer, axis
        self.count, self._energy, self._sse = 0, 0.0, 0.0
        self._saturated, self._placed = 0, False
        self._ranges: Tensor | None = None
        self._low, self._high = torch.inf, -torch.inf
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._counts = torch.zeros(0 if quantizer is None else len(quantizer.codebook), dtype=torch.int64)

    @torch.no_grad()
    def add(self, x: Tensor, placed: Tensor | None = None) -> None:
        """Take in a chunk of finite values, with its channels along the axis.

        Args:
            x: The values.
            placed: The levels that PTQ has chosen for them, where it has.
        """
        x = x.detach()
        self._placed |= placed is not None
        self.count += x.numel()
        self._low, self._high = min(self._low, float(x.min())), max(self._high, float(x.max()))
        others = [i for i in range(x.ndim) if i != self.axis % x.ndim]
        ranges = x.abs().amax(others) if others else x.abs()
        self._ranges = ranges if self._ranges is None else torch.maximum(self._ranges, ranges)
        u = x
        if self.q is not None:
            u = self.q._normalize(x)[0]
            run = run_once(self.q, x if placed is None else placed.detach(), "")
            error = run.error if placed is None else (placed.detach().double() - x.double()).flatten().cpu()
            self._counts += torch.bincount(run.codes, minlength=run.levels)
            self._energy += run.energy if placed is None else float(x.double().square().sum())
            self._sse += float(error.square().sum())
            self._saturated += int(_saturated(self.q, u))
        stride = -(-x.numel() // SAMPLE)
        while math.gcd(stride, x.numel()) > 1:  # or only some channels, or taps of a kernel, would be seen
            stride += 1
        kept = u if self._unit == "step" else x
        self._kept.append(tuple(v.flatten()[::stride].double().cpu() for v in (x, kept)))

    @property
    def _unit(self) -> str:
        q = self.q
        if q is None:
            return "value"
        one = q.scale is not None and q.scale.numel() == 1 and not q.range.reads_input
        return "value" if one and type(q.range).transform is Range.transform else "step"

    def values(self) -> Values:
        """Return what was counted."""
        x, shown = (torch.cat(parts) for parts in zip(*self._kept, strict=True))
        mean = x.mean()
        moments = [(x - mean).pow(k).mean() for k in (2, 4)]
        size = x.abs()
        largest, common = float(size.max()), float(size.kthvalue(max(1, round(0.999 * len(x)))).values)
        alive = self._ranges[self._ranges > EMPTY * self._ranges.max()].double()
        edges, heights = _histogram(shown)
        return Values(
            count=self.count,
            low=self._low,
            high=self._high,
            mean=float(mean),
            std=float(moments[0].sqrt()),
            kurtosis=float(moments[1] / moments[0].square()) if moments[0] > 0 else 0.0,
            tiny=float((size <= TINY * largest).double().mean()),
            tail=largest / common if common > 0 else 1.0,
            channels=len(self._ranges),
            dead=len(self._ranges) - len(alive),
            narrowest=float(alive.min()) if len(alive) else 0.0,
            widest=float(alive.max()) if len(alive) else 0.0,
            ranges=tuple(self._ranges.double().tolist()),
            unit=self._unit,
            edges=edges,
            heights=heights,
            sample=len(x),
            codes=self._codes(),
        )

    def _codes(self) -> Codes | None:
        q = self.q
        if q is None:
            return None
        used = self._counts.nonzero()
        zero = (q.codebook.levels == 0).nonzero().flatten()
        offset = q.range.rescale and q.range.offset is not None and bool((q.range.offset != 0).any())
        return Codes(
            recipe="" if q.recipe is None else str(q.recipe),
            bits=max(1, int(used.max()).bit_length()),
            levels=len(self._counts),
            used=len(used),
            entropy=metrics.entropy_bits(self._counts),
            mse=self._sse / self.count,
            sqnr_db=metrics.sqnr_from(self._energy, self._sse),
            saturated=self._saturated / self.count,
            zeros=None if len(zero) != 1 or offset else float(self._counts[zero]) / self.count,
            positions=tuple(_positions(q, self._unit).tolist()),
            counts=tuple(self._counts.tolist()),
            note="; ".join(filter(None, (PLACED if self._placed else "", _note(q)))),
        )


def _positions(q: Quantizer, unit: str) -> Tensor:
    """Return where the levels lie on the axis of the values; of a quantizer with a unit of its own, knots."""
    levels = (q.codebook.levels if q.range.rescale else q.codebook.knots).detach().double()
    if unit == "step":
        return levels
    offset = 0.0 if q.range.offset is None else q.range.offset.detach().double()
    return levels * q.range.scale.detach().double() + offset


def _saturated(q: Quantizer, u: Tensor) -> Tensor:
    knots = q.codebook.knots.detach().to(u.dtype)
    if len(knots) < 2:
        return torch.zeros(())
    low = knots[0] - (knots[1] - knots[0]) / 2
    high = knots[-1] + (knots[-1] - knots[-2]) / 2
    return ((u < low) | (u > high)).sum()


def _histogram(x: Tensor) -> tuple[tuple[float, ...], tuple[int, ...]]:
    low, high = float(x.min()), float(x.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    heights, edges = torch.histogram(x, bins=BINS, range=(low, high))
    return tuple(edges.tolist()), tuple(int(h) for h in heights)


def _note(q: Quantizer) -> str:
    notes = []
    if not q.range.rescale:
        notes.append("its outputs have a unit of their own, so the error is that of its knots")
    if type(q.range).transform is not Range.transform:
        notes.append("the error is that against the values which the range has transformed")
    if isinstance(q.rounding, Stochastic):
        notes.append("rounds at random: the figures of one draw")
    return "; ".join(notes)
