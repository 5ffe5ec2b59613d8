"""Controls as ipywidgets: made from their descriptions, and brought up to date with them."""

from __future__ import annotations

import math
from typing import Any

import ipywidgets as w

from qviz.explore.controls import Control, Number, Pick, Slide, Text, Tick

PLAY_MS = 200
"""How long a button that plays stays at each value."""

NOISE = 1e-6
"""The part of a slider's step by which its value on the page may be off.

It is not sent back: on its way it would undo the next moves of a key that is held.
"""

WIDE = {"style": {"description_width": "5.2em"}}


class FloatSlider(w.FloatSlider):
    """A slider that sends limits and step before its value.

    The page applies them in the order in which they come. With the value first it is rounded to the step of
    before, and sent back as if somebody had moved the slider.
    """

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the state with the value last."""
        state = super().get_state(*args, **kwargs)
        return dict(sorted(state.items(), key=lambda item: item[0] == "value"))


def make(control: Control, value: Any) -> w.ValueWidget:
    """Return a widget for a control.

    Raises:
        TypeError: There is no widget for this type of control.
    """
    match control:
        case Pick():
            made = w.Dropdown(options=control.options, value=value, layout={"width": "21em"}, **WIDE)
        case Tick():
            made = w.Checkbox(value=value, indent=False, layout={"width": "auto"})
        case Slide():
            kind = w.IntSlider if control.whole else FloatSlider
            layout = {"flex": "1 1 24em", "max_width": "34em", "min_width": "18em"}
            limits = {"min": control.low, "max": control.high, "step": control.step}
            made = kind(**limits, value=value, layout=layout, **WIDE)
        case Text():
            layout = {"flex": "1 1 30em", "max_width": "60em"}
            made = w.Textarea(value=value, rows=control.rows, continuous_update=False, layout=layout, **WIDE)
        case Number():
            made = _box(control, value)
        case _:
            raise TypeError(f"no widget for a control of type {type(control).__name__}")
    for name, wanted in traits(control).items():
        setattr(made, name, wanted)
    return made


def _box(control: Number, value: Any) -> w.ValueWidget:
    layout = {"width": "14em"}
    if math.isinf(control.low) or math.isinf(control.high):
        return (w.IntText if control.whole else w.FloatText)(value=value, layout=layout, **WIDE)
    kind = w.BoundedIntText if control.whole else w.BoundedFloatText
    return kind(min=control.low, max=control.high, value=value, layout=layout, **WIDE)


def play(control: Slide, widget: w.IntSlider) -> w.Play:
    """Return a button that runs through the values of a slider; at the end it begins anew."""
    limits = {"min": control.low, "max": control.high, "step": control.step}
    made = w.Play(interval=PLAY_MS, show_repeat=False, value=widget.value, **limits)
    made.observe(lambda change: setattr(widget, "value", change["new"]), "value")
    made.observe(lambda change: _again(made) if change["new"] else None, "playing")
    return made


def _again(made: w.Play) -> None:
    if made.value >= made.max:
        made.value = made.min


def traits(control: Control) -> dict[str, Any]:
    """Return what a widget has to be set to, apart from its value."""
    found: dict[str, Any] = {"description": control.label, "tooltip": control.help}
    if isinstance(control, Pick):
        found["options"] = control.options
    if isinstance(control, Number):
        limits = {"min": control.low, "max": control.high}
        found |= {name: limit for name, limit in limits.items() if not math.isinf(limit)}
        found["step"] = control.step
    if isinstance(control, Slide) and not control.whole:
        decimals = next((d for d in range(7) if math.isclose(round(control.step, d), control.step)), 7)
        found["readout_format"] = f".{decimals}f" if decimals < 7 else ".3g"
    return found


def changes(widget: w.ValueWidget, control: Control, value: Any) -> dict[str, Any]:
    """Return the traits of a widget that differ, in an order in which they can be set."""
    wanted = {**traits(control), "value": value}
    if "min" in wanted and "max" in wanted and wanted["min"] > widget.max:  # never a min above the max
        wanted = {"max": wanted.pop("max"), **wanted}
    elif "min" in wanted and "max" in wanted:
        wanted = {"min": wanted.pop("min"), **wanted}
    wanted = {name: new for name, new in wanted.items() if getattr(widget, name) != new}
    if isinstance(control, Slide) and abs(widget.value - value) < NOISE * control.step:
        wanted.pop("value", None)
    return wanted
