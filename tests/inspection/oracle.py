"""What an inspection must find, from the words of its views and in float64: nothing here reads the package's
own measurements. Of qviz there are convert, calibrate, deconvert, the quantizers' codes and the file's size.

A network's outputs are those that it computes in float32, as users run it; all that is measured on them, and
a layer's own product, is in float64.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qviz.core.quantizer import Quantizer
from qviz.export import save
from qviz.nn.layers import QuantLayer


def values(x: Tensor, axis: int) -> dict[str, float]:
    """What a tensor is made of; ``tail`` as (least, most), as a quantile lies between two values."""
    a = np.moveaxis(x.double().numpy(), axis, 0).reshape(x.shape[axis], -1)
    ranges, flat = np.abs(a).max(1), a.ravel()
    away, size = flat - flat.mean(), np.sort(np.abs(flat))
    place = 0.999 * (len(flat) - 1)
    below = size[math.floor(place)], size[min(math.ceil(place) + 1, len(flat) - 1)]
    live = ranges[ranges > 1e-4 * ranges.max()]
    return {
        "count": len(flat),
        "low": flat.min(),
        "high": flat.max(),
        "mean": flat.mean(),
        "std": math.sqrt((away**2).mean()),
        "kurtosis": (away**4).mean() / (away**2).mean() ** 2,
        "tiny": float((np.abs(flat) < 1e-6 * size[-1]).mean()),
        "tail": (size[-1] / below[1], size[-1] / below[0]),
        "channels": len(ranges),
        "dead": len(ranges) - len(live),
        "narrowest": live.min(),
        "widest": live.max(),
        "spread": live.max() / live.min(),
        "ranges": ranges,
    }


def codes(q: Quantizer, x: Tensor, placed: Tensor | None = None) -> dict[str, Any]:
    """What a quantizer makes of x; where it maps to a unit of its own, the error is that of its knots.

    ``placed`` is what PTQ has made of x.
    """
    code = q.codes(x if placed is None else placed).numpy().astype(np.int64)
    scale, offset = (0.0 if t is None else t.detach().double().numpy() for t in q.range(x))
    knots, levels = q.codebook.knots.detach().double().numpy(), q.codebook.levels.detach().double().numpy()
    read = levels[code] * scale + offset if q.range.rescale else levels[code]
    x = x.double().numpy()
    u, error = (x - offset) / scale, x - (read if q.range.rescale else knots[code] * scale + offset)
    count = np.bincount(code.ravel(), minlength=len(levels))
    share = count[count > 0] / code.size
    table = (levels * np.reshape(scale, (-1, 1)) + np.reshape(offset, (-1, 1))) if q.range.rescale else levels
    first, last = (knots[1] - knots[0]) / 2, (knots[-1] - knots[-2]) / 2
    return {
        "bits": max(1, int(code.max()).bit_length()),
        "levels": len(levels),
        "used": len(share),
        "entropy": -float((share * np.log2(share)).sum()),
        "mse": float((error**2).mean()),
        "sqnr_db": 10 * math.log10((x**2).sum() / (error**2).sum()),
        "saturated": float(((u < knots[0] - first) | (u > knots[-1] + last)).mean()),
        "zeros": float((read == 0).mean()) if (table == 0).any() else None,
        "counts": count,
    }


def drawn(q: Quantizer, x: Tensor, unit: str, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the levels lie in the histogram's unit, and how many values are in each of its bins."""
    scale, offset = (0.0 if t is None else t.detach().double().numpy() for t in q.range(x))
    book = q.codebook.levels if q.range.rescale else q.codebook.knots
    book, x = book.detach().double().numpy(), x.double().numpy()
    scaled = unit == "step"
    x = (x - offset) / scale if scaled else x
    return book if scaled else book * scale + offset, np.histogram(x.clip(edges[0], edges[-1]), edges)[0]


