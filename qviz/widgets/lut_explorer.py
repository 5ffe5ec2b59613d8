"""LutExplorer: a dot product on codes, walked term by term, beside its float result."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from qviz.explore.lut import LutModel
from qviz.widgets.explorer import Explorer


class LutExplorer(Explorer):
    """A dot product on codes, term by term: table, shifts and accumulators, beside the float result.

    Weights are uniform (multiplied as whole numbers), POT (shifts), POST (shifts into an even and an odd sum)
    or a codebook with the least error (a sum of activations for each level).

    Args:
        w: Weights of your own, 2 to 16 numbers; levels are fitted to them.
        x: As many activations; negative ones get the code 0.
        method: "uniform", "POT", "POST" or "codebook".
        bits: The bit width of the weights, 2 to 4.
        show: The names of the controls that are visible; by default all.

    Raises:
        ValueError: There is no such method or bit width, or only one of w and x is given.

    Example:
        >>> e = LutExplorer()
        >>> e.numbers.value, e.term.value = "easy numbers", 3
        >>> e.data()["table"]["3"]["added"], e.data()["table"]["3"]["accumulator"]
        (16, 'odd')
    """

    def __init__(
        self,
        w: Tensor | np.ndarray | None = None,
        x: Tensor | np.ndarray | None = None,
        *,
        method: str = "POST",
        bits: int = 4,
        show: Sequence[str] | None = None,
    ) -> None:
        super().__init__(LutModel(w, x, method=method, bits=bits), show=show)
