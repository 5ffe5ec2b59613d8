"""Loss: one number for how far a network's outputs are from where they should be."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from qviz.core._text import article
from qviz.inspection.answers import answer, class_axis
from qviz.inspection.networks import Networks
from qviz.inspection.samples import Chunk
from qviz.inspection.views import Sensitivity
from qviz.nn.batches import forward
from qviz.nn.train.batch import IGNORED, counted

UNITS = {
    "cross-entropy": "cross-entropy of the outputs, in nats",
    "mse": "mean squared error of the outputs against the labels",
    "kl": "KL divergence of the outputs from those of the float network, in nats",
    "error": "squared error of the outputs as a share of their energy in the float network",
    "given": "the loss that was given",
}
"""What the loss is, by its short name."""

Given = Callable[[Any, Tensor | None], Tensor]
"""(output, labels) -> scalar: a loss of the caller's, of what the network returns as it is."""


class Judge:
    """Knows what the float network answers, and how far another answer is from where it should be.

    Args:
        nets: The two networks.
        samples: What both see.
        given: The loss, instead of one that fits the outputs and labels.

    Attributes:
        kind: A key of :data:`UNITS`.
        classes: Whether the outputs are scores of classes.
        base: The loss of the float network.

    Raises:
        ValueError: Labels do not fit the outputs.
        TypeError: The loss that was given is no scalar.
    """

    @torch.no_grad()
    def __init__(self, nets: Networks, samples: list[Chunk], given: Given | None = None) -> None:
        self.nets, self.samples, self._given = nets, samples, given
        self._expected = [forward(nets.reference, chunk.inputs) for chunk in samples]
        pairs = [(output, chunk.labels) for output, chunk in zip(self._expected, samples, strict=True)]
        self.kind = kind(*pairs[0]) if given is None else "given"
        self.classes = class_axis(*pairs[0]) is not None
        if given is None:
            _check(self.kind, pairs)
        self.base = self._mean(self._expected)

    @torch.no_grad()
    def loss(self, model: nn.Module) -> float:
        """Return the loss of a network that takes the same samples."""
        return self._mean([forward(model, chunk.inputs) for chunk in self.samples])

    def _mean(self, found: list[Any]) -> float:
        weights, total = [], 0.0
        for z, y, chunk in zip(found, self._expected, self.samples, strict=True):
            weights.append(float(counted(chunk.labels, len(answer(y)))))
            if weights[-1]:  # the mean over no label would be NaN
                own = self._given is None
                loss = _loss(self.kind, z, y, chunk.labels) if own else self._of(z, chunk.labels)
                total += loss * weights[-1]
        if not any(weights):
            raise ValueError(f"all labels are {IGNORED}, which is no class: there is nothing to judge by")
        return total / sum(weights)

    def _of(self, output: Any, labels: Tensor | None) -> float:
        loss = self._given(output, labels)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            what = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else article(type(loss).__name__)
            raise TypeError(f"loss must return a tensor of one number, got {what}")
        return float(loss)

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


def kind(output: Any, labels: Tensor | None) -> str:
    """Return what judges the outputs of a network: a key of :data:`UNITS`.

    Args:
        output: What the network returned.
        labels: What belongs to it, whole numbers as int64; None for the outputs of the float network.

    Raises:
        ValueError: The labels are neither classes of the outputs nor numbers of their shape.
    """
    scores = class_axis(output, labels) is not None
    if labels is None:
        return "kl" if scores else "error"
    if scores:
        return "cross-entropy"
    y = answer(output)
    if labels.is_floating_point() and labels.shape == y.shape:
        return "mse"
    raise ValueError(
        f"labels of shape {tuple(labels.shape)}, {labels.dtype}, do not fit outputs of shape "
        f"{tuple(y.shape)}: give whole numbers (N, …) as classes of scores (N, classes, …), numbers in "
        "floating point of the outputs' shape, no labels, or loss="
    )


def _check(own: str, pairs: list[tuple[Any, Tensor | None]]) -> None:
    """Refuse labels that come with some batches only, or say something else in each."""
    for output, labels in pairs:
        if (found := kind(output, labels)) != own:
            raise ValueError(
                f"all batches must have labels of one kind, got some for {own} and some for {found}"
            )
        if own == "cross-entropy":
            _check_classes(labels, answer(output).shape[1])
        if own == "mse" and not bool(labels.isfinite().all()):
            bad = int((~labels.isfinite()).sum())
            raise ValueError(f"labels must be finite; {bad:,} of {labels.numel():,} are NaN or infinite")


def _check_classes(labels: Tensor, count: int) -> None:
    """Refuse classes that the network has no score of; -100 stands for none, as everywhere in torch."""
    known = labels[labels != IGNORED]
    if len(known) and not 0 <= int(known.min()) <= int(known.max()) < count:
        raise ValueError(
            f"labels are from {int(known.min())} to {int(known.max())}, and the model has {count} classes"
        )


def _loss(own: str, found: Any, expected: Any, labels: Tensor | None) -> float:
    z, y = answer(found).double(), answer(expected).double()
    if own == "cross-entropy":
        return float(functional.cross_entropy(z, labels))
    if own == "mse":
        return float((z - labels).square().mean())
    if own == "error":
        return float((z - y).square().sum() / y.square().sum().clamp(min=1e-30))
    axis = class_axis(expected)
    p, q = (v.log_softmax(axis) for v in (y, z))
    return float((p.exp() * (p - q)).sum(axis).mean())
