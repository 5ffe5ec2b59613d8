"""Layer by layer: each with what it reads behind quantized layers, and what it gives in floating point."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn

from qviz.nn.calibration import together
from qviz.nn.ptq.inputs import quantized_layers, reads
from qviz.nn.ptq.moments import Moments, matrix
from qviz.nn.ptq.weights import WeightGrid, refuse_tied
from qviz.nn.quant_layer import QuantLayer

ENOUGH = 2**18
"""Over so many places the moments of a layer are taken: 256 images of 32 × 32 places."""

SEEN = 256
"""An input quantizer is set on so many images."""

BATCH = 64
"""So many images run at a time."""


def checked_layers(
    model: nn.Module, images: Tensor, reference: nn.Module, which: Collection[str] = ("weight", "bias")
) -> dict[str, int]:
    """Return the layers with a quantized weight in running order, and how often each is called.

    Raises:
        ValueError: Images are none, NaN or infinite; a layer is not in ``reference``, is quantized there, or
            has another shape; another module holds a parameter of ``which`` too.
    """
    if len(images) == 0 or not bool(images.isfinite().all()):
        raise ValueError(f"images must be finite and at least one, got {len(images)}")
    calls = quantized_layers(model, images)
    twins = dict(reference.named_modules())
    for name in list(calls):
        layer, twin = model.get_submodule(name), twins.get(name)
        if layer.weight_quantizer is None:
            del calls[name]
            continue
        kind = type(layer).float_type
        if not isinstance(twin, kind) or isinstance(twin, QuantLayer):
            raise ValueError(
                f"layer {name!r} must be a {kind.__name__} in reference, it is {type(twin).__name__}"
            )
        if twin.weight.shape != layer.weight.shape:
            shapes = tuple(layer.weight.shape), tuple(twin.weight.shape)
            raise ValueError(f"layer {name!r} has a weight of shape {shapes[0]}, in reference {shapes[1]}")
    refuse_tied(model, calls, which)
    return calls


@torch.no_grad()
def in_order(
    model: nn.Module, images: Tensor, reference: nn.Module
) -> Iterator[tuple[str, QuantLayer, Tensor, Moments]]:
    """Yield each layer with a quantized weight, in running order, after its input quantizer was set anew.

    What is done to a layer before the next is asked for counts for the next one's inputs.

    Args:
        model: A converted and calibrated model.
        images: What it takes, samples in axis 0.
        reference: The same model in floating point.

    Yields:
        Name, layer, the weight in ``reference`` as float64 (G, R, K), and the moments of the quantized input
        and of the output in ``reference``, over the first images that have 2^18 places.

    Raises:
        ValueError: Before anything is changed: what :func:`checked_layers` and
            :class:`~qviz.nn.ptq.weights.WeightGrid` refuse.
    """
    calls = checked_layers(model, images, reference)
    for name in calls:
        WeightGrid(model.get_submodule(name), name)
    for name, times in calls.items():
        layer, twin = model.get_submodule(name), reference.get_submodule(name)
        observe_input(model, images, name, times)
        pairs = zip(*both(model, images, reference, name, times), strict=True)
        seen = ((layer._read(x), y) for (x, _), (_, y) in pairs)
        yield name, layer, matrix(layer, twin.weight.double()), Moments.of(layer, seen, enough=ENOUGH)


def observe_input(model: nn.Module, images: Tensor, name: str, calls: int = 1) -> None:
    """Set a layer's input quantizer on what the layers before it give now."""
    layer = model.get_submodule(name)
    if layer.input_quantizer is not None:
        seen = [layer._batched(x) for x, _ in reads(model, images[:SEEN], name, calls=calls, batch=BATCH)]
        layer.input_quantizer.observe(together(seen))


def both(
    model: nn.Module, images: Tensor, reference: nn.Module, name: str, calls: int = 1
) -> tuple[Iterator[tuple[Tensor, Tensor]], Iterator[tuple[Tensor, Tensor]]]:
    """Return what a layer reads and gives in the model, and in the reference, batch by batch."""
    return tuple(reads(m, images, name, calls=calls, batch=BATCH) for m in (model, reference))
