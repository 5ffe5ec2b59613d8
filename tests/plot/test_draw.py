"""What ends up on the axes, asked of matplotlib's artists; and what must not happen beside it."""

import inspect
import itertools

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from matplotlib.text import Text

import qviz
import qviz.plot
from qviz import Fixed, Quantizer, compare, post, pot, recipes, uniform
from qviz.plot import panels
from qviz.plot.draw import DASHES, draw, figure, png
from qviz.plot.scene import Axis, Band, Bars, Line, Panel, Points, Rug, Scene, Steps, Table
from qviz.plot.style import LOOKS, ROLES

X = torch.randn(500, generator=torch.Generator().manual_seed(1))
TWO = {"POT": Quantizer(pot(3), range=Fixed(1.5)), "POST": Quantizer(post(3), range=Fixed(1.5))}
LINES = {"loss": ([0, 1, 2], [2.0, 1.5, 1.0]), "held-out": ([1, 2], [1.8, 1.7])}
HELPERS = {
    "levels": lambda **kw: qviz.plot.levels(X, TWO, **kw),
    "staircase": lambda **kw: qviz.plot.staircase((-2, 2), TWO, **kw),
    "error": lambda **kw: qviz.plot.error(X, TWO, **kw),
    "contribution": lambda **kw: qviz.plot.contribution(X, TWO, **kw),
    "curve": lambda **kw: qviz.plot.curve(LINES, **kw),
    "histogram": lambda **kw: qviz.plot.histogram({"x": X}, **kw),
    "scatter": lambda **kw: qviz.plot.scatter({"x": (X, X)}, **kw),
    "by_layer": lambda **kw: qviz.plot.by_layer({"bits": [4, 2]}, **kw),
    "bars": lambda **kw: qviz.plot.bars({"codes": [4, 2], "file": [5, 3]}, ["LSQ", "POST"], **kw),
}
PANELS = {
    "levels": panels.levels(X, TWO),
    "staircase": panels.staircase((-2, 2), TWO),
    "error": panels.error(X, TWO),
    "contribution": panels.contribution(X, TWO),
}


@pytest.fixture
def ax():
    return Figure().add_subplot()


@pytest.fixture(autouse=True)
def no_figures_of_other_tests():
    plt.close("all")
    yield
    plt.close("all")


def legend(ax):
    return {text.get_text(): handle for text, handle in zip(*legend_parts(ax), strict=True)}


def legend_parts(ax):
    return ax.get_legend().get_texts(), ax.get_legend().legend_handles


# --- artists ----------------------------------------------------------------------------------------------


def test_staircase_lines_have_the_panels_numbers_and_looks(ax):
    draw(PANELS["staircase"], ax)
    lines = [mark for mark in PANELS["staircase"].marks if isinstance(mark, Line)]
    assert len(ax.lines) == len(lines) == 3
    for artist, mark in zip(ax.lines, lines, strict=True):
        np.testing.assert_array_equal(artist.get_xdata(), mark.x)
        np.testing.assert_array_equal(artist.get_ydata(), mark.y)
        assert artist.get_label() == mark.label
        assert to_hex(artist.get_color()) == LOOKS[mark.role].color
        assert artist.get_linestyle() == DASHES[LOOKS[mark.role].dash]


def test_band_has_the_corners_of_both_curves(ax):
    draw(PANELS["staircase"], ax)
    bands = [mark for mark in PANELS["staircase"].marks if isinstance(mark, Band)]
    assert len(ax.collections) == len(bands) == 2
    for artist, mark in zip(ax.collections, bands, strict=True):
        (path,) = artist.get_paths()
        corners = {tuple(v) for v in path.vertices.tolist()}
        assert {*zip(mark.x, mark.low, strict=True), *zip(mark.x, mark.high, strict=True)} <= corners
        assert to_hex(artist.get_facecolor()[0]) == LOOKS[mark.role].color


