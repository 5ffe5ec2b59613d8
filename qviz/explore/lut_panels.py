"""The panels and the table of the explorer of look-up tables, from a dot product on codes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qviz.explore.lut_walk import REGISTER, Walk, binary, bits
from qviz.plot.scene import Axis, Heat, Line, Mark, Panel, Points, Rule, Table


@dataclass(frozen=True, eq=False)
class Moment:
    """A dot product after some of its terms.

    Attributes:
        walk: The dot product.
        terms: How many terms are in the sums; the last of them is the one on show.
        reach: The ends of the axis of the weights.
        span: The ends of the axis of the activations.
    """

    walk: Walk
    terms: int
    reach: tuple[float, float]
    span: tuple[float, float]

    @property
    def i(self) -> int:
        """The index of the term on show."""
        return self.terms - 1


def _stairs(borders: np.ndarray, y: np.ndarray, low: float, high: float, label: str) -> Line:
    """Return y over x as a broken line, from the borders between its steps."""
    edges = np.clip([low, *borders, high], low, high)
    seen = np.diff(edges) > 0
    return Line.of("a", [edges[:-1][seen], edges[1:][seen]], y[seen], label)


def of_weights(m: Moment) -> Panel:
    """Return the levels of the weights over w, and where each weight is."""
    k, (low, high) = m.walk, m.reach
    levels = k.levels * k.scale
    rounded = levels[k.codes]
    w, code = float(k.weights[m.i]), k.codes[m.i]
    marks = (
        Line("ideal", np.array([low, high]), np.array([low, high]), label="w itself"),
        _stairs((levels[1:] + levels[:-1]) / 2, levels, low, high, "level × scale"),
        Points("data", k.weights, rounded, label="all weights"),
        Points("e", k.weights[[m.i]], rounded[[m.i]], "x", label="this term"),
    )
    text = (
        f"w = {w:.4g} has code {code} of {len(levels)}, level {k.levels[code]:.4g} × {k.scale:.4g} = "
        f"{levels[code]:.4g}; its error is {levels[code] - w:.3g}."
    )
    return Panel("Weight to level", Axis("w", low, high), Axis("Q(w)", low, high), marks, text)


def of_activations(m: Moment) -> Panel:
    """Return the code of the activations over x, with the thresholds, and where each activation is."""
    k, (low, high) = m.walk, m.span
    borders, codes = k.input.borders.double().numpy(), np.array(k.a, dtype=float)
    x, a, top = float(k.activations[m.i]), k.a[m.i], len(borders)
    marks = (
        _stairs(borders, np.arange(top + 1.0), low, high, "code"),
        Points("data", k.activations, codes, label="all activations"),
        Points("e", k.activations[[m.i]], codes[[m.i]], "x", label="this term"),
    )
    text = (
        f"x = {x:.4g} is above {a} of the {top} thresholds {borders[0]:.4g} … {borders[-1]:.4g}: code {a}, "
        f"which stands for {a} × {k.step:.4g} = {a * k.step:.4g}."
    )
    spare = 0.06 * top + 0.1
    return Panel("Activation to code", Axis("x", low, high), Axis("a", -spare, top + spare), marks, text)


def product_table(m: Moment) -> Panel:
    """Return the table of all products, of magnitudes where the levels are symmetric, and the entries hit."""
    k = m.walk
    symmetric = np.array_equal(k.levels, -k.levels[::-1])
    rows = k.levels[len(k.levels) // 2 :] if symmetric else k.levels
    row = np.searchsorted(rows, np.abs(k.levels[k.codes]) if symmetric else k.levels[k.codes]) + 1.0
    column, at = np.array(k.a) + 1.0, np.arange(1.0, len(k.input.values) + 1)
    values = rows[:, None] * (at - 1)
    hit = float(values[int(row[m.i]) - 1, k.a[m.i]])
    marks = (
        Heat("data", at, np.arange(1.0, len(rows) + 1), values, label="product"),
        Points("data", column[: m.i], row[: m.i], label="terms before"),
        Points("e", column[[m.i]], row[[m.i]], label="this term"),
    )
    what = "magnitudes" if symmetric else "levels"
    text = (
        f"{len(rows)} {what} × {len(at)} codes of activations = {values.size} products. Row "
        f"{rows[int(row[m.i]) - 1]:.4g}, column {k.a[m.i]}: {hit:.4g}"
        + (", and the weight's sign." if symmetric else ".")
    )
    x = Axis("a", 0.5, len(at) + 0.5, names=tuple(_some(a) for a in range(len(at))))
    every = -(-len(rows) // 9)
    shown = [f"{round(v, 2) + 0.0:.2g}" if i % every == 0 else " " for i, v in enumerate(rows)]
    y = Axis("|level|" if symmetric else "level", 0.5, len(rows) + 0.5, names=tuple(shown))
    return Panel("Table of products", x, y, marks, text)


def _some(number: int) -> str:
    """Return a number as text where there is room for it: every fourth one."""
    return " " if number % 4 else str(number)


def registers(m: Moment) -> Panel:
    """Return in binary the activation's code, what is added, and the accumulators."""
    k, part = m.walk, m.walk.route.parts[m.walk.codes[m.i]]
    sums, used = k.accumulators(m.terms), sorted({k.target(i) for i in range(k.count)})
    rows = [(k.route.names[r], sums[r], "e" if r == part.accumulator else "a") for r in reversed(used)]
    rows += [(part.text, abs(k.added[m.i]), "e"), ("a", k.a[m.i], "e")]
    digits, roles = np.array([bits(value) for _, value, _ in rows]), np.array([[its] for *_, its in rows])
    looks = np.where(digits == 1, roles, "data")
    marks: list[Mark] = []
    for role, label in (("data", "bit 0"), ("a", "bit 1"), ("e", "bit 1, this term")):
        y, x = np.nonzero(looks == role)
        marks.append(Points(role, x + 1.0, y + 1.0, label=label))
    marks.append(Rule("ideal", len(used) + 0.5, "y"))
    told = "; ".join(f"{name} = {value} = {binary(value)}" for name, value, _ in reversed(rows))
    verb = "subtracted" if part.sign < 0 else "added"
    text = f"In two's complement of {REGISTER} bits, the second row being {verb}: {told}."
    x = Axis("bit", 0.5, REGISTER + 0.5, names=tuple(_some(b) for b in reversed(range(REGISTER))))
    y = Axis("row", 0.5, len(rows) + 0.5, names=tuple(name for name, *_ in rows))
    return Panel("Accumulators in binary", x, y, tuple(marks), text)


