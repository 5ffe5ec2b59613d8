"""Plan: every integer that a network's integer forward pass needs, from its tables alone; numpy alone.

Maps between layers are of two kinds. *Float maps* (float32) are the images and what layers in floating point
make of them; such a layer, with the BatchNorm behind it, is computed in float64 and rounded once to float32.
*Fixed maps* are integers v in the unit 2^-f, see :mod:`qviz.export.fixed`: what layers of codes give, and
sums of both kinds. A layer of codes that reads a fixed map compares v with integer thresholds; one that reads
a float map compares with the float32 borders, as in training.

BatchNorm behind a layer of codes is folded: its factor gamma / sqrt(var + eps) goes into the multiplier of
each channel, the rest, with the layer's bias, into one integer that is added after the shift.

f is the largest, 40 at most, for which every fixed map fits into ``width`` bits, whatever the image: bounds
follow from the codes and the tables. Two bounds are taken as given and checked at run time: a pixel of the
normalized image is what mean and std allow (within ±256 where these are not known), and an adaptive step
(ASQ) is at most 64 times the learned one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qviz.export.arithmetic import Planes, digits, planes
from qviz.export.fixed import adaptive_steps, channel_means, fixed, multiplier, thresholds

STEPS = 64.0
"""The largest adaptive step, in units of the learned one."""

Channels = np.ndarray | float
Norm = tuple[Channels, Channels]
"""A BatchNorm: factor and offset of each channel."""

_ROOM = {32: 30, 64: 50}  # bits of a map's largest value; up to 2^50 it is exact in float64, too


@dataclass(frozen=True, eq=False)
class Product:
    """A convolution or linear layer of codes.

    Attributes:
        planes: Its weight.
        factor: What one count of each accumulator is worth in the output, BatchNorm in it, float64, (P, out),
            of "products" (1, out); of an adaptive step, in units of that.
        bias: What is added to it, BatchNorm in it, float64, (out,).
        parts: What is multiplied: the planes, or their :func:`~qviz.export.arithmetic.digits`.
        multiplier: The worth of each part's sum in units of 2^-f, with the shift, int64, (parts, out), of
            "products" (1, out); None for an adaptive step.
        shift: The bits that the total is moved to the right, int64, (out,); None for an adaptive step.
        offset: The bias in units of 2^-f, int64, (out,).
        thresholds: The borders in units of 2^-f, int64, (K - 1,) or (K - 1, C); None for an adaptive step.
    """

    planes: Planes
    factor: np.ndarray
    bias: np.ndarray
    parts: tuple[np.ndarray, ...]
    multiplier: np.ndarray | None = None
    shift: np.ndarray | None = None
    offset: np.ndarray | None = None
    thresholds: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """What an integer forward pass needs beside the exported network.

    Attributes:
        f: Fixed maps are in units of 2^-f.
        bounds: The largest magnitude of each step's map, in real units.
        fixed: For each step, whether its map is fixed.
        products: The layers of codes, by their step.
        norms: The BatchNorm (factor, offset) behind a layer, float64, by the layer's step.
        folded: The steps of these BatchNorms, which pass their input on.
    """

    f: int
    bounds: tuple[float, ...]
    fixed: tuple[bool, ...]
    products: Mapping[int, Product]
    norms: Mapping[int, Norm]
    folded: frozenset[int]


def plan(exported: Any, *, width: int = 64, how: str = "auto") -> Plan:
    """Return the integers of a network.

    Args:
        exported: An :class:`~qviz.export.exported.Exported`, or anything with its attributes as arrays.
        width: The bits of a fixed map, 32 or 64.
        how: The arithmetic of the weights, see :func:`qviz.export.arithmetic.planes`.

    Raises:
        ValueError: The network has no program; a layer fits no integer arithmetic; the bounds leave fewer
            than 8 bits behind the point.
    """
    if width not in (32, 64):
        raise ValueError(f"width must be 32 or 64 bits, got {width!r}")
    if not exported.program:
        raise ValueError(f"the network cannot be run step by step: {exported.untraceable}")
    norms, folded = _norms(exported)
    found = {
        i: _product(step.name, exported.layers[step.name], how, *norms.get(i, ()))
        for i, step in enumerate(exported.program)
        if step.op in ("conv", "linear") and of_codes(exported.layers[step.name])
    }
    bounds, kinds = _bounds(exported, found, norms, folded)
    largest = max((b for b, is_fixed in zip(bounds, kinds, strict=True) if is_fixed), default=1.0)
    factors = [float(np.abs(p.factor).max()) * _most(exported, i) for i, p in found.items()]
    f = min(40, _ROOM[width] - _exponent(largest), *(30 - _exponent(factor) for factor in factors))
    if f < 8:
        raise ValueError(f"maps of up to {largest:.3g} in {width} bits leave only {f} bits behind the point")
    products = {i: _in_units(p, exported.layers[exported.program[i].name], f) for i, p in found.items()}
    return Plan(f, bounds, kinds, products, norms, folded)


def pixel(about: Mapping[str, Any]) -> float:
    """Return the largest magnitude of a normalized pixel, plus 1 %; 256 where mean and std are not known."""
    mean, std = about.get("mean"), about.get("std")
    if not mean or not std:
        return 256.0
    return 1.01 * max(max(m, 1 - m) / s for m, s in zip(mean, std, strict=True))


def sample_steps(name: str, adapter: Any, v: np.ndarray, f: int) -> np.ndarray:
    """Return the adaptive step of each sample of a map that a layer reads, float64, (N, 1).

    Raises:
        ValueError: One is larger than the plan's bounds allow for.
    """
    steps = adaptive_steps(adapter, channel_means(v, f))
    largest, top = STEPS * float(adapter.step), steps.max(initial=0)
    if not top <= largest:
        raise ValueError(f"layer {name}: an adaptive step of {top:.6g} is above {largest:.6g}")
    return steps


def of_codes(layer: Any) -> bool:
    """Whether a layer has codes for its weight and for its input."""
    return hasattr(layer.weight, "codes") and layer.input is not None


def values(read: Any) -> np.ndarray:
    """Return what each code of an input stands for, shape (K,), in units of the step where that adapts.

    Raises:
        ValueError: Channels differ in it.
    """
    table = np.asarray(read.values)
    if table.ndim == 2 and (table != table[:, :1]).any():
        raise ValueError("the input has values of its own for each channel, which a sum of codes cannot have")
    return table[:, 0] if table.ndim == 2 else table


def _norms(exported: Any) -> tuple[dict[int, Norm], frozenset[int]]:
    """Return factor and offset of each BatchNorm that alone reads a convolution, and the steps of these."""
    readers: dict[int, list[int]] = {}
    for i, step in enumerate(exported.program):
        for number in step.inputs:
            readers.setdefault(number, []).append(i)
    norms, folded = {}, set()
    for i, step in enumerate(exported.program):
        after = readers.get(i, [])
        if step.op == "conv" and [exported.program[number].op for number in after] == ["batchnorm"]:
            norms[i] = affine(exported.program[after[0]], exported.tensors)
            folded.add(after[0])
    return norms, frozenset(folded)


def affine(step: Any, tensors: Mapping[str, Any]) -> Norm:
    """Return a BatchNorm as factor and offset of each channel, float64."""
    mean, var = (np.asarray(tensors[f"{step.name}.running_{key}"], np.float64) for key in ("mean", "var"))
    factor = 1 / np.sqrt(var + step.args["eps"])
    if f"{step.name}.weight" in tensors:
        factor = factor * np.asarray(tensors[f"{step.name}.weight"], np.float64)
    offset = -mean * factor
    if f"{step.name}.bias" in tensors:
        offset = offset + np.asarray(tensors[f"{step.name}.bias"], np.float64)
    return factor, offset


def _product(name: str, layer: Any, how: str, factor: Channels = 1.0, offset: Channels = 0.0) -> Product:
    try:
        made = planes(layer.weight, values(layer.input), how)
    except ValueError as problem:
        raise ValueError(f"layer {name} has no integer arithmetic: {problem}") from problem
    bias = np.zeros(len(layer.weight.codes)) if layer.bias is None else np.asarray(layer.bias, np.float64)
    return Product(made, made.worth * factor, bias * factor + offset, made.planes)


def _bounds(
    exported: Any, products: Mapping[int, Product], norms: Mapping[int, Norm], folded: frozenset[int]
) -> tuple[tuple[float, ...], tuple[bool, ...]]:
    """Return the largest magnitude of each step's map, and whether it is fixed."""
    bounds: list[float] = []
    kinds: list[bool] = []
    for i, step in enumerate(exported.program):
        read = [bounds[number] for number in step.inputs]
        is_fixed = i in products or (step.op != "conv" and any(kinds[number] for number in step.inputs))
        if step.op == "input":
            bound = pixel(exported.about)
        elif i in products:
            made = products[i]
            counts = (np.abs(made.factor) * made.planes.bounds).sum(0) * _most(exported, i)
            bound = float((counts + np.abs(made.bias)).max())
        elif step.op in ("conv", "linear"):
            bound, is_fixed = _float_bound(exported.layers[step.name], read[0], *norms.get(i, ())), False
        elif step.op == "batchnorm" and i not in folded:
            factor, offset = affine(step, exported.tensors)
            bound, is_fixed = float((np.abs(factor) * read[0] + np.abs(offset)).max()), False
        elif step.op == "clip":
            bound = max(abs(step.args["low"]), abs(step.args["high"]))
        else:
            bound = sum(read)
        bounds.append(bound)
        kinds.append(is_fixed)
    return tuple(bounds), tuple(kinds)


