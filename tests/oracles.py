"""What qviz must compute, as slow plain loops in float64, written from the papers' formulas alone.

First what all share, then paper by paper. Nothing here imports qviz or torch: an oracle that shares code
with what it checks would share its mistakes. An oracle of a recipe takes plain numbers and numpy arrays and
returns :class:`Result`: the output y, and for an upstream gradient g the gradient of sum(g · y) to the input
and to every parameter.

Two rules of qviz hold throughout and are the papers' only up to a set of measure zero: a code is the number
of borders strictly below u, so a tie goes down; a clip passes its gradient on the closed interval.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Result:
    """Output, gradient to the input, gradients to the parameters by name, and what a test may ask for."""

    y: np.ndarray
    dx: np.ndarray
    grads: dict[str, float] = field(default_factory=dict)
    extra: dict[str, np.ndarray] = field(default_factory=dict)


# --- small pieces ------------------------------------------------------------------------------------------


def round_down_ties(u: float) -> int:
    """Nearest integer, the lower one at a tie: floor, then up if the fraction exceeds one half."""
    n = math.floor(u)
    return n + 1 if u - n > 0.5 else n


def clip(u: float, low: float, high: float) -> float:
    """u limited to [low, high]."""
    return low if u < low else high if u > high else u


def sigmoid(z: float) -> float:
    """1 / (1 + exp(−z)), without overflow."""
    if z >= 0:
        return 1 / (1 + math.exp(-z))
    e = math.exp(z)
    return e / (1 + e)


def each(x: np.ndarray, g: np.ndarray, one: Callable[[float, float], tuple[float, float]]) -> Result:
    """Apply one(x, g) → (y, g · dy/dx) to every element."""
    y, dx = np.empty(x.size), np.empty(x.size)
    for i, (a, b) in enumerate(zip(x.reshape(-1).tolist(), g.reshape(-1).tolist(), strict=True)):
        y[i], dx[i] = one(a, b)
    return Result(y.reshape(x.shape), dx.reshape(x.shape))


def per_channel(x: np.ndarray, g: np.ndarray, axis: int, one: Callable[..., Result]) -> list[Result]:
    """one(slice, its gradient, channel) of every channel of x."""
    slices = np.moveaxis(x, axis, 0)
    ups = np.moveaxis(g, axis, 0)
    return [one(part, up, c) for c, (part, up) in enumerate(zip(slices, ups, strict=True))]


def join(parts: list[Result], axis: int) -> Result:
    """The channels' results as one: y and dx stacked along axis, gradients as arrays over the channels."""
    y = np.moveaxis(np.stack([p.y for p in parts]), 0, axis)
    dx = np.moveaxis(np.stack([p.dx for p in parts]), 0, axis)
    return Result(y, dx, {k: np.array([p.grads[k] for p in parts]) for k in parts[0].grads})


def numeric_gradient(
    f: Callable[[np.ndarray], float], at: np.ndarray, h: float = 1e-4, order: int = 4
) -> np.ndarray:
    """Central differences of a scalar function, fourth order: error O(h⁴)."""
    out = np.empty(at.size)
    weights = {4: ((1, 8 / 12), (2, -1 / 12)), 2: ((1, 0.5),)}[order]
    for i in range(at.size):
        total = 0.0
        for k, c in weights:
            moved = at.reshape(-1).copy()
            moved[i] += k * h
            total += c * f(moved.reshape(at.shape))
            moved[i] -= 2 * k * h
            total -= c * f(moved.reshape(at.shape))
        out[i] = total / h
    return out.reshape(at.shape)


# --- one number through one grid ---------------------------------------------------------------------------


def midpoints(levels: Sequence[float]) -> list[float]:
    """Arithmetic midpoints between neighbours: the borders of nearest rounding."""
    return [(a + b) / 2 for a, b in itertools.pairwise(levels)]


def code(u: float, borders: Sequence[float]) -> int:
    """Number of borders strictly below u, so that a tie goes down (design: one definition of the code)."""
    count = 0
    for border in borders:
        if border < u:
            count += 1
    return count


def codes(u: np.ndarray, borders: Sequence[float]) -> np.ndarray:
    """`code` of every element of u, in its shape. u and the borders are compared as the numbers they are."""
    out = [code(value, borders) for value in u.reshape(-1).tolist()]
    return np.array(out, dtype=np.int64).reshape(u.shape)


def dequantize(
    code_array: np.ndarray, levels: Sequence[float], scale: float, offset: float = 0.0
) -> np.ndarray:
    """y = offset + scale · levels[code]."""
    out = [offset + scale * levels[k] for k in code_array.reshape(-1).tolist()]
    return np.array(out, dtype=np.float64).reshape(code_array.shape)


