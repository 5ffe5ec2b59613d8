"""The model of LayerExplorer: its figures against those of an inspection and against the formulas."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from qviz import inspect
from qviz.explore import LayerModel
from qviz.explore.layer_setting import CHANNEL, TENSOR, Setting
from qviz.plot.html import rows_html, scene_html
from qviz.plot.scene import Points, Steps
from tests.explore.finite import finite
from tests.strategies import FEW


def net():
    """Two convolutions with BatchNorm, and a head."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3, stride=2), nn.BatchNorm2d(4),
            nn.ReLU(), nn.Flatten(), nn.Linear(36, 5),
        )  # fmt: skip
        made[0].weight.data[1] *= 30
        made[1].weight.data.uniform_(0.2, 3.0)
        made[1].running_mean.uniform_(-1, 1)
    return made.eval()


IMAGES = torch.randn(4, 3, 9, 9, generator=torch.Generator().manual_seed(2))
MODEL = LayerModel(net(), IMAGES)


@pytest.mark.parametrize(
    ("recipe", "ranges"), [("lsq", TENSOR), ("lsq", CHANNEL), ("post", CHANNEL), ("daq", TENSOR)]
)
def test_the_figures_are_those_of_an_inspection_of_this_layer_alone(recipe, ranges):
    setting = Setting(recipe, 3, 4, ranges)
    pairs = dict.fromkeys(MODEL.layers.names) | {"3": setting.pair()}
    torch.manual_seed(0)
    view = inspect(net(), IMAGES, pair=pairs, first_last="quantized", sensitivity=False)["3"]
    fit = MODEL.layers.fit("3", setting)
    for key in ("local", "weight", "input"):
        assert getattr(fit.outputs, key) == pytest.approx(getattr(view.outputs, key), rel=1e-6)
    assert fit.weight.ranges == pytest.approx(view.weight.ranges, rel=1e-6)
    assert fit.weight.codes.counts == view.weight.codes.counts
    assert fit.input.codes.sqnr_db == pytest.approx(view.input.codes.sqnr_db, rel=1e-6)


def test_the_ratio_of_the_output_is_that_of_the_formula():
    c = replace(MODEL.start, layer="7", bits=3)
    layer, x = net()[7], net()[:7](IMAGES).detach()
    w, step = layer.weight.detach(), 2 * layer.weight.detach().abs().mean() / 3**0.5
    wq = step * (w / step).round().clamp(-4, 3)
    a_step = 2 * x.mean() / 15**0.5
    xq = a_step * (x / a_step).round().clamp(0, 15)
    y, z = (a.double() @ b.double().T + layer.bias.detach() for a, b in ((x, w), (xq, wq)))
    db = 10 * torch.log10(y.square().sum() / (z - y).square().sum())
    assert MODEL.headline(c)["output, weight and input (dB)"] == pytest.approx(float(db), abs=2e-4)
    bars = MODEL.scene(c).panels[3].marks[0]
    assert bars.heights[0] == pytest.approx(float(db), abs=2e-4)


def test_the_reach_of_the_levels_is_that_of_steps_and_levels():
    per_channel = MODEL.layers.fit("0", Setting("lsq", 4, 4, CHANNEL))
    folded = MODEL.layers.network(Setting("lsq", 4, 4, CHANNEL).pair())[0].weight.detach()
    step = 2 * folded.abs().mean((1, 2, 3)) / 7**0.5
    assert per_channel.reach == pytest.approx(8 * step.numpy(), rel=1e-5)


