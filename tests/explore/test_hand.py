"""A grid moved by hand, in a model that has nothing else."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest

from qviz.explore.controls import Pick, Slide, control
from qviz.explore.hand import MAX_DOTS, Custom, Hand, HandModel
from qviz.plot.scene import Axis, Panel, Rug


@dataclass(frozen=True)
class Plain:
    """What every choice with a custom grid has."""

    tensor: str = control("one", Pick("Tensor", options=("one", "two")))
    bits: int = control(3, Slide("Bits", low=2, high=8, step=1))
    edits: bool = True


@dataclass(frozen=True)
class Choice(Hand, Plain):
    """The whole choice."""


class Model(HandModel[Choice]):
    """Starts from 2**bits - 1 whole numbers around zero, and half of one more."""

    sources = dict.fromkeys(("one", "two"))
    start = Choice()

    def begun(self, choice):
        top = 2 ** (choice.bits - 1) - 1
        return np.arange(-top, top + 1) + 0.5

    def ends(self, choice):
        return -9.0, 9.0


@pytest.fixture
def model():
    return Model()


def test_its_controls_come_after_those_of_the_choice_it_belongs_to(model):
    assert list(model.controls(Choice())) == ["tensor", "bits", "level", "value", "mirror"]
    assert not model.controls(Choice(edits=False))["level"].shown


def test_limits_follow_the_grid(model):
    controls = model.controls(Choice())
    assert (controls["level"].low, controls["level"].high, controls["value"].step) == (1, 7, 0.1)
    assert model.controls(Choice(bits=4))["level"].high == 15
    fine = Choice().store(np.array([0.0, 0.004, 1.0]))
    assert model.controls(fine)["value"].step == 0.001


def test_value_moves_the_level_and_no_further_than_its_neighbors(model):
    c = model.settled(Choice(level=2), Choice(level=2, value=-1.25))
    assert model.levels(c).tolist() == [-2.5, -1.25, -0.5, 0.5, 1.5, 2.5, 3.5]
    c = model.settled(c, replace(c, value=99.0))
    assert c.value == pytest.approx(-0.5 - 0.018)
    assert np.delete(model.levels(c), 1).tolist() == [-2.5, -0.5, 0.5, 1.5, 2.5, 3.5]


def test_another_level_shows_its_value_and_moves_nothing(model):
    c = model.settled(Choice(), Choice(level=5, value=0.25))
    assert (c.value, c.moved) == (1.5, None)
    assert model.followed(Choice(level=99)).level == 7


def test_mirror_makes_the_grid_symmetric_and_a_dot_moves_its_twin(model):
    c = model.settled(Choice(), Choice(mirror=True))
    assert model.levels(c).tolist() == [-3, -2, -1, 0, 1, 2, 3]
    c = model.dragged(c, 0, 0, 5, 2.5, 0.0)
    assert (model.levels(c).tolist(), c.level) == ([-3, -2.5, -1, 0, 1, 2.5, 3], 6)


def test_every_tensor_and_bit_width_keeps_its_own(model):
    moved = model.dragged(Choice(), 0, 0, 6, 5.0, 0.0)
    assert replace(moved, tensor="two").moved is None
    assert replace(moved, bits=4).moved is None
    other = model.dragged(replace(moved, bits=2), 0, 0, 2, 4.0, 0.0)
    assert replace(other, bits=3).moved.tolist() == moved.moved.tolist()
    assert model.actions(other)["reset"].do(other).moved is None
    assert replace(model.forgotten(other), bits=3).moved.tolist() == moved.moved.tolist()


def test_of_many_levels_a_few_have_dots_the_chosen_one_among_them(model):
    for bits, level in ((3, 4), (8, 100), (8, 1)):
        dots = model.dots(Choice(bits=bits, level=level))
        assert level - 1 in dots
        assert len(set(np.diff(dots))) == 1
        assert len(dots) == 7 if bits == 3 else MAX_DOTS - 2 <= len(dots) <= MAX_DOTS


def test_dots_are_in_the_middle_of_their_ruler(model):
    axis = Axis("x", 0, 1)
    rulers = (Rug("a", np.zeros(1), 1.0, 2.0), Rug("b", np.zeros(1), 2.0, 4.0))
    panel = model.with_dots(Choice(), Panel("Levels", axis, axis, rulers, ""), 1)
    assert set(panel.marks[-1].y) == {3.0}
    np.testing.assert_array_equal(panel.marks[-1].x, model.levels(Choice()))


def test_a_state_holds_them_as_json(model):
    c = model.dragged(Choice(), 0, 0, 6, 5.0, 0.0)
    state = json.loads(json.dumps(model.state(c)))
    made = model.parsed({"custom": state["custom"]})
    assert made["custom"] == c.custom == (Custom("one", 3, (*model.levels(c),)),)
    with pytest.raises(ValueError, match="three"):
        model.parsed({"custom": [{"tensor": "three", "bits": 3, "levels": [0.0, 1.0]}]})