def quantize(x: np.ndarray, levels: Sequence[float], scale: float, offset: float = 0.0) -> np.ndarray:
    """Nearest rounding: the level nearest to u = (x − offset) / scale, the lower one at ties."""
    out = []
    for value in x.reshape(-1).tolist():
        u = (value - offset) / scale
        best = 0
        for k in range(1, len(levels)):
            if abs(u - levels[k]) < abs(u - levels[best]):
                best = k
        out.append(offset + scale * levels[best])
    return np.array(out, dtype=np.float64).reshape(x.shape)


def log_border(low: float, high: float) -> float:
    """The border of rounding in the log domain, log|b| = (log|low| + log|high|) / 2: the geometric mean.

    Defined for two levels of one sign only; log rounding makes no zero, so a cell that ends at zero (or
    crosses it) has no log border and keeps its arithmetic midpoint.
    """
    if low * high <= 0:
        return (low + high) / 2
    return math.copysign(math.exp((math.log(abs(low)) + math.log(abs(high))) / 2), low)


# --- level lists -------------------------------------------------------------------------------------------


def mirrored(magnitudes: Sequence[float]) -> list[float]:
    """Zero and ± every magnitude, ascending."""
    distinct = sorted({float(m) for m in magnitudes if m != 0})
    return [-m for m in reversed(distinct)] + [0.0] + distinct


def uniform_levels(bits: int, *, signed: bool, narrow: bool = False) -> list[float]:
    """Integers: signed −2^(b−1) … 2^(b−1) − 1, without the lowest where narrow; unsigned 0 … 2^b − 1.

    One signed bit is {−1, +1}.
    """
    if signed and bits == 1:
        return [-1.0, 1.0]
    if signed:
        low = -(2 ** (bits - 1)) + (1 if narrow else 0)
        return [float(k) for k in range(low, 2 ** (bits - 1))]
    return [float(k) for k in range(2**bits)]


# --- the normal distribution -------------------------------------------------------------------------------


def normal_pdf(x: float) -> float:
    """φ(x), zero at ±inf."""
    return 0.0 if math.isinf(x) else math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def normal_cdf(x: float) -> float:
    """Φ(x) = ½ (1 + erf(x/√2))."""
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def normal_quantile(p: float) -> float:
    """Φ⁻¹(p) by bisection."""
    low, high = -40.0, 40.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if normal_cdf(middle) < p else (low, middle)
    return (low + high) / 2


def normal_mse(levels: Sequence[float], scale: float) -> float:
    """E (x − Q(x))² for x ~ N(0, 1), nearest rounding on scale · levels.

    Cell by cell, ∫ (x − l)² φ dx = (1 + l²) Φ(x) + (2l − x) φ(x), which differentiates back to the integrand.
    """
    points = [scale * level for level in levels]
    edges = [-math.inf, *midpoints(points), math.inf]

    def primitive(x: float, level: float) -> float:
        if math.isinf(x):
            return (1 + level * level) * normal_cdf(x)
        return (1 + level * level) * normal_cdf(x) + (2 * level - x) * normal_pdf(x)

    total = 0.0
    for level, a, b in zip(points, edges[:-1], edges[1:], strict=True):
        total += primitive(b, level) - primitive(a, level)
    return total


def best_normal_scale(levels: Sequence[float], low: float, high: float, n: int = 400) -> tuple[float, float]:
    """The scale with the least `normal_mse`, and that MSE: a dense search, then three around its best."""
    for _ in range(4):
        grid = [low + (high - low) * i / n for i in range(n + 1)]
        errors = [normal_mse(levels, scale) for scale in grid]
        i = min(range(n + 1), key=errors.__getitem__)
        low, high = grid[max(i - 1, 0)], grid[min(i + 1, n)]
    return grid[i], errors[i]


# --- samples -----------------------------------------------------------------------------------------------


def quantile(values: Sequence[float], p: float) -> float:
    """The p-quantile with linear interpolation between order statistics (position p · (n − 1))."""
    ordered = sorted(values)
    at = p * (len(ordered) - 1)
    k = math.floor(at)
    if k + 1 >= len(ordered):
        return ordered[-1]
    return ordered[k] + (at - k) * (ordered[k + 1] - ordered[k])


def mse(x: np.ndarray, y: np.ndarray) -> float:
    """Mean of (x − y)²."""
    total = 0.0
    for a, b in zip(x.reshape(-1).tolist(), y.reshape(-1).tolist(), strict=True):
        total += (a - b) ** 2
    return total / x.size


