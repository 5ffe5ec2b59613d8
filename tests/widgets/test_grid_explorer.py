"""GridExplorer without a browser: controls, numbers, custom levels, the contract of every explorer."""

import html
import json
import re

import bqplot
import ipywidgets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import qviz
from qviz import Codebook, MinMax, Percentile, apot, compare, lloyd, post, pot, quantile, uniform
from qviz.explore import tensors
from qviz.plot.html import scene_html
from qviz.plot.style import LOOKS
from qviz.widgets import GridExplorer
from qviz.widgets.live_marks import arrays
from tests.slow import slow

YOURS = "your tensor"
MANUAL = "manual clip"
RULES = {
    "MSE search": qviz.MSE,
    "min–max": MinMax,
    "percentile 99.9": lambda axis: Percentile(99.9, axis),
    "percentile 99": lambda axis: Percentile(99.0, axis),
}
X = torch.randn(12, 250, generator=torch.Generator().manual_seed(7)) * torch.linspace(0.5, 2, 12)[:, None]


def books(bits):
    """Every grid on offer, built without the explorer."""
    found = {
        "uniform": uniform(bits),
        "POT": pot(bits),
        "POST": post(bits),
        "APoT": apot(bits),
        "quantile": quantile(X, bits),
        "Lloyd": lloyd(X, bits),
    }
    if bits < 8:
        found |= {"POT paper": pot(bits, grid="paper"), "POST paper": post(bits, grid="paper")}
    return found


@pytest.fixture
def e():
    return GridExplorer(X)


def walk(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from walk(child)


def figures(e):
    return [w for w in walk(e) if isinstance(w, bqplot.Figure)]


def shown_table(e):
    (box,) = (w for w in walk(e) if isinstance(w, ipywidgets.HTML) and "<table" in w.value)
    return box.value.split('<div class="qviz-alt"')[0]


def dots(e):
    """The dots of the custom levels, or None; other dots are the clip and the number on the staircases."""
    marks = [m for figure in figures(e) for m in figure.marks if isinstance(m, bqplot.Scatter) and m.visible]
    return next((m for m in marks if m.colors == [LOOKS["c"].color]), None)


def drag(e, k, value):
    """Do what a browser does: say which dot is grabbed, then send all positions, one of them changed."""
    live = dots(e)
    live._handle_custom_msgs(live, {"event": "drag_start", "point": {}, "index": k})
    x = np.array(live.x, dtype=np.float64)
    x[k] = value
    live.x = x


def custom_levels(e):
    return e.quantizers()["A: custom"].codebook.levels.numpy()


def assert_shows_its_scene(e):
    """What is on the page is what the controls say."""
    scene = e.scene()
    assert shown_table(e) == scene_html(scene)
    for figure, panel in zip(figures(e), scene.panels, strict=True):
        for live, mark in zip([m for m in figure.marks if m.visible], panel.marks, strict=True):
            for name, wanted in arrays(mark, panel).items():
                np.testing.assert_array_equal(getattr(live, name), wanted)
    for name, control in e.controls.items():
        assert control.value == getattr(e.choice(), name)


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(p, q) for p, q in zip(a, b, strict=True))
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b, equal_nan=True)
    return a == b


def assert_row(row, wanted):
    assert (row["levels"], row["bits"]) == (wanted.levels, wanted.bits)
    assert row["mse"] == pytest.approx(wanted.mse, rel=1e-5)
    assert row["sqnr_db"] == pytest.approx(wanted.sqnr_db, abs=1e-4)
    assert row["entropy"] == pytest.approx(wanted.entropy, abs=1e-4)
    assert row["scale"] == (None if wanted.scale is None else pytest.approx(wanted.scale, rel=1e-6))


# --- numbers ----------------------------------------------------------------------------------------------


def test_setting_a_control_is_moving_it(e):
    assert {row["levels"] for row in e.data()["table"].values()} == {15}
    e.bits.value = 3
    assert {row["levels"] for row in e.data()["table"].values()} == {7}
    e.grid_b.value = "Lloyd"
    assert set(e.data()["table"]) == {"A: POT", "B: Lloyd"}
    assert_shows_its_scene(e)


