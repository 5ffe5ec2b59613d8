"""What a view adds to a scene: ghosts of curves that have changed, axes that hold, numbers of before."""

from dataclasses import replace

import numpy as np

from qviz.explore.history import History
from qviz.explore.view import Kept, View, axes_of, changed_axes, compared
from qviz.plot.scene import Axis, Bars, Line, Panel, Points, Scene, Steps

X = np.array([0.0, 1.0])
EDGES = np.array([0.0, 1.0, 2.0])


def scene(slope=1.0, top=1.0, y="y", log=False):
    low = 0.1 if log else 0.0
    marks = (
        Bars("data", EDGES, X),
        Line("ideal", X, X),
        Line("a", X, slope * X, label="A"),
        Steps("b", EDGES, X, label="B"),
        Points("a", X, X),
    )
    return Scene("S", (Panel("P", Axis("x", 0, 1), Axis(y, low, top, log), marks, "."),), about="About.")


def test_only_curves_that_have_changed_become_ghosts():
    kept = View(before=Kept(scene(1.0), {"MSE": 0.25, "levels": 4.0}))
    seen = kept.of(scene(2.0), {"MSE": 0.5, "levels": 4.0})
    ghost, *rest = seen.panels[0].marks
    assert [type(m) for m in rest] == [Bars, Line, Line, Steps, Points]
    assert (type(ghost), ghost.role, ghost.label) == (Line, "before", "before")
    np.testing.assert_array_equal(ghost.y, X)
    assert seen.about == "Before → now: MSE 0.25 → 0.5. About."
    same = kept.of(scene(1.0), {"MSE": 0.25, "levels": 4.0})
    assert len(same.panels[0].marks) == 5
    assert same.about == "Before → now: the same numbers. About."


def test_a_panel_that_measures_something_else_has_no_ghosts():
    seen = View(before=Kept(scene(), {})).of(scene(2.0, y="z"), {})
    assert len(seen.panels[0].marks) == 5
    assert seen.about == "About."


def test_held_axes_are_those_of_before_where_they_measure_the_same():
    view = View(axes=axes_of(scene(top=1.0)))
    assert view.of(scene(top=9.0), {}).panels[0].y.high == 1.0
    for other in (scene(top=9.0, y="z"), scene(top=9.0, log=True)):
        assert view.of(other, {}).panels[0].y.high == 9.0
    renamed = scene(top=9.0)
    renamed = replace(renamed, panels=(replace(renamed.panels[0], title="Q"),))
    assert view.of(renamed, {}).panels[0].y.high == 9.0


def test_a_view_of_nothing_is_the_scene():
    now = scene()
    assert View().of(now, {}) is now
    assert View(remark="Left out.").of(now, {}).about == "Left out. About."


def test_numbers_are_compared_as_they_are_read():
    assert compared({"a": 1.00001, "b": 2.0, "old": 1.0}, {"a": 1.00002, "b": 3.0, "new": 1.0}) == (
        "Before → now: b 2 → 3."
    )


def test_changed_axes_are_told_by_name():
    assert changed_axes(scene(top=1.0), scene(top=2.0)) == "Axes changed: P, y axis 0 … 1 → 0 … 2."
    assert changed_axes(scene(1.0), scene(2.0)) == ""
    assert changed_axes(scene(top=1.0), scene(top=1.0001)) == ""


def test_history_goes_back_and_forth():
    history = History()
    assert (history.back(0), history.forth(0)) == (0, 0)
    for choice, move in ((0, "a"), (1, "a"), (2, "b")):  # the second follows the first at once
        history.moved(choice, move)
    assert (history.back(3), history.back(2), history.back(0)) == (2, 0, 0)
    assert (history.forth(0), history.forth(2)) == (2, 3)
    history.back(3)
    history.moved(2, "a")
    assert history.forth(5) == 5
