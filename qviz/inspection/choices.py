"""Choices: the bit budget of a network, in plain numbers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qviz.core._text import table

ESTIMATES = ("fisher", "hutchinson", "loss_rise")
HEAD = ("average bits", "bytes", "predicted", "measured", "layers at each number of bits")
"""The columns of the table of choices."""

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Choice:
    """Bits for each layer, and what they cost.

    Attributes:
        bits: One a layer.
        average: Σ n_l b_l / Σ n_l.
        packed: Bytes of the packed codes of the weights; tables and floats of a file come on top.
        predicted: The sum of the layers' sensitivities.
        measured: The loss with all these layers quantized at once, less the loss without.
    """

    bits: tuple[int, ...]
    average: float
    packed: int
    predicted: float
    measured: float


@dataclass(frozen=True)
class Agreement:
    """Whether two estimates rank the layers alike.

    Attributes:
        first, second: The estimates.
        bits: Where they are compared.
        correlation: Spearman's, from -1 to 1; None where one of them cannot tell the layers apart.
    """

    first: str
    second: str
    bits: int
    correlation: float | None


@dataclass(frozen=True)
class Budget:
    """The bit budget of a network; ``print`` shows a table.

    Attributes:
        layers: Names.
        sizes: Numbers of weights.
        bits: Candidates.
        loss: What the figures are a rise of: "kl", "error", or "given" for a loss of the caller's.
        fisher, hutchinson: Sensitivities by layer and candidate.
        loss_rise: Measured ones, by layer and ``rise_bits``.
        rise_bits: The candidates that were measured, maybe none.
        by: The estimate that the choices are made by.
        choices: The allocations with the least predicted loss, none of them beaten in both bits and loss.
        all_equal: The same bits everywhere, for comparison.
        agreement: Of each two estimates, at each candidate that both have.
    """

    layers: tuple[str, ...]
    sizes: tuple[int, ...]
    bits: tuple[int, ...]
    loss: str
    fisher: Matrix
    hutchinson: Matrix
    loss_rise: Matrix
    rise_bits: tuple[int, ...]
    by: str
    choices: tuple[Choice, ...]
    all_equal: tuple[Choice, ...]
    agreement: tuple[Agreement, ...]

    def cells(self) -> list[tuple[str, ...]]:
        """Return the lines of the table: the choices, and all-equal bits behind them."""
        return [_cells(c, "") for c in self.choices] + [_cells(c, "all equal") for c in self.all_equal]

    def table(self) -> str:
        """Return the choices, and all-equal bits behind them, as lines of text."""
        return table(HEAD, self.cells(), right=range(4))

    def correlations(self) -> list[str]:
        """Return how far each two estimates rank the layers alike, in words, a line for each two."""
        pairs: dict[tuple[str, str], list[str]] = {}
        for a in self.agreement:
            pairs.setdefault((a.first, a.second), []).append(f"{_shown(a.correlation)} at {a.bits} bits")
        return [f"{first} and {second}: {', '.join(found)}" for (first, second), found in pairs.items()]

    def __str__(self) -> str:
        """Return the choices, the sensitivities at the fewest bits and the agreement, as text."""
        shown = [("fisher", self.fisher, self.bits), ("hutchinson", self.hutchinson, self.bits)]
        shown += [("loss_rise", self.loss_rise, self.rise_bits)] if self.rise_bits else []
        titles = [f"{name} at {bits[0]}" for name, _, bits in shown]
        layers = [
            (name or "(the model itself)", f"{n:,}", *(f"{matrix[at][0]:.3g}" for _, matrix, _ in shown))
            for at, (name, n) in enumerate(zip(self.layers, self.sizes, strict=True))
        ]
        return "\n\n".join(
            [
                self.table(),
                table(("layer", "weights", *titles), layers, right=range(1, 2 + len(titles))),
                "\n".join(["Rank correlations", *(f"  {line}" for line in self.correlations())]),
            ]
        )


def agreement(
    found: dict[str, Matrix], bits: tuple[int, ...], rise_bits: tuple[int, ...]
) -> tuple[Agreement, ...]:
    """Return how far each two estimates rank the layers alike, at each candidate that both have."""
    at = {name: rise_bits if name == "loss_rise" else bits for name in ESTIMATES}
    columns = {name: dict(zip(at[name], zip(*found[name], strict=True), strict=False)) for name in ESTIMATES}
    return tuple(
        Agreement(a, b, width, rank_correlation(columns[a][width], columns[b][width]))
        for a, b in itertools.combinations(ESTIMATES, 2)
        for width in bits
        if width in columns[a] and width in columns[b]
    )


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation, ties at their mean rank; None where all of x or of y are equal.

    Example:
        >>> rank_correlation([1, 2, 3, 4], [1, 8, 27, 26])
        0.8
        >>> rank_correlation([1, 2, 3], [5, 5, 5])
    """
    a, b = (_ranks(np.asarray(v, dtype=np.float64)) for v in (x, y))
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else None


def _ranks(v: np.ndarray) -> np.ndarray:
    _, at, count = np.unique(v, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[at]


def _cells(choice: Choice, what: str) -> tuple[str, ...]:
    widths = sorted(set(choice.bits))
    spread = what or ", ".join(f"{choice.bits.count(b)} at {b}" for b in widths)
    return (
        f"{choice.average:.2f}",
        f"{choice.packed:,}",
        f"{choice.predicted:.3g}",
        f"{choice.measured:.3g}",
        spread,
    )


def _shown(correlation: float | None) -> str:
    return "none" if correlation is None else f"{correlation:.2f}"
