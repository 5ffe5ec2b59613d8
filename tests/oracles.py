"""What the core must compute, as slow plain loops in float64, written from the formulas alone.

Nothing here imports qviz: an oracle that shares code with what it checks would share its mistakes.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np

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


def ste_slope(u: np.ndarray, low: float, high: float, *, clipped: bool) -> np.ndarray:
    """dy/dx of the straight-through estimator: 1 on the closed range [low, high]; outside 0 clipped, 1 plain.

    Source: Bengio et al. 2013 (arXiv:1308.3432); the closed range is LSQ's −Q_N ≤ v ≤ Q_P.
    """
    out = [1.0 if (not clipped or low <= v <= high) else 0.0 for v in u.reshape(-1).tolist()]
    return np.array(out).reshape(u.shape)


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


def power_levels(bits: int, base: float, grid: str) -> list[float]:
    """{0} ∪ {±base^−j : j = 0 … J}; J = 2^(b−1) − 1 for the paper's 2^b + 1 levels, one less for strict.

    Source: ASQ/POST §1.5 (paper grid, build_power_value of the released code); strict is APoT's PoT.
    """
    count = 2 ** (bits - 1) - (1 if grid == "strict" else 0)
    return mirrored([base ** (-j) for j in range(count)])


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


# --- the normal distribution ------------------------------------------------------------------------------


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


# --- samples ----------------------------------------------------------------------------------------------


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