@pytest.mark.parametrize("channels", [False, True], ids=["per tensor", "per channel"])
@pytest.mark.parametrize("rule", [*slow(*list(RULES)[:-1]), list(RULES)[-1]])
def test_table_is_compares(e, rule, channels):
    e.rule.value, e.per_channel.value = rule, channels
    for bits in (3,) if channels else (3, 8):
        e.bits.value = bits
        for name, book in books(bits).items():
            e.grid_a.value = name
            wanted = compare(X, {"q": book}, range=RULES[rule](0 if channels else None))["q"]
            assert_row(e.data()["table"][f"A: {name}"], wanted)


def test_levels_and_bits_of_the_paper_grid_are_both_told(e):
    e.grid_a.value, e.bits.value = "POT paper", 3
    row = e.data()["table"]["A: POT paper"]
    assert "A: POT paper: the paper's grid: its 9 levels need 4 bits to store" in e.scene().table.notes
    assert (row["levels"], row["bits"]) == (9, 4)


def test_moving_clip_is_a_manual_clip(e):
    e.clip.value = 1.5
    assert e.rule.value == MANUAL
    for name, book in (("A: POT", pot(4)), ("B: POST", post(4))):
        assert_row(e.data()["table"][name], compare(X, {"q": book}, range=1.5)["q"])
    e.grid_a.value = "uniform"
    row = e.data()["table"]["A: uniform"]
    assert_row(row, compare(X, {"q": uniform(4)}, range=1.5)["q"])
    assert row["scale"] == pytest.approx(1.5 / 8)
    assert_shows_its_scene(e)


def test_clip_follows_what_the_rule_finds(e):
    for rule in RULES:
        e.rule.value = rule
        assert e.clip.value == pytest.approx(e.data()["table"]["A: POT"]["scale"], abs=e.clip.step)
        assert e.rule.value == rule
    e.clip.value = 0.5
    e.rule.value = "min–max"
    assert e.clip.value == pytest.approx(float(X.abs().max()), abs=e.clip.step)


@pytest.mark.parametrize("off", [-0.4, 0.4])
def test_a_browsers_echo_of_clip_is_nobodys_move(e, off):
    e.clip.value += off * e.clip.step
    assert e.rule.value == "MSE search"


def test_clip_moved_back_to_where_the_rule_had_it_is_shown(e):
    found = e.clip.value
    e.clip.value = found / 2
    e.clip.value = found
    assert e.rule.value == MANUAL
    assert_shows_its_scene(e)


def test_a_manual_clip_is_one_for_all_channels(e):
    e.per_channel.value = True
    e.clip.value = 1.5
    assert_row(e.data()["table"]["A: POT"], compare(X, {"q": pot(4)}, range=1.5)["q"])


def test_paper_grid_at_eight_bits_falls_back(e):
    e.grid_a.value, e.grid_b.value = "POT paper", "POST paper"
    e.bits.value = 7
    assert e.grid_a.value == "POT paper"
    e.bits.value = 8
    assert (e.grid_a.value, e.grid_b.value) == ("POT", "POST")
    assert {row["levels"] for row in e.data()["table"].values()} == {255}
    assert_shows_its_scene(e)


def test_a_paper_grid_chosen_at_eight_bits_falls_back(e):
    e.bits.value = 8
    e.grid_a.value = "POT paper"
    assert e.grid_a.value == "POT"
    assert_shows_its_scene(e)


def test_panels_show_what_the_table_says(e):
    data = e.data()
    x = X.double().numpy().ravel()
    for name, row in data["table"].items():
        (rug,) = (m for m in data["Levels over the values"] if m["label"] == name)
        assert len(rug["x"]) == row["levels"]
        assert rug["x"].max() == pytest.approx(row["scale"])
        error = rug["x"][np.abs(x[:, None] - rug["x"]).argmin(1)] - x
        assert np.mean(error**2) == pytest.approx(row["mse"], rel=1e-5)
        (steps,) = (m for m in data["Histogram of the error"] if m["label"] == name)
        counts = steps["heights"] / 100 * x.size
        assert np.abs(counts - np.histogram(error, steps["edges"])[0]).sum() < 4  # float32 at the edges


