"""Pairs: the weight recipe and the activation recipe that belong together, and what the layer adds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch

from qviz.core import _check
from qviz.core.quantizer import Quantizer

FLOAT = 32
"""The number of bits that means: not quantized."""


@dataclass(frozen=True)
class _Method:
    """Names in :mod:`qviz.methods.recipes`, and what these functions take.

    Attributes:
        weight, act: the recipes.
        channelwise: the weight has one scale for each output channel.
        reads_channels: the activation recipe is told the number of channels.
        has_sign: the activation recipe has a signed grid of its own.
        normalised: the layer standardises its weights and scales its output.
    """

    weight: str
    act: str
    channelwise: bool = False
    reads_channels: bool = False
    has_sign: bool = False
    normalised: bool = False


METHODS: dict[str, _Method] = {
    "ste": _Method("ste", "ste", has_sign=True),
    "lsq": _Method("lsq", "lsq", has_sign=True),
    "pact": _Method("dorefa_weight", "pact_activation"),
    "daq": _Method("daq_weight", "daq_activation", has_sign=True, normalised=True),
    "asq": _Method("lsq", "asq_activation", channelwise=True, reads_channels=True),
    "pot": _Method("pot_weight", "asq_activation", channelwise=True, reads_channels=True),
    "post": _Method("post_weight", "asq_activation", channelwise=True, reads_channels=True),
    "adq": _Method("adq_weight", "n2uq_activation"),
    "aquant": _Method("lsq", "aquant_activation", channelwise=True, reads_channels=True),
}
NAMES: tuple[str, ...] = ("fp32", *METHODS)
"""What :func:`pair` knows."""


def _recipes() -> ModuleType:
    from qviz.methods import recipes  # not at the top: recipes re-exports `pair`

    return recipes


@dataclass(frozen=True)
class WeightRecipe:
    """``recipe(channels)`` makes the quantizer of a weight with so many output channels (axis 0).

    Attributes:
        name: of the function in :mod:`qviz.methods.recipes`.
        bits: given to it.
        channelwise: one scale a channel instead of one in all.
        options: further keyword arguments.
    """

    name: str
    bits: int
    channelwise: bool = False
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __call__(self, channels: int) -> Quantizer:
        """Return a fresh quantizer."""
        own = {"channels": channels} if self.channelwise else {}
        return getattr(_recipes(), self.name)(self.bits, **own, **self.options)


@dataclass(frozen=True)
class InputRecipe:
    """``recipe(channels, signed)`` makes the quantizer of an input with so many channels (axis 1).

    Attributes:
        name: of the function in :mod:`qviz.methods.recipes`.
        bits: given to it.
        reads_channels: it is told their number.
        has_sign: it has a signed grid; without one, signed inputs get ``lsq(bits, signed=True)``.
        options: further keyword arguments (of ``name``, not of the substitute).
    """

    name: str
    bits: int
    reads_channels: bool = False
    has_sign: bool = False
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def used(self, signed: bool) -> str:
        """Return the name of the recipe that such an input gets."""
        return "lsq" if signed and not self.has_sign else self.name

    def __call__(self, channels: int, signed: bool = False) -> Quantizer:
        """Return a fresh quantizer."""
        if signed and not self.has_sign:
            return _recipes().lsq(self.bits, signed=True)
        own = {"channels": channels} if self.reads_channels else {}
        own |= {"signed": signed} if self.has_sign else {}
        return getattr(_recipes(), self.name)(self.bits, **own, **self.options)


@dataclass(frozen=True)
class Pair:
    """What one method does to a layer.

    Attributes:
        name: the method.
        w_bits, a_bits: bits of weights and activations; 32 where they are not quantized.
        weight: (output channels) -> quantizer; None leaves weights as they are.
        act: (input channels, signed) -> quantizer; None leaves inputs as they are.
        standardise: the layer standardises its weights first (DAQ).
        output_scale: the layer has a learned output scale (DAQ).
        weight_options, act_options: what the recipes were given besides.
    """

    name: str
    w_bits: int
    a_bits: int
    weight: Callable[[int], Quantizer] | None
    act: Callable[[int, bool], Quantizer] | None
    standardise: bool = False
    output_scale: bool = False
    weight_options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    act_options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def with_bits(self, w_bits: int, a_bits: int | None = None) -> Pair:
        """Return the same method at other bits; the activations' stay where ``a_bits`` is None.

        Raises:
            ValueError: the pair is not one of :func:`pair`'s.
        """
        return pair(
            self.name,
            w_bits,
            self.a_bits if a_bits is None else a_bits,
            weight_options=self.weight_options,
            act_options=self.act_options,
        )


def pair(
    name: str,
    w_bits: int = FLOAT,
    a_bits: int | None = None,
    *,
    weight_options: Mapping[str, Any] | None = None,
    act_options: Mapping[str, Any] | None = None,
) -> Pair:
    """Return the weight and the activation recipe that belong together.

    ========  =============================  =======================  =======================================
    name      weight                         activation               where the two stand together
    ========  =============================  =======================  =======================================
    fp32      none                           none                     the bits are not looked at; they are 32
    ste       ste, MSE range, fixed          ste, MSE range, fixed    this project's baseline
    lsq       lsq, one step a layer          lsq                      Esser et al., arXiv:1902.08153
    pact      dorefa_weight                  pact_activation          Choi et al., arXiv:1805.06085
    daq       daq_weight, standardised       daq_activation, output   Kim et al., arXiv:2108.06983, equations
                                             scale                    (1) and (3), released code
    asq       lsq, one step a channel        asq_activation           Zhou et al., arXiv:2504.17263, released
                                                                      code (its ResNet-34)
    pot       pot_weight, a clip a channel   asq_activation           the same code as shipped (base 2)
    post      post_weight, a clip a channel  asq_activation           the same code with base sqrt(2), as the
                                                                      paper has it
    adq       adq_weight                     n2uq_activation          Jia et al., arXiv:2510.19760
    aquant    lsq, one step a channel        aquant_activation, a     INFERRED: AQuant (arXiv:2208.11945) has
                                             border a channel         activations only, with AdaRound weights
                                                                      after training; LSQ weights stand in
    ========  =============================  =======================  =======================================

    A signed input (the image, a linear bottleneck) needs a signed grid. ste, lsq and daq have one (DAQ's
    is INFERRED); for the others ``act(channels, True)`` is ``lsq(a_bits, signed=True)``, which for ASQ is
    its own signed variant without the network.

    Args:
        name: one of :data:`NAMES`.
        w_bits: 1 to 8 as the recipe allows, or 32 for weights in floating point.
        a_bits: the same for activations; default ``w_bits``.
        weight_options: further keyword arguments of the weight recipe, such as ``{"decay": 0.9}``.
        act_options: further keyword arguments of the activation recipe.

    Raises:
        ValueError: an unknown name; bits that a recipe does not have.
        TypeError: bits are not integers; an option that the recipe does not take.

    Example:
        >>> p = pair("post", 4)
        >>> p.weight(16).codebook, p.act(8, False).range.inputs, p.act(8, True).codebook.lo
        (Codebook('POST', 15 levels, 4 bits), 8, -8.0)
        >>> pair("daq", 1, 32).act is None, pair("daq", 1, 32).output_scale
        (True, True)
    """
    if name not in NAMES:
        raise ValueError(f"name must be one of {', '.join(NAMES)}, got {name!r}")
    a_bits = w_bits if a_bits is None else a_bits
    weights, inputs = dict(weight_options or {}), dict(act_options or {})
    if name == "fp32":
        return Pair(name, FLOAT, FLOAT, None, None)
    method = METHODS[name]
    weight = act = None
    if w_bits != FLOAT:
        _check.bits(w_bits, 1, 8, f"weights of {name}")
        weight = WeightRecipe(method.weight, w_bits, method.channelwise, weights)
    if a_bits != FLOAT:
        _check.bits(a_bits, 1, 8, f"activations of {name}")
        act = InputRecipe(method.act, a_bits, method.reads_channels, method.has_sign, inputs)
    _try(weight, act)
    return Pair(
        name,
        w_bits,
        a_bits,
        weight,
        act,
        standardise=method.normalised and weight is not None,
        output_scale=method.normalised and (weight is not None or act is not None),
        weight_options=weights,
        act_options=inputs,
    )


def _try(weight: WeightRecipe | None, act: InputRecipe | None) -> None:
    """Build each once, so that bits and options are refused here and not in the middle of a conversion."""
    with torch.random.fork_rng(devices=[]):  # ASQ's network draws its start
        if weight is not None:
            weight(8)
        if act is not None:
            act(8, False)
            act(8, True)
