"""GradientExplorer: rounding forward, its stand-in backward, and where that gradient takes a number."""

from __future__ import annotations

from collections.abc import Iterable

from qviz.explore.gradient import GradientModel
from qviz.widgets.explorer import Explorer


class GradientExplorer(Explorer):
    """Forward and backward side by side, with a number that can be dragged through both.

    The first picture has what a test computes and what training computes; the area between is the quantizer
    gap. The second has the gradient that training gets and the slope of what it computes; the area between is
    the gradient mismatch. The third trains: numbers descend on (Q(x) - target)² / 2. The table is the
    arithmetic of one number.

    Args:
        kind: What stands in for the derivative to start with, one of ``explorer.kind.options``.
        show: The names of the controls on the page, all by default.

    Raises:
        ValueError: There is no such kind.

    Example:
        >>> e = GradientExplorer("DAQ, controller")
        >>> e.scene().title
        'DAQ, controller: gradient mismatch 0.4485, quantizer gap 0'
        >>> e.gamma.value = 4.0
        >>> e.scene().title
        'DAQ, controller: gradient mismatch 0.1192, quantizer gap 0'
    """

    model: GradientModel

    def __init__(self, kind: str = "STE, clipped", *, show: Iterable[str] | None = None) -> None:
        super().__init__(GradientModel(), show=show)
        self._set(self.model.of(kind))