# --- custom levels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["POST", "Lloyd"])
def test_custom_starts_from_the_grid_that_was_there(e, start):
    e.grid_a.value = start
    before = e.data()["table"][f"A: {start}"]
    e.grid_a.value = "custom"
    row = e.data()["table"]["A: custom"]
    assert (row["levels"], row["mse"]) == (before["levels"], pytest.approx(before["mse"]))
    np.testing.assert_array_equal(dots(e).x, custom_levels(e))
    assert_shows_its_scene(e)


def test_choosing_custom_on_the_other_side_too_moves_no_level(e):
    e.grid_a.value = "custom"
    before = custom_levels(e)
    e.grid_b.value = "custom"
    np.testing.assert_array_equal(custom_levels(e), before)


def test_without_custom_there_are_no_dots(e):
    assert dots(e) is None
    e.grid_b.value = "custom"
    assert len(dots(e).x) == 15
    e.grid_b.value = "POT"
    assert dots(e) is None


def test_dots_sit_on_the_ruler_of_their_grid(e):
    for slot, label in ((e.grid_a, "A: custom"), (e.grid_b, "B: custom")):
        slot.value = "custom"
        (rug,) = (m for m in e.data()["Levels over the values"] if m["label"] == label)
        assert np.all((rug["low"] < dots(e).y) & (dots(e).y < rug["high"]))
        slot.value = "POT"


def test_a_dragged_level_changes_the_numbers(e):
    e.grid_a.value = "custom"
    levels = custom_levels(e).copy()
    before = e.data()["table"]["A: custom"]["mse"]
    levels[10] = (levels[9] + levels[10]) / 2
    drag(e, 10, levels[10])
    np.testing.assert_array_equal(custom_levels(e), levels)
    nearest = np.abs(X.double().numpy().reshape(-1, 1) - levels).min(1)
    mse = e.data()["table"]["A: custom"]["mse"]
    assert mse == pytest.approx(np.mean(nearest**2), rel=1e-5)
    assert mse != before
    assert (e.level.value, e.value.value) == (11, pytest.approx(levels[10], rel=1e-5))
    assert f"{mse:#.4g}" in shown_table(e)
    assert_shows_its_scene(e)


@pytest.mark.parametrize("far", [-99.0, 99.0])
def test_a_level_dragged_far_stops_at_its_neighbour(e, far):
    e.grid_a.value = "custom"
    before = custom_levels(e).copy()
    drag(e, 12, far)
    after = custom_levels(e)
    assert before[11] < after[12] < before[13]
    assert min(after[12] - before[11], before[13] - after[12]) < 0.02 * (before[13] - before[11])
    assert np.array_equal(np.delete(after, 12), np.delete(before, 12))
    np.testing.assert_array_equal(dots(e).x, after)  # the dot goes back to where the level is


@pytest.mark.parametrize("far", [-99.0, 99.0])
def test_end_levels_stop_at_the_ends_of_the_picture(e, far):
    e.grid_a.value = "custom"
    drag(e, 0 if far < 0 else 14, far)
    (low, high), axis = custom_levels(e)[[0, -1]], e.scene().panels[0].x
    assert (low if far < 0 else high) == pytest.approx(axis.low if far < 0 else axis.high)


def test_level_and_value_boxes_do_the_same(e):
    e.grid_a.value = "custom"
    levels = custom_levels(e).copy()
    e.level.value = 12
    assert e.value.value == pytest.approx(levels[11], rel=1e-5)
    e.value.value = levels[11] + 0.01
    assert custom_levels(e)[11] == pytest.approx(levels[11] + 0.01)
    e.value.value = 99.0
    assert e.value.value < levels[12]
    assert e.value.value == pytest.approx(custom_levels(e)[11], rel=1e-5)
    assert_shows_its_scene(e)


def test_boxes_without_custom_change_nothing(e):
    before = e.data()
    e.value.value = 0.3
    e.level.value = 2
    e.mirror.value = True
    assert same(e.data(), before)


def test_reset_brings_the_start_back(e):
    e.grid_a.value = "POST"
    e.grid_a.value = "custom"
    before = custom_levels(e).copy()
    drag(e, 3, 0.0)
    drag(e, 9, 99.0)
    e.reset.click()
    np.testing.assert_array_equal(custom_levels(e), before)
    assert_shows_its_scene(e)


