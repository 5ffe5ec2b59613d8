"""Rules: each reads one figure of a layer's weight or input, and says what it means where it is too large.

Thresholds were set on the shipped ResNet-20 and on MobileNetV2, so that a layer that is well served at eight
bits has no cause. What a trial has refuted is not said.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from qviz.inspection.side import Side, percent, would
from qviz.inspection.trials import CHANNELS, INPUT_BIT, INPUT_STEP, WEIGHT_BIT, WEIGHT_STEP
from qviz.inspection.views import EMPTY, Cause, Values
from qviz.inspection.words import WORTH

SPREAD = 10.0
"""Of the widest channel over the narrowest."""

DEAD, LOST = 0.25, 0.1
"""Shares of channels that are 0, and of those that become 0."""

NEGATIVE = 0.01
"""Share of inputs below 0 where no level is."""

UNSERVED = 0.25
"""Share of levels that serve no value."""

TINY, ZEROS = 0.5, 0.5
"""Shares of weights below a millionth of the largest, and of values other than 0 that are read as 0."""

SATURATED = 0.4
"""Times 2^-bits, of the values other than 0: at the step of least squared error a normal distribution has
7 % at two bits with three levels on one side, and 0.7 % at four."""

TAIL, KURTOSIS = 4.0, 12.0
"""The largest value over the one that 99.9 % are below, and the kurtosis: 1.5 and 3 of a million values of a
normal distribution."""

ENTROPY = 0.5
"""As a share of a code's bits; 0.8 of a normal distribution at four bits."""

GRID = 2.0
"""In dB: what another grid gains."""

NOT_NEAREST = ("adaround_weight", "aquant_activation")
"""Recipes that do not round to the nearest level."""


def _spread(side: Side) -> Cause | None:
    figure = side.values.spread
    if figure < SPREAD or not side.weight or not side.one_step:
        return None
    each, one = side.gain(CHANNELS), side.gain(WEIGHT_STEP)
    if each is not None and each - max(one or 0.0, 0.0) < WORTH and _lost(side) is None:
        return None
    wide = (
        f"one channel of the weight is {figure:,.0f} times wider than the narrowest, and all share one step"
    )
    return Cause("channel spread", figure, SPREAD, wide + would("a step for each", each))


def _lost(side: Side) -> Cause | None:
    codes = side.codes
    nearest = not codes.note and codes.recipe.partition("(")[0] not in NOT_NEAREST
    if not (side.one_step and nearest) or codes.zeros is None:
        return None
    border = min(abs(p) for p in codes.positions if p != 0) / 2
    lost = sum(EMPTY * side.values.widest < r <= border for r in side.values.ranges)
    figure = lost / side.values.channels
    if figure < LOST:
        return None
    kind = "output" if side.weight else "input"
    text = (
        f"{lost} of {side.values.channels} {kind} channels are read as 0 altogether: no value in "
        "them reaches half a step"
    )
    return Cause("lost channels", figure, LOST, text)


def _dead(side: Side) -> Cause | None:
    figure = side.values.dead / side.values.channels
    if figure < DEAD or (side.weight and not side.one_step):
        return None
    what = "output channels have weights of 0" if side.weight else "input channels are 0 in all samples"
    text = f"{side.values.dead} of {side.values.channels} {what}, or next to it: "
    text += "a step that a mean sets becomes small"
    return Cause("dead channels", figure, DEAD, text)


def _saturation(side: Side) -> Cause | None:
    alive = 1.0 - side.values.tiny
    figure = side.codes.saturated / alive if alive > 0 else 0.0
    threshold = SATURATED * 2.0**-side.bits
    gain = side.gain(WEIGHT_STEP, INPUT_STEP)
    if figure - side.below_zero / max(alive, 1e-9) < threshold or (gain is not None and gain < WORTH):
        return None
    what = side.plural if side.values.tiny < 0.01 else f"{side.plural} that are not 0"
    text = f"{percent(figure)} of the {what} saturate"
    return Cause("saturation", figure, threshold, text + would("the step of least squared error", gain))


def _negative(side: Side) -> Cause | None:
    figure = side.below_zero
    if side.weight or figure < NEGATIVE:
        return None
    text = f"{percent(figure)} of the inputs are negative, down to {side.values.low:.3g}, and have no level"
    return Cause("negative inputs", figure, NEGATIVE, text)


