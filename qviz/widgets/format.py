"""FormatExplorer: the small number formats of today on one tensor at one budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from qviz.explore.format import FormatModel
from qviz.widgets.explorer import Explorer


class FormatExplorer(Explorer):
    """INT4, NF4, FP4, MXFP4, NVFP4, FP8, POST and APoT on one tensor at one budget.

    The bits of scales are counted. Numbers of your own can be pasted.

    Args:
        x: A tensor of your own, offered first.
        tensor: The name of the tensor to start with.
        budget: "4 bits", "4.125 bits", "4.25 bits", "4.5 bits", "5 bits" or "8 bits" a value.
        show: The names of the controls that are visible; by default all.

    Raises:
        ValueError: There is no such tensor or budget.

    Example:
        >>> e = FormatExplorer(budget="4.5 bits")
        >>> round(e.data()["table"]["NVFP4"]["bits"], 3)
        4.501
    """

    def __init__(
        self,
        x: Tensor | np.ndarray | None = None,
        *,
        tensor: str | None = None,
        budget: str = "4.25 bits",
        show: Sequence[str] | None = None,
    ) -> None:
        super().__init__(FormatModel(x, tensor=tensor, budget=budget), show=show)
