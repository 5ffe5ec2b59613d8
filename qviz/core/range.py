"""Range: the scale and offset that bring x onto the knots, u = (x - offset) / scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qviz.core import _check
from qviz.core.codebook import Codebook, keep_float64
from qviz.core.search import radius, search_rows


class Range(nn.Module):
    """How x is brought onto the knots, u = (x - offset) / scale, and how the level is brought back.

    Args:
        axis: the channel axis, one scale each; None for one scale in all.

    Attributes:
        rescale: whether the output is offset + scale * level (else it is the level).
        reads_input: whether the scale depends on x (ASQ), so that codes alone cannot be dequantized.
        through: which value the scale's gradient sees, the "hard" level or (PACT) the "soft" one.
        magnitudes: names of parameters that act as their magnitude, so that training may change their sign.
    """

    magnitudes: tuple[str, ...] = ()
    rescale: bool = True
    reads_input: bool = False
    through: str = "hard"

    def __init__(self, axis: int | None = None) -> None:
        super().__init__()
        if axis is not None and (isinstance(axis, bool) or not isinstance(axis, int)):
            raise TypeError(f"axis must be an int or None, got {axis!r}")
        self.axis = axis

    @property
    def calibrated(self) -> bool:
        """Whether a scale is set."""
        raise NotImplementedError

    @torch.no_grad()
    def observe(self, x: Tensor, codebook: Codebook, borders: Tensor | None = None) -> Range:
        """Set scale and offset from data; the state stays as it was when the data are refused.

        Args:
            x: samples, finite; per channel they need the axis.
            codebook: the grid that x is brought onto.
            borders: the rounding's borders, shape (K - 1,), for a search; default the midpoints.

        Raises:
            TypeError, ValueError: x is not floating point, empty, NaN, infinite, or lacks the axis.
        """
        x = _check.finite(_check.float_tensor(x)).detach()
        axis = _check.axis(self.axis, x)
        rows = x.reshape(1, -1) if axis is None else x.movedim(axis, 0).reshape(x.shape[axis], -1)
        scale, offset = self._fit(rows.to(_check.compute_dtype(x)), codebook, borders)
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))  # all zeros: any step will do
        used = torch.finfo(_check.compute_dtype(x))  # where the scale is used, it must not round to 0
        scale = scale.clamp(min=used.smallest_normal * used.eps)
        if self.rescale:  # the outermost level must be a number of x's dtype
            largest = max(float(codebook.levels.detach().abs().max()), 1.0)
            scale = scale.clamp(max=torch.finfo(x.dtype).max / largest)
        self._set(scale if axis is not None else scale[0], offset)
        return self

    def _fit(self, rows: Tensor, codebook: Codebook, borders: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return scale (C,) and offset (C,) or None for rows (C, n)."""
        raise NotImplementedError

    def _set(self, scale: Tensor, offset: Tensor | None) -> None:
        raise NotImplementedError

    def values(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return scale and offset for ``x``, differentiable in what is learned; (), (C,) or broadcastable."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return scale and offset, in the dtype of ``x`` and shaped to broadcast against it.

        Raises:
            RuntimeError: nothing was observed yet.
            ValueError: ``x`` lacks the axis or has another number of channels.
        """
        if not self.calibrated:
            raise RuntimeError(
                f"{type(self).__name__} has no scale yet: call observe(x) on the quantizer first"
            )
        scale, offset = self.values(x)
        if scale.ndim == 1:
            axis = _check.axis(self.axis, x, scale.numel())
            shape = tuple(-1 if i == axis else 1 for i in range(x.ndim))
            scale, offset = scale.view(shape), None if offset is None else offset.view(shape)
        return scale.to(x.dtype), None if offset is None else offset.to(x.dtype)

    def transform(self, x: Tensor) -> Tensor:
        """Return x as the grid is to see it; only DoReFa changes it."""
        return x

    def output(self, y: Tensor) -> Tensor:
        """Return y as it leaves the quantizer; only N2UQ changes it, by a scale of its own."""
        return y

    def extra_repr(self) -> str:
        """Show the axis in ``print(quantizer)``."""
        return f"axis={self.axis}"


class StaticRange(Range):
    """A range that is set once and not learned.

    Attributes:
        scale, offset: float64 buffers of shape () or (C,); None until :meth:`observe` sets them.
    """

    scale: Tensor | None
    offset: Tensor | None

    def __init__(self, axis: int | None = None) -> None:
        super().__init__(axis)
        self.register_buffer("scale", None)
        self.register_buffer("offset", None)

    _apply = keep_float64  # float64 stays: a step rounded to half precision moves every level

    @property
    def calibrated(self) -> bool:
        """Whether a scale is set."""
        return self.scale is not None

    def _set(self, scale: Tensor, offset: Tensor | None) -> None:
        self.scale = scale.detach().double().clone()
        self.offset = None if offset is None else offset.detach().double().clone().reshape(scale.shape)

    def values(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the buffers."""
        return self.scale, self.offset

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        for name in ("scale", "offset"):  # a fresh range has None where the saved one has a tensor
            if prefix + name in state and getattr(self, name) is None:
                setattr(self, name, torch.empty_like(state[prefix + name]))
        super()._load_from_state_dict(state, prefix, *args, **kwargs)


class Fixed(StaticRange):
    """A scale (and offset) that is given and stays; ``observe`` changes nothing.

    Args:
        scale: > 0, a number or one per channel of ``axis``.
        offset: what u = 0 stands for, like ``scale``.
        axis: the channel axis when scale is a vector.

    Raises:
        ValueError: a scale is not positive and finite, or shapes disagree.
    """

    def __init__(
        self, scale: float | Tensor = 1.0, offset: float | Tensor | None = None, *, axis: int | None = None
    ) -> None:
        super().__init__(axis)
        scale = _number(scale, "scale")
        offset = None if offset is None else _number(offset, "offset")
        if scale.ndim > 1 or (scale.ndim == 1) != (axis is not None) or scale.numel() == 0:
            raise ValueError(
                f"a scale of shape {tuple(scale.shape)} does not fit axis={axis}: "
                "give a number, or a vector and its axis"
            )
        if not bool(((scale > 0) & torch.isfinite(scale)).all()):
            raise ValueError(f"scale must be positive and finite, got {scale.tolist()}")
        if offset is not None and not (offset.numel() in (1, scale.numel()) and offset.isfinite().all()):
            raise ValueError(f"offset must be finite and have the shape of scale, got {offset.tolist()}")
        self._set(scale, None if offset is None else offset.expand(scale.shape))

    def observe(self, x: Tensor, codebook: Codebook, borders: Tensor | None = None) -> Fixed:
        """Return self; a fixed range learns nothing."""
        return self


class MinMax(StaticRange):
    """The smallest scale that cuts nothing off.

    Symmetric: scale = max over x of x / knot on its side, offset 0; a side without knots (negative
    values on an unsigned grid) is ignored. Affine: the data's minimum and maximum fall on the end knots.

    Args:
        axis: the channel axis, or None.
        symmetric: False also fits an offset.
    """

    def __init__(self, axis: int | None = None, *, symmetric: bool = True) -> None:
        super().__init__(axis)
        self.symmetric = bool(symmetric)

    def _fit(self, rows: Tensor, codebook: Codebook, borders: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if self.symmetric:
            return radius(rows, codebook).amax(1), None
        low, high = rows.amin(1).double(), rows.amax(1).double()  # their distance may overflow float32
        scale = (high - low) / (codebook.hi - codebook.lo or 1.0)
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        return scale, low - scale * codebook.lo


class Percentile(StaticRange):
    """The scale that cuts off the outermost (100 - percent) % of each row.

    Args:
        percent: in (0, 100]; 100 is :class:`MinMax`.
        axis: the channel axis, or None.

    Raises:
        ValueError: percent out of range.
    """

    def __init__(self, percent: float = 99.9, axis: int | None = None) -> None:
        super().__init__(axis)
        if isinstance(percent, bool) or not isinstance(percent, (int, float)):
            raise TypeError(f"percent must be a number, got {percent!r}")
        if not 0 < percent <= 100:
            raise ValueError(f"percent must be in (0, 100], got {percent}")
        self.percent = float(percent)

    def _fit(self, rows: Tensor, codebook: Codebook, borders: Tensor | None) -> tuple[Tensor, None]:
        need = radius(rows, codebook)
        scale = torch.from_numpy(np.percentile(need.cpu().numpy(), self.percent, axis=1)).to(rows)
        return torch.where(scale > 0, scale, need.amax(1)), None  # nearly all zeros


class MSE(StaticRange):
    """The scale with the least squared error, searched to four digits.

    A grid of scales from 2^-10 to 2 times the min-max scale, 4 % apart, then three refinements around
    the best four. Each candidate costs K searches in sorted data, not a pass over x (see
    :class:`qviz.core.summary.Summary`); the best scale may exceed the min-max one. Besides x, the search
    needs some 10 bytes a value of a float32 tensor, and per channel no more than 200 MB.

    Args:
        axis: the channel axis, or None.
    """

    def _fit(self, rows: Tensor, codebook: Codebook, borders: Tensor | None) -> tuple[Tensor, None]:
        return search_rows(rows, codebook, borders), None


def _number(value: float | Tensor, what: str) -> Tensor:
    try:
        return torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as problem:
        raise TypeError(f"{what} must be a number or a vector of numbers, got {value!r}") from problem
