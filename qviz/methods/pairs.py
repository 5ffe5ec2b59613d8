"""Pairs: the weight recipe and the activation recipe that belong together, and what the layer adds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qviz.methods import adaround, adq, apot, aquant, asq, daq, lsq, lsq_plus, pact, ste
from qviz.methods.method import FLOAT, Method, Pair

METHODS: dict[str, Method] = {
    "ste": ste.METHOD,
    "lsq": lsq.METHOD,
    "lsq_plus": lsq_plus.METHOD,
    "pact": pact.METHOD,
    "apot": apot.METHOD,
    "daq": daq.METHOD,
    "asq": asq.METHOD,
    "pot": asq.POT,
    "post": asq.POST,
    "adq": adq.METHOD,
    "aquant": aquant.METHOD,
    "adaround": adaround.METHOD,
}
NAMES: tuple[str, ...] = ("fp32", *METHODS)
"""The names of the methods that come with the package."""


def register(name: str, method: Method) -> None:
    """Add a method of your own, so that :func:`pair` and the command line know it by name.

    Args:
        name: A new name; registering the same method again under its name is allowed.
        method: What it does to a layer.

    Raises:
        ValueError: The name is taken by another method.
        TypeError: ``method`` is no Method.
    """
    if not isinstance(method, Method):
        raise TypeError(f"method must be a Method, got {type(method).__name__}")
    if name == "fp32" or METHODS.get(name, method) != method:
        raise ValueError(f"the name {name!r} is taken by another method")
    METHODS[name] = method


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
    daq       daq_weight, standardized       daq_activation, output   Kim et al., arXiv:2108.06983, equations
                                             scale                    (1) and (3), released code
    asq       lsq, one step a channel        asq_activation           Zhou et al., arXiv:2504.17263, released
                                                                      code (its ResNet-34)
    pot       pot_weight, a clip a channel   asq_activation           the same code as shipped (base 2)
    post      post_weight, a clip a channel  asq_activation           the same code with base sqrt(2), as the
                                                                      paper has it
    adq       adq_weight                     n2uq_activation          Jia et al., arXiv:2510.19760
    apot      apot_weight, standardized      apot_activation          Li et al., arXiv:1909.13144, its code
    lsq_plus  lsq, one step a layer          lsq_plus, start by       Bhalgat et al., arXiv:2004.09576
                                             least squared error
    adaround  adaround_weight                ste, MSE range, fixed    Nagel et al., arXiv:2004.10568
    aquant    lsq, one step a channel        aquant_activation, a     INFERRED: AQuant (arXiv:2208.11945) has
                                             border a channel         activations only, with AdaRound weights
                                                                      after training; LSQ weights stand in
    ========  =============================  =======================  =======================================

    A signed input (the image, a linear bottleneck) needs a signed grid. ste, lsq, lsq_plus, apot, adaround
    and daq have one (DAQ's is INFERRED); for the others ``act(layer, True)`` is ``lsq(a_bits, signed=True)``,
    which for ASQ is its own signed variant without the network.

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
        >>> import torch
        >>> p = pair("post", 4)
        >>> layer = torch.nn.Conv2d(8, 16, 3)
        >>> p.weight(layer).codebook, p.act(layer, False).range.inputs, p.act(layer, True).codebook.lo
        (Codebook('POST', 15 levels, 4 bits), 8, -8.0)
        >>> pair("daq", 1, 32).act is None, pair("daq", 1, 32).output_scale
        (True, True)
    """
    if name != "fp32" and name not in METHODS:
        raise ValueError(f"name must be one of {', '.join(('fp32', *METHODS))}, got {name!r}")
    if name == "fp32":
        return Pair(name, FLOAT, FLOAT, None, None)
    a_bits = w_bits if a_bits is None else a_bits
    return METHODS[name].pair(name, w_bits, a_bits, weight_options or {}, act_options or {})
