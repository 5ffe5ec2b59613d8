"""Stage: the controls and pictures of an explorer on the page, and what a move sets going."""

from __future__ import annotations

import html
import math
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import ipywidgets as w

from qviz.explore.history import ONE_STEP_S, History
from qviz.explore.model import Action, Model, changed
from qviz.explore.view import GHOST, Kept, View, axes_of, changed_axes
from qviz.plot.html import rows_html, scene_html
from qviz.plot.scene import Scene
from qviz.widgets import controls, display
from qviz.widgets.batch import Batch
from qviz.widgets.frame import GRID, NAMES, ROW, STYLE
from qviz.widgets.live import LivePanel, apply, within
from qviz.widgets.work import Work


class Stage(w.VBox):
    """Controls over a live picture, and everything that a move of one of them sets going.

    Args:
        model: From a choice to a scene.
        show: The names of the controls that are on the page, all by default; :meth:`reveal` adds others.

    Attributes:
        model: The model.
        controls: The controls by name; each is an attribute of that name too.
        plays: The buttons that run through a control's values, by its name.
        undo: The button that takes the last move back.
        redo: The button that makes it again.
        keep: The switch that keeps the present picture, to compare the next ones with.
        hold: The switch that holds all axes as they are.
        presets: The list of the model's presets.

    Raises:
        ValueError: ``show`` names a control that does not exist.
    """

    controls: dict[str, w.ValueWidget]

    def __init__(self, model: Model, *, show: Iterable[str] | None = None) -> None:
        self.model, self._choice = model, model.start
        self._lock, self._busy = threading.RLock(), False  # a kernel may run callbacks in several threads
        self._history: History[Any] = History()
        self._view = View(remark=model.sources.problem)
        self._presets: dict[str, Any] = {}  # choices by name, made when first asked for: each may fit a grid
        self._work = Work(self._finish, self._worked)
        self._batch = Batch()
        specs, scene = model.controls(self._choice), self.scene()
        self.controls = {name: controls.make(s, getattr(self._choice, name)) for name, s in specs.items()}
        self.plays = {name: controls.play(s, self.controls[name]) for name, s in specs.items() if s.plays}
        self.buttons = {name: w.Button() for name in model.actions(self._choice)}
        self.undo = w.Button(description="Undo", icon="undo", tooltip="Take the last move back")
        self.redo = w.Button(description="Redo", icon="repeat", tooltip="Make the move again")
        self.keep = w.ToggleButton(description="Keep", tooltip="Keep this picture, to compare the next with")
        self.hold = w.ToggleButton(description="Hold axes", tooltip="The axes stay as they are")
        self.presets = w.Dropdown(
            description="Preset", options=("", *model.presets), layout={"width": "16em"}
        )
        for button in (*self.buttons.values(), self.undo, self.redo, self.keep, self.hold):
            button.layout.width = "auto"
        for name, widget in {**self.controls, **self.buttons}.items():
            setattr(self, name, widget)
        self._shows = set(self.controls if show is None else show)
        self._need(self._shows)
        self._live = [LivePanel(panel, self._drag(i)) for i, panel in enumerate(scene.panels)]
        self._text, self._rows, self._note, *folded = (w.HTML() for _ in range(5))
        self._words, self._code = folded
        self._folded = w.Accordion(folded, titles=("In words", "As code"), selected_index=None)
        self._folded.observe(lambda _: self._speak(), "selected_index")
        placed = [widget for name in self.controls for widget in self._placed(name)]
        own = [*self.buttons.values(), self._work.bar, self.undo, self.redo, self.keep, self.hold]
        picture = w.GridBox([live.widget for live in self._live], layout=GRID)
        style = w.HTML(layout={"display": "none"})
        first = [self.presets] if model.presets else []
        top = w.Box([*first, *placed, *own], layout=ROW)
        super().__init__([style, top, self._text, picture, self._rows, self._note, self._folded])
        self._rows.add_class("qviz-rows")
        self.add_class("qviz-explorer").add_class(f"qviz-{self.model_id}")
        style.value = f'<style onload="{NAMES}">{STYLE}{display.HIDDEN.format(self.model_id)}</style>'
        self._shown = display.Shown(self)
        self._scene = scene
        self._show(scene)
        for name, widget in self.controls.items():
            widget.observe(self._changed(name), "value")
        for name, button in self.buttons.items():
            button.on_click(lambda _, name=name: self._press(name))
        self.undo.on_click(lambda _: self._travel(self._history.back))
        self.redo.on_click(lambda _: self._travel(self._history.forth))
        self.presets.observe(lambda change: self._preset(change["new"]), "value")
        for switch in (self.keep, self.hold):
            switch.observe(lambda _: self._look(), "value")

    def _placed(self, name: str) -> list[w.Widget]:
        """Return what stands on the page for a control."""
        return [self.controls[name], *([self.plays[name]] if name in self.plays else [])]

    def close(self) -> None:
        """Close the explorer, and all widgets that it is made of."""
        scales = (scale for live in getattr(self, "_live", ()) for scale in live.scales)  # where it was made
        for widget in within(self, getattr(self, "_batch", None), *scales):
            w.Widget.close(widget)

    # What is shown.

    def choice(self) -> Any:
        """Return the values of all controls, a frozen dataclass."""
        return self._choice

    def scene(self) -> Scene:
        """Return the picture for the controls' present values; changes nothing."""
        return self._seen(self._choice)

    def _seen(self, choice: Any) -> Scene:
        """Return the picture of a choice as it is looked at: beside the one kept, on axes that hold."""
        headline = {} if self._view.before is None else self.model.headline(choice)
        return self._view.of(self.model.scene(choice), headline)

    def reveal(self, *names: str) -> None:
        """Put controls on the page that ``show`` left out.

        Raises:
            ValueError: There is no such control.
        """
        self._need(names)
        with self._lock:
            self._shows.update(names)
            self._show(self._scene)

    def _need(self, names: Iterable[str]) -> None:
        unknown = sorted(set(names) - set(self.controls))
        if unknown:
            raise ValueError(f"unknown controls {unknown}; there are {list(self.controls)}")

    def wait(self) -> None:
        """Return when no long action runs any more."""
        self._work.wait()

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
                elif new != change["new"]:  # the browser echoes the value it was sent, rounded
                    self._set(self._choice)

        return handle

    def _drag(self, panel: int) -> Callable[[int, int, float, float], None]:
        def handle(mark: int, index: int, x: float, y: float) -> None:
            with self._lock:
                if not self._busy:
                    ghosts = sum(m.role == GHOST for m in self._scene.panels[panel].marks)  # they come first
                    wanted = self.model.dragged(self._choice, panel, mark - ghosts, index, x, y)
                    # however slow the hand or the kernel is, from taking the dot to letting go it is one move
                    self._go(wanted, ("drag", panel, self._live[panel].drags), math.inf)

        return handle

    def _press(self, name: str) -> None:
        with self._lock:
            action, choice = self.model.actions(self._choice)[name], self._choice
            if action.work is not None:
                self._work.toggle(name, lambda: action.work(choice))
            else:
                self._go(action.do(choice), ("button", name))

    def _finish(self, name: str, result: Callable[[Any], Any]) -> None:
        with self._lock:
            self._go(result(self._choice), ("button", name))

    def _worked(self, problem: str) -> None:
        with self._lock:
            self._show(self._scene)
            if problem:
                self._note.value = f"<p>{html.escape(problem)}</p>"

    def _preset(self, name: str) -> None:
        with self._lock:
            if name and not self._busy:
                if name not in self._presets:
                    self._presets[name] = self.model.restored(self.model.presets[name])
                self._go(self._presets[name], "preset")

    def _look(self) -> None:
        """Keep the present picture or forget it; hold its axes or let them go."""
        with self._lock:
            view = self._view
            if self.keep.value != (view.before is not None):
                kept = Kept(self.model.scene(self._choice), self.model.headline(self._choice))
                view = replace(view, before=kept if self.keep.value else None)
            if self.hold.value != (view.axes is not None):
                view = replace(view, axes=axes_of(self._scene) if self.hold.value else None)
            self._view = view
            self._set(self._choice)

    def _travel(self, way: Callable[[Any], Any]) -> None:
        with self._lock:
            self._set(way(self._choice))

    def _go(self, choice: Any, move: Any, within_s: float = ONE_STEP_S) -> None:
        """Show another choice, and remember the one before for undo."""
        before = self._choice
        self._set(choice)
        if choice != before:
            self._history.moved(before, move, within_s)
            self._enable()

    def _set(self, choice: Any) -> None:
        if self._view.axes is not None and changed(self._choice, choice) & set(self.model.rescales):
            self._view = replace(self._view, axes=axes_of(self.model.scene(choice)))
        scene = self._seen(choice)
        self._choice = choice
        self._show(scene)

    def _show(self, new: Scene) -> None:
        """Bring picture, text and controls to the present choice, in one message a widget."""
        old, self._scene = self._scene, new
        specs, actions = self.model.controls(self._choice), self.model.actions(self._choice)
        alt = f'<div class="qviz-alt" role="img" aria-label="{html.escape(new.text)}"></div>'
        note = changed_axes(old, new)
        texts = [
            (self._text, scene_html(new) + alt),
            *self._folded_texts(),
            (self._rows, rows_html(new)),
            (self._note, f"<p>{html.escape(note)}</p>" if note else ""),
        ]
        changes = [(widget, {"value": value}) for widget, value in texts]
        changes += [
            (widget, controls.changes(widget, specs[name], getattr(self._choice, name)))
            for name, widget in self.controls.items()
        ]
        changes += [
            (self.buttons[name], {"description": self._says(name, action), "tooltip": action.help})
            for name, action in actions.items()
        ]
        preset = next((n for n, choice in self._presets.items() if choice == self._choice), "")
        changes += [(self.presets, {"value": preset})]
        changes += [(play, {"value": getattr(self._choice, name)}) for name, play in self.plays.items()]
        # What stands last is shown first, and the picture is what one looks at.
        pairs = zip(self._live, new.panels, strict=True)
        changes += [change for live, panel in pairs for change in live.changes(panel)]
        self._busy = True
        try:
            apply([(widget, traits) for widget, traits in changes if traits], self._batch)
            for name, what in {**specs, **actions}.items():
                seen = what.shown and (name in self._shows or name in actions)
                for widget in self._placed(name) if name in specs else [self.buttons[name]]:
                    widget.layout.display = None if seen else "none"
            self._enable()
        finally:
            self._busy = False
        self._shown.changed()

    def _says(self, name: str, action: Action) -> str:
        return "Stop" if self._work.name == name else action.label

    def _folded_texts(self) -> list[tuple[w.HTML, str]]:
        """Return the texts that can be folded in; nobody reads them while they are."""
        if self._folded.selected_index is None:
            return []
        words = "".join(f"<p>{html.escape(text)}</p>" for text in self._scene.sentences)
        return [(self._words, words), (self._code, f"<code>{html.escape(self.code)}</code>")]

    def _speak(self) -> None:
        with self._lock:
            apply([(widget, {"value": value}) for widget, value in self._folded_texts()], self._batch)

    def _enable(self) -> None:
        self.undo.disabled, self.redo.disabled = not self._history.past, not self._history.future
