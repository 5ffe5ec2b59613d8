"""Loss: one number for how far a network's outputs are from where they should be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from qviz.inspection.networks import Networks
from qviz.inspection.views import Sensitivity
from qviz.nn.batches import Batch, batches_of, forward
from qviz.nn.train.batch import TARGETS, classes, each, logits, size

UNITS = {
    "cross-entropy": "cross-entropy of the outputs, in nats",
    "kl": "KL divergence of the outputs from those of the float network, in nats",
    "error": "squared error of the outputs as a share of their energy in the float network",
}
"""What the loss is, by its short name."""


@dataclass(frozen=True)
class Chunk:
    """Some samples: what the network takes, and their classes where they are known."""

    inputs: Any
    labels: Tensor | None = None


def chunks(images: Batch | Iterable[Batch], length: int) -> list[Chunk]:
    """Return images in chunks of at most so many samples.

    Args:
        images: A tensor or an array, samples in axis 0; a pair (images, labels); a mapping of keyword
            arguments, with or without labels; or a loader of these, of which the first eight batches count.
        length: Of a chunk.

    Raises:
        TypeError: They are nothing of that.
        ValueError: There are none, or some of them are NaN or infinite.
    """
    found = [part for one in batches_of(images) for part in _split(one, length)]
    if not found:
        raise ValueError("there are no images: the batch has no samples")
    for chunk in found:
        each(chunk.inputs, _check)
    return found


def _split(batch: Batch, length: int) -> list[Chunk]:
    labels = None
    if isinstance(batch, Mapping):
        found = [key for key in TARGETS if key in batch]
        labels = batch[found[0]] if len(found) == 1 else None
        batch = {key: _tensor(value) for key, value in batch.items() if key not in found}
    elif isinstance(batch, (tuple, list)):
        if not 1 <= len(batch) <= 2:
            raise TypeError(f"a batch must be images or a pair (images, labels), got {len(batch)} things")
        batch, labels = (batch[0], batch[1] if len(batch) == 2 else None)
    inputs = batch if isinstance(batch, Mapping) else _tensor(batch)
    labels = _tensor(labels)
    n = size(inputs, None)
    parts = [slice(at, at + length) for at in range(0, n, length)]

    def cut(part: slice) -> Any:
        return each(inputs, lambda t: t[part] if t.ndim and len(t) == n else t)

    return [Chunk(cut(part), None if labels is None else labels[part]) for part in parts]


def _tensor(value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _check(x: Tensor) -> Tensor:
    if x.is_floating_point() and not bool(x.isfinite().all()):
        bad = int((~x.isfinite()).sum())
        raise ValueError(f"images must be finite; {bad:,} of {x.numel():,} values are NaN or infinite")
    return x


class Judge:
    """Knows what the float network answers, and how far another answer is from where it should be.

    Args:
        nets: The two networks.
        samples: What both see.

    Attributes:
        kind: A key of :data:`UNITS`.
        base: The loss of the float network.
    """

    @torch.no_grad()
    def __init__(self, nets: Networks, samples: list[Chunk]) -> None:
        self.nets, self.samples = nets, samples
        self.expected = [logits(forward(nets.reference, chunk.inputs)) for chunk in samples]
        self.kind = _kind(self.expected, samples)
        self.base = self._mean(self.expected)

    @torch.no_grad()
    def loss(self, model: nn.Module) -> float:
        """Return the loss of a network that takes the same samples."""
        return self._mean([logits(forward(model, chunk.inputs)) for chunk in self.samples])

    def _mean(self, found: list[Tensor]) -> float:
        losses = [
            _loss(self.kind, z, y, chunk.labels) * len(y)
            for z, y, chunk in zip(found, self.expected, self.samples, strict=True)
        ]
        return sum(losses) / sum(map(len, self.expected))

    def sensitivities(self, step: Callable[[str], None]) -> dict[str, Sensitivity]:
        """Return what each layer does alone, and what it would gain to leave it alone.

        Args:
            step: Called with the name of each layer before it is measured.
        """
        all_on = self.loss(self.nets.quantized)
        found = {}
        for name in self.nets.layers:
            step(name)
            quantized, twin = (net.get_submodule(name) for net in (self.nets.quantized, self.nets.reference))
            with instead(twin, quantized):
                on = self.loss(self.nets.reference) - self.base
            with instead(quantized, twin):
                off = all_on - self.loss(self.nets.quantized)
            found[name] = Sensitivity(on, off)
        return found


@contextmanager
def instead(module: nn.Module, other: nn.Module) -> Any:
    """Let another module answer wherever this one is called."""

    def answer(_: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> Any:
        return other(*args, **kwargs)

    handle = module.register_forward_hook(answer, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _kind(expected: list[Tensor], samples: list[Chunk]) -> str:
    scores = expected[0]
    if all(
        chunk.labels is not None and classes(y, chunk.labels)
        for chunk, y in zip(samples, expected, strict=True)
    ):
        return "cross-entropy"
    return "kl" if scores.ndim > 1 and scores.shape[_axis(scores)] > 1 else "error"


def _axis(scores: Tensor) -> int:
    """Return the axis of the classes: the second, but the last of (N, T, classes)."""
    return -1 if scores.ndim == 3 else 1


def _loss(kind: str, z: Tensor, y: Tensor, labels: Tensor | None) -> float:
    if kind == "cross-entropy":
        return float(functional.cross_entropy(z.double(), labels))
    if kind == "error":
        return float((z - y).double().square().sum() / y.double().square().sum().clamp(min=1e-30))
    p, q = (v.double().log_softmax(_axis(v)) for v in (y, z))
    return float((p.exp() * (p - q)).sum(_axis(y)).mean())
