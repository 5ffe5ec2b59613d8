"""The model of StepExplorer: its curve and its minimum, against a direct computation."""

import numpy as np
import pytest

import qviz
from qviz.explore import StepModel
from qviz.explore.step import StepChoice


def test_the_curve_is_the_mse_of_rounding():
    model = StepModel("stem", bits=3)
    x = qviz.shipped.tensor("stem").double()
    for k in (0, 80, 160):
        step = model.steps[k]
        y = (x / step).round().clamp(-4, 3) * step
        assert model.mse[k] == pytest.approx(float((y - x).square().mean()), rel=1e-4)


def test_the_least_error_is_where_it_is_said_to_be():
    model = StepModel()
    assert model.mse.min() >= model.mse[np.abs(model.steps - model.best).argmin()] * 0.999
    assert f"at {model.best:.4g}" in model.scene(model.start).text


def test_a_dragged_dot_is_the_step_and_stays_on_the_slider():
    model = StepModel()
    slider = model.controls(model.start)["step"]
    moved = model.dragged(model.start, 0, 2, 0, 1.5 * model.best, 0.0)
    assert moved.step == pytest.approx(1.5 * model.best, abs=slider.step)
    for far in (-1.0, 1e9):
        assert slider.accepts(model.dragged(model.start, 0, 2, 0, far, 0.0).step)
    points = model.scene(StepChoice(2 * model.best)).panels[0].marks[-1]
    assert points.x.tolist() == [2 * model.best]
    assert points.y[0] == pytest.approx(np.interp(points.x[0], model.steps, model.mse), rel=1e-2)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="9"):
        StepModel(bits=9)
