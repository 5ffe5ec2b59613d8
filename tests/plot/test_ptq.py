"""The numbers of the pictures of post-training quantization."""

import numpy as np
import pytest
import torch

from qviz.core.grids import uniform
from qviz.methods.aquant import AdaptiveBorder, thresholds
from qviz.plot import ptq
from qviz.plot.scene import Bars, Line, Points


def test_a_ladder_joins_the_variants_of_a_method_and_tells_them():
    panel = ptq.ladder(
        {"nearest": [(1.0, 40.0), (4.0, 75.0)], "learned": [(100.0, 84.0)]}, references={"FP32": 92.0}
    )
    line, points, _, other, level = panel.marks
    assert (line.role, line.x.tolist(), line.y.tolist()) == (points.role, [1, 4], [40, 75])
    assert (other.label, other.x.tolist(), other.y.tolist()) == ("learned", [100], [84])
    assert (level.label, level.y.tolist(), level.x.tolist()) == (
        "FP32",
        [92, 92],
        [panel.x.low, panel.x.high],
    )
    assert panel.x.log
    assert panel.x.low < 1 < 100 < panel.x.high
    assert panel.y.low < 40 < 92 < panel.y.high
    assert panel.text == "nearest: 40 in 1, 75 in 4. learned: 84 in 100. FP32 is 92."


@pytest.mark.parametrize(
    ("rungs", "match"),
    [
        ({}, "1 to 6 of them, got 0"),
        ({"a": []}, "'a' is empty"),
        ({"a": [(1.0, float("nan"))]}, "NaN or infinite"),
        ({"a": [(0.0, 1.0)]}, "times must be positive, got 0 for 'a'"),
    ],
)
def test_what_is_no_ladder(rungs, match):
    with pytest.raises(ValueError, match=match):
        ptq.ladder(rungs)


def test_errors_by_block_leave_out_zeros_and_share_limits():
    panel = ptq.parts_by_block(
        {"weights": [1.0, 0.25, 4.0], "before it": [0.0, 2.0, 1.0]}, names=["a", "b", "c"], ylim=(0.1, 10.0)
    )
    line, points, other, others = panel.marks
    assert (line.x.tolist(), line.y.tolist()) == ([1, 2, 3], [1, 0.25, 4])
    np.testing.assert_array_equal(other.y, [np.nan, 2, 1])
    assert (others.x.tolist(), others.y.tolist()) == ([2, 3], [2, 1])
    assert points.role == line.role != others.role
    assert (panel.y.log, panel.y.low, panel.y.high) == (True, 0.1, 10)
    assert panel.text == "weights: largest in c (4), together 5.25. before it: largest in b (2), together 3."


@pytest.mark.parametrize(
    ("parts", "match"),
    [
        ({"a": [1.0, 2.0], "b": [1.0]}, "'b' must be 2 numbers"),
        ({"a": [1.0, -2.0]}, "not negative"),
        ({"a": [0.0, 0.0]}, "all errors are 0"),
    ],
)
def test_what_has_no_errors_to_show(parts, match):
    with pytest.raises(ValueError, match=match):
        ptq.parts_by_block(parts)


def test_a_border_crosses_the_fraction_at_its_thresholds():
    rounding = AdaptiveBorder(3)
    with torch.no_grad():
        rounding.b.copy_(torch.tensor([0.4, -1.8, 1.35]))
    u = np.linspace(0, 3, 3001)
    height = rounding.element(torch.tensor(u), uniform(2, signed=False)).detach()
    cuts = thresholds(rounding, uniform(2, signed=False))
    x = torch.tensor([-1.0, 0.0, 0.01, 0.02, 1.5, 3.0, 9.0])
    panel = ptq.border(x, {"B": (u, height)}, {"B": cuts}, levels=4)
    bars, saw, line, points = panel.marks
    assert [type(mark) for mark in panel.marks] == [Bars, Line, Line, Points]
    assert (len(bars.heights), bars.heights.max(), bars.heights[0]) == (60, 1, 1)
    assert bars.heights.sum() == 1.5  # two values in the first bin, one in another, none of the others
    at = ~np.isnan(saw.x)
    np.testing.assert_array_equal(saw.x[at], [0, 1, 1, 2, 2, 3])
    np.testing.assert_array_equal(saw.y[at], [0, 1, 0, 1, 0, 1])
    np.testing.assert_allclose(points.y, np.interp(points.x, line.x, line.y), atol=1e-3)
    np.testing.assert_allclose(points.y, points.x - [0, 1, 2])
    assert "43% of the values" in panel.text
    assert "thresholds 0.531, 1.46, 2.46." in panel.text


def test_what_is_no_border():
    with pytest.raises(ValueError, match="two levels to round between, got 1"):
        ptq.border([1.0], {"B": ([0.0], [0.5])}, levels=1)
    with pytest.raises(ValueError, match=r"one shape \(R,\), got \(2,\) and \(1,\)"):
        ptq.border([1.0], {"B": ([0.0, 1.0], [0.5])}, levels=4)
    with pytest.raises(ValueError, match="'B' must be 3 thresholds, got 1"):
        ptq.border([1.0], {"B": ([0.0], [0.5])}, {"B": [0.5]}, levels=4)
    with pytest.raises(ValueError, match="thresholds has 'C', which borders has not"):
        ptq.border([1.0], {"B": ([0.0], [0.5])}, {"C": [0.5]}, levels=2)
