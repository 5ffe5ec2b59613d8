"""The model of BorderExplorer: its map, thresholds and errors, against formulas in numpy at float64."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qviz.explore import BorderModel, network
from qviz.explore.border import BENDS, HAND, WAYS
from qviz.explore.border_data import BIAS, BOTH, FORMULA, HALF, LEARNED, NAME, ORACLE
from qviz.nn.capture import inputs
from qviz.nn.ptq import fold_batchnorm
from qviz.plot.scene import Bars, Heat, Line, Points, Steps
from tests.slow import slow
from tests.strategies import FEW

MODEL = BorderModel()
BENT = {"border": HAND, "low": 0.3, "middle": 0.4, "high": 0.7}


def chosen(**how):
    return MODEL.restored(how)


def marks(panel, kind, label=None):
    return [m for m in panel.marks if isinstance(m, kind) and (label is None or m.label == label)]


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def coefficients(c):
    """b0, b1, b2 of every channel, by solving for the curve through three points."""
    layer = MODEL.layer(c)
    if c.border == LEARNED:
        return layer.border.double().numpy()
    z = np.log(np.array([c.low, c.middle, c.high]) / (1 - np.array([c.low, c.middle, c.high])))
    b = np.linalg.solve(np.vander([0.0, 0.5, 1.0], increasing=True), z)
    return np.repeat(b[:, None], layer.channels, 1)


def border(c, u):
    """B of every channel at u, (C, …): the formulas of the paper's pages, without the library."""
    layer = MODEL.layer(c)
    u = np.asarray(u, dtype=np.float64)
    n = np.minimum(np.floor(u), layer.steps - 1)
    shape = (layer.channels, *[1] * u.ndim)
    if c.border == HALF:
        return np.full((layer.channels, *u.shape), 0.5)
    if c.border == FORMULA:
        w, w_hat = (
            v.double().numpy().swapaxes(0, 1).reshape(layer.channels, -1) for v in (layer.w, layer.w_hat)
        )
        power = (w_hat * w_hat).sum(1)
        rho = np.where(power > 0, (w_hat * w).sum(1) / np.where(power > 0, power, 1), 1.0)
        rho = np.maximum(rho, 1e-30).reshape(shape)
        return np.clip((n + 0.5) / rho - n, 0, 1)
    b = coefficients(c).reshape(3, *shape)
    v = u / layer.steps
    return sigmoid(b[0] + b[1] * v + b[2] * v * v)


def product(x, w):
    """A 3 x 3 convolution with padding 1, (N, C, H, W) and (O, C, 3, 3)."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    return np.einsum("nchwij,ocij->nohw", windows, w, optimize=True)


def rounded(c):
    """The layer's input, rounded by the border of each channel."""
    layer = MODEL.layer(c)
    u = np.clip((layer.x / layer.step).double().numpy(), 0, layer.steps)
    n = np.floor(u)
    own = np.stack([border(c, u[:, k])[k] for k in range(layer.channels)], 1)
    return layer.step * np.minimum(n + (u - n > own), layer.steps)


WAYS_TRIED = [{"border": HALF}, {"border": FORMULA}, {"border": LEARNED}, BENT]


@pytest.mark.parametrize("how", WAYS_TRIED, ids=lambda how: how["border"])
@pytest.mark.parametrize("which", [("nearest", 2), ("least squares", 3)], ids=str)
def test_the_layers_errors_are_those_of_a_convolution_in_float64(how, which):
    c = chosen(network=which[0], bits=which[1], **how)
    layer = MODEL.layer(c)
    w, w_hat, u, x = (v.double().numpy() for v in (layer.w, layer.w_hat, layer.u, layer.x))
    half = product(rounded(replace(c, border=HALF)), w_hat)
    x_hat = rounded(c)
    out, wanted = product(x_hat, w_hat), product(u, w)
    biases = (v.double().numpy()[:, None, None] for v in (layer.bias_hat, layer.bias))
    bias_hat, bias = biases
    error, unit = (((y + bias_hat - wanted - bias) ** 2).sum(1).mean() for y in (out, half))
    scene = MODEL.scene(c)
    own = marks(scene.panels[3], Bars, "on show")[0].heights[0]
    assert own == pytest.approx(100 * error / unit, rel=1e-6)
    parts = [product(x_hat, w_hat - w), product(x_hat - x, w), product(x - u, w), out - wanted]
    squares = np.array([np.square(part).mean() for part in parts])
    unit = np.square(half - wanted).mean()
    assert marks(scene.panels[2], Bars)[0].heights == pytest.approx(100 * squares / unit, rel=1e-6)
    assert marks(scene.panels[2], Steps)[0].heights[3] == pytest.approx(100)


