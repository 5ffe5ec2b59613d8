"""Page: frames of one explorer in a single HTML file that needs neither kernel nor network."""

from __future__ import annotations

import base64
import html
import io
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import matplotlib
from matplotlib.figure import Figure
from PIL import Image

from qviz.plot.draw import draw, png
from qviz.plot.scene import Scene
from qviz.widgets.table import table_html

SVG_BEST_BELOW = 50_000
"""Bytes; a smaller SVG is kept without asking what a PNG would take."""


@dataclass(frozen=True)
class Frame:
    """One picture of the page: the scene of one grid at one bit width."""

    grid: str
    bits: int
    scene: Scene

    @property
    def key(self) -> str:
        """The frame's id in the page."""
        return f"{self.grid}|{self.bits}"


STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 1.5rem auto; max-width: 76rem; padding: 0 1rem; }
main { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 1.5rem; }
form { display: flex; flex-wrap: wrap; gap: 1rem; align-items: center; }
img { width: 100%; height: auto; background: white; }
table { font-size: .8rem; } .frame { overflow-x: auto; }
@media (prefers-color-scheme: dark) { body { background: #111; color: #eee; } }
"""

SCRIPT = """
for (const column of document.querySelectorAll('section')) {
  const grid = column.querySelector('select');
  const bits = column.querySelector('input');
  const shown = column.querySelector('output');
  const show = () => {
    shown.value = bits.value;
    const frame = document.getElementById(grid.value + '|' + bits.value);
    const place = column.querySelector('.frame');
    if (frame) place.replaceChildren(frame.content.cloneNode(true));
    else place.textContent = grid.value + ' does not exist at ' + bits.value + ' bits.';
  };
  grid.addEventListener('input', show);
  bits.addEventListener('input', show);
}
"""


def write(
    path: str | Path,
    title: str,
    about: str,
    frames: list[Frame],
    first: tuple[tuple[str, int], tuple[str, int]],
) -> Path:
    """Write the page and return its path.

    Args:
        path: the file to write.
        title: its heading.
        about: its first paragraph.
        frames: all that can be chosen.
        first: grid and bits that the two columns show at first, also without JavaScript.
    """
    bodies = {frame.key: _body(frame) for frame in frames}
    columns = "".join(_column(side, frames, bodies, *start) for side, start in zip("AB", first, strict=True))
    templates = "".join(
        f'<template id="{html.escape(key)}">{body}</template>' for key, body in bodies.items()
    )
    path = Path(path)
    path.write_text(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        f"<h1>{html.escape(title)}</h1><p>{html.escape(about)}</p><main>{columns}</main>"
        f"<noscript><p>Without JavaScript only these two frames can be seen.</p></noscript>"
        f"{templates}<script>{SCRIPT}</script></body></html>\n",
        encoding="utf-8",
    )
    return path


def _column(side: str, frames: list[Frame], bodies: dict[str, str], grid: str, bits: int) -> str:
    names = list(dict.fromkeys(frame.grid for frame in frames))
    widths = [frame.bits for frame in frames]
    options = "".join(f"<option{' selected' if n == grid else ''}>{html.escape(n)}</option>" for n in names)
    slider = f'<input type="range" min="{min(widths)}" max="{max(widths)}" value="{bits}">'
    return (
        f'<section aria-label="Grid {side}"><form autocomplete="off">'
        f"<label>Grid {side} <select>{options}</select></label>"
        f"<label>Bits {slider} <output>{bits}</output></label></form>"
        f'<div class="frame" aria-live="polite">{bodies[f"{grid}|{bits}"]}</div></section>'
    )


def _body(frame: Frame) -> str:
    alt = html.escape(" ".join(panel.text for panel in frame.scene.panels), quote=True)
    return f'{table_html(frame.scene)}<img alt="{alt}" src="{_picture(frame.scene)}">'


def _picture(scene: Scene) -> str:
    """Draw the panels below each other; return a data URI, SVG or (where that is smaller) PNG."""
    fig = Figure(figsize=(5.6, 3.0 * len(scene.panels)))
    fig.subplots_adjust(
        left=0.12, right=0.95, top=0.93, bottom=0.06, hspace=0.5
    )  # a layout engine takes longer
    for ax, panel in zip(fig.subplots(len(scene.panels), 1), scene.panels, strict=True):
        draw(panel, ax).locator_params(axis="x", nbins=6)
    uri = "data:image/svg+xml," + quote(_svg(fig), safe=" /:;,=()'!*@?+|[]{}")  # shorter than base64
    if len(uri) < SVG_BEST_BELOW:
        return uri
    image = io.BytesIO()
    Image.open(io.BytesIO(png(fig, dpi=130))).convert("RGB").quantize(64).save(image, "png", optimize=True)
    return min(uri, "data:image/png;base64," + base64.b64encode(image.getvalue()).decode(), key=len)


def _svg(fig: Figure) -> bytes:
    """Return the figure as SVG, text kept as text, coordinates rounded."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "qviz"}):
        fig.savefig(buffer, format="svg", metadata={"Date": None})
    svg = re.sub(rb"\s*\n\s*", b" ", buffer.getvalue())
    # in paths only (numbers are text too): a tenth of a point is a fifth of a pixel here
    return re.sub(rb' d="[^"]*"', lambda path: re.sub(rb"(\d\.\d)\d+", rb"\1", path[0]), svg)
