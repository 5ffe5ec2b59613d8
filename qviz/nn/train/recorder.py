"""Recorder: reads off, at little cost, what the quantizers of a model do while it trains."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qviz.core.quantizer import Quantizer
from qviz.nn.modules import quantizers
from qviz.nn.train.history import BUDGETS, History
from qviz.nn.train.oscillation import Oscillations, QuantizedWeights
from qviz.nn.train.series import Series

WHOLE = 8
"""Vectors of up to this many numbers are recorded whole, larger ones by mean, smallest and largest."""
TRACKED = 8
"""Weights followed in each layer."""
VECTOR_EVERY = 10
"""Codebooks, knots and borders are recorded at every so many-th record."""
CHANNELS = 16
"""Channels of which a border's coefficients, or fixed scales, are recorded."""
LEVELS = 32
"""Fixed levels are noted for codebooks of up to this many."""


class Recorder:
    """Fills the quantizers' part of a History.

    Nothing is copied from an accelerator before :meth:`drain`, and the random state is not touched.

    Args:
        model: The model, not wrapped.
        every: Steps between records; 0 records nothing.
    """

    def __init__(self, model: nn.Module, every: int) -> None:
        self.every = every
        found = quantizers(model) if every else {}
        self._quantizers = found
        self._parameters = {
            f"{name}.{inner}": p
            for name, q in found.items()
            for inner, p in q.named_parameters()
            if p.ndim <= 1 and ".adapter." not in inner
        } | _output_scales(model if every else nn.Module())
        self._magnitudes = {
            f"{name}.range.{inner}" for name, q in found.items() for inner in q.range.magnitudes
        }
        self._layers = QuantizedWeights.of(model) if every else []
        self.oscillations = Oscillations(self._layers)
        self._tracked = [layer.spread(TRACKED) for layer in self._layers]
        self._sources = {k: v for name, q in found.items() for k, v in _vectors(name, q).items()}
        self._pending: list[tuple[Callable[[int, np.ndarray], None], int, Tensor]] = []

    def start(self, history: History) -> None:
        """Give the History its series and record step 0; one that goes on has them already."""
        if not self.every or history.scalars is not None:
            return
        history.scalars = Series(self._scalar_columns(), stride=self.every, budget=BUDGETS["scalars"])
        columns = {name: read().numel() for name, read in self._sources.items()}
        history.vectors = Series(columns, stride=VECTOR_EVERY * self.every, budget=BUDGETS["vectors"])
        history.meta |= self.facts()
        self.oscillations.begin()
        self._take(history, 0)
        self.drain()

    def facts(self) -> dict[str, Any]:
        """Return what does not change: which weights are followed, levels and scales that are fixed."""
        return {
            "tracked": {
                layer.name: torch.stack(at.coordinates, 1).tolist()
                for layer, at in zip(self._layers, self._tracked, strict=True)
            },
            "levels": {
                name: q.codebook.levels.tolist()
                for name, q in self._quantizers.items()
                if len(q.codebook) <= LEVELS and "levels" not in q.codebook.moving()
            },
            "scales": {
                name: q.range.scale.double().reshape(-1)[:CHANNELS].tolist()
                for name, q in self._quantizers.items()
                if not any(True for _ in q.range.parameters()) and q.range.scale is not None
            },
        }

    def _scalar_columns(self) -> dict[str, int]:
        columns: dict[str, int] = {}
        for name, p in self._parameters.items():
            if p.numel() <= WHOLE:
                columns[name] = p.numel()
            else:
                columns |= {f"{name}.{figure}": 1 for figure in ("mean", "min", "max")}
        for layer, at in zip(self._layers, self._tracked, strict=True):
            columns[f"{layer.name}.weight.master"] = columns[f"{layer.name}.weight.quantized"] = len(at)
        return columns | {f"{layer.name}.oscillations": 1 for layer in self._layers}

    @torch.no_grad()
    def update(self, step: int, history: History, *, last: bool = False) -> None:
        """Look at the model after the update of a step, which may be the ``last`` one of the run."""
        if not self.every:
            return
        self.oscillations.update()
        self._take(history, step, last)

    @torch.no_grad()
    def _take(self, history: History, step: int, last: bool = False) -> None:
        for series, read in ((history.scalars, self._scalars), (history.vectors, self._moving)):
            if series is not None and series.wants(step, last=last):
                self._pending.append((series.close if last else series.append, step, read()))

    def _moving(self) -> Tensor:
        return torch.cat([read().detach().float().reshape(-1) for read in self._sources.values()])

    def _scalars(self) -> Tensor:
        parts: list[Tensor] = []
        for name, p in self._parameters.items():
            p = p.detach().float()
            if p.numel() > WHOLE:
                p = p.abs() if name in self._magnitudes else p
                p = torch.stack([p.mean(), *p.aminmax()])
            parts.append(p.reshape(-1))
        for layer, at in zip(self._layers, self._tracked, strict=True):
            parts += layer.values(at)
        if self._layers:
            parts.append(self.oscillations.by_layer())
        return torch.cat(parts)

    def drain(self) -> None:
        """Write what was read off into the History that it was read off for."""
        for add, step, row in self._pending:
            add(step, row.cpu().numpy().astype(np.float32))
        self._pending = []

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold; :meth:`drain` comes first."""
        return self.oscillations.state()

    def load(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self.oscillations.load(state)


def _output_scales(model: nn.Module) -> dict[str, nn.Parameter]:
    return {
        f"{name}.output_scale": module.output_scale
        for name, module in model.named_modules()
        if isinstance(getattr(module, "output_scale", None), nn.Parameter)
    }


def _vectors(name: str, q: Quantizer) -> dict[str, Any]:
    """Return the vectors of a quantizer that training moves, each as a function that reads it."""
    parts = {"codebook": q.codebook, "rounding": q.rounding}
    return {
        f"{name}.{part}.{what}": partial(_some, module, what)
        for part, module in parts.items()
        for what in module.moving()
    }


def _some(part: nn.Module, what: str) -> Tensor:
    """Return a vector that moves; of a matrix with a column for each channel, some columns."""
    value = part.moving()[what]
    return value if value.ndim < 2 else value[:, :: max(1, value.shape[1] // CHANNELS)][:, :CHANNELS]
