"""Layers that were made to have a fault each, and the sentence that names it."""

import math
from dataclasses import replace

import pytest
import torch

from qviz.core.grids import uniform
from qviz.core.groups import Grouped
from qviz.core.quantizer import Quantizer
from qviz.core.range import MSE, Fixed, MinMax
from qviz.inspection.causes import causes, once
from qviz.inspection.views import Cause, LayerView, Outputs
from qviz.methods.daq import daq_weight
from qviz.methods.lsq import lsq
from tests.inspection.made import layer, randn
from tests.inspection.small import inspection


def cause(view: LayerView, kind: str) -> Cause:
    """The one cause of a kind."""
    (found,) = [one for one in view.causes if one.kind == kind]
    return found


def kinds(view: LayerView) -> list[str]:
    return [one.kind for one in view.causes]


def wide() -> torch.Tensor:
    """Weights of a linear layer, of which one channel reaches 380 times as far as the narrowest."""
    w = randn(16, 64)
    w[5] *= 380 * w.abs().amax(1)[torch.arange(16) != 5].min() / w[5].abs().max()
    return w


def test_one_channel_is_380_times_wider() -> None:
    w = wide()
    x = randn(64, 16, 9, 9, seed=1) / w.abs().amax(1)[:, None, None]  # depthwise: all outputs count alike
    view = layer(w.view(16, 1, 8, 8), x, Quantizer(uniform(4), range=MinMax()), top=1)
    found = cause(view, "channel spread")
    assert math.isclose(found.figure, 380, rel_tol=1e-5)
    gain = next(trial.gain for trial in view.trials if trial.what == "a step for each output channel")
    text = "one channel of the weight is 380 times wider than the narrowest, and all share one step: "
    assert found.text == f"{text}a step for each would give {gain:+.1f} dB"
    assert gain > 10


def test_steps_of_their_own_leave_nothing_to_say_of_the_spread() -> None:
    for q in (Quantizer(uniform(4), range=MSE(0)), Quantizer(uniform(4), range=Grouped(32)), daq_weight(4)):
        assert "channel spread" not in kinds(layer(wide(), randn(64, 64, seed=1), q))


def test_channels_that_become_0() -> None:
    w = randn(16, 64)
    w /= w.abs().amax(1, keepdim=True)
    w[:5] *= 0.45
    w[5:9] *= 0.55
    found = cause(layer(w, randn(64, 64, seed=1), Quantizer(uniform(4), range=Fixed(1.0))), "lost channels")
    assert found.figure == 5 / 16
    assert found.text == (
        "5 of 16 output channels are read as 0 altogether: no value in them reaches half a step"
    )


def test_41_percent_of_the_inputs_saturate() -> None:
    x = torch.rand(100, 8, generator=torch.Generator().manual_seed(0)) * 1.5
    x.view(-1)[torch.arange(800) % 100 < 41] += 1.6
    view = layer(randn(4, 8), x, act=Quantizer(uniform(4, signed=False), range=Fixed(0.1)), top=1)
    found = cause(view, "saturation")
    assert found.figure == 0.41
    assert found.text.startswith("41 % of the inputs saturate: the step of least squared error would give +")


def test_7_of_16_levels_serve_no_value() -> None:
    w = 1.5 * randn(32, 64).clamp(-2.9, 2.9)
    found = cause(layer(w, randn(64, 64, seed=1), Quantizer(uniform(4), range=Fixed(1.0))), "unserved levels")
    assert (found.figure, found.text) == (7 / 16, "7 of 16 levels of the weight serve no value")


def test_86_percent_of_the_weights_are_next_to_nothing() -> None:
    w = randn(10, 100)
    w.view(-1)[:860] *= 1e-9
    found = cause(layer(w, randn(32, 100, seed=1), lsq(3)), "tiny weights")
    assert found.figure == 0.86
    assert found.text.startswith("86 % of the weights are below a millionth of the largest")


