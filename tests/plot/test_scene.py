"""Scenes as numbers: what is refused, what is said, and how the newer marks are drawn."""

import matplotlib.colors
import numpy as np
import pytest
from matplotlib.figure import Figure

from qviz.plot.draw import DASHES, draw
from qviz.plot.scene import Axis, Heat, Line, Panel, Points, Rule, Scene, Span, Table
from qviz.plot.style import LOOKS

UNIT = Axis("x", 0.0, 1.0)


def panel(*marks, x=UNIT, y=UNIT, title="picture"):
    return Panel(title, x, y, marks, "What it shows.")


def test_a_scenes_text_names_its_panels():
    table = Table(("method", "MSE"), (("mine", "0.5"),))
    scene = Scene("Two pictures", (panel(title="left"), panel(title="right")), table, "Data from nowhere.")
    assert scene.text == (
        "Two pictures. Data from nowhere. left: What it shows. right: What it shows. mine: MSE 0.5."
    )


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Axis("x", 0.0, 1.0, log=True), "got 0.0 and 1.0"),
        (lambda: Points("a", np.zeros(1), np.zeros(1), moves="z"), "got 'z'"),
        (lambda: Rule("a", 0.5, axis="up"), "got 'up'"),
        (lambda: Span("a", 0.0, 1.0, axis="up"), "got 'up'"),
        (lambda: Table(("a", "b"), (("x",),)), r"2 cells, got rows of \[1\]"),
        (lambda: Table(("a",), (("x",), ("y",)), ("a",)), "2 rows"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_its_value(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_a_log_axis_is_drawn_as_one():
    line = Line("a", np.array([0.1, 1.0]), np.array([1.0, 2.0]))
    ax = draw(panel(line, x=Axis("step", 0.01, 1.0, log=True)), Figure().subplots())
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "linear")
    assert ax.get_xlim() == (0.01, 1.0)


@pytest.mark.parametrize(("axis", "other"), [("x", "y"), ("y", "x")])
def test_a_rule_crosses_the_panel_at_its_value(axis, other):
    ax = draw(panel(Rule("b", 0.3, axis, label="here")), Figure().subplots())
    (line,) = ax.lines
    data = {"x": list(line.get_xdata()), "y": list(line.get_ydata())}
    assert data == {axis: [0.3, 0.3], other: [0, 1]}
    assert line.get_linestyle() == DASHES[LOOKS["b"].dash]
    assert line.get_label() == "here"


@pytest.mark.parametrize("axis", ["x", "y"])
def test_a_span_covers_its_values_and_the_whole_of_the_other_axis(axis):
    ax = draw(panel(Span("a", 0.2, 0.4, axis)), Figure().subplots())
    (strip,) = ax.patches
    box = strip.get_extents().transformed(ax.transAxes.inverted())
    wanted = [[0.2, 0.0], [0.4, 1.0]] if axis == "x" else [[0.0, 0.2], [1.0, 0.4]]
    np.testing.assert_allclose(box.get_points(), wanted, atol=1e-9)
    assert matplotlib.colors.to_hex(strip.get_facecolor()) == LOOKS["a"].color


def test_a_heat_map_has_its_values_where_they_belong():
    values = np.arange(6.0).reshape(2, 3)
    heat = Heat("data", np.array([0.1, 0.5, 0.9]), np.array([0.25, 0.75]), values, label="share (%)")
    ax = draw(panel(heat), Figure().subplots())
    (mesh,) = ax.collections
    np.testing.assert_array_equal(mesh.get_array(), values)
    corners = mesh.get_coordinates()
    np.testing.assert_allclose(corners[0, :, 0], [-0.1, 0.3, 0.7, 1.1])
    np.testing.assert_allclose(corners[:, 0, 1], [0.0, 0.5, 1.0])
    assert ax.figure.axes[1].get_ylabel() == "share (%)"
    assert mesh.get_clim() == (0.0, 5.0)
    fixed = Heat("data", heat.x, heat.y, values, (0.0, 10.0))
    assert draw(panel(fixed), Figure().subplots()).collections[0].get_clim() == (0.0, 10.0)
