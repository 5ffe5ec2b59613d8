"""Quantizer: range, codebook, rounding and surrogate, composed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qviz.core import _check, fast_parts
from qviz.core.codebook import Codebook
from qviz.core.fast import Quantize
from qviz.core.lookup import take
from qviz.core.probe import Probe as Probe
from qviz.core.probe import probe as probe
from qviz.core.range import MSE, Range
from qviz.core.recipe import Made
from qviz.core.rounding import Nearest, Rounding
from qviz.core.surrogate import StraightThrough, Surrogate, beyond


class Quantizer(Made):
    """y = o + s * level[cell + up]: four parts, each of which can be exchanged.

    The *range* brings x to u = (x - o) / s; the *codebook* finds the cell and the coordinate t; the
    *rounding* decides up or down; the *surrogate* stands in for that decision in the backward pass:
    ``hard + (soft - soft.detach())``, which is bit-exact in the forward pass.

    Args:
        codebook: the grid.
        range: default :class:`~qviz.core.range.MSE`, searched by :meth:`observe`.
        rounding: default :class:`~qviz.core.rounding.Nearest`.
        surrogate: default clipped :class:`~qviz.core.surrogate.StraightThrough`.
        soft: the forward pass returns the relaxed value instead of a level.

    Shapes:
        x of 0 to 5 (or more) dimensions; y has its shape, dtype and device. float16 and bfloat16 are
        computed in float32. NaN stays NaN, infinities saturate.

    Raises:
        TypeError, ValueError: (in use) x is not floating point, is empty, or lacks the range's axis.
        RuntimeError: (in use) the range, or an adaptive codebook, has not observed anything yet; (from torch,
            in the backward pass) y was changed in place, by ``F.relu_(q(x))`` or ``+=``. It is kept for the
            gradients: computing it anew would take up to 1.5 times as long. The output of a quantized *layer*
            may be changed.

    Example:
        >>> import torch
        >>> from qviz import Fixed, post
        >>> q = Quantizer(post(4), range=Fixed(1.0))
        >>> q(torch.tensor([-2.0, -0.6, 0.05, 0.3, 0.43])).round(decimals=4).tolist()
        [-1.0, -0.5, 0.0, 0.25, 0.5]
    """

    def __init__(
        self,
        codebook: Codebook,
        rounding: Rounding | None = None,
        surrogate: Surrogate | None = None,
        range: Range | None = None,
        *,
        soft: bool = False,
    ) -> None:
        super().__init__()
        parts = {
            "codebook": (codebook, Codebook),
            "rounding": (rounding if rounding is not None else Nearest(), Rounding),
            "surrogate": (surrogate if surrogate is not None else StraightThrough(), Surrogate),
            "range": (range if range is not None else MSE(), Range),
        }
        for name, (part, kind) in parts.items():
            if not isinstance(part, kind):
                raise TypeError(f"{name} must be a {kind.__name__}, got {type(part).__name__}")
            setattr(self, name, part)
        self.soft = bool(soft)
        self._kept: tuple[Any, ...] | None = None

    @property
    def scale(self) -> Tensor | None:
        """The range's present scale, shape () or (C,); None before anything was observed."""
        return self.range.scale if self.range.calibrated else None

    @property
    def levels(self) -> Tensor:
        """The codebook's levels, float64, shape (K,), in the unit of the codebook (multiply by the scale)."""
        return self.codebook.levels.detach()

    @property
    def bits(self) -> int:
        """How many bits one stored code needs."""
        return self.codebook.bits

    @property
    def calibrated(self) -> bool:
        """Whether range and codebook have what they need; before, a forward pass is refused."""
        return self.range.calibrated and self.codebook.calibrated

    def restart(self) -> None:
        """Let the next :meth:`observe` place an adaptive codebook anew, instead of moving it on."""
        self.codebook.restart()

    @property
    def adapts(self) -> bool:
        """Whether :meth:`after_step` does anything."""
        book, rounding = type(self.codebook), type(self.rounding)
        moves = book.after_step is not Codebook.after_step and not self.codebook.frozen
        return moves or rounding.after_step is not Rounding.after_step

    @torch.no_grad()
    def after_step(self, x: Tensor | None = None) -> None:
        """Do what follows an optimizer step: an adaptive codebook sees x, a border is kept in its bounds.

        Args:
            x: What the quantizer quantizes, a weight for instance; without it, levels that follow data stay.
        """
        if type(self.codebook).after_step is not Codebook.after_step:
            self.codebook.after_step(None if x is None else self.range.transform(x.detach()))
        self.rounding.after_step()

    def observe(self, x: Tensor | np.ndarray) -> Quantizer:
        """Calibrate on ``x`` and return the quantizer itself: codebook, range, then learned rounding."""
        x = _check.float_tensor(x)
        with torch.no_grad():
            z = self.range.transform(x.detach().to(_check.compute_dtype(x)))
            self.codebook.observe(z)
            self.range.observe(z, self.codebook, self.rounding.borders(self.codebook))
            self.rounding.observe(self._normalize(x)[0], self.codebook)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return the quantized tensor; differentiable in x and in what is learned.

        Closed-form gradients (:class:`qviz.core.fast.Quantize`) where the parts have them, else the
        composition; :meth:`reference` is always the composition.
        """
        self._need_levels()
        x = _check.float_tensor(x)
        spec = None if self.soft or self.codebook.levels.requires_grad else fast_parts.spec(self)
        if spec is None:
            return self.reference(x)
        z = self.range.transform(x.to(_check.compute_dtype(x)))
        scale, offset = self.range(z)
        knots, levels, borders = (None, None, None) if spec.ends else fast_parts.tables(self, z.dtype)
        bend = self.rounding.bend(z, self.codebook) if spec.ends else None
        if bend is None and not spec.ends and borders is None:
            moved = x.requires_grad or any(p.requires_grad for p in self.parameters())
            return self.reference(x) if torch.is_grad_enabled() and moved else self._hard(x)
        spec, b = (spec, None) if bend is None else (replace(spec, bend=bend[0]), bend[1])
        kind = type(self.range)
        own = kind.transform is not Range.transform or kind.output is not Range.output
        given, dtype = z if own else x, x.dtype
        del z, x  # of half precision z is a copy
        y = Quantize.apply(given, scale, offset, knots, levels, borders, b, spec)
        return self.range.output(y).to(dtype)

    def _hard(self, x: Tensor) -> Tensor:
        """Return the output where no gradient is asked for; a folded AQuant takes a quarter of the time."""
        u, scale, offset = self._normalize(x)
        level = take(self.codebook.levels.to(u.dtype), self.rounding.encode(u, self.codebook))
        level = torch.where(torch.isnan(u), u, level)
        return self.range.output(self._denormalize(level, scale, offset)).to(x.dtype)

    def reference(self, x: Tensor) -> Tensor:
        """Return the same through the composition of the parts in plain autograd (twice differentiable)."""
        return self._compose(_check.float_tensor(x))["y"]

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        """Return the code of each value, uint8, the shape of ``x``; the lowest level has code 0.

        ``q.dequantize(q.codes(x))`` equals ``q(x)`` exactly (for a rounding that is not random).

        Raises:
            ValueError: a value is NaN, which no code can hold.
        """
        u = self._normalize(_check.float_tensor(x))[0]
        if missing := int(torch.isnan(u).sum()):
            raise ValueError(f"x holds {missing} of {u.numel()} values that are NaN; no code stands for NaN")
        return self.rounding.encode(u, self.codebook).to(torch.uint8)

    def dequantize(self, codes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the values that ``codes`` stand for, in ``dtype``.

        Args:
            codes: integers below K, any shape (per channel: with the range's axis).
            dtype: that of the tensor that was encoded; float64 computes in float64.

        Raises:
            TypeError: codes are not integers.
            ValueError: a code has no level.
        """
        self._need_levels()
        if self.range.reads_input:
            raise ValueError(
                f"the scale of {type(self.range).__name__} depends on the input; codes do not hold it"
            )
        if not dtype.is_floating_point:
            raise TypeError(f"dtype must be a floating-point dtype, got {dtype}")
        _check.codes(codes, len(self.codebook))
        compute = torch.float64 if dtype == torch.float64 else torch.float32
        hard = take(self.codebook.levels.to(compute), codes)
        scale, offset = self.range(hard)
        return self.range.output(self._denormalize(hard, scale, offset)).to(dtype)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the tables out of copies and pickles."""
        return {**self.__dict__, "_kept": None}

    def _need_levels(self) -> None:
        if not self.codebook.calibrated:
            name = type(self.codebook).__name__
            raise RuntimeError(f"{name} has no levels yet: call observe(x) on the quantizer first")

    def _normalize(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        self._need_levels()
        x = self.range.transform(x.to(_check.compute_dtype(x)))
        scale, offset = self.range(x)
        # divide: x * (1 / s) moves values that sit on a border
        return (x / scale if offset is None else (x - offset) / scale), scale, offset

    def _denormalize(self, value: Tensor, scale: Tensor, offset: Tensor | None) -> Tensor:
        if self.range.rescale:
            value = value * scale if offset is None else value * scale + offset
        return value

    def _compose(self, x: Tensor) -> dict[str, Tensor]:
        """Compute every intermediate in plain autograd: the readable reference."""
        u, scale, offset = self._normalize(x)
        cell, t = self.codebook.locate(u)
        up = self.rounding.decide(u.detach(), cell, t.detach(), self.codebook)
        hard = torch.where(torch.isnan(u), u.detach(), self.codebook.levels.to(u.dtype)[cell + up])
        soft = self.codebook.emit(cell, self.surrogate.relax(t))
        if not self.surrogate.clipped:
            soft = soft + beyond(u, self.codebook.lo, self.codebook.hi)
        v = u.detach().clamp(self.codebook.lo, self.codebook.hi)
        border = self.rounding.element(v, self.codebook)
        if border is not None:  # a higher border lowers the result, but moves no value on an end
            soft = soft - (border - border.detach()) * ((v > self.codebook.lo) & (v < self.codebook.hi))
        value = soft if self.soft else hard + (soft - soft.detach())
        if self.range.through == "soft" and not self.soft:  # the scale sees the saturation, not the rounding
            relaxed = self._denormalize(soft, scale, offset)
            y = self._denormalize(hard, scale, offset).detach() + (relaxed - relaxed.detach())
        else:
            y = self._denormalize(value, scale, offset)
        y = self.range.output(y).to(x.dtype)
        return {"u": u, "cell": cell, "t": t, "up": up, "hard": hard, "soft": soft, "y": y}

    def extra_repr(self) -> str:
        """Name the recipe, the scale, and a soft forward pass."""
        parts = [str(self.recipe)] if self.recipe is not None else []
        if self.range.calibrated and self.range.scale is not None:
            scale = self.range.scale.detach()
            several = f"{scale.numel()} scales from {scale.min():.4g} to {scale.max():.4g}"
            parts.append(f"scale={scale:.4g}" if scale.ndim == 0 else several)
        return ", ".join([*parts, *(["soft=True"] if self.soft else [])])