def sqnr_db(x: np.ndarray, y: np.ndarray) -> float:
    """10 log10 (Σ x² / Σ (x − y)²)."""
    signal = sum(v * v for v in x.reshape(-1).tolist())
    return 10 * math.log10(signal / (mse(x, y) * x.size))


def max_error(x: np.ndarray, y: np.ndarray) -> float:
    """Largest |x − y|."""
    return max(abs(a - b) for a, b in zip(x.reshape(-1).tolist(), y.reshape(-1).tolist(), strict=True))


def occupancy(code_array: np.ndarray, size: int) -> list[int]:
    """How often each code 0 … size − 1 occurs."""
    counts = [0] * size
    for k in code_array.reshape(-1).tolist():
        counts[k] += 1
    return counts


def entropy_bits(counts: Sequence[float]) -> float:
    """Shannon's H = −Σ p log2 p, with 0 log 0 = 0."""
    total = float(sum(counts))
    return -sum(c / total * math.log2(c / total) for c in counts if c > 0)


def sample_mse(x: np.ndarray, levels: Sequence[float], scale: float) -> float:
    """MSE of nearest rounding of a sample, every value against every level in float64."""
    points = np.asarray(levels, dtype=np.float64) * scale
    error = np.full(x.shape, np.inf)
    for point in points:
        error = np.minimum(error, (x - point) ** 2)
    return float(error.mean())


def kmeans_1d(points: np.ndarray, weights: np.ndarray, k: int) -> tuple[float, np.ndarray]:
    """Least possible Σ w (x − centre)² with k centres on a line, and the centres: exact dynamic programming.

    In one dimension the best clusters are intervals of the sorted points, so D[j, m], the least cost of the
    first j points in m intervals, is min over i of D[i, m−1] + cost(i, j), where cost is the weighted scatter
    of points i … j−1 about their mean. Source: Wang & Song, "Ckmeans.1d.dp", R Journal 3/2 (2011).
    """
    order = np.argsort(points, kind="stable")
    x, w = np.asarray(points, dtype=np.float64)[order], np.asarray(weights, dtype=np.float64)[order]
    x = x - np.average(x, weights=w)  # the sums of squares below cancel less about the mean
    n = len(x)
    zero, one, two = (np.concatenate([[0.0], np.cumsum(w * x**p)]) for p in range(3))

    def cost(i: np.ndarray, j: int) -> np.ndarray:
        weight, first = zero[j] - zero[i], one[j] - one[i]
        return np.maximum(two[j] - two[i] - first * first / weight, 0.0)

    best = np.full(n + 1, np.inf)
    best[0] = 0.0
    cuts = []
    for _ in range(k):
        now, cut = np.full(n + 1, np.inf), np.zeros(n + 1, dtype=np.int64)
        now[0] = 0.0  # fewer points than centres: the rest stay unused
        for j in range(1, n + 1):
            candidates = best[:j] + cost(np.arange(j), j)
            cut[j] = int(candidates.argmin())
            now[j] = candidates[cut[j]]
        best = now
        cuts.append(cut)

    shift = np.average(np.asarray(points, dtype=np.float64), weights=weights)
    centres, j = [], n
    for cut in reversed(cuts):
        if j == 0:
            break
        i = int(cut[j])
        centres.append((one[j] - one[i]) / (zero[j] - zero[i]) + shift)
        j = i
    return float(best[n]), np.array(centres[::-1])


# --- STE (arXiv 1308.3432) ---------------------------------------------------------------------------------


def ste_slope(u: np.ndarray, low: float, high: float, *, clipped: bool) -> np.ndarray:
    """dy/dx of the straight-through estimator: 1 on the closed range [low, high]; outside 0 clipped, 1 plain.

    Source: Bengio et al. 2013 (arXiv:1308.3432); the closed range is LSQ's −Q_N ≤ v ≤ Q_P.
    """
    out = [1.0 if (not clipped or low <= v <= high) else 0.0 for v in u.reshape(-1).tolist()]
    return np.array(out).reshape(u.shape)


def ste(x: np.ndarray, g: np.ndarray, low: int, high: int, scale: float, *, clipped: bool) -> Result:
    """y = s · round(clip(x/s, low, high)); dy/dx = 1, clipped: only where low ≤ x/s ≤ high.

    Bengio et al. 2013, arXiv 1308.3432.
    """

    def one(a: float, up: float) -> tuple[float, float]:
        u = a / scale
        y = scale * round_down_ties(clip(u, low, high))
        return y, up if (not clipped or low <= u <= high) else 0.0

    return each(x, g, one)


# --- DoReFa (arXiv 1606.06160) and PACT (arXiv 1805.06085) -------------------------------------------------