def test_reset_says_where_it_goes_and_a_look_at_another_grid_does_not_change_that(e):
    e.grid_a.value = "custom"
    before = custom_levels(e).copy()
    drag(e, 9, 99.0)
    e.grid_a.value = "Lloyd"
    e.grid_a.value = "custom"
    assert e.reset.description == "Reset to POT"
    e.reset.click()
    np.testing.assert_array_equal(custom_levels(e), before)


def test_a_dot_is_told_by_its_drags_start_though_the_others_lag(e):
    e.grid_a.value, e.mirror.value = "custom", True
    levels = custom_levels(e).copy()
    live = dots(e)
    stale = np.array(live.x)
    live._handle_custom_msgs(live, {"event": "drag_start", "point": {}, "index": 12})
    for target in (levels[12] + 0.02, levels[12] + 0.04):  # the browser has not heard that the twin moved
        stale[12] = target
        live.x = stale.copy()
    np.testing.assert_allclose(custom_levels(e)[[2, 12]], [-levels[12] - 0.04, levels[12] + 0.04])
    assert_shows_its_scene(e)


def test_eight_bits_have_few_dots_that_keep_their_levels(e):
    e.grid_a.value = "uniform"
    e.grid_a.value, e.bits.value = "custom", 8
    e.level.value = 100
    levels = custom_levels(e).copy()
    count = len(levels)
    assert count == 256
    assert len(dots(e).x) <= 17
    k = int(np.flatnonzero(dots(e).x == levels[99])[0])
    drag(e, k + 1, levels[99 + 16] + 1e-3)
    assert e.level.value == 100 + 16
    assert len(np.flatnonzero(custom_levels(e) != levels)) == 1


def test_values_step_follows_the_grid(e):
    e.grid_a.value = "custom"
    for bits in (3, 8):
        e.bits.value = bits
        gap = np.diff(custom_levels(e)).min()
        assert gap / 20 <= e.value.step <= gap / 2


def test_a_manual_clip_says_that_it_serves_both_grids(e):
    assert "serves both" not in e.describe()
    e.clip.value = 1.5
    best = [compare(X, {"q": book})["q"].scale for book in (pot(4), post(4))]
    assert f"One clip, 1.5, serves both grids; the MSE search finds {best[0]:.3g} for A" in e.describe()
    assert f"and {best[1]:.3g} for B." in e.describe()


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (torch.tensor([1.0, float("nan")]), "1 of 2 values that are NaN"),
        (torch.tensor([]), "empty"),
        (torch.tensor([1, 2]), "int64"),
        ("weights", "str"),
    ],
)
def test_a_tensor_that_cannot_be_shown_is_left_out_with_a_word(x, said):
    e = GridExplorer(x, tensor="your tensor")
    assert e.tensor.value == tensors.BIG
    assert "Your tensor is left out:" in e._words.text.value
    assert said in e.describe()
    assert "left out" not in GridExplorer(X).describe()


def test_held_axes_stay_until_the_tensor_changes(e):
    def reach():
        return e.scene().panels[2].x.high

    e.grid_a.value = e.grid_b.value = "uniform"
    wide = reach()
    e.hold.value = True
    e.bits.value = 8
    assert reach() == wide
    e.hold.value = False
    narrow = reach()
    assert narrow < wide / 2
    e.bits.value, e.hold.value = 4, True
    e.tensor.value = "with outliers"
    held = reach()
    e.hold.value = False
    assert reach() == held != wide


def test_the_tensor_is_told(e):
    e.tensor.value = "Laplace"
    assert "Laplace with scale 1, 100 channels" in shown_table(e)


def test_mirror_makes_the_grid_symmetric_and_keeps_it_so(e):
    e.grid_a.value = "uniform"
    e.grid_a.value = "custom"
    e.mirror.value = True
    levels = custom_levels(e).copy()
    np.testing.assert_array_equal(levels, -levels[::-1])
    drag(e, 12, levels[12] + 0.05)
    np.testing.assert_array_equal(custom_levels(e), -custom_levels(e)[::-1])
    assert custom_levels(e)[12] == pytest.approx(levels[12] + 0.05)
    e.mirror.value = False
    drag(e, 12, levels[12])
    assert custom_levels(e)[12] == -custom_levels(e)[3] - 0.05 or custom_levels(e)[12] == levels[12]
    assert custom_levels(e)[3] == pytest.approx(-levels[12] - 0.05)
    assert_shows_its_scene(e)


