"""Budget: which layers need their bits, by three estimates, and what bits buy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from qviz.inspection.choices import ESTIMATES, Budget, Choice, Matrix, agreement
from qviz.inspection.own_loss import divergence, own, own_traces, slope
from qviz.methods.method import Pair
from qviz.nn.allocate import Factory, Loss, candidates, exact
from qviz.nn.hutchinson import traces
from qviz.nn.modules import evaluating
from qviz.nn.perturb import changed, fitted, quantized
from qviz.nn.sensitivity import information

STEP = 0.5
"""Average bits between two choices."""


def budget(
    model: nn.Module,
    layers: Sequence[str],
    batches: Iterable[Any],
    *,
    quantizer: Factory,
    bits: Sequence[int] = (2, 3, 4, 6, 8),
    loss: Loss | None = None,
    rise_bits: Sequence[int] | None = None,
    by: str = "fisher",
    probes: int = 1,
    seed: int = 0,
    done: Callable[[str], None] = lambda _: None,
) -> Budget:
    """Return three sensitivities of the layers' weights and what a number of bits buys by one of them.

    Without ``loss`` all are estimates of one number, the rise of the divergence of the network's outputs from
    its own (:mod:`qviz.inspection.own_loss`), which needs no labels. An estimate adds up what layers cost one
    by one and takes the loss for a parabola, so a choice of few bits costs more than it predicts; what it
    costs is measured beside it.

    Each weight is quantized once for each candidate. On top come 1 + ``probes`` backward passes of all
    batches, and one run of them for each layer and ``rise_bits``, and for each choice.

    Args:
        model: In floating point; it is run in eval mode and left as it was.
        layers: Names of submodules with a parameter ``weight``.
        batches: What the model takes; some few samples each, as gradients take memory.
        quantizer: bits -> a function w -> Q(w) in the unit of w, as :func:`of_pair` makes it.
        bits: Candidates, increasing.
        loss: (model, batch) -> scalar, instead of the divergence, twice differentiable. Its squared gradients
            are in no unit that compares with it (:func:`~qviz.nn.sensitivity.fisher`), so choose by another
            estimate. A trace then takes a second backward pass for each layer.
        rise_bits: Candidates at which the rise is measured for each layer alone, none for (); None for the
            fewest bits. ``by="loss_rise"`` needs them all.
        by: The estimate that the choices are made by.
        probes: Of the trace, for each batch.
        seed: Of the signs.
        done: Called with a word for each part that is done.

    Raises:
        ValueError: No layers or batches, candidates not increasing, quantizers with a unit of their own,
            a loss without second derivatives, an unknown ``by``.
        TypeError: A layer has no weight, the model returns no tensor, the loss no scalar.

    Example:
        >>> from qviz.recipes import pair
        >>> _ = torch.manual_seed(0)
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> lsq = of_pair(pair("lsq", 4))
        >>> found = budget(net, ["0", "2"], [torch.rand(16, 4)], quantizer=lsq, bits=(2, 4))
        >>> [(choice.average, choice.bits, choice.packed) for choice in found.choices]
        [(2.0, (2, 2), 14), (2.857142857142857, (2, 4), 20), (4.0, (4, 4), 28)]
    """
    layers, batches, bits = list(layers), list(batches), candidates(bits)
    rise_bits = bits[:1] if rise_bits is None else tuple(rise_bits)
    _check_choice(by, bits, rise_bits)
    generator = torch.Generator().manual_seed(seed)
    with evaluating(model):
        samples = own(model, batches, generator) if loss is None else batches
        rise, gradient = (divergence, slope) if loss is None else (loss, loss)
        find = own_traces if loss is None else partial(traces, loss=loss)
        information_of = information(model, layers, samples, gradient)
        done("fisher")
        trace = find(model, layers, samples, probes=probes, generator=generator).clamp_(min=0.0)
        done("hutchinson")
        trial = _Trial(model, layers, samples, rise)
        rows = []
        for at, name in enumerate(layers):
            rows.append(trial.layer(at, quantizer, bits, rise_bits, information_of[at], float(trace[at])))
            done(name)
        found = dict(zip(ESTIMATES, zip(*rows, strict=True), strict=True))
        sizes = [w.numel() for w in trial.weights]
        choices = [trial.choice(c, sizes, bits, found[by]) for c in _front(found[by], sizes, bits)]
        all_equal = [trial.choice((b,) * len(layers), sizes, bits, found[by]) for b in bits]
        done("choices")
    return Budget(
        layers=tuple(layers),
        sizes=tuple(sizes),
        bits=bits,
        loss="given" if loss is not None else samples[0].kind,
        **found,
        rise_bits=rise_bits,
        by=by,
        choices=tuple(choices),
        all_equal=tuple(all_equal),
        agreement=agreement(found, bits, rise_bits),
    )


def of_pair(pair: Pair) -> Factory:
    """Return what makes the weight quantizers of a pair, at any number of bits.

    Raises:
        ValueError: The pair has none, or standardizes weights, so that their error is in another unit.
    """
    if pair.weight is None or pair.standardize:
        why = "standardizes weights" if pair.weight is not None else "does not quantize weights"
        raise ValueError(f"{pair.name} {why}, so that there is no error of weights to compare with a loss")
    return lambda bits: _Made(pair.with_bits(bits).weight)


class _Made:
    """A quantizer that is made and calibrated for the first weight it sees."""

    def __init__(self, make: Callable[[Any], nn.Module]) -> None:
        self._make, self._quantizer = make, None

    def __call__(self, w: Tensor) -> Tensor:
        if self._quantizer is None:
            self._quantizer = fitted(self._make(SimpleNamespace(weight=w)), w)
        return self._quantizer(w)


class _Trial:
    """A network that is run with some of its weights quantized."""

    def __init__(self, model: nn.Module, layers: list[str], samples: list[Any], loss: Loss) -> None:
        self.modules = [model.get_submodule(name) for name in layers]
        self.weights = [module.weight.detach() for module in self.modules]
        self._model, self._samples, self._loss = model, samples, loss
        self._quantizers: dict[tuple[int, int], Callable[[Tensor], Tensor]] = {}
        self._measured: dict[tuple[int, ...], float] = {}
        self._base = self._mean()

    @torch.no_grad()
    def _mean(self) -> float:
        return sum(float(self._loss(self._model, one)) for one in self._samples) / len(self._samples)

    @torch.no_grad()
    def layer(
        self,
        at: int,
        quantizer: Factory,
        bits: tuple[int, ...],
        rise_bits: tuple[int, ...],
        information: Tensor,
        trace: float,
    ) -> tuple[tuple[float, ...], ...]:
        """Return the three sensitivities of a layer."""
        w, fisher, hutchinson, rise = self.weights[at], [], [], []
        for b in bits:
            q = self._quantizers[at, b] = quantizer(b)
            y = quantized(lambda _, q=q: q, b, w)
            squares = (w.double() - y).square()
            fisher.append(float((information * squares).sum()) / 2)
            hutchinson.append(trace * float(squares.mean()) / 2)
            if b in rise_bits:
                with changed(self.modules[at], "weight", lambda _, y=y: y):
                    rise.append(max(0.0, self._mean() - self._base))
        return tuple(fisher), tuple(hutchinson), tuple(rise)

    @torch.no_grad()
    def choice(
        self, chosen: tuple[int, ...], sizes: list[int], bits: tuple[int, ...], omega: Matrix
    ) -> Choice:
        """Run the network with all layers at these bits."""
        if chosen not in self._measured:
            with ExitStack() as stack:
                for at, b in enumerate(chosen):
                    stack.enter_context(changed(self.modules[at], "weight", self._quantizers[at, b]))
                self._measured[chosen] = self._mean() - self._base
        spent = [n * b for n, b in zip(sizes, chosen, strict=True)]
        return Choice(
            bits=chosen,
            average=sum(spent) / sum(sizes),
            packed=sum(-(-n // 8) for n in spent),
            predicted=sum(row[bits.index(b)] for row, b in zip(omega, chosen, strict=True)),
            measured=self._measured[chosen],
        )


def _front(omega: Matrix, sizes: list[int], bits: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the allocations at each budget of the ladder that no cheaper one equals."""
    found: dict[tuple[int, ...], None] = {}
    for step in range(int((bits[-1] - bits[0]) / STEP) + 1):
        found[exact(omega, sizes, bits[0] + step * STEP, bits).bits] = None
    return list(found)


def _check_choice(by: str, bits: tuple[int, ...], rise_bits: tuple[int, ...]) -> None:
    if rise_bits != tuple(b for b in bits if b in rise_bits):
        raise ValueError(f"rise_bits must be some of {bits}, in this order, got {rise_bits}")
    if by not in ESTIMATES:
        raise ValueError(f"by must be one of {', '.join(ESTIMATES)}, got {by!r}")
    if by == "loss_rise" and rise_bits != bits:
        raise ValueError(f"by='loss_rise' needs rise_bits={bits}, got {rise_bits}")