def dorefa_weight(w: np.ndarray, g: np.ndarray, bits: int) -> Result:
    """2 · round(R · (tanh w / (2 max|tanh w|) + ½)) / R − 1, R = 2^bits − 1; straight through the rounding.

    Zhou et al. 2016, arXiv 1606.06160, Eq. 9 and 10. Backward follows tanh and the maximum M as autograd
    does: with T = Σ g t, dL/dw_i = (1 − t_i²) (g_i/M − sign(t_i) T/M² · [|t_i| = M]/count).
    """
    top = 2**bits - 1
    t = [math.tanh(v) for v in w.reshape(-1).tolist()]
    largest = max(abs(v) for v in t)
    holders = sum(1 for v in t if abs(v) == largest)
    ups = g.reshape(-1).tolist()
    total = sum(up * v for up, v in zip(ups, t, strict=True))
    y, dw = np.empty(w.size), np.empty(w.size)
    for i, (v, up) in enumerate(zip(t, ups, strict=True)):
        y[i] = 2 * round_down_ties(top * (v / (2 * largest) + 0.5)) / top - 1
        inner = up / largest
        if abs(v) == largest:
            inner -= math.copysign(1.0, v) * total / largest**2 / holders
        dw[i] = (1 - v * v) * inner
    return Result(y.reshape(w.shape), dw.reshape(w.shape))


def dorefa_one_bit(w: np.ndarray, g: np.ndarray) -> Result:
    """One bit: E · sign(w), E = mean|w| a constant in the backward pass, dy/dw = 1 (paper's Eq. 7)."""
    e = sum(abs(v) for v in w.reshape(-1).tolist()) / w.size
    return each(w, g, lambda a, up: (e if a > 0 else -e, up))


def pact(x: np.ndarray, g: np.ndarray, alpha: float, bits: int) -> Result:
    """y = (α/R) round(R/α · clip(x, 0, α)); dx = 1 on [0, α]; dα = 1 where x > α, else 0.

    Choi et al. 2018, arXiv 1805.06085, Eq. 1 to 3. The paper's dα is 1 at x = α too; here that point passes
    to x, as it does for every clip in qviz.
    """
    top = 2**bits - 1
    dalpha = 0.0
    for a, up in zip(x.reshape(-1).tolist(), g.reshape(-1).tolist(), strict=True):
        dalpha += up if a > alpha else 0.0

    def one(a: float, up: float) -> tuple[float, float]:
        step = alpha / top
        return step * round_down_ties(clip(a / step, 0, top)), up if 0 <= a <= alpha else 0.0

    result = each(x, g, one)
    result.grads["alpha"] = dalpha
    return result


# --- LSQ (arXiv 1902.08153) and LSQ+ (arXiv 2004.09576) ----------------------------------------------------


def lsq(
    x: np.ndarray, g: np.ndarray, step: float, low: int, high: int, grad_scale: float, offset: float = 0.0
) -> Result:
    """LSQ, and LSQ+ with its offset.

    y = s round(clip(v)) + o, v = (x − o)/s; dy/ds = round(v) − v inside, low or high outside; dy/do = 0
    inside, 1 outside; both times `grad_scale` = 1/√(N · high). Esser et al. 2020 (arXiv 1902.08153) Eq. 1
    to 3; Bhalgat et al. 2020 (arXiv 2004.09576) Eq. 3 to 6.
    """
    dstep = doffset = 0.0
    for a, up in zip(x.reshape(-1).tolist(), g.reshape(-1).tolist(), strict=True):
        v = (a - offset) / step
        if v < low:
            dstep, doffset = dstep + up * low, doffset + up
        elif v > high:
            dstep, doffset = dstep + up * high, doffset + up
        else:
            dstep += up * (round_down_ties(v) - v)

    def one(a: float, up: float) -> tuple[float, float]:
        v = (a - offset) / step
        return step * round_down_ties(clip(v, low, high)) + offset, up if low <= v <= high else 0.0

    result = each(x, g, one)
    result.grads.update(step=grad_scale * dstep, offset=grad_scale * doffset)
    return result


# --- APoT (arXiv 1909.13144, released code), and the projection that POT and POST share with it ------------