def test_each_tensor_and_bit_width_keeps_its_own_levels(e):
    e.grid_a.value = "custom"
    drag(e, 14, 9.0)
    moved = custom_levels(e).copy()
    e.bits.value = 3
    assert len(custom_levels(e)) == 7
    assert e.level.max == 7
    e.tensor.value = "Laplace"
    assert len(dots(e).x) == 7
    e.bits.value, e.tensor.value = 4, YOURS
    np.testing.assert_array_equal(custom_levels(e), moved)
    assert_shows_its_scene(e)


def test_custom_of_a_tiny_tensor_shows_its_value():
    e = GridExplorer(X * 1e-8)
    e.grid_a.value = "custom"
    e.level.value = 15
    assert e.value.value == pytest.approx(custom_levels(e)[14], rel=1e-3)


MOVES = st.one_of(
    st.tuples(st.just("bits"), st.integers(2, 8)),
    st.tuples(st.just("grid_a"), st.sampled_from(["POT", "POT paper", "uniform", "custom"])),
    st.tuples(st.just("grid_b"), st.sampled_from(["POST", "POST paper", "Lloyd", "custom"])),
    st.tuples(st.just("rule"), st.sampled_from([*RULES, MANUAL])),
    st.tuples(st.just("clip"), st.sampled_from([0.5, 1.0, 2.0])),
    st.tuples(st.just("level"), st.integers(1, 15)),
    st.tuples(st.just("value"), st.floats(-3, 3)),
    st.tuples(st.sampled_from(["per_channel", "mirror"]), st.booleans()),
    st.tuples(st.just("reset"), st.none()),
    st.tuples(st.just("drag"), st.tuples(st.integers(0, 3), st.floats(-3, 3))),
)


@given(st.lists(MOVES, min_size=1, max_size=6))
@settings(max_examples=8)
def test_after_any_moves_the_page_shows_the_scene(moves):
    e = GridExplorer(X[:6, :20])
    for control, value in moves:
        if control == "reset":
            e.reset.click()
        elif control == "drag" and dots(e):
            drag(e, *value)
        elif control != "drag":
            getattr(e, control).value = value
        assert_shows_its_scene(e)
    assert same(GridExplorer.from_state(e.state, x=X[:6, :20]).data(), e.data())


# --- own tensors and grids --------------------------------------------------------------------------------


def test_own_tensor_is_shown_first_and_the_shipped_ones_are_there(e):
    assert e.tensor.value == e.tensor.options[0] == YOURS
    real = {f"{name} (real)" for name in qviz.shipped.names()}
    assert real < set(e.tensor.options)
    assert {"Laplace", "bimodal", "with outliers"} < set(e.tensor.options)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_own_tensors_of_any_float_type_and_arrays(dtype):
    x = X.to(dtype)
    table = GridExplorer(x).data()["table"]
    assert_row(table["A: POT"], compare(x.double(), {"q": pot(4)})["q"])
    if dtype == torch.float64:
        assert GridExplorer(x.numpy()).data()["table"] == table


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(40),
        torch.full((3, 5), -7.0),
        torch.tensor(0.3),
        torch.tensor([0.3]),
        X.flatten() * 1e-30,
        X.flatten() * 1e30,
        torch.cat([X.flatten(), torch.tensor([1e6])]),
        X.abs(),
    ],
    ids=["zeros", "constant", "no dimension", "one value", "tiny", "huge", "outlier", "positive"],
)
def test_odd_tensors_work_without_warnings(x):
    e = GridExplorer(x)
    for control, value in {"bits": 3, "per_channel": True, "grid_a": "Lloyd", "rule": "min–max"}.items():
        getattr(e, control).value = value
    e.grid_b.value = "custom"
    e.clip.value = e.clip.max
    e.rule.value = MANUAL
    assert_shows_its_scene(e)
    assert set(e.data()["table"]) == {"A: Lloyd", "B: custom"}


