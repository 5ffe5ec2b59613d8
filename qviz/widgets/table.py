"""The live table: the comparison of a scene as HTML, each row with the look of its curves."""

from __future__ import annotations

import html

from qviz.measure.compare import HEADERS
from qviz.plot.scene import Scene
from qviz.plot.style import LOOKS

CSS_DASH = {
    "solid": "solid",
    "dashed": "dashed",
    "dotted": "dotted",
    "dash_dotted": "dashed",
}


def table_html(scene: Scene) -> str:
    """Return the scene's table; colours come from the page's theme, swatches from the style.

    Args:
        scene: with a table and one role for each of its rows.

    Raises:
        ValueError: the scene has no table.
    """
    if scene.table is None:
        raise ValueError(f"the scene {scene.title!r} has no table")
    cell = 'style="padding:2px 10px;text-align:right"'
    left = 'style="padding:2px 10px;text-align:left"'
    head = "".join(f'<th scope="col" {cell}>{h}</th>' for h in HEADERS[1:])
    rows = []
    for role, cells in zip(scene.roles, scene.table.cells(), strict=True):
        look = LOOKS[role]
        swatch = (
            f'<span aria-hidden="true" style="display:inline-block;width:2em;vertical-align:middle;'
            f'margin-right:.5em;border-top:4px {CSS_DASH[look.plain_dash]} {look.color}"></span>'
        )
        name = f'<th scope="row" {left}>{swatch}{html.escape(cells[0])}</th>'
        rows.append("<tr>" + name + "".join(f"<td {cell}>{v}</td>" for v in cells[1:]) + "</tr>")
    caption = f'<caption style="text-align:left;padding:4px 10px">{html.escape(scene.title)}</caption>'
    style = "border-collapse:collapse;font-variant-numeric:tabular-nums;line-height:1.4;white-space:nowrap"
    first = f'<th scope="col" {left}>grid</th>'
    return (
        f'<table class="qviz-table" style="{style}">{caption}<thead><tr>{first}{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
