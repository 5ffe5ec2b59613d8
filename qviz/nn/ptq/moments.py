"""Moments: all that a layer's squared output error needs to know of its inputs and of its targets.

With x the column that a kernel sees (quantized) and y what it should give, over all n places of all images,

    Σ |y - w x - b|²  with the best b  =  n (var y - 2 w · cov(x, y) + w cov(x, x) wᵀ)

so that two matrices take the place of the images, whatever is then tried for w.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Moments:
    """Means and covariances of a layer's inputs x and targets y, float64; G groups, K inputs, R outputs each.

    Attributes:
        xx: Covariance of x with itself, (G, K, K).
        yx: Covariance of y with x, (G, R, K).
        yy: Variance of y, (G, R).
        x: Mean of x, (G, K).
        y: Mean of y, (G, R).
        count: Over so many places.
    """

    xx: Tensor
    yx: Tensor
    yy: Tensor
    x: Tensor
    y: Tensor
    count: int

    @classmethod
    def of(
        cls, layer: nn.Conv2d | nn.Linear, pairs: Iterable[tuple[Tensor, Tensor]], *, enough: float = math.inf
    ) -> Moments:
        """Add up pairs of the layer's input (as its product sees it, quantized) and its target output.

        Args:
            layer: Says what the product does with its input.
            pairs: Batches of inputs and outputs.
            enough: No more batches are taken once so many places are there.
        """
        sums: list[Tensor] = []
        count = 0
        for x, y in pairs:
            x, y = columns(layer, x), rows(layer, y)
            count += x.shape[-1]
            parts = (x @ x.mT, y @ x.mT, y.square().sum(-1), x.sum(-1), y.sum(-1))
            new = [part.double() for part in parts]
            sums = [a.add_(b) for a, b in zip(sums, new, strict=True)] if sums else new
            if count >= enough:
                break
        if not sums:
            raise ValueError("moments need at least one batch of inputs and targets")
        xx, yx, yy, x, y = (total / count for total in sums)
        return cls(
            xx - x[..., :, None] * x[..., None, :],
            yx - y[..., :, None] * x[..., None, :],
            yy - y.square(),
            x,
            y,
            count,
        )

    def error(self, w: Tensor) -> Tensor:
        """Return the mean squared output error of the weights w (G, R, K) with the best bias, (G, R)."""
        return self.yy - 2 * (w * self.yx).sum(-1) + ((w @ self.xx) * w).sum(-1)

    def bias(self, w: Tensor) -> Tensor:
        """Return the best bias for the weights w (G, R, K): the one that keeps the mean output, (G, R)."""
        return self.y - (w @ self.x[..., None]).squeeze(-1)


def groups(layer: nn.Module) -> int:
    """Return how many groups of channels a layer computes apart from each other."""
    return getattr(layer, "groups", 1)


def matrix(layer: nn.Module, w: Tensor) -> Tensor:
    """Return a weight as (G, R, K): groups, output channels of a group, inputs of an output channel."""
    return w.reshape(groups(layer), w.shape[0] // groups(layer), -1)


def columns(layer: nn.Module, x: Tensor) -> Tensor:
    """Return what the product sees of an input x, as columns: (G, K, number of places in all samples)."""
    if not isinstance(layer, nn.Conv2d):
        return x.reshape(1, -1, x.shape[-1]).mT
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = x if x.ndim == 4 else x.unsqueeze(0)
    x = functional.pad(x, layer._reversed_padding_repeated_twice, mode)
    x = functional.unfold(x, layer.kernel_size, layer.dilation, 0, layer.stride)
    return x.unflatten(1, (layer.groups, -1)).permute(1, 2, 0, 3).flatten(2)


def rows(layer: nn.Module, y: Tensor) -> Tensor:
    """Return an output y as (G, R, number of places in all samples)."""
    if not isinstance(layer, nn.Conv2d):
        return y.reshape(1, -1, y.shape[-1]).mT
    y = y if y.ndim == 4 else y.unsqueeze(0)
    return y.unflatten(1, (layer.groups, -1)).permute(1, 2, 0, 3, 4).flatten(2)
