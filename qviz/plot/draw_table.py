"""Draw a Table on matplotlib axes, and say how much room one of many rows needs."""

from __future__ import annotations

from dataclasses import replace

from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from qviz.core._text import count
from qviz.plot.style import LOOKS
from qviz.plot.table import Table

ROW, NOTE, BOLD = 12.0, 11.0, 1.15
"""Heights of a table's row and of a line below it, in points; how much wider bold letters are."""

LETTERS = 9.5
"""The size of a table's letters, in points."""

USUAL, MOST = 17, 30
"""Up to so many rows there is room for; up to so many the picture grows; those beyond are counted."""


def draw_table(ax: Axes, table: Table) -> None:
    """Write a table, each row's name in the color of its curves."""
    ax.set_axis_off()
    room = ax.figure.get_figheight() * 72 * ax.get_position().height
    table = _cut(table)
    ax.text(0.0, 0.0, "\n".join(table.notes), transform=ax.transAxes, fontsize="small", wrap=True)
    columns = zip(table.headers, *table.rows, strict=True)
    font = FontProperties(size=LETTERS)
    widths = [max(text_to_path.get_text_width_height_descent(t, font, False)[0] for t in c) for c in columns]
    widths = [width + 1.3 * LETTERS for width in widths]
    widths[0] *= BOLD if table.roles else 1.0
    foot, lines = NOTE * len(table.notes) + NOTE, len(table.rows) + 1
    crowded = bool(table.notes) and 2.0 * ROW * lines + 2 * foot > room
    height = min(2.0, (room - foot) / (ROW * lines)) if crowded else 2.0
    drawn = ax.table(
        table.rows,
        colLabels=table.headers,
        colWidths=[width / sum(widths) for width in widths],
        loc="upper center" if crowded else "center",
        cellLoc="right",
        edges="horizontal",
    )
    drawn.auto_set_font_size(False)
    across = ax.figure.get_figwidth() * 72 * ax.get_position().width
    drawn.set_fontsize(LETTERS * min(1.0, across / sum(widths), 1.0 if height >= 1.0 else 0.8 * height))
    drawn.scale(1.0, height)
    for (i, k), cell in drawn.get_celld().items():
        cell.PAD = 0.05
        cell.set_edgecolor(rcParams["axes.edgecolor"])
        cell.get_text().set_horizontalalignment("left" if k == 0 else "right")
        if k == 0 and i > 0 and table.roles:
            cell.get_text().set(color=LOOKS[table.roles[i - 1]].color, weight="bold")


def more(table: Table | None) -> float:
    """Return by how many inches a row of panels grows for a table of many rows."""
    if table is None or len(table.rows) <= USUAL:
        return 0.0
    return (ROW * (min(len(table.rows), MOST) - USUAL) / 0.8 + NOTE * len(table.notes)) / 72


def _cut(table: Table) -> Table:
    """Return a table of at most 30 rows, with a note that counts the others."""
    left = len(table.rows) - MOST
    if left <= 0:
        return table
    notes = (*table.notes, f"and {count(left, 'further row')}, which the table in the notebook has")
    return replace(table, rows=table.rows[:MOST], roles=table.roles[:MOST], notes=notes)
