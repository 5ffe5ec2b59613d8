"""Layer setting: how a layer is quantized, as the explorer of layers has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

from qviz.core import _check
from qviz.methods.method import Pair, outputs
from qviz.methods.pairs import METHODS, pair
from qviz.methods.ranges import EACH, EITHER

TENSOR, CHANNEL = "per tensor", "per channel"
OWN = dict.fromkeys(EACH, CHANNEL)
"""The ranges of weights that a method has by itself, where they are not one in all."""

MOST = {"apot": 7}
"""The most bits of a method that has fewer than eight."""


@dataclass(frozen=True)
class Setting:
    """How a layer is quantized.

    Attributes:
        recipe: The name of a pair.
        bits, a_bits: Of weight and input.
        ranges: "per tensor" or "per channel", for the weight.
    """

    recipe: str
    bits: int
    a_bits: int
    ranges: str

    def __str__(self) -> str:
        """Return it in a few words."""
        return f"{self.recipe} W{self.bits}A{self.a_bits} {self.ranges}"

    @property
    def plain(self) -> tuple[Any, ...]:
        """Its values, for JSON; :func:`parsed` takes them."""
        return astuple(self)

    @property
    def possible(self) -> Setting:
        """The same with bits and ranges that the recipe has."""
        most = MOST.get(self.recipe, 8)
        ranges = self.ranges if self.recipe in EITHER else own_range(self.recipe)
        return Setting(self.recipe, min(self.bits, most), min(self.a_bits, most), ranges)

    def pair(self) -> Pair:
        """Return the pair."""
        made = pair(self.recipe, self.bits, self.a_bits)
        if self.ranges == own_range(self.recipe):
            return made
        build, bits, each = EITHER[self.recipe], self.bits, self.ranges == CHANNEL
        return replace(made, weight=lambda layer: build(bits, layer, outputs(layer) if each else None))


def own_range(recipe: str) -> str:
    """Return the ranges that a method's weights have by themselves."""
    return OWN.get(recipe, TENSOR)


def begun(recipe: str, bits: int | tuple[int, int]) -> Setting:
    """Return a recipe's setting at some bits, of weight and input or of both.

    Raises:
        ValueError: There is no such recipe or bit width.
    """
    if recipe not in METHODS:
        raise ValueError(f"unknown recipe {recipe!r}; there are {list(METHODS)}")
    both = bits if isinstance(bits, tuple) and len(bits) == 2 else (bits, bits)
    w, a = (_check.bits(one, 2, MOST.get(recipe, 8), "LayerExplorer") for one in both)
    return Setting(recipe, w, a, own_range(recipe))


def parsed(base: Sequence[Any]) -> tuple[Any, ...]:
    """Return the values of a setting from a list of them.

    Raises:
        ValueError: They make no setting.
    """
    base = tuple(base)
    kinds = (str, int, int, str)
    if len(base) != 4 or not all(isinstance(v, k) for v, k in zip(base, kinds, strict=True)):
        raise ValueError(f"base must be a recipe, two numbers of bits and a range, got {list(base)}")
    if base[0] not in METHODS or not 2 <= min(base[1:3]) <= max(base[1:3]) <= MOST.get(base[0], 8):
        raise ValueError(f"base must be a recipe, and bits from 2 to 8, got {list(base)}")
    if base[3] not in ((TENSOR, CHANNEL) if base[0] in EITHER else (own_range(base[0]),)):
        raise ValueError(f"{base[0]} has no range {base[3]!r}")
    return base
