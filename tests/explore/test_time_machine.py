"""The time machine: every picture against the recorded arrays, read and worked on by themselves."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from qviz import shipped
from qviz.explore import TimeModel
from qviz.explore.frames import NONE, SHIPPED
from qviz.explore.time_machine import TimeChoice
from qviz.explore.view import Kept, View
from qviz.nn import LayerRecording
from qviz.plot.scene import Line, Points, Rug, Steps


@pytest.fixture(scope="module")
def model():
    return TimeModel()


@pytest.fixture(scope="module")
def files():
    """The arrays of each shipped file, by the name of its run."""
    paths = [shipped.checkpoint(f"recording_{name}.safetensors") for name in SHIPPED]
    return {LayerRecording.load(path).name: load_file(path) for path in paths}


def small(name="small", steps=(0, 1, 2), weights=3, levels=4) -> LayerRecording:
    generator = np.random.default_rng(2)
    frames, count = len(steps), (len(steps), weights)
    row = np.linspace(0.0, 0.1, frames, dtype=np.float32)
    return LayerRecording(
        steps=np.array(steps),
        master=generator.normal(size=count).astype(np.float32),
        codes=generator.integers(0, levels, count).astype(np.uint8),
        loss=np.full(frames, np.nan, np.float32),
        top1=np.full(frames, np.nan, np.float32),
        changed=row,
        returned=row / 2,
        values={"weight levels": np.tile(np.arange(float(levels)), (frames, 1))},
        about={"name": name, "layer": "0", "shape": [weights], "places": list(range(weights))},
    )


def of(panel, kind, label=None):
    return [m for m in panel.marks if isinstance(m, kind) and label in (None, m.label)]


def test_shipped_recordings_are_small_real_and_start_at_the_same_network(files):
    for name in SHIPPED:
        assert shipped.checkpoint(f"recording_{name}.safetensors").stat().st_size <= 300_000
    masters = {name: arrays["master"][0].astype(float) for name, arrays in files.items()}
    first = masters.pop("STE")
    for name, master in masters.items():
        assert np.corrcoef(master, first)[0, 1] == pytest.approx(1.0, abs=1e-6), name


def test_grids_show_the_recorded_weights_on_their_levels(model, files):
    step, weight = 60, 17
    choice = dataclasses.replace(model.start, step=step, weight=weight)
    for panel, name in zip(model.scene(choice).panels, (choice.run_a, choice.run_b), strict=False):
        arrays = files[name]
        at = arrays["steps"].tolist().index(step)
        w = arrays["master"][at].astype(float)
        y = arrays["values.weight levels"][at].astype(float)[arrays["codes"][at]]
        changed = (np.diff(arrays["codes"][at - 10 : at + 1].astype(int), axis=0) != 0).any(0)
        plain, moved = of(panel, Rug)
        for rug, some in ((plain, ~changed), (moved, changed)):
            np.testing.assert_allclose(rug.x, w[some])
            np.testing.assert_allclose((rug.low + rug.high) / 2, y[some], atol=1e-9)
        (grid,) = of(panel, Steps)
        np.testing.assert_allclose(grid.edges[1:-1], arrays["values.weight borders"][at], rtol=1e-6)
        np.testing.assert_allclose(grid.heights, arrays["values.weight levels"][at], rtol=1e-6)
        (dot,) = of(panel, Points)
        assert (dot.x[0], dot.y[0]) == pytest.approx((w[weight - 1], y[weight - 1]), rel=1e-6)
        assert f"{int(changed.sum())} of them changed" in panel.text


def test_a_weights_path_is_its_place_among_the_levels(model, files):
    choice = dataclasses.replace(model.start, step=100, weight=5)
    panel = model.scene(choice).panels[2]
    for letter, name in (("A", choice.run_a), ("B", choice.run_b)):
        arrays = files[name]
        levels, w = arrays["values.weight levels"].astype(float), arrays["master"][:, 4].astype(float)
        (line,) = of(panel, Line, f"{letter}: master")
        for r in (0, 50, 100):
            k = max(int((levels[r] <= w[r]).sum()) - 1, 0)
            part = (w[r] - levels[r, k]) / (levels[r, k + 1] - levels[r, k])
            assert line.y[r] == pytest.approx(k + part, rel=1e-6)
        (code,) = of(panel, Line, f"{letter}: code")
        np.testing.assert_array_equal(code.y[::2], arrays["codes"][:, 4])
        times = int((np.diff(arrays["codes"][:, 4].astype(int)) != 0).sum())
        assert f"its code changes {times} times" in panel.text


def test_curves_are_the_recorded_numbers(model, files):
    sigma = {name: arrays["master"][0].astype(float).std() for name, arrays in files.items()}
    for curve, key, factor in (
        ("codes changed", "changed", 100.0),
        ("codes that went back", "returned", 100.0),
        ("loss", "loss", 1.0),
        ("accuracy", "top1", 100.0),
        ("weight levels", "values.weight levels", None),
        ("input borders", "values.input borders", 1.0),
    ):
        choice = dataclasses.replace(model.start, curve=curve, step=30)
        panel = model.scene(choice).panels[3]
        for line, name in zip(of(panel, Line), (choice.run_a, choice.run_b), strict=True):
            rows = files[name][key].astype(float) * (factor or 1.0 / sigma[name])
            rows = rows.reshape(len(rows), -1)
            pieces = np.split(np.append(line.y, np.nan), rows.shape[1])
            for piece, row in zip(pieces, rows.T, strict=True):
                np.testing.assert_allclose(piece[1:-1], row[1:], rtol=1e-6)


def test_the_tables_figures_by_another_route(model, files):
    step = 120
    choice = dataclasses.replace(model.start, step=step)
    table = model.scene(choice).table
    for row, name in zip(table.values.values(), (choice.run_a, choice.run_b), strict=True):
        arrays = files[name]
        w = arrays["master"][step].astype(float)
        y = arrays["values.weight levels"][step].astype(float)[arrays["codes"][step]]
        assert row["step"] == step
        assert row["loss"] == pytest.approx(float(arrays["loss"][step]), rel=1e-6)
        assert row["changes"] == pytest.approx(
            float(arrays["changed"][: step + 1].astype(float).sum()), rel=1e-6
        )
        assert row["returns"] == pytest.approx(
            float(arrays["returned"][: step + 1].astype(float).sum()), rel=1e-6
        )
        assert row["error (%)"] == pytest.approx(100 * np.sqrt(((y - w) ** 2).sum() / (w**2).sum()), rel=1e-5)
        assert row["levels in use"] == len(set(arrays["codes"][step].tolist()))
    assert model.headline(choice)["A: error (%)"] == next(iter(table.values.values()))["error (%)"]


def test_runs_are_locked_at_one_step_even_where_one_is_shorter():
    model = TimeModel(small("long", steps=(0, 2, 4, 8)), small("short", steps=(0, 1, 2, 3, 5)))
    assert [one.step for one in model.shown(dataclasses.replace(model.start, step=7))] == [4, 5]


def test_beside_its_own_start_a_run_has_each_curve_and_number_once():
    model = TimeModel(small(steps=(0, 1, 2, 3)))
    alone = dataclasses.replace(model.start, run_b=NONE, step=3)
    assert {name[:2] for name in model.headline(alone)} == {"A:"}
    *_, path, curve = model.scene(alone).panels
    assert [len(of(path, Line, "A: code")), len(of(path, Line, "B: code")), len(of(curve, Line))] == [1, 0, 1]


def test_a_static_codebook_stays_and_a_following_one_moves(files):
    levels = {name: arrays["values.weight levels"] for name, arrays in files.items()}
    assert (levels["ADQ, codebook stays"] == levels["ADQ, codebook stays"][0]).all()
    np.testing.assert_array_equal(levels["ADQ, codebook follows"][0], levels["ADQ, codebook stays"][0])
    assert np.ptp(levels["ADQ, codebook follows"], axis=0).max() > 1e-3


def test_beside_a_kept_step_stand_the_weights_and_the_grid_of_then(model, files):
    start = dataclasses.replace(model.start, run_a="ADQ, codebook follows", run_b=NONE)
    then, now = (dataclasses.replace(start, step=step) for step in (20, 150))
    view = View(before=Kept(model.scene(then), model.headline(then)))
    panel = view.of(model.scene(now), model.headline(now)).panels[0]
    ghosts, arrays = [m for m in panel.marks if m.role == "before"], files["ADQ, codebook follows"]
    (stairs,) = (m for m in ghosts if isinstance(m, Steps))
    np.testing.assert_allclose(stairs.heights, arrays["values.weight levels"][20], rtol=1e-6)
    ticks = np.concatenate([m.x for m in ghosts if isinstance(m, Rug)])
    np.testing.assert_allclose(np.sort(ticks), np.sort(arrays["master"][20]), rtol=1e-6)


def test_dots_travel_in_time_and_choose_weights(model):
    start = dataclasses.replace(model.start, step=40)
    w = model.runs[start.run_b].master[40]
    assert model.dragged(start, 1, 5, 0, float(w[88]), 0.0).weight == 89
    for panel in (2, 3):
        assert model.dragged(start, panel, 0, 0, 77.4, 0.0).step == 77
        assert model.dragged(start, panel, 0, 0, -1e9, 0.0).step == 0
        assert model.dragged(start, panel, 0, 0, 1e9, 0.0).step == model.last


def test_the_button_walks_through_restless_weights(model):
    codes = model.runs[model.start.run_a].codes.astype(int)
    count = (np.diff(codes, axis=0) != 0).sum(0)
    choice, seen = model.start, []
    for _ in range(5):
        seen.append(count[choice.weight - 1])
        choice = model.actions(choice)["next_restless"].do(choice)
    assert seen == sorted(count, reverse=True)[:5]
    three = TimeModel(small())
    choice = three.start
    for _ in range(3):
        choice = three.actions(choice)["next_restless"].do(choice)
    assert choice == three.start


def test_presets_and_states_can_be_restored(model):
    for name, state in model.presets.items():
        choice = model.restored(state)
        assert model.restored(json.loads(json.dumps(model.state(choice)))) == choice, name
        assert choice.step == model.last
    with pytest.raises(ValueError, match="run_a"):
        model.restored({"run_a": "no such run"})


def test_a_user_brings_files_or_recordings(tmp_path):
    path = tmp_path / "mine.safetensors"
    small("mine").save(path)
    model = TimeModel(path, small("other"))
    assert list(model.runs) == ["mine", "other"]
    assert TimeModel(path).start.run_b == NONE
    with pytest.raises(ValueError, match="name of its own"):
        TimeModel(path, path)
    with pytest.raises(ValueError, match=r"README\.md is no LayerRecording"):
        TimeModel(shipped.data_dir() / "README.md")


def finite(scene):
    for panel in scene.panels:
        for axis in (panel.x, panel.y):
            assert -np.inf < axis.low < axis.high < np.inf
        for mark in panel.marks:
            for name, value in vars(mark).items():
                if isinstance(value, np.ndarray):
                    known = np.isnan(value) if isinstance(mark, Line) else False
                    assert (np.isfinite(value) | known).all(), (panel.title, mark.label, name)
    json.dumps(scene.table.values, allow_nan=False)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_every_extreme_has_a_finite_picture(model, data):
    choice = model.start
    controls = model.controls(choice)
    fields = {
        name: data.draw(
            st.sampled_from(control.options if hasattr(control, "options") else (control.low, control.high))
        )
        for name, control in controls.items()
    }
    choice = model.settled(choice, TimeChoice(**fields))
    finite(model.scene(choice))
    assert model.restored(model.state(choice)) == choice


@pytest.mark.parametrize("how", [{"steps": (0,)}, {"weights": 1}, {"levels": 1}, {"steps": (7, 9)}])
def test_tiny_recordings_have_pictures(how):
    model = TimeModel(small(**how))
    for step in (0, model.last):
        finite(model.scene(dataclasses.replace(model.start, step=step)))


def test_a_page_has_few_frames(model):
    page = model.page(dataclasses.replace(model.start, step=model.last))
    assert len(page.frames) == 16
    assert page.first == {"picture": (15,)}
    assert page.frames[(15,)].title == f"Step {model.last} of {model.last}"