def apot_levels(bits: int) -> list[float]:
    """Sums of one power of two from each of several sets, rescaled to a largest level of 1.

    Source: APoT's released code, build_power_value(B = bits − 1, additive): n = B // 2 sets of three powers
    (two bits each, with zero) and, where B is odd, one set of a single power. The exponents are dealt out in
    turn, the single power taking the first of the third round. One magnitude bit is the ternary fallback.
    The code stops at B = 6; B = 7 continues the pattern (INFERRED).
    """
    magnitude_bits = bits - 1
    if magnitude_bits == 1:
        return [-1.0, 0.0, 1.0]
    n = magnitude_bits // 2
    odd = magnitude_bits % 2 == 1
    sets: list[list[float]] = [[0.0] for _ in range(n)]
    single = [0.0]
    exponent = 0
    for turn in range(3):
        if odd and turn == 2:
            exponent += 1
            single.append(2.0**-exponent)
        for members in sets:
            exponent += 1
            members.append(2.0**-exponent)
    sums = single
    for members in sets:
        sums = [a + b for a in sums for b in members]
    top = max(sums)
    return mirrored([v / top for v in sums])


APOT_LEVELS = {
    2: [-1.0, 0.0, 1.0],
    3: [-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0],
    4: [-1.0, -0.8, -0.6, -0.4, -0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0],
}


def project(
    w: np.ndarray, g: np.ndarray, alpha: float, levels: Sequence[float], grad_scale: float = 1.0
) -> Result:
    """y = α q, q the level nearest to clip(w/α, −1, 1) in the linear domain, the lower one at a tie.

    dw = 1 where |w/α| ≤ 1, else 0; dα = q − w/α inside, sign(w) outside, times `grad_scale`.
    """
    ends = (levels[0], levels[-1])

    def nearest(d: float) -> float:
        best = levels[0]
        for level in levels:
            if abs(d - level) < abs(d - best):
                best = level
        return best

    dalpha = 0.0
    for a, up in zip(w.reshape(-1).tolist(), g.reshape(-1).tolist(), strict=True):
        d = a / alpha
        dalpha += up * (nearest(d) - d if ends[0] <= d <= ends[1] else math.copysign(1.0, d))

    def one(a: float, up: float) -> tuple[float, float]:
        d = a / alpha
        return alpha * nearest(clip(d, *ends)), up if ends[0] <= d <= ends[1] else 0.0

    result = each(w, g, one)
    result.grads["alpha"] = grad_scale * dalpha
    return result


# --- DAQ (arXiv 2108.06983, released code) -----------------------------------------------------------------


@dataclass
class Score:
    """What the kernel soft argmax computes at one number in [0, R]."""

    lower: int
    upper: int
    nearest: int
    score_lower: float
    score_upper: float


def daq_score(x: float, sigma: float, factor: float = 1.0) -> Score:
    """Distance scores times the Gaussian kernel of the two levels about x.

    exp(−|x − q|) · exp(−(q − q_n)²/(factor · σ²)); factor 1 is the released code, 2 the "standard deviation"
    of the text. σ = inf is no kernel.
    """
    lower = math.floor(x)
    upper = lower + 1
    d_lower, d_upper = math.exp(-abs(x - lower)), math.exp(-abs(x - upper))
    nearest = upper if d_upper > d_lower and x - lower > 0.5 else lower  # a tie is the lower one
    kernel = [math.exp(-((q - nearest) ** 2) / (factor * sigma**2)) for q in (lower, upper)]
    return Score(lower, upper, nearest, d_lower * kernel[0], d_upper * kernel[1])


def daq_phi(x: float, beta: float, sigma: float, factor: float = 1.0) -> tuple[float, float]:
    """Soft argmax at the temperature β over the two levels, and its derivative to x with β held.

    Autograd's rules: floor, the nearest level and β are constants; d|z|/dz at 0 is +1.
    """
    s = daq_score(x, sigma, factor)
    a, b = beta * s.score_lower, beta * s.score_upper
    top = max(a, b)
    e_lower, e_upper = math.exp(a - top), math.exp(b - top)
    m_lower, m_upper = e_lower / (e_lower + e_upper), e_upper / (e_lower + e_upper)
    phi = s.lower * m_lower + s.upper * m_upper
    # ds_lower/dx = −s_lower (x right of its level, and at it), ds_upper/dx = +s_upper
    slope = beta * m_lower * m_upper * (s.score_upper + s.score_lower)
    return phi, slope


def daq_controlled(x: float, gamma: float, sigma: float, factor: float = 1.0) -> tuple[float, float, float]:
    """The controller's β* = γ/|s_lower − s_upper|, the rescaled output and its slope, all by the graph."""
    s = daq_score(x, sigma, factor)
    beta = gamma / abs(s.score_lower - s.score_upper)
    phi, slope = daq_phi(x, beta, sigma, factor)
    lam = 1 / (1 + math.exp(gamma))
    turn = s.lower + 0.5
    return beta, (phi - turn) / (1 - 2 * lam) + turn, slope / (1 - 2 * lam)


