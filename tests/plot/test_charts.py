"""The numbers of the charts, against the arrays that they were made from."""

import numpy as np
import pytest
import torch

from qviz.plot import charts
from qviz.plot.scene import Band, Bars, Line, Points, Steps


def test_lines_of_one_look_are_broken_between_them():
    y = torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]], requires_grad=True)
    panel = charts.curve({"levels": ([0, 5, 9], y)}, x="step")
    line, points = panel.marks
    np.testing.assert_array_equal(line.x, [0, 5, 9, np.nan, 0, 5, 9])
    np.testing.assert_array_equal(line.y, [1, 2, 3, np.nan, 10, 20, 30])
    np.testing.assert_array_equal(points.y, [1, 2, 3, 10, 20, 30])
    assert panel.text == "levels (2 lines) goes from [1 … 10] at step 0 to [3 … 30] at step 9."


def test_many_points_are_not_marked():
    kinds = [type(mark) for mark in charts.curve({"a": (range(25), range(25))}).marks]
    assert kinds == [Line]


def test_a_gap_is_left_out_of_text_and_limits():
    panel = charts.curve({"a": ([0, 1, 2], [np.nan, 4.0, 8.0])}, references={"best": 9.0})
    assert panel.text == "a goes from 4 at step 1 to 8 at step 2. best is 9."
    assert panel.y.low < 4 < 9 < panel.y.high
    assert panel.marks[-1].role == "ideal"
    assert panel.marks[-1].y.tolist() == [9.0, 9.0]


def test_on_a_logarithmic_axis_what_is_not_positive_is_a_gap():
    panel = charts.curve({"scale": ([0, 1, 2, 3], [1e-2, 0.0, -1.0, 1e2])}, log=True)
    np.testing.assert_array_equal(panel.marks[0].y, [1e-2, np.nan, np.nan, 1e2])
    assert panel.y.log
    assert panel.y.low == pytest.approx(10 ** (-2 - 0.06 * 4))
    assert panel.y.high == pytest.approx(10 ** (2 + 0.06 * 4))


def test_a_band_goes_with_its_line():
    panel = charts.curve({"a": ([0, 1], [1.0, 2.0])}, bands={"a": ([0.0, 1.0], [2.0, 5.0])})
    band = panel.marks[0]
    assert isinstance(band, Band)
    assert (band.low.tolist(), band.high.tolist(), band.role) == ([0, 1], [2, 5], panel.marks[1].role)
    assert panel.y.high > 5
    with pytest.raises(ValueError, match="bands has 'b', which lines has not"):
        charts.curve({"a": ([0], [1.0])}, bands={"b": ([0.0], [1.0])})


def test_shares_of_a_histogram_are_of_all_values():
    x = np.array([0.0, 0.5, 1.0, 9.0])
    (steps,) = charts.histogram({"x": x}, bins=2, xlim=(0, 1)).marks
    assert isinstance(steps, Steps)
    assert steps.heights.tolist() == [25.0, 50.0]


def test_correlation_of_a_scatter():
    rng = np.random.default_rng(0)
    x = rng.normal(size=50)
    y = x + rng.normal(size=50)
    panel = charts.scatter({"a": (x, y)})
    assert isinstance(panel.marks[0], Points)
    assert f"correlation {np.corrcoef(x, y)[0, 1]:.2f}" in panel.text
    assert "correlation" not in charts.scatter({"a": (x, np.ones(50))}).text


def test_layers_stand_at_their_numbers():
    one = charts.by_layer({"bits": [4, 2, 3]})
    assert isinstance(one.marks[0], Bars)
    assert one.marks[0].edges.tolist() == [0.5, 1.5, 2.5, 3.5]
    assert (one.y.low, one.y.high > 4) == (0.0, True)
    two = charts.by_layer({"a": [-1, 2], "b": [1, 0]})
    assert {type(mark) for mark in two.marks} == {Steps}
    assert two.y.low < -1


def test_an_array_needs_no_name():
    row, many = [3.0, 1.0, 2.0], torch.randn(4, 100)
    curves = [charts.curve(a, y="loss") for a in ({"loss": np.array(row)}, row, (range(3), row))]
    curves.append(charts.curve(range(3), row, y="loss"))
    assert {panel.text for panel in curves} == {"loss goes from 3 at step 0 to 2 at step 2, between 1 and 3."}
    assert charts.histogram(many).text == charts.histogram({"x": many}).text
    assert charts.histogram(many.numpy()[0], x="w").text.startswith("w: 100 values")
    assert charts.scatter(np.arange(3), row).text == charts.scatter({"y": (np.arange(3), row)}).text
    assert charts.by_layer(row, y="bits").text == charts.by_layer({"bits": row}).text


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: charts.curve({"a": 1.0}), r"'a' must be a pair \(x, y\) or numbers y, got a float: give a"),
        (lambda: charts.curve({"a": "loss"}), "give an array of numbers .*, got a str in place"),
        (
            lambda: charts.scatter([1.0, 2.0, 3.0]),
            r"'y' must be a pair \(x, y\), got a list of 3: give a mapping",
        ),
        (lambda: charts.histogram([[1.0], [1.0, 2.0]]), "mapping from names to such, got a list in place"),
        (lambda: charts.by_layer({"a": {"b": 1}}), "got a dict in place"),
    ],
)
def test_what_is_no_array_is_refused_in_a_sentence(call, told):
    with pytest.raises(TypeError, match=told):
        call()


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: charts.curve({}), "1 to 6 of them, got 0"),
        (lambda: charts.curve({"a": ([0, 1], [1.0])}), r"'a' needs x of shape \(R,\)"),
        (lambda: charts.curve({"a": ([0, 1], [np.nan, np.nan])}), "no finite y"),
        (lambda: charts.curve({"a": ([0, 1], [0, 1])}, ylim=(1, 0)), r"ylim must .* got \(1, 0\)"),
        (lambda: charts.histogram({"a": [1.0, np.inf]}), "'a' is empty, or has values"),
        (lambda: charts.histogram({"a": [1.0]}, bins=0), "bins must be positive, got 0"),
        (lambda: charts.scatter({"a": ([1.0], [1.0, 2.0])}), r"must have shape \(1,\), got \(2,\)"),
        (lambda: charts.by_layer({"a": [1], "b": [1, 2]}), "'b' has 2 layers where the first row has 1"),
        (lambda: charts.by_layer({"a": [1]}, names=["x", "y"]), "'names' has 2 layers"),
    ],
)
def test_unfit_arrays_are_refused_by_name(call, told):
    with pytest.raises(ValueError, match=told):
        call()
