"""Explorer: what every explorer is, whatever it explores."""

from __future__ import annotations

import html
import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import ipywidgets as w
from matplotlib.figure import Figure

from qviz.explore.model import Model
from qviz.plot import html as pages
from qviz.plot.draw import bundle, figure
from qviz.plot.scene import Scene
from qviz.widgets import controls, display
from qviz.widgets.live import LivePanel, apply

ROW = {"flex_flow": "row wrap", "align_items": "center", "grid_gap": "0 1em", "width": "100%"}
GRID = {
    "grid_template_columns": "repeat(auto-fit, minmax(270px, 1fr))",
    "grid_gap": "4px",
    "width": "100%",
}
ONE_STEP_S = 1.0
"""Moves of one control that follow each other within this time are undone together."""

STYLE = (
    pages.STYLE
    + """
.qviz-explorer path[style*="stroke-dasharray: 10, 10"] { stroke-dasharray: 7px, 3px !important; }
.qviz-explorer path[style*="stroke-dasharray: 2, 10"] { stroke-dasharray: 2px, 3px !important; }
.qviz-explorer path[style*="stroke-dasharray: 10, 5"] { stroke-dasharray: 7px, 2px, 2px, 2px !important; }
.qviz-explorer .object_grp { cursor: grab; }
.qviz-explorer .object_grp:hover path { stroke: currentColor; stroke-width: 2px; }
.qviz-explorer :focus-visible, .qviz-explorer .noUi-handle:focus {
  outline: 3px solid #0173b2; outline-offset: 1px; box-shadow: 0 0 0 1px white; }
.qviz-explorer p { margin: 2px 0; line-height: 1.4; }
.qviz-explorer .widget-html-content { overflow-x: auto; }
@media (max-width: 600px) {
  .qviz-explorer .qviz-table { font-size: 10px; }
  .qviz-explorer .qviz-table td, .qviz-explorer .qviz-table th { padding: 2px 3px; }
  .qviz-explorer .qviz-swatch { width: 1em; margin-right: .2em; }
}
.qviz-alt { position: absolute; width: 1px; height: 1px; overflow: hidden; }
"""
)
"""Dashes shorter than the treads of a staircase, dots that say that they move, a ring where the keys go."""


NAMES = """
const name = (tries) => {
  const sliders = this.closest('.qviz-explorer')?.querySelectorAll('.widget-slider') ?? [];
  for (const slider of sliders) {
    slider.querySelector('[role=slider]')?.setAttribute('aria-label', slider.firstChild.textContent);
  }
  if (tries && !sliders.length) setTimeout(() => name(tries - 1), 200);  // the page is not ready yet
};
name(50);
"""
"""What gives sliders their labels as accessible names: ipywidgets has no trait for it."""


