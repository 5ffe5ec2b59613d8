"""Watch: notice what changes results without an error: two mistakes of one's own loop or script, and hooks.

Codebooks that move, and borders, need :func:`~qviz.nn.layers.adapt` after each optimizer step. And a
quantizer that was calibrated on a weight does not fit another: one that BatchNorm was folded into, or that
was loaded, after the calibration. A forward hook that returns something takes the place of the output.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from qviz.nn.quant_layer import QuantLayer

STEPS = 10
"""After so many changes of a layer's parameters without ``adapt``, it was forgotten."""

GROWTH, FLOOR = 1.5, 0.01
"""A weight is another one once its relative quantization error exceeds 1.5 times that at calibration + 0.01.
Folding BatchNorm takes it from 0.01 to 0.85; rounding (GPTQ, AdaRound) and new biases do not raise it."""


class Watch:
    """What a layer remembers for this; a forward pass looks at no tensor's values unless one changed."""

    def __init__(self) -> None:
        self._adapts: bool | None = None
        self._version: int | None = None
        self._changes = 0
        self._error: float | None = None
        self._seen: tuple[int, int] | None = None
        self._ran: frozenset[int] = frozenset()
        self._replacing: frozenset[int] = frozenset()

    def follow(self, layer: QuantLayer, y: Tensor) -> None:
        """See whether forward hooks that never ran before replace the layer's output, or write into it."""
        new = frozenset(layer._forward_hooks) - self._ran
        if not new:
            return
        before, version = weakref.ref(y), _key(y)[1]

        def last(module: nn.Module, args: tuple, output: Any) -> None:
            if module is layer:  # a replica on another device has the same hooks
                handle.remove()
                self._ran = frozenset(layer._forward_hooks)
                if output is not before() or _key(output)[1] != version:
                    self._replacing |= new

        handle = layer.register_forward_hook(last)

    def judge(self, replacing: frozenset[int]) -> None:
        """Take what a :class:`~qviz.nn.flow.Flow` saw, which knows more: hooks that make the output useless.

        Not those that only add to it or scale it, which to :meth:`follow` replace it.
        """
        self._replacing = replacing

    def replaced(self, hooks: Collection[int]) -> bool:
        """Whether one of the forward hooks on the layer, or around it, was seen to replace its output."""
        return not self._replacing.isdisjoint(hooks)

    def start(self, layer: QuantLayer) -> None:
        """Remember how well the weight quantizer fits the weight that it was calibrated on."""
        self._error, self._seen = _error(layer), _key(layer.weight)

    def adapted(self) -> None:
        """Take note that an optimizer step was followed by ``adapt``."""
        self._changes = 0

    def look(self, layer: QuantLayer) -> None:
        """Warn, once, of a mistake that shows in this forward pass."""
        if not layer.training:
            before, self._seen = self._seen, _key(layer.weight)
            if self._seen != before and self.misfit(layer):
                warnings.warn(
                    "a weight was changed after its quantizer was calibrated, which no longer fits it: fold "
                    "BatchNorm and load weights before convert, or calibrate again; report(model) tells more",
                    stacklevel=2,
                )
        elif torch.is_grad_enabled():
            self._error = None  # training moves weights, by design
            if self._adapts is None:
                self._adapts = layer.adapts
            if self._adapts:
                self._count(layer)

    def misfit(self, layer: QuantLayer) -> str:
        """Return in words how much worse the quantizer fits than at calibration; "" where it still does."""
        before = self._error
        now = None if before is None else _error(layer)
        if now is None or not now > GROWTH * before + FLOOR:
            return ""
        return f"changed after calibration: the weight's relative error is {now:.2g}, and was {before:.2g}"

    def _count(self, layer: QuantLayer) -> None:
        version = sum(_key(p)[1] for p in layer.parameters())
        self._changes += self._version not in (None, version)
        self._version = version
        if self._changes == STEPS and layer.adapts:  # it may be frozen by now
            self._changes += 1  # past it: said once
            warnings.warn(
                f"parameters changed {STEPS} times, and qviz.nn.adapt(model), which their quantizers need "
                "after each optimizer step, was not called",
                stacklevel=2,
            )


def _key(weight: Tensor) -> tuple[int, int]:
    """Return what changes with the tensor, or by an operation in place (of which inference tensors tell
    nothing).
    """
    return id(weight), 0 if weight.is_inference() else weight._version


@torch.no_grad()
def _error(layer: QuantLayer) -> float | None:
    """Return |Q(w) - w| / |w|; None where nothing is quantized, or by chance."""
    q, w = layer.weight_quantizer, layer.normalized_weight()
    return None if q is None or q.rounding.random else float((q(w) - w).norm() / w.norm())
