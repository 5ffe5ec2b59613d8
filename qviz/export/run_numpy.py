"""Run NumPy: an exported network, run in integers by numpy alone.

    python -m qviz.export.run_numpy net.safetensors images.npy [--logits logits.npy]

prints the class of each image, one a line. This file is the forward pass, and with the few functions that it
takes from :mod:`qviz.export.fixed` all of it. Around it, before the first image and in numpy as well: the
file is read by :mod:`qviz.export.numpy_file` and believed after :mod:`qviz.export.check`, the integers of the
network are made by :mod:`qviz.export.plan`, from :mod:`~qviz.export.arithmetic` and
:mod:`~qviz.export.fixed`. The arithmetic is that of :mod:`qviz.export.integer`, to the same integers. Nothing
of torch is loaded.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qviz.export.arithmetic import EXACT
from qviz.export.fixed import below, channels, fixed, half, mean, multiplier, thresholds
from qviz.export.numpy_file import Weight, network
from qviz.export.plan import Product, affine, pixel, plan, sample_steps
from qviz.export.shapes import shapes


class Network:
    """An exported network, run in integers; see :mod:`qviz.export.integer`, which has the same arithmetic.

    Args:
        exported: What :func:`network` read.
    """

    def __init__(self, exported: Any) -> None:
        self.exported, self.plan = exported, plan(exported)

    def normalized(self, images: np.ndarray) -> np.ndarray:
        """Return uint8 images (N, C, H, W) as the network reads them, float32; float32 ones as they are."""
        if images.dtype == np.float32 and images.ndim == 4:
            return images
        about = self.exported.about
        if images.dtype != np.uint8 or images.ndim != 4 or not (about.get("mean") and about.get("std")):
            raise ValueError(
                "images must be uint8 (where the file has mean and std) or float32, of shape (N, C, H, W); "
                f"got {images.dtype}, {images.shape}"
            )
        mean, std = (np.asarray(about[key], np.float64) for key in ("mean", "std"))
        scale, shift = ((v.astype(np.float32)[:, None, None]) for v in (1 / (255 * std), -mean / std))
        return images.astype(np.float32) * scale + shift

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the logits, float32."""
        x, largest = self.normalized(images), pixel(self.exported.about)
        if not np.abs(x).max(initial=0) <= largest:
            raise ValueError(f"pixels of normalized images must be within ±{largest:.6g}")
        shapes(self.exported, x.shape[1:])
        maps: list[np.ndarray] = []
        for i, step in enumerate(self.exported.program):
            maps.append(self._step(i, step, [maps[number] for number in step.inputs] or [x]))
        return self.real(maps[-1]).astype(np.float32)

    def real(self, v: np.ndarray) -> np.ndarray:
        """Return a map in real numbers, float64."""
        return v * 2.0**-self.plan.f if v.dtype == np.int64 else v.astype(np.float64)

    def _step(self, i: int, step: Any, inputs: Sequence[np.ndarray]) -> np.ndarray:
        x = inputs[0]
        if step.op == "input" or i in self.plan.folded:
            return x
        if step.op == "linear" and x.ndim > 2:
            y = self._step(i, step, [x.reshape(-1, x.shape[-1])])
            return y.reshape(*x.shape[:-1], y.shape[-1])
        if i in self.plan.products:
            return self._codes(step, self.plan.products[i], x)
        if step.op in ("conv", "linear"):
            return self._float(i, step, x)
        if step.op == "batchnorm":
            factor, offset = affine(step, self.exported.tensors)
            x = self.real(x).astype(np.float32).astype(np.float64)
            return (x * channels(factor, 4) + channels(offset, 4)).astype(np.float32)
        if self.plan.fixed[i]:
            inputs = [v if v.dtype == np.int64 else fixed(v, self.plan.f) for v in inputs]
        return _SIMPLE[step.op](inputs, step.args, self.plan.f)

    def _float(self, i: int, step: Any, x: np.ndarray) -> np.ndarray:
        """Return the output of a layer in floating point, computed in float64."""
        layer, x = self.exported.layers[step.name], self.real(x).astype(np.float32)
        if layer.input is not None:
            steps = self._steps(step, x)
            borders = np.asarray(layer.input.borders)
            steps = (
                np.float32(1) if steps is None else steps.reshape(-1, *(1,) * (x.ndim - 1)).astype(np.float32)
            )
            codes, table = below(x / steps, borders), layer.input.values
            each = () if table.ndim == 1 else (channels(np.arange(x.shape[1]), x.ndim),)
            x = table[(codes, *each)] * steps
        weight = layer.weight.value() if isinstance(layer.weight, Weight) else layer.weight
        y = product(step, x.astype(np.float64), weight.astype(np.float64))
        y = y if layer.bias is None else y + channels(layer.bias, y.ndim)
        if i in self.plan.norms:
            factor, offset = self.plan.norms[i]
            y = y * channels(factor, y.ndim) + channels(offset, y.ndim)
        return y.astype(np.float32)

    def _steps(self, step: Any, x: np.ndarray) -> np.ndarray | None:
        """Return the adaptive step of each sample, (N, 1), or None."""
        adapter = self.exported.layers[step.name].input.adapter
        return None if adapter is None else sample_steps(step.name, adapter, x, self.plan.f)

    def _codes(self, step: Any, made: Product, x: np.ndarray) -> np.ndarray:
        """Return the output of a layer of codes, int64."""
        borders, times, shift = made.thresholds, made.multiplier, made.shift
        if (steps := self._steps(step, x)) is not None:
            borders = self.exported.layers[step.name].input.borders.astype(np.float64)[:, None, None] * steps
            borders = borders if x.dtype != np.int64 else thresholds(borders, self.plan.f)
            factor = np.ldexp(made.factor[:, None] * steps, self.plan.f)
            times, shift = multiplier(factor, made.planes.bounds[:, None])
        elif x.dtype != np.int64:
            borders = self.exported.layers[step.name].input.borders
        codes = below(x, borders)
        sums = zip(accumulators(step, made, codes), times, strict=True)
        total = sum(accumulator * channels(m, x.ndim) for accumulator, m in sums)
        return channels(made.offset, x.ndim) + (
            total + channels(half(shift), x.ndim) >> channels(shift, x.ndim)
        )


