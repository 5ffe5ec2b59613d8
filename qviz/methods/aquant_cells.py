"""AQuant's border in its freest form: a number for each cell, so that each threshold learns by itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qviz.core import _check
from qviz.core.codebook import Codebook
from qviz.core.rounding import CellBorder, Rounding
from qviz.methods.aquant_function import squash


class CellwiseBorder(Rounding):
    """Round up where the fraction exceeds B_n = sigmoid(b_n), n the cell; zeros give rounding to nearest.

    The same thresholds as any border function can have, with R numbers instead of three. Each learns from its
    own cell only.

    Args:
        steps: R, cells.
        channels: A border for each cell and channel, or None for one for each cell.
        axis: The channel axis.

    Attributes:
        b: Shape (R,) or (R, C), float32.

    Raises:
        ValueError: ``steps`` or ``channels`` is not positive.

    References:
        INFERRED, for comparison with :class:`~qviz.methods.aquant.AdaptiveBorder`; not known to be in AQuant
        (arXiv:2208.11945).
    """

    def __init__(self, steps: int, *, channels: int | None = None, axis: int = 1) -> None:
        super().__init__()
        for name, value in (("steps", steps), ("channels", channels)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be positive, got {value}")
        self.steps, self.channels, self.axis = int(steps), channels, axis
        self.b = nn.Parameter(torch.zeros(steps) if channels is None else torch.zeros(steps, channels))

    def moving(self) -> dict[str, Tensor]:
        """Return b."""
        return {"b": self.b.detach()}

    def freeze(self, codebook: Codebook) -> CellBorder:
        """Return the rounding by the thresholds n + B_n: the same codes.

        Args:
            codebook: The consecutive integers that it rounds to.
        """
        cells = torch.arange(self.steps, dtype=torch.float64, device=self.b.device) + codebook.lo
        own = squash(self.b.detach(), codebook.lo, codebook.hi).double()
        return CellBorder(codebook, (cells if own.ndim == 1 else cells[:, None]) + own, axis=self.axis)

    def borders(self, codebook: Codebook) -> None:
        """Return None: the composition takes each element's own."""

    def element(self, v: Tensor, codebook: Codebook) -> Tensor:
        """Return B for each element; the gradient goes to b."""
        cell = (v.detach() - codebook.lo).floor().clamp(0, self.steps - 1)
        if self.channels is not None:
            axis = _check.axis(self.axis, v, self.channels)
            shape = [-1 if i == axis else 1 for i in range(v.ndim)]
        z = torch.zeros_like(v)
        for n in range(self.steps):
            own = self.b[n].to(v.dtype)
            z = torch.where(cell == n, own if self.channels is None else own.view(shape), z)
        return squash(z, codebook.lo, codebook.hi)

    def decide(self, u: Tensor, cell: Tensor, t: Tensor, codebook: Codebook) -> Tensor:
        """Return True where the fraction exceeds B."""
        return t > self.element(u.clamp(codebook.lo, codebook.hi), codebook)
