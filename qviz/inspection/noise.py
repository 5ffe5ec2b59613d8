"""Noise: the ratio of a signal to what was added to it, summed over chunks."""

from __future__ import annotations

import torch
from torch import Tensor

from qviz.measure.metrics import sqnr_from


class Noise:
    """10 log10 (Σ y² / Σ (z - y)²), y the signal and z what became of it.

    Args:
        fitted: Instead of z take a z + b, with the a and b of each channel that leave the least error.
    """

    def __init__(self, fitted: bool = False) -> None:
        self.fitted = fitted
        self._sums: Tensor | None = None

    def add(self, y: Tensor, z: Tensor) -> None:
        """Take in signal and result, of one shape, (N, C, …)."""
        if not self.fitted:
            pair = [(z - y).square().sum(dtype=torch.float64), y.square().sum(dtype=torch.float64)]
            self._gather(torch.stack(pair))
            return
        y, z = (v.double().movedim(1, 0).flatten(1) for v in (y, z))
        count = torch.full((len(y),), float(y.shape[1]), dtype=torch.float64)
        sums = (count, y.sum(1), z.sum(1), y.square().sum(1), z.square().sum(1), (y * z).sum(1))
        self._gather(torch.stack([s.to(count) for s in sums]))

    def _gather(self, sums: Tensor) -> None:
        self._sums = sums if self._sums is None else self._sums + sums

    @property
    def db(self) -> float | None:
        """The ratio, in dB; None before anything was added."""
        if self._sums is None:
            return None
        if not self.fitted:
            noise, energy = self._sums.tolist()
            return sqnr_from(energy, noise)
        n, y, z, yy, zz, yz = self._sums
        vy, vz, c = yy - y * y / n, zz - z * z / n, yz - y * z / n
        left = vy - torch.where(vz > 0, c * c / vz, torch.zeros_like(c))
        return sqnr_from(float(yy.sum()), float(left.clamp(min=0).sum()))
