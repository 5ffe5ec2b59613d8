"""LivePanel: marks made once, then only what differs is set, in one message a widget."""

from collections import Counter
from dataclasses import replace
from io import BytesIO

import bqplot
import ipywidgets
import numpy as np
import PIL.Image
import pytest
import torch
from matplotlib import colormaps

from qviz import post, pot
from qviz.plot import panels
from qviz.plot.scene import Axis, Band, Bars, Heat, Line, Mark, Panel, Points, Rug, Rule, Span, Steps
from qviz.plot.style import LOOKS
from qviz.widgets import GridExplorer
from qviz.widgets.live import LivePanel, apply
from qviz.widgets.live_marks import arrays

X = torch.randn(300, generator=torch.Generator().manual_seed(3))
EDGES, HEIGHTS = np.array([0.0, 1.0, 3.0]), np.array([2.0, 5.0])


def panel(*marks, high=6.0):
    return Panel("title", Axis("x", 0.0, 3.0), Axis("y (%)", 0.0, high), marks, "text")


@pytest.fixture
def messages(monkeypatch):
    """Count the state updates that each widget sends to the page."""
    sent = Counter()

    def record(widget, msg, buffers=None):
        if msg.get("method") == "update":
            sent[widget] += 1

    monkeypatch.setattr(ipywidgets.Widget, "_send", record)
    return sent


# --- what bqplot gets -------------------------------------------------------------------------------------


def test_arrays_of_each_mark():
    nan = np.nan
    cases = [
        (Line("a", np.array([0.0, 1.0]), np.array([2.0, 3.0])), [0, 1], [2, 3]),
        (Points("c", np.array([0.5]), np.array([1.0])), [0.5], [1]),
        (Rug("a", np.array([0.2, 0.4]), 1.0, 2.0), [0.2, 0.2, nan, 0.4, 0.4], [1, 2, nan, 1, 2]),
        (
            Rug("a", np.array([0.2, 0.4]), np.array([1.0, 3.0]), np.array([2.0, 4.0])),
            [0.2, 0.2, nan, 0.4, 0.4],
            [1, 2, nan, 3, 4],
        ),
        (Bars("data", EDGES, HEIGHTS), [0, 0, 1, 1, 3, 3], [0, 2, 2, 5, 5, 0]),
        (Steps("a", EDGES, HEIGHTS), [0, 1, 1, 3], [2, 2, 5, 5]),
        (Band("a", np.array([0.0, 1.0]), np.zeros(2), np.ones(2)), [0, 1, 1, 0], [1, 1, 0, 0]),
        (Rule("a", 2.0), [2, 2], [0, 6]),
        (Rule("a", 2.0, "y"), [0, 3], [2, 2]),
        (Span("a", 1.0, 2.0), [1, 1, 2, 2], [0, 6, 6, 0]),
        (Span("a", 1.0, 2.0, "y"), [0, 3, 3, 0], [1, 1, 2, 2]),
    ]
    for mark, x, y in cases:
        got = arrays(mark, panel(mark))
        np.testing.assert_array_equal(got["x"], x)
        np.testing.assert_array_equal(got["y"], y)


def test_a_mark_of_unknown_type_is_named():
    with pytest.raises(TypeError, match="type Mark"):
        arrays(Mark("a"), panel())


@pytest.mark.parametrize(
    "wanted", [panels.levels(X, {"a": pot(4), "b": post(4)}), panels.staircase({"a": pot(4)})]
)
def test_marks_have_the_panels_numbers_colours_and_dashes(wanted):
    live = LivePanel(wanted)
    assert live.widget.title == wanted.title
    for mark, made in zip(wanted.marks, live.widget.marks, strict=True):
        np.testing.assert_array_equal(made.x, arrays(mark, wanted)["x"])
        assert made.colors == [LOOKS[mark.role].color]
        if isinstance(mark, Line):
            assert made.line_style == LOOKS[mark.role].dash
    (x, y) = live.widget.axes
    assert (x.label, y.label) == (wanted.x.label, wanted.y.label)
    assert (x.orientation, y.orientation) == ("horizontal", "vertical")
    assert (x.scale.min, x.scale.max) == (wanted.x.low, wanted.x.high)
    assert (y.scale.min, y.scale.max) == (wanted.y.low, wanted.y.high)
    assert all(made.scales == {"x": x.scale, "y": y.scale} for made in live.widget.marks)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-4.95, 4.85), (0, 1e-5), (-3e4, 3e4), (1000, 1000.1), (-3e-30, 3e-30)]
)
def test_ticks_are_round_inside_and_told_apart(low, high):
    axis = LivePanel(Panel("t", Axis("x", low, high), Axis("y", 0, 1), (), "")).widget.axes[0]
    at = axis.tick_values
    assert 3 <= len(at) <= 9
    assert low <= at.min() < at.max() <= high
    shown = [format(v, axis.tick_format) for v in at]
    assert len(set(shown)) == len(shown), shown
    np.testing.assert_allclose([float(v) for v in shown], at, atol=1e-3 * (at[1] - at[0]))