def test_own_grids_join_the_list():
    mine = Codebook([-1.0, -0.2, 0.2, 1.0], name="anything")
    e = GridExplorer(X, {"mine": mine, "thirds": lambda x, bits: uniform(bits, narrow=True)})
    assert {"mine", "thirds"} < set(e.grid_a.options)
    e.grid_a.value, e.grid_b.value = "mine", "thirds"
    for bits in (4, 5):  # a codebook is the same at every bit width, a function is asked again
        e.bits.value = bits
        table = e.data()["table"]
        assert_row(table["A: mine"], compare(X, {"q": mine})["q"])
        assert_row(table["B: thirds"], compare(X, {"q": uniform(bits, narrow=True)})["q"])
    e.grid_a.value = "custom"
    assert len(custom_levels(e)) == 4


def test_own_function_gets_tensor_and_bits():
    seen = []

    def mine(x, bits):
        seen.append((x, bits))
        return uniform(bits)

    e = GridExplorer(X, {"mine": mine}, bits=5)
    e.grid_a.value = "mine"
    assert [bits for _, bits in seen] == [5]
    assert torch.equal(seen[0][0], X)


@pytest.mark.parametrize(
    ("grids", "kind", "said"),
    [
        ({"POT": pot(4)}, ValueError, "'POT'"),
        ({"custom": pot(4)}, ValueError, "'custom'"),
        ({"POST paper": pot(4)}, ValueError, "'POST paper'"),
        ({"mine": [1.0, 2.0]}, TypeError, "'mine'.*list"),
    ],
)
def test_unfit_own_grids_are_refused(grids, kind, said):
    with pytest.raises(kind, match=said):
        GridExplorer(X, grids)


def test_an_own_function_that_returns_no_codebook_is_named():
    e = GridExplorer(X, {"mine": lambda x, bits: [-1.0, 1.0]})
    with pytest.raises(TypeError, match=r"mine.*list"):
        e.grid_a.value = "mine"


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        ({"bits": 9}, ValueError, "9"),
        ({"bits": 1}, ValueError, "1"),
        ({"bits": 4.0}, TypeError, "4.0"),
        ({"tensor": "nothing"}, ValueError, "'nothing'"),
    ],
)
def test_unfit_arguments_are_refused(arguments, kind, said):
    with pytest.raises(kind, match=said):
        GridExplorer(**arguments)


# --- state ------------------------------------------------------------------------------------------------


def test_state_survives_json(e):
    e.bits.value, e.grid_a.value, e.per_channel.value = 3, "POST", True
    e.grid_a.value = "custom"
    drag(e, 1, -1.0)
    e.clip.value = 1.5
    text = json.dumps(e.state)
    twin = GridExplorer.from_state(text, x=X)
    assert twin.state == e.state == GridExplorer.from_state(json.loads(text), x=X).state
    assert same(twin.data(), e.data())
    assert_shows_its_scene(twin)
    twin.reset.click()
    e.reset.click()
    assert same(twin.data(), e.data())


def test_a_partial_state_leaves_the_rest():
    e = GridExplorer.from_state({"bits": 6})
    assert e.bits.value == 6
    assert e.grid_a.value == "POT"


def test_a_state_is_not_changed_by_restoring_it(e):
    e.grid_a.value = "custom"
    drag(e, 1, -1.0)
    state = e.state
    text = json.dumps(state)
    GridExplorer.from_state(state, x=X)
    assert json.dumps(state) == text


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"colour": "red"}, "colour"),
        ({"bits": 99}, "'bits'.*99"),
        ({"bits": "many"}, "'bits'.*'many'"),
        ({"bits": None}, "'bits'.*None"),
        ({"grid_a": "nothing"}, "'grid_a'.*'nothing'"),
        ({"tensor": "nothing"}, "'tensor'.*'nothing'"),
        ({"rule": 3}, "'rule'.*3"),
        ({"clip": -1.0}, "'clip'.*-1.0"),
        ({"per_channel": "no"}, "'per_channel'.*'no'"),
        ({"start": "nothing"}, "nothing"),
        ({"custom": [{"tensor": "nothing", "bits": 4, "levels": [0.0, 1.0]}]}, "nothing"),
        ({"custom": [{"tensor": "Laplace", "bits": 99, "levels": [0.0, 1.0]}]}, "99"),
        ({"custom": [{"tensor": "Laplace", "bits": 4, "levels": [1.0, 0.0]}]}, "unsorted"),
        ({"custom": [{"tensor": "Laplace", "bits": 4, "levels": [0.0, float("nan")]}]}, "finite"),
        ({"custom": [{"tensor": "Laplace"}]}, "custom"),
        ({"bits": 8, "grid_a": "POT paper"}, "does not take 'POT paper' here"),
        ("{not json", "JSON|Expecting"),
    ],
)
def test_bad_states_are_refused_with_the_value(state, said):
    with pytest.raises(ValueError, match=said):
        GridExplorer.from_state(state)


