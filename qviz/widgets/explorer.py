"""Explorer: what every explorer is, whatever it explores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

import ipywidgets
from matplotlib.figure import Figure
from traitlets import TraitError

from qviz.plot.draw import bundle, figure
from qviz.plot.scene import Scene


class Explorer(ipywidgets.VBox):
    """Controls over a live picture, which is a pure function of the controls.

    A subclass sets ``controls`` (name → ipywidgets control, each with a description) and writes
    :meth:`scene`. The rest follows: numbers, sentences, a static figure, the state as JSON, and a MIME
    bundle with the live view, a PNG and the text, so that a page without a kernel shows the truth.
    """

    controls: dict[str, ipywidgets.Widget]

    def scene(self) -> Scene:
        """Return the picture for the controls' present values; changes nothing."""
        raise NotImplementedError

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

    def to_html(self, path: str | Path) -> Path:
        """Write the explorer as one HTML file that needs neither kernel nor network."""
        raise NotImplementedError

    @property
    def state(self) -> dict[str, Any]:
        """The value of every control, as JSON types."""
        return {name: control.value for name, control in self.controls.items()}

    @classmethod
    def from_state(cls, state: dict[str, Any] | str, **kwargs: Any) -> Self:
        """Make an explorer and set its controls from ``state``, a dict or its JSON text.

        Raises:
            ValueError: a name that is no control, or a value that the control refuses.
        """
        values = json.loads(state) if isinstance(state, str) else dict(state)
        explorer = cls(**kwargs)
        explorer._restore(values)
        return explorer

    def _restore(self, values: dict[str, Any]) -> None:
        unknown = set(values) - set(self.controls)
        if unknown:
            raise ValueError(f"unknown controls {sorted(unknown)}; there are {sorted(self.controls)}")
        for name, value in values.items():
            control = self.controls[name]
            before = control.value
            try:
                control.value = value
            except (TraitError, TypeError, ValueError) as problem:
                raise ValueError(f"control {name!r} does not take {value!r}: {problem}") from problem
            if control.value != value:  # bounded controls clamp instead of raising
                made, control.value = control.value, before
                raise ValueError(f"control {name!r} does not take {value!r}; it made {made!r}")

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        live = super()._repr_mimebundle_(**kwargs) or {}
        live = live[0] if isinstance(live, tuple) else live
        static, metadata = bundle(self.figure(), self.describe())
        return {**live, **static}, metadata
