"""StepExplorer: the error of a uniform grid against its step, and the histogram that the step cuts."""

from __future__ import annotations

from collections.abc import Iterable

from qviz.explore.step import StepModel
from qviz.widgets.explorer import Explorer


class StepExplorer(Explorer):
    """The error of a uniform grid against its step, with a dot on it that can be dragged.

    Args:
        tensor: The name of a shipped tensor.
        bits: The bit width, 2 to 8.
        show: The names of the controls on the page, all by default.

    Attributes:
        step: The control.

    Example:
        >>> e = StepExplorer(bits=3)
        >>> e.scene().title
        '8 uniform levels on expand'
    """

    def __init__(self, tensor: str = "expand", bits: int = 4, *, show: Iterable[str] | None = None) -> None:
        super().__init__(StepModel(tensor, bits), show=show)