def decibels(y: Tensor, noisy: Tensor, fitted: bool = False) -> float:
    """10 log10 (energy of y / energy of the error); ``fitted`` after the best line for each channel."""
    y, noisy = y.double().numpy(), noisy.double().numpy()
    axis = 1 if y.ndim == 4 else y.ndim - 1
    y, noisy = (np.moveaxis(v, axis, 0).reshape(v.shape[axis], -1) for v in (y, noisy))
    if fitted:
        noisy = np.stack([_fit(a, b) for a, b in zip(y, noisy, strict=True)])
    return 10 * math.log10((y**2).sum() / ((y - noisy) ** 2).sum())


def _fit(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The line a x + b that is next to y."""
    columns = np.stack([x, np.ones_like(x)], 1)
    return columns @ np.linalg.lstsq(columns, y, rcond=None)[0]


def product(layer: nn.Module, x: Tensor, w: Tensor) -> Tensor:
    """The layer's own arithmetic in float64, bias included."""
    bias = None if layer.bias is None else layer.bias.detach().double()
    x, w = x.double(), w.detach().double()
    if isinstance(layer, nn.Linear):
        return F.linear(x, w, bias)
    return F.conv2d(x, w, bias, layer.stride, layer.padding, layer.dilation, layer.groups)


@torch.no_grad()
def outputs(layer: QuantLayer, plain: nn.Module, x: Tensor, fitted: bool) -> dict[str, float]:
    """Local ratios on the inputs x that the float layer has; what is not quantized is the float layer's."""
    read, weight = layer.input_quantizer(x), layer.quantized_weight()
    y = product(plain, x, plain.weight)
    made = {
        "local": product(layer, read, weight),
        "weight": product(layer, x, weight),
        "input": product(plain, read, plain.weight),
    }
    return {name: decibels(y, noisy, fitted) for name, noisy in made.items()}


@torch.no_grad()
def run(
    model: nn.Module, images: Any, names: list[str]
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """The network's output, and the inputs and outputs of some layers, calls one after the other."""
    read: dict[str, list[Tensor]] = {name: [] for name in names}
    made: dict[str, list[Tensor]] = {name: [] for name in names}

    def keep(name: str) -> Any:
        def hook(layer: nn.Module, args: tuple[Tensor, ...], y: Tensor) -> None:
            read[name].append(args[0].detach().clone())
            made[name].append(y.detach().clone())

        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    result = model.eval()(images)
    for handle in handles:
        handle.remove()
    return result, *({n: torch.cat(t) for n, t in kept.items()} for kept in (read, made))


def kl(y: Tensor, noisy: Tensor) -> float:
    """Mean over samples of sum p log (p / q), p of the float network."""
    p, q = (F.log_softmax(v.double(), -1).numpy() for v in (y, noisy))
    return float((np.exp(p) * (p - q)).sum(-1).mean())


def cross_entropy(y: Tensor, labels: Tensor) -> float:
    """Mean over samples of - log p of the label."""
    z = y.double().numpy()
    z = z - z.max(-1, keepdims=True)
    return float((np.log(np.exp(z).sum(-1)) - z[np.arange(len(z)), labels.numpy()]).mean())


def with_layer(model: nn.Module, name: str, other: nn.Module) -> nn.Module:
    """A copy of the model that has the other model's layer of that name."""
    twin = copy.deepcopy(model)
    parent, _, child = name.rpartition(".")
    setattr(twin.get_submodule(parent), child, other.get_submodule(name))
    return twin


def packed(model: nn.Module, folder: Path) -> int:
    """Bytes of the exported file."""
    return save(model, folder / "model.qviz").stat().st_size


def average_bits(model: nn.Module) -> float:
    """Of a quantized weight, from the codes."""
    layers = [m for m in model.modules() if isinstance(m, QuantLayer) and m.weight_quantizer is not None]
    bits = [max(1, int(layer.codes().max()).bit_length()) * layer.weight.numel() for layer in layers]
    return sum(bits) / sum(layer.weight.numel() for layer in layers)
