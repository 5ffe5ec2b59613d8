"""Lut: a dot product walked term by term on codes, by table, shifts and accumulators, beside its float."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from qviz.core import _check
from qviz.explore import lut_panels as draw
from qviz.explore.lut_numbers import EASY, REAL, easy, own, real, tables
from qviz.explore.lut_terms import LutChoice, TermsModel
from qviz.explore.lut_walk import METHODS, Walk
from qviz.explore.tensors import YOURS, Offer
from qviz.export.fold import weight_table
from qviz.plot.scene import Scene


class LutModel(TermsModel):
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
        self.sources, self.offered = Offer(), {REAL: real(), EASY: easy()}
        if w is not None:
            try:
                self.offered = {YOURS: own(w, x)}
            except (TypeError, ValueError) as error:
                self.sources.problem = f"Your numbers are left out: {error}."
        first = next(iter(self.offered))
        self.start = self.followed(LutChoice(first, method, _check.bits(bits, 2, 4, "LutExplorer")))

    def walk(self, c: LutChoice) -> Walk:
        """Return the dot product."""
        weight, read = tables(self.offered[c.numbers], c.method, c.bits, c.a_bits)
        weights, activations = self.chosen(c).values()
        coded = weight_table(weight, torch.from_numpy(weights).float())
        return Walk(c.method, coded, read, weights, activations)

    def paged(self, c: LutChoice) -> dict[str, tuple[Any, ...]]:
        """Return every method at every term."""
        return {"method": METHODS, "term": tuple(range(1, self.terms + 1))}

    def headline(self, c: LutChoice) -> dict[str, float]:
        """Return the whole sum, of integers and in floating point."""
        k = self.walk(c)
        return {"integer result": k.exact(k.count), "float result": k.floating(k.count)}

    def scene(self, c: LutChoice) -> Scene:
        """Return weight, activation, table of products, registers, the sum so far, a line for each term."""
        m = draw.Moment(self.walk(c), c.term, *self.reach(c).values())
        coded = f"{c.method}, {c.bits}-bit weights × {c.a_bits}-bit activations"
        sums = draw.product_table(m), draw.registers(m), draw.running(m)
        panels = (draw.of_weights(m), draw.of_activations(m), *sums)
        about = f"{self.offered[c.numbers].about}. {draw.told(m)}"
        return Scene(f"{coded}: term {c.term} of {self.terms}", panels, draw.table(m), about)
