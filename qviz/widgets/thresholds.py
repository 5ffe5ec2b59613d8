"""ThresholdExplorer: thresholds that are dragged, uniform outputs, and the gradient of each width."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from torch import Tensor

from qviz.explore.thresholds import ThresholdModel
from qviz.widgets.explorer import Explorer


class ThresholdExplorer(Explorer):
    """N2UQ on activations: thresholds to drag, uniform outputs, their expectation, each width's gradient.

    Args:
        x: A tensor of your own, offered first; floating point, finite.
        tensor: The tensor to start with, as the list shows it.
        bits: The bit width to start with, 1 to 4.
        show: The names of the controls on the page, all by default.

    Attributes:
        tensor, bits, threshold, value, push, begin, scale, draws, loss, x: The controls.

    Raises:
        ValueError: There is no such tensor, or bits are out of range.

    Example:
        >>> e = ThresholdExplorer(bits=2)
        >>> e.threshold.value, e.value.value = 2, 1.5
        >>> [round(row["threshold"], 2) for row in e.data()["table"].values()]
        [0.33, 1.5, 2.67]
    """

    def __init__(
        self,
        x: Tensor | np.ndarray | None = None,
        *,
        tensor: str | None = None,
        bits: int = 2,
        show: Iterable[str] | None = None,
    ) -> None:
        super().__init__(ThresholdModel(x, tensor=tensor, bits=bits), show=show)
