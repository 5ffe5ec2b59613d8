"""Arithmetic: a weight as integers times what one of them is worth; numpy alone.

A layer's product is sum over j of w_j a_j. Here the weight of output channel o is a sum of *planes*,

    w_oj = sum over p of worth[p, o] × plane[p][o, j],     plane integers,

so that the layer's sums are integers, one accumulator a plane, and a few multiplications an output remain:

- "whole numbers": one plane; the levels are multiples of a unit (uniform, DAQ, APoT).
- "shifts": one plane of 0 and ±2^s (POT): each product is the activation, shifted by s.
- "even and odd": two planes of 0 and ±2^s (POST, levels ±2^(-j / 2)): the second is worth 1 / sqrt(2) of the
  first.
- "levels": one plane of 0 and 1 for each level that is not 0 (any codebook): the activations of each level
  are added, then each sum is multiplied with its level.
- "products": one plane of -1, 0 and 1 for each magnitude, and a table with a row for each of them, product of
  magnitude and activation code in a fixed unit; the products are looked up and added.

All but "products" hold the weight to within 2^-22 of the largest level in use, the rounding of the float32
levels themselves; in "products" each entry is rounded to its unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

INT32 = 2**31 - 1
EXACT = 2**24
"""Integers up to here, and so sums of them in any order that stay below, are exact in float32."""
LARGEST = 1024
"""The largest whole number that a unit of levels is looked for with."""

_TOLERANCE = 2.0**-22


@dataclass(frozen=True, eq=False)
class Planes:
    """A layer's weight and what its input codes stand for, as integers.

    Attributes:
        kind: "whole numbers", "shifts", "even and odd", "levels" or "products".
        planes: Integers, int32, each of the weight's shape.
        worth: What one count of each plane's accumulator is worth, float64, shape (P, out); of "products", of
            the sum over all planes, (1, out).
        tables: The integer that each plane multiplies for each input code, int32, (P, K); rows are alike but
            for "products".
        bounds: What no accumulator of a plane can exceed in magnitude, int64, shape (P, out).
    """

    kind: str
    planes: tuple[np.ndarray, ...]
    worth: np.ndarray
    tables: np.ndarray
    bounds: np.ndarray


def whole(levels: np.ndarray, tolerance: Any = _TOLERANCE) -> tuple[float, np.ndarray] | None:
    """Return a unit and integers with levels = unit × integers, the smallest there are; None without.

    Args:
        levels: Shape (K,).
        tolerance: How far levels, or each of them, may be off, by the largest one.

    Example:
        >>> unit, numbers = whole(np.array([-1, -1 / 3, 1 / 3, 1], np.float32))
        >>> round(unit, 6), numbers.tolist()
        (0.333333, [-3, -1, 1, 3])
    """
    levels = np.asarray(levels, np.float64)
    top = np.abs(levels).max()
    if top == 0:
        return 1.0, np.zeros(len(levels), np.int64)
    n = np.arange(1, LARGEST + 1)[:, None]
    numbers = np.rint(levels / top * n)
    fits = (np.abs(levels / top - numbers / n) <= tolerance).all(1)
    if not fits.any():
        return None
    best = numbers[np.argmax(fits)]
    return float(levels @ best / (best @ best)), best.astype(np.int64)


def powers(levels: np.ndarray, root: int, tolerance: Any = _TOLERANCE) -> tuple[float, np.ndarray] | None:
    """Return the largest magnitude and exponents j, levels = ± largest × 2^(-j / root); None if they are not.

    Args:
        levels: Shape (K,); a level of 0 has the exponent -1.
        root: 1 for powers of two, 2 for those of sqrt(2).
        tolerance: How far levels, or each of them, may be off, by the largest one.
    """
    magnitude = np.abs(np.asarray(levels, np.float64))
    top = magnitude.max()
    if top == 0:
        return None
    exponent = np.where(
        magnitude > 0, np.rint(-root * np.log2(np.where(magnitude > 0, magnitude / top, 1))), -1
    )
    near = np.where(exponent >= 0, 2.0 ** (-exponent / root), 0)
    return (
        (float(top), exponent.astype(np.int64))
        if (np.abs(near - magnitude / top) <= tolerance).all()
        else None
    )


def planes(weight: Any, values: np.ndarray, how: str = "auto") -> Planes:
    """Split the weight of a layer by the cheapest arithmetic that its levels allow and int32 can hold.

    Args:
        weight: A :class:`~qviz.export.tables.WeightTable`, or anything with its attributes as arrays.
        values: What each input code stands for, shape (K,).
        how: "auto", or "levels" or "products" to insist on one of these, which every codebook allows.

    Raises:
        ValueError: The weight has a scale for each group, or for another axis than that of the output, or
            an offset where "products" are asked for; no arithmetic fits into int32.
    """
    numbers = whole(values)
    kinds = _KINDS if how == "auto" else {how: _KINDS[how]}
    codes, levels = np.asarray(weight.codes), np.asarray(weight.levels, np.float64)
    scale, offset = _channels(weight, "scale", 1.0), _channels(weight, "offset", 0.0)
    factor = 1.0 if weight.factor is None else float(np.asarray(weight.factor))
    if how == "products" and offset.any():
        raise ValueError("the weight has an offset, which is no product of a level")
    for kind, split in kinds.items():
        unit, inputs = (1.0, np.asarray(values, np.float64)) if kind == "products" else numbers or (0.0, None)
        made = None if inputs is None else split(levels, inputs, codes)
        if made is None:
            continue
        parts, worth, tables = made
        worth = np.asarray(worth)[:, None] * scale * factor * unit
        if kind != "products" and offset.any():
            parts = [*parts, np.ones(codes.shape)]
            worth = np.vstack([worth, offset * factor * unit])
            tables = np.vstack([tables, inputs])
        bounds = (
            np.stack([np.abs(p).reshape(len(p), -1).sum(1) for p in parts]) * np.abs(tables).max(1)[:, None]
        )
        if bounds.max() <= INT32 and np.array_equal(tables, np.rint(tables)):
            ints = tuple(p.astype(np.int32) for p in parts)
            return Planes(kind, ints, worth, tables.astype(np.int32), bounds.astype(np.int64))
    raise ValueError(f"{len(levels)} levels against {len(values)} activation codes fit no int32 accumulator")


def digits(split: Planes, times: np.ndarray) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Return planes and multipliers with the same total that are fewer, or those given.

    The sum over p of accumulator_p × multiplier_p is what one plane of larger integers gives, the sum over p
    of multiplier_p × plane_p. It is taken apart into digits of so many bits that float32 adds them exactly.
    ADQ's 14 planes at 4 bits are 3: 1.14 -> 0.45 s for 50 images.

    Args:
        split: A weight, not of "products".
        times: The multiplier of each plane and output, int64, (P, out).
    """
    pairs = zip(times, split.planes, strict=True)
    rest = sum(m.reshape(-1, *(1,) * (plane.ndim - 1)) * plane for m, plane in pairs)
    largest = rest[0].size * int(np.abs(split.tables).max())  # of the sums of a plane of ones
    bits = max(1, EXACT.bit_length() - 1 - largest.bit_length())
    found = []
    while rest.any() and len(found) < len(split.planes):
        found.append(np.sign(rest) * (np.abs(rest) & (1 << bits) - 1))
        rest = np.sign(rest) * (np.abs(rest) >> bits)
    if rest.any() or not found or largest << bits > EXACT or split.bounds.max() > EXACT:
        return split.planes, times
    return tuple(found), np.repeat(1 << bits * np.arange(len(found))[:, None], times.shape[1], 1)


