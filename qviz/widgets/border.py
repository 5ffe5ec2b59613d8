"""BorderExplorer: where an activation rounds up, for one product and for a layer of a real network."""

from __future__ import annotations

from collections.abc import Sequence

from qviz.explore.border import BorderModel
from qviz.widgets.explorer import Explorer


class BorderExplorer(Explorer):
    """AQuant's border: bent by hand or learned, on one product and on a layer, beside a bias and an oracle.

    The three dots on the border, and the product on the map, can be dragged.

    Args:
        show: The names of the controls on show; by default all.

    Attributes:
        network, bits, border, low, middle, high, channel, weight, activation, compare: The controls.

    Example:
        >>> e = BorderExplorer()
        >>> e.weight.value, e.activation.value = 0.7, 1.6
        >>> e.scene().table.notes
        ("w = 0.7 → w' = 1; u = 1.6: cell 1, t = 0.6 > B = 0.5 → x' = 2", "w'x' − wu = 2 − 1.12 = 0.88")
    """

    def __init__(self, *, show: Sequence[str] | None = None) -> None:
        super().__init__(BorderModel(), show=show)
