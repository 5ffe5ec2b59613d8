"""StepExplorer: the error of a uniform grid against its step, and a learned step on its way down."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from qviz.explore.step import StepModel
from qviz.widgets.explorer import Explorer


class StepExplorer(Explorer):
    """The error of a uniform grid against its step, and LSQ's, PACT's or ASQ's step learned on it.

    The step is a slider and a dot that can be dragged; from there **Iteration** lets the recipe's own
    gradients move it. ASQ shows two samples of very different scale under one step and under s β(x).

    Args:
        x: A tensor of your own, offered first.
        tensor: The name of the tensor to start with.
        bits: The bit width, 2 to 8.
        method: "LSQ", "PACT" or "ASQ"; the last two need activations that are not negative.
        show: The names of the controls that are visible; by default all.

    Raises:
        ValueError: There is no such tensor, bits are out of range, or the method is not for the tensor.

    Example:
        >>> e = StepExplorer(bits=3)
        >>> e.scene().title
        'LSQ, 8 levels on expand (real): s = 0.049, iteration 0'
    """

    def __init__(
        self,
        x: Tensor | np.ndarray | None = None,
        *,
        tensor: str | None = None,
        bits: int = 4,
        method: str = "LSQ",
        show: Sequence[str] | None = None,
    ) -> None:
        super().__init__(StepModel(x, tensor=tensor, bits=bits, method=method), show=show)
