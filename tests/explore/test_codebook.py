"""The model of CodebookExplorer: its levels and figures, against the update written out in numpy."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qviz import shipped
from qviz.explore import CodebookModel
from qviz.explore.drift import DRIFTS, JUMP, MOST, STEPS
from qviz.methods.adq import STARTS
from qviz.plot.scene import Bars, Line, Points, Rug, Span
from tests import oracles
from tests.slow import slow
from tests.strategies import FEW

MODEL = CodebookModel()
STEM = "stem (real)"
SMALL = replace(MODEL.start, tensor=STEM)


def moved(x, kind, speed, step):
    """The weights at a step, from the words of the explorer."""
    v = speed / 100
    return {
        "none": x,
        "grow": x * (1 + v) ** step,
        "shrink": x * (1 - v) ** step,
        "shift": x + v * step * x.std(),
        "halve at once": x / 2 if step >= JUMP else x,
    }[kind]


def nearest(x, levels):
    borders = (levels[1:] + levels[:-1]) / 2
    return np.searchsorted(borders, x)


def mse(x, levels):
    return float(np.mean((x - levels[nearest(x, levels)]) ** 2))


def marks(panel, kind, label=None):
    return [m for m in panel.marks if isinstance(m, kind) and (label is None or m.label == label)]


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


@pytest.mark.parametrize("kind", DRIFTS)
@pytest.mark.parametrize("decay", [*slow(0.0), 0.9])
def test_every_figure_is_that_of_the_update_written_out(kind, decay):
    x = np.sort(shipped.tensor("stem").double().numpy().ravel())
    step, c = 25, replace(SMALL, drift=kind, decay=decay, speed=2.0, step=25, w=0.1)
    start = levels = np.array(oracles.adq_codebook(x, 3))
    errors = [mse(x, levels)]
    for k in range(1, step + 1):
        now = moved(x, kind, 2.0, k)
        levels = np.array(oracles.adq_update(now, levels, decay))
        errors.append(mse(now, levels))
    scene = MODEL.scene(c)
    weights, path, distance, use = scene.panels
    best = oracles.kmeans_1d(x, np.ones(len(x)), 7)
    least = best[0] / len(x)
    scales = np.array([np.ptp(moved(x, kind, 2.0, k)) / np.ptp(x) for k in range(STEPS + 1)])

    rugs = [rug.x for rug in marks(weights, Rug)]
    assert rugs[0] == pytest.approx(levels, abs=1e-9)
    assert rugs[1] == pytest.approx(start, abs=1e-9)
    shift = now.mean() - x.mean() * scales[step]
    assert rugs[2] == pytest.approx(best[1] * scales[step] + shift, abs=1e-6)
    bars = marks(weights, Bars)[0]
    assert bars.heights == pytest.approx(np.histogram(now, bars.edges)[0] / len(x) * 100, abs=0.15)

    lines = marks(path, Line, "levels")[0]
    ends = np.append(lines.y, np.nan).reshape(7, step + 2)
    assert ends[:, 0] == pytest.approx(start, abs=1e-9)
    assert ends[:, step] == pytest.approx(levels, abs=1e-9)

    went = marks(distance, Line, "moving levels")[0]
    assert went.y == pytest.approx(np.array(errors) / (least * scales[: step + 1] ** 2), rel=1e-6)
    still = [mse(moved(x, kind, 2.0, k), start) for k in range(STEPS + 1)]
    frozen = marks(distance, Line, "the start, frozen")[0]
    assert frozen.y == pytest.approx(np.array(still) / (least * scales**2), rel=1e-6)

    counts = np.bincount(nearest(now, levels), minlength=7)
    assert marks(use, Bars)[0].heights == pytest.approx(counts / len(x) * 100, rel=1e-9)
    row = scene.table.values["moving"]
    assert row["mse"] == pytest.approx(errors[-1], rel=1e-6)
    assert row["sqnr_db"] == pytest.approx(10 * np.log10(np.mean(now**2) / errors[-1]), abs=1e-6)
    assert row["entropy"] == pytest.approx(oracles.entropy_bits(counts), rel=1e-9)
    assert row["perplexity"] == pytest.approx(2 ** oracles.entropy_bits(counts), rel=1e-9)
    assert row["dead"] == (counts == 0).sum()
    assert scene.table.values["frozen"]["mse"] == pytest.approx(still[step], rel=1e-6)
    assert scene.table.values["Lloyd"]["mse"] == pytest.approx(least * scales[step] ** 2, rel=1e-6)


def test_the_arithmetic_of_one_weight_is_that_of_the_next_update():
    c = replace(SMALL, step=3, w=0.3)
    text, levels = MODEL.scene(c).about, MODEL.run(c).levels(3)
    x = shipped.tensor("stem").double().numpy().ravel()
    k = int(nearest(np.array([0.3]), levels)[0])
    after = MODEL.run(c).levels(4)[k]
    assert f"= {after:.4g}." in text
    assert f"of level {k - 3:+d}, so Q(w) = {levels[k]:.4g}" in text
    cell = x[nearest(x, levels) == k]
    assert f"{len(cell):,} weights there have mean {cell.mean():.4g}" in text
    span = marks(MODEL.scene(c).panels[0], Span)[0]
    assert span.low < 0.3 < span.high


def test_before_the_first_update_it_is_told_that_decay_has_changed_nothing():
    for step, told in ((0, True), (1, False)):
        about = MODEL.scene(replace(SMALL, step=step)).about
        assert ("No update was made yet, so Decay has changed nothing so far." in about) == told


def test_large_tensors_are_told_by_their_quantiles():
    x = np.sort(shipped.tensor("expand").double().numpy().ravel())
    data = MODEL.moving(MODEL.start).data
    assert data.numel == MOST
    share = (np.arange(MOST) + 0.5) / MOST
    assert data.x.numpy()[1:-1] == pytest.approx(np.quantile(x, share)[1:-1], abs=2e-3)
    assert f"{MOST:,} quantiles" in MODEL.scene(MODEL.start).about
    full = np.array(oracles.adq_codebook(x, 3))
    assert MODEL.run(MODEL.start).levels(0) == pytest.approx(full, abs=2e-4)


def test_lloyds_steps_never_raise_the_error_and_never_beat_the_optimum():
    for start in STARTS:
        c = replace(SMALL, start=start, decay=0.0, step=STEPS)
        ratio = marks(MODEL.scene(c).panels[2], Line, "moving levels")[0].y
        assert (np.diff(ratio) <= 1e-9).all()
        assert ratio[-1] >= 1.0 - 1e-9
    at_rest = MODEL.scene(replace(SMALL, start="k-means", step=5))
    assert np.ptp(marks(at_rest.panels[2], Line, "moving levels")[0].y) < 1e-9


def test_dead_levels_stay_and_are_shown():
    c = MODEL.restored(MODEL.presets["weights halve, outer levels die"])
    scene, before = MODEL.scene(c), MODEL.run(c).levels(JUMP)
    dead = marks(scene.panels[0], Points, "dead")[0].x
    assert len(dead) == MODEL.headline(c)["dead levels"] > 0
    assert np.isin(dead, before).all()
    assert marks(scene.panels[3], Points, "dead")[0].y.tolist() == [0.0] * len(dead)
    assert "the level is dead" in MODEL.scene(replace(c, w=float(dead[0]))).about


def test_a_free_zero_moves_and_a_pinned_one_does_not():
    own = CodebookModel(torch.randn(500, generator=torch.Generator().manual_seed(0)) + 0.3)
    c = replace(own.start, step=10)
    assert own.run(c).levels(10)[3] == 0.0
    assert own.run(replace(c, pinned=False)).levels(10)[3] != 0.0
    free, pinned = (own.headline(replace(c, pinned=p, step=STEPS))["MSE"] for p in (False, True))
    assert free < pinned


def test_the_weight_can_be_dragged_and_stays_on_the_axis():
    panel = MODEL.scene(SMALL).panels[0]
    (at,) = (i for i, mark in enumerate(panel.marks) if getattr(mark, "moves", ""))
    assert panel.marks[at].moves == "x"
    assert MODEL.dragged(SMALL, 0, at, 0, 0.25, 0.0).w == 0.25
    for far in (-1e9, 1e9):
        c = MODEL.dragged(SMALL, 0, at, 0, far, 0.0)
        assert MODEL.controls(c)["w"].accepts(c.w)


def test_presets_and_states_make_the_same_choice():
    for state in MODEL.presets.values():
        c = MODEL.restored(state)
        assert MODEL.restored(json.loads(json.dumps(MODEL.state(c)))) == c
        finite(MODEL.scene(c))


EXTREMES = st.fixed_dictionaries(
    {
        "bits": st.sampled_from([2, 5]),
        "start": st.sampled_from(STARTS),
        "decay": st.sampled_from([0.0, 0.5, 0.99]),
        "drift": st.sampled_from(tuple(DRIFTS)),
        "speed": st.sampled_from([0.5, 3.0]),
        "step": st.sampled_from([0, 1, STEPS]),
        "pinned": st.booleans(),
        "draw": st.sampled_from([0, 99]),
        "end": st.sampled_from([0, 1]),
    }
)
OWN = {
    "constant": torch.full((5,), -0.3),
    "zeros": torch.zeros(4),
    "one value": torch.tensor([2.0]),
    "tiny": torch.tensor([1e-30, -2e-30, 3e-30]),
    "spread": torch.tensor([-1e4, 1e-4, 0.0, 5.0, 5.0]),
    "normal": torch.randn(200, generator=torch.Generator().manual_seed(1)),
}
MODELS = {name: CodebookModel(x) for name, x in OWN.items()}


@pytest.mark.slow
@given(st.sampled_from(tuple(OWN)), EXTREMES)
@FEW
def test_every_extreme_makes_a_finite_picture(name, values):
    model, end = MODELS[name], values.pop("end")
    c = model.settled(model.start, replace(model.start, **values))
    c = replace(c, w=model.moving(c).reach[end])
    finite(model.scene(c))
    assert all(np.isfinite(value) for value in model.headline(c).values())


def test_a_start_that_the_values_do_not_have_is_told():
    model = MODELS["constant"]
    assert "so the levels start evenly spaced" in model.scene(model.start).about


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="9"):
        CodebookModel(bits=9)
    with pytest.raises(ValueError, match="nothing"):
        CodebookModel(tensor="nothing")
