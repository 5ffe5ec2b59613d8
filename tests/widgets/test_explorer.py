"""What every explorer does: undo, presets, notes, pages, and the picture for pages without a kernel."""

import asyncio
import gc
import html
import json
import threading
import time
import weakref

import numpy as np
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from ipywidgets.widgets.widget import _instances
from torch import nn

from qviz.widgets import GridExplorer, LayerExplorer, StepExplorer, display

X = torch.randn(300, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def e():
    return GridExplorer(X)


@pytest.fixture
def outputs(monkeypatch):
    """Every output that an explorer makes: (kind, data, display_id)."""
    made = []

    def record(kind):
        return lambda data, raw, metadata=None, display_id=None: made.append((kind, data, display_id))

    monkeypatch.setattr(display, "display", record("new"))
    monkeypatch.setattr(display, "update_display", record("again"))
    return made


def test_undo_takes_moves_back_and_redo_makes_them_again(e):
    assert (e.undo.disabled, e.redo.disabled) == (True, True)
    states = [e.state]
    for name, value in (("bits", 3), ("grid_a", "custom"), ("mirror", True), ("tensor", "Laplace")):
        getattr(e, name).value = value
        states.append(e.state)
    for state in reversed(states[:-1]):
        e.undo.click()
        assert e.state == state
    assert (e.undo.disabled, e.redo.disabled) == (True, False)
    for state in states[1:]:
        e.redo.click()
        assert e.state == state
    e.undo.click()
    e.bits.value = 5
    assert e.redo.disabled


def test_one_slide_is_undone_at_once(e):
    for bits in (5, 6, 7):
        e.bits.value = bits
    e.undo.click()
    assert e.bits.value == 4


def test_a_preset_is_short_and_makes_the_same_explorer(e):
    assert e.preset == "{}"
    e.bits.value, e.grid_b.value = 3, "Lloyd"
    assert {"bits", "grid_b"} <= set(json.loads(e.preset)) <= {"bits", "grid_b", "clip"}
    assert GridExplorer.from_state(e.preset, x=X).state == e.state


def test_a_preset_has_what_would_not_come_back_by_itself():
    made = {"model": nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6)), "images": X[:24].view(4, 6)}
    for layer, weight in zip(made["model"], X[:72].view(2, 6, 6), strict=True):
        layer.weight.data.copy_(weight)
    e = LayerExplorer(**made)
    weight, place = e.weight.value, e.place.value
    e.layer.value = "1" if e.layer.value == "0" else "0"
    assert (e.weight.value, e.place.value) != (weight, place)
    e.weight.value, e.place.value = weight, place  # as in a new explorer, which opens another layer
    assert LayerExplorer.from_state(e.preset, **made).state == e.state


def test_changed_axes_are_told(e):
    e.grid_a.value = e.grid_b.value = "uniform"
    e.hold.value = True
    e.bits.value = 8
    assert "x axis" not in e._words.note.value
    e.hold.value = False
    assert "Histogram of the error, x axis" in e._words.note.value
    e.mirror.value = True
    assert e._words.note.value == ""


def test_the_words_and_the_pictures_name_are_on_the_page(e):
    e._words.folded.selected_index = 0
    for _ in range(2):
        assert f'role="img" aria-label="{html.escape(e.describe())}"' in e._words.text.value
        assert all(html.escape(panel.text) in e._words.told.value for panel in e.scene().panels)
        e.bits.value = 3


def test_a_failed_move_leaves_the_picture(e):
    e = GridExplorer(X, {"mine": lambda x, bits: None})
    before = e.state
    with pytest.raises(TypeError, match="NoneType"):
        e.grid_a.value = "mine"
    assert e.state == before


