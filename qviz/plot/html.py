"""HTML: tables, legends, and pages of many pictures that need neither kernel nor network."""

from __future__ import annotations

import html
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

from qviz.plot.picture import picture
from qviz.plot.scene import Band, Bars, Heat, Mark, Panel, Points, Rug, Scene, Span, Table
from qviz.plot.style import HEAT, LOOKS

CSS_DASH = {"solid": "solid", "dashed": "dashed", "dotted": "dotted", "dash_dotted": "dashed"}

GLYPHS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚"}
"""Letters for matplotlib's markers."""

STYLE = """
.qviz-table { border-collapse: collapse; font-variant-numeric: tabular-nums; line-height: 1.4; }
.qviz-table caption { text-align: left; padding: 4px 10px 4px 0; }
.qviz-table td, .qviz-table th { padding: 2px 10px; text-align: right; }
.qviz-table th:first-child { text-align: left; padding-left: 0; }
.qviz-table tfoot td { text-align: left; padding-left: 0; }
.qviz-table [data-opens] { font: inherit; color: inherit; background: none; border: 0; padding: 0;
  min-height: 24px; text-decoration: underline; cursor: pointer; }
.qviz-table th:has([data-opens]) { font-weight: normal; }
.qviz-table [aria-current] { font-weight: bold; }
.qviz-table tr:has([data-opens]:enabled) { cursor: pointer; }
.qviz-table tr:has([data-opens]:enabled):hover { outline: 1px solid currentColor; outline-offset: -1px; }
.qviz-table :disabled { text-decoration: none; cursor: default; }
.qviz-swatch { display: inline-block; width: 2em; vertical-align: middle; margin-right: .5em;
  text-align: center; line-height: 1; }
.qviz-legend { display: flex; flex-wrap: wrap; gap: 0 1.2em; }
"""
"""Rules that tables and legends need, wherever they are shown; colors of text are the page's own."""

PAGE = (
    STYLE
    + """
body { font: 16px/1.5 system-ui, sans-serif; margin: 1.5rem auto; max-width: 76rem; padding: 0 1rem;
       color: #1a1a1a; background: #fff; }
main { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); gap: 1.5rem; }
form { display: flex; flex-wrap: wrap; gap: .4rem 1.2rem; align-items: center; }
label { display: flex; gap: .5em; align-items: center; } input[type=range] { width: 12rem; }
:focus-visible { outline: 3px solid #0173b2; outline-offset: 2px; }
img { width: 100%; height: auto; background: #fff; }
section { min-width: 0; } table { font-size: .8rem; }
@media (max-width: 32rem) {
  h1 { font-size: 1.3rem; } table { font-size: .7rem; }
  .qviz-table td, .qviz-table th { padding: 2px 3px; } .qviz-swatch { width: 1em; margin-right: .2em; }
}
@media (prefers-color-scheme: dark) {
  body { color: #eee; background: #111; } img, .qviz-swatch { filter: invert(1) hue-rotate(180deg); }
  :focus-visible { outline-color: #56b4e9; }
}
"""
)

SCRIPT = """
const texts = (control) => JSON.parse(control.dataset.texts);
const shared = [...document.querySelectorAll('#shared [data-k]')];
const columns = [...document.querySelectorAll('section')].map((section) => ({
  place: section.querySelector('.frame'),
  controls: [...shared, ...section.querySelectorAll('[data-k]')].sort((a, b) => a.dataset.k - b.dataset.k),
}));
const show = ({ place, controls }) => {
  const frame = document.getElementById('f' + controls.map((control) => control.value).join('-'));
  const names = controls.map((control) => control.dataset.name + ' ' + texts(control)[control.value]);
  if (frame) place.replaceChildren(frame.content.cloneNode(true));
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


def table_html(table: Table, caption: str = "") -> str:
    """Return a table in HTML; colors come from the page's theme, swatches from the style."""
    head = "".join(f'<th scope="col">{html.escape(h)}</th>' for h in table.headers)
    roles = table.roles or (None,) * len(table.rows)
    rows = "".join(
        f'<tr><th scope="row">{_swatch(role)}{_name(table, cells[0])}</th>'
        + "".join(f"<td>{html.escape(v)}</td>" for v in cells[1:])
        + "</tr>"
        for role, cells in zip(roles, table.rows, strict=True)
    )
    caption = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    notes = "<br>".join(map(html.escape, table.notes))
    foot = f'<tfoot><tr><td colspan="{len(table.headers)}">{notes}</td></tr></tfoot>' if notes else ""
    body = f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody>"
    return f'<table class="qviz-table">{caption}{body}{foot}</table>'


