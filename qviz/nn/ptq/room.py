"""Room: what could be won by choosing, for each activation of some images, to round it down or up."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qviz.core.rounding import Nearest
from qviz.measure.metrics import sqnr_db
from qviz.nn.capture import tap
from qviz.nn.modules import evaluating, hooked
from qviz.nn.ptq.inputs import quantized_layers
from qviz.nn.ptq.undecided import Undecided, beta
from qviz.nn.quant_layer import QuantLayer

WARM_UP = 0.2
"""The share of the steps before choices are pressed to be made."""


@dataclass(frozen=True, eq=False)
class Room:
    """The network's output for the same images and weights, with activations rounded in three ways.

    Attributes:
        floating: The output in floating point, (N, classes).
        nearest: With activations rounded to nearest.
        own: As the network rounds them itself: the same as ``nearest``, or by borders that were learned.
        chosen: With the choices of :func:`room`.
        flipped: The share of the activations between two levels that were not chosen to be the nearest.
    """

    floating: Tensor
    nearest: Tensor
    own: Tensor
    chosen: Tensor
    flipped: float

    def sqnr(self) -> dict[str, float]:
        """Return the signal-to-quantization-noise ratio of the output, in dB, by the way of rounding."""
        return {name: sqnr_db(self.floating, out) for name, out in self._quantized().items()}

    def agreement(self) -> dict[str, float]:
        """Return the share of images that get the same class as in floating point. No accuracy."""
        same = self.floating.argmax(1)
        return {
            name: float((out.argmax(1) == same).double().mean()) for name, out in self._quantized().items()
        }

    def _quantized(self) -> dict[str, Tensor]:
        return {"nearest": self.nearest, "own": self.own, "chosen": self.chosen}


@torch.no_grad()
def room(
    model: nn.Module,
    reference: nn.Module,
    images: Tensor,
    *,
    iterations: int = 30,
    lr: float = 0.3,
    regularizer: float = 1.0,
    batch: int = 50,
) -> Room:
    """Choose floor or ceiling for each activation of some images, knowing what the float network gives.

    Layer after layer in running order: the choices of a layer are those that bring its output nearest to the
    float layer's, learned as AdaRound learns the weights', made hard, and passed on to the next layers. Where
    rounding to nearest serves an image better, that stays. Weights, steps and biases stay as they are.

    No network can run so: the choices are found for these very images, from their outputs in floating point.
    It shows how much there is to be won by rounding activations in another way than to nearest, of which a
    border, a function of the value, takes a part.

    Args:
        model: Quantized; it stays as it is.
        reference: The same network in floating point, with BatchNorm folded.
        images: What both take, samples in axis 0; some hundred.
        iterations: Steps of Adam a layer.
        lr: Their learning rate, of V.
        regularizer: The weight of AdaRound's regularizer: so many times the layer's error by rounding to
            nearest, if all were undecided.
        batch: So many images at a time; memory is that of all layers' outputs for them.

    Raises:
        ValueError: No image, an iteration less than one, an output that is not (N, classes), or an input
            quantizer that maps its input to another unit (DAQ, N2UQ), by name.

    References:
        The way of learning is that of Nagel et al., "Up or Down?", ICML 2020, arXiv:2004.10568. That the room
        of a border is measured so is this project's way.
    """
    if len(images) == 0 or iterations < 1 or batch < 1:
        raise ValueError(
            f"images, iterations and batch must be at least one, got {len(images)}, {iterations} and {batch}"
        )
    layers = _layers(model, images)
    outs: dict[str, list[Tensor]] = {"floating": [], "nearest": [], "own": [], "chosen": []}
    counts = torch.zeros(2)

    def choose(layer: QuantLayer, x: Tensor, wanted: Tensor) -> Tensor:
        x, flipped, free = choices(layer, x, wanted, iterations=iterations, lr=lr, regularizer=regularizer)
        counts.add_(torch.tensor([flipped, free]))
        return x

    with evaluating(model), evaluating(reference):
        for part in images.split(batch):
            with tap(reference, layers) as seen:
                outs["floating"].append(_classes(reference(part)))
            outs["own"].append(model(part))
            with _nearest(layers.values()):
                outs["nearest"].append(model(part))
            with _reading({layers[name]: iter(of.outputs) for name, of in seen.items()}, choose):
                outs["chosen"].append(model(part))
    found = {name: torch.cat(parts) for name, parts in outs.items()}
    return Room(**found, flipped=float(counts[0] / counts[1].clamp(min=1.0)))


@torch.no_grad()
def choices(
    layer: QuantLayer, x: Tensor, wanted: Tensor, *, iterations: int, lr: float, regularizer: float
) -> tuple[Tensor, int, int]:
    """Round each value of a layer's input to one of the levels next to it, for the least error of the output.

    Args:
        layer: Its weight and bias stay; of its input quantizer the levels are used, not the rounding.
        x: The input, samples in axis 0.
        wanted: The output that is to be met.
        iterations: As for :func:`room`.
        lr: As for :func:`room`.
        regularizer: As for :func:`room`.

    Returns:
        The rounded input, of no larger error for any sample than rounded to nearest; how many values differ
        from that; and how many lie between two levels.
    """
    w, b = (None if t is None else t.detach() for t in (layer.quantized_weight(), layer.scaled_bias()))
    one = Undecided(layer.input_quantizer, x)

    def error(x: Tensor) -> Tensor:
        return (layer._product(x, w, b) - wanted).square().flatten(1).sum(1)

    nearest = one.hard()
    before = error(nearest)
    unit, free = float(before.sum()) or 1.0, int(one.free.sum())
    optimizer = torch.optim.Adam([one.v], lr)
    with torch.enable_grad():
        for step in range(iterations):
            loss = error(one(x)).sum() / unit
            power = beta(step, iterations, WARM_UP)
            if power is not None:
                loss = loss + regularizer / max(free, 1) * one.regularizer(power)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    chosen = one.hard()
    better = error(chosen) <= before
    chosen = torch.where(better.view(-1, *[1] * (x.ndim - 1)), chosen, nearest)
    return chosen, int((chosen != nearest).sum()), free


def _classes(out: Tensor) -> Tensor:
    if not isinstance(out, Tensor) or out.ndim != 2:
        got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ValueError(f"the output must be of shape (N, classes), got {got}")
    return out


def _layers(model: nn.Module, images: Tensor) -> dict[str, QuantLayer]:
    """Return the layers whose inputs are quantized, by name.

    Raises:
        ValueError: There is none, or one maps its input to another unit.
    """
    layers = {name: model.get_submodule(name) for name in quantized_layers(model, images)}
    layers = {name: layer for name, layer in layers.items() if layer.input_quantizer is not None}
    if not layers:
        raise ValueError("no layer of the model quantizes its input")
    for name, layer in layers.items():
        if not layer.input_quantizer.range.rescale:
            kind = type(layer.input_quantizer.range).__name__
            raise ValueError(f"layer {name!r} has no choice of levels: {kind} maps its input to another unit")
    return layers


@contextmanager
def _nearest(layers: Collection[QuantLayer]) -> Iterator[None]:
    """Let all input quantizers round to nearest."""
    own = {layer.input_quantizer: layer.input_quantizer.rounding for layer in layers}
    try:
        for q in own:
            q.rounding = Nearest()
        yield
    finally:
        for q, rounding in own.items():
            q.rounding = rounding


@contextmanager
def _reading(
    wanted: Mapping[QuantLayer, Iterator[Tensor]], choose: Callable[[QuantLayer, Tensor, Tensor], Tensor]
) -> Iterator[None]:
    """Let the layers give the product with the input as ``choose`` rounds it, call after call."""

    def after(layer: QuantLayer, args: tuple[Tensor], out: Tensor) -> Tensor:
        x = choose(layer, args[0], next(wanted[layer]))
        return layer._product(x, layer.quantized_weight(), layer.scaled_bias())

    with hooked(wanted, after=after):
        yield
