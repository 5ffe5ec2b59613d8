"""HTML: the words, tables and legends of a scene."""

from __future__ import annotations

import html
from collections.abc import Collection, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

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
.qviz-panels { display: grid; gap: 1rem; align-items: end;
  grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr)); }
.qviz-panel { margin: 0; max-width: 28rem; } .qviz-panel figcaption { font-size: .85rem; padding-left: 1rem; }
.qviz-panel img { width: 100%; height: auto; background: #fff; }
"""
"""Rules that tables and legends need, wherever they are shown; colors of text are the page's own."""


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


def panel_html(panel: Panel, image: str) -> str:
    """Return a figure: the panel's title and legend above an image of it.

    Args:
        panel: What the image shows.
        image: The attributes of the image but for its alternative text.
    """
    alt = html.escape(f"{panel.title}: {panel.text}", quote=True)
    caption = f"<figcaption><strong>{html.escape(panel.title)}</strong>{legend_html((panel,))}</figcaption>"
    return f'<figure class="qviz-panel">{caption}<img alt="{alt}" {image}></figure>'


def words_html(scene: Scene) -> str:
    """Return what stands above the pictures of a scene: its title, its table, and what it is about.

    A table whose rows can be opened stands below them: :func:`rows_html`.
    """
    above = scene.table is not None and not scene.table.opens
    first = table_html(scene.table, scene.title) if above else paragraph(scene.title)
    return first + paragraph(scene.about)


def scene_html(scene: Scene) -> str:
    """Return the words and one legend of all pictures, for pictures that have none of their own."""
    told = scene.table.rows if scene.table is not None and scene.table.roles else ()
    return words_html(scene) + legend_html(scene.panels, {row[0] for row in told})


def paragraph(text: str) -> str:
    """Return a text as a paragraph; nothing where there is none."""
    return f"<p>{html.escape(text)}</p>" if text else ""


def rows_html(scene: Scene) -> str:
    """Return what stands below the pictures: a table whose rows can be opened, or nothing."""
    return table_html(scene.table) if scene.table is not None and scene.table.opens else ""


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
