"""Sensitivity: what quantizing a layer costs, estimated from gradients or measured.

INFERRED: Jia et al. (ADQ, arXiv:2510.19760) allocate bits by sensitivity; which one they use could not be
obtained. The choices here are this project's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from qviz.core import _check
from qviz.core.quantizer import Quantizer
from qviz.core.range import Range

Loss = Callable[[nn.Module, Any], Tensor]
Factory = Callable[[int], Callable[[Tensor], Tensor]]


def fisher(
    model: nn.Module,
    layers: Sequence[str],
    batches: Iterable[Any],
    loss: Loss,
    quantizer: Factory,
    bits: Sequence[int] = (2, 3, 4),
) -> Tensor:
    """Return Ω_l(b) = 1/2 Σ_i F_ii (w_i - Q_b(w_i))², F_ii the mean over the batches of (∂loss/∂w_i)².

    The second-order estimate of the rise in loss with the Hessian replaced by the diagonal of the empirical
    Fisher matrix: one backward pass for each batch. Gradients are those of a batch's loss; for a mean over N
    samples they shrink with N, so all batches should have one size, and values compare between layers, not
    with a loss.

    The model is put in eval mode meanwhile (no dropout, fixed batch statistics). Afterwards weights, buffers,
    modes, ``requires_grad`` and ``.grad`` are as they were.

    Args:
        model: any module.
        layers: names of submodules with a parameter ``weight``.
        batches: calibration batches, in whatever form ``loss`` takes.
        loss: (model, batch) -> scalar.
        quantizer: bits -> a function w -> Q(w) in the unit of w; a :class:`~qviz.core.quantizer.Quantizer` is
            calibrated on w first.
        bits: candidates, increasing.

    Returns:
        float64, shape (L, B), non-negative.

    Raises:
        ValueError: no layers, no batches, candidates not increasing, Q(w) of another shape, a value not
            finite.
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
    weights, batches, bits = _prepare(model, layers, batches, bits)
    information = [torch.zeros_like(w, dtype=torch.float64) for w in weights]
    with _as_it_was(model, weights), torch.enable_grad():
        for batch in batches:
            value = _scalar(loss(model, batch))
            if not value.requires_grad:
                raise ValueError(f"the loss depends on none of the layers {list(layers)}")
            gradients = torch.autograd.grad(value, weights, allow_unused=True)
            for f, g in zip(information, gradients, strict=True):
                if g is not None:
                    f += g.detach().double().square() / len(batches)
    rows = [
        [float((f * (w.detach().double() - _quantized(quantizer, b, w)).square()).sum()) / 2 for b in bits]
        for w, f in zip(weights, information, strict=True)
    ]
    return _check.finite(torch.tensor(rows, dtype=torch.float64), "the sensitivities")


@torch.no_grad()
def loss_rise(
    model: nn.Module,
    layers: Sequence[str],
    batches: Iterable[Any],
    loss: Loss,
    quantizer: Factory,
    bits: Sequence[int] = (2, 3, 4),
) -> Tensor:
    """Return Ω_l(b) = max(0, L(w with layer l alone at b bits) - L(w)), L the mean loss over the batches.

    Measured, not estimated: 1 + L B evaluations of all batches. The model is left as :func:`fisher` leaves
    it.

    Args:
        model: any module.
        layers: names of submodules with a parameter ``weight``.
        batches: calibration batches.
        loss: (model, batch) -> scalar.
        quantizer: as for :func:`fisher`.
        bits: candidates, increasing.

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
    weights, batches, bits = _prepare(model, layers, batches, bits)

    def mean_loss() -> float:
        return sum(float(_scalar(loss(model, batch))) for batch in batches) / len(batches)

    rows = []
    with _as_it_was(model, weights):
        base = mean_loss()
        for w in weights:
            original, row = w.data, []
            try:
                for b in bits:
                    w.data = _quantized(quantizer, b, original).to(original.dtype)
                    row.append(mean_loss() - base)
            finally:
                w.data = original
            rows.append(row)
    return _check.finite(torch.tensor(rows, dtype=torch.float64), "the sensitivities").clamp_(min=0.0)


def candidates(bits: Sequence[int]) -> tuple[int, ...]:
    """Return the bit widths to choose from, after a check that they increase."""
    bits = tuple(_check.bits(b, 1, 32, "candidates") for b in bits)
    if not bits or any(b <= a for a, b in itertools.pairwise(bits)):
        raise ValueError(f"candidates must increase, got {bits}")
    return bits


def _prepare(
    model: nn.Module, layers: Sequence[str], batches: Iterable[Any], bits: Sequence[int]
) -> tuple[list[nn.Parameter], list[Any], tuple[int, ...]]:
    layers, batches = list(layers), list(batches)
    if not layers or not batches:
        raise ValueError(f"need layers and batches, got {len(layers)} layers and {len(batches)} batches")
    weights = []
    for name in layers:
        w = getattr(model.get_submodule(name), "weight", None)
        if not isinstance(w, nn.Parameter):
            raise TypeError(f"layer {name!r} has no parameter weight, got {type(w).__name__}")
        weights.append(w)
    return weights, batches, candidates(bits)


@contextmanager
def _as_it_was(model: nn.Module, weights: list[nn.Parameter]) -> Iterator[None]:
    """Put the model in eval mode and the weights on the tape; put everything back at the end."""
    modes = [(module, module.training) for module in model.modules()]
    tape = [w.requires_grad for w in weights]
    model.eval()
    for w in weights:
        w.requires_grad_(True)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for w, needed in zip(weights, tape, strict=True):
            w.requires_grad_(needed)


@torch.no_grad()
def _quantized(quantizer: Factory, bits: int, w: Tensor) -> Tensor:
    q, w = quantizer(bits), w.detach()
    if isinstance(q, Quantizer):
        if not q.range.rescale or type(q.range).transform is not Range.transform:
            what = q.recipe or type(q.range).__name__
            raise ValueError(
                f"{what} has levels in a unit of its own: their distance from the weights is no error, "
                "and the network's loss with them tells nothing"
            )
        q.observe(w)
    y = q(w)
    if y.shape != w.shape:
        raise ValueError(f"Q(w) must have the shape {tuple(w.shape)} of w, got {tuple(y.shape)}")
    return y.detach()


def _scalar(value: Tensor) -> Tensor:
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise TypeError(f"the loss must return a scalar tensor, got {getattr(value, 'shape', value)!r}")
    return value
