"""Weights on their grid: the levels that each output channel of a layer may choose from."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from qviz.core.range import Fixed, Range
from qviz.core.rounding import Nearest
from qviz.nn.ptq.moments import groups
from qviz.nn.quant_layer import QuantLayer


class WeightGrid:
    """The values s · level + o of each output channel, and the way back into an ordinary layer.

    Weights are (G, R, K): groups, output channels of a group, inputs of an output channel; float64.

    Args:
        layer: A calibrated layer whose weight quantizer rounds to the nearest of fixed levels, with a scale
            in all or one each output channel.
        name: Of the layer, for what is raised.

    Attributes:
        scale: s, (G, R, 1).
        offset: o, (G, R, 1), or None.

    Raises:
        ValueError: Another rounding, a standardized weight, an output scale (DAQ), scales within a channel
            (groups), a transformed weight (DoReFa): with any of these, a weight's value is not its level
            times its scale, or has no place where it could stay.
        RuntimeError: The layer is not calibrated.
    """

    def __init__(self, layer: QuantLayer, name: str) -> None:
        if why := _obstacle(layer):
            raise ValueError(f"layer {name!r}: {why}")
        layer._check()
        self._layer, self._quantizer = layer, layer.weight_quantizer
        self._levels, self._borders = self._quantizer.levels, self._quantizer.codebook.borders
        self.scale = self._by_row(self._quantizer.range.scale)
        self.offset = (
            None if self._quantizer.range.offset is None else self._by_row(self._quantizer.range.offset)
        )

    def _by_row(self, value: Tensor) -> Tensor:
        outputs, parts = self._layer.weight.shape[0], groups(self._layer)
        return value.double().expand(outputs).reshape(parts, outputs // parts, 1).clone()

    @property
    def per_channel(self) -> bool:
        """Whether each output channel has a scale of its own."""
        return self._quantizer.range.axis is not None

    @property
    def scalable(self) -> bool:
        """Whether the scale may be moved; a fixed one (ADQ's) stays."""
        return not isinstance(self._quantizer.range, Fixed)

    def codes(self, w: Tensor) -> Tensor:
        """Return the code of the nearest level, int64; w (G, R, n)."""
        u = (w if self.offset is None else w - self.offset) / self.scale
        return torch.bucketize(u.contiguous(), self._borders.to(u.device))

    def value(self, codes: Tensor) -> Tensor:
        """Return what codes (G, R, n) stand for."""
        value = self._levels[codes] * self.scale
        return value if self.offset is None else value + self.offset

    def nearest(self, w: Tensor) -> Tensor:
        """Return the nearest value on the grid; w (G, R, n)."""
        return self.value(self.codes(w))

    def refit(self, codes: Tensor, target: Tensor, hessian: Tensor) -> None:
        """Set scale and offset to those of the least squared error (ŵ - target) H (ŵ - target)ᵀ.

        A scale that would not be positive, as that of a row of zeros, stays.

        Args:
            codes: The codes that stay, (G, R, K).
            target: (G, R, K).
            hessian: H, (G, K, K).
        """
        level = self._levels[codes]
        if self.offset is not None:  # remove the part that the offset explains: its own best value follows
            one = torch.ones_like(level)
            across = hessian.sum((-2, -1))[:, None, None]
            push = one @ hessian
            along = (push * level).sum(-1, keepdim=True) / across
            mean = (push * target).sum(-1, keepdim=True) / across
            self._rescale(level - along, target - mean, hessian)
            self.offset = mean - self.scale * along
        else:
            self._rescale(level, target, hessian)

    def stretch(self, factor: Tensor) -> None:
        """Multiply every value of each output channel by a positive factor, (G, R)."""
        self.scale = self.scale * factor[..., None]
        self.offset = None if self.offset is None else self.offset * factor[..., None]

    def _rescale(self, level: Tensor, target: Tensor, hessian: Tensor) -> None:
        weighted = level @ hessian
        up, down = ((weighted * t).sum(-1, keepdim=True) for t in (target, level))
        if not self.per_channel:
            up, down = (t.sum().expand_as(t) for t in (up, down))
        scale = up / down
        self.scale = torch.where((up > 0) & (down > 0) & scale.isfinite(), scale, self.scale)

    @torch.no_grad()
    def write(self, codes: Tensor) -> None:
        """Give the layer the present scale and offset, and the weight that the codes stand for."""
        layer, q = self._layer, self._quantizer
        if self.scalable:
            scale, offset = (None if t is None else t.flatten() for t in (self.scale, self.offset))
            if not self.per_channel:
                scale, offset = scale[0], None if offset is None else offset[0]
            q.range._set(scale, offset)
        layer.weight.copy_(q.dequantize(codes.reshape(layer.weight.shape), layer.weight.dtype))


def set_bias(layer: QuantLayer, bias: Tensor) -> None:
    """Give a layer a bias, (G, R), whether it had one or not."""
    bias = bias.flatten().to(layer.weight)
    if layer.bias is None:
        layer.bias = nn.Parameter(bias)
    else:
        layer.bias.data.copy_(bias)


def refuse_tied(model: nn.Module, names: Collection[str], which: Collection[str]) -> None:
    """Refuse layers whose parameters other modules hold too, as what is written for one is there for all.

    Args:
        model: The network.
        names: Of the layers that are written to.
        which: The parameters that are: "weight", "bias" or both.

    Raises:
        ValueError: There is such a layer; the modules are named.
    """
    spans: dict[int, list[tuple[str, int, int]]] = {}
    for name, module in model.named_modules():
        for t in (*module._parameters.values(), *module._buffers.values()):
            if t is not None and not is_lazy(t) and not t.is_meta and t.numel():
                spans.setdefault(_storage(t), []).append((name, *_span(t)))
    for name in names:
        for what in which:
            t = getattr(model.get_submodule(name), what)
            if t is None:
                continue
            first, end = _span(t)
            held = spans.get(_storage(t), ())
            others = [other for other, low, high in held if other != name and low < end and first < high]
            if others:
                raise ValueError(
                    f"layers {name!r} and {others[0]!r} hold one {what}: what is set for one would overwrite "
                    "what is set for the other; give each its own copy, name them in skip=, or take "
                    "method='nearest' without correction=, which sets none"
                )


def _storage(t: Tensor) -> int:
    return t.untyped_storage().data_ptr()


def _span(t: Tensor) -> tuple[int, int]:
    """Return where a tensor begins in its storage and where it ends, in elements."""
    reach = sum((size - 1) * stride for size, stride in zip(t.shape, t.stride(), strict=True))
    return t.storage_offset(), t.storage_offset() + reach + 1


def _obstacle(layer: QuantLayer) -> str | None:
    q = layer.weight_quantizer
    if layer.standardize:
        return "its weight is standardized, which would undo a change to single weights"
    if layer.output_scale is not None:
        return "it has an output scale (DAQ), of which its weight's scale knows nothing"
    if "weight" not in layer._parameters:
        return "its weight is computed (pruned or parametrized) and cannot be set"
    if type(q.rounding) is not Nearest:
        return f"its weight is rounded by {type(q.rounding).__name__} and not to the nearest level"
    kind = type(q.range)
    if kind.transform is not Range.transform or kind.output is not Range.output or not q.range.rescale:
        return f"{kind.__name__} transforms the weight, so that it is no level times a scale"
    if (q.range.calibrated and q.range.scale.ndim > 1) or q.range.axis not in (None, 0):
        return f"{kind.__name__} has more than one scale an output channel"
    return None
