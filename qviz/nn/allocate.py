"""Allocate: how many bits each layer gets, from what quantizing it costs and from an average that must hold.

INFERRED: Jia et al. (ADQ, arXiv:2510.19760) allocate bits by sensitivity under an average; which candidates
and which solver they use could not be obtained. The choices here are this project's.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from qviz.nn.hutchinson import hutchinson as hutchinson
from qviz.nn.perturb import Factory as Factory
from qviz.nn.perturb import Loss as Loss
from qviz.nn.perturb import candidates
from qviz.nn.sensitivity import fisher as fisher
from qviz.nn.sensitivity import loss_rise as loss_rise


@dataclass(frozen=True)
class Allocation:
    """The bits of each layer, and what they come to.

    Attributes:
        bits: one a layer.
        average: Σ n_l b_l / Σ n_l, weighted by parameters: what the budget limits.
        unweighted: Σ b_l / L; papers differ in which of the two they report.
        total: Σ Ω_l(b_l), the sensitivity that is left.
        slack: parameter-bits of the budget that were not used.
        proven: whether no allocation within the budget has a smaller total.
    """

    bits: tuple[int, ...]
    average: float
    unweighted: float
    total: float
    slack: int
    proven: bool


def greedy(
    sensitivity: Tensor | Sequence[Sequence[float]],
    sizes: Sequence[int],
    budget: float,
    bits: Sequence[int] = (2, 3, 4),
) -> Allocation:
    """Spend the budget on whichever layer gains most for a parameter-bit, from the fewest bits upwards.

    Steps go along the lower convex hull of each layer's (bits, Ω), in order of falling
    (Ω_l(b) - Ω_l(b')) / (n_l (b' - b)). A step that does not fit is passed over, with all later ones of its
    layer. Until that happens the result is the best for what it costs; if it never does, the result is
    ``proven``. ``slack`` is what was left over; candidates above the hull, which might fill it, are not
    tried. O(L B log(L B)).

    Args:
        sensitivity: Ω, shape (L, B), finite and non-negative.
        sizes: n_l, parameters of each layer, positive integers.
        budget: average bits, weighted by parameters; taken as the decimal number that it prints as.
        bits: candidates, increasing, shape (B,).

    Raises:
        ValueError: shapes that do not match, a negative or non-finite sensitivity, a size below 1, candidates
            not increasing, or a budget below the smallest candidate, which no allocation meets.

    References:
        INFERRED (module docstring).

    Example:
        >>> omega = [[8, 2, 0.5], [4, 1, 0.25], [2, 0.5, 0.125], [1, 0.25, 0.0625]]
        >>> found = greedy(omega, [100, 400, 400, 100], 2.8)
        >>> found.bits, found.average, found.unweighted, found.total, found.slack, found.proven
        ((4, 3, 2, 4), 2.8, 3.25, 3.5625, 0, False)
        >>> exact(omega, [100, 400, 400, 100], 2.8).bits  # it was the best, though a step of 400 did not fit
        (4, 3, 2, 4)
    """
    omega, sizes, bits, capacity = _problem(sensitivity, sizes, budget, bits)
    hulls = [_hull(row, bits) for row in omega]
    at, waiting, skipped = [0] * len(omega), [], False  # at: how far along its hull each layer is

    def offer(layer: int) -> None:
        if at[layer] + 1 < len(hulls[layer]):
            low, high = hulls[layer][at[layer] : at[layer] + 2]
            cost = sizes[layer] * (bits[high] - bits[low])
            heapq.heappush(waiting, ((omega[layer, high] - omega[layer, low]) / cost, layer, cost))

    for layer in range(len(omega)):
        offer(layer)
    while waiting and capacity > 0:
        fall, layer, cost = heapq.heappop(waiting)
        if fall >= 0:
            break
        if cost > capacity:
            skipped = True
            continue
        capacity -= cost
        at[layer] += 1
        offer(layer)
    chosen = [hull[i] for hull, i in zip(hulls, at, strict=True)]
    return _allocation(omega, sizes, bits, chosen, capacity, proven=not skipped)


def exact(
    sensitivity: Tensor | Sequence[Sequence[float]],
    sizes: Sequence[int],
    budget: float,
    bits: Sequence[int] = (2, 3, 4),
) -> Allocation:
    """Return the allocation with the least total sensitivity within the budget, by dynamic programming.

    Layer by layer it keeps the pairs (cost, total) that no other pair beats in both. Costs are integers, in
    parameter-bits, so with a capacity C above the fewest bits and g the greatest common divisor of the n_l
    there are at most S = min(C / g + 1, B^L) pairs: O(L B S log S) time and O(L S) memory. Of equal totals
    the cheapest wins, so bits that gain nothing are not spent.

    Args:
        sensitivity: Ω, shape (L, B), finite and non-negative.
        sizes: n_l, parameters of each layer, positive integers.
        budget: average bits, weighted by parameters; taken as the decimal number that it prints as.
        bits: candidates, increasing, shape (B,).

    Raises:
        ValueError: as for :func:`greedy`.

    References:
        INFERRED (module docstring).

    Example:
        >>> omega = [[8, 2, 0.5], [4, 1, 0.25], [2, 0.5, 0.125], [1, 0.25, 0.0625]]
        >>> exact(omega, [100, 400, 400, 100], 2.8).bits
        (4, 3, 2, 4)
        >>> omega = [[11, 8, 0], [12, 7, 3]]  # 3 bits of the first layer lie above its hull
        >>> exact(omega, [4, 2], 3.5).bits, greedy(omega, [4, 2], 3.5).bits
        ((3, 4), (2, 4))
    """
    omega, sizes, bits, capacity = _problem(sensitivity, sizes, budget, bits)
    extra = np.array(bits, dtype=np.int64) - bits[0]
    cost, total = np.zeros(1, dtype=np.int64), np.zeros(1)
    history = []
    for row, n in zip(omega, sizes, strict=True):
        costs = (cost[:, None] + n * extra).ravel()
        totals = (total[:, None] + row).ravel()
        fits = np.flatnonzero(costs <= capacity)
        order = fits[np.lexsort((totals[fits], costs[fits]))]
        best = np.minimum.accumulate(totals[order])
        order = order[np.concatenate([[True], best[1:] < best[:-1]])]
        cost, total = costs[order], totals[order]
        history.append(order)
    chosen, at = [], len(total) - 1  # the pairs fall in total, so the last is the least
    for order in reversed(history):
        at, candidate = divmod(int(order[at]), len(bits))
        chosen.append(candidate)
    return _allocation(omega, sizes, bits, chosen[::-1], capacity - int(cost[-1]), proven=True)


def _hull(row: np.ndarray, bits: Sequence[int]) -> list[int]:
    """Return the candidates on the lower convex hull of (bits, Ω), as indices."""
    hull: list[int] = []
    for c in range(len(bits)):
        while len(hull) > 1:
            a, b = hull[-2:]
            if (row[a] - row[b]) * (bits[c] - bits[b]) >= (row[b] - row[c]) * (bits[b] - bits[a]):
                break
            hull.pop()
        hull.append(c)
    return hull


def _allocation(
    omega: np.ndarray,
    sizes: Sequence[int],
    bits: Sequence[int],
    chosen: Sequence[int],
    slack: int,
    *,
    proven: bool,
) -> Allocation:
    picked = tuple(bits[c] for c in chosen)
    spent = sum(n * b for n, b in zip(sizes, picked, strict=True))
    total = sum(float(row[c]) for row, c in zip(omega, chosen, strict=True))
    return Allocation(picked, spent / sum(sizes), sum(picked) / len(picked), total, slack, proven)


def _problem(
    sensitivity: Tensor | Sequence[Sequence[float]], sizes: Sequence[int], budget: float, bits: Sequence[int]
) -> tuple[np.ndarray, list[int], tuple[int, ...], int]:
    """Return Ω, sizes, candidates and the capacity in parameter-bits above the minimum, after all checks."""
    bits = candidates(bits)
    omega = torch.as_tensor(sensitivity, dtype=torch.float64).detach().cpu().numpy()
    if omega.shape != (len(sizes), len(bits)) or not len(sizes):
        raise ValueError(
            f"{len(sizes)} layers and {len(bits)} candidates need sensitivities of shape "
            f"({len(sizes)}, {len(bits)}) and one layer at least, got {omega.shape}"
        )
    if not (np.isfinite(omega) & (omega >= 0)).all():
        bad = omega[~(np.isfinite(omega) & (omega >= 0))]
        raise ValueError(f"sensitivities must be finite and not negative, got {bad[0]}")
    sizes = [int(n) if n == int(n) else 0 for n in sizes]
    if min(sizes) < 1:
        raise ValueError(f"sizes must be positive whole numbers, got {sizes}")
    if not np.isfinite(budget) or budget < bits[0]:
        raise ValueError(f"no allocation meets an average of {budget} bits: the least is {bits[0]}")
    # 2.8 means 14/5 and not the binary number beside it: the last parameter-bit may depend on it
    return omega, sizes, bits, int((Fraction(repr(float(budget))) - bits[0]) * sum(sizes))