def daq_slope(x: float, gamma: float, sigma: float, factor: float = 1.0) -> float:
    """Closed form of the slope: γ/(2 sinh γ) · coth(|x − q_t| + 1/(2 · factor · σ²))."""
    distance = abs(x - math.floor(x) - 0.5)
    return gamma / (2 * math.sinh(gamma)) / math.tanh(distance + 1 / (2 * factor * sigma**2))


def daq(
    x: np.ndarray,
    g: np.ndarray,
    low: float,
    high: float,
    bits: int,
    *,
    weight: bool,
    gamma: float = 2.0,
    sigma: float = 1.0,
    beta: float | None = None,
    factor: float = 1.0,
) -> Result:
    """Normalise to [0, R], kernel soft argmax, output map (2Q − R)/R (weight) or Q/R; gradients to x, l, u.

    With β None the controller sets it and the output is rescaled; a number is a fixed temperature.
    """
    top = 2**bits - 1
    gain = (2 if weight else 1) / top
    dlow = dhigh = 0.0
    y, dx = np.empty(x.size), np.empty(x.size)
    for i, (a, up) in enumerate(zip(x.reshape(-1).tolist(), g.reshape(-1).tolist(), strict=True)):
        free = top * (a - low) / (high - low)
        z = clip(free, 0, top)
        if beta is None:
            _, q, slope = daq_controlled(z, gamma, sigma, factor)
        else:
            q, slope = daq_phi(z, beta, sigma, factor)
        if weight:
            y[i] = (2 * q - top) / top
        else:
            y[i] = q / top
        if not 0 <= free <= top:
            slope = 0.0
        dx[i] = up * gain * slope * top / (high - low)
        dhigh += up * gain * slope * -z / (high - low)
        dlow += up * gain * slope * -(top - z) / (high - low)
    return Result(y.reshape(x.shape), dx.reshape(x.shape), {"low": dlow, "high": dhigh})


# --- POT, POST and ASQ (arXiv 2504.17263, released code) ---------------------------------------------------


def power_levels(bits: int, base: float, grid: str) -> list[float]:
    """{0} ∪ {±base^−j : j = 0 … J}; J = 2^(b−1) − 1 for the paper's 2^b + 1 levels, one less for strict.

    Source: ASQ/POST §1.5 (paper grid, build_power_value of the released code); strict is APoT's PoT.
    """
    count = 2 ** (bits - 1) - (1 if grid == "strict" else 0)
    return mirrored([base ** (-j) for j in range(count)])


@dataclass
class Adapter:
    """The adapter's layers: a list of (weight, bias), hidden first; `last` is "relu" or "softplus"."""

    layers: list[tuple[np.ndarray, np.ndarray]]
    last: str = "relu"
    floor: float = 1e-8

    def beta(self, x: np.ndarray) -> np.ndarray:
        """One scalar per sample: mean over space, linear, ReLU, linear, ReLU (or softplus), floor."""
        out = np.empty(x.shape[0])
        for n in range(x.shape[0]):
            z = [float(np.mean(x[n, c])) for c in range(x.shape[1])]
            for depth, (weight, bias) in enumerate(self.layers):
                nxt = []
                for j in range(weight.shape[0]):
                    total = float(bias[j])
                    for c in range(weight.shape[1]):
                        total += float(weight[j, c]) * z[c]
                    if depth == len(self.layers) - 1 and self.last == "softplus":
                        total = max(total, 0.0) + math.log1p(math.exp(-abs(total)))
                    else:
                        total = max(total, 0.0)
                    nxt.append(total)
                z = nxt
            out[n] = max(z[0], self.floor)
        return out


def asq(
    x: np.ndarray, g: np.ndarray, step: float, beta: np.ndarray, low: int, high: int, grad_scale: float
) -> Result:
    """ASQ with β given: s_a = s β[n], y = s_a round(clip(x/s_a)); dx is the direct path only.

    dL/ds = g Σ β[n] G[n], dL/dβ[n] = s G[n] without g, G[n] = Σ (dL/dy) δ; δ = round(v) − v inside, low or
    high outside.
    """
    y, dx = np.empty_like(x), np.empty_like(x)
    dbeta = np.empty(x.shape[0])
    dstep = 0.0
    for n in range(x.shape[0]):
        part = lsq(x[n], g[n], step * float(beta[n]), low, high, 1.0)
        y[n], dx[n] = part.y, part.dx
        dstep += float(beta[n]) * part.grads["step"]
        dbeta[n] = step * part.grads["step"]
    return Result(y, dx, {"step": grad_scale * dstep}, {"beta": dbeta})


