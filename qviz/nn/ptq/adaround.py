"""AdaRound, layer by layer, in Gram form: Nagel et al., "Up or Down? Adaptive Rounding for Post-Training
Quantization", ICML 2020, arXiv:2004.10568.

Each weight lies between two levels, low and high, and learns to which of them it goes:

    ŵ = low + h(V) (high - low)        h(V) = clip(1.2 sigmoid(V) - 0.1, 0, 1)         equations (22), (23)
    loss = |y - ŵ x̂ - b|² + λ Σ 1 - |2 h(V) - 1|^β,  β from 20 to 2                    equations (21), (24)

with x̂ the layer's quantized input and y its output in floating point (the asymmetric form, equation (25)).
The squared error is quadratic in ŵ, so that two matrices of moments give it exactly, and its slope
2 (ŵ cov(x̂, x̂) - cov(y, x̂)), without a look at an image: no minibatches, no convolutions.

Not the paper's: the Gram form, b (the best bias for each ŵ), and λ as a share of the first error: an absolute
one, which multiplies a sum over weights, wants another value for each network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qviz.nn.ptq.layerwise import in_order
from qviz.nn.ptq.moments import Moments, matrix
from qviz.nn.ptq.undecided import Undecided, beta
from qviz.nn.ptq.weights import set_bias
from qviz.nn.quant_layer import QuantLayer


@dataclass(frozen=True)
class Rounded:
    """What became of a layer: its squared output error as a share of its output's variance.

    Attributes:
        nearest: With weights rounded to the nearest level.
        soft: With each weight as far as it was decided at the end.
        error: With all decisions made: with the weights that the layer has now.
        undecided: The share of weights that were not decided before that.
    """

    nearest: float
    soft: float
    error: float
    undecided: float


@torch.no_grad()
def adaround(
    model: nn.Module,
    images: Tensor,
    *,
    reference: nn.Module,
    iterations: int = 1000,
    lr: float = 0.1,
    regularizer: float = 10.0,
    warm_up: float = 0.2,
) -> dict[str, Rounded]:
    """Learn for each weight whether it goes up or down, layer by layer in running order, in place.

    Each input quantizer is set anew on what the layers before it now give; scales of weights stay. Afterwards
    ``weight`` holds values on the grid and ``bias`` the bias that keeps the mean output.

    Args:
        model: A converted and calibrated model, such as :func:`~qviz.nn.ptq.nearest.nearest` leaves it.
        images: What it takes, samples in axis 0.
        reference: The same model in floating point, with BatchNorm folded as in ``model``.
        iterations: Steps of Adam for each layer.
        lr: Its learning rate, of V, which has no unit.
        regularizer: λ: so many times the error of rounding to nearest if all weights were undecided.
        warm_up: The share of the steps before it sets in.

    Returns:
        The errors of each layer, by name.

    Raises:
        ValueError: A number is out of range; a layer's weight quantizer has no levels to choose from (see
            :class:`~qviz.nn.ptq.weights.WeightGrid`), or ``reference`` is not the same model. Nothing is
            changed then.

    References:
        Nagel et al., "Up or Down?", ICML 2020, arXiv:2004.10568, equations (21) to (25).
    """
    if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1:
        raise ValueError(f"iterations must be a whole number of at least 1, got {iterations!r}")
    for name, value, top in (
        ("lr", lr, math.inf),
        ("regularizer", regularizer, math.inf),
        ("warm_up", warm_up, 1),
    ):
        if not 0.0 <= value <= top or value == math.inf:
            raise ValueError(f"{name} must be finite and from 0 to {top}, got {value!r}")
    found = {}
    for name, layer, w, moments in in_order(model, images, reference):
        weight = Undecided(layer.weight_quantizer, w.reshape(layer.weight.shape).to(layer.weight))
        nearest = _error(moments, layer, weight.hard())
        decide(weight, layer, moments, iterations, lr, regularizer, warm_up)
        soft, hard = (_error(moments, layer, value) for value in (weight(layer.weight), weight.hard()))
        found[name] = Rounded(nearest, soft, hard, weight.open() / layer.weight.numel())
        layer.weight.copy_(weight.hard())
        set_bias(layer, moments.bias(matrix(layer, layer.weight.double())))
    return found


def _error(moments: Moments, layer: QuantLayer, w: Tensor) -> float:
    return float(moments.error(matrix(layer, w.double())).sum() / moments.yy.sum())


@torch.no_grad()
def decide(
    weight: Undecided,
    layer: QuantLayer,
    moments: Moments,
    iterations: int,
    lr: float,
    regularizer: float,
    warm_up: float,
) -> None:
    """Learn V of one weight; the arguments are those of :func:`adaround`."""
    xx, yx = moments.xx.to(weight.low), moments.yx.to(weight.low)
    first = moments.error(matrix(layer, weight.hard().double())).sum()
    share = regularizer * float(first) / max(weight.v.numel(), 1)
    optimizer = torch.optim.Adam([weight.v], lr)
    for step in range(iterations):
        weight.v.grad = gradient(weight, layer, xx, yx, share, beta(step, iterations, warm_up))
        optimizer.step()


def gradient(
    weight: Undecided, layer: QuantLayer, xx: Tensor, yx: Tensor, share: float, exponent: float | None
) -> Tensor:
    """Return the gradient of V: (2 (ŵ cov(x̂, x̂) - cov(y, x̂)) (high - low) - λ d|2 h - 1|^β / dh) dh / dV.

    By hand it takes 0.56 of autograd's time. Where 0 < h < 1, dh / dV = (h + 0.1) (1.1 - h) / 1.2.

    Args:
        weight: What is decided.
        layer: Whose weight it is.
        xx: Of the moments, in the dtype of V.
        yx: Likewise.
        share: λ.
        exponent: β; None leaves the regularizer out.
    """
    h = weight.rounding.h()
    w = matrix(layer, torch.addcmul(weight.low, weight.gap, h))
    slope = 2.0 * (w @ xx - yx).view_as(h) * weight.gap
    if exponent is not None:
        z = 2.0 * h - 1.0
        slope -= (2.0 * share * exponent) * z.sign() * z.abs().pow(exponent - 1.0) * weight.free
    return slope * (h + 0.1) * (1.1 - h) / 1.2 * ((h > 0.0) & (h < 1.0))
