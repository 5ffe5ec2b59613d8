"""What is tried on a layer by itself, against plain torch code."""

import math

import pytest
import torch
from torch import Tensor, nn

from qviz.core.grids import uniform
from qviz.core.groups import Affine
from qviz.core.quantizer import Quantizer
from qviz.core.range import MSE, MinMax
from qviz.inspection import LayerView, inspect
from qviz.inspection.views import Trial
from qviz.inspection.words import trials as lines
from qviz.nn.ptq.front import ptq
from tests.inspection.made import layer, randn
from tests.inspection.small import inspection
from tests.nn.small_nets import QUANTIZED
from tests.slow import slow


def trial(view: LayerView, what: str) -> Trial:
    """The one trial of a name."""
    (found,) = [one for one in view.trials if one.what == what]
    return found


def nearest(w: Tensor, bits: int) -> Tensor:
    """Each row at the best of many steps."""
    half = 2 ** (bits - 1)
    rows = []
    for row in w:
        steps = float(row.abs().max()) / half * torch.linspace(0.2, 1.5, 4000)[:, None]
        tried = (row / steps).round().clamp(-half, half - 1) * steps
        rows.append(tried[(tried - row).square().sum(1).argmin()])
    return torch.stack(rows)


def db(y: Tensor, z: Tensor) -> float:
    return 10 * math.log10(float(y.square().sum() / (z - y).square().sum()))


def test_gains_of_a_step_for_each_channel_and_of_one_bit() -> None:
    w, x = randn(8, 32) * torch.logspace(-1, 0.5, 8)[:, None], randn(80, 32, seed=1)
    view = layer(w, x, Quantizer(uniform(4), range=MinMax()), top=1)
    seen = x[40:]  # steps are set on the first half
    step = max(float(w.max()) / 7, -float(w.min()) / 8)
    now = db(seen @ w.T, seen @ ((w / step - 0.5).ceil().clamp(-8, 7) * step).T)
    each = trial(view, "a step for each output channel")
    assert math.isclose(each.db, db(seen @ w.T, seen @ nearest(w, 4).T), abs_tol=0.02)
    assert math.isclose(each.gain, each.db - now, abs_tol=0.02)
    more = trial(view, "one bit more for the weight")
    assert math.isclose(more.db, db(seen @ w.T, seen @ nearest(w.view(1, -1), 5).view_as(w).T), abs_tol=0.02)


def test_gains_of_the_input() -> None:
    w, x = randn(8, 32), randn(80, 32, seed=1)
    view = layer(w, x, act=Quantizer(uniform(4), range=Affine()), top=1)
    step = trial(view, "the input's step of least squared error")
    assert step.note == "its range has an offset, for which there is no search of the least error"
    more = trial(view, "one bit more for the input")
    low, high = float(x[:40].min()), float(x[:40].max())
    scale = (high - low) / 31
    zero = round(low / scale)
    read = ((x[40:] / scale - zero).round().clamp(0, 31) + zero) * scale
    assert math.isclose(more.db, db(x[40:] @ w.T, read @ w.T), abs_tol=0.02)


@pytest.mark.slow
def test_the_closed_form_is_measured_on_samples_that_it_has_not_seen() -> None:
    w = randn(16, 32)
    x = randn(4000, 8, seed=1) @ randn(8, 32, seed=2) + 0.1 * randn(4000, 32, seed=3)
    gains = []
    for rows in (x, torch.cat([x[:2000], randn(2000, 32, seed=4)])):
        gains.append(trial(layer(w, rows, Quantizer(uniform(3)), top=1), "closed-form rounding (gptq)").gain)
    assert gains[0] > 3
    assert gains[1] < 1
    few = layer(w, x[:60], Quantizer(uniform(3)), top=1)
    assert trial(few, "closed-form rounding (gptq)").note == "30 places are too few for 32 inputs an output"


OFTEN = ("daq", "asq", "adq")


@pytest.mark.parametrize("recipe", [*OFTEN, *slow(*sorted(set(QUANTIZED) - set(OFTEN)))])
def test_each_recipe_has_a_gain_or_a_sentence(recipe: str) -> None:
    for view in inspection(recipe, 4, sensitivity=False).quantized:
        assert len(view.trials) >= 6
        for one in view.trials:
            assert math.isfinite(one.gain) if one.gain is not None else len(one.note) > 10
            assert one.gain is None or view.name != "wide" or one.gain > -8


@pytest.mark.slow
def test_the_grid_that_a_layer_has_is_no_trial() -> None:
    tried = {one.what for one in inspection("ste", 4)["wide"].trials if one.what.endswith(" levels")}
    assert tried == {"POT levels", "POST levels", "APoT levels", "Lloyd levels"}
    assert "uniform levels" in {one.what for one in inspection("post", 4)["wide"].trials}


@pytest.mark.slow
def test_why_something_cannot_be_had() -> None:
    whys = {one.what: one.note for one in inspection("daq", 4)["wide"].trials if one.gain is None}
    assert whys["one bit more for the weight"] == "its quantizer gives what it reads a unit of its own"
    whys = {one.what: one.note for one in inspection("ste", 8)["wide"].trials if one.gain is None}
    assert (
        whys["one bit more for the weight"] == whys["one bit more for the input"] == "it has 8 bits already"
    )
    view = layer(randn(8, 32), randn(80, 32, seed=1), Quantizer(uniform(4), range=MSE(0)), top=1)
    assert trial(view, "a step for each output channel").note == "it has steps of that kind already"


def test_after_ptq_trials_start_at_the_float_weight() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)
    ).eval()
    images = randn(64, 3, 10, 10)
    report = ptq(net.eval(), images, w_bits=3, method="closed-form", gate=False, show=False)
    view = inspect(net, images, reference=report.reference, sensitivity=False)["2"]
    found = trial(view, "one bit more for the weight")
    assert found.note == "of the weight in floating point"
    assert trial(view, "the weight's step of least squared error").gain < 0 < found.gain


def test_lines_begin_with_what_gained_most() -> None:
    view = inspection("lsq", 4)["wide"]
    gains = sorted((one.gain for one in view.trials if one.gain is not None), reverse=True)
    found = lines(view)
    assert found[0].startswith("tried: ")
    assert f"{gains[0]:+.1f} dB; " in found[0].partition(f"{gains[1]:+.1f} dB; ")[0]
    idle = [gain for gain in gains if gain < 1]
    assert found[1].startswith(f"tried, {idle[-1]:+.1f} to {idle[0]:+.1f} dB: ")