@pytest.mark.parametrize("count", [1, 4, 20])
def test_ticks_of_an_axis_that_counts_are_whole(count):
    axis = LivePanel(Panel("t", Axis("layer", 0.5, count + 0.5), Axis("y", 0, 1), (), "")).widget.axes[0]
    assert len(axis.tick_values) > 0
    assert all(v == round(v) for v in axis.tick_values)


@pytest.mark.parametrize(
    ("moves", "traits"),
    [
        ("", (False, False, False)),
        ("x", (True, True, False)),
        ("y", (True, False, True)),
        ("xy", (True, False, False)),
    ],
)
def test_points_can_be_dragged_where_they_say(moves, traits):
    (dots,) = LivePanel(panel(Points("c", np.zeros(1), np.zeros(1), moves))).widget.marks
    assert (dots.enable_move, dots.restrict_x, dots.restrict_y) == traits


@pytest.mark.parametrize(("trait", "place"), [("x", (9.0, 1.0)), ("y", (2.0, 9.0))])
def test_a_drag_tells_mark_dot_and_place(trait, place):
    told = []
    points = Points("c", np.array([1.0, 2.0]), np.array([0.0, 1.0]), "xy")
    live = LivePanel(panel(Bars("data", EDGES, HEIGHTS), points), lambda *drag: told.append(drag))
    dots = live.shown[1]
    setattr(dots, trait, np.array([7.0, 9.0]))
    assert told == []  # nothing was grabbed
    dots._handle_custom_msgs(dots, {"event": "drag_start", "point": {}, "index": 1})
    setattr(dots, trait, np.array([8.0, 9.0]))
    assert told[-1][:2] == (1, 1)
    assert told[-1]["xy".index(trait) + 2] == 9.0


def test_a_log_axis_gets_a_log_scale_and_round_ticks():
    mark = Line("a", np.array([0.01, 1.0]), np.array([1.0, 2.0]))
    live = LivePanel(Panel("t", Axis("x", 0.01, 10.0, log=True), Axis("y", 0, 3), (mark,), ""))
    (x, y), scales = live.axes, live.shown[0].scales
    assert isinstance(x.scale, bqplot.LogScale)
    assert isinstance(y.scale, bqplot.LinearScale)
    assert (scales["x"], scales["y"]) == (x.scale, y.scale)
    np.testing.assert_allclose(x.tick_values, [0.01, 0.1, 1.0, 10.0])
    apply(live.changes(Panel("t", Axis("x", 0.0, 10.0), Axis("y", 0, 3), (mark,), "")))
    assert isinstance(live.shown[0].scales["x"], bqplot.LinearScale)


@pytest.mark.parametrize("ends", [None, (0.0, 10.0)])
def test_a_heat_map_has_its_colors(ends):
    values = np.array([[0.0, 1.0, 2.0], [3.0, np.nan, 5.0]])
    heat = Heat("data", np.array([0.1, 0.5, 0.9]), np.array([0.25, 0.75]), values, ends)
    shown = LivePanel(panel(replace(heat, values=values + 1)))
    (live,) = shown.widget.marks
    apply(shown.changes(panel(heat)))
    seen = np.asarray(PIL.Image.open(BytesIO(live.image.value)).convert("RGBA"))[::-1]  # rows from below
    low, high = ends or (0.0, 5.0)
    expected = colormaps["viridis"]((values - low) / (high - low), bytes=True)
    np.testing.assert_array_equal(seen[~np.isnan(values)], expected[~np.isnan(values)])
    assert seen[1, 1, 3] == 0
    np.testing.assert_allclose((live.x, live.y), [[-0.1, 1.1], [0.0, 1.0]])


# --- changes ----------------------------------------------------------------------------------------------


def test_the_same_panel_changes_nothing():
    one = panel(Rug("a", np.array([0.5, 1.0]), 0.0, 1.0), Bars("data", EDGES, HEIGHTS))
    assert LivePanel(one).changes(one) == []


def test_only_what_differs_is_set():
    live = LivePanel(panel(Bars("data", EDGES, HEIGHTS), Steps("a", EDGES, HEIGHTS)))
    ((widget, new),) = live.changes(panel(Bars("data", EDGES, HEIGHTS), Steps("a", EDGES, HEIGHTS + 1)))
    assert widget is live.widget.marks[1]
    assert list(new) == ["y"]
    assert new["y"].tolist() == [3, 3, 6, 6]