def _channels(weight: Any, name: str, missing: float) -> np.ndarray:
    """Return scale or offset for each output channel, float64."""
    out, value = len(weight.codes), getattr(weight, name)
    if value is None:
        return np.full(out, missing)
    value = np.asarray(value, np.float64)
    if weight.group:
        raise ValueError(
            f"the weight has a {name} for each {weight.group} neighbors, and not for each output"
        )
    if value.ndim and weight.axis % np.ndim(weight.codes) != 0:
        raise ValueError(
            f"the weight has a {name} for each channel of axis {weight.axis}, and not for each output"
        )
    return np.broadcast_to(value, (out,))


_Split = tuple[list[np.ndarray], list[float], np.ndarray] | None


def _tolerance(levels: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return 2^-22 of the largest level in use for those up to it, 2^-22 of the largest for the rest."""
    sizes = np.abs(levels)
    used = sizes[codes].max()
    return np.where(sizes <= used, _TOLERANCE * used / max(sizes.max(), 2.0**-149), _TOLERANCE)


def _whole(levels: np.ndarray, inputs: np.ndarray, codes: np.ndarray) -> _Split:
    found = whole(levels, _tolerance(levels, codes))
    uneven = len(levels) > 2 and np.ptp(np.diff(levels)) > 1e-6
    if found is None or (uneven and _shifts(levels, inputs, codes)):
        return None
    return [found[1][codes]], [found[0]], inputs[None]


def _shifts(levels: np.ndarray, inputs: np.ndarray, codes: np.ndarray) -> _Split:
    found = powers(levels, 1, _tolerance(levels, codes))
    if found is None:
        return None
    top, exponent = found
    largest = int(exponent.max())
    plane = np.where(exponent >= 0, np.sign(levels) * 2.0 ** (largest - exponent), 0)
    return [plane[codes]], [top * 2.0**-largest], inputs[None]


def _even_odd(levels: np.ndarray, inputs: np.ndarray, codes: np.ndarray) -> _Split:
    found = powers(levels, 2, _tolerance(levels, codes))
    if found is None:
        return None
    top, exponent = found
    largest = int(exponent.max()) // 2
    size = np.sign(levels) * 2.0 ** (largest - exponent // 2)
    parts = [np.where((exponent >= 0) & (exponent % 2 == odd), size, 0)[codes] for odd in (0, 1)]
    return parts, [top * 2.0**-largest, top * 2.0**-largest * 0.5**0.5], np.stack([inputs, inputs])


def _levels(levels: np.ndarray, inputs: np.ndarray, codes: np.ndarray) -> _Split:
    used = [k for k in np.unique(codes) if levels[k] != 0] or [0]
    parts = [(codes == k).astype(np.float64) for k in used]
    return parts, [float(levels[k]) for k in used], np.stack([inputs] * len(used))


def _products(levels: np.ndarray, inputs: np.ndarray, codes: np.ndarray) -> _Split:
    weights = levels[codes]
    magnitudes = [m for m in np.unique(np.abs(weights)) if m] or [0.0]
    parts = [np.sign(weights) * (np.abs(weights) == m) for m in magnitudes]
    most = max(float(np.abs(weights).reshape(len(weights), -1).sum(1).max()) * np.abs(inputs).max(), 2.0**-60)
    terms = weights[0].size / 2 + 1  # each entry may be rounded up by half a unit
    unit = 2.0 ** np.ceil(np.log2(most / (INT32 - terms)))
    return parts, [unit], np.rint(np.outer(magnitudes, inputs) / unit)


_KINDS = {
    "whole numbers": _whole,
    "shifts": _shifts,
    "even and odd": _even_odd,
    "levels": _levels,
    "products": _products,
}