class Explorer(w.VBox):
    """Controls over a live picture, which is a pure function of their values.

    A subclass hands its model to ``super().__init__``; the fields of the model's choice become attributes:
    ``explorer.bits.value = 3`` is the same as moving the slider.

    Args:
        model: From a choice to a scene.

    Attributes:
        model: The model.
        controls: The controls by name; each is an attribute of that name too.
        undo: The button that takes the last move back.
        redo: The button that makes it again.
    """

    controls: dict[str, w.ValueWidget]

    def __init__(self, model: Model) -> None:
        self.model, self._choice = model, model.start
        self._lock, self._busy = threading.RLock(), False  # a kernel may run callbacks in several threads
        self._past: list[Any] = []
        self._future: list[Any] = []
        self._last_move: tuple[Any, float] = ("", 0.0)
        specs, scene = model.controls(self._choice), self.scene()
        self.controls = {name: controls.make(s, getattr(self._choice, name)) for name, s in specs.items()}
        self.buttons = {name: w.Button() for name in model.actions(self._choice)}
        self.undo = w.Button(description="Undo", icon="undo", tooltip="Take the last move back")
        self.redo = w.Button(description="Redo", icon="repeat", tooltip="Make the move again")
        for button in (*self.buttons.values(), self.undo, self.redo):
            button.layout.width = "auto"
        for name, widget in {**self.controls, **self.buttons}.items():
            setattr(self, name, widget)
        self._live = [LivePanel(panel, self._drag(i)) for i, panel in enumerate(scene.panels)]
        self._text, self._alt, self._words, self._note = (w.HTML() for _ in range(4))
        words = w.Accordion([self._words], titles=("In words",), selected_index=None)
        words.observe(lambda _: self._speak(), "selected_index")
        self._accordion = words
        buttons = [*self.buttons.values(), self.undo, self.redo]
        picture = w.GridBox([live.widget for live in self._live], layout=GRID)
        style = w.HTML(layout={"display": "none"})
        top = w.Box([*self.controls.values(), *buttons], layout=ROW)
        super().__init__([style, top, self._text, self._alt, picture, self._note, words])
        self.add_class("qviz-explorer").add_class(f"qviz-{self.model_id}")
        style.value = f'<style onload="{NAMES}">{STYLE}{display.HIDDEN.format(self.model_id)}</style>'
        self._shown = display.Shown(self)
        self._scene = scene
        self._show(scene)
        for name, widget in self.controls.items():
            widget.observe(self._changed(name), "value")
        for name, button in self.buttons.items():
            button.on_click(lambda _, name=name: self._press(name))
        self.undo.on_click(lambda _: self._travel(self._past, self._future))
        self.redo.on_click(lambda _: self._travel(self._future, self._past))

    # What is shown, as numbers, words and pictures.

    def choice(self) -> Any:
        """Return the values of all controls, a frozen dataclass."""
        return self._choice

    def scene(self) -> Scene:
        """Return the picture for the controls' present values; changes nothing."""
        return self.model.scene(self._choice)

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
            return pages.write(path, *self.model.page(self._choice, names))

    # The state.

    @property
    def state(self) -> dict[str, Any]:
        """The choice as JSON types: the value of every control, and what was moved by hand."""
        return self.model.state(self._choice)

    @property
    def preset(self) -> str:
        """The state as a short text to share: what differs from a new explorer; ``from_state`` takes it."""
        new = self.model.state(self.model.start)
        return json.dumps({k: v for k, v in self.state.items() if v != new[k]}, separators=(",", ":"))

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

    # What the controls do. Everything ends in _go; what is set there does not trigger handlers.

    def _changed(self, name: str) -> Callable[[dict[str, Any]], None]:
        def handle(change: dict[str, Any]) -> None:
            with self._lock:
                if self._busy:
                    return
                old = getattr(self._choice, name)
                new = self.model.controls(self._choice)[name].taken(change["new"], old)
                if new != old:
                    wanted = replace(self._choice, **{name: new})
                    self._go(self.model.settled(self._choice, wanted), name)
                elif new != change["new"]:  # the page rounded what it was sent: nobody's move
                    self._set(self._choice)

        return handle

    def _drag(self, panel: int) -> Callable[[int, int, float, float], None]:
        def handle(mark: int, index: int, x: float, y: float) -> None:
            with self._lock:
                if not self._busy:
                    wanted = self.model.dragged(self._choice, panel, mark, index, x, y)
                    self._go(wanted, ("drag", panel, mark, index))

        return handle

    def _press(self, name: str) -> None:
        with self._lock:
            self._go(self.model.actions(self._choice)[name].do(self._choice), ("button", name))

    def _travel(self, origin: list[Any], target: list[Any]) -> None:
        with self._lock:
            if origin:
                target.append(self._choice)
                self._last_move = ("", 0.0)
                self._set(origin.pop())

    def _go(self, choice: Any, move: Any) -> None:
        """Show another choice, and remember the one before for undo."""
        before, now = self._choice, time.monotonic()
        self._set(choice)
        if choice == before:
            return
        if move != self._last_move[0] or now - self._last_move[1] > ONE_STEP_S:
            self._past.append(before)
        self._future.clear()
        self._last_move = (move, now)
        self._enable()

    def _set(self, choice: Any) -> None:
        scene = self.model.scene(choice)
        self._choice = choice
        self._show(scene)

    def _show(self, new: Scene) -> None:
        """Bring picture, text and controls to the present choice, in one message a widget."""
        old, self._scene = self._scene, new
        specs, actions = self.model.controls(self._choice), self.model.actions(self._choice)
        alt = f'<div class="qviz-alt" role="img" aria-label="{html.escape(new.text)}"></div>'
        texts = (self._text, pages.scene_html(new)), (self._alt, alt), (self._words, self._sentences())
        changes = [(widget, {"value": value}) for widget, value in (*texts, (self._note, _note(old, new)))]
        changes += [
            (widget, controls.changes(widget, specs[name], getattr(self._choice, name)))
            for name, widget in self.controls.items()
        ]
        changes += [
            (self.buttons[name], {"description": action.label, "tooltip": action.help})
            for name, action in actions.items()
        ]
        # What stands last is sent first: a message takes about 1.2 ms, and the picture is what one looks at.
        pairs = zip(self._live, new.panels, strict=True)
        changes += [change for live, panel in pairs for change in live.changes(panel)]
        self._busy = True
        try:
            apply([(widget, traits) for widget, traits in changes if traits])
            for name, what in {**specs, **actions}.items():
                getattr(self, name).layout.display = None if what.shown else "none"
            self._enable()
        finally:
            self._busy = False
        self._shown.changed()

    def _sentences(self) -> str:
        """Return the words, which nobody reads while they are folded in."""
        if self._accordion.selected_index is None:
            return ""
        return "".join(f"<p>{html.escape(text)}</p>" for text in self._scene.sentences)

    def _speak(self) -> None:
        with self._lock:
            self._words.value = self._sentences()

    def _enable(self) -> None:
        self.undo.disabled, self.redo.disabled = not self._past, not self._future

    def _ipython_display_(self) -> None:
        """Show the live view, and the picture for pages where there is no kernel."""
        self._shown.display()

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return live view, PNG and text in one."""
        live = super()._repr_mimebundle_(**kwargs) or {}
        live = live[0] if isinstance(live, tuple) else live
        static, metadata = bundle(self.figure(), self.describe())
        return {**live, **static}, metadata


def _note(old: Scene, new: Scene) -> str:
    """Return which axes have other limits than before, so that no zoom is taken for a change."""
    said = []
    for before, after in zip(old.panels, new.panels, strict=False):
        for name in "xy":
            a, b = getattr(before, name), getattr(after, name)
            if before.title == after.title and (a.low, a.high) != (b.low, b.high):
                said.append(
                    f"{after.title}, {name} axis {a.low:.3g} … {a.high:.3g} → {b.low:.3g} … {b.high:.3g}"
                )
    return f"<p>Axes changed: {html.escape('; '.join(said))}.</p>" if said else ""