def test_a_new_limit_sets_scale_and_ticks():
    marks = (Bars("data", EDGES, HEIGHTS),)
    live = LivePanel(panel(*marks))
    changed = {type(w).__name__: new for w, new in live.changes(panel(*marks, high=60.0))}
    assert changed["LinearScale"] == {"max": 60.0}
    assert set(changed["Axis"]) == {"tick_values"}


def test_titles_roles_and_marks_may_change():
    line = Line("a", np.zeros(2), np.ones(2))
    live = LivePanel(panel(line, Points("c", np.zeros(1), np.zeros(1))))
    apply(
        live.changes(
            Panel("other", Axis("x", 0, 3), Axis("y", 0, 6), (line, Line("b", *[np.ones(2)] * 2)), "")
        )
    )
    assert live.widget.title == "other"
    first, second, dots = live.widget.marks
    assert [m.visible for m in live.widget.marks] == [True, True, False]
    assert (second.colors, second.line_style) == ([LOOKS["b"].color], LOOKS["b"].dash)
    apply(live.changes(panel(Line("d", np.zeros(2), np.ones(2)), Points("a", np.ones(1), np.ones(1)))))
    assert [m for m in live.widget.marks if m.visible] == [first, dots]
    assert first.colors == [LOOKS["d"].color]
    assert dots.colors == [LOOKS["a"].color]


def test_changes_are_applied_in_one_message_a_widget(messages):
    live = LivePanel(panel(Bars("data", EDGES, HEIGHTS), Steps("a", EDGES, HEIGHTS)))
    new = panel(Bars("data", EDGES * 2, HEIGHTS + 1), Steps("a", EDGES, HEIGHTS), high=50.0)
    messages.clear()
    apply(live.changes(new))
    assert live.changes(new) == []
    assert set(messages.values()) == {1}
    assert live.widget.marks[0] in messages
    assert live.widget.marks[1] not in messages


STEPS = [
    ("bits", 3),
    ("bits", 8),
    ("bits", 2),
    ("grid_b", "Lloyd"),
    ("rule", "min–max"),
    ("clip", 1.0),
    ("clip", 0.5),
    ("rule", "MSE search"),
    ("per_channel", True),
    ("grid_a", "custom"),
    ("level", 2),
    ("value", 0.1),
    ("mirror", True),
    ("grid_a", "uniform"),
]


def test_each_step_sends_one_message_a_widget(messages):
    e = GridExplorer(X.view(10, 30))
    for control, value in STEPS:
        messages.clear()
        getattr(e, control).value = value
        twice = {w.description or type(w).__name__: n for w, n in messages.items() if n > 1}
        assert not twice, (control, value)
        pictures = [w for w in messages if isinstance(w, bqplot.Mark)]
        assert pictures or control == "level"


def test_a_step_of_bits_leaves_the_histogram_alone(messages):
    e = GridExplorer(X)
    (bars,) = (m for m in e._live[0].shown if len(m.colors) and m.colors[0] == LOOKS["data"].color)
    messages.clear()
    e.bits.value = 5
    assert bars not in messages
    assert len(messages) > 5


@pytest.mark.parametrize(
    ("y", "count"), [([1, np.nan, 3, np.nan, np.nan], 3), ([np.nan] * 3, 0), ([1, np.nan, 2], 3)]
)
def test_a_line_ends_with_a_number(y, count):
    mark = Line("a", np.arange(float(len(y))), np.array(y, dtype=float))
    made = arrays(mark, Panel("t", Axis("x", 0, 3), Axis("y", 0, 3), (mark,), ""))
    assert len(made["x"]) == len(made["y"]) == count
    assert not count or np.isfinite(made["y"][-1])


def test_small_figures_on_a_log_axis_are_short():
    mark = Line("a", np.array([1.0, 2.0]), np.array([1e-5, 1e-3]))
    live = LivePanel(Panel("t", Axis("x", 1, 2), Axis("y", 1e-6, 1e-2, log=True), (mark,), ""))
    assert live.axes[1].tick_format == ".0e"


def test_an_axis_may_have_names_and_lose_them():
    named = replace(panel(), x=Axis("from", 0.5, 2.5, names=("weights", "inputs")))
    live = LivePanel(named)
    assert live.axes[0].tick_labels == {"1": "weights", "2": "inputs"}
    assert live.axes[0].tick_values.tolist() == [1, 2]
    apply(live.changes(panel()))
    assert live.axes[0].tick_labels is None