def asq_frozen(
    x: np.ndarray, step: float, adapter: Adapter, decided: np.ndarray, low: int, high: int
) -> np.ndarray:
    """ASQ with its rounding decisions frozen: y = s_a (clip(x/s_a) + decided), to differentiate numerically.

    `decided` is round(clip(v)) − clip(v) at the point where the gradient is wanted.
    """
    scale = step * adapter.beta(x).reshape((-1,) + (1,) * (x.ndim - 1))
    return scale * (np.clip(x / scale, low, high) + decided)


# --- ADQ (arXiv 2510.19760; quantile positions, decay and straight-through gradient INFERRED) --------------


def adq_codebook(w: np.ndarray, bits: int, p: Callable[[int, int], float] | None = None) -> list[float]:
    """Zero, and per sign the quantiles p_i = (i − ½)/m of the magnitudes, m = 2^(b−1) − 1, ascending."""
    m = 2 ** (bits - 1) - 1
    p = p or (lambda i, m: (i - 0.5) / m)
    values = w.reshape(-1).tolist()
    positive, negative = [v for v in values if v > 0], [-v for v in values if v < 0]
    return [
        *[-quantile(negative, p(i, m)) for i in range(m, 0, -1)],
        0.0,
        *[quantile(positive, p(i, m)) for i in range(1, m + 1)],
    ]


def adq(w: np.ndarray, g: np.ndarray, levels: Sequence[float]) -> Result:
    """y = the nearest level, a tie down; the identity backward, also outside the codebook."""
    borders = midpoints(levels)
    return each(w, g, lambda a, up: (levels[code(a, borders)], up))


def adq_update(w: np.ndarray, levels: Sequence[float], decay: float) -> list[float]:
    """c_k ← decay · c_k + (1 − decay) · mean of its cell; an empty cell and the zero stay."""
    borders = midpoints(levels)
    cells: list[list[float]] = [[] for _ in levels]
    for value in w.reshape(-1).tolist():
        cells[code(value, borders)].append(value)
    out = []
    for level, cell in zip(levels, cells, strict=True):
        if level == 0 or not cell:
            out.append(level)
        else:
            out.append(decay * level + (1 - decay) * sum(cell) / len(cell))
    return out


# --- N2UQ (arXiv 2111.14826, released code) ----------------------------------------------------------------


def n2uq_edges(start: float, widths: Sequence[float], floor: float = 1e-3) -> list[float]:
    """d_0 = t0, d_i = d_{i−1} + max(a_i, floor)."""
    edges = [start]
    for a in widths:
        edges.append(edges[-1] + max(a, floor))
    return edges


def n2uq_thresholds(edges: Sequence[float]) -> list[float]:
    """T_i: the midpoint of segment i."""
    return midpoints(edges)


def n2uq_expectation(x: float, edges: Sequence[float], unit: float) -> float:
    """e(x'): 0 below d_0, D (i − 1) + D (x' − d_{i−1})/a_i on segment i, D · n above the last edge."""
    if x < edges[0]:
        return 0.0
    for i in range(1, len(edges)):
        if x <= edges[i]:
            return unit * (i - 1) + unit * (x - edges[i - 1]) / (edges[i] - edges[i - 1])
    return unit * (len(edges) - 1)


def n2uq_partials(x: float, edges: Sequence[float], unit: float) -> tuple[float, float, list[float]]:
    """de/dx', de/dt0 and de/da of the expectation at x'; all 0 outside (d_0, d_n].

    On an edge itself the segment below is taken (ties go down); there is none below d_0.
    """
    n = len(edges) - 1
    da = [0.0] * n
    if x <= edges[0] or x > edges[-1]:
        return 0.0, 0.0, da
    for i in range(1, n + 1):
        if x <= edges[i]:
            width = edges[i] - edges[i - 1]
            for j in range(1, i):
                da[j - 1] = -unit / width
            da[i - 1] = -unit * (x - edges[i - 1]) / width**2
            return unit / width, -unit / width, da
    raise AssertionError(x)