def test_a_row_opens_its_layer_and_the_table_tells_its_setting():
    c = MODEL.start
    assert MODEL.look(c).fit.outputs.local == min(f.outputs.local for f in MODEL.look(c).all.values())
    moved = MODEL.settled(c, replace(c, layer="0", bits=2))
    scene = MODEL.scene(moved)
    assert "lsq W4A4" in scene.table.notes[0]
    assert "now" in scene.about
    page = rows_html(scene)
    assert page.count("data-opens") == 3
    assert page.count("aria-current") == 1
    assert "<table" not in scene_html(scene)
    *shares, finish = MODEL.actions(moved)["all"].work(moved)
    after = finish(MODEL.settled(moved, replace(moved, layer="7")))
    assert shares[-1] == 1.0
    assert after.layer == "7"
    assert MODEL.scene(after).table.notes[0].startswith("With lsq W2A4 per tensor")
    assert not MODEL.actions(after)["all"].shown
    assert MODEL.restored(json.loads(json.dumps(MODEL.state(after)))) == after
    assert MODEL.dragged(after, 4, 2, 0, 1.7, 3.0).layer == "3"


@pytest.mark.parametrize("ranges", [TENSOR, CHANNEL])
def test_one_product_walks_from_weight_and_input_to_the_output(ranges):
    model = LayerModel(net(), IMAGES)
    layer, bn, x = net()[3], net()[4], net()[:3](IMAGES).detach()
    k = 89  # of 4 x 6 x 3 x 3 weights; BatchNorm is folded in
    gain = (bn.weight / (bn.running_var + bn.eps).sqrt()).detach()
    w = (layer.weight * gain[:, None, None, None]).detach()
    o, i, row, column = np.unravel_index(k, w.shape)
    mean = w.abs().mean() if ranges == TENSOR else w[o].abs().mean()
    step, a_step = 2 * mean / 3**0.5, 2 * x.mean() / 15**0.5
    met = x[:, i, row : row + 5 : 2, column : column + 5 : 2].flatten()
    at = int(met.argmax())
    met = met[at]
    c = MODEL.restored({"layer": "3", "bits": 3, "ranges": ranges, "weight": k + 1, "place": at + 1})
    code, a_code = (w[o, i, row, column] / step).round().clamp(-4, 3), (met / a_step).round().clamp(0, 15)
    walk = model.look(c).walk
    found = [walk.w.x, walk.w.u, walk.w.code, walk.w.y, walk.x.x, walk.x.u, walk.x.code, walk.x.y]
    wx, y = w[o, i, row, column], met
    wanted = [wx, wx / step, code + 4, code * step, y, y / a_step, a_code, a_code * a_step]
    assert found == pytest.approx([float(v) for v in wanted], rel=1e-5, abs=1e-6)
    errors = code * step * a_code * a_step - wx * y, (code * step - wx) * y, wx * (a_code * a_step - y)
    assert walk.errors == pytest.approx([float(e) for e in errors], rel=1e-4, abs=1e-6)
    whole = (bn(layer(x)).detach())[:, o].flatten()[at]
    assert walk.before == pytest.approx(float(whole), rel=1e-5, abs=1e-6)
    steps = step if ranges == TENSOR else 2 * w.abs().mean((1, 2, 3), keepdim=True) / 3**0.5
    wq, xq = (w / steps).round().clamp(-4, 3) * steps, (x / a_step).round().clamp(0, 15) * a_step
    shift = bn.bias + (layer.bias - bn.running_mean) * gain
    whole = nn.functional.conv2d(xq, wq, shift.detach(), stride=2)[:, o].flatten()[at]
    assert walk.after == pytest.approx(float(whole), rel=1e-4, abs=1e-5)
    scene = model.scene(c)
    dots = [m for panel in scene.panels[:4] for m in panel.marks if isinstance(m, Points) and m.role == "d"]
    unit = 1.0 if ranges == TENSOR else float(step)
    assert dots[0].x[0] * unit == pytest.approx(float(wx), rel=1e-5)
    assert dots[1].x[0] == pytest.approx(float(y), rel=1e-5)
    assert dots[2].y[0] == pytest.approx(abs(float(wx)), rel=1e-5)
    top = float(wx * y)
    db = [np.clip(20 * np.log10(abs(top / float(e))), -10, 70) for e in errors]
    axis = scene.panels[3].y
    assert dots[3].y == pytest.approx(np.clip(db, axis.low, axis.high), abs=1e-2)
    assert f"becomes {float(code * step * a_code * a_step):.4g}" in scene.about


