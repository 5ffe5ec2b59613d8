"""Lut: a dot product walked term by term on codes, by table, shifts and accumulators, beside its float."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from qviz.core import _check
from qviz.core.quantizer import Quantizer
from qviz.explore.controls import Number, Pick, Slide, control
from qviz.explore.lut_numbers import EASY, REAL, easy, own, real, tables
from qviz.explore.lut_panels import (
    Moment,
    does,
    of_activations,
    of_weights,
    product_table,
    registers,
    running,
    table,
)
from qviz.explore.lut_walk import METHODS, Walk
from qviz.explore.model import Model, changed
from qviz.explore.tensors import YOURS, Offer
from qviz.export.fold import weight_table
from qviz.export.tables import InputTable
from qviz.plot.scene import Scene


@dataclass(frozen=True)
class LutChoice:
    """A dot product, how its weights are coded, and the term on show."""

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


class LutModel(Model[LutChoice]):
    """A dot product on codes, term by term: table, shifts and accumulators, beside the float result.

    The arguments, and what is refused, are those of :class:`~qviz.widgets.LutExplorer`.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "POST: shifts into two sums": {"method": "POST"},
        "POT: shifts into one sum": {"method": "POT"},
        "uniform: small multiplications": {"method": "uniform"},
        "codebook: a sum for each level": {"method": "codebook", "bits": 3},
        "one-bit activations": {"a_bits": 1},
    }
    rescales = ("numbers",)

    def __init__(
        self,
        w: Tensor | np.ndarray | None = None,
        x: Tensor | np.ndarray | None = None,
        *,
        method: str = "POST",
        bits: int = 4,
    ) -> None:
        if method not in METHODS:
            raise ValueError(f"unknown method {method!r}; there are {list(METHODS)}")
        if (w is None) != (x is None):
            raise ValueError(f"w and x belong together, got only {'x' if w is None else 'w'}")
        self.sources, self._numbers = Offer(), {REAL: real(), EASY: easy()}
        if w is not None:
            try:
                self._numbers = {YOURS: own(w, x)}
            except (TypeError, ValueError) as error:
                self.sources.problem = f"Your numbers are left out: {error}."
        first = next(iter(self._numbers))
        self.start = self.followed(LutChoice(first, method, _check.bits(bits, 2, 4, "LutExplorer")))

    @property
    def terms(self) -> int:
        """The number of terms: that of all numbers on offer."""
        return len(next(iter(self._numbers.values())).weights)

    def chosen(self, c: LutChoice) -> tuple[np.ndarray, np.ndarray]:
        """Return weights and activations, those that were typed in place of the first ones."""
        n = self._numbers[c.numbers]
        return np.array(c.weights or n.weights), np.array(c.activations or n.activations)

    def tables(self, c: LutChoice) -> tuple[Quantizer, InputTable]:
        """Return the quantizer of the weights and the table of the activations."""
        return tables(self._numbers[c.numbers], c.method, c.bits, c.a_bits)

    def walk(self, c: LutChoice) -> Walk:
        """Return the dot product."""
        weights, activations = self.chosen(c)
        weight, read = self.tables(c)
        coded = weight_table(weight, torch.from_numpy(weights).float())
        return Walk(c.method, coded, read, weights, activations)

    def reach(self, c: LutChoice) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return the ends of the axes of weights and of activations."""
        n = self._numbers[c.numbers]
        last = float(self.tables(replace(c, a_bits=4))[1].borders[-1])
        top, high = 1.3 * float(np.abs(n.weights).max()), 1.1 * max(float(n.activations.max()), last)
        low = min(1.1 * float(n.activations.min()), -0.05 * high)
        return (float(f"{-top:.3g}"), float(f"{top:.3g}")), (float(f"{low:.3g}"), float(f"{high:.3g}"))

    def limits(self, c: LutChoice) -> dict[str, dict[str, Any]]:
        """Return the numbers on offer, and where weights and activations can be."""
        found: dict[str, dict[str, Any]] = {
            "numbers": {"options": tuple(self._numbers), "shown": len(self._numbers) > 1},
            "term": {"high": self.terms},
        }
        for name, (low, high) in zip(("weight", "activation"), self.reach(c), strict=True):
            grain = 10.0 ** math.floor(math.log10((high - low) / 100))
            found[name] = {"low": low, "high": high, "step": grain}
        return found

    def settled(self, before: LutChoice, after: LutChoice) -> LutChoice:
        """Put a number that was typed in its place; other numbers begin as they are."""
        moves, c = changed(before, after), after
        if "numbers" in moves:
            c = replace(c, weights=(), activations=())
        elif "term" not in moves:
            for name, all_of_them in (("weight", "weights"), ("activation", "activations")):
                if name in moves and all_of_them not in moves:
                    c = self.typed(c, name, getattr(c, name))
        return self.followed(c)

    def typed(self, c: LutChoice, name: str, value: float) -> LutChoice:
        """Return the choice with another weight or activation of its term, on its axis."""
        which = ("weight", "activation").index(name)
        (low, high), numbers = self.reach(c)[which], self.chosen(c)[which]
        numbers[c.term - 1] = min(max(value, low), high)
        return replace(c, **{f"{name}s": tuple(numbers.tolist())})

    def followed(self, c: LutChoice) -> LutChoice:
        """Bring weight and activation up to date with the term."""
        weight, activation = (float(f"{numbers[c.term - 1]:.6g}") for numbers in self.chosen(c))
        return self.inside(replace(c, weight=weight, activation=activation), "weight", "activation")

    def dragged(self, c: LutChoice, panel: int, mark: int, index: int, x: float, y: float) -> LutChoice:
        """Move the weight, the activation, or the term."""
        if panel == 4:
            return self.followed(replace(c, term=min(max(round(x), 1), self.terms)))
        return self.followed(self.typed(c, ("weight", "activation")[panel], float(f"{x:.4g}")))

    def parsed(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the state with its numbers as such.

        Raises:
            ValueError: They are not finite, or not as many as there are terms.
        """
        made = {name: tuple(state.get(name, ())) for name in ("weights", "activations")}
        for name, numbers in made.items():
            good = all(isinstance(v, int | float) and math.isfinite(v) for v in numbers)
            if numbers and (len(numbers) != self.terms or not good):
                raise ValueError(f"{name} must be {self.terms} finite numbers, got {list(numbers)}")
        return {**state, **{name: tuple(map(float, numbers)) for name, numbers in made.items()}}

    def paged(self, c: LutChoice) -> dict[str, tuple[Any, ...]]:
        """Return every method at every term."""
        return {"method": METHODS, "term": tuple(range(1, self.terms + 1))}

    def headline(self, c: LutChoice) -> dict[str, float]:
        """Return the whole sum, of integers and in floating point."""
        k = self.walk(c)
        return {"integer result": k.exact(k.count), "float result": k.floating(k.count)}

    def scene(self, c: LutChoice) -> Scene:
        """Return weight, activation, table of products, registers, the sum so far, a line for each term."""
        k = self.walk(c)
        m = Moment(k, c.term, *self.reach(c))
        title = f"{c.method}, {c.bits}-bit weights × {c.a_bits}-bit activations: term {c.term} of {k.count}"
        panels = (of_weights(m), of_activations(m), product_table(m), registers(m), running(m))
        return Scene(title, panels, table(m), f"{self._numbers[c.numbers].about}. {told(m)}")


def told(m: Moment) -> str:
    """Return what the term on show does, in a sentence."""
    k, i = m.walk, m.i
    part = k.route.parts[k.codes[i]]
    head = f"Term {m.terms}: level {k.levels[k.codes[i]]:.4g}, a = {k.a[i]}"
    if not part.sign:
        return f"{head}: the level is 0, so nothing is added."
    name, now = k.route.names[part.accumulator], k.accumulators(m.terms)[part.accumulator]
    return f"{head}: {does(k, i)} goes to {name}, now {now}.".replace("-", "−")
