"""Titles, labels and legends do not meet, in any font size, layout or with twins."""

import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure

import qviz.plot
from qviz import Fixed, Quantizer, post
from qviz.plot import panels
from qviz.plot.scene import Scene
from tests.slow import slow

Q = Quantizer(post(3), range=Fixed(1.5))
LONG = "features.2.conv.0.0.weight_quantizer.codebook"
NAMES = {
    "two": ("POT", "POST"),
    "six": ("uniform", "POT", "POST", "APoT", "quantile", "Lloyd"),
    "long": (LONG, LONG + " after training, per channel"),
}
CONTEXTS = {"plain": {}, "talk": {"font.size": 18, "axes.titlesize": 18, "axes.labelsize": 18}}


def lettered(ax):
    """Boxes of what is written above and in the axes."""
    ax.figure.draw_without_rendering()
    return ax.get_legend().get_window_extent(), ax.title.get_window_extent(), ax.bbox


def apart(one, other):
    return not one.padded(-1).overlaps(other.padded(-1))


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_with_a_layout_the_legend_is_a_row_between_title_and_axes(names, context):
    with plt.rc_context(context):
        fig = qviz.plot.figure(Scene("s", (panels.staircase((-2, 2), dict.fromkeys(names, Q)),)))
        row, title, inside = lettered(fig.axes[0])
    assert inside.y1 <= row.y0 + 1 < row.y1 <= title.y0 + 1
    assert title.y1 <= fig.bbox.y1
    assert fig.bbox.x0 <= row.x0 < row.x1 <= fig.bbox.x1


@pytest.mark.parametrize("context", [{}, *slow(CONTEXTS["talk"])], ids=CONTEXTS)
@pytest.mark.parametrize("names", [*slow(NAMES["two"]), NAMES["six"], *slow(NAMES["long"])], ids=NAMES)
def test_in_plain_subplots_a_legend_meets_no_title_and_no_other_legend(names, context):
    with plt.rc_context(context):
        fig = Figure()
        axes = fig.subplots(2, 2).ravel()
        for ax in axes:
            qviz.plot.staircase((-2, 2), dict.fromkeys(names, Q), ax=ax)
        boxes = [lettered(ax)[:2] for ax in axes]
    for i, (row, title) in enumerate(boxes):
        assert apart(row, title)
        assert fig.bbox.x0 <= row.x0 < row.x1 <= fig.bbox.x1
        assert all(apart(row, box) for other in boxes[:i] + boxes[i + 1 :] for box in other)


def test_where_other_axes_leave_no_room_the_legend_goes_inside():
    upper, lower = Figure().subplots(2, 1)
    for ax in (upper, lower):
        qviz.plot.staircase((-2, 2), Q, ax=ax)
    row, _, inside = lettered(upper)
    assert row.y0 >= inside.y1 - 1
    row, _, inside = lettered(lower)
    assert inside.y0 < row.y0 < row.y1 < inside.y1
    assert apart(row, upper.xaxis.label.get_window_extent())


def test_a_figure_of_ones_own_keeps_the_row_where_there_is_room():
    ax = qviz.plot.staircase((-2, 2), Q, ax=Figure().subplots())
    row, title, inside = lettered(ax)
    assert inside.y1 <= row.y0 + 1
    assert row.y1 <= title.y0 + 1
    assert title.y1 <= ax.figure.bbox.y1


def test_twins_share_a_title_a_legend_and_keep_their_spine():
    ax = Figure().subplots()
    twin = ax.twinx()
    qviz.plot.curve({"loss": ([0, 1], [2.0, 1.0])}, ax=ax, title="Loss and accuracy", y="loss")
    qviz.plot.curve({"top-1": ([0, 1], [0.1, 0.9])}, ax=twin, y="top-1", color="red")
    assert [text.get_text() for text in twin.get_legend().get_texts()] == ["loss", "top-1"]
    assert ax.get_legend() is None
    assert (ax.get_title(), twin.get_title()) == ("Loss and accuracy", "")
    assert twin.spines["right"].get_visible()
    assert not ax.spines["right"].get_visible()
    ax.figure.draw_without_rendering()
    assert apart(ax.title.get_window_extent(), twin.get_legend().get_window_extent())
    assert ax.title.get_window_extent().y1 <= ax.figure.bbox.y1


@pytest.mark.parametrize("name", ["title", "x", "y"])
def test_long_titles_and_labels_are_broken_into_lines(name):
    ax = qviz.plot.curve({"a": ([0, 1], [2.0, 1.0])}, ax=Figure().subplots(), **{name: 3 * f"{LONG} "})
    artist = {"title": ax.title, "x": ax.xaxis.label, "y": ax.yaxis.label}[name]
    assert artist.get_text().replace("\n", "").replace(" ", "") == 3 * LONG
    box = artist.get_window_extent()
    assert (box.height if name == "y" else box.width) <= (
        ax.bbox.height if name == "y" else 1.1 * ax.bbox.width
    )
