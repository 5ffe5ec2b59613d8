"""Ranges: weights with one range in all, or with one for each output channel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import nn

from qviz.core.quantizer import Quantizer
from qviz.core.range import MSE
from qviz.methods.adaround import adaround_weight
from qviz.methods.asq import post_weight, pot_weight
from qviz.methods.lsq import lsq
from qviz.methods.method import Pair, outputs
from qviz.methods.ste import ste


def _lsq(bits: int, layer: nn.Module, channels: int | None) -> Quantizer:
    return lsq(bits, channels=channels)


EITHER: dict[str, Callable[[int, nn.Module, int | None], Quantizer]] = {
    "ste": lambda bits, layer, n: ste(bits, range=MSE(None if n is None else 0)),
    "lsq": _lsq,
    "lsq_plus": _lsq,
    "asq": _lsq,
    "aquant": _lsq,
    "pot": lambda bits, layer, n: pot_weight(bits, channels=n),
    "post": lambda bits, layer, n: post_weight(bits, channels=n),
    "adaround": lambda bits, layer, n: adaround_weight(bits, layer.weight, axis=None if n is None else 0),
}
"""Weights of the methods that can have one range in all, or one for each output channel."""

EACH = ("asq", "pot", "post", "aquant", "adaround")
"""Those that have one for each output channel by themselves."""


def each_channel(pair: Pair) -> Pair:
    """Return a pair whose weights have a range for each output channel.

    Args:
        pair: As :func:`~qviz.methods.pairs.pair` makes it, without options.

    Raises:
        ValueError: The weights of its method have no range that could be either.

    Example:
        >>> from qviz.recipes import pair
        >>> made = each_channel(pair("lsq", 4, 8))
        >>> made.name, made.weight(nn.Linear(8, 3)).range.axis, made.with_bits(2).weight(nn.Linear(8, 3)).bits
        ('lsq per channel', 0, 2)
    """
    if pair.name not in EITHER:
        known = ", ".join(EITHER)
        raise ValueError(f"weights of {pair.name} have ranges of their own; per channel goes with {known}")
    if pair.name in EACH:
        return pair
    build = EITHER[pair.name]
    method = replace(pair.method, weight=lambda bits, layer: build(bits, layer, outputs(layer)))
    return method.pair(f"{pair.name} per channel", pair.w_bits, pair.a_bits, {}, {})
