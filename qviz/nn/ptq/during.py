"""What differs in a block while it learns; all of it ends with the ``with``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from qviz.nn.ptq.undecided import Undecided
from qviz.nn.quant_layer import QuantLayer


@contextmanager
def swapped(undecided: Mapping[QuantLayer, Undecided]) -> Iterator[None]:
    """Let undecided weights stand in the layers."""
    own = {layer: layer.weight_quantizer for layer in undecided}
    try:
        for layer, one in undecided.items():
            layer._modules["weight_quantizer"] = one
        yield
    finally:
        for layer, quantizer in own.items():
            layer._modules["weight_quantizer"] = quantizer


@contextmanager
def only(block: nn.Module, groups: list[dict]) -> Iterator[None]:
    """Let autograd follow the parameters in the groups, and no others of the block."""
    learned = {p for group in groups for p in group["params"]}
    before = {p: p.requires_grad for p in learned.union(block.parameters())}
    try:
        for p in before:
            p.requires_grad_(p in learned)
        yield
    finally:
        for p, followed in before.items():
            p.requires_grad_(followed)
            p.grad = None


@contextmanager
def dropping(layers: Iterable[QuantLayer], drop: float, generator: torch.Generator) -> Iterator[None]:
    """Let the layers mix float values into their quantized inputs (QDrop); all else stays in eval mode."""
    mixed = [layer for layer in layers if drop and layer.input_quantizer is not None]
    try:
        for layer in mixed:
            layer.mix(drop, generator)
            layer.training = True
        yield
    finally:
        for layer in mixed:
            layer.training = False
            layer.mix(0.0)
