"""Groups: static ranges with an integer zero point, or with one scale for each group of neighbors."""

from __future__ import annotations

import torch
from torch import Tensor

from qviz.core import _check
from qviz.core.codebook import Codebook
from qviz.core.formats import fp4, to_e4m3, to_e8m0
from qviz.core.quantizer import Quantizer
from qviz.core.range import Fixed, MinMax, StaticRange


class Affine(StaticRange):
    """The scale and the integer zero point that cut nothing off: u = x / scale + zero_point.

    scale = (high - low) / (last knot - first knot) and zero_point = first knot - round(low / scale), where
    low and high are the ends of the data, extended to include 0; so 0 is a level (to the last bits of
    float32), as padding and ReLU need it. This is the field's standard for activations
    (``torch.ao.quantization``, ONNX, LiteRT).

    Args:
        axis: The channel axis, one scale and zero point each; None for one in all.

    Raises:
        ValueError: (in use) The codebook's knots are not consecutive integers.

    References:
        Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
        Inference", CVPR 2018, arXiv:1712.05877, section 2.1 and equation (1).

    Example:
        >>> from qviz import Quantizer, uniform
        >>> q = Quantizer(uniform(8, signed=False), range=Affine()).observe(torch.tensor([-1.0, 0.0, 4.1]))
        >>> round(float(q.range.scale), 4), int(q.range.zero_point), q.codes(torch.tensor([0.0])).tolist()
        (0.02, 50, [50])
    """

    @property
    def zero_point(self) -> Tensor:
        """The integer that stands for 0, int64, shape () or (C,).

        Raises:
            RuntimeError: Nothing was observed yet.
        """
        if not self.calibrated:
            raise RuntimeError("Affine has no zero point yet: call observe(x) on the quantizer first")
        return (-self.offset / self.scale).round().long()

    def _fit(self, rows: Tensor, codebook: Codebook, borders: Tensor | None) -> tuple[Tensor, Tensor]:
        if not codebook.unit or len(codebook) < 2:
            raise ValueError(f"a zero point needs knots that are consecutive integers, got {codebook!r}")
        low, high = rows.amin(1).double().clamp(max=0), rows.amax(1).double().clamp(min=0)
        scale = (high - low) / (codebook.hi - codebook.lo)
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        zero_point = (codebook.lo - (low / scale).round()).clamp(codebook.lo, codebook.hi)
        return scale, -zero_point * scale


