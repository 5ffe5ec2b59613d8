"""Batch: one message a move, with what would have come in one message a widget; none before a page asks."""

from __future__ import annotations

import comm
import numpy as np
import pytest
from ipywidgets import IntSlider

from qviz.widgets import GridExplorer
from qviz.widgets.batch import Batch
from qviz.widgets.live import apply


@pytest.fixture
def sent(monkeypatch):
    """Every message to the page: the widget's id, what is sent, its buffers."""
    found = []

    def publish(self, msg_type, data=None, metadata=None, buffers=None, **keys):
        found.append((self.comm_id, data, [bytes(b) for b in buffers or ()]))

    monkeypatch.setattr(comm.DummyComm, "publish_msg", publish)
    return found


def answer(batch: Batch) -> None:
    """What the page does when it has the batch's model."""
    batch._handle_msg({"content": {"data": {"method": "custom", "content": "ready"}}, "buffers": []})


def test_one_message_holds_what_the_widgets_would_have_sent(sent):
    x = np.random.default_rng(0).normal(size=500).astype(np.float32)
    e = GridExplorer(x)
    moves = (("bits", 3), ("clip", 1.25), ("grid_b", "Lloyd"), ("bits", 4))
    alone, together = [], []
    for into in ([], alone, together):  # the first time makes marks
        for name, value in moves:
            sent.clear()
            getattr(e, name).value = value
            into.append(list(sent))
        e.restore({})
        if into is alone:
            answer(e._batch)
    for one_by_one, batched in zip(alone, together, strict=True):
        own, (hub, message, buffers), *others = batched
        assert hub == e._batch.model_id
        # what is hidden and what is disabled may follow by itself
        assert not [data for _, data, _ in others if "value" in data["state"]]
        held, unpacked = list(buffers), []
        for model, data, count in message["content"]:
            unpacked.append((model, data, [held.pop(0) for _ in range(count)]))
        assert held == []
        assert [own, *unpacked, *others] == one_by_one
        assert len(one_by_one) > len(batched)


def test_an_echo_goes_by_itself_before(sent):
    batch, slider, other = Batch(), IntSlider(), IntSlider()
    answer(batch)
    slider.observe(lambda change: apply([(other, {"value": change["new"]})], batch), "value")
    sent.clear()
    slider.set_state({"value": 7})
    assert [(model, data["method"]) for model, data, _ in sent] == [
        (slider.model_id, "echo_update"),
        (batch.model_id, "custom"),
    ]
    assert sent[1][1]["content"] == [
        (other.model_id, {"method": "update", "state": {"value": 7}, "buffer_paths": []}, 0)
    ]
    sent.clear()
    with batch.gathering([slider]):  # another thread's message
        slider.set_state({"value": 8})
        assert [data["method"] for _, data, _ in sent] == ["echo_update", "custom"]


def test_until_a_page_has_answered_every_widget_sends_its_own(sent):
    batch, slider = Batch(), IntSlider()
    sent.clear()
    apply([(slider, {"value": 3, "max": 9})], batch)
    assert [(model, data["state"]) for model, data, _ in sent] == [(slider.model_id, {"value": 3, "max": 9})]
    answer(batch)
    batch.close()
    sent.clear()
    apply([(slider, {"value": 4})], batch)
    assert [(model, data["state"]) for model, data, _ in sent] == [(slider.model_id, {"value": 4})]


def test_what_fails_meanwhile_leaves_the_widgets_as_they_were(sent):
    batch, slider = Batch(), IntSlider()
    answer(batch)
    with pytest.raises(ValueError, match="no number"), batch.gathering([slider]):
        raise ValueError("no number")
    sent.clear()
    slider.value = 5
    assert [model for model, _, _ in sent] == [slider.model_id]