def running(m: Moment) -> Panel:
    """Return the sum after each term, of integers and in floating point."""
    k = m.walk
    whole = np.array([k.exact(n) for n in range(k.count + 1)])
    full = np.array([k.floating(n) for n in range(k.count + 1)])
    at, seen = np.arange(k.count + 1.0), slice(m.terms + 1)
    low, high = min(whole.min(), full.min()), max(whole.max(), full.max())
    spare = 0.1 * (high - low) or 1.0
    marks = (
        Rule("ideal", 0.0, "y"),
        Line("b", at[seen], full[seen], label="floating point"),
        Line("a", at[seen], whole[seen], label="integers"),
        Points("e", at[[m.terms]], whole[[m.terms]], "x", label="this term"),
    )
    text = (
        f"After {m.terms} of {k.count} terms the integers stand for {whole[m.terms]:.4g}; in floating point, "
        f"nothing rounded, the sum is {full[m.terms]:.4g}."
    )
    y = Axis("sum of w x", low - spare, high + spare)
    return Panel("Sum so far", Axis("terms", -0.2, k.count + 0.2), y, marks, text)


def told(m: Moment) -> str:
    """Return what the term on show does, in a sentence."""
    k, i = m.walk, m.i
    part = k.route.parts[k.codes[i]]
    head = f"Term {m.terms}: level {k.levels[k.codes[i]]:.4g}, a = {k.a[i]}"
    if not part.sign:
        return f"{head}: the level is 0, so nothing is added."
    name, now = k.route.names[part.accumulator], k.accumulators(m.terms)[part.accumulator]
    return f"{head}: {does(k, i)} goes to {name}, now {now}.".replace("-", "−")


def does(k: Walk, i: int) -> str:
    """Return what a term adds, as a calculation with numbers."""
    part, a = k.route.parts[k.codes[i]], k.a[i]
    if not part.sign:
        return "0"
    sign = "−" if part.sign < 0 else ""
    if part.factor == 1 and not part.shift:
        return f"{sign}{a}"
    made = f"{part.factor}·{a}" if part.factor > 1 else f"{a}<<{part.shift}"
    return f"{sign}{made} = {part.of(a)}".replace("-", "−")


def table(m: Moment) -> Table:
    """Return a line for each term, with what it added for those that are in the sums; the result below."""
    k = m.walk
    rows, roles, values = [], [], {}
    for i in range(k.count):
        name, level = f"{i + 1}", float(k.levels[k.codes[i]])
        start = (name, *(f"{v:.3g}" for v in (k.weights[i], level, k.activations[i])), f"{k.a[i]}")
        sums = k.exact(i + 1), k.floating(i + 1)
        done = (does(k, i), k.route.names[k.target(i)], *(f"{v:.3f}" for v in sums))
        rows.append((*start, *(done if i < m.terms else ("–",) * 4)))
        roles.append("e" if i == m.i else "a" if i < m.i else "data")
        values[name] = {"w": float(k.weights[i]), "code": k.codes[i], "level": level}
        values[name] |= {"x": float(k.activations[i]), "a": k.a[i]}
        if i < m.terms:
            values[name] |= {"added": k.added[i], "accumulator": k.route.names[k.target(i)]}
            values[name] |= {"sum": sums[0], "float": sums[1]}
    headers = ("Term", "w", "level", "x", "a", "adds", "to", "sum", "float")
    return Table(headers, tuple(rows), tuple(roles), values, tuple(ending(m)))


def ending(m: Moment) -> list[str]:
    """Return how accumulators become a number: by multipliers and a shift, beside exact arithmetic."""
    k, n, f = m.walk, m.walk.shift, m.walk.fraction
    sums = k.accumulators(m.terms)
    used = [r for r in range(len(sums)) if sums[r]] or [0]
    parts = [f"{sums[r]} · {k.multipliers[r]}" for r in used]
    shown = " + ".join(parts if len(parts) <= 2 else [parts[0], f"{len(parts) - 1} more"]).replace(
        "+ -", "− "
    )
    return [
        f"Q(w) is the level times the scale, {k.scale:.4g}",
        f"Multipliers and shift: ({shown} + {2 ** (n - 1)}) >> {n} = {k.fixed(m.terms)}, in units of 2^{-f}",
        f"That is {k.result(m.terms):.5g}; the accumulators stand for {k.exact(m.terms):.5g}; in floating "
        f"point, nothing rounded: {k.floating(m.terms):.5g}",
    ]