def test_dead_channels_of_weight_and_input() -> None:
    w, x = randn(8, 12), randn(64, 12, seed=1).abs()
    w[:3], x[:, :4] = 1e-20, 0.0
    view = layer(
        w, x, Quantizer(uniform(3), range=Fixed(2.0)), Quantizer(uniform(3, signed=False), range=Fixed(2.0))
    )
    texts = {one.text for one in view.causes if one.kind == "dead channels"}
    assert {text.partition(",")[0] for text in texts} == {
        "3 of 8 output channels have weights of 0",
        "4 of 12 input channels are 0 in all samples",
    }


def test_negative_inputs_that_are_cut_off() -> None:
    x = randn(500, 8).abs() + 0.2
    x.view(-1)[:1200] *= -1
    with pytest.warns(UserWarning, match="negative"):
        view = layer(randn(4, 8), x, act=Quantizer(uniform(8, signed=False)))
    found = cause(view, "negative inputs")
    assert math.isclose(found.figure, 0.3)
    assert found.text == f"30 % of the inputs are negative, down to {float(x.min()):.3g}, and have no level"


def test_outliers() -> None:
    w = randn(16, 128)
    w[3, 3] = 60.0
    size = w.abs().flatten().sort().values
    found = cause(layer(w, randn(64, 128, seed=1), Quantizer(uniform(4), range=MinMax())), "outliers")
    assert math.isclose(found.figure, float(size[-1] / size[round(0.999 * len(size)) - 1]), rel_tol=1e-6)
    each = layer(w, randn(64, 128, seed=1), Quantizer(uniform(4), range=MinMax(0)))
    u = w / w.abs().amax(1, keepdim=True)
    kurtosis = float((u - u.mean()).pow(4).mean() / u.var(correction=0) ** 2)
    assert ("outliers" in kinds(each)) is (kurtosis > 12)


def test_values_that_are_read_as_0_though_they_are_not() -> None:
    w = randn(16, 64)
    found = cause(layer(w, randn(64, 64, seed=1), Quantizer(uniform(4), range=Fixed(2.5))), "read as zero")
    assert found.figure == float((w.abs() <= 1.25).double().mean())
    assert found.text == f"{100 * found.figure:.0f} % of the weights are read as 0 though they are not"


def test_weight_or_input_is_to_blame() -> None:
    q8 = Quantizer(uniform(8))
    view = layer(randn(8, 64), randn(64, 64, seed=1), Quantizer(uniform(2)), q8)
    o = view.outputs
    assert view.causes[0].text == (
        f"the weight is to blame: {o.weight:.1f} dB with it alone quantized, "
        f"{o.input:.1f} dB with the input alone"
    )
    assert o.weight < 12 < 30 < o.input


def test_bits_are_few_where_nothing_else_is_wrong() -> None:
    (found,) = layer(randn(64, 64), randn(64, 64, seed=1), Quantizer(uniform(3)), top=1).causes
    assert found.text.startswith(
        "3 bits do what they can: the weights have 13.5 dB, a normal distribution would have 14.3"
    )
    assert ": one more would give +5" in found.text


def test_error_that_comes_from_before() -> None:
    view = inspection("lsq", 2)["last"]
    assert kinds(view)[-1] == "before it"
    o = view.outputs
    assert f"{o.cumulative:.1f} dB behind them, {o.local:.1f} dB by itself" in view.causes[-1].text


def from_before(*local: float) -> tuple[tuple[LayerView, ...], str]:
    """Layers of these local ratios, 5 dB behind each other, with their causes."""
    views = [
        LayerView(f"{i}", "Linear", (4, 4), 16, True, outputs=Outputs(db, 5.0, db, db))
        for i, db in enumerate(local)
    ]
    return once([replace(view, causes=causes(view)) for view in views])


def test_error_from_before_is_said_once_where_most_layers_have_it() -> None:
    few, note = from_before(7.0, 6.0, 16.0, 17.0)
    assert ([kinds(view) for view in few], note) == ([[], [], ["before it"], ["before it"]], "")
    most, note = from_before(7.0, 16.0, 17.0)
    assert not any(map(kinds, most))
    text = "Most of the error of 2 of 3 layers comes from the layers before them; by itself the worst is 0, "
    assert note == f"{text}7.0 dB."


def test_what_eight_bits_serve_well_has_no_cause() -> None:
    assert all(not view.causes for view in inspection("ste", 8, first_last="quantized").quantized)
