"""Rounding: who decides between the two knots of a cell."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qviz.core import _check
from qviz.core.codebook import Codebook, keep_float64
from qviz.core.fast import Bend
from qviz.core.lookup import count_below


class Rounding(nn.Module):
    """Decides up or down inside a cell.

    One definition of the code holds everywhere: ``code = #{borders < u}``; a value on a border goes
    down. ``t > 1/2`` explains it, but is not the arithmetic (the two differ by one unit in the last
    place).

    Attributes:
        rounds_integers: Whether codes on knots that are consecutive integers follow from ceil, without a
        search. random: Whether two calls may answer differently.
    """

    rounds_integers: bool = False
    random: bool = False

    def borders(self, codebook: Codebook) -> Tensor | None:
        """Return the border of each cell in units of u, float64, shape (K - 1,); None where it is random."""
        raise NotImplementedError

    def element(self, v: Tensor, codebook: Codebook) -> Tensor | None:
        """Return the border of each element, as a fraction of its cell, differentiable; None by default.

        Args:
            v: x in units of the knots, clamped to the end knots.
            codebook: with integer knots.
        """
        return None

    def bend(self, x: Tensor, codebook: Codebook) -> tuple[Bend, Tensor] | None:
        """Return :meth:`element` as the fast path takes it: how to compute it, and its parameters b for x.

        None, the default, says that no element has a border of its own.
        """
        return None

    def observe(self, u: Tensor, codebook: Codebook) -> None:
        """Start from data, x in units of the knots; only learned roundings do anything."""

    def after_step(self) -> None:
        """Restore what an optimizer step may have broken; only AQuant's border has something."""

    def moving(self) -> dict[str, Tensor]:
        """Return what training moves, by name, for the record of a training."""
        return {}

    def decide(self, u: Tensor, cell: Tensor, t: Tensor, codebook: Codebook) -> Tensor:
        """Return True where the value goes to the upper knot; the shape of ``u``."""
        border = self.borders(codebook).to(u.dtype)
        return u > border[cell] if len(border) else torch.zeros_like(cell, dtype=torch.bool)

    def encode(self, u: Tensor, codebook: Codebook) -> Tensor:
        """Return cell + decision, without the memory that cells cost where cells have borders.

        Returns:
            Whole numbers 0 … K - 1 with the shape of ``u``, float or integer; some valid code for NaN.
        """
        borders = self.borders(codebook)
        if borders is None:
            cell, t = codebook.locate(u)
            return cell + self.decide(u, cell, t, codebook)
        return count_below(u, borders.to(u.dtype))


class Nearest(Rounding):
    """Round to the nearest knot; ties go down.

    On knots that are consecutive integers this is ceil(u - 1/2), never searched. It differs from the
    border rule for one float: u = -0.49999997 (float32) goes to -1, because u - 1/2 rounds to -1.

    Example:
        >>> import torch
        >>> from qviz.core.grids import uniform
        >>> Nearest().encode(torch.tensor([-9.0, -0.5, 0.5, 0.75]), uniform(4)) - 8
        tensor([-8., -1.,  0.,  1.])
    """

    rounds_integers = True

    def borders(self, codebook: Codebook) -> Tensor:
        """Return the midpoints."""
        return codebook.borders

    def decide(self, u: Tensor, cell: Tensor, t: Tensor, codebook: Codebook) -> Tensor:
        """Return True where the upper knot is nearer."""
        if codebook.unit:
            return self.encode(u, codebook) > cell
        return super().decide(u, cell, t, codebook)

    def encode(self, u: Tensor, codebook: Codebook) -> Tensor:
        """Return the code of the nearest knot."""
        if codebook.unit:
            return (u - 0.5).ceil_().clamp_(codebook.lo, codebook.hi).sub_(codebook.lo).nan_to_num_(0.0)
        return super().encode(u, codebook)