def _unserved(side: Side) -> Cause | None:
    codes = side.codes
    unserved = codes.levels - codes.used
    figure = unserved / codes.levels
    if figure < UNSERVED or side.values.count < 8 * codes.levels:
        return None
    gain = side.gain(WEIGHT_STEP, INPUT_STEP)
    text = f"{unserved} of {codes.levels} levels of the {side.name} serve no value"
    text += would("the step of least squared error", gain)
    return Cause("unserved levels", figure, UNSERVED, text)


def _tiny(side: Side) -> Cause | None:
    figure = side.values.tiny
    if not side.weight or figure < TINY:
        return None
    text = f"{percent(figure)} of the weights are below a millionth of the largest: they are as good as 0"
    return Cause("tiny weights", figure, TINY, text)


def _zeros(side: Side) -> Cause | None:
    figure = 0.0 if side.codes.zeros is None else side.codes.zeros - side.values.tiny
    if figure < ZEROS:
        return None
    text = f"{percent(figure)} of the {side.plural} are read as 0 though they are not"
    return Cause("read as zero", figure, ZEROS, text)


def _tail(side: Side) -> Cause | None:
    figure = side.values.tail
    if figure < TAIL or side.values.unit != "value":
        return None
    text = f"the largest of the {side.plural} is {figure:.1f} times the size that 99.9 % stay below"
    return Cause("outliers", figure, TAIL, text)


def _kurtosis(side: Side) -> Cause | None:
    if not side.weight or _tail(side) is not None or _spread(side) is not None:
        return None
    figure = side.values.kurtosis if side.values.unit == "value" else _of_histogram(side.values)
    if figure < KURTOSIS:
        return None
    text = f"the weights have a kurtosis of {figure:.0f} (a normal distribution has 3): few of them are large"
    return Cause("outliers", figure, KURTOSIS, text)


def _of_histogram(values: Values) -> float:
    """Return the kurtosis of what a histogram counts."""
    mids = [(a + b) / 2 for a, b in zip(values.edges, values.edges[1:], strict=False)]
    n = sum(values.heights)
    mean = sum(m * h for m, h in zip(mids, values.heights, strict=True)) / n
    second, fourth = (
        sum((m - mean) ** k * h for m, h in zip(mids, values.heights, strict=True)) / n for k in (2, 4)
    )
    return fourth / second**2 if second > 0 else 0.0


def _entropy(side: Side) -> Cause | None:
    codes, counts = side.codes, list(side.codes.counts)
    if codes.zeros is not None:  # exact zeros, as behind ReLU, are no fault
        at = min(range(len(counts)), key=lambda i: abs(codes.positions[i]))
        counts[at] = max(0, counts[at] - round(side.values.tiny * sum(counts)))
    shares = [c / sum(counts) for c in counts if c]
    entropy = -sum(p * math.log2(p) for p in shares)
    figure = entropy / side.bits
    if figure >= ENTROPY or any(rule(side) is not None for rule in (_zeros, _unserved)):
        return None
    text = f"few levels do the work: codes of the {side.plural} tell {entropy:.1f} of {side.bits:.0f} bits"
    return Cause("low entropy", figure, ENTROPY, text)


def _grid(side: Side) -> Cause | None:
    if not side.weight:
        return None
    tried = [t for t in side.layer.trials if t.what.endswith(" levels") and t.gain is not None]
    best = max(tried, key=lambda t: t.gain, default=None)
    if best is None or best.gain - max(side.gain(WEIGHT_STEP) or 0.0, 0.0) < GRID:
        return None
    text = f"{best.what} for the weight would give {best.gain:+.1f} dB at the same bits"
    return Cause("grid", best.gain, GRID, text)


RULES: tuple[Callable[[Side], Cause | None], ...] = (
    _spread,
    _lost,
    _dead,
    _saturation,
    _negative,
    _unserved,
    _tiny,
    _zeros,
    _tail,
    _kurtosis,
    _entropy,
    _grid,
)


ALWAYS = (_lost,)
"""Those that hold of a layer with a good ratio too: the widest channels make it, and narrow ones are gone."""


def few_bits(side: Side) -> list[Cause]:
    """Return that the bits give what they can, where they do."""
    own = side.codes.sqnr_db
    figure = max(own, side.db)
    if figure < side.fair:
        return []
    bits = "1 bit does what it" if side.bits < 1.5 else f"{round(side.bits)} bits do what they"
    what = f"the {side.plural} have" if own == figure else f"with the {side.name} alone the output has"
    text = f"{bits} can: {what} {figure:.1f} dB, a normal distribution would have {side.normal:.1f}"
    more = would("one more", side.gain(WEIGHT_BIT, INPUT_BIT))
    return [Cause("few bits", figure, side.normal, text + more)]
