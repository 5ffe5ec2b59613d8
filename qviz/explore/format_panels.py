"""Format panels: what :mod:`qviz.explore.format` shows of a tensor in all formats."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from qviz.core.quantizer import Quantizer
from qviz.core.range import Fixed
from qviz.explore import tensors
from qviz.explore.format_data import FORMATS, PASTED, Coded, allowed, pasted
from qviz.plot import panels
from qviz.plot.scene import Axis, Panel, Points, Rug, Rule, Scene, Table

if TYPE_CHECKING:
    from qviz.explore.format import FormatChoice, FormatModel


def scene(model: FormatModel, c: FormatChoice) -> Scene:
    """Return error against bits, one group of neighbors, the error histogram and the table."""
    made = {name: model.coded(c, name) for name in FORMATS}
    within = [name for name, m in made.items() if m.bits <= allowed(c.budget)]
    best = max(within, key=lambda n: made[n].measured.sqnr_db, default=None)
    told = f"No format fits into {c.budget} a value: the scales of so few values count too much."
    if best is not None:
        told = f"Within {c.budget} a value {best} has the least error."
    data = tensors.summary(model.source(c))
    both = {f"{slot}: {name}": made[name].measured for slot, name in (("A", c.a), ("B", c.b))}
    parts = (_plane(c, made), _group(model, c), panels.error(data, both))
    problem = pasted(c.numbers)[1] if c.tensor == PASTED else ""
    about = (problem, told, f"{c.tensor}: {model.source(c).about}.")
    title = f"Formats on {c.tensor} within {c.budget} a value"
    return Scene(title, parts, _table(c, made, within), " ".join(filter(None, about)))


def _role(c: FormatChoice, name: str) -> str:
    return "a" if name == c.a else "b" if name == c.b else "data"


def _plane(c: FormatChoice, made: dict[str, Coded]) -> Panel:
    """Return error against bits."""
    bits = np.array([m.bits for m in made.values()])
    noise = np.array([m.measured.sqnr_db for m in made.values()])
    seen = np.isfinite(noise)
    named = {role: [i for i, n in enumerate(made) if _role(c, n) == role and seen[i]] for role in "ab"}
    marks = [Points("data", bits[seen], noise[seen], label="all formats")]
    marks += [
        Points(role, bits[at], noise[at], label=f"{role.upper()}: {list(made)[at[0]]}")
        for role, at in named.items()
        if at
    ]
    marks.append(Rule("ideal", allowed(c.budget), label="budget"))
    low, high = (noise[seen].min(), noise[seen].max()) if seen.any() else (0.0, 1.0)
    y = Axis("SQNR (dB)", 5.0 * np.floor(low / 5.0 - 0.2), 5.0 * np.ceil(high / 5.0 + 0.2))
    x = Axis("bits a value, scales counted", 3.8, max(8.6, 1.03 * float(bits.max())))
    text = " ".join(f"{n}: {m.bits:.3f} bits, {m.measured.sqnr_db:.2f} dB." for n, m in made.items())
    return Panel("Error against bits", x, y, tuple(marks), text)


def _group(model: FormatModel, c: FormatChoice) -> Panel:
    """Return one group of neighbors, and the levels of both formats for it."""
    _, values = model.neighbors(c)
    value, i = float(tensors.summary(model.source(c)).x.flatten()[c.place - 1]), c.place - 1
    spare = 0.08 * float(np.ptp(values)) or 0.5 * (abs(value) or 1.0)
    low, high = float(values.min()) - spare, float(values.max()) + spare
    marks: list = [Rug("data", values, 0.0, 1.0, label="neighbors in memory")]
    words = [
        f"Value {c.place} is {value:.4g}, among {len(values)} neighbors up to {np.abs(values).max():.4g}."
    ]
    for role, name, base in (("a", c.a, 1.2), ("b", c.b, 2.4)):
        made = model.coded(c, name)
        scale, slot = made.scale(i), role.upper()
        q = Quantizer(made.q.codebook, range=Fixed(scale if scale > 0 else 1.0))
        places, y = panels.level_positions(q), float(q(torch.tensor([value], dtype=torch.float64)))
        shown = places[(places >= low) & (places <= high)]
        marks.append(Rug(role, shown, base, base + 1.0, label=f"levels of {slot}: {name}"))
        marks.append(Points(role, np.array([y]), np.array([base + 0.5])))
        words.append(
            f"{slot}, {name}: x / scale = {value:.4g} / {scale:.4g} = {value / (scale or 1.0):.4g} goes "
            f"to the level {y / (scale or 1.0):.4g}, y = {y:.4g}, error {y - value:.3g}; "
            f"{len(shown)} of {len(places)} levels lie among the neighbors."
        )
    marks.append(Points("e", np.array([value]), np.array([0.5]), "x", label="one value"))
    tall = Axis("values · A · B", -0.2, 3.6)
    return Panel("One group of neighbors", Axis("x", low, high), tall, tuple(marks), " ".join(words))


def _table(c: FormatChoice, made: dict[str, Coded], within: list[str]) -> Table:
    """Return a line for each format."""
    rows, values = [], {}
    for name, m in made.items():
        code, noise = FORMATS[name].bits, m.measured.sqnr_db
        fits = "yes" if name in within else "no"
        bits = f"{code} + {m.bits - code:.3f}"
        rows.append((name, f"{m.size:,}", bits, str(len(m.q.codebook)), f"{noise:.2f}", fits))
        values[name] = {
            "group": m.size,
            "bits": m.bits,
            "levels": len(m.q.codebook),
            "sqnr_db": noise if np.isfinite(noise) else None,
            "fits": name in within,
        }
    headers = ("format", "values a scale", "bits: code + scale", "levels", "SQNR dB", "fits")
    return Table(headers, tuple(rows), tuple(_role(c, n) for n in made), values)