def test_bars_and_outlines_are_stairs_with_the_panels_numbers(ax):
    draw(PANELS["levels"], ax)
    (bars,) = (p for p in ax.patches if isinstance(p, StepPatch))
    heights, edges, baseline = bars.get_data()
    np.testing.assert_array_equal(heights, PANELS["levels"].marks[0].heights)
    np.testing.assert_array_equal(edges, PANELS["levels"].marks[0].edges)
    assert (baseline, bars.get_fill()) == (0, True)
    other = draw(PANELS["error"], Figure().add_subplot())
    steps = [p for p in other.patches if isinstance(p, StepPatch)]
    for artist, mark in zip(steps, PANELS["error"].marks, strict=True):
        np.testing.assert_array_equal(artist.get_data().values, mark.heights)
        assert not artist.get_fill()
        assert artist.get_linestyle() == DASHES[LOOKS[mark.role].dash]


def test_rug_is_upright_at_the_levels(ax):
    draw(PANELS["levels"], ax)
    rugs = [mark for mark in PANELS["levels"].marks if isinstance(mark, Rug)]
    drawn = [c for c in ax.collections if isinstance(c, LineCollection)]
    assert len(drawn) == 2
    for artist, mark in zip(drawn, rugs, strict=True):
        wanted = [[[x, mark.low], [x, mark.high]] for x in mark.x]
        np.testing.assert_allclose(artist.get_segments(), wanted)


def test_points_are_markers_without_a_line(ax):
    panel = Panel("p", Axis("x", 0, 1), Axis("y", 0, 1), (Points("c", np.array([0.2, 0.7]), np.ones(2)),), "")
    draw(panel, ax)
    (points,) = ax.lines
    assert points.get_xdata().tolist() == [0.2, 0.7]
    assert (points.get_marker(), points.get_linestyle()) == (LOOKS["c"].marker, "None")


@pytest.mark.parametrize("name", PANELS)
def test_limits_labels_title_and_legend(ax, name):
    panel = PANELS[name]
    draw(panel, ax)
    assert ax.get_xlim() == (panel.x.low, panel.x.high)
    assert ax.get_ylim() == (panel.y.low, panel.y.high)
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == (panel.x.label, panel.y.label, panel.title)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [m.label for m in panel.marks if m.label]


# --- as a guest on axes, in figures, in pyplot ------------------------------------------------------------


