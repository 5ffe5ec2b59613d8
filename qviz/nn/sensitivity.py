"""Sensitivity: what quantizing a layer costs, estimated from gradients or measured.

INFERRED: Jia et al. (ADQ, arXiv:2510.19760) allocate bits by sensitivity; which one they use could not be
obtained. The choices here are this project's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from qviz.core import _check
from qviz.nn.perturb import Factory, Loss, as_it_was, changed, prepare, quantized, scalar


def fisher(
    model: nn.Module,
    layers: Sequence[str],
    batches: Iterable[Any],
    loss: Loss,
    quantizer: Factory,
    bits: Sequence[int] = (2, 3, 4),
    *,
    what: str = "weight",
) -> Tensor:
    """Return Ω_l(b) = 1/2 Σ_i F_ii (w_i - Q_b(w_i))², F_ii the mean over the batches of (∂loss/∂w_i)².

    The second-order estimate of the rise in loss with the Hessian replaced by the diagonal of the empirical
    Fisher matrix: one backward pass for each batch. Gradients are those of a batch's loss; for a mean over N
    samples they shrink with N, so all batches should have one size, and values compare between layers, not
    with a loss. Of activations it is the same estimate for what the layer reads, x instead of w in each
    batch: Ω_l(b) = 1/2 Σ_i (∂loss/∂x_i)² (x_i - Q_b(x_i))², the mean over the batches.

    The model is put in eval mode meanwhile (no dropout, fixed batch statistics). Afterwards weights, buffers,
    modes, ``requires_grad`` and ``.grad`` are as they were.

    Args:
        model: any module.
        layers: names of submodules, for weights with a parameter ``weight``.
        batches: calibration batches, in whatever form ``loss`` takes.
        loss: (model, batch) -> scalar.
        quantizer: bits -> a function w -> Q(w) in the unit of w; a :class:`~qviz.core.quantizer.Quantizer` is
            calibrated on w, or on each x, first.
        bits: candidates, increasing.
        what: "weight", or "activation" for the layer's (first) input.

    Returns:
        float64, shape (L, B), non-negative.

    Raises:
        ValueError: no layers, no batches, candidates not increasing, Q(w) of another shape, a value not
            finite, or another ``what``.
        TypeError: a layer has no parameter ``weight``, or the loss is no scalar tensor.

    References:
        INFERRED: this project's choice (see the module).

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.constant_(model.weight, 0.7)
        >>> to_step = lambda b: lambda w: (w * 2**b).round() / 2**b
        >>> def squared(model, x):
        ...     return model(x).square().mean()
        >>> omega = fisher(model, [""], [torch.ones(4, 1)], squared, to_step, bits=(1, 2))
        >>> omega.round(decimals=4).tolist()  # g = 1.4, errors 0.2 and 0.05
        [[0.0392, 0.0025]]
    """
    weights, batches, bits = prepare(model, layers, batches, bits, what)
    if what == "activation":
        with as_it_was(model, []), torch.enable_grad():
            return _check.finite(
                _of_inputs(model, layers, batches, loss, quantizer, bits), "the sensitivities"
            )
    rows = [
        [float((f * (w.detach().double() - quantized(quantizer, b, w)).square()).sum()) / 2 for b in bits]
        for w, f in zip(weights, information(model, layers, batches, loss), strict=True)
    ]
    return _check.finite(torch.tensor(rows, dtype=torch.float64), "the sensitivities")


def information(model: nn.Module, layers: Sequence[str], batches: Iterable[Any], loss: Loss) -> list[Tensor]:
    """Return F_ii of each layer's weights, the mean over the batches of (∂loss/∂w_i)².

    Args:
        model: any module; it is left as :func:`fisher` leaves it.
        layers: names of submodules with a parameter ``weight``.
        batches: calibration batches.
        loss: (model, batch) -> scalar.

    Returns:
        One tensor a layer, float64, of its weight's shape; zeros where the loss does not depend on it.

    Raises:
        ValueError, TypeError: as for :func:`fisher`.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> _ = nn.init.ones_(model.weight)
        >>> information(model, [""], [torch.tensor([[1.0, 2.0]])], lambda m, x: m(x).sum())
        [tensor([[1., 4.]], dtype=torch.float64)]
    """
    weights, batches, _ = prepare(model, layers, batches)
    found = [torch.zeros_like(w, dtype=torch.float64) for w in weights]
    with as_it_was(model, weights), torch.enable_grad():
        for batch in batches:
            value = scalar(loss(model, batch))
            if not value.requires_grad:
                raise ValueError(f"the loss depends on none of the layers {list(layers)}")
            gradients = torch.autograd.grad(value, weights, allow_unused=True)
            for f, g in zip(found, gradients, strict=True):
                if g is not None:
                    f += g.detach().double().square() / len(batches)
    return found


@torch.no_grad()
def loss_rise(
    model: nn.Module,
    layers: Sequence[str],
    batches: Iterable[Any],
    loss: Loss,
    quantizer: Factory,
    bits: Sequence[int] = (2, 3, 4),
    *,
    what: str = "weight",
) -> Tensor:
    """Return Ω_l(b) = max(0, L(layer l alone at b bits) - L), L the mean loss over the batches.

    Measured, not estimated: 1 + L B evaluations of all batches. The model is left as :func:`fisher` leaves
    it.

    Args:
        model: any module.
        layers: names of submodules, for weights with a parameter ``weight``.
        batches: calibration batches.
        loss: (model, batch) -> scalar.
        quantizer: as for :func:`fisher`.
        bits: candidates, increasing.
        what: "weight", or "activation" for the layer's (first) input.

    Returns:
        float64, shape (L, B), non-negative.

    Raises:
        TypeError, ValueError: as for :func:`fisher`.

    References:
        INFERRED: this project's choice (see the module).

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.constant_(model.weight, 0.7)
        >>> to_step = lambda b: lambda w: (w * 2**b).round() / 2**b
        >>> def squared(model, x):
        ...     return (model(x) - 0.7).square().mean()
        >>> omega = loss_rise(model, [""], [torch.ones(4, 1)], squared, to_step, bits=(1, 2))
        >>> omega.round(decimals=4).tolist()
        [[0.04, 0.0025]]
    """
    layers = list(layers)
    weights, batches, bits = prepare(model, layers, batches, bits, what)

    def mean_loss() -> float:
        return sum(float(scalar(loss(model, batch))) for batch in batches) / len(batches)

    rows = []
    with as_it_was(model, weights):
        base = mean_loss()
        for name in layers:
            row = []
            for b in bits:
                with changed(model.get_submodule(name), what, partial(quantized, quantizer, b)):
                    row.append(mean_loss() - base)
            rows.append(row)
    return _check.finite(torch.tensor(rows, dtype=torch.float64), "the sensitivities").clamp_(min=0.0)


def _of_inputs(
    model: nn.Module,
    layers: Sequence[str],
    batches: list[Any],
    loss: Loss,
    quantizer: Factory,
    bits: tuple[int, ...],
) -> Tensor:
    omega = torch.zeros(len(layers), len(bits), dtype=torch.float64)
    read: list[tuple[int, Tensor, list[Tensor]]] = []

    def keep(at: int, x: Tensor) -> Tensor:
        x = x if x.requires_grad else x.detach().requires_grad_()
        errors = [(x.detach().double() - quantized(quantizer, b, x)).square() for b in bits]
        read.append((at, x, errors))
        return x

    for batch in batches:
        read.clear()
        with ExitStack() as stack:
            for at, name in enumerate(layers):
                stack.enter_context(changed(model.get_submodule(name), "activation", partial(keep, at)))
            value = scalar(loss(model, batch))
        if not value.requires_grad or not read:
            raise ValueError(f"the loss depends on none of the layers {list(layers)}")
        gradients = torch.autograd.grad(value, [x for _, x, _ in read], allow_unused=True)
        for (at, _, errors), g in zip(read, gradients, strict=True):
            if g is not None:
                squares = g.double().square()
                omega[at] += torch.stack([(squares * e).sum().cpu() for e in errors]) / (2 * len(batches))
    return omega