def test_dots_of_the_product_choose_a_weight_and_an_input():
    c = MODEL.restored({"layer": "7", "weight": 3, "place": 2})
    w, x = net()[7].weight.detach().double().flatten().numpy(), net()[:7](IMAGES).detach().double().numpy()
    for at in (-1e9, 0.013, 1e9):
        weight = MODEL.dragged(c, 0, 4, 0, at, 0.0).weight
        assert weight == np.abs(w - at).argmin() + 1
        place = MODEL.dragged(c, 1, 4, 0, at, 0.0).place
        assert x[place - 1, 2] == x[:, 2][np.abs(x[:, 2] - at).argmin()]


@pytest.mark.parametrize("name", sorted(set(MODEL.layers.names) - {MODEL.start.layer}))
def test_a_state_with_another_layer_begins_at_half_of_its_largest_numbers(name):
    c = MODEL.restored({"layer": name, "ranges": CHANNEL})
    w = MODEL.layers.network(c.setting.pair()).get_submodule(name).weight.detach().double().numpy()
    u = w / (2 * np.abs(w).mean(tuple(range(1, w.ndim)), keepdims=True) / 7**0.5)  # in LSQ's steps
    assert c.weight == np.abs(u - u.max() / 2).argmin() + 1
    chosen = MODEL.settled(MODEL.start, replace(MODEL.start, ranges=CHANNEL))
    assert c == MODEL.settled(chosen, replace(chosen, layer=name))
    kept = MODEL.restored({"layer": name, "weight": 2, "place": 3})
    assert (kept.weight, kept.place) == (2, 3)


@pytest.mark.parametrize(("bits", "room"), [(2, 16), (4, 16), (8, 255)])
def test_a_long_tail_does_not_press_the_levels_together(bits, room):
    x = torch.rand(4, 16, generator=torch.Generator().manual_seed(0))
    x[1, 3] = 1000.0
    layer = nn.Linear(16, 2)
    layer.weight.data[:, 3] = 1.0
    model = LayerModel(layer, x, bits=bits)
    panel = model.scene(model.restored({"weight": 4, "place": 2})).panels[1]  # that weight, that input
    last = 2**bits - 1
    end = min((last + room) * 2 * float(x.mean()) / last**0.5, 1000.0)
    assert (panel.x.low, panel.x.high) == pytest.approx((-0.04 * end, 1.04 * end), rel=1e-5)
    dot, values = (next(m for m in panel.marks if isinstance(m, kind)) for kind in (Points, Steps))
    assert dot.x[0] == pytest.approx(end, rel=1e-5)
    cut = end < 1000
    assert (values.label == "values") != cut
    assert ("lies beyond, at 1e+03" in panel.text) == cut


def test_a_weight_that_meets_padding_only_walks_too():
    model = LayerModel(nn.Conv2d(1, 2, 3, padding=1), torch.rand(2, 1, 1, 1))
    c = model.followed(replace(model.start, weight=1, place=1))
    assert "It meets padding only, 0." in model.scene(c).about
    finite(model.scene(c))


def test_another_recipe_brings_its_own_ranges():
    c = MODEL.start
    assert MODEL.settled(c, replace(c, recipe="post")).ranges == CHANNEL
    daq = MODEL.settled(c, replace(c, recipe="daq"))
    assert (daq.ranges, MODEL.controls(daq)["ranges"].shown) == (TENSOR, False)
    assert MODEL.settled(c, replace(c, recipe="apot", bits=8)).bits == 7
    for base in (["lsq", 4, 4], ["lsq", 4, 40, TENSOR], ["daq", 4, 4, CHANNEL], ["none", 4, 4, TENSOR]):
        with pytest.raises(ValueError, match=r"base|range"):
            MODEL.restored({"base": base})


