"""Gallery: all explorers in one place, one at a time."""

from __future__ import annotations

import html

import ipywidgets as w

from qviz import widgets
from qviz.explore import gallery as models
from qviz.widgets.explorer import Explorer


class Gallery(w.VBox):
    """A list of all explorers, and the chosen one below; each is made when it is first chosen.

    Attributes:
        choose: The list.
    """

    def __init__(self) -> None:
        self._made: dict[str, Explorer] = {}
        self.choose = w.Dropdown(description="Explorer", options=tuple(models.MODELS))
        self._caption, self._place = w.HTML(), w.Box(layout={"width": "100%"})
        self.choose.observe(lambda _: self._show(), "value")
        super().__init__([w.HBox([self.choose, self._caption]), self._place])
        self._show()

    @property
    def explorer(self) -> Explorer:
        """The explorer on show."""
        name = self.choose.value
        if name not in self._made:
            self._made[name] = getattr(widgets, name)()
        return self._made[name]

    def _show(self) -> None:
        self._caption.value = html.escape(models.MODELS[self.choose.value].caption())
        self._place.children = [self.explorer]


def gallery() -> Gallery:
    """Return all explorers in one widget: choose one, and use it.

    Example:
        >>> shown = gallery()
        >>> shown.choose.value = "StepExplorer"
        >>> type(shown.explorer).__name__
        'StepExplorer'
    """
    return Gallery()
