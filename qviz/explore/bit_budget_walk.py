"""Bit budget walk: the bits of one layer on their way through the picture, to bytes, cost and both sums."""

from __future__ import annotations

import numpy as np

from qviz.explore.bit_budget_data import Bits
from qviz.explore.bit_budget_plan import YOURS, Plan
from qviz.plot.scene import Line, Points


def others(p: Plan) -> list[Bits]:
    """Return your allocation with each number of bits that the layer can have, from the fewest up."""
    own = p.rows[YOURS]
    return [(*own[: p.layer], b, *own[p.layer + 1 :]) for b in p.costs.bits]


def cost(p: Plan) -> Points:
    """Return the layer's cost at its bits, a dot that can be dragged."""
    here = p.costs.shares(p.rows[YOURS], p.estimate)[p.layer]
    return Points("e", np.array([p.layer + 1.0]), np.array([max(here, p.floor)]), "y")


def way(p: Plan) -> tuple[Line, Points]:
    """Return where the allocation goes as the layer gets other bits."""
    x, y = p.sizes(others(p)), _rises(p)
    return Line("e", x, y, label="with other bits for the layer"), Points("e", x, y)


def nearest(p: Plan, panel: int, x: float, y: float) -> int:
    """Return the bits of the layer that are nearest to a place among the costs (panel 1) or the sums (2)."""
    y = max(y, p.floor / 2)
    if panel == 1:
        away = np.abs(np.log(np.maximum(p.costs.omega[p.estimate][p.layer], p.floor) / y))
    else:
        wide, high = p.size.high - p.size.low, np.log(p.sums.high / p.sums.low)
        away = np.hypot((p.sizes(others(p)) - x) / wide, np.log(_rises(p) / y) / high)
    return p.costs.bits[int(away.argmin())]


def told(p: Plan) -> str:
    """Return what the bits of the layer take and cost, and what one more and one less would."""
    own, size, name = p.rows[YOURS], p.costs.sizes[p.layer], p.costs.names[p.layer]
    b, omega = own[p.layer], p.costs.shares(own, p.estimate)
    bytes_, whole, total = size * b / 8000, p.costs.kilobytes(own), float(omega.sum())
    part = f", {omega[p.layer] / total:.1%} of the sum" if total > 0 else ""
    text = (
        f"One layer: {name} at {b} bits takes {size:,} × {b} / 8,000 = {bytes_:.3g} kB, "
        f"{bytes_ / whole:.1%} of the size, and costs Ω = {omega[p.layer]:.3g}{part}."
    )
    for other in (b + 1, b - 1):
        if other in p.costs.bits:
            kb = size * (other - b) / 8000
            more = float(p.costs.omega[p.estimate][p.layer, p.costs.bits.index(other)] - omega[p.layer])
            text += f" At {other} bits: {kb:+.3g} kB, Ω {more:+.3g}, {more / kb:+.3g} for each kB."
    return text


def _rises(p: Plan) -> np.ndarray:
    return np.maximum([p.rise(bits) for bits in others(p)], p.floor)
