"""GridExplorer: two grids on one tensor, at one bit width, with levels that can be dragged."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from torch import Tensor

from qviz.core.quantizer import Quantizer
from qviz.explore.grid import GridModel
from qviz.explore.grids import OwnGrids
from qviz.widgets.explorer import Explorer


class GridExplorer(Explorer):
    """Two grids on one tensor: levels over the histogram, staircases, errors and a table.

    Choosing the grid "custom" gives levels that can be dragged (or moved with the Level and Value boxes);
    it starts from the grid that was there before. Moving Clip switches the range rule to "manual clip".

    Args:
        x: Your own tensor or array, finite, floating point, with channels on axis 0. It joins the list of
            tensors and is shown first; one that cannot be shown is left out, and the explorer says why.
        grids: Your own grids, from a name to a Codebook (the same at every bit width) or to a function
            of (tensor, bits) that returns one. They join the list of grids.
        bits: The bit width to start with, 2 to 8.
        tensor: The name of the tensor to start with.
        show: The names of the controls on the page, all by default.

    Raises:
        TypeError: A grid is neither a Codebook nor callable.
        ValueError: A grid's name is taken, or there is no such tensor or control.

    Example:
        >>> e = GridExplorer(bits=4)
        >>> e.bits.value = 3
        >>> {name: row["levels"] for name, row in e.data()["table"].items()}
        {'A: POT': 7, 'B: POST': 7}
    """

    model: GridModel

    def __init__(
        self,
        x: Tensor | np.ndarray | None = None,
        grids: OwnGrids | None = None,
        *,
        bits: int = 4,
        tensor: str | None = None,
        show: Iterable[str] | None = None,
    ) -> None:
        super().__init__(GridModel(x, grids, bits=bits, tensor=tensor), show=show)

    def quantizers(self) -> dict[str, Quantizer]:
        """Return the two quantizers on show, calibrated, under the names of the table."""
        return self.model.quantizers(self._choice)