class Grouped(StaticRange):
    """One scale (and offset) for each group of ``size`` neighbors along an axis, as 4-bit weights need it.

    A weight of shape (out, in) with size=128 and axis=-1 has in / 128 scales for each output channel.

    Args:
        size: The number of values of a group; the axis must be a multiple of it. Usual are 32, 64 and 128.
        axis: The axis along which groups lie; every index of the other axes has groups of its own.
        rule: How a group's scale is found: a static range without an axis, by default :class:`MinMax`.
        stored: What a scale is stored as, such as ``torch.float16``: it is rounded to that. None, the
            default, keeps it exact.

    Raises:
        TypeError: size or axis is not an int, rule is not fitted to data, or stored is no floating dtype.
        ValueError: size is not positive, or rule has an axis; (in use) the length of the axis is not a
            multiple of size, or x has another shape than was observed.

    Example:
        >>> from qviz import MSE, Quantizer, uniform
        >>> w = torch.randn(8, 256, generator=torch.Generator().manual_seed(0))
        >>> q = Quantizer(uniform(4), range=Grouped(128, rule=MSE())).observe(w)
        >>> q(w).shape, q.range.scale.shape
        (torch.Size([8, 256]), torch.Size([8, 2]))
    """

    def __init__(
        self,
        size: int = 128,
        axis: int = -1,
        *,
        rule: StaticRange | None = None,
        stored: torch.dtype | None = None,
    ) -> None:
        for name, value in (("size", size), ("axis", axis)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an int, got {value!r}")
        if size < 1:
            raise ValueError(f"size must be positive, got {size}")
        rule = MinMax() if rule is None else rule
        if not isinstance(rule, StaticRange) or isinstance(rule, Fixed | Grouped):
            raise TypeError(f"rule must be a range that is fitted to data, got {type(rule).__name__}")
        if rule.axis is not None:
            raise ValueError(f"rule must have no axis of its own, got axis={rule.axis}")
        if stored is not None and not (isinstance(stored, torch.dtype) and stored.is_floating_point):
            raise TypeError(f"stored must be a floating-point dtype or None, got {stored!r}")
        super().__init__(axis)
        self.size = size
        self.rule = rule
        self.stored = stored

    def observe(self, x: Tensor, codebook: Codebook, borders: Tensor | None = None) -> Grouped:
        """Set the scale of each group from data.

        Args:
            x: The samples, finite; later calls need this shape.
            codebook: The grid that x is brought onto.
            borders: The rounding's borders, shape (K - 1,), for a search; by default the midpoints.

        Raises:
            TypeError, ValueError: x is not floating point, empty, NaN, infinite, lacks the axis, or its
                length there is not a multiple of the group size.
        """
        x = _check.finite(_check.float_tensor(x)).detach()
        groups = x.movedim(_check.axis(self.axis, x), -1)
        if groups.shape[-1] % self.size:
            raise ValueError(
                f"axis {self.axis} of shape {tuple(x.shape)} has {groups.shape[-1]} values, "
                f"not a multiple of the group size {self.size}"
            )
        rows = groups.reshape(-1, self.size).to(_check.compute_dtype(x))
        scale, offset = self.rule._fit(rows, codebook, borders)
        used = torch.finfo(rows.dtype)
        scale = torch.where(scale > 0, scale, torch.ones_like(scale)).clamp(
            min=used.smallest_normal * used.eps
        )
        if self.stored is not None:
            limits = torch.finfo(self.stored)
            scale = scale.clamp(limits.smallest_normal * limits.eps, limits.max).to(self.stored).double()
        shape = (*groups.shape[:-1], -1)
        self._set(scale.view(shape), None if offset is None else offset.view(shape))
        return self

    def values(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return scale and offset of each value, of the shape of ``x``.

        Raises:
            ValueError: x has another shape than was observed.
        """
        axis = _check.axis(self.axis, x)
        shape = list(self.scale.movedim(-1, axis).shape)
        shape[axis] *= self.size
        if list(x.shape) != shape:
            raise ValueError(f"the groups were observed for shape {tuple(shape)}, got {tuple(x.shape)}")
        parts = [None if v is None else v.repeat_interleave(self.size, -1) for v in (self.scale, self.offset)]
        scale, offset = (None if v is None else v.movedim(-1, axis) for v in parts)
        return scale, offset

    def extra_repr(self) -> str:
        """Show size and axis in ``print(quantizer)``."""
        return f"size={self.size}, axis={self.axis}"


class SharedExponent(StaticRange):
    """MX's scale: a power of two, so that the largest value has the exponent of the largest level.

    scale = 2^(floor(log2 max|x|) - floor(log2 largest level)). Values above the largest level saturate.

    References:
        Open Compute Project, "OCP Microscaling Formats (MX) Specification", version 1.0, section 6.3.
    """

    def _fit(self, rows: Tensor, codebook: Codebook, borders: Tensor | None) -> tuple[Tensor, None]:
        largest = rows.abs().amax(1)
        scale = to_e8m0(largest) / to_e8m0(torch.tensor(codebook.reach, dtype=torch.float64)).to(
            largest.device
        )
        return torch.where(largest > 0, scale.clamp(2.0**-127, 2.0**127), 0.0), None


class TwoLevel(StaticRange):
    """NVFP4's scale: an FP8 (E4M3) number for each row, times one float32 number for all of them.

    all = max|x| / (448 reach) in float32, row = E4M3(max|row| / (reach all)), scale = row * all, where reach
    is the largest level and 448 the largest E4M3 number.

    References:
        NVIDIA, "Pretraining Large Language Models with NVFP4", arXiv:2509.25149, appendix on the format.
    """

    def _fit(self, rows: Tensor, codebook: Codebook, borders: Tensor | None) -> tuple[Tensor, None]:
        largest = rows.abs().amax(1).double()
        whole = (largest.max() / (448.0 * codebook.reach)).float().double()
        whole = torch.where(whole > 0, whole, 1.0)
        return to_e4m3(largest / (codebook.reach * whole)) * whole, None


def bits_per_value(q: Quantizer, numel: int) -> float:
    """Return what a value takes when it is stored, in bits: its code, and its part of scales and offsets.

    A scale takes 8 bits in MX and in NVFP4 (there the tensor takes 32 more), as many as the dtype has that it
    is stored as, and else 32; so does an offset, but a zero point takes those of a code. Levels are not
    counted.

    Args:
        q: A calibrated quantizer.
        numel: How many values it quantizes.

    Raises:
        ValueError: ``numel`` is not positive.

    Example:
        >>> w = torch.linspace(-1, 1, 1024).view(2, 512)
        >>> [bits_per_value(q.observe(w), w.numel()) for q in (mxfp4(), nvfp4())]
        [4.25, 4.53125]
    """
    if numel < 1:
        raise ValueError(f"numel must be positive, got {numel}")
    scales, stored = q.range, None
    rule = scales.rule if isinstance(scales, Grouped) else scales
    if isinstance(scales, Grouped) and scales.stored is not None:
        stored = 8 * scales.stored.itemsize
    held = (getattr(scales, name, None) for name in ("scale", "offset"))  # a range of one's own may lack them
    scale, offset = (0 if t is None else t.numel() for t in held)
    each = stored or (8 if isinstance(rule, SharedExponent | TwoLevel) else 32)
    beside = q.codebook.bits if isinstance(rule, Affine) else stored or 32
    once = 32 if isinstance(rule, TwoLevel) else 0
    return q.codebook.bits + (each * scale + beside * offset + once) / numel


def mxfp4(axis: int = -1) -> Quantizer:
    """Build MXFP4: FP4 (E2M1) with one power of two for each 32 neighbors along an axis.

    Args:
        axis: The axis along which groups lie; its length must be a multiple of 32.

    References:
        Open Compute Project, "OCP Microscaling Formats (MX) Specification", version 1.0.

    Example:
        >>> w = torch.cat([torch.linspace(-1, 1, 32), torch.linspace(-60, 60, 32)])
        >>> mxfp4().observe(w).range.scale.tolist()
        [0.25, 8.0]
    """
    return Quantizer(fp4(), range=Grouped(32, axis, rule=SharedExponent()))


def nvfp4(axis: int = -1) -> Quantizer:
    """Build NVFP4: FP4 (E2M1) with one FP8 (E4M3) scale for each 16 neighbors, and one float32 scale in all.

    Args:
        axis: The axis along which groups lie; its length must be a multiple of 16.

    References:
        As for :class:`TwoLevel`.

    Example:
        >>> w = torch.cat([torch.linspace(-1, 1, 16), torch.linspace(-60, 60, 16)])
        >>> nvfp4().observe(w).range.scale.round(decimals=4).tolist()
        [0.1674, 10.0]
    """
    return Quantizer(fp4(), range=Grouped(16, axis, rule=TwoLevel()))
