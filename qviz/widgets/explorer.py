"""Explorer: what every explorer is, whatever it explores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

from matplotlib.figure import Figure

from qviz.plot import page as pages
from qviz.plot.draw import figure
from qviz.widgets.display import still
from qviz.widgets.stage import Stage


class Explorer(Stage):
    """Controls over a live picture, which is a pure function of their values.

    A subclass hands its model to ``super().__init__``; the fields of the model's choice become attributes:
    ``explorer.bits.value = 3`` is the same as moving the slider. What it takes and has is told by
    :class:`~qviz.widgets.stage.Stage`.
    """

    # What is shown, as numbers, words and pictures.

    def data(self) -> dict[str, Any]:
        """Return the numbers behind the picture: each panel's marks, and the table."""
        scene = self.scene()
        numbers: dict[str, Any] = {panel.title: panel.numbers() for panel in scene.panels}
        if scene.table is not None:
            numbers["table"] = {name: dict(row) for name, row in scene.table.values.items()}
        return numbers

    def describe(self) -> str:
        """Return what the picture shows, in sentences with numbers; it is the alt text too."""
        return self.scene().text

    def figure(self) -> Figure:
        """Return the picture as a matplotlib figure of a slide's size (13.33 x 7.5 inches)."""
        return figure(self.scene())

    def to_html(self, path: str | Path, *names: str) -> Path:
        """Write one HTML file that works from ``file://``, without kernel or network.

        Args:
            path: The file to write; its folder must exist.
            *names: The controls that the page has, the others keep their values; by default all sliders,
                for :class:`GridExplorer` two columns of every grid at every bit width. There is a picture
                for every combination of values.

        Raises:
            ValueError: A name is no control, or there would be more than 400 pictures.
        """
        with self._lock:
            page = self.model.page(self._choice, names)
            return pages.write(path, type(self).__name__, self.model.caption(), *page)

    # The state.

    @property
    def state(self) -> dict[str, Any]:
        """The choice as JSON types: the value of every control, and what was moved by hand."""
        return self.model.state(self._choice)

    @property
    def preset(self) -> str:
        """The state as a short text to share: what differs from a new explorer; ``from_state`` takes it."""
        found: dict[str, Any] = {}
        for _ in range(2):  # what follows from the first difference may differ in turn
            made = self.model.state(self.model.restored(found))
            found |= {name: value for name, value in self.state.items() if value != made[name]}
        return json.dumps(found, separators=(",", ":"))

    @property
    def code(self) -> str:
        """The state as one line of code; what the explorer was made with has to be handed over again."""
        return f"{type(self).__name__}.from_state({self.preset!r})"

    @classmethod
    def from_state(cls, state: dict[str, Any] | str, **kwargs: Any) -> Self:
        """Make an explorer and set its controls.

        Args:
            state: A state, a part of one, or its JSON text, as :attr:`preset` is.
            **kwargs: What the explorer is made with.

        Raises:
            ValueError: A name is no control, or a control does not take its value.
        """
        values = json.loads(state) if isinstance(state, str) else dict(state)
        explorer = cls(**kwargs)
        explorer.restore(values)
        return explorer

    def restore(self, state: dict[str, Any]) -> None:
        """Set the controls to a state; those that it leaves out go to where they start.

        Raises:
            ValueError: A name is no control, or a control does not take its value.
        """
        with self._lock:
            self._go(self.model.restored(state), "state")

    # In a notebook.

    def _ipython_display_(self) -> None:
        """Show the live view, and the picture for pages where there is no kernel."""
        self._shown.display()

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return live view, PNG and text in one."""
        live = super()._repr_mimebundle_(**kwargs) or {}
        live = live[0] if isinstance(live, tuple) else live
        static, metadata = still(self.scene())
        return {**live, **static}, metadata
