"""Own loss: how far a network is from what it was, where there are no labels.

Three sensitivities need three things of a loss, and one gives them all: the divergence of the outputs from
those of the network as it is. It has its least value, zero, there, so that its gradient vanishes and its
Hessian is Jᵀ S J: J the outputs' Jacobian, S the curvature of the divergence in the outputs. That is the
Fisher matrix of the network's own answers.

- *Loss rise* takes the value with a layer quantized.
- *Fisher* takes squares of gradients, and those of the divergence vanish. So it takes gradients whose squares
  have the Hessian's diagonal for their mean: of u · f / √n, u random with E[u uᵀ] = S, drawn for each of n
  places. Labels drawn from the softmax are such a u (p less the label), but of a confident network nearly all
  are its best guess and say nothing, while a rare other one says everything; the best guess alone leaves the
  others out. Random signs r give an even one: u = √p r - p (√p · r).
- *Hutchinson* takes the trace of a layer's block of the Hessian. As tr(J_lᵀ S J_l) = E |J_lᵀ u|², the signs
  of the estimator can be drawn for the few outputs instead of the many weights: one backward pass for all
  layers in place of a second one for each, less noise, and no estimate below zero.

So the three are estimates of one number in one unit, the rise of the divergence, and compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from qviz.inspection.answers import answer, class_axis
from qviz.inspection.samples import parts
from qviz.nn.batches import Batch, forward
from qviz.nn.modules import evaluating
from qviz.nn.sensitivity import information


@dataclass(frozen=True, eq=False)
class Own:
    """A batch with what the network answers to it.

    Attributes:
        batch: What the network takes.
        outputs: What it answers: scores, classes last.
        direction: u of each answer, same shape.
        axis: Of the classes, as the network answers; None where there are none.
    """

    batch: Batch
    outputs: Tensor
    direction: Tensor
    axis: int | None

    @property
    def kind(self) -> str:
        """What judges the outputs: "kl", or "error" where there are no classes."""
        return "error" if self.axis is None else "kl"

    def drawn(self, generator: torch.Generator | None) -> Own:
        """Return the same with a direction from fresh signs."""
        y = self.outputs
        device = y.device if generator is None else generator.device
        signs = torch.randint(2, y.shape, generator=generator, device=device).to(y).mul_(2).sub_(1)
        return replace(self, direction=direction(self.kind, y, signs))


@torch.no_grad()
def own(model: nn.Module, batches: Iterable[Batch], generator: torch.Generator | None = None) -> list[Own]:
    """Return batches with the network's answers, to be judged by :func:`divergence` and :func:`slope`.

    Args:
        model: In floating point.
        batches: What it takes; labels only say whether the outputs are scores of classes, which without them
            their shape says (:func:`~qviz.inspection.answers.class_axis`).
        generator: Where the signs come from; None for torch's own generator.

    Raises:
        TypeError: The model returns no tensor to compare.
    """
    found = []
    with evaluating(model):
        for batch in batches:
            inputs, labels = parts(batch)
            output = forward(model, inputs)
            axis = class_axis(output, labels)
            y = _classes_last(answer(output), axis)
            found.append(Own(inputs, y, y, axis).drawn(generator))
    return found


def divergence(model: nn.Module, batch: Own) -> Tensor:
    """Return KL(own ‖ new) in nats, the mean over the places, or Σ (new - own)² / Σ own².

    Example:
        >>> model = nn.Linear(1, 2, bias=False)
        >>> _ = nn.init.zeros_(model.weight)
        >>> one, = own(model, [torch.ones(3, 1)])
        >>> divergence(model, one).item()
        0.0
        >>> with torch.no_grad():
        ...     model.weight[0] = 1.0
        >>> round(divergence(model, one).item(), 4)  # of (0.5, 0.5) and softmax(1, 0)
        0.1201
    """
    y, z = batch.outputs, _scores(model, batch)
    if batch.kind == "error":
        return (z - y).square().sum() / _energy(y)
    p, q = y.log_softmax(-1), z.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).mean()


def slope(model: nn.Module, batch: Own) -> Tensor:
    """Return u · f / √n: the mean square of its gradient is the diagonal of the divergence's Hessian."""
    places = 1 if batch.kind == "error" else batch.outputs[..., 0].numel()
    return (batch.direction * _scores(model, batch)).sum() / places**0.5


def own_traces(
    model: nn.Module,
    layers: Sequence[str],
    batches: Sequence[Own],
    *,
    probes: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the trace of each layer's block of the divergence's Hessian, the mean over the batches.

    The number that :func:`~qviz.nn.hutchinson.traces` estimates of :func:`divergence`, from signs in the
    outputs; ``probes`` backward passes a batch. float64, shape (L,), non-negative.
    """
    found = torch.zeros(len(layers), dtype=torch.float64)
    for _ in range(probes):
        squares = information(model, layers, [batch.drawn(generator) for batch in batches], slope)
        found += torch.tensor([float(f.sum()) for f in squares], dtype=torch.float64) / probes
    return found


def direction(kind: str, y: Tensor, signs: Tensor) -> Tensor:
    """Return u of the answers y, from as many random signs."""
    if kind == "error":
        return signs * (2.0 / _energy(y)).sqrt()
    p = y.softmax(-1)
    return p.sqrt() * signs - p * (p.sqrt() * signs).sum(-1, keepdim=True)


def _scores(model: nn.Module, batch: Own) -> Tensor:
    return _classes_last(answer(forward(model, batch.batch)), batch.axis)


def _classes_last(y: Tensor, axis: int | None) -> Tensor:
    return y if axis is None else y.movedim(axis, -1)


def _energy(y: Tensor) -> Tensor:
    return y.square().sum().clamp(min=torch.finfo(y.dtype).tiny)
