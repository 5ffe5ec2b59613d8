"""Oscillations: how often weights flip back and forth between levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qviz.core.quantizer import Quantizer
from qviz.nn.quant_layer import QuantLayer

WATCHED = 512
"""Weights watched in each layer, evenly spread; all of a smaller layer."""


@dataclass(frozen=True)
class QuantizedWeights:
    """A layer's weight and the quantizer that it passes through.

    Attributes:
        name: The name of the layer.
        module: The layer, with ``weight`` and ``weight_quantizer``.
    """

    name: str
    module: nn.Module

    @classmethod
    def of(cls, model: nn.Module) -> list[QuantizedWeights]:
        """Return the layers whose weights are quantized, without those that round at random."""
        return [
            cls(name, module)
            for name, module in model.named_modules()
            if isinstance(getattr(module, "weight_quantizer", None), Quantizer)
            and not module.weight_quantizer.rounding.random
        ]

    def spread(self, count: int) -> Places:
        """Return up to ``count`` places of the weight, evenly spread."""
        weight = self.module.weight
        total = weight.numel()
        flat = np.linspace(0, total - 1, min(count, total)).round().astype(np.int64)
        return Places(weight, tuple(int(i) for i in flat))

    def _seen(self) -> Tensor:
        """Return the weight as its quantizer sees it (standardized, where the layer does that)."""
        layer = self.module
        return (layer.normalized_weight() if isinstance(layer, QuantLayer) else layer.weight).detach()

    def values(self, at: Places) -> list[Tensor]:
        """Return master and quantized weights at these places."""
        master = self._seen()
        return [at.of(master).float(), at.of(self.module.weight_quantizer(master).detach()).float()]

    def codes(self, at: Places) -> Tensor:
        """Return the codes at these places, int16."""
        q, w = self.module.weight_quantizer, self._seen()
        if q.rounding.borders(q.codebook) is None:  # it needs the whole tensor
            return at.of(q.codes(w)).short()
        z = q.range.transform(w.float())
        scale, offset = q.range(z)
        u = at.of(z) if offset is None else at.of(z) - at.spread_over(offset)
        return q.rounding.encode(u / at.spread_over(scale), q.codebook).short()


class Places:
    """Some elements of a weight, read quickly from any tensor of its shape.

    Args:
        weight: The tensor whose shape and device count.
        flat: The positions in the order of ``weight.flatten()``.
    """

    def __init__(self, weight: Tensor, flat: tuple[int, ...]) -> None:
        self.shape, self.flat = weight.shape, flat
        self.coordinates = tuple(
            torch.from_numpy(np.asarray(i)).to(weight.device)
            for i in np.unravel_index(flat, tuple(weight.shape))
        )
        self._offsets: dict[tuple[int, ...], Tensor] = {}

    def __len__(self) -> int:
        return len(self.flat)

    def of(self, values: Tensor) -> Tensor:
        """Return the elements of a tensor of the weight's shape, in any memory format."""
        strides = values.stride()
        if strides not in self._offsets:
            self._offsets[strides] = sum(i * s for i, s in zip(self.coordinates, strides, strict=True))
        # one index into the memory is four times faster than one for each axis
        span = 1 + sum((n - 1) * s for n, s in zip(self.shape, strides, strict=True))
        return values.as_strided((span,), (1,)).index_select(0, self._offsets[strides])

    def spread_over(self, scale: Tensor) -> Tensor:
        """Return a scale or an offset as it applies to the elements."""
        return scale.reshape(()) if scale.numel() == 1 else self.of(scale.expand(self.shape))


class Oscillations:
    """Counts, for watched weights, the changes of code that go against the change before.

    A weight oscillates at a step when its code changes and the sign of that change is opposite to that of its
    previous change, however long ago.

    Args:
        layers: The layers whose weights are watched.

    References:
        Nagel et al., "Overcoming Oscillations in Quantization-Aware Training", ICML 2022, arXiv:2203.11086,
        section 3.1. Watching :data:`WATCHED` weights of a layer instead of all is this project's.
    """

    def __init__(self, layers: list[QuantizedWeights]) -> None:
        self._layers = layers
        self._at = [layer.spread(WATCHED) for layer in layers]
        self._sizes = [len(at) for at in self._at]
        self._codes = self._last = self._flips = torch.zeros(0, dtype=torch.int16)

    def begin(self) -> None:
        """Take the present codes as the start."""
        if self._layers:
            self._codes = self._now()
            self._last = torch.zeros_like(self._codes)
            self._flips = torch.zeros_like(self._codes, dtype=torch.int32)

    def _now(self) -> Tensor:
        return torch.cat([layer.codes(at) for layer, at in zip(self._layers, self._at, strict=True)])

    @torch.no_grad()
    def update(self) -> None:
        """Compare with the codes of the step before."""
        if not self._layers:
            return
        codes = self._now()
        change = (codes - self._codes).sign_()
        self._flips += change * self._last < 0
        self._last = torch.where(change != 0, change, self._last)
        self._codes = codes

    def by_layer(self) -> Tensor:
        """Return oscillations so far per watched weight, one number a layer, float32."""
        if not self._layers:
            return torch.zeros(0)
        return torch.stack([part.float().mean() for part in self._flips.split(self._sizes)])

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""
        return {"codes": self._codes, "last": self._last, "flips": self._flips}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        device = self._at[0].coordinates[0].device if self._at else torch.device("cpu")
        self._codes, self._last, self._flips = (state[name].to(device) for name in ("codes", "last", "flips"))