class Stochastic(Rounding):
    """Round up with probability t, so that the mean of many roundings is the value itself.

    Args:
        generator: The source of randomness; None takes torch's default generator.
    """

    random = True

    def __init__(self, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.generator = generator

    def borders(self, codebook: Codebook) -> None:
        """Return None: the threshold is drawn anew for each value."""

    def decide(self, u: Tensor, cell: Tensor, t: Tensor, codebook: Codebook) -> Tensor:
        """Return True with probability ``t``."""
        draw = torch.rand(t.shape, dtype=t.dtype, device=t.device, generator=self.generator)
        return draw < t


class CellBorder(Rounding):
    """Round up where u exceeds the border given for its cell.

    Args:
        codebook: The grid whose cells the borders divide.
        border: One border for each cell, in units of u, shape (K - 1,), or (K - 1, C) with borders of their
        own
            for each channel (a frozen AQuant has them).
        axis: The channel axis of u, used with (K - 1, C).

    Raises:
        ValueError: Their number is not K - 1, or a border lies outside its cell.
    """

    border: Tensor

    def __init__(self, codebook: Codebook, border: Tensor | list[float], *, axis: int = 1) -> None:
        super().__init__()
        border = torch.as_tensor(border, dtype=torch.float64).clone()
        low, high = codebook.knots[:-1], codebook.knots[1:]
        if border.ndim not in (1, 2) or len(border) != len(low):
            raise ValueError(
                f"{len(codebook)} knots have {len(low)} cells, got borders of shape {tuple(border.shape)}"
            )
        self.axis = axis
        if border.ndim == 2:
            low, high = low[:, None].expand_as(border), high[:, None].expand_as(border)
        outside = ~((border >= low) & (border <= high))
        if outside.any():
            k = tuple(outside.nonzero()[0].tolist())
            raise ValueError(f"border {border[k]:g} lies outside its cell [{low[k]:g}, {high[k]:g}]")
        self.register_buffer("border", border)

    _apply = keep_float64  # float64 stays, for the reason given there

    @classmethod
    def logarithmic(cls, codebook: Codebook) -> CellBorder:
        """Round in the log domain: the border of a cell is the geometric mean of its knots.

        Cells that touch or contain zero have no geometric mean; they keep the midpoint.

        Example:
            >>> from qviz.core.grids import post
            >>> round(CellBorder.logarithmic(post(4)).border[-1].item(), 6)  # between 2**-0.5 and 1
            0.840896
        """
        low, high = codebook.knots[:-1], codebook.knots[1:]
        geometric = torch.sign(low) * torch.sqrt((low * high).clamp(min=0))
        # sqrt may round past a knot when two knots nearly touch
        geometric = torch.minimum(torch.maximum(geometric, low), high)
        return cls(codebook, torch.where(low * high > 0, geometric, codebook.borders))

    def borders(self, codebook: Codebook) -> Tensor | None:
        """Return the given borders; None where each channel has its own."""
        if len(self.border) != len(codebook) - 1:
            raise ValueError(
                f"{len(codebook)} knots need {len(codebook) - 1} borders, got {len(self.border)}"
            )
        return self.border if self.border.ndim == 1 else None

    def decide(self, u: Tensor, cell: Tensor, t: Tensor, codebook: Codebook) -> Tensor:
        """Return True where the value exceeds the border of its cell."""
        if self.border.ndim == 1:
            return super().decide(u, cell, t, codebook)
        return self.encode(u, codebook) > cell

    def encode(self, u: Tensor, codebook: Codebook) -> Tensor:
        """Return the code: the number of borders below u.

        Raises:
            ValueError: u has another number of channels than the borders.
        """
        if self.borders(codebook) is not None:
            return super().encode(u, codebook)
        axis = _check.axis(self.axis, u, self.border.shape[1])
        shape = [-1 if i == axis else 1 for i in range(u.ndim)]
        code, above = torch.zeros_like(u), torch.empty_like(u)
        for row in self.border.to(u.dtype):
            code += torch.gt(u, row.view(shape), out=above)
        return code
