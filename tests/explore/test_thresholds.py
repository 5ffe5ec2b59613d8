"""The model of ThresholdExplorer: forward, expectation and gradients, against N2UQ written out in numpy."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qviz.explore import ThresholdModel
from qviz.explore.threshold_choice import LEAST_WIDTH
from qviz.explore.threshold_moves import LARGEST_MOVE
from qviz.explore.threshold_work import LOSSES, WINDOW
from qviz.plot.scene import Bars, Line, Points, Rug, Span, Steps
from tests import oracles
from tests.strategies import FEW

X = 3 * torch.rand(300, generator=torch.Generator().manual_seed(2), dtype=torch.float64) ** 2
MODEL = ThresholdModel(X)
WIDTHS = {1: (0.9,), 2: (0.2, 0.5, 1.1), 3: (0.4, 0.1, 0.3, 0.2, 0.6, 0.1, 0.5)}


def chosen(bits, **values):
    """A choice with other widths than equal ones."""
    wanted = replace(MODEL.start, bits=bits, widths=WIDTHS[bits], begin=-0.1, scale=1.5, **values)
    return MODEL.settled(MODEL.start, wanted)


def marks(panel, kind, label=None):
    return [m for m in panel.marks if isinstance(m, kind) and (label is None or m.label == label)]


def dragged_marks(panel):
    """The indices of the marks whose dots move: the thresholds and the one number."""
    return {m.role: i for i, m in enumerate(panel.marks) if getattr(m, "moves", "")}


def rounded(v, start, sizes, unit):
    """D times the number of thresholds below v."""
    edges = start + np.concatenate([[0.0], np.cumsum(sizes)])
    return unit * np.sum(v[:, None] > (edges[1:] + edges[:-1]) / 2, axis=1)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("bits", [1, 2, 3])
def test_every_figure_is_that_of_n2uq_written_out(bits, loss):
    c = chosen(bits, loss=loss, x=0.7, draws=200)
    scene, n = MODEL.scene(c), 2**bits - 1
    values, stairs, slopes, widths, use = scene.panels
    x, v, unit = np.sort(X.numpy()), np.sort(X.numpy()) * 1.5, 2 / n
    sizes = np.array(WIDTHS[bits])
    edges = np.array(oracles.n2uq_edges(-0.1, sizes))
    places = (edges[1:] + edges[:-1]) / 2 / 1.5

    seen = marks(values, Rug, "thresholds")[0].x
    assert seen == pytest.approx(places[(places >= values.x.low) & (places <= values.x.high)], abs=1e-9)
    bars = marks(values, Bars)[0]
    assert bars.heights == pytest.approx(np.histogram(x, bars.edges)[0] / len(x) * 100, abs=0.4)
    inside = edges[0] < 0.7 * 1.5 <= edges[-1]
    spans = marks(values, Span)
    assert len(spans) == inside
    if inside:
        assert spans[0].low < 0.7 < spans[0].high

    expected = marks(stairs, Line, "expectation of random rounding")[0]
    wanted = [oracles.n2uq_expectation(1.5 * at, list(edges), unit) for at in expected.x]
    assert expected.y == pytest.approx(wanted, abs=1e-9)
    treads = marks(stairs, Line, "y, rounded")[0]
    middle = (treads.x[::3] + treads.x[1::3]) / 2
    assert treads.y[::3] == pytest.approx(rounded(1.5 * middle, -0.1, sizes, unit), abs=1e-9)
    draws = marks(stairs, Points, "mean of 200 draws")[0]
    average = [oracles.n2uq_expectation(1.5 * at, list(edges), unit) for at in draws.x]
    assert draws.y == pytest.approx(average, abs=5 * unit * (0.25 / 200) ** 0.5)
    assert len(np.unique(draws.y)) > n + 1

    steps = marks(slopes, Steps)[0]
    at = (steps.edges[1:] + steps.edges[:-1]) / 2
    parts = [oracles.n2uq_partials(1.5 * place, list(edges), unit)[0] * 1.5 for place in at]
    assert steps.heights == pytest.approx(parts, abs=1e-9)
    equal = marks(slopes, Line)[0]
    assert equal.y.tolist() == [1.5, 1.5]
    ends = np.clip(edges[[0, -1]] / 1.5, slopes.x.low, slopes.x.high)
    assert equal.x == pytest.approx(ends)

    y = rounded(v, -0.1, sizes, unit)
    upstream = np.ones(len(v)) if loss == "mean of y" else 2 * (y - v)
    per_value = np.array([oracles.n2uq_partials(a, list(edges), unit)[2] for a in v])
    gradient = upstream @ per_value / len(v)
    assert marks(widths, Bars)[0].heights == pytest.approx(gradient, abs=1e-9)

    def score(some):
        out = rounded(v, -0.1, some, unit)
        return out.mean() if loss == "mean of y" else np.mean((out - v) ** 2)

    quotient = []
    for j in range(n):
        high, low = sizes.copy(), sizes.copy()
        high[j] += WINDOW * unit
        low[j] = max(sizes[j] - WINDOW * unit, sizes[j] / 2)
        quotient.append((score(high) - score(low)) / (high[j] - low[j]))
    dots = marks(widths, Points, "difference of the rounded outputs")[0]
    assert dots.y == pytest.approx(quotient, abs=1e-9)

    counts = np.bincount(np.rint(y / unit).astype(int), minlength=n + 1)
    assert marks(use, Bars)[0].heights == pytest.approx(counts / len(x) * 100, abs=1e-9)
    told = MODEL.headline(c)
    assert told[loss] == pytest.approx(score(sizes), rel=1e-9)
    assert told["entropy (bits)"] == pytest.approx(oracles.entropy_bits(counts), rel=1e-9)
    rows = list(scene.table.values.values())
    assert [row["threshold"] for row in rows] == pytest.approx(places[: len(rows)], abs=1e-9)
    assert [row["gradient"] for row in rows] == pytest.approx(gradient[: len(rows)], abs=1e-9)


def test_the_arithmetic_of_one_number():
    about = MODEL.scene(chosen(2, x=0.2)).about  # v = 0.3, in the second segment, from 0.1 to 0.6
    for part in ("v = 0.3, in segment 2", "t = 0.4", "code 1, y = 0.6667", "0.9333 on average"):
        assert part in about
    assert "0.667 × 1.5 / 0.5 = 2, is its gradient" in about
    assert "above all segments: code 3, y = 2, no gradient" in MODEL.scene(chosen(2, x=2.9)).about


@pytest.mark.parametrize("push", [True, False])
def test_a_dragged_threshold_goes_where_it_is_dropped(push):
    c = chosen(2, push=push)
    before, at = c.thresholds, dragged_marks(MODEL.scene(c).panels[0])["a"]
    new = MODEL.dragged(c, 0, at, 1, before[1] + 0.05, 0.0)
    after = new.thresholds
    assert after[1] == pytest.approx(before[1] + 0.05)
    assert (new.threshold, new.value) == (2, pytest.approx(before[1] + 0.05, rel=1e-5))
    assert after[0] == before[0]
    assert after[2] - before[2] == pytest.approx(0.1 if push else 0.05)
    assert new.edges[-1] - c.edges[-1] == pytest.approx(0.15 if push else 0.0)


def test_the_ends_of_the_segments_are_dragged_to_a_start_and_a_scale():
    c = chosen(2)
    at = dragged_marks(MODEL.scene(c).panels[0])["b"]
    handles = MODEL.scene(c).panels[0].marks[at]
    ends = np.array(oracles.n2uq_edges(-0.1, WIDTHS[2]))[[0, -1]]
    low, high = MODEL.ends(c)
    assert handles.x == pytest.approx([end / 1.5 for end in ends if low <= end / 1.5 <= high], abs=1e-9)
    index = len(handles.x) - 1
    for place in (1.0, 1.5):
        new = MODEL.dragged(c, 0, at, index, place, 0.0)
        assert new == replace(c, scale=new.scale, value=new.value)
        assert new.edges[-1] / new.scale == pytest.approx(place, abs=0.02)
    near = MODEL.dragged(replace(c, begin=0.0), 0, at, 0, 0.4, 0.0)
    assert near == replace(c, begin=0.6, value=near.value)
    assert near.edges[0] / near.scale == pytest.approx(0.4)
    assert MODEL.dragged(c, 0, at, index, -1.0, 0.0) == c


@pytest.mark.parametrize("push", [True, False])
@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("far", [-1e9, 1e9])
def test_a_threshold_stops_at_its_neighbors_and_at_the_ends(far, number, push):
    c = MODEL.moved(chosen(2, push=push), number, far)
    places = c.thresholds
    assert min(c.widths) >= LEAST_WIDTH
    assert (np.diff(places) > 0).all()
    assert places[number - 1] <= MODEL.ends(c)[1] + 1e-9


def test_the_one_number_is_dragged_in_three_panels():
    c = chosen(2)
    for k in (0, 1, 2):
        at = dragged_marks(MODEL.scene(c).panels[k])["d"]
        assert MODEL.dragged(c, k, at, 0, 0.31, 0.0).x == 0.31
        assert MODEL.dragged(c, k, at, 0, 1e9, 0.0).x == MODEL.ends(c)[1]


def test_buttons():
    c = chosen(2)
    buttons = MODEL.actions(c)
    assert buttons["equal"].do(c).widths == ()
    shared = buttons["shares"].do(c)
    v = X.numpy() * 1.5
    assert np.histogram(v[v > c.begin], shared.edges)[0] == pytest.approx([100, 100, 100], abs=1)
    for loss in LOSSES:
        now = replace(c, loss=loss)
        moved = np.subtract(buttons["follow"].do(now).widths, now.widths)
        gradient = MODEL.bench(now).work.gradient
        assert moved == pytest.approx(-LARGEST_MOVE * gradient / np.abs(gradient).max(), abs=1e-9)


def test_another_bit_width_begins_with_equal_widths():
    c = MODEL.settled(chosen(2), replace(chosen(2), bits=3))
    assert c.widths == ()
    assert MODEL.settled(chosen(3, threshold=7), replace(chosen(3, threshold=7), bits=1)).threshold == 1


def test_presets_and_states_make_the_same_choice():
    for state in (*MODEL.presets.values(), MODEL.state(chosen(3, threshold=5, x=0.3))):
        c = MODEL.restored(state)
        assert MODEL.restored(json.loads(json.dumps(MODEL.state(c)))) == c
    for bad in ([0.1], [0.1, -1.0, 1.0], [0.1, 0.2, "a"]):
        with pytest.raises(ValueError, match="widths must be 3 numbers"):
            MODEL.restored({"bits": 2, "widths": bad})


OWN = {
    "constant": torch.full((5,), 0.3),
    "negative": torch.full((3,), -2.0),
    "zeros": torch.zeros(4),
    "one value": torch.tensor([2.0]),
    "tiny": torch.tensor([1e-20, 2e-20]),
    "huge": torch.tensor([0.0, 1e20]),
    "values": X,
}
MODELS = {name: ThresholdModel(x) for name, x in OWN.items()}
END = st.sampled_from([0, 1])


@given(
    st.sampled_from(tuple(OWN)),
    st.sampled_from([1, 4]),
    st.sampled_from(LOSSES),
    st.booleans(),
    st.dictionaries(st.sampled_from(["begin", "scale", "draws", "threshold", "x", "value"]), END),
    st.sampled_from(["equal", "shares", "follow", ""]),
)
@FEW
def test_every_extreme_makes_a_finite_picture(name, bits, loss, push, ends, button):
    model = MODELS[name]
    c = model.settled(model.start, replace(model.start, bits=bits, loss=loss, push=push))
    for control, end in ends.items():
        limits = model.controls(c)[control]
        c = model.settled(c, replace(c, **{control: (limits.low, limits.high)[end]}))
    if button:
        c = model.actions(c)[button].do(c)
    finite(model.scene(c))
    for control, spec in model.controls(c).items():
        assert spec.accepts(getattr(c, control)), control
    assert all(np.isfinite(value) for value in model.headline(c).values())


def finite(scene):
    """Every number of a scene is a number, but for the breaks of lines."""
    for panel in scene.panels:
        for axis in (panel.x, panel.y):
            assert np.isfinite([axis.low, axis.high]).all()
            assert axis.low < axis.high
        for mark in panel.marks:
            for name, value in vars(mark).items():
                if name in ("x", "y") and isinstance(mark, Line):
                    assert not np.isinf(value).any()
                elif isinstance(value, np.ndarray | float):
                    assert np.isfinite(value).all(), (panel.title, mark)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="5"):
        ThresholdModel(bits=5)
