"""Picture: a panel as a data URI, for a page without a network."""

from __future__ import annotations

import base64
import io
import re
from urllib.parse import quote

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from PIL import Image, ImageColor

from qviz.plot.draw import draw, png
from qviz.plot.scene import Panel
from qviz.plot.style import LOOKS

DPI = 130
"""Dots of a PNG per inch."""

WIDE, TALL = 4.6, 2.6
"""Inches: so narrow that text can be read where the picture is as wide as a phone."""

MARGINS = {"left": 0.17, "right": 0.96, "top": 0.95, "bottom": 0.2}
"""Where the axes lie, in shares of the picture."""

SVG_BEST_BELOW = 12_000
"""Bytes; a smaller SVG is kept without asking what a PNG would take."""

_UNREAD = re.compile(
    rb"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>|<!--.*?-->"
    rb'|(?<=<g) id="[^"]*"| transform="rotate\(-0 [^"]*"',
    re.DOTALL,
)
"""Prolog, metadata, comments, names of groups and turns by nothing."""


def picture(panel: Panel) -> str:
    """Draw a panel without title and legend; return a data URI, SVG or (where that is smaller) PNG."""
    fig = Figure(figsize=(WIDE, TALL), dpi=DPI)
    FigureCanvasAgg(fig)  # it keeps one renderer, where the plain canvas makes one for every text it measures
    fig.subplots_adjust(**MARGINS)
    ax = draw(panel, fig.subplots(), title="", legend=False)
    if not (panel.x.log or panel.x.names):
        ax.locator_params(axis="x", nbins=6)
    for axis, its in ((ax.xaxis, panel.x), (ax.yaxis, panel.y)):
        if its.log and its.high > 1000 * its.low:  # ticks between powers of ten take half of the time
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(_power_of_ten)
    uri = "data:image/svg+xml," + quote(_svg(fig), safe=" /:;,=()'!*@?+|[]{}")  # shorter than base64
    if len(uri) < SVG_BEST_BELOW:
        return uri
    image = io.BytesIO()
    _in_few_colors(Image.open(io.BytesIO(png(fig, DPI))).convert("RGB")).save(image, "png", optimize=True)
    return min(uri, "data:image/png;base64," + base64.b64encode(image.getvalue()).decode(), key=len)


def _power_of_ten(x: float, place: int | None) -> str:
    return f"{x:g}" if x >= 0.001 else f"{x:.0e}".replace("e-0", "e-")


def _in_few_colors(image: Image.Image) -> Image.Image:
    """Return a picture in 128 colors, white and the roles' among them: small marks would not get theirs."""
    names = ("#ffffff", *dict.fromkeys(look.color for look in LOOKS.values()))
    own = np.array([ImageColor.getrgb(name) for name in names])
    common = np.reshape(image.quantize(128 - len(own)).getpalette(), (-1, 3))
    others = np.abs(common[:, None] - own).max(2).min(1) > 8  # Pillow may take a color's neighbor instead
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate([own, common[others]]).ravel().tolist())
    return image.quantize(palette=palette, dither=Image.Dither.NONE)


def _svg(fig: Figure) -> bytes:
    """Return the figure as SVG, text kept as text, without what no viewer needs."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "qviz"}):
        fig.savefig(buffer, format="svg", metadata={"Date": None})
    svg = re.sub(rb">\s+<", b"><", _UNREAD.sub(b"", buffer.getvalue()))
    svg = re.sub(rb"(font-family: [^,;\"]+)[^;\"]*?((?:, [a-z-]+)?)(?=[;\"])", rb"\1\2", svg)  # two will do
    return re.sub(rb' (d|style|x|y)="([^"]*)"', _short, svg)


def _short(attribute: re.Match[bytes]) -> bytes:
    """Return an attribute without spaces between its parts, its numbers cut off."""
    name, value = attribute.groups()
    if name == b"style":
        value = re.sub(rb"([:;]) ", rb"\1", value)
    elif name == b"d":  # a tenth of a point is a fifth of a pixel here
        value = re.sub(rb"\s*([A-Za-z])\s*", rb"\1", re.sub(rb"(\d\.\d)\d+", rb"\1", value))
    else:
        value = re.sub(rb"(\d\.\d\d)\d+", rb"\1", value)
    return b' %b="%b"' % (name, value)
