"""CodebookExplorer: levels that follow drifting weights, beside frozen ones and Lloyd's optimum."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from torch import Tensor

from qviz.explore.codebook import CodebookModel
from qviz.widgets.explorer import Explorer


class CodebookExplorer(Explorer):
    """ADQ's codebook on weights that drift: levels, their use, and how far they are from Lloyd's optimum.

    Args:
        x: A tensor of your own, offered first; floating point, finite.
        tensor: The tensor to start with, as the list shows it.
        bits: The bit width to start with, 2 to 5.
        show: The names of the controls on show; by default all.

    Attributes:
        tensor, bits, start, decay, drift, speed, step, pinned, draw, w: The controls.

    Raises:
        TypeError, ValueError: x is not floating point; there is no such tensor; bits are out of range.

    Example:
        >>> e = CodebookExplorer(bits=2)
        >>> e.step.value = 30
        >>> e.data()["table"]["moving"]["dead"]
        0
    """

    def __init__(
        self,
        x: Tensor | np.ndarray | None = None,
        *,
        tensor: str | None = None,
        bits: int = 3,
        show: Iterable[str] | None = None,
    ) -> None:
        super().__init__(CodebookModel(x, tensor=tensor, bits=bits), show=show)
