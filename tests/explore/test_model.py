"""Controls and the model of every explorer, on a model of two sliders and a name."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qviz.explore.controls import Number, Pick, Slide, Tick, control, kept, steps
from qviz.explore.model import Model, changed
from qviz.plot.scene import Axis, Line, Panel, Scene
from tests.strategies import FEW


@dataclass(frozen=True)
class Waves:
    """What the model of these tests shows."""

    count: int = control(2, Slide("Count", "How many waves.", low=1, high=4, step=1))
    size: float = control(0.5, Slide("Size", low=0.1, high=1.0, step=0.1))
    kind: str = control("sine", Pick("Kind", options=("sine", "ramp")))
    flip: bool = control(False, Tick("Flip"))
    seen: float = kept(0.0, Number("seen", low=0.0, step=0.1))


class WaveModel(Model[Waves]):
    """Waves that are at most as large as they are many; a ramp has one."""

    start = Waves()

    def limits(self, choice):
        return {"size": {"high": float(choice.count)}, "flip": {"shown": choice.kind == "ramp"}}

    def followed(self, choice):
        return replace(choice, count=1) if choice.kind == "ramp" else choice

    def scene(self, choice):
        x = np.array([0.0, choice.size])
        panel = Panel("Wave", Axis("x", 0, 1), Axis("y", 0, 1), (Line("a", x, x),), "A wave.")
        return Scene(f"{choice.count} of {choice.kind}, {choice.size:.4g}", (panel,), about="Waves.")


@pytest.fixture
def model():
    return WaveModel()


def test_fields_are_controls_with_the_limits_of_the_choice(model):
    controls = model.controls(Waves(count=3))
    assert list(controls) == ["count", "size", "kind", "flip"]
    assert (controls["size"].high, controls["size"].low) == (3.0, 0.1)
    assert controls["count"].help == "How many waves."
    assert not controls["flip"].shown
    assert model.controls(Waves(kind="ramp"))["flip"].shown


def test_a_page_has_room_for_three_sliders():
    @dataclass(frozen=True)
    class Many:
        a: int = control(3, Slide("A", low=1, high=100, step=1))
        b: int = control(1, Slide("B", low=1, high=2, step=1))
        c: int = control(1, Slide("C", low=1, high=3, step=1))
        d: int = control(1, Slide("D", low=1, high=3, step=1))

    class ManyModel(WaveModel):
        start = Many()

        def limits(self, choice):
            return {}

        def followed(self, choice):
            return choice

        def scene(self, choice):
            return Scene(f"{choice.a} {choice.b} {choice.c} {choice.d}", ())

    page = ManyModel().page(Many())
    assert [chooser.label for chooser in page.choosers] == ["A", "B", "C"]
    texts = page.choosers[0].options
    assert (texts[0], texts[-1], len(set(texts))) == ("1", "100", len(texts))
    assert 24 <= len(page.frames) <= 48
    assert page.frames[0, 1, 2].title == "1 2 3 1"
    assert page.first["picture"][1:] == (0, 0)


def test_a_state_is_brought_onto_the_sliders(model):
    assert model.restored({"size": 0.4321, "count": 3}) == Waves(3, 0.4)
    assert model.restored(model.state(Waves(3, 0.4, flip=True))) == Waves(3, 0.4, flip=True)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"colour": 1}, "colour"),
        ({"count": 5}, "'count'.*5.*whole number from 1 to 4"),
        ({"size": 2.5}, "'size'.*2.5.*to 2"),
        ({"size": math.nan}, "'size'.*nan"),
        ({"kind": "saw"}, "'kind'.*'saw'.*'sine' or 'ramp'"),
        ({"flip": 1}, "'flip'.*1"),
        ({"seen": math.inf}, "'seen'.*inf"),
        ({"seen": "much"}, "'seen'.*'much'"),
        ({"kind": "ramp", "count": 2}, "'count'.*2 here; it made 1"),
    ],
)
def test_bad_states_are_refused(model, state, said):
    with pytest.raises(ValueError, match=said):
        model.restored(state)


def test_a_page_has_a_picture_for_every_combination(model):
    page = model.page(Waves(3, 0.5), ("count", "kind"))
    assert [(c.label, c.options, c.slider) for c in page.choosers] == [
        ("Count", ("1", "2", "3", "4"), True),
        ("Kind", ("sine", "ramp"), False),
    ]
    assert page.frames[3, 0].title == "4 of sine, 0.5"
    assert len(page.frames) == 8
    assert page.first == {"picture": (2, 0)}


def test_a_page_has_all_sliders_by_default_and_few_enough_pictures(model, monkeypatch):
    assert [chooser.label for chooser in model.page(Waves()).choosers] == ["Count", "Size"]
    assert len(model.page(Waves()).frames) == 4 * 12
    assert len(model.page(Waves(), ("count", "size")).frames) == 4 * 15
    monkeypatch.setattr("qviz.explore.model.MAX_PICTURES", 59)
    with pytest.raises(ValueError, match="count × size would be 60 pictures"):
        model.page(Waves(), ("count", "size"))
    with pytest.raises(ValueError, match="colour"):
        model.page(Waves(), ("colour",))


def test_changed_names_the_fields():
    assert changed(Waves(), Waves(3, flip=True)) == {"count", "flip"}


@given(st.floats(1e-30, 1e30), st.floats(-2, 2))
@FEW
def test_a_slider_has_round_steps_and_the_nearest_number(top, at):
    slider = Slide("s", **steps(top))
    assert f"{slider.step:.0e}"[0] in "125"
    assert slider.step == float(f"{slider.step:.0e}")
    assert slider.high - slider.step < top <= slider.high * (1 + 1e-9)
    assert 80 <= slider.high / slider.step <= 201
    near = slider.nearest(at * top)
    assert slider.low <= near <= slider.high
    if slider.low < at * top < slider.high:
        assert abs(near - at * top) <= 0.5001 * slider.step


@pytest.mark.parametrize(("sent", "taken"), [(1.04, 1.0), (1.0 + 1e-12, 1.0), (1.06, 1.1), (9.0, 2.0)])
def test_what_a_page_sends_is_rounded_onto_the_slider(sent, taken):
    assert Slide("s", low=0.1, high=2.0, step=0.1).taken(sent, 1.0) == taken


def test_a_typed_number_is_taken_as_it_is_but_for_noise():
    box = Number("n", step=0.1)
    assert (box.taken(1.04, 1.0), box.taken(1.0 + 1e-12, 1.0)) == (1.04, 1.0)
