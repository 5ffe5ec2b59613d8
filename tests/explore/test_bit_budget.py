"""The model of BitBudgetExplorer: sums, sizes and allocations recomputed, and one run of the network."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from qviz.explore import BudgetModel, network
from qviz.explore.bit_budget_data import Trial
from qviz.explore.bit_budget_spending import HAND
from qviz.nn.allocate import exact, greedy, loss_rise
from qviz.plot.scene import Band, Bars, Line, Points, Rule, Steps
from tests.strategies import FEW

MODEL = BudgetModel()
COSTS = MODEL.costs
LAYERS = len(COSTS.names)


def marks(panel, kind, label=None):
    return [m for m in panel.marks if isinstance(m, kind) and (label is None or m.label == label)]


@pytest.fixture(scope="module")
def raw(checkout):
    return json.loads((checkout / "data" / "bit_budget.json").read_text())


def test_the_layers_are_those_of_the_network():
    net = network.resnet20()
    found = {
        n: m.weight.numel() for n, m in net.named_modules() if hasattr(m, "weight") and m.weight.ndim > 1
    }
    assert dict(zip(COSTS.names, COSTS.sizes.tolist(), strict=True)) == found


@pytest.mark.parametrize("estimate", COSTS.omega)
def test_greedy_and_exact_are_the_librarys(estimate):
    omega, sizes = COSTS.omega[estimate], COSTS.sizes.tolist()
    for i, budget in enumerate(COSTS.budgets):
        assert COSTS.solved[estimate]["greedy"][i] == greedy(omega, sizes, budget, COSTS.bits).bits
        best = COSTS.shares(COSTS.solved[estimate]["exact"][i], estimate).sum()
        assert best <= COSTS.shares(COSTS.solved[estimate]["greedy"][i], estimate).sum() + 1e-12
    assert COSTS.solved[estimate]["exact"][1] == exact(omega, sizes, COSTS.budgets[1], COSTS.bits).bits


@pytest.mark.parametrize(
    "how", [{"budget": 2.5, "way": "exact"}, {"budget": 3.25, "way": "greedy", "estimate": "Fisher"}], ids=str
)
def test_every_figure_is_a_sum_over_the_file(raw, how):
    c = MODEL.restored(how)
    scene = MODEL.scene(c)
    bits, shares, expected, measured = scene.panels
    assert marks(bits, Bars)[0].heights.tolist() == list(c.bits)
    omega = [layer[c.estimate][b - 2] for layer, b in zip(raw["layers"], c.bits, strict=True)]
    sizes = [layer["size"] for layer in raw["layers"]]
    floor = 1e-6 * max(max(layer[c.estimate]) for layer in raw["layers"])
    assert marks(shares, Line, "yours")[0].y == pytest.approx(np.maximum(omega, floor))
    band = marks(shares, Band)[0]
    assert band.high == pytest.approx([max(layer[c.estimate]) for layer in raw["layers"]])
    kb = sum(n * b for n, b in zip(sizes, c.bits, strict=True)) / 8 / 1000
    here = marks(expected, Points, "yours")[0]
    assert (here.x[0], here.y[0]) == pytest.approx((kb, sum(omega)))
    assert marks(expected, Rule, "the budget")[0].at == pytest.approx(c.budget * sum(sizes) / 8000)
    assert kb <= c.budget * sum(sizes) / 8000
    run = next(t for t in raw["trials"] if tuple(t["bits"]) == c.bits)
    row = scene.table.values["yours"]
    assert row["bits"] == pytest.approx(kb * 8000 / sum(sizes))
    assert row["loss rise"] == pytest.approx(run["loss"] - raw["floating"]["loss"])
    assert marks(measured, Points, "yours")[0].y[-1] == row["top-1 (%)"] == run["top1"]
    equal = marks(measured, Line, "all equal")[0]
    tops = [next(t["top1"] for t in raw["trials"] if t["bits"] == [b] * LAYERS) for b in range(2, 7)]
    assert equal.y.tolist() == tops
    assert equal.x == pytest.approx(np.arange(2, 7) * sum(sizes) / 8000)
    assert marks(bits, Steps, "exact")[0].heights.tolist() == list(COSTS.spent("exact", c.estimate, c.budget))


@pytest.mark.slow
def test_a_run_gives_what_the_script_found_and_can_be_left_off():
    c = MODEL.restored({"budget": 2.0})
    with torch.no_grad():
        rise = loss_rise(
            network.resnet20(),
            ["fc"],
            list(zip(*(v[:1000].split(100) for v in network.sample("train")), strict=True)),
            lambda model, batch: functional.cross_entropy(model(batch[0]), batch[1]),
            lambda bits: lambda w: COSTS.weight("fc", bits),
            (2,),
        )
    assert rise.item() == pytest.approx(COSTS.omega["loss rise"][-1, 0], rel=1e-3)
    *steps, found = COSTS.run(c.bits)
    assert steps == pytest.approx(np.arange(1, 21) / 20)
    assert found.top1 == pytest.approx(COSTS.trials[c.bits].top1, abs=0.1)
    assert found.loss == pytest.approx(COSTS.trials[c.bits].loss, rel=1e-3)


def test_weights_stand_on_their_grids():
    w, y = (
        network.resnet20().layer2[0].conv1.weight.detach().numpy(),
        COSTS.weight("layer2.0.conv1", 3).numpy(),
    )
    step = np.array(COSTS.steps["layer2.0.conv1", 3], dtype=np.float32)[:, None, None, None]
    assert y == pytest.approx(np.clip(np.rint(w / step), -4, 3) * step, abs=1e-6)


def test_measuring_adds_a_trial(monkeypatch):
    c = MODEL.dragged(MODEL.start, 0, 2, 4, 5.0, 5.6)
    assert c.way == HAND
    assert (c.layer, c.width, c.bits[4]) == (5, 6, 6)
    assert len(marks(MODEL.scene(c).panels[3], Points, "yours")[0].x) == 0
    found = Trial(c.bits, 0.5, 80.0)
    monkeypatch.setattr(type(COSTS), "run", lambda self, bits: iter([0.5, 1.0, found]))
    *parts, last = MODEL.actions(c)["measure"].work(c)
    assert parts == [0.5, 1.0]
    after = last(MODEL.followed(replace(c, layer=2)))
    assert after.layer == 2
    assert after.trials == (found,)
    scene = MODEL.scene(after)
    assert marks(scene.panels[3], Points, "yours")[0].y.tolist() == [80.0]
    assert scene.table.values["yours"]["top-1 (%)"] == 80.0
    assert [MODEL.actions(some)["measure"].shown for some in (c, after)] == [True, False]
    (same,) = MODEL.measured(after)
    assert same(after) == after
    assert MODEL.restored(json.loads(json.dumps(MODEL.state(after)))) == after


def test_one_layers_bits_walk_through_all_pictures(raw):
    c = MODEL.restored({"way": "exact", "budget": 2.5, "layer": 8})
    scene, layers, b = MODEL.scene(c), raw["layers"], c.bits[7]
    rows = [(*c.bits[:7], k, *c.bits[8:]) for k in range(2, 7)]
    kb = [sum(layer["size"] * k for layer, k in zip(layers, row, strict=True)) / 8000 for row in rows]
    rise = [sum(layer["loss rise"][k - 2] for layer, k in zip(layers, row, strict=True)) for row in rows]
    way = marks(scene.panels[2], Line, "with other bits for the layer")[0]
    np.testing.assert_allclose(way.x, kb, rtol=1e-9)
    np.testing.assert_allclose(way.y, rise, rtol=1e-9)
    here = next(m for m in marks(scene.panels[1], Points) if m.moves)
    assert (here.x[0], here.y[0]) == (8, pytest.approx(layers[7]["loss rise"][b - 2], rel=1e-9))
    more, size = layers[7]["loss rise"][b - 1] - layers[7]["loss rise"][b - 2], layers[7]["size"] / 8000
    assert f"At {b + 1} bits: {size:+.3g} kB, Ω {more:+.3g}, {more / size:+.3g} for each kB." in scene.about
    for panel, x, y in ((0, 0.0, 5.2), (1, 0.0, layers[7]["loss rise"][3]), (2, kb[3], rise[3])):
        assert MODEL.dragged(c, panel, 3, 0, x, y).bits == rows[3], panel
    for panel in (2, 3):
        place = marks(scene.panels[panel], Points)[0]
        assert place.x[0] == pytest.approx(2.5 * sum(layer["size"] for layer in layers) / 8000)
        moved = MODEL.dragged(c, panel, scene.panels[panel].marks.index(place), 0, 1.2 * place.x[0], 0.0)
        assert (moved.budget, moved.bits) == (3.0, COSTS.spent("exact", "loss rise", 3.0))


def test_hands_and_budgets():
    c = MODEL.restored({"way": "exact", "budget": 2.5})
    assert MODEL.settled(c, replace(c, layer=7)).width == c.bits[6]
    moved = MODEL.settled(replace(c, layer=7, width=c.bits[6]), replace(c, layer=7, width=6))
    assert (moved.way, moved.bits[6], moved.bits[:6]) == (HAND, 6, c.bits[:6])
    assert MODEL.settled(moved, replace(moved, budget=2.0)).bits == moved.bits
    assert "over the budget" in MODEL.scene(replace(moved, bits=(6,) * LAYERS)).about
    for far in (-1e9, 1e9):
        assert MODEL.dragged(c, 0, 2, 0, 0.0, far).bits[0] in (2, 6)
    for preset in MODEL.presets.values():
        assert MODEL.restored(preset).way != HAND
    with pytest.raises(ValueError, match="20 layers"):
        MODEL.restored({"bits": [2, 3]})
    with pytest.raises(ValueError, match="a trial has"):
        MODEL.restored({"trials": [{"bits": [2] * LAYERS}]})


@given(
    st.sampled_from([2.0, 6.0]),
    st.sampled_from(["all equal", "greedy", "exact", HAND]),
    st.sampled_from(list(COSTS.omega)),
    st.sampled_from([1, LAYERS]),
    st.sampled_from([(), (2,) * LAYERS, (6,) * LAYERS]),
)
@FEW
def test_every_extreme_gives_a_finite_picture(budget, way, estimate, layer, bits):
    c = replace(MODEL.start, budget=budget, way=way, estimate=estimate, layer=layer, bits=bits)
    c = MODEL.followed(c)
    for panel in MODEL.scene(c).panels:
        for axis in (panel.x, panel.y):
            assert np.isfinite([axis.low, axis.high]).all()
            assert axis.low < axis.high
        for mark in panel.marks:
            assert all(np.isfinite(v).all() for v in vars(mark).values() if isinstance(v, np.ndarray))
