"""Page: many pictures and the controls that choose from them, in one file without kernel or network."""

from __future__ import annotations

import html
import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qviz.plot.html import STYLE, panel_html, paragraph, rows_html, words_html
from qviz.plot.picture import DPI, TALL, WIDE, picture
from qviz.plot.scene import Panel, Scene

PAGE = (
    STYLE
    + """
body { font: 16px/1.5 system-ui, sans-serif; margin: 1.5rem auto; max-width: 76rem; padding: 0 1rem;
       color: #1a1a1a; background: #fff; }
main { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); gap: 1.5rem; }
form { display: flex; flex-wrap: wrap; gap: .4rem 1.2rem; align-items: center; }
label { display: flex; gap: .5em; align-items: center; } input[type=range] { width: 12rem; }
:focus-visible { outline: 3px solid #0173b2; outline-offset: 2px; }
section { min-width: 0; } table { font-size: .8rem; }
@media (max-width: 32rem) {
  h1 { font-size: 1.3rem; } table { font-size: .7rem; } .qviz-table :is(td, th) { padding: 2px 3px; }
  .qviz-table .qviz-swatch { width: 1em; margin-right: .2em; }
}
@media (prefers-color-scheme: dark) {
  body { color: #eee; background: #111; } img, .qviz-swatch { filter: invert(1) hue-rotate(180deg); }
  :focus-visible { outline-color: #56b4e9; }
}
"""
)

SCRIPT = """
const pictures = JSON.parse(document.getElementById('pictures').text);
const texts = (control) => JSON.parse(control.dataset.texts);
const shared = [...document.querySelectorAll('#shared [data-k]')];
const columns = [...document.querySelectorAll('section')].map((section) => ({
  place: section.querySelector('.frame'),
  controls: [...shared, ...section.querySelectorAll('[data-k]')].sort((a, b) => a.dataset.k - b.dataset.k),
}));
const filled = (body, before) => {
  body.querySelectorAll('img').forEach((img, i) => {
    if (before[i]?.dataset.p === img.dataset.p) img.replaceWith(before[i]);
    else img.src = pictures[img.dataset.p];
  });
  return body;
};
const show = ({ place, controls }) => {
  const frame = document.getElementById('f' + controls.map((control) => control.value).join('-'));
  const names = controls.map((control) => control.dataset.name + ' ' + texts(control)[control.value]);
  if (frame) place.replaceChildren(filled(frame.content.cloneNode(true), place.querySelectorAll('img')));
  else place.textContent = 'There is no picture for ' + names.join(', ') + '.';
  place.dispatchEvent(new Event('shown'));
};
for (const control of document.querySelectorAll('[data-k]')) {
  control.addEventListener('input', () => {
    const output = control.parentElement.querySelector('output');
    if (output) output.value = texts(control)[control.value];
    if (output) control.setAttribute('aria-valuetext', output.value);
    columns.filter((column) => column.controls.includes(control)).forEach(show);
  });
}
"""

OPENING = """
const chooser = (controls, { dataset }) => controls.find((control) => control.dataset.name === dataset.opens);
const mark = ({ place, controls }) => place.querySelectorAll('[data-opens]').forEach((button) => {
  const control = chooser(controls, button);
  button.disabled = !control || !texts(control).includes(button.value);
});
columns.forEach((column) => {
  mark(column);
  column.place.addEventListener('shown', () => mark(column));
  column.place.addEventListener('click', (event) => {
    const button = event.target.closest('tr')?.querySelector('[data-opens]:enabled');
    if (!button) return;
    const control = chooser(column.controls, button);
    control.value = texts(control).indexOf(button.value);
    control.dispatchEvent(new Event('input'));
    column.place.querySelector(`[value="${CSS.escape(button.value)}"]`)?.focus({ preventScroll: true });
  });
});
"""
"""What a page has besides where a table's rows can be opened: those without a picture cannot."""


@dataclass(frozen=True)
class Chooser:
    """One control of a page.

    Attributes:
        label: Its name.
        options: The texts of what can be chosen, in order.
        slider: Whether it is a slider instead of a list.
        own: Whether each column has one of its own.
    """

    label: str
    options: tuple[str, ...]
    slider: bool = False
    own: bool = False


Key = tuple[int, ...]
"""One option of each chooser, by its index."""


