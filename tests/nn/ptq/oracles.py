"""What post-training quantization must compute, in float64, written from the papers' formulas alone.

Nothing here imports qviz or torch. Everything is slow and meant for tiny tensors: definitions are spelled out
as loops or as numpy sums, and a best choice is found by trying them all.

Shapes: N samples, C channels, (N, C, H, W) feature maps, (O, C / groups, kh, kw) and (O, K) weights. A
value on a border goes down.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tests import oracles

Array = np.ndarray
Pair = tuple[int, int]

# --- reconstruction: BRECQ, AdaRound, QDrop ----------------------------------------------------------------


def reconstruction_loss(out: Array, target: Array, p: float = 2.0) -> float:
    """Mean over samples (and positions) of Σ_channels |out - target|^p; (N, C) or (N, C, H, W).

    BRECQ, Li et al. 2021, arXiv 2102.05426 (p = 2; p = 2.4 in its released code for the steps).
    """
    return float((np.abs(out - target) ** p).sum(axis=1).mean())


def soft_rounding(v: Array) -> Array:
    """h(V) = clip(1.2 σ(V) - 0.1, 0, 1). AdaRound, Nagel et al. 2020, arXiv 2004.10568."""
    return np.vectorize(oracles.rectified_sigmoid, otypes=[float])(v)


def rounding_regularizer(v: Array, beta: float, weight: float = 1.0) -> float:
    """λ Σ (1 - |2 h(V) - 1|^β), λ = weight. AdaRound."""
    return float(weight * (1 - np.abs(2 * soft_rounding(v) - 1) ** beta).sum())


def rounding_regularizer_gradient(v: Array, beta: float, weight: float = 1.0) -> Array:
    """∂/∂V of the regularizer: -2 λ β |2h - 1|^(β-1) sign(2h - 1) h'(V); h' = 0 where the clip holds h."""
    signed = 2 * soft_rounding(v) - 1
    slope = np.vectorize(oracles.rectified_sigmoid_slope, otypes=[float])(v)
    return -2 * weight * beta * np.abs(signed) ** (beta - 1) * np.sign(signed) * slope


def rounding_beta(
    t: float, total: float, start: float = 20.0, end: float = 2.0, warmup: float = 0.2
) -> float | None:
    """β at time t of 0 … total: None (no regularizer) before warmup · total, then linear to its end."""
    begin = warmup * total
    return None if t < begin else start + (end - start) * (t - begin) / (total - begin)


def qdrop(x: Array, quantized: Array, mask: Array) -> Array:
    """m x + (1 - m) Q(x): the float value stays where m = 1. QDrop, Wei et al. 2022, arXiv 2203.05740."""
    return mask * x + (1 - mask) * quantized


def qdrop_expectation(f: Callable[[Array], Array], x: Array, quantized: Array, stay: float) -> Array:
    """E f(m x + (1 - m) Q(x)) over all masks, m independently 1 with probability ``stay``."""
    total = 0.0
    for bits in itertools.product((0, 1), repeat=x.size):
        mask = np.array(bits, dtype=float).reshape(x.shape)
        total = total + np.prod(np.where(mask == 1, stay, 1 - stay)) * f(qdrop(x, quantized, mask))
    return total


# --- layers: convolution and linear, direct and as a Gram matrix -------------------------------------------


@dataclass(frozen=True)
class Geometry:
    """Geometry of a convolution, (vertical, horizontal); outside the image there are zeros."""

    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1


PLAIN = Geometry()


def convolve(x: Array, w: Array, geometry: Geometry = PLAIN) -> Array:
    """y[n, o, i, j] = Σ_cpq w[o, c, p, q] x[n, c', i·stride + p·dilation - padding, …], c' in o's group."""
    (sh, sw), (ph, pw), (dh, dw) = geometry.stride, geometry.padding, geometry.dilation
    (samples, _, height, width), (outs, ins, kh, kw) = x.shape, w.shape
    rows = (height + 2 * ph - dh * (kh - 1) - 1) // sh + 1
    columns = (width + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    y = np.zeros((samples, outs, rows, columns))
    for n, o, i, j in np.ndindex(y.shape):
        first = o // (outs // geometry.groups) * ins
        for c, p, q in np.ndindex(ins, kh, kw):
            row, column = i * sh + p * dh - ph, j * sw + q * dw - pw
            if 0 <= row < height and 0 <= column < width:
                y[n, o, i, j] += w[o, c, p, q] * x[n, first + c, row, column]
    return y


def layer(x: Array, w: Array, geometry: Geometry = PLAIN) -> Array:
    """W x without a bias: linear on the last axis of x where w is (O, K), else a convolution."""
    return np.einsum("...k,ok->...o", x, w) if w.ndim == 2 else convolve(x, w, geometry)


def im2col(x: Array, kernel: Pair, geometry: Geometry = PLAIN) -> Array:
    """Return the rows that meet a flattened kernel: (groups, N · positions, C / groups · kh · kw)."""
    (sh, sw), (ph, pw), (dh, dw) = geometry.stride, geometry.padding, geometry.dilation
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    high, wide = dh * (kernel[0] - 1) + 1, dw * (kernel[1] - 1) + 1
    corners = itertools.product(
        range(0, padded.shape[2] - high + 1, sh), range(0, padded.shape[3] - wide + 1, sw)
    )
    windows = np.stack([padded[:, :, i : i + high : dh, j : j + wide : dw] for i, j in corners], axis=1)
    split = windows.reshape(windows.shape[0] * windows.shape[1], geometry.groups, -1)
    return split.swapaxes(0, 1)


def layer_loss(
    w_hat: Array, w: Array, x: Array, geometry: Geometry = PLAIN, x_hat: Array | None = None
) -> float:
    """‖Ŵ x̂ - W x‖² summed over samples, positions and outputs; x̂ = x unless given. AdaRound."""
    return float(((layer(x if x_hat is None else x_hat, w_hat, geometry) - layer(x, w, geometry)) ** 2).sum())


def gram(x: Array, kernel: Pair | None = None, geometry: Geometry = PLAIN) -> Array:
    """G = Σ x xᵀ over samples and positions, (groups, K, K); linear where there is no kernel."""
    rows = x.reshape(1, -1, x.shape[-1]) if kernel is None else im2col(x, kernel, geometry)
    return rows.swapaxes(1, 2) @ rows


def gram_loss(w_hat: Array, w: Array, grams: Array) -> float:
    """Σ_o (ŵ_o - w_o)ᵀ G (ŵ_o - w_o), with the G of o's group: the layer loss without its samples."""
    size = len(w) // len(grams)
    difference = (w_hat - w).reshape(len(w), -1)
    return float(sum(d @ grams[o // size] @ d for o, d in enumerate(difference)))


# --- one row of weights under H: GPTQ and its rivals -------------------------------------------------------


def row_error(w_hat: Array, w: Array, h: Array) -> float:
    """(ŵ - w)ᵀ H (ŵ - w): what the rounding of a row adds to its squared output error where H = Σ x xᵀ.

    GPTQ, Frantar et al. 2023, arXiv 2210.17323; its H is twice this one, which changes no minimizer.
    """
    return float((w_hat - w) @ h @ (w_hat - w))


def remaining_update(w: Array, h: Array, free: Sequence[int], q: int, value: float) -> tuple[Array, float]:
    """Fix w_q at ``value`` and move the other free weights to where the error grows least.

    min δᵀ H δ with δ_q = value - w_q, δ = 0 outside ``free`` (q is in it): the Lagrangian gives
    δ_F = -(w_q - value) / [H_F⁻¹]_qq · (H_F⁻¹)_:q and the growth (w_q - value)² / [H_F⁻¹]_qq.
    Optimal Brain Compression, Frantar and Alistarh 2022, arXiv 2208.11580, and GPTQ.
    """
    inverse = np.linalg.inv(h[np.ix_(free, free)])
    at = list(free).index(q)
    moved = w.copy()
    moved[list(free)] -= (w[q] - value) / inverse[at, at] * inverse[:, at]
    moved[q] = value
    return moved, float((w[q] - value) ** 2 / inverse[at, at])


def gptq(
    w: Array, h: Array, grid: Callable[[float, int], float], order: Sequence[int] | None = None
) -> tuple[Array, float]:
    """Round the weights one after the other, each followed by the optimal update of those still free.

    ``grid(value, column)`` is the level for a weight. H must be positive definite: dead columns and damping
    are the caller's. Return ŵ and the sum of the growths, which is the row's error.
    """
    order = list(range(len(w))) if order is None else list(order)
    total = 0.0
    for k, q in enumerate(order):
        w, growth = remaining_update(w, h, order[k:], q, grid(w[q], q))
        total += growth
    return w, total


def best_rounding(w: Array, h: Array, levels: Sequence[float]) -> tuple[Array, float]:
    """Try every ŵ with entries in ``levels``: the row's lowest error, a bound for every method."""
    tried = (np.array(choice) for choice in itertools.product(levels, repeat=len(w)))
    return min(((w_hat, row_error(w_hat, w, h)) for w_hat in tried), key=lambda pair: pair[1])


def best_change(w_hat: Array, w: Array, h: Array, levels: Sequence[float]) -> tuple[int, float, float] | None:
    """Return (column, level, change of the error) of the best single change, None where none lowers it.

    A change of ŵ_q by t changes the error by 2 t (H (ŵ - w))_q + t² H_qq: a step of coordinate descent.
    """
    slope = h @ (w_hat - w)
    tried = [
        (q, level, float(2 * (level - w_hat[q]) * slope[q] + (level - w_hat[q]) ** 2 * h[q, q]))
        for q in range(len(w))
        for level in levels
    ]
    best = min(tried, key=lambda change: change[2])
    return best if best[2] < 0 else None


def best_scale(codes: Array, w: Array, h: Array) -> float:
    """argmin_s (s c - w)ᵀ H (s c - w) = cᵀ H w / cᵀ H c; the codes c must not all be 0."""
    return float(codes @ h @ w / (codes @ h @ codes))


def best_scale_asymmetric(codes: Array, w: Array, x_hat: Array, x: Array) -> float:
    """argmin_s Σ (s c·x̂ - w·x)² over the rows of x̂ (quantized path) and x (float): (M, K) each.

    The target of GPTAQ, Li et al. 2025, arXiv 2504.02692, and of AdaRound's asymmetric reconstruction.
    """
    return float((x_hat @ codes) @ (x @ w) / ((x_hat @ codes) @ (x_hat @ codes)))


def asymmetric_target(w: Array, x_hat: Array, x: Array) -> Array:
    """w* = (Σ x̂ x̂ᵀ)⁻¹ Σ x̂ xᵀ w, so that Σ (ŵ·x̂ - w·x)² = (ŵ - w*)ᵀ Σ x̂ x̂ᵀ (ŵ - w*) + a constant."""
    return np.linalg.solve(x_hat.T @ x_hat, x_hat.T @ (x @ w))


# --- BatchNorm and statistics of the output ----------------------------------------------------------------


def fold_batchnorm(
    w: Array, bias: Array, mean: Array, var: Array, gamma: Array, beta: Array, eps: float
) -> tuple[Array, Array]:
    """w γ / √(v + ε) and (b - μ) γ / √(v + ε) + β. Jacob et al. 2018, arXiv 1712.05877."""
    gain = gamma / np.sqrt(var + eps)
    return w * gain.reshape(-1, *[1] * (w.ndim - 1)), (bias - mean) * gain + beta


def bias_correction(out: Array, target: Array) -> Array:
    """What is added to the bias: mean(target - out) of every channel, over samples and positions.

    Nagel et al. 2019, arXiv 1906.04721, with the mean measured on samples.
    """
    return np.moveaxis(target - out, 1, 0).reshape(out.shape[1], -1).mean(axis=1)


def mean_and_std_correction(out: Array, target: Array, eps: float = 0.0) -> tuple[Array, Array]:
    """(gain, shift) of every channel that give gain · out + shift the target's mean and variance.

    gain = √((v_target + ε) / (v_out + ε)), shift = μ_target - gain μ_out, biased variances. With ε > 0 it is
    what BatchNorm does whose running statistics (those of target) are replaced by those of out.
    """
    axes = (0, *range(2, out.ndim))
    gain = np.sqrt((target.var(axis=axes) + eps) / (out.var(axis=axes) + eps))
    return gain, target.mean(axis=axes) - gain * out.mean(axis=axes)


# --- AQuant: the border's gradient; where errors come from; the floor/ceiling oracle -----------------------


def border(u: Array, high: int, b: Sequence[float]) -> Array:
    """B = σ(Σ_k b_k v^k), v = u / R. INFERRED: the published abstracts give no formula."""
    return np.vectorize(oracles.sigmoid, otypes=[float])(sum(c * (u / high) ** k for k, c in enumerate(b)))


def bordered(x: Array, step: float, high: int, b: Sequence[float]) -> Array:
    """y = s (n + [u - n > B]) with u = clip(x / s, 0, R) and n = ⌊u⌋."""
    u = np.clip(x / step, 0, high)
    return step * (np.floor(u) + (u - np.floor(u) > border(u, high, b)))


def border_gradient(
    x: Array,
    g: Array,
    step: float,
    high: int,
    b: Sequence[float],
    *,
    ends: bool = False,
    within: float = math.inf,
) -> Array:
    """∂/∂b_k Σ g y = -s Σ g B (1 - B) v^k, straight-through (dy/dB = -s), over the elements that count.

    Those are 0 < x/s < R, so that exact zeros are masked out. With ``ends`` they are 0 <= x/s <= R, zeros
    counted, although no border moves them. ``within`` leaves only |u - n - B| <= within, not rescaled.
    """
    u = x / step
    fraction, big = u - np.floor(u), border(np.clip(u, 0, high), high, b)
    inside = ((u >= 0) & (u <= high)) if ends else ((u > 0) & (u < high))
    counted = inside & (np.abs(fraction - big) <= within)
    common = -step * g * big * (1 - big) * counted
    return np.array([(common * np.clip(u / high, 0, 1) ** k).sum() for k in range(len(b))])


def error_decomposition(
    block: Callable[[Array, Array, bool], Array], w: Array, w_hat: Array, x: Array, x_prefix: Array
) -> tuple[Array, Array, Array]:
    """(weight, activation, propagated) error of a block's output; their sum is the whole error.

    ``block(w, x, rounded)`` is the block with the weights w, its activations rounded or not; x_prefix is the
    input that the quantized prefix delivers, x the float one. For one product with x' = Q(x̃):
    ŵ x' - w x = (ŵ - w) x' + w (x' - x̃) + w (x̃ - x).
    """
    outs = [block(w, x, False), block(w, x_prefix, False), block(w, x_prefix, True)]
    return block(w_hat, x_prefix, True) - outs[2], outs[2] - outs[1], outs[1] - outs[0]


def floors_and_ceilings(x: Array, step: float, high: int) -> Iterator[Array]:
    """Every way to round each element of x down or up: s · integers in [0, R], shaped like x."""
    u = np.clip(x / step, 0, high).reshape(-1)
    for choice in itertools.product(*[sorted({math.floor(a), math.ceil(a)}) for a in u]):
        yield step * np.array(choice, dtype=float).reshape(x.shape)


def best_floors_and_ceilings(
    x: Array, step: float, high: int, error: Callable[[Array], float]
) -> tuple[Array, float]:
    """Return the rounding of x, floor or ceiling each, with the lowest error(rounded x); and that error.

    The room of every rounding border, AQuant's included; a border chooses by the value alone.
    """
    tried = ((rounded, error(rounded)) for rounded in floors_and_ceilings(x, step, high))
    return min(tried, key=lambda pair: pair[1])