def test_threads_leave_controls_and_picture_agreed(e):
    def slide(bits):
        for b in bits:
            e.bits.value = b

    threads = [threading.Thread(target=slide, args=(bits,)) for bits in ([3, 5, 7, 2] * 5, [4, 6, 8, 3] * 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert e.bits.value == e.choice().bits
    assert f"{e.choice().bits} bits" in e._words.text.value


def test_a_page_of_any_controls(tmp_path, monkeypatch):
    monkeypatch.setattr("qviz.plot.page.picture", lambda scene: "data:,")
    e = StepExplorer()
    text = e.to_html(tmp_path / "step.html", "step").read_text("utf-8")
    assert text.count("<template") == 15
    assert 'role="slider"' not in text
    assert "Step <input" in text
    with pytest.raises(ValueError, match="colour"):
        e.to_html(tmp_path / "no.html", "colour")


def test_a_page_of_all_grids_has_the_numbers_of_the_explorer(e, tmp_path, monkeypatch):
    monkeypatch.setattr(type(e.model), "names", lambda self, bits: ("POT", "POST", "uniform", "custom"))
    monkeypatch.setattr(e.model, "controls", lambda c, made=e.model.controls: few_bits(made(c)))
    text = e.to_html(tmp_path / "grids.html").read_text("utf-8")
    assert text.count("<template") == 2 * 3
    assert all(f"<td>{cell}</td>" in text for row in e.scene().table.rows for cell in row[1:])


def few_bits(controls):
    from dataclasses import replace

    return {**controls, "bits": replace(controls["bits"], low=3, high=4)}


# --- in a notebook ----------------------------------------------------------------------------------------


def test_it_is_shown_live_and_as_a_picture(e, outputs):
    e._ipython_display_()
    (_, live, _), (_, still, name) = outputs
    assert live[display.VIEW]["model_id"] == e.model_id
    assert "image/png" not in live
    assert still["image/png"].startswith(b"\x89PNG")
    assert display.VIEW not in still
    assert e.model_id in name


def test_the_picture_follows_once_a_cell(e, outputs):
    e._ipython_display_()
    e._shown.refresh()
    assert len(outputs) == 2  # nothing has changed
    e.bits.value = 3
    e.bits.value = 5
    e._shown.refresh()
    e._shown.refresh()
    assert [kind for kind, *_ in outputs[2:]] == ["again"]
    assert outputs[2][2] == outputs[1][2]
    assert "5 bits" in outputs[2][1]["text/plain"]


def test_the_picture_follows_the_mouse_when_it_rests(e, outputs, monkeypatch):
    monkeypatch.setattr(display, "REST_S", 0.01)
    drawn = []

    def still(scene):
        drawn.append(threading.current_thread())
        if len(drawn) == 1:  # moved while it is drawn: that picture is of no use any more
            loop.call_soon_threadsafe(setattr, e.bits, "value", 6)
            time.sleep(0.1)
        return {"text/plain": scene.title}, {}

    async def session():
        nonlocal loop
        loop = asyncio.get_running_loop()
        e._ipython_display_()
        monkeypatch.setattr(display, "still", still)
        e.bits.value = 3
        e.bits.value = 5
        while len(outputs) < 3:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)

    loop = None
    asyncio.run(session())
    assert [kind for kind, *_ in outputs] == ["new", "new", "again"]
    assert "6 bits" in outputs[2][1]["text/plain"]
    assert len(drawn) == 2
    assert threading.main_thread() not in drawn  # where the moves are dealt with


def test_vs_code_gets_the_picture_alone(e, outputs, monkeypatch):
    monkeypatch.setattr(display, "fetches_widgets", lambda: True)
    e._ipython_display_()
    assert [display.VIEW in data for _, data, _ in outputs] == [False]


def test_step_explorer_moves_with_its_dot():
    e = StepExplorer()
    (dots,) = (m for m in e._live[0].shown if getattr(m, "enable_move", False))
    dots._handle_custom_msgs(dots, {"event": "drag_start", "point": {}, "index": 0})
    best = e.model.curves(e.choice()).best
    dots.x = np.array([2 * best])
    assert e.step.value == pytest.approx(2 * best, abs=e.step.step)
    assert "At the step" in e.describe()


def test_a_drag_is_one_move_however_slow(monkeypatch):
    """Undo takes back a whole drag, and no more than one of two that follow each other at once."""
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    e = StepExplorer()
    (dots,) = (m for m in e._live[0].shown if getattr(m, "enable_move", False))
    begun, places = e.choice(), []
    for ways in ((1.5, 2.0, 2.5), (1.2, 0.8)):
        dots._handle_custom_msgs(dots, {"event": "drag_start", "point": {}, "index": 0})
        for way in ways:
            dots.x = np.array([way * e.model.curves(e.choice()).best])
            now += 30.0 if len(ways) == 3 else 0.01
        places.append(e.choice())
    e.undo.click()
    assert e.choice() == places[0] != places[1]
    e.undo.click()
    assert (e.choice(), e.undo.disabled) == (begun, True)


def test_a_slider_sends_its_value_after_limits_and_step(e):
    for keys in (None, {"value", "max", "min", "step"}):
        assert list(e.clip.get_state(keys))[-1] == "value"


def test_noise_of_the_page_is_no_move(e):
    e.clip.value += 1e-12
    assert (e.rule.value, e.undo.disabled) == ("MSE search", True)


@pytest.fixture
def shell(monkeypatch):
    """A shell in which cells are run; what they show goes nowhere."""
    made = InteractiveShell()
    monkeypatch.setattr(display, "get_ipython", lambda: made)
    monkeypatch.setattr(display, "CELLS", display.Cells())
    monkeypatch.setattr(display, "display", lambda *_, **__: None)
    yield made
    made.history_manager.end_session()


@pytest.mark.slow
def test_a_cell_that_is_run_again_closes_its_explorer_and_lets_it_go(shell):
    make, count, made = "from qviz.widgets import StepExplorer\nStepExplorer()", [], []
    for _ in range(6):
        shell.run_cell(make, store_history=True, cell_id="a").raise_error()
        count.append(len(_instances))
        made.append(weakref.ref(shell.user_ns["_"]))
    assert len(set(count)) == 1
    gc.collect()
    assert [ref() is None for ref in made[:2]] == [True, True]  # IPython keeps the last ones: _, __, ___


@pytest.mark.slow
def test_an_explorer_that_another_cell_shows_stays_open(shell):
    make = "from qviz.widgets import StepExplorer\ne = StepExplorer()"
    for code, cell in ((make, "a"), ("e", "b"), ("before = e", "c"), (make, "a")):
        shell.run_cell(code, cell_id=cell).raise_error()
    before, now = shell.user_ns["before"], shell.user_ns["e"]
    assert before.comm is not None
    shell.run_cell("e", cell_id="b").raise_error()
    assert before.comm is None
    assert now.comm is not None
    assert before.describe() == now.describe()  # closed, it still says what it showed


def test_what_the_page_rounds_is_not_sent_back(e):
    sent = []
    e.clip.observe(lambda change: sent.append(change["new"]), "value")
    e.clip.value += e.clip.step + 1e-12
    assert len(sent) == 1
