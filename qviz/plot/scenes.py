"""Scenes: panels and table of some methods on one tensor."""

from __future__ import annotations

from collections.abc import Mapping

from qviz.core.quantizer import Quantizer
from qviz.core.summary import Summary
from qviz.measure import Comparison, Measured
from qviz.plot import panels
from qviz.plot.scene import Scene, Table


def compared(
    data: Summary,
    methods: Mapping[str, Quantizer],
    title: str,
    about: str = "",
    *,
    reach: float | None = None,
) -> Scene:
    """Show some quantizers on one tensor: levels, staircases, errors and the table of their figures.

    Args:
        data: The summary of the tensor.
        methods: One or two calibrated quantizers by name.
        title: What is shown, in one line.
        about: Sentences that belong to the whole.
        reach: Where the error axis ends on both sides of 0; by default three times the largest RMS error.
    """
    figures = {name: Measured(q, data, name) for name, q in methods.items()}  # for picture and table
    rows = Comparison(tuple(measured.row(name) for name, measured in figures.items()))
    parts = (
        panels.levels(data, methods),
        panels.staircase(data, methods),
        panels.error(data, figures, reach=reach),
    )
    return Scene(title, parts, Table.of(rows, panels.ROLES[: len(methods)]), about)
