"""Hutchinson: the trace of each layer's Hessian, and what quantizing the layer costs by it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from qviz.core import _check
from qviz.nn.perturb import Factory, Loss, as_it_was, prepare, quantized, scalar


def hutchinson(
    model: nn.Module,
    layers: Sequence[str],
    batches: Iterable[Any],
    loss: Loss,
    quantizer: Factory,
    bits: Sequence[int] = (2, 3, 4),
    *,
    probes: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return Ω_l(b) = 1/2 (tr(H_l) / n_l) Σ_i (w_i - Q_b(w_i))², H_l the layer's block of the Hessian.

    The second-order estimate of the rise in loss with every eigenvalue of the block replaced by their mean,
    so that the direction of the error does not matter: HAWQ-V2's metric, with the 1/2 of the Taylor series
    that the paper leaves out, so that it is in the unit of the loss. Traces are those of :func:`traces`. A
    trace below zero, by chance or because the loss curves downwards, counts as zero: such a layer looks free
    to quantize, which no allocator could spend.

    Args:
        model: any module.
        layers: names of submodules with a parameter ``weight``.
        batches: calibration batches.
        loss: (model, batch) -> scalar, twice differentiable.
        quantizer: as for :func:`~qviz.nn.sensitivity.fisher`.
        bits: candidates, increasing.
        probes: sign vectors for each batch, at least 1.
        generator: where the signs come from; None for torch's own generator.

    Returns:
        float64, shape (L, B), non-negative.

    Raises:
        ValueError, TypeError: as for :func:`~qviz.nn.sensitivity.fisher` and :func:`traces`.

    References:
        Dong et al., "HAWQ-V2: Hessian Aware trace-Weighted Quantization of Neural Networks", NeurIPS 2020,
        eq. 2.11. arXiv:1911.03852

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> _ = nn.init.constant_(model.weight, 0.7)
        >>> to_step = lambda b: lambda w: (w * 2**b).round() / 2**b
        >>> def squared(model, x):
        ...     return model(x).square().mean()
        >>> omega = hutchinson(model, [""], [torch.eye(2)], squared, to_step, bits=(1, 2))
        >>> omega.round(decimals=4).tolist()  # H = 1, tr / n = 1, errors of both weights 0.2 and 0.05
        [[0.04, 0.0025]]
    """
    weights, batches, bits = prepare(model, layers, batches, bits)
    mean = traces(model, layers, batches, loss, probes=probes, generator=generator).clamp_(min=0.0)
    rows = [
        [float(m * (w.detach().double() - quantized(quantizer, b, w)).square().mean()) / 2 for b in bits]
        for w, m in zip(weights, mean, strict=True)
    ]
    return _check.finite(torch.tensor(rows, dtype=torch.float64), "the sensitivities")


def traces(
    model: nn.Module,
    layers: Sequence[str],
    batches: Iterable[Any],
    loss: Loss,
    *,
    probes: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return tr(H_l), estimated by the mean of v · H_l v over the batches and over random signs v.

    H_l v is a second backward pass, one for each layer, batch and probe. A probe of one batch has the
    variance 2 Σ_{i≠j} H_ij² within the layer's block; each batch gets signs of its own, so that the mean over
    the batches evens them out too. One pass with signs for all layers at once would be cheaper and unbiased
    as well, but it would add Σ H_ij² over the blocks beside this one: many times the trace of a layer that
    has less curvature than the others. Nothing is clamped here: a trace may be negative.

    Attention is computed by its plain formula meanwhile, as torch's fused one has no second derivative. The
    model is left as :func:`~qviz.nn.sensitivity.fisher` leaves it.

    Args:
        model: any module.
        layers: names of submodules with a parameter ``weight``.
        batches: calibration batches.
        loss: (model, batch) -> scalar, twice differentiable.
        probes: sign vectors for each batch, at least 1.
        generator: where the signs come from; None for torch's own generator.

    Returns:
        float64, shape (L,).

    Raises:
        ValueError: something that the loss goes through has no second derivative, fewer than one probe, or
            as for :func:`~qviz.nn.sensitivity.fisher`.
        TypeError: as for :func:`~qviz.nn.sensitivity.fisher`.

    References:
        Hutchinson, "A stochastic estimator of the trace of the influence matrix", 1989.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> traces(model, [""], [torch.tensor([[1.0, 0.0], [0.0, 3.0]])], lambda m, x: m(x).square().sum())
        tensor([20.], dtype=torch.float64)
    """
    if isinstance(probes, bool) or not isinstance(probes, int) or probes < 1:
        raise ValueError(f"probes must be a whole number of 1 or more, got {probes!r}")
    weights, batches, _ = prepare(model, layers, batches)
    found = torch.zeros(len(weights), dtype=torch.float64)
    with as_it_was(model, weights), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        for batch in batches:
            value = scalar(loss(model, batch))
            if not value.requires_grad:
                raise ValueError(f"the loss depends on none of the layers {list(layers)}")
            found += _of_value(value, weights, probes, generator) / len(batches)
            del value  # its graph, before the next one is built
    return _check.finite(found, "the traces")


def _of_value(
    value: Tensor, weights: list[nn.Parameter], probes: int, generator: torch.Generator | None
) -> Tensor:
    found = torch.zeros(len(weights), dtype=torch.float64)
    gradients = torch.autograd.grad(value, weights, create_graph=True, allow_unused=True)
    _refuse_once_differentiable([g for g in gradients if g is not None and g.requires_grad])
    for at, (w, g) in enumerate(zip(weights, gradients, strict=True)):
        for _ in range(probes if g is not None and g.requires_grad else 0):
            v = _signs(w, generator)
            product = _product(g, w, v)
            if product is not None:
                found[at] += float((v * product).sum(dtype=torch.float64)) / probes
    return found


def _signs(w: Tensor, generator: torch.Generator | None) -> Tensor:
    device = w.device if generator is None else generator.device
    return torch.randint(2, w.shape, generator=generator, device=device).to(w).mul_(2).sub_(1)


def _product(gradient: Tensor, w: nn.Parameter, v: Tensor) -> Tensor | None:
    """Return H v; None where the gradient does not depend on w."""
    try:
        return torch.autograd.grad(gradient, w, v, retain_graph=True, allow_unused=True)[0]
    except (RuntimeError, NotImplementedError) as problem:
        if "not implemented" not in str(problem):
            raise
        raise _no_second(str(problem).strip().splitlines()[0]) from problem


def _no_second(said: str) -> ValueError:
    return ValueError(
        f"the loss goes through something that has no second derivative, which the Hessian needs: {said}"
    )


def _refuse_once_differentiable(tensors: Sequence[Tensor]) -> None:
    """Raise where the graph was cut: torch would leave out that part of the derivative and say nothing."""
    waiting = [tensor.grad_fn for tensor in tensors]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if node.name() == "torch::autograd::Error":
            raise _no_second("a function is once_differentiable")
        for below, _ in node.next_functions:
            if below is not None and below not in seen:
                seen.add(below)
                waiting.append(below)
