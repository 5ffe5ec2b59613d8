"""The model of StepExplorer: curves, pulls and descents, against the papers' formulas written out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qviz import shipped
from qviz.explore import StepModel, photos
from qviz.explore.descent import ASQ_RATES, METHODS, RATE, Descent
from qviz.explore.photos import fogged
from qviz.explore.step_data import LARGEST, SAMPLES
from qviz.explore.step_place import ITERATIONS
from qviz.plot.scene import Line, Points, Rug, Rule, Steps
from tests.explore.finite import finite
from tests.strategies import FEW

STEM = shipped.tensor("act_stem")[:96]
MODEL = StepModel(STEM, bits=3)
LSQ = MODEL.start
PACT = MODEL.settled(LSQ, replace(LSQ, method="PACT"))
ASQ = MODEL.settled(LSQ, replace(LSQ, method="ASQ"))
X = STEM.double().numpy()


def marks(panel, kind, role=None):
    return [m for m in panel.marks if isinstance(m, kind) and role in (None, m.role)]


def rounded(x, step, top=7):
    return np.clip(np.ceil(x / step - 0.5), 0, top) * step


def split(x, step, top=7):
    """Clipping and rounding parts of the MSE."""
    error, out = (rounded(x, step, top) - x) ** 2, x > top * step
    return error[out].sum() / x.size, error[~out].sum() / x.size


def adam(start, rate, gradient, count):
    """Adam with the betas 0.9 and 0.95, written out; ``gradient`` of the present value."""
    value, m, v, way = np.asarray(start, dtype=np.float64), 0.0, 0.0, [start]
    for t in range(1, count + 1):
        g = gradient(value)
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
        value = value - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.95**t)) + 1e-8)
        way.append(float(value))
    return np.array(way)


def lsq_pulls(step, x=X, top=7):
    """LSQ's gradient of the MSE, equation (3) and section 2.2: from inside the range, and from outside."""
    u, push = x / step, 2 * (rounded(x, step, top) - x) / x.size
    inside, factor = u <= top, 1 / np.sqrt(x.size * top)
    return (push * (np.round(u) - u))[inside].sum() * factor, (push * top)[~inside].sum() * factor


def test_the_curves_and_the_table_are_those_of_rounding():
    c = replace(LSQ, step=MODEL.curves(LSQ).slider.nearest(0.2))
    error, _, _ = MODEL.scene(c).panels
    total, clipping, rounding = marks(error, Line)
    for k in (0, 60, 100):
        cut, rest = split(X, total.x[k])
        assert total.y[k] == pytest.approx(cut + rest, rel=1e-6)
        assert clipping.y[k] == pytest.approx(cut, rel=1e-6)
        assert rounding.y[k] == pytest.approx(rest, rel=1e-6)
    least = marks(error, Rule)[0].at
    assert total.y.min() >= sum(split(X, least)) * 0.999
    values = MODEL.scene(c).table.values
    for name, step in (("start", c.step), ("now", c.step), ("least error", least)):
        cut, rest = split(X, np.float32(step))
        assert values["clipping"][name] == pytest.approx(cut, rel=1e-5)
        assert values["rounding"][name] == pytest.approx(rest, rel=1e-5)
        noise = 10 * np.log10(np.mean(X**2) / (cut + rest))
        assert values["SQNR (dB)"][name] == pytest.approx(noise, abs=1e-4)
        assert values["MSE"][name] == values["clipping"][name] + values["rounding"][name]


def test_lsq_pulls_and_way_are_equation_3_and_adam():
    place = MODEL.place(LSQ)
    rounding, clipping = lsq_pulls(LSQ.step)
    assert clipping < 0 < rounding
    assert place.rounding == pytest.approx(rounding, rel=1e-4)
    assert place.clipping == pytest.approx(clipping, rel=1e-4)
    best = MODEL.curves(LSQ).best
    way = adam(LSQ.step, RATE * best, lambda s: sum(lsq_pulls(s)), 12)
    scene = MODEL.scene(replace(LSQ, iteration=12))
    assert marks(scene.panels[2], Line)[0].y == pytest.approx(way, rel=1e-4)
    assert marks(scene.panels[0], Points, "d")[0].x == pytest.approx(way[-1:], rel=1e-4)


def test_pact_is_never_pulled_by_rounding():
    def pull(alpha):
        return -2 * (X - alpha)[alpha < X].sum() / X.size

    c = replace(PACT, step=MODEL.curves(PACT).slider.nearest(0.15), decay=0.0003, iteration=12)
    place = MODEL.place(replace(c, iteration=0))
    assert place.rounding == 0.0
    assert place.clipping == pytest.approx(pull(7 * c.step), rel=1e-4)
    way = adam(7 * c.step, RATE * 7 * MODEL.curves(c).best, lambda a: pull(a) + 2 * 0.0003 * a, 12)
    assert marks(MODEL.scene(c).panels[2], Line)[0].y * 7 == pytest.approx(way, rel=1e-4)
    free = replace(c, decay=0.0, iteration=ITERATIONS)
    steps = marks(MODEL.scene(free).panels[2], Line)[0].y
    assert (np.diff(steps) >= 0).all()  # without a regularizer the clip only grows