def accumulators(step: Any, made: Product, codes: np.ndarray) -> list[np.ndarray]:
    """Return the sum of each part of the weight, int64; one for "products".

    Sums of integers below 2^24 are exact in float32, below 2^53 in float64: BLAS makes them.
    """
    products = made.planes.kind == "products"
    bound = made.planes.bounds.sum(0).max() if products else made.planes.bounds.max()
    dtype = np.float32 if bound <= EXACT else np.float64
    read = [table.astype(dtype)[codes] for table in made.planes.tables[: None if products else 1]]
    pairs = zip(read if products else read * len(made.parts), made.parts, strict=True)
    sums = [product(step, x, part.astype(dtype)) for x, part in pairs]
    sums = [np.sum(sums, 0)] if products else sums
    return [s.astype(np.int64) for s in sums]


def product(step: Any, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return a linear product, or a convolution: the windows of x as rows of a matrix, times the weight."""
    if step.op == "linear":
        return x @ weight.T
    a, groups = step.args, step.args["groups"]
    (up, left), (down, right), (dy, dx) = a["padding"], a["stride"], a["dilation"]
    n, channels, *_ = (x := np.pad(x, ((0, 0), (0, 0), (up, up), (left, left)))).shape
    reach = [d * (k - 1) + 1 for d, k in zip(a["dilation"], weight.shape[2:], strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(x, reach, (2, 3))[:, :, ::down, ::right, ::dy, ::dx]
    rows, columns = windows.shape[2:4]
    windows = windows.reshape(n, groups, channels // groups, rows, columns, *weight.shape[2:])
    matrix = windows.transpose(1, 0, 3, 4, 2, 5, 6).reshape(groups, n * rows * columns, -1)
    y = matrix @ weight.reshape(groups, len(weight) // groups, -1).transpose(0, 2, 1)
    return y.reshape(groups, n, rows, columns, -1).transpose(1, 0, 4, 2, 3).reshape(n, -1, rows, columns)


def _mean(v: np.ndarray) -> np.ndarray:
    if v.dtype == np.int64:
        return mean(v)
    return v.astype(np.float64).mean((2, 3), keepdims=True).astype(v.dtype)


def _maximum(x: np.ndarray, a: Mapping[str, Any]) -> np.ndarray:
    lowest = -np.inf if x.dtype != np.int64 else np.iinfo(np.int64).min
    (up, left), (down, right) = a["padding"], a["stride"]
    x = np.pad(x, ((0, 0), (0, 0), (up, up), (left, left)), constant_values=lowest)
    windows = np.lib.stride_tricks.sliding_window_view(x, a["kernel"], (2, 3))
    return windows[:, :, ::down, ::right].max((4, 5))


def _clip(v: np.ndarray, a: Mapping[str, Any], f: int) -> np.ndarray:
    unit = 2**f if v.dtype == np.int64 else 1
    low, high = (a[key] * unit for key in ("low", "high"))
    return np.clip(v, *((round(low), round(high)) if unit > 1 else (v.dtype.type(low), v.dtype.type(high))))


_SIMPLE: Mapping[str, Callable[[Sequence[np.ndarray], Mapping[str, Any], int], np.ndarray]] = {
    "relu": lambda v, a, f: np.maximum(v[0], 0),
    "clip": lambda v, a, f: _clip(v[0], a, f),
    "add": lambda v, a, f: v[0] + v[1],
    "maxpool": lambda v, a, f: _maximum(v[0], a),
    "mean": lambda v, a, f: _mean(v[0]),
    "flatten": lambda v, a, f: v[0].reshape(len(v[0]), -1),
    "subsample": lambda v, a, f: v[0][:, :, :: a["step"], :: a["step"]],
    "pad_channels": lambda v, a, f: np.pad(v[0], ((0, 0), (a["before"], a["after"]), (0, 0), (0, 0))),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a network on images and print their classes."""
    parser = argparse.ArgumentParser(
        prog="python -m qviz.export.run_numpy", description=__doc__.split("\n")[0]
    )
    parser.add_argument("file", help="a .safetensors file that qviz exported")
    parser.add_argument("images", help="a .npy file: uint8 or normalized float32, (N, C, H, W)")
    parser.add_argument("--logits", help="a .npy file to write the logits to")
    parser.add_argument("--batch", type=int, default=32, help="images at a time (32)")
    given = parser.parse_args(arguments)
    try:
        net, images = Network(network(given.file)), np.load(given.images, allow_pickle=False)
        if not isinstance(images, np.ndarray) or images.ndim != 4 or not len(images):
            raise ValueError(f"{given.images} holds no images, (N, C, H, W)")
        parts = [net(images[i : i + given.batch]) for i in range(0, len(images), given.batch)]
    except (OSError, EOFError, ValueError, MemoryError) as problem:
        print(f"run_numpy: {str(problem) or 'too little memory'}", file=sys.stderr)
        return 2
    logits = np.concatenate(parts)
    if given.logits:
        np.save(Path(given.logits), logits)
    print(*logits.argmax(1), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
