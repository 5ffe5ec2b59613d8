"""Codebook: where the knots are and what each of them reads out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qviz.core import _check
from qviz.core.lookup import count_below


def keep_float64(self: nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """Move with the module, but keep buffers in float64: ``half()`` would merge close levels.

    Used as ``_apply`` of the parts that have such buffers.
    """
    kept = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
    for name, buffer in kept.items():
        self._buffers[name] = buffer.float()  # some devices refuse float64
    nn.Module._apply(self, fn, recurse)
    for name, buffer in kept.items():
        device = self._buffers[name].device
        self._buffers[name] = buffer.to(device, torch.float32 if device.type == "mps" else torch.float64)
    return self


class Codebook(nn.Module):
    """Sorted knots on the input axis, and the output level that belongs to each.

    Two neighboring knots bound a *cell*; a value inside it has the coordinate
    t = (u - knot) / (next knot - knot). Most grids read out the knots themselves.

    Args:
        knots: 1 to 256 finite, strictly increasing numbers, shape (K,), in units of u = (x - o) / s.
        levels: what each knot reads out, shape (K,), strictly increasing. Default: the knots.
        name: shown in tables and legends.

    Attributes:
        knots, levels: float64 buffers of shape (K,). They keep their precision under ``half()``.

    Raises:
        ValueError: wrong shape, not finite, not strictly increasing, or more than 256.

    Example:
        >>> book = Codebook([-1.0, -0.3, 0.0, 0.3, 1.0], name="mine")
        >>> len(book), book.bits, book.borders.tolist()
        (5, 3, [-0.65, -0.15, 0.15, 0.65])
    """

    knots: Tensor
    levels: Tensor

    def __init__(
        self,
        knots: Sequence[float] | np.ndarray | Tensor,
        levels: Sequence[float] | np.ndarray | Tensor | None = None,
        *,
        name: str = "custom",
    ) -> None:
        super().__init__()
        if not isinstance(name, str):
            raise TypeError(f"name must be a str, got {name!r}")
        knots = _check.increasing(knots, "knots")
        levels = knots.clone() if levels is None else _check.increasing(levels, "levels")
        if knots.shape != levels.shape:
            raise ValueError(f"{len(knots)} knots need as many levels, got {len(levels)}")
        self.name = name
        self.register_buffer("knots", knots)
        self.register_buffer("levels", levels)
        self._derive()

    def _derive(self) -> None:
        """Cache what each use asks: the end knots, whether knots are whole numbers, or the levels."""
        knots, levels = self.knots.cpu(), self.levels.cpu()
        self.identity = bool(torch.equal(knots, levels))
        steps = torch.arange(len(knots), dtype=knots.dtype)
        self._span = float(knots[0]), float(knots[-1])
        self.affine = _affine(levels)
        self.unit = self.lo.is_integer() and bool(torch.equal(knots, self.lo + steps))

    _apply = keep_float64

    @property
    def lo(self) -> float:
        """The first knot."""
        return self._span[0]

    @property
    def hi(self) -> float:
        """The last knot."""
        return self._span[1]

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._derive()

    open = False
    """Whether a value on the first knot counts as outside, in the backward pass."""

    calibrated = True
    """Whether the levels have their places; a grid that is placed by data says so itself."""

    def observe(self, x: Tensor) -> None:
        """Adapt to data; a fixed grid does nothing."""

    def restart(self) -> None:
        """Forget where data have placed the levels, so that the next :meth:`observe` places them anew."""

    frozen = False
    """Whether :meth:`after_step` is over."""

    def after_step(self, x: Tensor | None = None) -> None:
        """Follow ``x`` after an optimizer step; a fixed grid does nothing."""

    def freeze(self) -> None:
        """Stop following the data; a fixed grid never did."""

    def moving(self) -> dict[str, Tensor]:
        """Return what training moves, by name, for the record of a training; nothing of a fixed grid."""
        return {}

    def __len__(self) -> int:
        """Number of levels, K."""
        return self.levels.numel()

    def __repr__(self) -> str:
        return f"Codebook({self.name!r}, {len(self)} levels, {self.bits} bits)"

    @property
    def bits(self) -> int:
        """Bits that one stored code needs: ceil(log2 K)."""
        return max(1, (len(self) - 1).bit_length())

    @property
    def reach(self) -> float:
        """Largest magnitude among the knots; clip = scale * reach."""
        return max(abs(self.lo), abs(self.hi))

    @property
    def borders(self) -> Tensor:
        """Midpoints between neighboring knots, float64, shape (K - 1,)."""
        return (self.knots[:-1] + self.knots[1:]) / 2

    def locate(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Find the cell of each value and the coordinate in it; saturates at the end knots.

        A value on a knot belongs to the cell below it (t = 1), because ties go down.

        Args:
            u: any shape, float32 or float64.

        Returns:
            cell: int64, the shape of ``u``, 0 … K - 2.
            t: the dtype of ``u``, in [0, 1]; NaN where ``u`` is NaN. Differentiable in ``u``.
        """
        knots = self.knots.to(u.dtype)
        # torch.clamp passes the whole gradient on the end knots; maximum/minimum would halve it
        v = torch.clamp(u, knots[0], knots[-1])
        if self.open:
            v = torch.where(u <= knots[0], knots[0], v)
        if len(self) == 1:
            return torch.zeros_like(u, dtype=torch.int64), (v - v.detach()) + (u.detach() * 0)
        if self.unit:
            cell = (torch.ceil(v.detach()).nan_to_num(self.lo) - (self.lo + 1)).clamp_(min=0).long()
        else:
            cell = count_below(v.detach(), knots[1:-1]).long()
        return cell, (v - knots[cell]) / (knots[1:] - knots[:-1])[cell]

    def emit(self, cell: Tensor, t: Tensor) -> Tensor:
        """Read out level[cell] + t * (level[cell + 1] - level[cell]); differentiable in ``t`` only."""
        levels = self.levels.detach().to(t.dtype)
        if len(self) == 1:
            return levels[cell] + t
        return levels[cell] + t * (levels[1:] - levels[:-1])[cell]


