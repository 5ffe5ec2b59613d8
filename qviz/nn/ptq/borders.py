"""Borders: AQuant's, put into the input quantizers of a network, and folded into tables of thresholds."""

from __future__ import annotations

import math
from collections.abc import Collection

from torch import nn

from qviz.core.quantizer import Quantizer
from qviz.core.rounding import Nearest
from qviz.methods.aquant import AdaptiveBorder, aquant_activation
from qviz.methods.aquant_cells import CellwiseBorder
from qviz.methods.method import inputs
from qviz.nn.quant_layer import QuantLayer

KINDS = ("channel", "layer", "cell", "fused")


def add_borders(
    model: nn.Module, kind: str = "channel", *, window: float = math.inf, skip: Collection[str] = ()
) -> list[str]:
    """Give the layers' input quantizers a rounding border each, in place; at first nothing changes.

    Only unsigned uniform grids with rounding to nearest get one: a border is a function of the activation
    from 0 to the clip. Others stay.

    Args:
        model: Converted.
        kind: "channel", a border function for each input channel; "layer", one in all; "cell", a number for
            each cell and channel; "fused", a function for each channel that also sees the neighbors (no table
            stands for it then; linear layers, which have no neighbors, get "channel").
        window: As in :class:`~qviz.methods.aquant.AdaptiveBorder`.
        skip: Names of layers that get none.

    Returns:
        The names of the layers that got borders.

    Raises:
        ValueError: An unknown kind, a window for "cell", or no layer that could have a border.

    References:
        Li et al., "AQuant", 2022, arXiv:2208.11945; the form of the border is INFERRED.
    """
    if kind not in KINDS:
        raise ValueError(f"border must be one of {', '.join(KINDS)}, got {kind!r}")
    if kind == "cell" and window < math.inf:
        raise ValueError(f"a border for each cell has no window, got window={window}")
    done = []
    for name, layer in model.named_modules():
        q = layer.input_quantizer if isinstance(layer, QuantLayer) else None
        if q is not None and name not in skip and _fits(q):
            one = "channel" if kind == "fused" and isinstance(layer, nn.Linear) else kind
            made = _bordered(q, one, inputs(layer), window)
            layer.input_quantizer = made.to(layer.weight.device).train(q.training)
            done.append(name)
    if not done:
        raise ValueError("no layer has an unsigned uniform input quantizer that rounds to nearest")
    return done


def _bordered(q: Quantizer, kind: str, channels: int, window: float) -> Quantizer:
    """Return a quantizer with a border and with the range of q."""
    if kind == "cell":
        return Quantizer(q.codebook, CellwiseBorder(len(q.codebook) - 1, channels=channels), range=q.range)
    channels = None if kind == "layer" else channels
    made = aquant_activation(q.bits, channels=channels, window=window, fused=kind == "fused", start="mse")
    made.range = q.range
    return made


def _fits(q: Quantizer) -> bool:
    book = q.codebook
    return (
        type(q.rounding) is Nearest
        and book.unit
        and book.identity
        and book.lo == 0
        and len(book) == 2**q.bits
    )


def fold_borders(model: nn.Module) -> list[str]:
    """Replace learned borders by the thresholds that they are equal to, in place: the same codes.

    A model that is to take over the state dict of a folded one is folded too, before or after it is
    calibrated.

    Args:
        model: Converted; fused borders stay, as no table stands for them.

    Returns:
        The names of the layers whose borders were folded.
    """
    done = []
    for name, layer in model.named_modules():
        q = layer.input_quantizer if isinstance(layer, QuantLayer) else None
        if q is not None and _folds(q):
            q.rounding = q.rounding.freeze(q.codebook)
            done.append(name)
    return done


def _folds(q: Quantizer) -> bool:
    if isinstance(q.rounding, AdaptiveBorder):
        return q.rounding.kernel is None
    return isinstance(q.rounding, CellwiseBorder)
