"""What all explorers promise: sound pictures, controls that matter, states, presets, pages."""

from __future__ import annotations

import functools
import html as html_of
import json
import re
from dataclasses import fields, replace

import numpy as np
import pytest

from qviz.explore import gallery
from qviz.explore.controls import Number, Pick, Slide, Text, Tick
from qviz.explore.model import Model
from qviz.plot import page as pages

NAMES = list(gallery.MODELS)
FOR_DRAGS = {"push", "mirror"}
"""What changes how dots move, and no picture by itself."""


@functools.cache
def model(name) -> Model:
    return gallery.MODELS[name]()


def drawn(scene):
    """Every array and number of a scene's pictures, as bytes."""
    return repr([(p.title, p.x, p.y, [sorted(_plain(m)) for m in p.numbers()]) for p in scene.panels])


def numbers(scene):
    """Every array and number of a scene, as bytes."""
    return repr((drawn(scene), scene.table and scene.table.rows, scene.title, scene.about))


def _plain(mark):
    return [(k, v.tobytes() if isinstance(v, np.ndarray) else v) for k, v in mark.items()]


def others(control, value):
    """A few other values of a control, near and far."""
    match control:
        case Pick() | Tick():
            return [v for v in control.values() if v != value]
        case Slide():
            return [
                v for v in (control.nearest(value + control.step), control.low, control.high) if v != value
            ]
        case Number():
            return [v for v in (value + control.step, value - control.step) if control.accepts(v)]
        case Text():
            return ["0.5 -1.25 3"]
    raise TypeError(type(control).__name__)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_picture_is_sound(name):
    m = model(name)
    scene = m.scene(m.start)
    titles = [panel.title for panel in scene.panels]
    assert len(set(titles)) == len(titles) >= 2  # axes are held, and ghosts are found, by title
    for panel in scene.panels:
        assert panel.marks, panel.title
        assert any(letter.isdigit() for letter in panel.text), f"{panel.title} is told without a number"
        for axis in (panel.x, panel.y):
            assert -np.inf < axis.low < axis.high < np.inf
            assert axis.label
        for mark in panel.numbers():
            for key, value in mark.items():
                assert not isinstance(value, np.ndarray) or not np.isinf(value).any(), (panel.title, key)
    assert scene.title
    assert gallery.MODELS[name].caption().endswith(".")


@pytest.mark.parametrize("name", NAMES)
def test_the_headline_is_a_few_numbers(name):
    m = model(name)
    headline = m.headline(m.start)
    assert 1 <= len(headline) <= 6
    assert np.isfinite(list(headline.values())).all()


@pytest.mark.parametrize("name", NAMES)
def test_every_control_changes_a_picture_and_has_help(name):
    m = model(name)
    begun = [m.start, *map(m.restored, m.presets.values())]  # some controls matter in some choices only
    waiting = {
        field for field, control in m.controls(m.start).items() if not isinstance(control, Text)
    } - FOR_DRAGS
    for start in begun:
        before, shown = numbers(m.scene(start)), m.controls(start)
        for field in sorted(f for f in waiting if shown[f].shown):
            values = others(shown[field], getattr(start, field))
            changed = (m.settled(start, replace(start, **{field: v})) for v in values)
            if any(numbers(m.scene(c)) != before for c in changed):
                waiting.discard(field)
    assert not waiting, f"{waiting} change nothing"
    assert all(control.help for control in m.controls(m.start).values())


@pytest.mark.parametrize("name", NAMES)
def test_a_key_on_any_slider_of_the_start_changes_a_picture(name):
    m = model(name)
    before, controls = drawn(m.scene(m.start)), m.controls(m.start)
    sliders = {f: c for f, c in controls.items() if isinstance(c, Slide) and c.shown}
    for field, slider in sliders.items():
        now = getattr(m.start, field)
        for value in {slider.nearest(now + side * slider.step) for side in (-1, 1)} - {now}:
            moved = m.settled(m.start, replace(m.start, **{field: value}))
            assert drawn(m.scene(moved)) != before, (field, value)


@pytest.mark.parametrize("name", NAMES)
def test_presets_and_states_come_back(name):
    m = model(name)
    for label, state in {"start": {}, **m.presets}.items():
        c = m.restored(state)
        assert m.followed(c) == c, label
        assert m.restored(json.loads(json.dumps(m.state(c)))) == c, label
    with pytest.raises(ValueError, match="unknown controls"):
        m.restored({"colour": 1})
    assert {f.name for f in fields(m.start)} == set(m.state(m.start))


@pytest.fixture
def thinned(monkeypatch):
    """Draw few of a page's pictures, from end to end; return how many there are, by the page's file name."""
    counts, write = {}, pages.write

    def few(path, title, about, choosers, frames, first):
        keys, counts[path.name] = list(frames), len(frames)
        shown = {*first.values(), *(keys[round(k * (len(keys) - 1) / 3)] for k in range(4))}
        return write(path, title, about, choosers, {key: frames[key] for key in shown}, first)

    monkeypatch.setattr(pages, "write", few)
    return counts


@pytest.mark.slow
def test_pages_are_small_and_work_offline(tmp_path, thinned):
    for entry in gallery.write(tmp_path):
        page = entry.path.read_text("utf-8")
        frames = re.findall("<template.*?</template>", page, re.DOTALL)
        uris = json.loads(re.search('id="pictures">(.*?)</script>', page)[1])
        own = [sum(len(uris[int(p)]) for p in re.findall('data-p="(.*?)"', frame)) for frame in frames]
        all_of = [len(frame.encode()) + size for frame, size in zip(frames, own, strict=True)]
        rest = entry.path.stat().st_size - sum(len(frame.encode()) for frame in frames) - sum(map(len, uris))
        assert rest + thinned[entry.path.name] * max(all_of) <= 3_000_000, entry.name
        assert thinned[entry.path.name] >= 3, entry.name
        assert f"<h1>{entry.name}</h1><p>{html_of.escape(entry.caption)}</p>" in page  # true of every state
        assert not [scheme for scheme in ('src="http', 'href="http', "@import", "url(http") if scheme in page]
    index = (tmp_path / "index.html").read_text("utf-8")
    assert index.count("<article>") == len(NAMES)