class LearnedLevels(Codebook):
    """Levels that training moves by their own gradient, dL/d level k = the sum of dL/dy over the values at k.

    The base of your own methods with learned tables. A value goes to the nearest level. The quantizer
    computes by the composition of its parts: the fast path has no gradient for levels.

    Args:
        levels: Where they start, shape (K,), strictly increasing, 1 to 256 of them.
        name: Shown in tables and legends.

    Attributes:
        levels: A float32 parameter, shape (K,). Training must keep it sorted; :meth:`after_step` does.

    Raises:
        ValueError: As :class:`Codebook`.

    Example:
        >>> from qviz import Fixed, Quantizer
        >>> q = Quantizer(LearnedLevels([-1.0, 0.0, 1.0]), range=Fixed(1.0))
        >>> q(torch.tensor([-0.9, 0.8, 0.7])).sum().backward()
        >>> q.codebook.levels.grad.tolist()
        [1.0, 0.0, 2.0]
    """

    def __init__(self, levels: Sequence[float] | np.ndarray | Tensor, *, name: str = "learned") -> None:
        super().__init__(levels, name=name)
        start = self.levels.float()
        del self.knots, self.levels
        self.levels = nn.Parameter(start)
        self._derive()

    def _derive(self) -> None:
        self.identity = self.unit = False
        self.affine = None

    _apply = nn.Module._apply

    @property
    def knots(self) -> Tensor:
        """The levels, without gradient."""
        return self.levels.detach()

    @property
    def _span(self) -> tuple[float, float]:
        return float(self.knots[0]), float(self.knots[-1])

    @torch.no_grad()
    def after_step(self, x: Tensor | None = None) -> None:
        """Sort the levels after an optimizer step, and part equal ones by one unit in the last place."""
        levels = self.levels.sort().values
        for k in range(1, len(levels)):
            least = torch.nextafter(levels[k - 1], levels.new_tensor(float("inf")))
            levels[k] = torch.maximum(levels[k], least)
        self.levels.copy_(levels)

    def moving(self) -> dict[str, Tensor]:
        """Return the levels."""
        return {"levels": self.levels.detach()}


def _affine(levels: Tensor) -> tuple[float, float, float] | None:
    """Return whole a, c, d with level k = (a k + c) / d, to the last bit in float32 and float64, or None."""
    d = max(len(levels) - 1, 1)
    k = torch.arange(len(levels), dtype=levels.dtype)
    a, c = (levels[-1] - levels[0]).round().item(), (levels[0] * d).round().item()
    for dtype in (torch.float32, torch.float64):
        if not torch.equal((k.to(dtype) * a + c) / d, levels.to(dtype)):
            return None
    return a, c, float(d)
