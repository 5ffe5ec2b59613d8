"""Page: an inspection as one HTML file that needs neither network nor kernel; it computes nothing itself."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from qviz.core._files import write_atomically
from qviz.core._text import count
from qviz.inspection import panels
from qviz.inspection.choices import HEAD as CHOICES
from qviz.inspection.views import LayerView
from qviz.inspection.words import (
    HEAD,
    bought,
    called,
    cells,
    db,
    facts,
    figures,
    heading,
    legend,
    outputs,
    trials,
)
from qviz.plot.html import panel_html
from qviz.plot.page import PAGE
from qviz.plot.picture import picture
from qviz.plot.scene import Panel

if TYPE_CHECKING:
    from qviz.inspection.inspection import Inspection

WORST = 10
"""So many layers have their causes at the top, and are opened in print."""


def write(found: Inspection, path: str | Path) -> Path:
    """Write the page of an inspection and return its path; a file that is there is replaced in one go.

    Raises:
        OSError: The file cannot be written.
    """
    title = f"{found.model}: what quantization does to each layer"
    parts = (_totals, _worst, _pictures, _layers, _budget, _details, _left)
    body = "".join(part(found) for part in parts)
    text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><style>{PAGE}{_own("page.css")}</style></head><body>'
        f"<main><h1>{escape(title)}</h1>{body}</main>"
        f'<script type="module">{_own("page.js")}</script></body></html>\n'
    )
    write_atomically(path, text.encode())
    return Path(path)


def _own(name: str) -> str:
    return files("qviz.inspection").joinpath(name).read_text("utf-8")


def _totals(found: Inspection) -> str:
    notes = "".join(f"<li>{escape(note)}</li>" for note in found.notes)
    took = f"<li>the inspection took {found.seconds:.0f} s</li>"
    lines = "".join(f"<p>{escape(line)}</p>" for line in heading(found).splitlines())
    return f'<section aria-label="Totals">{lines}<ul>{notes}{took}</ul></section>'


def _worst(found: Inspection) -> str:
    parts = []
    for layer in found.worst(WORST):
        said = [f"<li>{escape(cause.text)}</li>" for cause in layer.causes]
        said += [f"<li>{escape(line)}</li>" for line in trials(layer)]
        if said:
            parts.append(f"<h3>{_link(found, layer)}</h3><ul>{''.join(said)}</ul>")
    none = "<p>No figure of a layer passed its threshold.</p>"
    return f"<section><h2>The worst layers, and why</h2>{''.join(parts) or none}</section>"


def _pictures(found: Inspection) -> str:
    layers = found.layers
    made = [panels.ratios(layers), panels.costs(layers, found.loss)]
    shown = "".join(_figure(panel) for panel in made if panel is not None)
    pictures = f'<section><h2>Layer by layer</h2><div class="qviz-panels">{shown}</div></section>'
    return pictures if shown else ""


def _figure(panel: Panel) -> str:
    return panel_html(panel, f'src="{picture(panel)}"')


def _layers(found: Inspection) -> str:
    head = "".join(f'<th scope="col"><button type="button">{escape(name)}</button></th>' for name in HEAD)
    rows = "".join(_row(found, layer) for layer in found.layers)
    table = f'<table class="qviz-table layers"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    shown = f"<p>{escape(legend(found))}.</p>{_threshold(found)}{_wide('Table of all layers', table)}"
    return f"<section><h2>All layers</h2>{shown}</section>"


def _row(found: Inspection, layer: LayerView) -> str:
    _, kind, shape, bits, *texts = cells(layer)
    plain = "".join(f"<td>{escape(text)}</td>" for text in (kind, shape, bits))
    values = "".join(
        f'<td{" class=local" if title == "local dB" else ""} data-v="{_number(value)}">{escape(text)}</td>'
        for title, text, value in zip(HEAD[4:], texts, figures(layer), strict=True)
    )
    place = f'data-v="{found.layers.index(layer)}"'
    return f'<tr><th scope="row" class="name" {place}>{_link(found, layer)}</th>{plain}{values}</tr>'


def _number(value: float | None) -> str:
    """Return a number as JavaScript reads it."""
    return "" if value is None else repr(float(value)).replace("inf", "Infinity").replace("nan", "NaN")


def _threshold(found: Inspection) -> str:
    """Return what marks layers; it starts where it marks the worst quarter of them."""
    held = [one.outputs.local for one in found.quantized if one.outputs is not None]
    held = sorted(value for value in held if value is not None and math.isfinite(value))
    if not held:
        return ""
    low, high, start = math.floor(held[0]), math.ceil(held[-1]) + 1, math.ceil(held[len(held) // 4])
    return (
        '<div class="marked control" hidden>'
        '<label for="threshold">Mark layers whose local ratio is below</label>'
        f'<input type="range" id="threshold" min="{low}" max="{high}" step="0.5" value="{start}">'
        '<output id="level" for="threshold"></output><span id="counted" role="status"></span>'
        '<label><input type="checkbox" id="only"> show only these</label></div>'
    )


def _budget(found: Inspection) -> str:
    if found.budget is None:
        return ""
    panel = panels.pareto(found.budget)
    shown = "" if panel is None else _figure(panel)
    alike = "".join(f"<li>{escape(line)}</li>" for line in found.budget.correlations())
    table = _wide("What bits of weights buy", _table(CHOICES, found.budget.cells()), "left")
    title, unit = map(escape, bought(found.budget))
    return (
        f"<section><h2>{title}</h2><p>{unit}.</p>"
        f'<div class="qviz-panels">{shown}{table}</div><p>Rank correlations of the estimates</p>'
        f"<ul>{alike}</ul></section>"
    )


def _details(found: Inspection) -> str:
    worst = {layer.name for layer in found.worst(WORST)}
    parts = "".join(_detail(found, layer, layer.name in worst) for layer in found.quantized)
    return f"<section><h2>Each layer</h2>{parts}</section>"


def _detail(found: Inspection, layer: LayerView, worst: bool) -> str:
    made = [
        panels.histogram(values, what)
        for values, what in ((layer.weight, "weight"), (layer.input, "input"))
        if values is not None
    ]
    short = f"{layer.kind}, local {db(layer.outputs.local)} dB" if layer.outputs is not None else layer.kind
    tables = _table(("output and cost", ""), outputs(layer)) + _table(("", "weight", "input"), facts(layer))
    said = [layer.why] if layer.why else []
    said += [cause.text for cause in layer.causes] + trials(layer)
    return (
        f'<details id="{_id(found, layer)}"{" class=worst" if worst else ""}><summary>'
        f"<strong>{escape(called(layer.name))}</strong><small>{escape(short)}</small></summary>"
        f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in said)}</ul>"
        f'<div class="qviz-panels">{"".join(map(_figure, made))}</div>'
        f"{_wide(f'Figures of {called(layer.name)}', tables, 'tables')}</details>"
    )


def _wide(label: str, table: str, kind: str = "") -> str:
    """Return what is scrolled sideways where the page is too narrow for it, also by keyboard."""
    named = f'role="region" tabindex="0" aria-label="{escape(label, quote=True)}"'
    return f'<div class="wide {kind}" {named}>{table}</div>'


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    titles = "".join(f'<th scope="col">{escape(name)}</th>' if name else "<td></td>" for name in head)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(text)}</td>" for text in texts)}</tr>'
        for name, *texts in rows
    )
    if not body:
        return ""
    return f'<table class="qviz-table facts"><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>'


def _left(found: Inspection) -> str:
    left = [layer for layer in found.layers if not layer.quantized]
    if not left:
        return ""
    rows = [(called(one.name), one.kind, f"{one.parameters:,}", one.why) for one in left]
    title = f"Not quantized: {count(len(left), 'layer')}"
    table = _table(("layer", "kind", "parameters", "why"), rows)
    return f"<section><h2>{title}</h2>{_wide(title, table, 'left')}</section>"


def _link(found: Inspection, layer: LayerView) -> str:
    name = escape(called(layer.name))
    return f'<a href="#{_id(found, layer)}">{name}</a>' if layer.quantized else name


def _id(found: Inspection, layer: LayerView) -> str:
    return f"layer-{found.layers.index(layer) + 1}"