def write(
    path: str | Path,
    title: str,
    about: str,
    choosers: Sequence[Chooser],
    frames: Mapping[Key, Scene],
    first: Mapping[str, Key],
) -> Path:
    """Write a page of pictures that some controls choose from, and return its path.

    Args:
        path: The file to write; its folder must exist.
        title: The heading.
        about: The first paragraph; "" for none.
        choosers: The controls.
        frames: The pictures by their keys; missing ones are told.
        first: The columns, by name, with the picture that each shows at first, also without JavaScript.

    Raises:
        KeyError: A column starts with a picture that is not among the frames.
    """
    drawn = _Pictures()
    shared = _form(choosers, next(iter(first.values())), own=False)
    columns = "".join(
        f'<section aria-label="{html.escape(name)}">{_form(choosers, key, own=True, name=name)}'
        f'<div class="frame" aria-live="polite">{_body(frames[key], drawn, filled=True)}</div></section>'
        for name, key in first.items()
    )
    templates = "".join(
        f'<template id="{_id(key)}">{_body(scene, drawn)}</template>' for key, scene in frames.items()
    )
    opening = OPENING if any(rows_html(scene) for scene in frames.values()) else ""
    path = Path(path)
    path.write_text(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><style>{PAGE}</style></head><body>'
        f'<header><h1>{html.escape(title)}</h1>{paragraph(about)}<div id="shared">{shared}</div>'
        "<noscript><p>Without JavaScript only these pictures can be seen.</p></noscript></header>"
        f"<main>{columns}</main>{templates}"
        f'<script type="application/json" id="pictures">{json.dumps([*drawn.uris])}</script>'
        f"<script>{SCRIPT}{opening}</script></body></html>\n",
        encoding="utf-8",
    )
    return path


def _id(key: Key) -> str:
    return "f" + "-".join(map(str, key))


def _form(choosers: Sequence[Chooser], key: Key, *, own: bool, name: str = "") -> str:
    """Return the controls that are (not) a column's own; a column's name goes into their labels."""
    made = [
        _control(chooser, k, chosen, name)
        for k, (chooser, chosen) in enumerate(zip(choosers, key, strict=True))
        if chooser.own is own
    ]
    return f'<form autocomplete="off">{"".join(made)}</form>' if made else ""


def _control(chooser: Chooser, k: int, chosen: int, name: str) -> str:
    label = html.escape(f"{chooser.label} {name}".strip())
    data = f'data-k="{k}" data-name="{label}" data-texts="{html.escape(json.dumps(chooser.options))}"'
    if chooser.slider:
        top, text = len(chooser.options) - 1, html.escape(chooser.options[chosen])
        slider = f'<input type="range" min="0" max="{top}" value="{chosen}" aria-valuetext="{text}" {data}>'
        return f"<label>{label} {slider} <output>{text}</output></label>"
    options = "".join(
        f'<option value="{i}"{" selected" if i == chosen else ""}>{html.escape(text)}</option>'
        for i, text in enumerate(chooser.options)
    )
    return f"<label>{label} <select {data}>{options}</select></label>"


class _Pictures:
    """The pictures of a page, each drawn and stored once: one in six panels of the explorers is seen again.

    Attributes:
        uris: Their data URIs, with their numbers.
    """

    def __init__(self) -> None:
        self.uris: dict[str, int] = {}
        self._of: dict[bytes, str] = {}

    def uri(self, panel: Panel) -> str:
        """Return the picture of a panel."""
        known = pickle.dumps(panel)
        if known not in self._of:
            self._of[known] = picture(panel)
            self.uris.setdefault(self._of[known], len(self.uris))
        return self._of[known]


def _body(scene: Scene, drawn: _Pictures, *, filled: bool = False) -> str:
    """Return words, pictures and rows of a scene; the script fills in the pictures that are not."""
    images = "".join(_image(panel, drawn, filled) for panel in scene.panels)
    return f'{words_html(scene)}<div class="qviz-panels">{images}</div>{rows_html(scene)}'


def _image(panel: Panel, drawn: _Pictures, filled: bool) -> str:
    uri = drawn.uri(panel)
    src = f' src="{uri}"' if filled else ""
    size = f'width="{round(WIDE * DPI)}" height="{round(TALL * DPI)}"'
    return panel_html(panel, f'{size} data-p="{drawn.uris[uri]}"{src}')