def test_the_table_has_what_the_other_ways_give():
    for key, layer in MODEL.layers.items():
        scene = MODEL.scene(chosen(network=key[0], bits=key[1], border=LEARNED))
        rows = scene.table.values
        assert rows["on show: learned"]["held out"] == pytest.approx(rows[LEARNED]["held out"])
        assert rows[ORACLE]["held out"] == pytest.approx(100 * layer.oracle / layer.known[HALF])
        for way in (BIAS, BOTH):
            y = layer.layer(layer.rounding(LEARNED if way == BOTH else HALF))
            y.bias.data = layer.biases[way]
            if way == BOTH:
                y.input_quantizer.rounding.b.data = layer.with_bias
            with torch.no_grad():
                found = float((y(layer.x) - layer.wanted).square().sum(1).mean())
            assert rows[way]["held out"] == pytest.approx(100 * found / layer.known[HALF], rel=1e-5)
        assert rows[BOTH]["others"] < 100 * 1.0
        bars = {m.label: m.heights[0] for m in marks(scene.panels[3], Bars)}
        assert bars == pytest.approx({name.split(":")[0]: row["held out"] for name, row in rows.items()})


@pytest.mark.parametrize("how", [*slow(*WAYS_TRIED), {"border": LEARNED, "channel": 7}], ids=str)
def test_the_border_and_its_thresholds(how):
    c = chosen(bits=3, weight=1.2, activation=4.3, **how)
    panel = MODEL.scene(c).panels[1]
    line, cuts = marks(panel, Line, "border B")[0], marks(panel, Points, "threshold")[0].x
    k = c.channel - 1
    if c.border in (LEARNED, HAND):
        assert line.y == pytest.approx(border(c, line.x)[k], abs=1e-6)
    for n, cut in enumerate(cuts):
        fine = np.linspace(n, n + 1, 200_001)[:-1]
        up = fine - n > border(c, fine)[k]
        assert cut == pytest.approx(fine[up.argmax()] if up.any() else n + 1, abs=1e-5)
    (bent,) = [m for m in marks(panel, Points) if m.moves == "y"]
    if c.border == HAND:
        assert bent.y == pytest.approx([c.low, c.middle, c.high], abs=1e-6)
    assert marks(panel, Points, "the product's u")[0].y[0] == pytest.approx(0.3)


@pytest.mark.parametrize("how", WAYS_TRIED, ids=lambda how: how["border"])
def test_the_map_has_the_error_of_every_product(how):
    c = chosen(bits=3, weight=-1.3, activation=5.7, **how)
    scene = MODEL.scene(c)
    heat = marks(scene.panels[0], Heat)[0]
    w, u = heat.x[None], heat.y[:, None]
    w_hat = np.clip(np.ceil(w - 0.5), -4, 3)
    n = np.minimum(np.floor(u), 6)
    if c.border == FORMULA:
        safe = np.where(w_hat == 0, 1, w_hat)
        own = np.where(w_hat == 0, 0.5, np.clip(safe / np.where(w_hat == 0, 1, w) * (n + 0.5) - n, 0, 1))
    else:
        own = border(c, heat.y)[c.channel - 1][:, None]
    x = np.minimum(n + (u - n > own + 1e-9), 7)
    assert heat.values == pytest.approx(np.abs(w_hat * x - w * u), abs=1e-6)
    one = MODEL.product(c)
    assert one.error == pytest.approx(one.w_hat * one.x + 1.3 * 5.7)
    assert (one.w_hat, one.cell) == (-1.0, 5)
    assert one.x == 5 + (one.t > one.border)
    assert one.words == scene.table.notes


def test_the_best_border_of_a_product_is_never_worse_than_another():
    best = marks(MODEL.scene(chosen(bits=3, border=FORMULA)).panels[0], Heat)[0].values
    for how in WAYS_TRIED:
        other = marks(MODEL.scene(chosen(bits=3, **how)).panels[0], Heat)[0]
        assert (best <= other.values + 1e-9).all()
        assert other.ends[1] >= best.max()


