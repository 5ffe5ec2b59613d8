"""The numbers of bars side by side, against the arrays that they were made from."""

import numpy as np
import pytest

from qviz.plot.groups import WIDE, bars
from qviz.plot.scene import Bars

ROWS = {"codes": [2.0, 2.0, 2.0], "file": [3.0, 4.0, 2.5]}
NAMES = ["LSQ", "POST", "ADQ"]


def test_every_bar_has_its_number_and_lies_in_the_place_of_its_group():
    panel = bars(ROWS, NAMES, y="kB")
    assert {type(mark) for mark in panel.marks} == {Bars}
    assert [float(mark.heights[0]) for mark in panel.marks] == [*ROWS["codes"], *ROWS["file"]]
    assert [mark.label for mark in panel.marks] == ["codes", "", "", "file", "", ""]
    for k, (one, other) in enumerate(zip(panel.marks[:3], panel.marks[3:], strict=True), 1):
        edges = np.unique(np.concatenate([one.edges, other.edges]).round(9))
        np.testing.assert_allclose(edges, [k - WIDE / 2, k, k + WIDE / 2])
        assert one.edges[0] < other.edges[0]  # in the order of the legend
    assert (panel.x.names, panel.x.low, panel.x.high) == (("LSQ", "POST", "ADQ"), 0.5, 3.5)
    assert panel.y.low == 0.0
    assert panel.y.high > 4.0


def test_one_row_needs_no_name_and_negative_numbers_are_seen():
    panel = bars([1.0, -2.0, 0.0], NAMES, y="loss")
    assert panel.text == "loss: 1 (LSQ), -2 (POST), 0 (ADQ)."
    assert panel.y.low < -2
    assert panel.y.high > 1
    assert bars(ROWS, NAMES, ylim=(0, 10)).y.high == 10


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: bars({"a": [1, 2, 3], "b": [1, 2]}, NAMES), "'b' has 2 numbers for 3 names: LSQ, POST, ADQ"),
        (lambda: bars({}, NAMES), "1 to 6 of them, got 0"),
        (lambda: bars({"a": [1, np.nan, 2]}, NAMES), "'a' is empty, or has values that are NaN"),
        (lambda: bars(ROWS, NAMES, ylim=(1, 0)), r"ylim must .* got \(1, 0\)"),
    ],
)
def test_unfit_rows_are_refused_by_name(call, told):
    with pytest.raises(ValueError, match=told):
        call()
