"""Moving one level by hand: order, neighbours, ends and mirror hold whatever is asked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qviz.explore.levels import MIN_GAP, mirrored, moved
from tests.strategies import FEW

LOW, HIGH = -2.0, 2.0
GAP = MIN_GAP * (HIGH - LOW)
TARGETS = st.one_of(st.floats(-3, 3), st.sampled_from([float("-inf"), float("inf"), LOW, HIGH, 0.0]))


@st.composite
def grids(draw):
    """Increasing levels inside the span, some of them nearly touching."""
    steps = draw(st.lists(st.sampled_from([1e-6, GAP, 2 * GAP, 0.1, 0.3]), min_size=1, max_size=17))
    levels = np.cumsum(steps)
    return levels - levels.mean() if draw(st.booleans()) else levels - 1.9


@given(grids(), TARGETS, st.data())
@FEW
def test_order_holds_and_the_others_stay(levels, target, data):
    k = data.draw(st.integers(0, len(levels) - 1))
    before = levels.copy()
    new = moved(levels, k, target, LOW, HIGH)
    assert np.array_equal(levels, before)
    assert np.all(np.diff(new) > 0)
    assert np.array_equal(np.delete(new, k), np.delete(levels, k))


@given(grids(), TARGETS, st.data())
@FEW
def test_it_goes_as_near_as_the_neighbours_allow(levels, target, data):
    k = data.draw(st.integers(0, len(levels) - 1))
    left = levels[k - 1] + GAP if k else LOW
    right = levels[k + 1] - GAP if k + 1 < len(levels) else HIGH
    new = moved(levels, k, target, LOW, HIGH)[k]
    if left > right:
        assert new == levels[k]  # no room at all
    else:
        assert new == np.clip(target, left, right)


@given(grids(), TARGETS, st.data())
@FEW
def test_mirror_keeps_the_grid_symmetric_and_in_order(levels, target, data):
    k = data.draw(st.integers(0, len(levels) - 1))
    new = moved(levels, k, target, LOW, HIGH, mirror=True)
    np.testing.assert_array_equal(new, -new[::-1])
    assert np.all(np.diff(new) > 0)
    rest = [i for i in range(len(levels)) if i not in (k, len(levels) - 1 - k)]
    np.testing.assert_array_equal(new[rest], mirrored(levels)[rest])
    assert len(levels) % 2 == 0 or new[len(levels) // 2] == 0


@given(grids(), TARGETS, st.data())
@FEW
def test_moving_twice_to_one_place_is_moving_once(levels, target, data):
    k, mirror = data.draw(st.integers(0, len(levels) - 1)), data.draw(st.booleans())
    once = moved(levels, k, target, LOW, HIGH, mirror=mirror)
    np.testing.assert_array_equal(moved(once, k, target, LOW, HIGH, mirror=mirror), once)


def test_examples():
    levels = np.array([-1.0, 0.0, 0.5, 1.0])
    assert moved(levels, 1, 0.25, LOW, HIGH).tolist() == [-1.0, 0.25, 0.5, 1.0]
    assert moved(levels, 1, 9.0, LOW, HIGH).tolist() == [-1.0, 0.5 - GAP, 0.5, 1.0]
    assert moved(levels, 3, 9.0, LOW, HIGH).tolist() == [-1.0, 0.0, 0.5, HIGH]
    assert moved(levels, 0, -9.0, LOW, HIGH).tolist() == [LOW, 0.0, 0.5, 1.0]
    assert moved(levels, 3, 1.5, LOW, HIGH, mirror=True).tolist() == [-1.5, -0.25, 0.25, 1.5]
    assert moved(levels, 2, -9.0, LOW, HIGH, mirror=True).tolist() == [-1.0, -GAP / 2, GAP / 2, 1.0]


@pytest.mark.parametrize("k", [-1, 2])
def test_a_missing_level_is_named(k):
    with pytest.raises(IndexError, match=f"2 levels, got index {k}"):
        moved(np.array([0.0, 1.0]), k, 0.5, LOW, HIGH)


def test_nan_moves_nothing():
    assert moved(np.array([0.0, 1.0]), 0, float("nan"), LOW, HIGH).tolist() == [0.0, 1.0]


def test_mirrored_is_the_nearest_symmetric_grid():
    assert mirrored(np.array([-3.0, 0.0, 1.0])).tolist() == [-2.0, 0.0, 2.0]
    assert mirrored(np.array([0.0, 1.0, 2.0, 3.0])).tolist() == [-1.5, -0.5, 0.5, 1.5]
