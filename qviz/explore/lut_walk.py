"""Walk: a dot product on codes, term by term: what each code does to an accumulator, and what it ends in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from qviz.export.tables import InputTable, WeightTable

METHODS = ("uniform", "POT", "POST", "codebook")
REGISTER = 16
"""The bits of an accumulator on show."""
MULTIPLIER = 15
"""The bits of a multiplier of the result, without its sign."""


@dataclass(frozen=True)
class Part:
    """What a weight's code does with the activation's code a: sign × (factor × a << shift) is added.

    Attributes:
        accumulator: The number of the accumulator that it goes to.
        sign: -1, 0 or 1.
        factor: What a is multiplied with before; 1 where nothing has to be.
        shift: The bits that a is moved to the left.
    """

    accumulator: int
    sign: int
    factor: int = 1
    shift: int = 0

    def of(self, a: int) -> int:
        """Return what is added for a code a."""
        return self.sign * (self.factor * a << self.shift)

    @property
    def text(self) -> str:
        """The size of what is added as a short formula, without the sign."""
        if not self.sign or not self.factor:
            return "0"
        if self.factor > 1:
            return f"{self.factor}·a"
        return f"a<<{self.shift}" if self.shift else "1·a"


@dataclass(frozen=True)
class Route:
    """How a method computes Σ level × a with integers.

    Attributes:
        parts: What each weight code does.
        names: The names of the accumulators.
        worth: What one unit of each accumulator stands for, in units of the level.
    """

    parts: tuple[Part, ...]
    names: tuple[str, ...]
    worth: tuple[float, ...]


def route(method: str, levels: np.ndarray) -> Route:
    """Return the integer arithmetic of a method.

    Uniform levels are whole numbers: one accumulator of products. Levels ±2^(-j/2) are shifts by S - j/2 in
    units of 2^-S; the odd j share a factor 1 / sqrt 2, so they have an accumulator of their own (POST). Any
    other codebook adds the activations of each level apart, and multiplies at the end.

    Args:
        method: One of :data:`METHODS`.
        levels: The levels of the weights, in the codebook's unit.
    """
    signs = np.sign(levels).astype(int).tolist()
    if method == "uniform":
        parts = [Part(0, sign, abs(round(v))) for sign, v in zip(signs, levels, strict=True)]
        return Route(tuple(parts), ("sum",), (1.0,))
    if method == "codebook":
        names = tuple(f"{v:.2g}" for v in levels)
        return Route(tuple(Part(k, 1) for k in range(len(levels))), names, tuple(levels.tolist()))
    exponents = [round(-2 * np.log2(abs(v))) if v else 0 for v in levels]
    top = max(exponents) // 2
    parts = [Part(j % 2, s, shift=top - j // 2) for s, j in zip(signs, exponents, strict=True)]
    if method == "POT":
        return Route(tuple(parts), ("sum",), (2.0**-top,))
    return Route(tuple(parts), ("even", "odd"), (2.0**-top, 2.0**-top * 0.5**0.5))


@dataclass(frozen=True, eq=False)
class Walk:
    """The dot product of weights and activations, in floating point and on codes.

    Attributes:
        method: One of :data:`METHODS`.
        weight: The table of the weights, with one scale.
        input: The table of the activations: whole numbers times a step.
        weights: The weights, float64, (J,).
        activations: The activations, float64, (J,).
    """

    method: str
    weight: WeightTable
    input: InputTable
    weights: np.ndarray
    activations: np.ndarray

    @property
    def count(self) -> int:
        """The number of terms."""
        return len(self.weights)

    @property
    def scale(self) -> float:
        """What a level is multiplied with to be a weight."""
        return 1.0 if self.weight.scale is None else float(self.weight.scale)

    @property
    def step(self) -> float:
        """What an activation's code is multiplied with to be an activation."""
        return float(self.input.values[1])

    @cached_property
    def levels(self) -> np.ndarray:
        """The levels of the weights, in the codebook's unit."""
        return self.weight.levels.double().numpy()

    @cached_property
    def codes(self) -> list[int]:
        """The code of each weight."""
        return self.weight.codes.tolist()

    @cached_property
    def a(self) -> list[int]:
        """The code of each activation."""
        return self.input.codes(torch.from_numpy(self.activations).float()).tolist()

    @cached_property
    def route(self) -> Route:
        """The arithmetic."""
        return route(self.method, self.levels)

    @cached_property
    def added(self) -> list[int]:
        """What each term adds to its accumulator."""
        return [self.route.parts[code].of(a) for code, a in zip(self.codes, self.a, strict=True)]

    def target(self, i: int) -> int:
        """Return the number of the accumulator that a term goes to."""
        return self.route.parts[self.codes[i]].accumulator

    def accumulators(self, terms: int) -> list[int]:
        """Return the accumulators after some terms."""
        sums = [0] * len(self.route.names)
        for i in range(terms):
            sums[self.target(i)] += self.added[i]
        return sums

    @cached_property
    def worth(self) -> np.ndarray:
        """What one unit of each accumulator stands for in the result."""
        return np.array(self.route.worth) * self.scale * self.step

    def exact(self, terms: int) -> float:
        """Return what the accumulators stand for after some terms, in floating point."""
        return float(self.worth @ np.array(self.accumulators(terms), dtype=np.float64))

    def floating(self, terms: int) -> float:
        """Return the dot product without any rounding."""
        return float(self.weights[:terms] @ self.activations[:terms])

    @cached_property
    def fraction(self) -> int:
        """The bits f after the binary point of the result: the largest one possible fits the register."""
        bound = self.count * np.abs(self.levels).max() * self.scale * float(self.input.values[-1])
        return REGISTER - 1 - int(np.ceil(np.log2(bound))) if bound > 0 else 0

    @cached_property
    def shift(self) -> int:
        """The bits n that the products of accumulators and multipliers are moved to the right."""
        largest = float(np.abs(self.worth).max()) * 2.0**self.fraction
        return max(1, MULTIPLIER - int(np.floor(np.log2(largest))) - 1) if largest > 0 else 1

    @cached_property
    def multipliers(self) -> list[int]:
        """The multiplier of each accumulator: its worth in units of 2^-(f + n)."""
        return [round(v) for v in (self.worth * 2.0 ** (self.fraction + self.shift)).tolist()]

    def fixed(self, terms: int) -> int:
        """Return the result in units of 2^-f: (the sum of accumulator × multiplier, + 2^(n - 1)) >> n.

        It is the arithmetic of :mod:`qviz.export.integer`, with multipliers of fewer bits.
        """
        pairs = zip(self.multipliers, self.accumulators(terms), strict=True)
        return sum(m * v for m, v in pairs) + (1 << (self.shift - 1)) >> self.shift

    def result(self, terms: int) -> float:
        """Return that result as a number."""
        return self.fixed(terms) * 2.0**-self.fraction


def bits(value: int, width: int = REGISTER) -> np.ndarray:
    """Return a whole number in two's complement, the highest bit first, as 0 and 1."""
    return np.array([value >> k & 1 for k in reversed(range(width))])


def binary(value: int) -> str:
    """Return the same as text."""
    return "".join(map(str, bits(value)))