def test_the_recorded_layer_is_the_shipped_networks():
    layer = MODEL.layer(MODEL.start)
    net = copy.deepcopy(network.resnet20())
    images = network.sample("test")[0][:8]
    fold_batchnorm(net, images[:1])
    assert layer.w.numpy() == pytest.approx(net.get_submodule(NAME).weight.detach().numpy(), abs=1e-5)
    u = inputs(net, [NAME], images)[NAME]
    assert layer.u.numpy() == pytest.approx(u.numpy(), rel=1e-3, abs=1e-3)


def test_dots_bend_the_border_and_move_the_product():
    start = MODEL.start
    moved = MODEL.dragged(start, 0, 2, 0, -0.8, 2.2)
    assert (moved.weight, moved.activation, moved.border) == (-0.8, 2.2, HALF)
    assert MODEL.dragged(start, 0, 2, 0, 99.0, -99.0).activation == 0.0
    panel = MODEL.scene(start).panels[1]
    at = next(i for i, m in enumerate(panel.marks) if isinstance(m, Points) and m.moves == "y")
    bent = MODEL.dragged(start, 1, at, 1, 0.0, 0.3)
    assert (bent.border, bent.low, bent.middle, bent.high) == (HAND, 0.5, 0.3, 0.5)
    learned = chosen(border=LEARNED, channel=9, bits=3)
    bent = MODEL.dragged(learned, 1, at, 0, 0.0, round(learned.low, 2) + 0.01)
    assert [bent.low, bent.middle, bent.high] == pytest.approx(
        [learned.low + 0.01, learned.middle, learned.high], abs=0.011
    )  # it starts from the border that was on show
    assert MODEL.settled(learned, replace(learned, high=0.8)).border == HAND


def test_nothing_is_told_of_the_others_unless_asked_for():
    scene = MODEL.scene(chosen(border=LEARNED, compare=False))
    assert list(scene.table.values) == ["on show: learned"]
    assert [m.label for m in marks(scene.panels[3], Bars)] == ["on show"]
    assert not any(word in scene.text for word in (BIAS, ORACLE))


def test_a_weight_that_becomes_zero_has_no_sign():
    assert MODEL.product(chosen(weight=-0.3)).words[0].startswith("w = -0.3 → w' = 0;")


def test_states_and_presets():
    for preset in MODEL.presets.values():
        c = chosen(**preset)
        assert MODEL.restored(json.loads(json.dumps(MODEL.state(c)))) == c
        assert set(MODEL.headline(c)) == {"held-out error (% of one half)", "error of the product"}
    with pytest.raises(ValueError, match="border"):
        chosen(border="best")


@given(
    st.sampled_from(["nearest", "least squares"]),
    st.integers(2, 4),
    st.sampled_from(WAYS),
    st.tuples(*[st.sampled_from([0.02, 0.5, 0.98])] * 3),
    st.sampled_from([1, 32]),
    st.sampled_from([-1e9, 0.0, 1e9]),
    st.sampled_from([-1e9, 2.0, 1e9]),
)
@FEW
def test_every_extreme_gives_a_finite_picture(net, bits, way, bends, channel, w, u):
    c = replace(MODEL.start, network=net, bits=bits, border=way, channel=channel, weight=w, activation=u)
    c = MODEL.followed(replace(c, **dict(zip(BENDS, bends, strict=True))))
    for panel in MODEL.scene(c).panels:
        for axis in (panel.x, panel.y):
            assert np.isfinite([axis.low, axis.high]).all()
            assert axis.low < axis.high
        for mark in panel.marks:
            values = [v for v in vars(mark).values() if isinstance(v, np.ndarray)]
            assert not any(np.isinf(v).any() for v in values)
            assert isinstance(mark, Line) or not any(np.isnan(v).any() for v in values)
    controls = MODEL.controls(c)
    assert all(controls[n].accepts(getattr(c, n)) for n in ("weight", "activation", *BENDS))


def test_a_page_has_both_networks_and_three_borders():
    page = MODEL.page(MODEL.start)
    assert len(page.frames) == 12
    assert [chooser.label for chooser in page.choosers] == ["Network", "Border", "Bits"]