def _name(table: Table, name: str) -> str:
    """Return the name of a row, as a button where a click opens it."""
    if not table.opens:
        return html.escape(name)
    now = ' aria-current="true"' if name == table.opened else ""
    said = html.escape(name, quote=True)
    return (
        f'<button type="button" data-opens="{html.escape(table.opens)}" value="{said}"{now}>{said}</button>'
    )


def legend_html(panels: Sequence[Panel], without: Collection[str] = ()) -> str:
    """Return what the panels' labeled marks look like, but for those of some names."""
    marks = [mark for panel in panels for mark in panel.marks]
    seen = {mark.label: mark for mark in marks if mark.label and mark.label not in without}
    items = "".join(f"<span>{_key(mark)}{html.escape(label)}</span>" for label, mark in seen.items())
    return f'<div class="qviz-legend">{items}</div>' if items else ""


def words_html(scene: Scene) -> str:
    """Return what stands above the pictures of a scene: its title, its table, and what it is about.

    A table whose rows can be opened stands below them: :func:`rows_html`.
    """
    above = scene.table is not None and not scene.table.opens
    first = table_html(scene.table, scene.title) if above else _paragraph(scene.title)
    return first + _paragraph(scene.about)


def scene_html(scene: Scene) -> str:
    """Return the words and one legend of all pictures, for pictures that have none of their own."""
    told = scene.table.rows if scene.table is not None and scene.table.roles else ()
    return words_html(scene) + legend_html(scene.panels, {row[0] for row in told})


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>" if text else ""


def rows_html(scene: Scene) -> str:
    """Return what stands below the pictures: a table whose rows can be opened, or nothing."""
    return table_html(scene.table) if scene.table is not None and scene.table.opens else ""


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
    bodies = {key: _body(scene) for key, scene in frames.items()}
    shared = _form(choosers, next(iter(first.values())), own=False)
    columns = "".join(
        f'<section aria-label="{html.escape(name)}">{_form(choosers, key, own=True, name=name)}'
        f'<div class="frame" aria-live="polite">{bodies[key]}</div></section>'
        for name, key in first.items()
    )
    templates = "".join(f'<template id="{_id(key)}">{body}</template>' for key, body in bodies.items())
    opening = OPENING if any(rows_html(scene) for scene in frames.values()) else ""
    path = Path(path)
    path.write_text(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><style>{PAGE}</style></head><body>'
        f'<header><h1>{html.escape(title)}</h1>{_paragraph(about)}<div id="shared">{shared}</div>'
        "<noscript><p>Without JavaScript only these pictures can be seen.</p></noscript></header>"
        f"<main>{columns}</main>{templates}<script>{SCRIPT}{opening}</script></body></html>\n",
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


def _swatch(role: str | None) -> str:
    """Return the line of a role, or nothing."""
    if role is None:
        return ""
    look = LOOKS[role]
    return _sample(f"border-top:4px {CSS_DASH[look.plain_dash]} {look.color}")


def _key(mark: Mark) -> str:
    """Return what a mark looks like: a line, ticks, a dot, a filled strip, or the shades of a heat map."""
    look = LOOKS[mark.role]
    match mark:
        case Points():
            return _sample(f"color:{look.color}", GLYPHS[look.marker])
        case Rug():
            return _sample(f"color:{look.color}", "|||")
        case Bars() | Band() | Span():
            return _sample(f"height:.7em;opacity:.5;background:{look.color}")
        case Heat():
            colors = ",".join(to_hex(color) for color in colormaps[HEAT](np.linspace(0.0, 1.0, 6)))
            return _sample(f"height:.7em;background:linear-gradient(to right,{colors})")
    return _swatch(mark.role)


def _sample(style: str, glyph: str = "") -> str:
    return f'<span class="qviz-swatch" aria-hidden="true" style="{style}">{glyph}</span>'


def _body(scene: Scene) -> str:
    alt = html.escape(" ".join(f"{panel.title}: {panel.text}" for panel in scene.panels), quote=True)
    return f'{words_html(scene)}<img alt="{alt}" src="{picture(scene)}">{rows_html(scene)}'
