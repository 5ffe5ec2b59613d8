"""Method: what one paper does to a layer, and the pair of quantizers that it makes of two bit widths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from qviz.core import _check
from qviz.core.quantizer import Quantizer

FLOAT = 32
"""The number of bits that means: not quantized."""


@dataclass(frozen=True)
class Method:
    """What one paper does to a layer.

    Attributes:
        weight: ``weight(bits, layer, **options)`` returns the quantizer of the layer's weight.
        act: ``act(bits, layer, signed, **options)`` returns the quantizer of its input. A method without a
            signed grid of its own returns LSQ's for a signed input, to which the options do not apply.
        standardize: The layer standardizes its weight first.
        output_scale: The layer multiplies its output by a learned scale.
    """

    weight: Callable[..., Quantizer]
    act: Callable[..., Quantizer]
    standardize: bool = False
    output_scale: bool = False

    def pair(
        self,
        name: str,
        w_bits: int,
        a_bits: int,
        weight_options: Mapping[str, Any],
        act_options: Mapping[str, Any],
    ) -> Pair:
        """Return the method at given bits, after each quantizer was built once for a small layer.

        Raises:
            ValueError, TypeError: The recipes refuse the bits or an option.
        """
        weight = act = None
        if w_bits != FLOAT:
            bits = _check.bits(w_bits, 1, 8, f"weights of {name}")
            weight = Factory(self.weight, bits, dict(weight_options))
        if a_bits != FLOAT:
            bits = _check.bits(a_bits, 1, 8, f"activations of {name}")
            act = Factory(self.act, bits, dict(act_options))
        with torch.random.fork_rng(devices=[]):  # ASQ's network draws its start
            layer = nn.Conv2d(8, 8, 1)
            if weight is not None:
                weight = replace(weight, name=_name(weight(layer)))
            if act is not None:
                act(layer, True)
                act = replace(act, name=_name(act(layer, False)))
        return Pair(
            name,
            w_bits,
            a_bits,
            weight,
            act,
            standardize=self.standardize and weight is not None,
            output_scale=self.output_scale and (weight is not None or act is not None),
            method=self,
            weight_options=dict(weight_options),
            act_options=dict(act_options),
        )


@dataclass(frozen=True)
class Factory:
    """``factory(layer)`` or ``factory(layer, signed)`` makes a quantizer for a layer.

    Attributes:
        make: The function of the method.
        bits: Given to it first.
        options: Further keyword arguments.
        name: The recipe that it uses, of an unsigned input.
    """

    make: Callable[..., Quantizer]
    bits: int
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    name: str = ""

    def __call__(self, layer: nn.Module, *signed: bool) -> Quantizer:
        """Return a fresh quantizer."""
        return self.make(self.bits, layer, *signed, **self.options)


@dataclass(frozen=True)
class Pair:
    """The quantizers that a method makes for a layer, at given bit widths.

    Your own: ``Pair("mine", 4, 4, weight=lambda layer: ..., act=lambda layer, signed: ...)``, or a
    :class:`Method` that is given to :func:`qviz.register`.

    Attributes:
        name: The method's name.
        w_bits, a_bits: Bits of weights and activations; 32 where they are not quantized.
        weight: ``weight(layer)`` returns a quantizer; None leaves weights as they are.
        act: ``act(layer, signed)`` returns a quantizer; None leaves inputs as they are.
        standardize: The layer standardizes its weight first (DAQ, APoT).
        output_scale: The layer has a learned output scale (DAQ).
        method: What can make the pair at other bits, or None.
        weight_options, act_options: What the recipes were given besides.
    """

    name: str
    w_bits: int
    a_bits: int
    weight: Callable[[nn.Module], Quantizer] | None
    act: Callable[[nn.Module, bool], Quantizer] | None
    standardize: bool = False
    output_scale: bool = False
    method: Method | None = None
    weight_options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    act_options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def with_bits(self, w_bits: int, a_bits: int | None = None) -> Pair:
        """Return the same method at other bits; the activations' stay where ``a_bits`` is None.

        Raises:
            ValueError: The pair has no method that could make others.
        """
        if self.method is None:
            raise ValueError(f"the pair {self.name!r} has no method, which other bits would need")
        a_bits = self.a_bits if a_bits is None else a_bits
        return self.method.pair(self.name, w_bits, a_bits, self.weight_options, self.act_options)


def _name(quantizer: Quantizer) -> str:
    return "a recipe of your own" if quantizer.recipe is None else quantizer.recipe.name


def outputs(layer: nn.Module) -> int:
    """Return how many output channels the layer has: the length of axis 0 of its weight."""
    return layer.weight.shape[0]


def inputs(layer: nn.Module) -> int:
    """Return how many input channels the layer has: the length of axis 1 of its input.

    Raises:
        TypeError: The layer tells neither ``in_channels`` nor ``in_features``.
    """
    for name in ("in_channels", "in_features"):
        if hasattr(layer, name):
            return getattr(layer, name)
    raise TypeError(f"a layer with in_channels or in_features is needed, got {type(layer).__name__}")
