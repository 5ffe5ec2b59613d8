"""Side: the weight or the input of a layer, as the rules look at it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from qviz.inspection.views import PLACED, Codes, LayerView, Values
from qviz.inspection.words import WORTH

NORMAL = (4.4, 9.25, 14.27, 19.38, 24.57, 29.83, 35.13, 40.34)
"""In dB: the most that uniform levels of 1 to 8 bits give a normal distribution (Max, 1960)."""

SHORT = 3.0
"""In dB: values that are so close to that are served as well as their bits allow."""


@dataclass(frozen=True)
class Side:
    """The weight or the input of a layer: "weight" or "input", and what it alone leaves the output, in dB."""

    layer: LayerView
    name: str
    values: Values
    codes: Codes
    db: float

    @property
    def weight(self) -> bool:
        """Whether it is the weight."""
        return self.name == "weight"

    @property
    def plural(self) -> str:
        """What its values are called."""
        return f"{self.name}s"

    @property
    def one_step(self) -> bool:
        """Whether all values share one step, in their own unit."""
        return self.values.unit == "value" and self.codes.note in ("", PLACED)

    @property
    def bits(self) -> float:
        """Of the codebook: log2 of its levels."""
        return max(1.0, math.log2(self.codes.levels))

    @property
    def normal(self) -> float:
        """What a normal distribution would have with so many levels, in dB."""
        return NORMAL[min(8, round(self.bits)) - 1]

    @property
    def fair(self) -> float:
        """From so many dB on, the bits give what they can, and nothing else is wrong."""
        return self.normal - SHORT

    @property
    def below_zero(self) -> float:
        """The share of values below 0 where no level is; the histogram's unit has their signs."""
        if self.values.low >= 0 or min(self.codes.positions) < 0:
            return 0.0
        edges, heights = self.values.edges, self.values.heights
        bins = zip(edges, edges[1:], heights, strict=False)
        return sum(h * min(1.0, max(0.0, -a / (b - a))) for a, b, h in bins) / max(1, sum(heights))

    def gain(self, of_weight: str, of_input: str = "") -> float | None:
        """Return what a trial gained, in dB; None where it was not tried or cannot be had."""
        what = of_weight if self.weight else of_input
        return next((t.gain for t in self.layer.trials if t.what == what), None)


def would(what: str, gain: float | None) -> str:
    """Return the end of a sentence: what something would give, where that is known and worth a word."""
    return "" if gain is None or gain < WORTH else f": {what} would give {gain:+.1f} dB"


def percent(share: float) -> str:
    """Return a share in percent, with two digits, or more above 99 %."""
    value = 100 * share
    return f"{value:.2g} %" if value < 10 else f"{value:.0f} %" if value < 99 else f"{value:.1f} %"