def _float_bound(layer: Any, read: float, factor: Channels = 1.0, offset: Channels = 0.0) -> float:
    weight = np.asarray(layer.weight.value() if hasattr(layer.weight, "codes") else layer.weight, np.float64)
    if layer.input is not None:
        read = float(np.abs(np.asarray(layer.input.values)).max())
        read = read * STEPS * float(layer.input.adapter.step) if layer.input.adapter is not None else read
    bias = 0.0 if layer.bias is None else np.asarray(layer.bias, np.float64)
    total = np.abs(weight).reshape(len(weight), -1).sum(1) * read * np.abs(factor)
    return float((total + np.abs(bias * factor + offset)).max())


def _most(exported: Any, i: int) -> float:
    """Return the largest adaptive step of a layer, 1 where it does not adapt."""
    adapter = exported.layers[exported.program[i].name].input.adapter
    return 1.0 if adapter is None else STEPS * float(adapter.step)


def _exponent(x: float) -> int:
    """Return the smallest e with x <= 2^e."""
    return int(np.ceil(np.log2(max(x, 2.0**-60))))


def _in_units(p: Product, layer: Any, f: int) -> Product:
    """Return a product with its integers."""
    if layer.input.adapter is not None:
        return replace(p, offset=fixed(p.bias, f))
    times, shift = multiplier(np.ldexp(p.factor, f), p.planes.bounds)
    borders = thresholds(np.asarray(layer.input.borders), f)
    parts, times = (p.parts, times) if p.planes.kind == "products" else digits(p.planes, times)
    return replace(p, parts=parts, multiplier=times, shift=shift, offset=fixed(p.bias, f), thresholds=borders)
