"""What the base gives to all explorers: keep, hold, presets, show, play, texts, and long actions."""

import threading
from dataclasses import dataclass, replace

import numpy as np
import pytest

from qviz.explore.controls import Pick, Slide, Text, control
from qviz.explore.model import Action, Model
from qviz.plot.scene import Axis, Line, Panel, Scene
from qviz.widgets.explorer import Explorer


@dataclass(frozen=True)
class Wave:
    """What the model of these tests shows."""

    count: int = control(2, Slide("Count", low=1, high=4, step=1, play=True))
    tensor: str = control("small", Pick("Tensor", options=("small", "big")))
    note: str = control("", Text("Note", most=20))
    sum: float = 0.0


class WaveModel(Model[Wave]):
    """A line whose slope is a count; its sum takes long."""

    start = Wave()

    @property
    def presets(self):
        return {"steep": {"count": 4}, "big": {"count": 3, "tensor": "big"}}

    def headline(self, c):
        return {"slope": float(c.count)}

    def scene(self, c):
        if c.note == "bad":
            raise ValueError("a bad note")
        top = c.count * (100.0 if c.tensor == "big" else 1.0)
        x = np.array([0.0, 1.0])
        line = Line("a", x, top * x, label="line")
        text = f"Slope {c.count}, sum {c.sum:.4g}."
        return Scene(text, (Panel("Line", Axis("x", 0, 1), Axis("y", 0, top), (line,), text),))

    def dragged(self, c, panel, mark, index, x, y):
        return replace(c, count=1 + mark)

    def actions(self, c):
        return {"measure": Action("Measure", "Sum it up", work=self.work)}

    def work(self, c):
        for i in range(c.count):
            self.gate.acquire()
            if self.fails:
                raise ValueError("no more disk")
            yield (i + 1) / c.count
        yield lambda now: replace(now, sum=10.0 * c.count)

    def __init__(self):
        self.gate, self.fails = threading.Semaphore(0), False


@pytest.fixture
def e():
    return Explorer(WaveModel())


def shown(explorer, name):
    return explorer.controls[name].layout.display != "none"


def test_a_kept_picture_stays_in_the_background(e):
    e.keep.value = True
    e.count.value = 3
    ghost, now = e.scene().panels[0].marks
    assert (ghost.role, ghost.y[1], now.y[1]) == ("before", 2.0, 3.0)
    assert "slope 2 → 3" in e._words.text.value
    assert len([m for m in e._live[0].widget.marks if m.visible]) == 2
    e.keep.value = False
    assert len(e.scene().panels[0].marks) == 1
    assert "→" not in e._words.text.value


def test_dots_are_counted_without_what_is_kept(e):
    e.keep.value = True
    e.count.value = 3
    e._drag(0, 1, 0, 1.0, 2.0)  # the line's number is 0; the kept one is before it
    assert e.choice().count == 1


def test_axes_hold_until_they_are_of_no_use(e):
    e.hold.value = True
    e.count.value = 4
    assert e.scene().panels[0].y.high == 2.0
    e.tensor.value = "big"
    assert e.scene().panels[0].y.high == 400.0
    e.count.value = 1
    assert e.scene().panels[0].y.high == 400.0
    e.hold.value = False
    assert e.scene().panels[0].y.high == 100.0


def test_presets_are_moves_like_others(e):
    assert e.presets.options == ("", "steep", "big")
    e.presets.value = "big"
    assert (e.count.value, e.tensor.value) == (3, "big")
    e.count.value = 2
    assert e.presets.value == ""
    e.undo.click()
    assert e.presets.value == "big"  # it is that choice again
    e.undo.click()
    assert e.choice() == Wave()


def test_controls_can_wait_until_they_are_needed():
    e = Explorer(WaveModel(), show=("tensor",))
    assert [name for name in e.controls if shown(e, name)] == ["tensor"]
    assert e.plays["count"].layout.display == "none"
    e.count.value = 3  # from code as ever
    e.reveal("count")
    assert [name for name in e.controls if shown(e, name)] == ["count", "tensor"]
    assert e.plays["count"].layout.display is None
    for bad in (lambda: e.reveal("color"), lambda: Explorer(WaveModel(), show=["color"])):
        with pytest.raises(ValueError, match=r"unknown controls \['color'\]"):
            bad()


def test_play_moves_the_slider_and_follows_it(e):
    play = e.plays["count"]
    play.value = 3
    assert (e.count.value, e.choice().count) == (3, 3)
    e.count.value = 4
    assert play.value == 4
    play.playing = True  # pressed at the end: it begins anew
    assert e.count.value == 1
    assert set(e.plays) == {"count"}


def test_a_text_is_a_control(e):
    e.note.value = "good"
    assert e.state["note"] == "good"
    with pytest.raises(ValueError, match="20 characters"):
        e.restore({"note": "x" * 21})
    with pytest.raises(ValueError, match="a page cannot offer it"):
        e.model.page(e.choice(), ("note",))


def test_the_state_is_one_line_of_code(e):
    e.count.value, e.note.value = 3, 'it\'s "so"'
    assert eval(e.code, {"Explorer": Restored}) == e.state
    e._words.folded.selected_index = 1
    assert "Explorer.from_state(" in e._words.code.value


class Restored:
    @staticmethod
    def from_state(text):
        return Explorer.from_state(text, model=WaveModel()).state


def test_a_long_action_leaves_the_controls_free(e):
    e.measure.click()
    assert (e.measure.description, e._work.bar.layout.display) == ("Stop", None)
    e.tensor.value = "big"
    e.model.gate.release(2)
    e.wait()
    assert e.choice() == Wave(tensor="big", sum=20.0)
    assert e._work.bar.value == 1.0
    assert (e.measure.description, e._work.bar.layout.display) == ("Measure", "none")
    e.undo.click()
    assert e.choice().sum == 0.0


def test_a_stopped_action_changes_nothing_and_can_be_begun_again(e):
    e.measure.click()
    e.measure.click()
    e.model.gate.release()
    e.wait()
    assert e.choice().sum == 0.0
    assert e.measure.description == "Measure"
    e.measure.click()
    e.model.gate.release(2)
    e.wait()
    assert e.choice().sum == 20.0


def test_a_failed_action_says_so(e):
    e.model.fails = True
    e.measure.click()
    e.model.gate.release()
    e.wait()
    assert "ValueError: no more disk" in e._words.note.value
    assert e.measure.description == "Measure"
