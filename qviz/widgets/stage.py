"""Stage: the controls and pictures of an explorer on the page, and what a move sets going."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import ipywidgets as w

from qviz.explore.history import ONE_STEP_S, History
from qviz.explore.model import Model, changed
from qviz.explore.view import GHOST, Kept, View, axes_of, changed_axes
from qviz.plot.html import paragraph
from qviz.plot.scene import Scene
from qviz.widgets import controls, display
from qviz.widgets.batch import Batch
from qviz.widgets.frame import GRID, NAMES, ROW, STYLE
from qviz.widgets.live import LivePanel, apply, within
from qviz.widgets.words import Words
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

    def __init__(self, model: Model, *, show: Iterable[str] | None = None) -> None:
        self.model, self._choice = model, model.start
        self._lock, self._busy = threading.RLock(), False  # a kernel may run callbacks in several threads
        self._history: History[Any] = History()
        self._view = View(remark=model.sources.problem)
        self._presets: dict[str, Any] = {}  # choices by name, made when first asked for: each may fit a grid
        self._work = Work(self._finish, self._worked)
        self._batch, self._words = Batch(), Words()
        specs, scene = model.controls(self._choice), self.scene()
        self.controls = {name: controls.make(s, getattr(self._choice, name)) for name, s in specs.items()}
        self.plays = {name: controls.play(s, self.controls[name]) for name, s in specs.items() if s.plays}
        self.buttons = {name: w.Button() for name in model.actions(self._choice)}
        self.undo = w.Button(description="Undo", icon="undo", tooltip="Take the last move back")
        self.redo = w.Button(description="Redo", icon="repeat", tooltip="Make the move again")
        self.keep = w.ToggleButton(description="Keep", tooltip="Keep this picture, to compare the next with")
        self.hold = w.ToggleButton(description="Hold axes", tooltip="The axes stay as they are")
        names = ("", *model.presets)
        self.presets = w.Dropdown(description="Preset", options=names, layout={"width": "16em"})
        for button in (*self.buttons.values(), self.undo, self.redo, self.keep, self.hold):
            button.layout.width = "auto"
        self._placed = {}  # what stands on the page, by name
        for name, widget in {**self.controls, **self.buttons}.items():
            setattr(self, name, widget)
            self._placed[name] = [widget, *([self.plays[name]] if name in self.plays else [])]
        self._shows = set(self.controls if show is None else show)
        self._need(self._shows)
        self._live = [LivePanel(panel, partial(self._drag, i)) for i, panel in enumerate(scene.panels)]
        self._words.folded.observe(lambda _: self._speak(), "selected_index")
        row = [widget for placed in self._placed.values() for widget in placed]
        row += [self._work.bar, self.undo, self.redo, self.keep, self.hold]
        picture = w.GridBox([live.widget for live in self._live], layout=GRID)
        style = w.HTML(layout={"display": "none"})
        top = w.Box([self.presets, *row] if model.presets else row, layout=ROW)
        super().__init__([style, top, self._words.text, picture, *self._words.below])
        self.add_class("qviz-explorer").add_class(f"qviz-{self.model_id}")
        style.value = f'<style onload="{NAMES}">{STYLE}{display.HIDDEN.format(self.model_id)}</style>'
        self._shown, self._scene = display.Shown(self), scene
        self._show(scene)
        for name, widget in self.controls.items():
            widget.observe(partial(self._changed, name), "value")
        for name, button in self.buttons.items():
            button.on_click(lambda _, name=name: self._press(name))
        self.undo.on_click(lambda _: self._travel(self._history.back))
        self.redo.on_click(lambda _: self._travel(self._history.forth))
        self.presets.observe(lambda change: self._preset(change["new"]), "value")
        for switch in (self.keep, self.hold):
            switch.observe(lambda _: self._look(), "value")

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

    def _changed(self, name: str, change: dict[str, Any]) -> None:
        with self._lock:
            if self._busy:
                return
            old = getattr(self._choice, name)
            new = self.model.controls(self._choice)[name].taken(change["new"], old)
            if new != old:
                self._go(self.model.settled(self._choice, replace(self._choice, **{name: new})), name)
            elif new != change["new"]:  # the browser echoes the value it was sent, rounded
                self._set(self._choice)

    def _drag(self, panel: int, mark: int, index: int, x: float, y: float) -> None:
        with self._lock:
            if not self._busy:
                ghosts = sum(m.role == GHOST for m in self._scene.panels[panel].marks)  # they come first
                wanted = self.model.dragged(self._choice, panel, mark - ghosts, index, x, y)
                # however slow the hand or the kernel is, from taking the dot to letting go it is one move
                self._go(wanted, ("drag", panel, self._live[panel].drags), math.inf)

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
                self._words.note.value = paragraph(problem)

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
        scene, self._choice = self._seen(choice), choice
        self._show(scene)

    def _show(self, new: Scene) -> None:
        """Bring picture, text and controls to the present choice, in one message a widget."""
        old, self._scene = self._scene, new
        specs, actions = self.model.controls(self._choice), self.model.actions(self._choice)
        changes = self._words.changes(new, changed_axes(old, new), lambda: self.code)
        changes += [
            (widget, controls.changes(widget, specs[name], getattr(self._choice, name)))
            for name, widget in self.controls.items()
        ]
        says = {name: "Stop" if name == self._work.name else a.label for name, a in actions.items()}
        changes += [
            (self.buttons[name], {"description": says[name], "tooltip": action.help})
            for name, action in actions.items()
        ]
        preset = next((n for n, choice in self._presets.items() if choice == self._choice), "")
        changes.append((self.presets, {"value": preset}))
        changes += [(play, {"value": getattr(self._choice, name)}) for name, play in self.plays.items()]
        # What stands last is shown first, and the picture is what one looks at.
        for live, panel in zip(self._live, new.panels, strict=True):
            changes += live.changes(panel)
        self._busy = True
        try:
            apply([(widget, traits) for widget, traits in changes if traits], self._batch)
            for name, what in {**specs, **actions}.items():
                seen = what.shown and (name in self._shows or name in actions)
                for widget in self._placed[name]:
                    widget.layout.display = None if seen else "none"
            self._enable()
        finally:
            self._busy = False
        self._shown.changed()

    def _speak(self) -> None:
        with self._lock:
            apply(self._words.unfolded(self._scene, lambda: self.code), self._batch)

    def _enable(self) -> None:
        self.undo.disabled, self.redo.disabled = not self._history.past, not self._history.future
