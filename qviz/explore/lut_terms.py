"""Terms: what is chosen of a dot product, and its numbers, each of which can be typed or dragged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qviz.explore.controls import Number, Pick, Slide, between, control
from qviz.explore.lut_numbers import Numbers, tables
from qviz.explore.lut_walk import METHODS
from qviz.explore.model import Model, changed

KINDS = {"weight": "weights", "activation": "activations"}
"""The numbers of the term on show, in the order of their panels, and those of all terms."""


@dataclass(frozen=True)
class LutChoice:
    """A dot product, how it is coded, and the term on show; numbers of all terms once one was typed."""

    numbers: str = control("", Pick("Numbers", "Which weights and activations are multiplied."))
    method: str = control(
        "POST", Pick("Method", "Where the levels of the weights are, hence the arithmetic.", options=METHODS)
    )
    bits: int = control(4, Slide("Bits of w", "The bit width of the weights.", low=2, high=4, step=1))
    a_bits: int = control(4, Slide("Bits of x", "The bit width of the activations.", low=1, high=4, step=1))
    term: int = control(1, Slide("Term", "The term that is added now.", low=1, high=8, step=1, play=True))
    weight: float = control(0.0, Number("Weight w", "The weight of this term: type another.", step=0.01))
    activation: float = control(
        0.0, Number("Input x", "The activation of this term: type another.", step=0.01)
    )
    weights: tuple[float, ...] = ()
    activations: tuple[float, ...] = ()


class TermsModel(Model[LutChoice]):
    """A model with numbers that can be typed; a subclass sets ``offered``, by name, of as many terms each."""

    offered: Mapping[str, Numbers]
    rescales = ("numbers",)

    def reach(self, c: LutChoice) -> dict[str, tuple[float, float]]:
        """Return the ends of the axes of weights and of activations: room for the numbers and all codes."""
        n = self.offered[c.numbers]
        last = float(tables(n, c.method, c.bits, 4)[1].borders[-1])
        top, high = 1.3 * float(np.abs(n.weights).max()), 1.1 * max(float(n.activations.max()), last)
        ends = (-top, top), (min(1.1 * float(n.activations.min()), -0.05 * high), high)
        return {k: (float(f"{a:.3g}"), float(f"{b:.3g}")) for k, (a, b) in zip(KINDS, ends, strict=True)}

    @property
    def terms(self) -> int:
        """The number of terms."""
        return len(next(iter(self.offered.values())).weights)

    def chosen(self, c: LutChoice) -> dict[str, np.ndarray]:
        """Return weights and activations by kind, those that were typed in place of the first ones."""
        return {
            kind: np.array(getattr(c, every) or getattr(self.offered[c.numbers], every))
            for kind, every in KINDS.items()
        }

    def limits(self, c: LutChoice) -> dict[str, dict[str, Any]]:
        """Return the numbers on offer, and where weights and activations can be."""
        offer = {"options": tuple(self.offered), "shown": len(self.offered) > 1}
        found: dict[str, dict[str, Any]] = {"numbers": offer, "term": {"high": self.terms}}
        return found | {kind: between(*ends, least=100) for kind, ends in self.reach(c).items()}

    def settled(self, before: LutChoice, after: LutChoice) -> LutChoice:
        """Put a number that was typed in its place; other numbers begin as they are."""
        moves, c = changed(before, after), after
        if "numbers" in moves:
            c = replace(c, weights=(), activations=())
        elif "term" not in moves:
            for kind in KINDS.keys() & moves:
                c = c if KINDS[kind] in moves else self.typed(c, kind, getattr(c, kind))
        return self.followed(c)

    def typed(self, c: LutChoice, kind: str, value: float) -> LutChoice:
        """Return the choice with another weight or activation of its term, on its axis."""
        (low, high), numbers = self.reach(c)[kind], self.chosen(c)[kind]
        numbers[c.term - 1] = min(max(value, low), high)
        return replace(c, **{KINDS[kind]: tuple(numbers.tolist())})

    def followed(self, c: LutChoice) -> LutChoice:
        """Bring weight and activation up to date with the term."""
        now = {kind: float(f"{numbers[c.term - 1]:.6g}") for kind, numbers in self.chosen(c).items()}
        return self.inside(replace(c, **now), *now)

    def dragged(self, c: LutChoice, panel: int, mark: int, index: int, x: float, y: float) -> LutChoice:
        """Move the weight, the activation, or the term."""
        if panel < len(KINDS):
            return self.followed(self.typed(c, list(KINDS)[panel], float(f"{x:.4g}")))
        return self.followed(replace(c, term=min(max(round(x), 1), self.terms)))

    def parsed(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the state with its numbers as such.

        Raises:
            ValueError: They are not finite, or not as many as there are terms.
        """
        made = {every: tuple(state.get(every, ())) for every in KINDS.values()}
        for every, numbers in made.items():
            good = all(isinstance(v, int | float) and math.isfinite(v) for v in numbers)
            if numbers and (len(numbers) != self.terms or not good):
                raise ValueError(f"{every} must be {self.terms} finite numbers, got {list(numbers)}")
        return {**state, **{every: tuple(map(float, numbers)) for every, numbers in made.items()}}
