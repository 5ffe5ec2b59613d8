"""The model of GradientExplorer: every panel and the table, against the formulas in numpy."""

import math
import re
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qviz.explore import GradientModel
from qviz.explore.backward import KINDS
from qviz.explore.gradient import GradientChoice
from qviz.explore.gradient_panels import BESIDE, RATE, STEPS
from qviz.plot.scene import Band, Line, Points
from tests.strategies import FEW

MODEL = GradientModel()
STE, OPEN, DAQ, SOFT, SIGMOID, TANH, N2UQ, NONE = (
    "STE, clipped",
    "STE, unclipped",
    "DAQ, controller",
    "soft argmax, fixed β",
    "sigmoid, fixed T",
    "tanh (DSQ)",
    "N2UQ, learned widths",
    "true derivative",
)


def knots(c: GradientChoice) -> np.ndarray:
    top = 2**c.bits - 1
    widths = c.ratio ** np.arange(top) if c.kind == N2UQ else np.ones(top)
    return np.concatenate([[0.0], np.cumsum(widths * top / widths.sum())])


def relaxed(c: GradientChoice, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The soft decision and its slope in a cell, from the papers' formulas."""
    up = np.where(t > 0.5, 1.0, 0.0)
    if c.kind == NONE:
        return up, 0 * t
    if c.kind == SIGMOID:
        m = 1 / (1 + np.exp(-c.temperature * (t - 0.5)))
        return m, c.temperature * m * (1 - m)
    if c.kind == TANH:
        z = np.tanh(c.k * (t - 0.5))
        return (z / np.tanh(c.k / 2) + 1) / 2, c.k * (1 - z**2) / (2 * np.tanh(c.k / 2))
    if c.kind == DAQ:
        return up, c.gamma / (2 * np.sinh(c.gamma)) / np.tanh(np.abs(t - 0.5) + 1 / (2 * c.sigma**2))
    if c.kind == SOFT:
        kernel = math.exp(-1 / c.sigma**2)
        low, high = np.exp(-t) * kernel**up, np.exp(t - 1) * kernel ** (1 - up)
        m = 1 / (1 + np.exp(-c.beta * (high - low)))
        return m, c.beta * m * (1 - m) * (low + high)
    return t, np.ones_like(t)


def passes(c: GradientChoice, x: np.ndarray) -> dict[str, np.ndarray]:
    """What a test and training compute at x, and the gradient."""
    at, u = knots(c), np.asarray(x) / c.step
    v = np.clip(u, 0.0, at[-1])
    cell = np.clip(np.searchsorted(at, v, side="left") - 1, 0, len(at) - 2)
    width = np.diff(at)[cell]
    t = (v - at[cell]) / width
    m, slope = relaxed(c, t)
    hard = c.step * (cell + (t > 0.5))
    outside = (u < 0) | (u > at[-1]) | ((c.kind == N2UQ) & (u == 0.0))
    slope = np.where(outside, float(c.kind == OPEN), slope / width)
    return {"test": hard, "train": c.step * (cell + m) if c.soft else hard, "dy": slope, "t": t, "cell": cell}


def forward_slope(c: GradientChoice, x: np.ndarray) -> np.ndarray:
    if c.window:
        half = c.window * c.step / 2
        return (passes(c, x + half)["train"] - passes(c, x - half)["train"]) / (2 * half)
    u = x / c.step
    own = c.soft and c.kind not in (NONE, DAQ)
    return np.where((u > 0) & (u < 2**c.bits - 1), passes(c, x)["dy"] * own, 0.0)


def made(kind: str, **given: object) -> GradientChoice:
    return MODEL.followed(replace(GradientChoice(kind, soft=KINDS[kind].soft), **given))


CHOICES = [
    *(made(kind, soft=soft) for kind in KINDS for soft in (False, True)),
    *(made(kind, window=0.4, bits=3, step=0.8, x=2.15, target=4.2) for kind in KINDS),
    made(SOFT, beta=20.0, sigma=2.0, bits=1, step=1.2, window=1.0),
    made(SIGMOID, temperature=3.0, x=2.48, target=0.9),
    made(DAQ, gamma=0.5, sigma=3.0, x=1.52),
    made(N2UQ, ratio=0.6, x=-0.4),
    made(OPEN, x=3.6, target=2.4),
]


def named(panel, kind, label="") -> object:
    return next(mark for mark in panel.marks if isinstance(mark, kind) and label in mark.label)


@pytest.mark.parametrize("c", CHOICES, ids=lambda c: f"{c.kind}, soft {c.soft}, window {c.window}")
def test_curves_and_areas_are_the_formulas(c):
    forward, backward, _ = MODEL.scene(c).panels
    line = named(backward, Line, "gradient")
    seen = np.isfinite(line.x)
    x = line.x[seen]
    want = passes(c, x)
    assert line.y[seen] == pytest.approx(want["dy"], abs=1e-6)
    own = named(backward, Line, "slope of the forward")
    assert own.y[seen] == pytest.approx(forward_slope(c, x), abs=2e-6)
    band = named(backward, Band)
    assert np.array_equal(band.x, x)
    assert band.high - band.low == pytest.approx(np.abs(want["dy"] - forward_slope(c, x)), abs=2e-6)
    band = named(forward, Band)
    assert band.high - band.low == pytest.approx(np.abs(want["train"] - want["test"]), abs=1e-6)
    stairs = named(forward, Line, "in a test")
    ends = (
        stairs.x.reshape(-1, 3)[:, :2]
        if not len(stairs.x) % 3
        else np.append(stairs.x, 0).reshape(-1, 3)[:, :2]
    )
    assert stairs.y[::3] == pytest.approx(passes(c, ends.mean(1))["test"], abs=1e-6)
    soft = [m for m in forward.marks if isinstance(m, Line) and "in training" in m.label]
    assert bool(soft) == (np.abs(want["train"] - want["test"]).max() > 1e-6)
    if soft:
        assert soft[0].y[seen] == pytest.approx(want["train"], abs=1e-6)


@pytest.mark.parametrize("c", CHOICES, ids=lambda c: f"{c.kind}, soft {c.soft}, window {c.window}")
def test_gap_and_mismatch_are_means_over_the_grid(c):
    x = c.step * (2**c.bits - 1) * (np.arange(1200) + 0.5) / 1200
    want, now = passes(c, x), MODEL.headline(c)
    miss = np.abs(want["dy"] - forward_slope(c, x))
    assert now["gradient mismatch"] == pytest.approx(miss.mean(), abs=2e-6)
    gap = np.abs(want["train"] - want["test"])
    assert now["quantizer gap (units of x)"] == pytest.approx(gap.mean(), abs=1e-6)
    at = passes(c, np.array([c.x]))
    assert (now["y at your x"], now["dy/dx at your x"]) == pytest.approx(
        (at["train"][0], at["dy"][0]), abs=1e-6
    )
    scene = MODEL.scene(c)
    said = [
        f"{v if v > 1e-6 else 0.0:.4g}" for v in (now["gradient mismatch"], now["quantizer gap (units of x)"])
    ]
    assert scene.title == f"{c.kind}: gradient mismatch {said[0]}, quantizer gap {said[1]}"
    largest = float(re.search(r"largest ([\d.e-]+)\.$", scene.panels[1].text)[1])
    assert largest == pytest.approx(miss.max(), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("c", CHOICES, ids=lambda c: f"{c.kind}, soft {c.soft}, window {c.window}")
def test_the_training_is_gradient_descent(c):
    panel = MODEL.scene(c).panels[2]
    x = np.array([c.x, *(part * (2**c.bits - 1) for part in BESIDE)])
    path = [x]
    for _ in range(STEPS):
        now = passes(c, x)
        x = x - RATE * (now["train"] - c.target) * now["dy"]
        path.append(x)
    path = np.array(path)
    assert named(panel, Line, "your").y == pytest.approx(path[:, 0], abs=1e-6)
    others = np.append(named(panel, Line, "other").y, np.nan).reshape(len(BESIDE), -1)[:, :-1].T
    assert others == pytest.approx(path[:, 1:], abs=1e-6)
    assert f"{int((np.ptp(path, axis=0) == 0).sum())} of 6 numbers never move" in panel.text


@pytest.mark.parametrize("c", CHOICES, ids=lambda c: f"{c.kind}, soft {c.soft}, window {c.window}")
def test_the_table_is_the_arithmetic_of_x(c):
    found = {step: row["value"] for step, row in MODEL.scene(c).table.values.items()}
    want = passes(c, np.array([c.x]))
    t, cell, at = float(want["t"][0]), int(want["cell"][0]), knots(c)
    up = int(t > 0.5)
    expected = {"u": c.x / c.step, "t": t, "level": cell + up}
    expected |= {"y": want["train"][0], "dy/dx": want["dy"][0]}
    if c.soft:
        expected["soft level"] = cell + relaxed(c, np.array([t]))[0][0]
    if c.kind in (SOFT, DAQ):
        kernel = math.exp(-1 / c.sigma**2)
        low, high = math.exp(-t) * (kernel if up else 1), math.exp(t - 1) * (1 if up else kernel)
        beta = c.gamma / abs(high - low) if c.kind == DAQ else c.beta
        m = 1 / (1 + math.exp(-beta * (high - low)))
        expected |= {"score s_f": low, "score s_c": high}
        expected |= {"share m": m}
        if c.kind == DAQ:
            expected |= {"β": beta, "rescaled m": float(up)}
    if c.kind == SIGMOID:
        expected["share m"] = relaxed(c, np.array([t]))[0][0]
    assert found == pytest.approx(expected, abs=1e-6)
    how = {row[0]: row[1] for row in MODEL.scene(c).table.rows}
    assert f"cell {cell}, from {at[cell]:.4g} to {at[cell + 1]:.4g}" in how["t"]
    assert f"{'yes, up' if up else 'no, down'} to {cell + up} of" in how["level"]


@pytest.mark.parametrize("kind", [SIGMOID, TANH, SOFT, DAQ, N2UQ])
def test_the_formula_of_the_gradient_gives_the_gradient(kind):
    """The numbers that stand in the table's last row, put together by the reader."""
    row = MODEL.scene(made(kind)).table.rows[-1]
    text = row[1].split("=")[-1].replace("·", "*").replace("coth(", "1 / math.tanh(")
    assert eval(text, {"math": math}) == pytest.approx(float(row[2]), rel=1e-3)


def test_the_controller_moves_the_gradient_and_never_the_staircase():
    scenes = [
        MODEL.scene(made(DAQ, gamma=g, sigma=s, soft=True)) for g, s in ((0.5, 1.0), (4.0, 1.0), (2.0, 3.0))
    ]
    stairs = [named(scene.panels[0], Line, "in a test").y for scene in scenes]
    slopes = [named(scene.panels[1], Line, "gradient").y for scene in scenes]
    shares = [named(scene.panels[0], Line, "before").y for scene in scenes]
    assert all(np.array_equal(stairs[0], other, equal_nan=True) for other in stairs[1:])
    assert all("quantizer gap 0" in scene.title for scene in scenes)
    assert min(np.nanmax(np.abs(slopes[0] - other)) for other in slopes[1:]) > 0.1
    assert abs(shares[0][1] - stairs[0][0]) == pytest.approx(1 / (1 + math.exp(0.5)), abs=1e-6)


def test_another_kind_brings_its_forward_pass():
    c = MODEL.settled(MODEL.start, replace(MODEL.start, kind=SOFT))
    assert c.soft
    assert not MODEL.settled(c, replace(c, kind=DAQ)).soft
    assert MODEL.settled(c, replace(c, soft=False)).kind == SOFT
    assert [n for n in ("gamma", "sigma", "beta") if MODEL.controls(c)[n].shown] == ["sigma", "beta"]


@pytest.mark.parametrize(
    ("panel", "dot", "to", "field"),
    [(0, 0, 2.0, "x"), (1, 0, 0.7, "x"), (2, 0, 2.6, "x"), (2, 1, 0.5, "target")],
)
def test_dots_move_x_and_target(panel, dot, to, field):
    c, marks = MODEL.start, MODEL.scene(MODEL.start).panels[panel].marks
    dots = [m for m in marks if isinstance(m, Points) and m.label != "end of the grid"]
    assert (len(dots), dots[dot].moves) == ((1, "x") if panel < 2 else (2, "y"))
    x, y = float(dots[dot].x[0]), float(dots[dot].y[0])
    assert (x if panel < 2 else y) == getattr(c, field)
    for value, want in ((to, to), (1e9, 4.2), (-1e9, -1.2)):
        new = MODEL.dragged(c, panel, 0, 0, *((value, y) if panel < 2 else (x, value)))
        assert new == replace(c, **{field: want})


@pytest.mark.parametrize("kind", [STE, N2UQ])
def test_the_end_of_the_grid_is_dragged_to_a_step(kind):
    c = made(kind, bits=3, step=0.8, x=5.0)
    (at,) = (i for i, m in enumerate(MODEL.scene(c).panels[0].marks) if m.label == "end of the grid")
    handle = MODEL.scene(c).panels[0].marks[at]
    assert (handle.x.tolist(), handle.moves) == (pytest.approx([7 * 0.8]), "x")
    flat = [v for v in np.linspace(0.0, 9.0, 9001) if passes(c, np.array([v]))["dy"][0] > 0]
    assert handle.x[0] == pytest.approx(flat[-1], abs=0.002)
    for place, step in ((6.4, 0.9), (1e9, 1.2), (-1e9, 0.5)):
        assert MODEL.dragged(c, 0, at, 0, place, 0.0) == replace(c, step=step)


@pytest.mark.parametrize("name", MODEL.presets)
def test_presets_are_states(name):
    state = MODEL.presets[name]
    c = MODEL.restored(state)
    assert {key: getattr(c, key) for key in state} == pytest.approx(state)
    assert MODEL.restored(MODEL.state(c)) == c


def test_presets_show_what_they_say():
    end = {n: MODEL.scene(MODEL.restored(s)).panels[2].marks[2].y[[0, -1]] for n, s in MODEL.presets.items()}
    for still in ("nothing learns", "clipped: outside stays"):
        assert end[still][0] == end[still][1]
    assert end["unclipped: outside returns"][1] < 2.6
    assert end["unclipped: drifts on"][1] > 3.5


def extremes():
    """Choices with every control at an end, or anywhere."""
    found = {}
    for f in fields(GradientChoice):
        spec = MODEL.controls(MODEL.start)[f.name]
        if f.name in ("x", "target"):
            found[f.name] = st.sampled_from([-1e9, 0.0, 0.5, 1.0, 1.3, 1e9])
        elif hasattr(spec, "nearest"):
            found[f.name] = st.sampled_from([spec.low, spec.high]) | st.floats(spec.low, spec.high).map(
                spec.nearest
            )
        else:
            found[f.name] = st.sampled_from(spec.values())
    return st.builds(GradientChoice, **found).map(MODEL.followed)


@FEW
@given(extremes())
def test_no_choice_breaks_the_picture(c):
    scene = MODEL.scene(c)
    assert MODEL.restored(MODEL.state(c)) == c
    for panel in scene.panels:
        for axis in (panel.x, panel.y):
            assert -math.inf < axis.low < axis.high < math.inf
        for mark in panel.numbers():
            for name, value in mark.items():
                if isinstance(value, np.ndarray):
                    finite = np.isfinite(value)
                    assert finite.any()
                    assert finite.all() or (mark["mark"] == "Line" and name in "xy")
    assert all(math.isfinite(v["value"]) for v in scene.table.values.values())
    top = max(named(scene.panels[1], Band).high)
    assert scene.panels[1].y.high > top


def test_a_page_has_every_kind_and_starts_where_the_explorer_is():
    page = MODEL.page(made(DAQ, x=2.0))
    assert [len(chooser.options) for chooser in page.choosers] == [len(KINDS), 6]
    assert page.frames[page.first["picture"]].title == MODEL.scene(made(DAQ, x=2.0)).title
    assert len(page.frames) == 48


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="'magic'"):
        MODEL.of("magic")
