"""The model of LutExplorer: codes, accumulators and sums against numpy and the functions of the export."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qviz.explore import LutModel
from qviz.explore.lut import EASY, YOURS
from qviz.explore.lut_walk import METHODS, REGISTER
from qviz.export.lut import post_lut, split_accumulate, table_dot
from qviz.plot.scene import Heat, Points
from tests.explore.finite import finite
from tests.strategies import FEW

MODEL = LutModel()
LAST = replace(MODEL.start, term=8)


def nearest(x, levels):
    return np.abs(x[:, None] - levels).argmin(1)


@pytest.mark.parametrize("method", METHODS)
def test_codes_and_sums_are_those_of_the_nearest_levels(method):
    c = replace(LAST, method=method)
    k = MODEL.walk(c)
    assert k.codes == nearest(k.weights / k.scale, k.levels).tolist()
    assert k.a == np.clip(np.round(k.activations / k.step), 0, 15).astype(int).tolist()
    expected = float(k.levels[k.codes] @ np.array(k.a)) * k.scale * k.step
    assert k.exact(8) == pytest.approx(expected, rel=1e-6)
    assert k.floating(8) == pytest.approx(float(k.weights @ k.activations), rel=1e-12)
    assert k.result(8) == pytest.approx(expected, abs=len(k.multipliers) * 2.0**-k.fraction + 2e-4)
    assert MODEL.headline(c)["integer result"] == k.exact(8)


def test_the_accumulators_of_post_are_those_of_the_export():
    k, lut = MODEL.walk(LAST), post_lut(4)
    codes, a = torch.tensor(k.codes), torch.tensor(k.a)
    sums = split_accumulate(lut, codes, a)
    assert k.accumulators(8) == [sums.even, sums.odd]
    assert k.exact(8) == pytest.approx(float(table_dot(lut, codes, a)) * k.scale * k.step, rel=1e-6)
    heat, dots = (
        next(m for m in MODEL.scene(LAST).panels[2].marks if type(m) is kind) for kind in (Heat, Points)
    )
    assert heat.values == pytest.approx(lut.products.numpy())
    assert heat.values[dots.y.astype(int) - 1, dots.x.astype(int) - 1] == pytest.approx(
        np.abs(k.levels[k.codes] * k.a)[:-1]
    )


def test_registers_are_the_accumulators_in_binary():
    c = replace(MODEL.start, term=5)
    k, panel = MODEL.walk(c), MODEL.scene(c).panels[3]
    ones = [m for m in panel.marks if isinstance(m, Points) and m.role != "data"]
    for row, name in enumerate(panel.y.names, 1):
        total = sum(2 ** (REGISTER - int(x)) for m in ones for x in m.x[m.y == row])
        value = total - 2**REGISTER * (total >= 2 ** (REGISTER - 1))
        part = k.route.parts[k.codes[4]]
        wanted = dict(zip(k.route.names, k.accumulators(5), strict=True))
        assert value == {**wanted, "a": k.a[4], part.text: abs(part.of(k.a[4]))}[name]


def test_a_typed_number_changes_its_own_term_alone():
    c = MODEL.restored({"numbers": EASY, "term": 4})
    made = MODEL.settled(c, replace(c, weight=-0.5))
    before, after = MODEL.walk(c), MODEL.walk(made)
    assert (before.added[3], after.added[3]) == (0, -4 * 7)
    assert [a == b for a, b in zip(before.added, after.added, strict=True)] == [i != 3 for i in range(8)]
    moved = MODEL.settled(made, replace(made, term=1))
    assert (moved.weight, moved.weights) == (1.0, made.weights)
    assert MODEL.restored(json.loads(json.dumps(MODEL.state(made)))) == made
    assert MODEL.dragged(made, 1, 2, 0, 2.2, 9.0).activations[3] == 2.2
    assert MODEL.dragged(made, 4, 3, 0, 6.4, 9.0).term == 6
    other = MODEL.settled(made, replace(made, numbers=MODEL.start.numbers))
    assert other.weights == ()
    with pytest.raises(ValueError, match="8 finite numbers"):
        MODEL.restored({"weights": [1.0, 2.0]})


@pytest.mark.parametrize(
    ("w", "x", "said"),
    [
        ([1.0, float("nan")], [1.0, 2.0], "NaN"),
        ([1.0], [1.0], "one length"),
        ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], "all be alike"),
        ([1, 2], [1.0, 2.0], "floating-point"),
    ],
)
def test_numbers_that_cannot_be_shown_are_left_out_with_a_reason(w, x, said):
    model = LutModel(np.array(w), np.array(x))
    assert said in model.sources.problem
    finite(model.scene(model.start))


def test_arguments_that_make_no_sense_are_refused():
    for kwargs, said in (
        ({"method": "LSQ"}, "unknown method"),
        ({"w": torch.ones(2)}, "only w"),
        ({"bits": 5}, "bits"),
    ):
        with pytest.raises(ValueError, match=said):
            LutModel(**kwargs)


NUMBERS = st.lists(st.floats(-1e3, 1e3, width=32), min_size=3, max_size=3)


@FEW
@given(
    w=NUMBERS, x=NUMBERS, method=st.sampled_from(METHODS), bits=st.integers(2, 4), a_bits=st.integers(1, 4)
)
def test_every_extreme_gives_a_finite_scene(w, x, method, bits, a_bits):
    model = LutModel(torch.tensor(w), torch.tensor(x), method=method, bits=bits)
    c = model.settled(model.start, replace(model.start, a_bits=a_bits, term=3))
    finite(model.scene(c))
    k = model.walk(c)
    assert all(-(2**15) <= v < 2**15 for v in (*k.accumulators(3), *k.multipliers))
    assert c.numbers == YOURS or model.sources.problem
