"""Grid pictures: a pair of grids with what can be dragged, and the page of all grids in two columns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qviz.core.quantizer import Quantizer
from qviz.explore.grids import MANUAL, SEARCH, clip
from qviz.explore.hand import CUSTOM
from qviz.explore.model import Page
from qviz.explore.pair import GridChoice, PairModel
from qviz.measure.positions import border_positions, level_positions
from qviz.plot import panels
from qviz.plot.page import Chooser, Key
from qviz.plot.scene import Points, Scene
from qviz.plot.scenes import compared

CUSTOM_DOTS = 4
"""The index of the custom grid's dots: after the histogram, two rulers and the cell of a level."""


def scene(model: PairModel, c: GridChoice) -> Scene:
    """Return levels, staircases, errors and the table of the two grids, with what can be dragged."""
    named = model.quantizers(c)
    rule = f"{c.rule} {c.clip:.3g}" if c.rule == MANUAL else c.rule
    channels = ", per channel (drawn: the median scale)" if model.axis(c) is not None else ""
    shown = compared(model.data(c), named, f"{c.tensor}, {c.bits} bits, {rule}{channels}")
    levels, stairs, error = shown.panels
    if c.edits:
        levels = model.with_dots(c, levels, 0 if c.grid_a == CUSTOM else 1)
    handle = Points("e", np.array([c.clip]), np.array([0.04 * levels.y.high]), "x", label="clip")
    levels = replace(levels, marks=(*levels.marks, handle))
    walks = [_walk(c.x, role, *method) for role, method in zip("ab", named.items(), strict=True)]
    dots, said = zip(*walks, strict=True)
    stairs = replace(stairs, marks=(*stairs.marks, *dots))
    about = f"{_about(model, c)} One number: x = {c.x:.4g} becomes {'; '.join(said)}."
    return replace(shown, panels=(levels, stairs, error), about=about)


def _walk(x: float, role: str, name: str, q: Quantizer) -> tuple[Points, str]:
    """Return where a number ends on a staircase, and its way there in words."""
    at, k = level_positions(q), int(np.searchsorted(border_positions(q), x))
    told = f"{at[k]:.4g} on {name} (level {k + 1} of {len(at)}, error {at[k] - x:+.2g})"
    return Points(role, np.array([x]), at[k : k + 1], "x"), told


def _about(model: PairModel, c: GridChoice) -> str:
    """Return what the tensor is, and what a manual clip does."""
    about = f"{c.tensor}: {model.sources[c.tensor].about}."
    if c.rule != MANUAL or c.edits:
        return about
    found = replace(c, rule=SEARCH, per_channel=False)
    best = [f"{clip(model.quantizer(found, grid)):.3g} for {slot}" for slot, grid in c.grids.items()]
    return f"{about} One clip, {c.clip:.3g}, serves both grids; the MSE search finds {' and '.join(best)}."


def page(model: PairModel, c: GridChoice) -> Page:
    """Return every grid at every bit width, in two columns; the custom grid where it is on show or was moved.

    At one bit width all grids share one error axis, so that the columns can be compared.
    """
    here = [replace(c, bits=bits) for bits in model.controls(c)["bits"].values()]
    custom = [at.moved is not None or (at == c and c.edits) for at in here]
    grids = tuple(g for g in model.names(4) if g != CUSTOM or any(custom))
    data = model.data(c)
    frames: dict[Key, Scene] = {}
    for i, at in enumerate(here):
        made = {g: model.quantizer(at, g) for g in model.names(at.bits) if g != CUSTOM or custom[i]}
        reach = max(panels.error(data, {g: q}).x.high for g, q in made.items())
        for g, q in made.items():
            told = f"{g}, {at.bits} bits", _about(model, at)
            frames[i, grids.index(g)] = compared(data, {g: q}, *told, reach=reach)
    widths = tuple(str(at.bits) for at in here)
    choosers = [Chooser("Bits", widths, slider=True), Chooser("Grid", grids, own=True)]
    first = {slot: (here.index(c), grids.index(g)) for slot, g in c.grids.items()}
    return Page(choosers, frames, first)
