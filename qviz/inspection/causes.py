"""Causes: why a layer may be bad, in words, from the plain numbers of its view."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from qviz.core._text import count
from qviz.inspection.rules import ALWAYS, RULES, few_bits
from qviz.inspection.side import Side
from qviz.inspection.views import Cause, LayerView
from qviz.inspection.words import called, db

GOOD = 30.0
"""In dB: where weight or input alone leaves the output so much, there is nothing to explain."""

BEHIND = "before it"
BEFORE, POOR = 10.0, 20.0
"""In dB: the local ratio over the cumulative one, and from where down the latter is worth a word."""

MOST = 0.5
"""Share of the quantized layers: if more have their error from before, that tells none from another."""

BLAME, PART = 6.0, 10.0
"""In dB: so much worse, one of weight and input is to blame; so much better, it has no part in the error."""


def causes(layer: LayerView) -> tuple[Cause, ...]:
    """Return why a layer may be bad: weight or input first, whichever is to blame, then by how far over.

    Args:
        layer: With its trials, as far as there are any.
    """
    sides = _sides(layer)
    found = _blame(sides)
    for side in sides:
        bad = side.db < min(GOOD, sides[0].db + PART)
        rules = RULES if bad and side.db < side.fair else ALWAYS
        own = [cause for rule in rules if (cause := rule(side)) is not None]
        found += sorted(own, key=_severity, reverse=True)
        found += few_bits(side) if bad and not own else []
    return (*found, *_before(layer))


def once(layers: Sequence[LayerView]) -> tuple[tuple[LayerView, ...], str]:
    """Return layers without a cause that most of them share, and the sentence that says it of the network.

    Args:
        layers: With their causes.

    Returns:
        The same layers and "" where it tells some from others.
    """
    late = [layer for layer in layers if any(cause.kind == BEHIND for cause in layer.causes)]
    quantized = [layer for layer in layers if layer.quantized]
    if len(late) <= MOST * len(quantized):
        return tuple(layers), ""
    kept = tuple(
        replace(one, causes=tuple(cause for cause in one.causes if cause.kind != BEHIND)) for one in layers
    )
    own = [one for one in quantized if one.outputs is not None and one.outputs.local is not None]
    worst = min(own, key=lambda one: one.outputs.local)
    return kept, (
        f"Most of the error of {len(late):,} of {count(len(quantized), 'layer')} comes from the layers "
        f"before them; by itself the worst is {called(worst.name)}, {db(worst.outputs.local)} dB."
    )


def _sides(layer: LayerView) -> list[Side]:
    """Return weight and input, the worse first, as far as they are quantized."""
    o = layer.outputs
    if o is None:
        return []
    both = (("weight", layer.weight, o.weight), ("input", layer.input, o.input))
    sides = [
        Side(layer, name, values, values.codes, db)
        for name, values, db in both
        if values is not None and values.codes is not None and db is not None
    ]
    return sorted(sides, key=lambda side: side.db)


def _severity(cause: Cause) -> float:
    over = cause.figure / cause.threshold
    return max(over, 1 / over) if over > 0 else math.inf


def _blame(sides: list[Side]) -> list[Cause]:
    if len(sides) < 2 or sides[0].db >= GOOD or not (gap := sides[1].db - sides[0].db) >= BLAME:
        return []
    bad, good = sides
    text = f"the {bad.name} is to blame: {bad.db:.1f} dB with it alone quantized, {good.db:.1f} dB with the "
    return [Cause(f"the {bad.name}", gap, BLAME, f"{text}{good.name} alone")]


def _before(layer: LayerView) -> list[Cause]:
    o = layer.outputs
    if o is None or o.local is None or o.cumulative is None or o.cumulative >= POOR:
        return []
    if not o.local - o.cumulative >= BEFORE:
        return []
    text = (
        f"most of its error comes from the layers before it: {db(o.cumulative)} dB behind them, "
        f"{db(o.local)} dB by itself"
    )
    return [Cause(BEHIND, o.local - o.cumulative, BEFORE, text)]
