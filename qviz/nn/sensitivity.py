"""Sensitivity: what quantizing a layer costs, estimated from gradients or measured.

INFERRED: Jia et al. (ADQ, arXiv:2510.19760) allocate bits by sensitivity; which one they use could not be
obtained. The choices here are this project's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
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
    weights, batches, bits = _prepare(model, layers, batches, bits, what)
    if what == "activation":
        with _as_it_was(model, []), torch.enable_grad():
            return _check.finite(
                _of_inputs(model, layers, batches, loss, quantizer, bits), "the sensitivities"
            )
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
    weights, batches, bits = _prepare(model, layers, batches, bits, what)

    def mean_loss() -> float:
        return sum(float(_scalar(loss(model, batch))) for batch in batches) / len(batches)

    rows = []
    with _as_it_was(model, weights):
        base = mean_loss()
        for name in layers:
            row = []
            for b in bits:
                with _changed(model.get_submodule(name), what, partial(_quantized, quantizer, b)):
                    row.append(mean_loss() - base)
            rows.append(row)
    return _check.finite(torch.tensor(rows, dtype=torch.float64), "the sensitivities").clamp_(min=0.0)


def candidates(bits: Sequence[int]) -> tuple[int, ...]:
    """Return the bit widths to choose from, after a check that they increase."""
    bits = tuple(_check.bits(b, 1, 32, "candidates") for b in bits)
    if not bits or any(b <= a for a, b in itertools.pairwise(bits)):
        raise ValueError(f"candidates must increase, got {bits}")
    return bits


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
        errors = [(x.detach().double() - _quantized(quantizer, b, x)).square() for b in bits]
        read.append((at, x, errors))
        return x

    for batch in batches:
        read.clear()
        with ExitStack() as stack:
            for at, name in enumerate(layers):
                stack.enter_context(_changed(model.get_submodule(name), "activation", partial(keep, at)))
            value = _scalar(loss(model, batch))
        if not value.requires_grad or not read:
            raise ValueError(f"the loss depends on none of the layers {list(layers)}")
        gradients = torch.autograd.grad(value, [x for _, x, _ in read], allow_unused=True)
        for (at, _, errors), g in zip(read, gradients, strict=True):
            if g is not None:
                squares = g.double().square()
                omega[at] += torch.stack([(squares * e).sum().cpu() for e in errors]) / (2 * len(batches))
    return omega


@contextmanager
def _changed(module: nn.Module, what: str, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let a layer compute with a changed weight, or on a changed input."""

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        if args:
            return (change(args[0]).to(args[0].dtype), *args[1:]), kwargs
        first = next(iter(kwargs))
        return args, kwargs | {first: change(kwargs[first]).to(kwargs[first].dtype)}

    if what == "activation":
        handle = module.register_forward_pre_hook(hook, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()
        return
    original = module.weight.data
    module.weight.data = change(original).to(original.dtype)
    try:
        yield
    finally:
        module.weight.data = original


def _prepare(
    model: nn.Module, layers: Sequence[str], batches: Iterable[Any], bits: Sequence[int], what: str
) -> tuple[list[nn.Parameter], list[Any], tuple[int, ...]]:
    layers, batches = list(layers), list(batches)
    if what not in ("weight", "activation"):
        raise ValueError(f'what must be "weight" or "activation", got {what!r}')
    if not layers or not batches:
        raise ValueError(f"need layers and batches, got {len(layers)} layers and {len(batches)} batches")
    weights = []
    for name in layers if what == "weight" else ():
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
