"""LayerRecorder: writes down what happens to one layer's weights and quantizers while they train."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qviz.core.quantizer import Quantizer
from qviz.measure.positions import border_positions, level_positions, typical
from qviz.nn.quant_layer import QuantLayer
from qviz.nn.train.history import History
from qviz.nn.train.recording import LayerRecording

LONGEST = 64
"""Parameters of up to so many numbers are recorded."""


class LayerRecorder:
    """Records one quantized layer, step by step: hand it to ``fit(..., on_step=recorder)``.

    In a loop of your own, call it after ``adapt``: ``recorder(step, loss=loss.item())``. Each call compares
    the codes of the whole layer with those of the call before, so call it at every step. At the end
    :meth:`recording` gives what was seen; ``recorder.recording().save(path)`` keeps it.

    Args:
        model: The network, converted and calibrated. The state it is in is recorded as step 0.
        layer: The name of the layer, as in ``model.named_modules()``.
        weights: How many of its weights are recorded, evenly spread; all of a smaller layer.
        every: Steps between frames, or the steps that become frames.
        name: The name of the run.
        about: What else to note, plain types; more can be added to the attribute of that name.

    Raises:
        ValueError: There is no such layer, it has no weight quantizer or one that rounds at random, or
            ``weights`` or ``every`` is not positive.
        RuntimeError: The layer is not calibrated.

    Example:
        >>> from qviz import recipes
        >>> from qviz.nn import QuantLinear
        >>> net = nn.Sequential(QuantLinear(8, 4, weight_quantizer=recipes.lsq(2)))
        >>> _ = net[0].weight_quantizer.observe(net[0].weight)
        >>> recorder = LayerRecorder(net, "0", weights=16)
        >>> _ = nn.init.zeros_(net[0].weight)
        >>> recorder(1, loss=0.5)
        >>> recorder.recording().codes.shape
        (2, 16)
    """

    def __init__(
        self,
        model: nn.Module,
        layer: str,
        *,
        weights: int = 256,
        every: int | Iterable[int] = 1,
        name: str = "your run",
        about: dict[str, Any] | None = None,
    ) -> None:
        self._layer = _layer(model, layer)
        self._every = every if isinstance(every, int) else frozenset(every)
        for what, value in (("weights", weights), ("every", self._every)):
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{what} must be positive, got {value}")
        total = self._layer.weight.numel()
        self._at = np.linspace(0, total - 1, min(weights, total)).round().astype(np.int64)
        shape = list(self._layer.weight.shape)
        self.about = {"name": name, "layer": layer, "shape": shape, "places": self._at.tolist()}
        self.about |= about or {}
        self._frames: list[dict[str, Any]] = []
        self._history: History | None = None
        self._codes = self._seen_codes()
        self._last = torch.zeros_like(self._codes)
        self._counts = [0, 0, 0]  # steps, codes changed and returned since the last frame
        self._keep(0, math.nan)

    def __call__(self, step: int, history: History | None = None, *, loss: float = math.nan) -> None:
        """Look at the layer after the update of a step.

        Args:
            step: The number of steps done.
            history: The History of the run, as ``fit`` hands it over: it has the losses.
            loss: The loss of the step's batch, in a loop of your own.
        """
        if history is not None:
            self._history = history
        codes = self._seen_codes()
        change = (codes - self._codes).sign()
        self._counts[0] += 1
        self._counts[1] += int((change != 0).sum())
        self._counts[2] += int((change * self._last < 0).sum())
        self._last = torch.where(change != 0, change, self._last)
        self._codes = codes
        if step % self._every == 0 if isinstance(self._every, int) else step in self._every:
            self._keep(step, loss)

    def recording(self) -> LayerRecording:
        """Return everything up to now."""
        steps = np.array([frame["step"] for frame in self._frames], dtype=np.int64)
        first = self._frames[0]
        rows = {name: np.stack([frame[name] for frame in self._frames]) for name in first if name != "step"}
        own = {name: rows.pop(name) for name in ("master", "codes", "loss", "changed", "returned")}
        top1 = np.full(len(steps), np.nan, np.float32)
        if self._history is not None:
            own["loss"] = _read("loss", self._history, steps)
            top1 = _read("top1", self._history, steps) if "top1" in self._history.names else top1
        return LayerRecording(steps=steps, top1=top1, values=rows, about=self.about, **own)

    def _seen_codes(self) -> Tensor:
        return self._layer.codes().flatten().short().cpu()

    @torch.no_grad()
    def _keep(self, step: int, loss: float) -> None:
        steps, *counts = self._counts
        changed, returned = (np.float32(n / max(steps, 1) / self._codes.numel()) for n in counts)
        self._counts = [0, 0, 0]
        frame = {"step": step, "loss": np.float32(loss), "changed": changed, "returned": returned}
        frame |= {"master": self._master(), "codes": self._codes.numpy()[self._at].astype(np.uint8)}
        self._frames.append(frame | self._values())

    def _master(self) -> np.ndarray:
        q, w = self._layer.weight_quantizer, self._layer.normalized_weight().detach().float()
        z = q.range.transform(w)
        scale, offset = q.range(z)
        if scale.numel() > 1:  # one a channel: as if each had the median one
            middle = typical(q)
            z = (z if offset is None else z - offset) / scale * middle[0] + middle[1]
        return z.flatten().cpu().numpy()[self._at].astype(np.float32)

    def _values(self) -> dict[str, np.ndarray]:
        layer, found = self._layer, {}
        for kind, q in (("weight", layer.weight_quantizer), ("input", layer.input_quantizer)):
            if q is None:
                continue
            found |= _places(kind, q)
            parts = dict(q.named_parameters())
            parts |= {f"rounding.{name}": value for name, value in q.rounding.moving().items()}
            found |= {f"{kind} {name}": p for name, p in parts.items() if p.numel() <= LONGEST}
        if layer.output_scale is not None:
            found["output scale"] = layer.output_scale.abs()
        plain = {
            name: value.detach().cpu().numpy() if isinstance(value, Tensor) else value
            for name, value in found.items()
        }  # copied below: on a CPU these arrays are the parameters' own memory
        return {name: np.array(value, dtype=np.float32).reshape(-1) for name, value in plain.items()}


def _layer(model: nn.Module, name: str) -> QuantLayer:
    found = {
        n: m for n, m in model.named_modules() if isinstance(m, QuantLayer) and m.weight_quantizer is not None
    }
    if name not in found:
        raise ValueError(f"there is no layer {name!r} with a weight quantizer; there are {list(found)}")
    if found[name].weight_quantizer.rounding.random:
        raise ValueError(f"the weights of {name!r} are rounded at random: their codes are not theirs alone")
    return found[name]


def _places(kind: str, q: Quantizer) -> dict[str, np.ndarray]:
    """Return levels and borders on the axis of x, where they have places there that do not depend on x."""
    if q.range.reads_input or q.range.scale is None:
        return {}
    found = {f"{kind} levels": level_positions(q)}
    if q.rounding.borders(q.codebook) is not None:
        found[f"{kind} borders"] = border_positions(q)
    return found


def _read(name: str, history: History, steps: np.ndarray) -> np.ndarray:
    """Return a column of the History at some steps; NaN where it has none."""
    at, values = history[name]
    known = dict(zip(at.tolist(), values.tolist(), strict=True))
    return np.array([known.get(step, math.nan) for step in steps.tolist()], dtype=np.float32)