@pytest.mark.parametrize("helper", HELPERS.values(), ids=HELPERS)
def test_helpers_return_the_axes_given_and_leave_pyplot_alone(ax, helper, monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("a helper must neither show nor save")

    monkeypatch.setattr(plt, "show", forbidden)
    monkeypatch.setattr(Figure, "show", forbidden)
    monkeypatch.setattr(Figure, "savefig", forbidden)
    before = dict(mpl.rcParams)
    assert helper(ax=ax) is ax
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == []
    assert len(ax.figure.axes) == 1
    assert qviz.plot.describe(ax) == ax.qviz_text != ""


def test_without_axes_the_current_ones_are_drawn_on():
    fig, (left, right) = plt.subplots(1, 2)
    plt.sca(left)
    assert HELPERS["error"]() is left
    assert HELPERS["by_layer"](ax=right) is right
    assert plt.get_fignums() == [fig.number]


@pytest.mark.parametrize("name", HELPERS)
def test_helpers_take_what_the_panel_and_draw_take_and_say_so(ax, name):
    own = inspect.signature(getattr(panels, name)).parameters
    assert set(inspect.signature(getattr(qviz.plot, name)).parameters) == {
        *own,
        "ax",
        "title",
        "legend",
        "style",
    }
    assert "title: The title" in getattr(qviz.plot, name).__doc__
    HELPERS[name](ax=ax, title="mine", legend=False)
    assert ax.get_title() == "mine"
    assert ax.get_legend() is None
    assert HELPERS[name](ax=Figure().add_subplot(), title="").get_title() == ""


def test_figure_is_not_known_to_pyplot():
    figure(Scene("all", tuple(PANELS.values()), Table.of(compare(X, TWO), ("a", "b"))))
    assert plt.get_fignums() == []


def test_helpers_compose_with_the_users_own_axes():
    fig, (top, bottom) = plt.subplots(2, 1, sharex=True)
    (mine,) = top.plot([-1, 1], [0, 5], color="red", label="mine")
    qviz.plot.levels(X, TWO, ax=top)
    qviz.plot.error(X, TWO, ax=bottom)
    assert mine in top.lines
    assert "mine" in legend(top)
    assert fig.axes == [top, bottom]
    fig.draw_without_rendering()


def test_what_the_panel_takes_does_not_reach_matplotlib(ax):
    qviz.plot.error(X, TWO, bins=7, unit="V", ax=ax, lw=3)
    assert [len(steps.get_data().values) for steps in ax.patches] == [7, 7]
    assert ax.get_xlabel().endswith("(V)")


@pytest.mark.parametrize("name", HELPERS)
def test_matplotlibs_aliases_style_the_methods_but_not_data_and_ideal(ax, name):
    HELPERS[name](ax=ax, c="#112233", lw=5, alpha=0.25)
    styled = [a for a in (*ax.lines, *ax.patches, *ax.collections) if hex_of(a) == "#112233"]
    grey = [a for a in (*ax.lines, *ax.patches, *ax.collections) if hex_of(a) == LOOKS["data"].color]
    assert styled
    assert all(a in grey or a in styled for a in (*ax.lines, *ax.patches, *ax.collections))
    assert all(np.max(a.get_linewidth()) != 5 for a in grey)
    assert any(np.max(a.get_linewidth()) == 5 and a.get_alpha() == 0.25 for a in styled)


def hex_of(artist):
    color = artist.get_color() if hasattr(artist, "get_color") else artist.get_facecolor()
    color = artist.get_edgecolor() if isinstance(artist, StepPatch) and not artist.get_fill() else color
    return to_hex(np.atleast_2d(color)[0] if not isinstance(color, str) else color)


def test_the_ends_of_the_x_axis_may_come_after_the_methods_or_be_left_out():
    assert qviz.plot.staircase(TWO, (-1, 2), ax=Figure().add_subplot()).get_xlim() == (-1, 2)
    assert qviz.plot.staircase(TWO["POT"], ax=Figure().add_subplot()).get_xlim() == (-2, 2)


def test_any_callable_can_be_drawn(ax):
    qviz.plot.staircase((-1, 2), {"round": torch.round, "mine": lambda x: (x > 0).float()}, ax=ax)
    assert set(legend(ax)) == {"y = x", "round", "mine"}


def test_describe_of_axes_that_qviz_did_not_draw_is_empty(ax):
    assert qviz.plot.describe(ax) == ""


def test_describe_has_the_numbers(ax):
    text = qviz.plot.describe(qviz.plot.error(X, TWO, ax=ax))
    error = TWO["POT"](X) - X
    rms, worst = error.square().mean().sqrt(), error.abs().max()
    assert f"POT: error has RMS {rms:.3g} and is at most {worst:.3g}" in text


# --- scenes -----------------------------------------------------------------------------------------------


def test_figure_holds_every_panel_and_the_table():
    table = compare(X, TWO)
    fig = figure(Scene("the title", tuple(PANELS.values()), Table.of(table, ("a", "b"))))
    drawn = [ax for ax in fig.axes if ax.axison]
    assert [ax.get_title() for ax in drawn] == [panel.title for panel in PANELS.values()]
    assert fig.get_suptitle() == "the title"
    (cells,) = (t.get_celld() for ax in fig.axes for t in ax.tables)
    rows = {i for i, _ in cells}
    columns = {k for _, k in cells}
    text = [tuple(cells[i, k].get_text().get_text() for k in sorted(columns)) for i in sorted(rows)]
    assert text[1:] == table.cells()
    assert to_hex(cells[2, 0].get_text().get_color()) == LOOKS["b"].color


def test_axes_that_cannot_be_drawn_on_are_named():
    fig = Figure()
    for ax, says in (
        (fig.subplots(2), r"ndarray of shape \(2,\)"),
        (fig.add_subplot(projection="polar"), "polar"),
    ):
        with pytest.raises(TypeError, match=f"ax must be one Axes .*, got {says}"):
            qviz.plot.staircase((-1, 1), post(3), ax=ax)


@pytest.mark.parametrize(("count", "size"), [(1, (6.4, 4.0)), (2, (13.33, 3.75)), (4, (13.33, 7.5))])
def test_figure_has_the_size_of_a_slide(count, size):
    fig = figure(Scene("s", tuple(PANELS.values())[:count]))
    assert tuple(fig.get_size_inches()) == size
    assert tuple(figure(Scene("s", (PANELS["error"],)), size=(3, 2)).get_size_inches()) == (3, 2)


LENGTHY = {"A: a name of some length": post(7, grid="paper"), "B: uniform": uniform(8)}
HEADERS = ("Term", "w", "level", "x", "a", "adds", "to", "sum", "float")
WIDE_LETTERS = ("2", "-0.133", "-0.177", "4.01", "12", "−" * 20, "odd", "-0.675", "-0.595")


@pytest.mark.parametrize(
    "table",
    [Table.of(compare(1e-5 * X, LENGTHY), ("a", "b")), Table(HEADERS, (WIDE_LETTERS,), ("a",))],
    ids=["names", "letters"],
)
def test_cells_of_the_table_do_not_overlap(table):
    fig = figure(Scene("t", (PANELS["error"],) * (5 if table.headers == HEADERS else 1), table))
    fig.draw_without_rendering()
    (cells,) = (t.get_celld() for ax in fig.axes for t in ax.tables)
    boxes = {at: cell.get_text().get_window_extent() for at, cell in cells.items()}
    for (i, k), box in boxes.items():
        assert fig.bbox.x0 <= box.x0 < box.x1 <= fig.bbox.x1
        if (i, k + 1) in boxes:
            assert box.x1 < boxes[i, k + 1].x0, [cells[i, n].get_text().get_text() for n in (k, k + 1)]


@pytest.mark.parametrize("count", [2, 6])
def test_a_table_of_many_rows_leaves_room_for_its_notes(count):
    rows = tuple((f"row {i}", "1.0") for i in range(count))
    table = Table(("name", "MSE"), rows, ("a",) * count, {}, ("a note", "another note"))
    fig = figure(Scene("t", (PANELS["error"],) * 4, table))
    fig.draw_without_rendering()
    ax = fig.axes[4]
    lowest = min(cell.get_window_extent().y0 for cell in ax.tables[0].get_celld().values())
    assert ax.texts[0].get_window_extent().y1 < lowest


def test_bold_names_of_a_table_stay_in_their_column():
    headers = ("run", "step", "loss", "changes", "returns", "error (%)", "levels in use")
    row = ("B: ADQ, codebook follows", "186", "0.093", "0.793", "0.061", "21.9", "7 of 7")
    fig = figure(Scene("t", (PANELS["error"],) * 4, Table(headers, (row,), ("b",))))
    fig.draw_without_rendering()
    cell = fig.axes[4].tables[0].get_celld()[1, 0]
    assert cell.get_text().get_window_extent().x1 < cell.get_window_extent().x1


def test_an_axis_may_have_names(ax):
    names = ("weights", "inputs", "whole")
    bars = Bars("a", np.arange(4) + 0.5, np.arange(3.0))
    draw(Panel("P", Axis("from", 0.5, 3.5, names=names), Axis("y", 0, 3), (bars,), "."), ax)
    assert ax.get_xticks().tolist() == [1, 2, 3]
    assert [label.get_text() for label in ax.get_xticklabels()] == list(names)


def test_an_axis_that_counts_has_whole_ticks(ax):
    bars = Bars("a", np.array([0.5, 1.5, 2.5]), np.array([1.0, 2.0]))
    draw(Panel("p", Axis("layer", 0.5, 2.5), Axis("y", 0.0, 2.5), (bars,), ""), ax)
    inside = [tick for tick in ax.get_xticks() if 0.5 <= tick <= 2.5]
    assert inside == [1.0, 2.0]
    assert not Axis("x", 0.5, 2.0).counts
    assert not Axis("x", -0.5, 2.5).counts


def test_png_is_one():
    assert png(figure(Scene("s", (PANELS["error"],)))).startswith(b"\x89PNG\r\n")


@pytest.mark.parametrize(
    "shown", [PANELS["staircase"], Scene("s", (PANELS["error"],), Table.of(compare(X, TWO), ("a", "b")))]
)
def test_mime_bundle_has_picture_and_text(shown):
    data, metadata = shown._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG")
    assert data["text/plain"] == metadata["image/png"]["alt"] == shown.text
    assert plt.get_fignums() == []


def test_scene_text_has_every_number_of_the_table():
    table = compare(X, TWO)
    text = Scene("s", (PANELS["error"],), Table.of(table, ("a", "b"))).text
    for row, cells in zip(table.rows, table.cells(), strict=True):
        assert f"{row.mse:#.4g}" in text
        assert all(cell in text for cell in cells)


def test_what_one_should_know_of_the_figures_is_told_with_them():
    units = {"DAQ": recipes.daq_weight(4).observe(X), "wide": Quantizer(uniform(8), range=Fixed(10.0))}
    table = Table.of(compare(X, units))
    assert "DAQ: its outputs have a unit of their own" in table.notes[0]
    assert "levels unused" in table.notes[1]
    scene = Scene("s", (PANELS["error"],), table)
    assert all(note in scene.text for note in table.notes)
    written = [text.get_text() for text in figure(scene).axes[1].texts]
    assert "\n".join(table.notes) in written


def test_numbers_of_a_panel_are_its_marks():
    numbers = PANELS["error"].numbers()
    assert [n["mark"] for n in numbers] == ["Steps", "Steps"]
    assert isinstance(PANELS["error"].marks[1], Steps)
    assert numbers[1]["heights"] is PANELS["error"].marks[1].heights
    assert numbers[1]["role"] == "b"


# --- style ------------------------------------------------------------------------------------------------


def test_colors_are_seaborns_colorblind_palette():
    seaborn = pytest.importorskip("seaborn")
    assert {look.color for look in LOOKS.values()} <= set(seaborn.color_palette("colorblind").as_hex())


def test_methods_differ_by_more_than_color():
    looks = [LOOKS[role] for role in ROLES]
    for what in ("color", "dash", "marker"):
        assert len({getattr(look, what) for look in looks}) == len(ROLES) == 6, what
    assert {look.dash for look in LOOKS.values()} <= set(DASHES)
    assert {look.plain_dash for look in LOOKS.values()} == {"solid", "dashed", "dotted", "dash_dotted"}


def contrast(color, ground):
    """Contrast of two colors by WCAG 2.2."""
    light = []
    for given in (color, ground):
        rgb = np.array(to_rgb(given))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        light.append(float(linear @ [0.2126, 0.7152, 0.0722]) + 0.05)
    return max(light) / min(light)


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_everything_is_seen_on_light_and_on_dark(style):
    with plt.style.context(style):
        fig = figure(Scene("s", (PANELS["staircase"],), Table.of(compare(X, TWO), ("a", "b"))))
        ground = fig.get_facecolor()
        fig.draw_without_rendering()
    texts = [t for t in fig.findobj(Text) if t.get_text() and t.get_visible()]
    named = {LOOKS[role].color for role in "ab"}  # the table names methods in their own color, in bold
    assert len(texts) > 20
    for text in texts:
        least = 2.4 if to_hex(text.get_color()) in named else 4.5
        assert contrast(text.get_color(), ground) >= least, text.get_text()
    for line in fig.axes[0].lines:
        assert contrast(line.get_color(), ground) >= 2.4, line.get_label()
    for cell in fig.axes[1].tables[0].get_celld().values():
        assert contrast(cell.get_edgecolor(), ground) >= 4.5


@pytest.mark.parametrize(("low", "high"), [(0.0105, 0.79), (0.09, 0.3), (0.0021, 0.19)])
def test_labels_of_a_short_logarithmic_axis_do_not_overlap(low, high):
    fig = Figure(figsize=(5, 3))
    ax = fig.add_subplot()
    line = Line("ideal", np.array([low, high]), np.array([1.0, 2.0]))
    draw(Panel("t", Axis("x", low, high, log=True), Axis("y", 0.0, 3.0), (line,), ""), ax)
    fig.canvas.draw()
    labels = [label for label in ax.get_xticklabels(which="both") if label.get_text() and label.get_visible()]
    ends = sorted((box.x0, box.x1) for box in (label.get_window_extent() for label in labels))
    ends = [pair for pair in ends if ax.bbox.x0 - 1 <= sum(pair) / 2 <= ax.bbox.x1 + 1]
    assert len(ends) >= 2
    assert all(left[1] < right[0] for left, right in itertools.pairwise(ends))
