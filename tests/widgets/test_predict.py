"""Predict: nothing is revealed before, the first prediction counts, and pages without a kernel ask too."""

import pytest

from qviz.widgets import Predict, display, predict


@pytest.fixture
def asked():
    calls = []

    def answer():
        calls.append(1)
        return 5.25

    return Predict("How much?", answer, unit="dB", within=1.0, why="Because <so>."), calls


def texts(widget):
    """Every text that the page has."""
    own = [str(getattr(widget, name, "")) for name in ("value", "description", "placeholder", "tooltip")]
    return " ".join(own + [texts(child) for child in getattr(widget, "children", ())])


def test_nothing_is_revealed_before_the_first_prediction(asked):
    p, calls = asked
    assert not calls
    assert "5.25" not in texts(p)
    assert "Because" not in texts(p)
    p.check.click()  # nothing was typed
    assert "type a number" in p.reveal.value
    assert not calls
    p.entry.value = "4.5"
    p.check.click()
    assert p.verdict.right
    assert "0.75 dB too low" in p.reveal.value
    assert "Because &lt;so&gt;." in p.reveal.value
    assert p.guess(100).text == p.verdict.text  # the first one counts
    assert calls == [1]
    assert p.check.disabled
    assert p.entry.disabled


def test_a_choice_starts_with_none(asked):
    p = Predict("Which?", "b", options=["a", "b"])
    assert p.entry.value is None
    p.check.click()
    assert "choose one of a, b" in p.reveal.value
    p.entry.value = "a"
    p.check.click()
    assert not p.verdict.right
    assert "✗" in p.reveal.value


def test_it_is_shown_live_and_as_text(asked, monkeypatch):
    made = []
    monkeypatch.setattr(predict, "display", lambda data, raw: made.append(data))
    asked[0]._ipython_display_()
    live, still = made
    assert live[display.VIEW]["model_id"] == asked[0].model_id
    assert "How much?" in still["text/html"]
    assert "5.25" not in str(made)