def n2uq(
    x: np.ndarray,
    g: np.ndarray,
    start: float,
    widths: Sequence[float],
    s_in: float = 1.0,
    s_out: float = 1.0,
    *,
    unit: float | None = None,
    floor: float = 1e-3,
) -> Result:
    """y = s2 D #{i : s1 x > T_i}; gradients to x, t0, the widths, s1 and s2 through e."""
    n = len(widths)
    unit = 2 / n if unit is None else unit
    edges = n2uq_edges(start, widths, floor)
    borders = n2uq_thresholds(edges)
    y, dx = np.empty(x.size), np.empty(x.size)
    dstart = ds_in = ds_out = 0.0
    dwidths = [0.0] * n
    for i, (a, up) in enumerate(zip(x.reshape(-1).tolist(), g.reshape(-1).tolist(), strict=True)):
        v = s_in * a
        hard = unit * code(v, borders)
        slope, to_start, to_widths = n2uq_partials(v, edges, unit)
        y[i] = s_out * hard
        dx[i] = up * s_out * slope * s_in
        dstart += up * s_out * to_start
        if slope:  # inf · 0
            ds_in += up * s_out * slope * a
        ds_out += up * hard
        for j in range(n):
            dwidths[j] += up * s_out * to_widths[j] * (1.0 if widths[j] > floor else 0.0)
    grads = {"start": dstart, "widths": np.array(dwidths), "s_in": ds_in, "s_out": ds_out}
    return Result(y.reshape(x.shape), dx.reshape(x.shape), grads)


# --- AQuant (arXiv 2208.11945; the form of the border INFERRED) --------------------------------------------


def aquant(
    x: np.ndarray, g: np.ndarray, step: float, high: int, b: Sequence[float], grad_scale: float = 1.0
) -> Result:
    """u = clip(x/s, 0, R), B = σ(b0 + b1 v + b2 v²) at v = u/R, y = s (⌊u⌋ + [u − ⌊u⌋ > B]).

    dx = 1 and db_k = −s B (1 − B) v^k strictly between the ends; the step as LSQ's. The border is not
    differentiated to x.
    """
    powers = len(b)
    db = [0.0] * powers
    dstep = 0.0
    y, dx = np.empty(x.size), np.empty(x.size)
    border, integer = np.empty(x.size), np.empty(x.size)
    for i, (a, up) in enumerate(zip(x.reshape(-1).tolist(), g.reshape(-1).tolist(), strict=True)):
        free = a / step
        u = clip(free, 0, high)
        v = u / high
        big = sigmoid(sum(c * v**k for k, c in enumerate(b)))
        n = math.floor(u)
        code = clip(n + (1 if u - n > big else 0), 0, high)
        y[i], integer[i], border[i] = step * code, code, big
        inside = 0 <= free <= high
        dx[i] = up if inside else 0.0
        if inside:
            dstep += up * (code - free)
            for k in range(powers if 0 < free < high else 0):  # no border moves a value on an end
                db[k] += up * -step * big * (1 - big) * v**k
        else:
            dstep += up * code
    result = Result(y.reshape(x.shape), dx.reshape(x.shape), {"step": grad_scale * dstep, "b": np.array(db)})
    result.extra.update(border=border.reshape(x.shape), integer=integer.reshape(x.shape))
    return result


# --- AdaRound (arXiv 2004.10568) ---------------------------------------------------------------------------


ZETA, GAMMA = 1.1, -0.1


def rectified_sigmoid(v: float) -> float:
    """h(V) = clip(σ(V) (ζ − γ) + γ, 0, 1), ζ = 1.1, γ = −0.1."""
    return clip(sigmoid(v) * (ZETA - GAMMA) + GAMMA, 0.0, 1.0)


def rectified_sigmoid_slope(v: float) -> float:
    """dh/dV; 0 where the clip holds it."""
    raw = sigmoid(v) * (ZETA - GAMMA) + GAMMA
    return sigmoid(v) * (1 - sigmoid(v)) * (ZETA - GAMMA) if 0 <= raw <= 1 else 0.0


def rectified_sigmoid_inverse(h: float) -> float:
    """V with h(V) = h, for h in (0, 1)."""
    p = (h - GAMMA) / (ZETA - GAMMA)
    return math.log(p / (1 - p))


def adaround(
    w: np.ndarray, g: np.ndarray, v: np.ndarray, step: float, low: int, high: int, *, soft: bool
) -> Result:
    """y = s clip(⌊w/s⌋ + h, low, high): h = h(V) soft, [h(V) > ½] hard. Nagel et al. 2020, arXiv 2004.10568.

    dV = s h'(V) where the clip does not hold it (soft value of ⌊w/s⌋ + h in [low, high]).
    """
    y, dv = np.empty(w.size), np.empty(w.size)
    numbers = zip(w.reshape(-1).tolist(), g.reshape(-1).tolist(), v.reshape(-1).tolist(), strict=True)
    for i, (a, up, logit) in enumerate(numbers):
        n = math.floor(a / step)
        h = rectified_sigmoid(logit)
        y[i] = step * clip(n + (h if soft else float(h > 0.5)), low, high)
        dv[i] = up * step * rectified_sigmoid_slope(logit) if low <= n + h <= high else 0.0
    return Result(y.reshape(w.shape), np.zeros_like(w), {"v": dv.reshape(v.shape)})