def test_asq_is_the_straight_through_form_in_plain_autograd():
    x, best = MODEL.samples(ASQ).x, MODEL.curves(ASQ).best
    start = Descent("ASQ", x, 3, ASQ.step, best).q.range
    w1, w2 = (start.adapter[i].weight.detach().clone().requires_grad_() for i in (0, 2))
    b1, b2 = (start.adapter[i].bias.detach().clone().requires_grad_() for i in (0, 2))
    s = torch.tensor(ASQ.step, requires_grad=True)
    factor = 1 / np.sqrt(x.numel() * 7)
    groups = [{"params": [s], "lr": ASQ_RATES[0] * best}, {"params": [w1, b1, w2, b2], "lr": ASQ_RATES[1]}]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.95))
    for k in range(4):
        beta = torch.relu(torch.relu(x @ w1.T + b1) @ w2.T + b2)[:, 0]
        scaled = s.detach() + (s - s.detach()) * factor
        u = (x / (scaled * beta)[:, None]).clamp(0, 7)
        y = (u + (u.round() - u).detach()) * (scaled * beta)[:, None]
        assert MODEL.descent(ASQ).at(k).steps.numpy() == pytest.approx((s * beta).detach().numpy(), rel=1e-4)
        loss = ((y - x).square().sum(1) / x.square().sum(1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_asq_pictures_show_each_sample_at_its_own_step():
    c = replace(ASQ, iteration=30, a=2, b=SAMPLES - 1)
    scene, place, found = MODEL.scene(c), MODEL.place(c), MODEL.samples(c)
    error, values, betas = scene.panels
    assert (np.diff(found.best) >= 0).all()
    for role, i in (("a", 1), ("b", SAMPLES - 2)):
        x, own = found.x[i].double().numpy(), float(place.steps[i])
        curve, dot = marks(error, Line, role)[0], marks(error, Points, role)[0]
        assert curve.y[70] == pytest.approx(sum(split(x, curve.x[70])), rel=1e-6)
        assert dot.y[0] == pytest.approx(sum(split(x, own)), rel=1e-6)
        row = scene.table.values[role.upper()]
        noise = [10 * np.log10(np.mean(x**2) / sum(split(x, s))) for s in (c.step, own)]
        assert [row["SQNR"], row["SQNR, s β"]] == pytest.approx(noise, abs=1e-6)
        assert marks(values, Rug, role)[0].x[:3] == pytest.approx(own * np.arange(3), abs=1e-9)
        outline = marks(values, Steps, role)[0]
        inside = ((x > outline.edges[3]) & (x <= outline.edges[4])).mean() * 100
        assert outline.heights[3] == pytest.approx(inside, abs=1e-9)
    wanted, got = marks(betas, Points, "data")[0], marks(betas, Points, "c")[0]
    assert wanted.x == pytest.approx(found.x.double().mean(1).numpy(), rel=1e-6)
    assert got.y == pytest.approx(place.steps.numpy() / place.learned, rel=1e-9)
    assert wanted.y == pytest.approx(found.best / place.learned, rel=1e-9)
    sse = [sum(split(x, float(s))) for x, s in zip(found.x.double().numpy(), place.steps, strict=True)]
    whole = 10 * np.log10(float((found.x.double() ** 2).mean()) / np.mean(sse))
    assert MODEL.headline(c)["SQNR with s β(x) (dB)"] == pytest.approx(float(whole), abs=1e-6)


@pytest.mark.parametrize(("x", "code"), [(0.5, None), (9.0, 7), (-0.1, 0)])
@pytest.mark.parametrize("c", [LSQ, PACT], ids=["LSQ", "PACT"])
def test_one_number_goes_through(c, x, code):
    c = replace(c, x=x)
    number, step = MODEL.number(c), float(np.float32(c.step))
    u = x / step
    code = round(min(max(u, 0), 7)) if code is None else code
    inside = 0 <= u <= 7
    assert number["u"] == pytest.approx(u, rel=1e-6)
    assert (number["code"], number["dydx"]) == (code, float(inside))
    assert number["y"] == pytest.approx(code * step, rel=1e-6)
    slope = code - u * inside if c.method == "LSQ" else float(u > 7)
    assert number["slope"] == pytest.approx(slope, rel=1e-5, abs=1e-6)


def test_what_is_dragged_moves_and_the_descent_starts_anew():
    slider = MODEL.curves(LSQ).slider
    went = replace(LSQ, iteration=40)
    moved = MODEL.dragged(went, 0, 5, 0, 1.5 * slider.low, 0.0)
    assert (moved.step, moved.iteration) == (slider.nearest(1.5 * slider.low), 0)
    for far in (-1.0, 1e9):
        assert slider.accepts(MODEL.dragged(went, 0, 5, 0, far, 0.0).step)
    panel = MODEL.scene(LSQ).panels[1]
    kinds = {m.label: i for i, m in enumerate(panel.marks)}
    clip = MODEL.dragged(went, 1, kinds["clip"], 0, 7 * 20 * slider.step, 0.0)
    assert (clip.step, clip.iteration) == (pytest.approx(20 * slider.step), 0)
    number = MODEL.dragged(went, 1, kinds["number x"], 0, 0.777, 0.0)
    assert (number.x, number.iteration) == (0.777, 40)


def test_methods_and_tensors_follow_each_other():
    model = StepModel()
    assert model.settled(model.start, replace(model.start, method="ASQ")).tensor == photos.NAME
    on_photos = StepModel(method="ASQ").start
    back = model.settled(on_photos, replace(on_photos, tensor="expand (real)"))
    assert (back.method, back.iteration) == ("LSQ", 0)
    with pytest.raises(ValueError, match="not negative"):
        StepModel(method="PACT", tensor="expand (real)")
    with pytest.raises(ValueError, match="unknown method"):
        StepModel(method="DAQ")
    with pytest.raises(ValueError, match="9"):
        StepModel(bits=9)


def test_presets_and_states_can_be_restored():
    for model in (MODEL, StepModel()):
        for name, state in model.presets.items():
            made = model.restored(state)
            assert {k: getattr(made, k) for k in state} == state, name
            assert model.restored(model.state(made)) == made


def test_fog_keeps_the_mean_and_lowers_the_contrast():
    images = torch.randint(0, 256, (2, 3, 8, 8), generator=torch.Generator().manual_seed(1)).byte()
    out = fogged(images, 0.25).double()
    assert out.mean((2, 3)).numpy() == pytest.approx(images.double().mean((2, 3)).numpy(), abs=0.5)
    spread = [x.std((2, 3)) for x in (out, images.double())]
    assert (spread[0] / spread[1]).numpy() == pytest.approx(0.25, rel=0.02)


OWN = {
    "signed": torch.randn(30, generator=torch.Generator().manual_seed(0)),
    "rows": torch.rand(6, 9, generator=torch.Generator().manual_seed(1)) ** 3,
    "dead rows": torch.eye(4),
    "constant": torch.full((3, 2), 0.5),
    "zeros": torch.zeros(5, 2),
    "one": torch.tensor([-0.3]),
    "tiny": torch.rand(4, 3, generator=torch.Generator().manual_seed(2)) * 1e-20,
}
MODELS = {name: StepModel(x) for name, x in OWN.items()}


@FEW
@given(
    name=st.sampled_from(list(OWN)),
    method=st.sampled_from(METHODS),
    bits=st.sampled_from([2, 5, 8]),
    end=st.sampled_from(["low", "high"]),
    iteration=st.sampled_from([0, 1, 30]),
    decay=st.sampled_from([0.0, 0.002]),
    a=st.sampled_from([1, SAMPLES]),
    x=st.sampled_from([0.0, -1e30, 1e30]),
)
def test_every_extreme_gives_a_finite_scene(name, method, bits, end, iteration, decay, a, x):
    model = MODELS[name]
    c = model.settled(model.start, replace(model.start, bits=bits))
    wanted = replace(c, method=method)
    c = model.settled(c, wanted) if model.fits(wanted) else c
    c = model.settled(c, replace(c, step=getattr(model.curves(c).slider, end), decay=decay, a=a, x=x))
    c = replace(c, iteration=iteration)
    scene = model.scene(c)
    finite(scene)
    assert scene.text
    assert all(isinstance(v, float) for v in model.headline(c).values())


def test_an_array_that_cannot_be_shown_is_left_out():
    for x in ([1.0, np.nan], [1e30, -1e30, 5.0]):
        model = StepModel(np.array(x))
        assert "left out" in model.sources.problem
        finite(model.scene(replace(model.start, iteration=ITERATIONS)))


def test_the_largest_values_that_are_taken_can_be_descended_on():
    model = StepModel(np.array([LARGEST, -LARGEST, 5.0]))
    assert model.sources.problem == ""
    for bits in (2, 8):
        c = model.settled(model.start, replace(model.start, bits=bits))
        finite(model.scene(replace(c, iteration=ITERATIONS)))
