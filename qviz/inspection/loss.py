"""Loss: one number for how far a network's outputs are from where they should be."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from qviz.inspection.answers import answer, scored
from qviz.inspection.networks import Networks
from qviz.inspection.samples import Chunk
from qviz.inspection.views import Sensitivity
from qviz.nn.batches import forward
from qviz.nn.train.batch import classes

UNITS = {
    "cross-entropy": "cross-entropy of the outputs, in nats",
    "kl": "KL divergence of the outputs from those of the float network, in nats",
    "error": "squared error of the outputs as a share of their energy in the float network",
}
"""What the loss is, by its short name."""

IGNORED = -100
"""The label of a place that has none."""


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
        outputs = [forward(nets.reference, chunk.inputs) for chunk in samples]
        self.expected = [answer(output) for output in outputs]
        self.kind = _kind(self.expected, samples, scored(outputs[0]))
        self.base = self._mean(self.expected)

    @torch.no_grad()
    def loss(self, model: nn.Module) -> float:
        """Return the loss of a network that takes the same samples."""
        return self._mean([answer(forward(model, chunk.inputs)) for chunk in self.samples])

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

    with module.register_forward_hook(answer, with_kwargs=True):
        yield


def _kind(expected: list[Tensor], samples: list[Chunk], scores: bool) -> str:
    labels = [chunk.labels for chunk in samples]
    if scores and all(classes(y, own) for own, y in zip(labels, expected, strict=True)):
        _check_classes(torch.cat(labels), expected[0].shape[1])
        return "cross-entropy"
    y = expected[0]
    return "kl" if scores and y.ndim > 1 and y.shape[_axis(y)] > 1 else "error"


def _check_classes(labels: Tensor, count: int) -> None:
    """Refuse classes that the network has no score of; -100 stands for none, as everywhere in torch."""
    known = labels[labels != IGNORED]
    if len(known) and not 0 <= int(known.min()) <= int(known.max()) < count:
        raise ValueError(
            f"labels are from {int(known.min())} to {int(known.max())}, and the model has {count} classes"
        )


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
