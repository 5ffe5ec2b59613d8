"""Compare: two inspections beside each other, layer by layer: before and after, 4 bits and 3, two recipes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from qviz.core._text import count, some, table
from qviz.inspection.files import Filed
from qviz.inspection.inspection import Inspection, Size, Whole
from qviz.inspection.views import LayerView, Outputs, Sensitivity
from qviz.inspection.words import called, cost, db, heading, widths

if TYPE_CHECKING:
    from qviz.plot.scene import Panel

FIGURES = (
    ("local dB", "outputs", "local", db, "+.1f"),
    ("cumulative dB", "outputs", "cumulative", db, "+.1f"),
    ("alone", "sensitivity", "on", cost, "+.3g"),
    ("without", "sensitivity", "off", cost, "+.3g"),
)
"""Columns of the table: title, where the figure is found, how it is written, and how its change is."""

HEAD = ("layer", "bits", *(title for name, *_ in FIGURES for title in (name, "change")))


@dataclass(frozen=True)
class Side:
    """What one of the two inspections says of a layer.

    Attributes:
        bits: Of weight and input, measured; "fp" where they stay in floating point.
        outputs: Ratios of its output; None where it is not quantized.
        sensitivity: None where it was not measured.
    """

    bits: str
    outputs: Outputs | None = None
    sensitivity: Sensitivity | None = None


@dataclass(frozen=True)
class Change:
    """One layer in both inspections.

    Attributes:
        name: The layer's.
        first, second: What each inspection says of it.
        local: By how much its local ratio rose, in dB; None where one of the two has none.
        cumulative: By how much its cumulative ratio rose, in dB; None likewise.
        on: By how much its cost alone rose; None likewise, or where the losses are not the same.
        off: By how much the gain of leaving it rose; None likewise.
    """

    name: str
    first: Side
    second: Side
    local: float | None
    cumulative: float | None
    on: float | None
    off: float | None


@dataclass(frozen=True)
class Comparison(Filed):
    """Two inspections of one network; ``print`` shows the layers from the worst change on.

    Attributes:
        first, second: Model, quantizer and samples of each, in words.
        loss: What the sensitivities of each are in: two names, see ``Inspection.loss``.
        whole: The outputs of each.
        size: The bytes of each.
        layers: Those that are quantized in one of them at least, in the order of the first.
        only_first: Names of quantized layers that the second has not.
        only_second: Names of quantized layers that the first has not.
    """

    SCHEMA: ClassVar[str] = "qviz.inspection.comparison"
    VERSION: ClassVar[int] = 1

    first: str
    second: str
    loss: tuple[str, ...]
    whole: tuple[Whole, ...]
    size: tuple[Size, ...]
    layers: tuple[Change, ...]
    only_first: tuple[str, ...] = ()
    only_second: tuple[str, ...] = ()

    def worst(self) -> tuple[Change, ...]:
        """Return the layers from the largest loss of local ratio on; those without such a change are last."""
        return tuple(sorted(self.layers, key=lambda one: math.inf if one.local is None else one.local))

    def text(self, top: int | None = None) -> str:
        """Return both totals and the layers from the worst change on, as text.

        Args:
            top: How many layers; all by default.
        """
        parts = [f"before: {self.first}", f"after: {self.second}"]
        shown = table(HEAD, [_cells(one) for one in self.worst()[:top]], right=range(2, len(HEAD)))
        if len(set(self.loss)) > 1:
            parts.append(f"The losses are not the same ({' and '.join(self.loss)}), so costs do not compare.")
        for names, which in ((self.only_first, "before"), (self.only_second, "after")):
            if names:
                parts.append(f"Only {which}: {count(len(names), 'layer')}, {some([*map(called, names)], 10)}")
        return "\n\n".join([*parts[:2], shown, *parts[2:]])

    def __str__(self) -> str:
        """Return :meth:`text` of all layers."""
        return self.text()

    def panel(self) -> Panel:
        """Return both local ratios, layer by layer, as a picture in plain numbers.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: No layer has a finite local ratio.
        """
        from qviz.inspection.panels import by_layer, decibels

        sides = {"before": [x.first for x in self.layers], "after": [x.second for x in self.layers]}
        rows = {name: [getattr(x.outputs, "local", None) for x in row] for name, row in sides.items()}
        names = [one.name for one in self.layers]
        found = by_layer("Local output of each layer", "signal to noise (dB)", rows, names, decibels)
        if found is None:
            raise ValueError("there is nothing to show: no layer has a finite local ratio")
        return found

    def picture(self, path: str | Path) -> Path:
        """Draw :meth:`panel` into a file, such as "change.png" or "change.svg", and return its path."""
        from qviz.plot.draw import figure
        from qviz.plot.scene import Scene

        panel = self.panel()
        figure(Scene(panel.title, (panel,))).savefig(path)
        return Path(path)


def compare(first: Inspection, second: Inspection) -> Comparison:
    """Set two inspections beside each other, layers matched by name.

    Raises:
        TypeError: One of them is no inspection.
        ValueError: They have no quantized layer in common.

    Example:
        >>> import torch
        >>> from qviz import inspect
        >>> net, x = torch.nn.Linear(8, 4), torch.rand(4, 8)
        >>> two = [inspect(net, x, recipe="lsq", bits=b, first_last="quantized") for b in (4, 3)]
        >>> compare(*two).layers[0].local < 0
        True
    """
    for one in (first, second):
        if not isinstance(one, Inspection):
            raise TypeError(f"compare takes two inspections, got {type(one).__name__}")
    mine, theirs = ({layer.name: layer for layer in one.layers} for one in (first, second))
    both = [x for x in first.layers if x.name in theirs and (x.quantized or theirs[x.name].quantized)]
    if not both:
        raise ValueError(f"{first.model} and {second.model} have no quantized layer of one name")
    costs = first.loss == second.loss
    return Comparison(
        first=heading(first),
        second=heading(second),
        loss=(first.loss, second.loss),
        whole=(first.whole, second.whole),
        size=(first.size, second.size),
        layers=tuple(_change(layer, theirs[layer.name], costs) for layer in both),
        only_first=tuple(layer.name for layer in first.quantized if layer.name not in theirs),
        only_second=tuple(layer.name for layer in second.quantized if layer.name not in mine),
    )


def _change(first: LayerView, second: LayerView, costs: bool) -> Change:
    sides = tuple(Side(widths(one), one.outputs, one.sensitivity) for one in (first, second))
    outputs, losses = ([getattr(side, key) for side in sides] for key in ("outputs", "sensitivity"))
    return Change(
        first.name,
        *sides,
        local=_rise(outputs, "local"),
        cumulative=_rise(outputs, "cumulative"),
        on=_rise(losses, "on") if costs else None,
        off=_rise(losses, "off") if costs else None,
    )


def _rise(of: list[Outputs | Sensitivity | None], field: str) -> float | None:
    """Return the difference of a figure; None where one is missing or both are infinite."""
    before, after = (getattr(one, field, None) for one in of)
    if before is None or after is None or math.isnan(after - before):
        return None
    return after - before


def _cells(change: Change) -> tuple[str, ...]:
    before, after = change.first, change.second
    bits = before.bits if before.bits == after.bits else f"{before.bits} to {after.bits}"
    cells = [called(change.name), bits]
    for _, part, field, said, rise in FIGURES:
        by = getattr(change, field)
        cells += [said(getattr(getattr(after, part), field, None)), "" if by is None else f"{by:{rise}}"]
    return tuple(cells)