def spoiled(change):
    made = net()
    change(made)
    return made


def emptied():
    made = nn.Linear(1, 3)
    made.weight = nn.Parameter(torch.zeros(3, 0))
    return made


@pytest.mark.parametrize(
    ("model", "images", "said"),
    [
        (spoiled(lambda m: m[0].weight.data.view(-1)[:3].fill_(torch.nan)), IMAGES, "3 values of 162"),
        (net(), IMAGES[:0], "no samples"),
        (net(), IMAGES * torch.inf, "NaN or infinite"),
        (net(), torch.randn(2, 5, 9, 9), "channels"),
        (nn.ReLU(), IMAGES, "no layer can be shown"),
        (emptied(), torch.zeros(2, 0), "empty, shape (3, 0)"),
        ("resnet", IMAGES, "must be an nn.Module, got str"),
    ],
)
def test_a_model_that_cannot_be_shown_is_left_out_with_a_reason(model, images, said, monkeypatch):
    monkeypatch.setattr("qviz.explore.layer_fit.network.resnet20", net)
    monkeypatch.setattr("qviz.explore.layer_fit.network.sample", lambda: (IMAGES, None))
    model = LayerModel(model, images)
    assert said in model.sources.problem
    finite(model.scene(model.start))


def test_layers_that_cannot_be_shown_are_named_and_odd_ones_are_shown():
    made = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    made[0].beside = nn.Embedding(3, 2)
    made[0].weight.data.fill_(0.5)
    made[1].weight.data.zero_()
    made[2].weight.data[0, 0] = torch.nan
    model = LayerModel(made, torch.ones(2, 4))
    assert model.layers.names == ("0", "1")
    notes = " ".join(model.scene(model.start).table.notes)
    assert "2: its weight has 1 value of 16" in notes
    assert "0.beside: not quantized" in notes
    for name in model.layers.names:
        finite(model.scene(replace(model.start, layer=name)))


def test_a_converted_model_is_its_float_twin():
    from qviz.nn import calibrate, convert
    from qviz.recipes import pair

    made = net()
    convert(made, pair=pair("lsq", 2), first_last="quantized")
    calibrate(made, IMAGES)
    twin = LayerModel(made, IMAGES)
    assert twin.headline(twin.start) == MODEL.headline(MODEL.start)


def test_arguments_that_make_no_sense_are_refused():
    for kwargs, said in (
        ({"recipe": "none"}, "unknown recipe"),
        ({"bits": 9}, "between 2 and 8"),
        ({"layer": "1"}, "no layer '1'"),
    ):
        with pytest.raises(ValueError, match=said):
            LayerModel(net(), IMAGES, **kwargs)
    with pytest.raises(ValueError, match="only a model"):
        LayerModel(net())


@pytest.mark.slow
@FEW
@given(
    name=st.sampled_from(MODEL.layers.names),
    recipe=st.sampled_from(MODEL.controls(MODEL.start)["recipe"].options),
    bits=st.integers(2, 8),
    a_bits=st.integers(2, 8),
    ranges=st.sampled_from((TENSOR, CHANNEL)),
)
def test_every_extreme_gives_a_finite_scene(name, recipe, bits, a_bits, ranges):
    c = MODEL.followed(
        replace(MODEL.start, layer=name, recipe=recipe, bits=bits, a_bits=a_bits, ranges=ranges)
    )
    finite(MODEL.scene(c))
    assert np.isfinite(list(MODEL.headline(c).values())).all()


def test_a_weight_of_few_values_gets_the_bits_that_it_has_values_for():
    c = replace(MODEL.start, layer="0", recipe="adq", bits=8, ranges=TENSOR)
    fit = MODEL.layers.fit("0", c.setting)
    assert fit.weight.codes.levels == 127
    assert (
        "its weight has 7 bits, not 8, as 127 levels a sign need as many distinct values"
        in MODEL.scene(c).about
    )