@pytest.mark.parametrize("bad", [99, -5, "many"])
def test_a_refused_value_leaves_its_control_alone(e, bad):
    with pytest.raises(ValueError, match=str(bad)):
        e.restore({"bits": bad})
    assert e.bits.value == 4
    assert_shows_its_scene(e)


# --- what every explorer does -----------------------------------------------------------------------------


def test_scene_is_pure(e):
    e.grid_a.value = "custom"
    drag(e, 14, 9.0)
    before, first = e.state, e.data()
    assert same(first, e.data())
    assert e.state == before
    first["Levels over the values"][4]["x"][:] = 0.0  # what is handed out is nobody's storage
    assert np.all(np.diff(custom_levels(e)) > 0)


def test_describe_has_the_numbers(e):
    text = e.describe()
    assert "your tensor, 4 bits, MSE search" in text
    assert "3,000 values" in text
    for name, row in e.data()["table"].items():
        assert f"{name} has {row['levels']} levels" in text
        assert f"MSE {row['mse']:#.4g}" in text
        assert f"{name}: error has RMS {row['mse'] ** 0.5:.3g}" in text


def test_title_says_per_channel_only_where_there_are_channels(e):
    e.per_channel.value = True
    assert "per channel" in e.scene().title
    flat = GridExplorer(X.flatten())
    flat.per_channel.value = True
    assert "per channel" not in flat.scene().title


def test_figure_is_saved_as_a_pdf_of_a_slides_size(e, tmp_path):
    fig = e.figure()
    assert tuple(fig.get_size_inches()) == (13.33, 7.5)
    fig.savefig(tmp_path / "slide.pdf")
    pdf = (tmp_path / "slide.pdf").read_bytes()
    (box,) = re.findall(rb"/MediaBox \[ ([^\]]+) \]", pdf)
    assert [float(v) for v in box.split()] == pytest.approx([0, 0, 13.33 * 72, 7.5 * 72])
    assert [ax.get_title() for ax in fig.axes if ax.axison] == [p.title for p in e.scene().panels]


def test_mime_bundle_has_live_view_picture_and_text(e):
    data, metadata = e._repr_mimebundle_()
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == e.model_id
    assert data["image/png"].startswith(b"\x89PNG")
    assert data["text/plain"] == metadata["image/png"]["alt"] == e.describe()


def test_every_control_has_a_name_to_read_out(e):
    own = [w for w in walk(e) if "value" in w.traits() and not isinstance(w, ipywidgets.HTML)]
    assert set(e.controls.values()) <= set(own)
    assert {e.level, e.value} <= set(own)
    names = [w.description for w in [*own, e.reset]]
    assert all(names)
    assert len(set(names)) == len(names)
    assert (e.bits.description, e.clip.description) == ("Bits", "Clip")


def test_the_custom_grids_controls_are_there_only_with_it(e):
    def shown():
        return {w.layout.display != "none" for w in (e.level, e.value, e.mirror, e.reset)}

    assert shown() == {False}
    e.grid_b.value = "custom"
    assert shown() == {True}
    e.grid_b.value = "POT"
    assert shown() == {False}


def test_table_escapes_names():
    name = "<script>alert(1)</script>"
    e = GridExplorer(X, {name: pot(3)})
    e.grid_a.value = name
    assert "<script" not in shown_table(e)
    assert html.escape(f"A: {name}") in shown_table(e)


def test_two_explorers_do_not_share_anything(e):
    other = GridExplorer(X)
    e.grid_a.value = "custom"
    drag(e, 14, 9.0)
    other.grid_a.value = "custom"
    assert custom_levels(other)[14] != custom_levels(e)[14]
