"""BitBudgetExplorer: how many bits each layer of the shipped ResNet-20 gets under a limit of size."""

from __future__ import annotations

from collections.abc import Sequence

from qviz.explore.bit_budget import BudgetModel
from qviz.widgets.explorer import Explorer


class BitBudgetExplorer(Explorer):
    """Mixed precision: bits of each layer under a limit of size, against greedy, exact and all equal.

    The dots in the first picture can be dragged, and in the next two that of the chosen layer, whose bits
    walk through the picture; so can the budget. Measure runs the network with the bits on show.

    Args:
        show: The names of the controls on show; by default all.

    Attributes:
        budget, way, estimate, layer, width: The controls.
        measure: The button.

    Example:
        >>> e = BitBudgetExplorer()
        >>> e.layer.value, e.width.value = 2, 6
        >>> e.way.value, round(e.data()["table"]["yours"]["kB"], 1)
        ('by hand', 101.5)
    """

    def __init__(self, *, show: Sequence[str] | None = None) -> None:
        super().__init__(BudgetModel(), show=show)
