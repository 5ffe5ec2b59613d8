"""The model of FormatExplorer: every figure against the format's definition, and what is pasted."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qviz import shipped
from qviz.explore import FormatModel
from qviz.explore.format import GROUPS
from qviz.explore.format_data import FORMATS, PASTED
from qviz.explore.paste import MOST, read
from qviz.plot.scene import Points, Rug, Rule, Steps
from tests.explore.finite import finite
from tests.strategies import FEW

W = shipped.tensor("project_early")
MODEL = FormatModel(W)
X = W.double().numpy().ravel()
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
POST = np.append(0, 2.0 ** (-np.arange(7) / 2))
APOT = np.array([0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1])


def both(magnitudes):
    return np.unique(np.concatenate([-magnitudes, magnitudes]))


def nearest(u, levels):
    return levels[np.abs(u[..., None] - levels).argmin(-1)]


def grouped(levels, size, x=X):
    """One float16 scale for each group: the largest magnitude falls on the outermost level."""
    rows = np.pad(x, (0, -len(x) % size)).reshape(-1, size)
    high = np.where(rows > 0, rows / levels[-1], rows / levels[0]).max(1, keepdims=True)
    high = high.astype(np.float32).astype(np.float16).astype(np.float64)
    return (nearest(rows / np.where(high > 0, high, 1), levels) * high).ravel()[: len(x)]


def mx(x=X):
    rows = x.reshape(-1, 32)
    scale = 2.0 ** (np.floor(np.log2(np.abs(rows).max(1, keepdims=True))) - 2)
    return (nearest(rows / scale, both(E2M1)) * scale).ravel()


def nv(x=X):
    rows = x.reshape(-1, 16)
    whole = float(np.float32(np.abs(x).max() / (448 * 6)))
    row = torch.from_numpy(np.abs(rows).max(1, keepdims=True) / (6 * whole)).float()
    scale = row.to(torch.float8_e4m3fn).double().numpy() * whole
    return (nearest(rows / scale, both(E2M1)) * scale).ravel()


def plain(levels, x=X):
    scale = np.where(x > 0, x / levels[-1], x / levels[0]).max()
    return nearest(x / scale, levels) * scale


NF4 = np.array([float(v) for v in FORMATS["NF4 groups"].book().levels])
E4M3 = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).double().numpy()
EXPECTED = {
    "INT4 per tensor": (lambda: plain(np.arange(-8.0, 8)), 4 + 32 / 512),
    "INT4 groups": (lambda: grouped(np.arange(-8.0, 8), 64), 4.25),
    "NF4 groups": (lambda: grouped(NF4, 64), 4.25),
    "FP4 groups": (lambda: grouped(both(E2M1), 64), 4.25),
    "POST groups": (lambda: grouped(both(POST), 64), 4.25),
    "APoT groups": (lambda: grouped(both(APOT), 64), 4.25),
    "MXFP4": (mx, 4.25),
    "NVFP4": (nv, 4.5 + 32 / 512),
    "FP8 E4M3": (lambda: plain(np.unique(E4M3[np.isfinite(E4M3)])), 8 + 32 / 512),
    "INT8 per tensor": (lambda: plain(np.arange(-128.0, 128)), 8 + 32 / 512),
}


def marks(panel, kind, role=None):
    return [m for m in panel.marks if isinstance(m, kind) and role in (None, m.role)]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_its_definition(name):
    c = replace(MODEL.start, a=name, b="MXFP4" if name != "MXFP4" else "NVFP4")
    expected, bits = EXPECTED[name]
    error = expected() - X
    noise = 10 * np.log10(np.sum(X**2) / np.sum(error**2))
    scene = MODEL.scene(c)
    row = scene.table.values[name]
    assert row["sqnr_db"] == pytest.approx(noise, abs=1e-3)
    assert row["bits"] == pytest.approx(bits, abs=1e-12)
    assert row["fits"] == (bits <= 4.26)
    plane, _, histogram = scene.panels
    dot = marks(plane, Points, "a")[0]
    assert (dot.x[0], dot.y[0]) == (row["bits"], row["sqnr_db"])
    outline = marks(histogram, Steps, "a")[0]
    middle = (np.abs(error) < outline.edges[-1] * 0.5).mean() * 100
    inner = np.abs((outline.edges[1:] + outline.edges[:-1]) / 2) < outline.edges[-1] * 0.5
    assert outline.heights[inner].sum() == pytest.approx(middle, abs=3.0)


def test_one_value_is_shown_with_the_scale_of_its_group():
    c = replace(MODEL.start, a="INT4 groups", b="MXFP4", place=200)
    group, value = X[192:256], X[199]
    scale = float(np.float16(max(group.max() / 7, -group.min() / 8)))
    panel = MODEL.scene(c).panels[1]
    assert marks(panel, Rug, "data")[0].x == pytest.approx(group, abs=1e-9)
    levels = marks(panel, Rug, "a")[0].x
    assert np.isin((levels / scale).round(6), np.arange(-8.0, 8)).all()
    assert marks(panel, Points, "a")[0].x[0] == pytest.approx(np.round(value / scale) * scale, rel=1e-6)
    power = 2.0 ** (np.floor(np.log2(np.abs(X[192:224]).max())) - 2)
    y = nearest(np.array([value / power]), both(E2M1))[0] * power
    assert marks(panel, Points, "b")[0].x[0] == pytest.approx(y, rel=1e-6)
    moved = MODEL.dragged(c, 1, 5, 0, X[230] + 1e-6, 0.0)
    assert moved.place == 231


def test_a_smaller_budget_means_larger_groups():
    sizes = [MODEL.scene(replace(MODEL.start, budget=b)).table.values["NF4 groups"]["group"] for b in GROUPS]
    assert sizes == [128, 128, 64, 32, 16, 16]
    rule = marks(MODEL.scene(MODEL.start).panels[0], Rule)[0]
    assert rule.at == pytest.approx(4.25, abs=0.02)


def test_pasted_numbers_are_shown_at_once():
    c = MODEL.settled(MODEL.start, replace(MODEL.start, numbers="1 2 nope 4"))
    scene = MODEL.scene(c)
    assert c.tensor == PASTED
    assert "1 of 4 entries is no number: 'nope' (entry 3)." in scene.about
    assert marks(scene.panels[1], Rug, "data")[0].x.tolist() == [1, 2, 4]
    assert scene.table.values["INT4 groups"]["bits"] == pytest.approx(4 + 16 / 3)
    assert "No format fits" in scene.about


@pytest.mark.parametrize(
    ("text", "values", "said"),
    [
        ("1, 2,3", [1, 2, 3], ""),
        ("tensor([[1., -2e-1],\n [\N{MINUS SIGN}3, 4]])", [1, -0.2, -3, 4], "'tensor' (entry 1)"),
        ("0,5; 1,5", [0.5, 1.5], ""),
        ("nan inf 1e99 2", [2], "Left out: 3"),
        ("", [0], "no number to show yet"),
        ("a b c d e", [0], "and 2 more"),
        ("1 " * (MOST + 5), [1] * MOST, f"first {MOST:,}"),
    ],
)
def test_text_is_read(text, values, said):
    pasted = read(text)
    assert pasted.values == pytest.approx(values, rel=1e-6)
    assert said in pasted.problem
    assert bool(pasted.problem) == bool(said)


def test_presets_and_states_can_be_restored():
    for name, state in MODEL.presets.items():
        made = MODEL.restored(state)
        assert {k: getattr(made, k) for k in state} == state, name
        assert MODEL.restored(MODEL.state(made)) == made
    with pytest.raises(ValueError, match="budget"):
        FormatModel(budget="3 bits")
    with pytest.raises(ValueError, match="unknown tensor"):
        FormatModel(tensor="no")


TEXTS = ("", "0", "0.5 0.5 0.5", "-1", "1e-40", "3e38 -3e38", "1 2 3 " * 40)


@FEW
@given(
    text=st.sampled_from(TEXTS),
    budget=st.sampled_from(list(GROUPS)),
    a=st.sampled_from(list(FORMATS)),
    place=st.sampled_from([1, 10**6]),
)
def test_every_extreme_gives_a_finite_scene(text, budget, a, place):
    c = replace(MODEL.start, numbers=text, tensor=PASTED, budget=budget, a=a, place=place)
    c = MODEL.followed(c)
    finite(MODEL.scene(c))
    MODEL.headline(c)
