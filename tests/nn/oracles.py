"""Slow truths for the allocation of bits, written from the formulas."""

import itertools
from fractions import Fraction

import numpy as np


def best_allocation(omega, sizes, budget, bits):
    """Try every allocation: min Σ Ω_l(b_l) subject to Σ n_l b_l <= budget Σ n_l; (total, cost) or None.

    The budget is a Fraction; totals are added as Fractions of the given numbers.
    """
    best = None
    for choice in itertools.product(range(len(bits)), repeat=len(sizes)):
        cost = sum(n * bits[c] for n, c in zip(sizes, choice, strict=True))
        if cost > Fraction(budget) * sum(sizes):
            continue
        total = sum(Fraction(row[c]) for row, c in zip(omega, choice, strict=True))
        if best is None or (total, cost) < best:
            best = total, cost
    return best


def two_layers(w1, w2, x):
    """ReLU in between: hidden (N, H), output (N, O)."""
    hidden = np.maximum(x @ w1.T, 0.0)
    return hidden, hidden @ w2.T


def two_layer_loss(w1, w2, x, y):
    """Mean over samples and outputs of (f(x) - y)²."""
    out = two_layers(w1, w2, x)[1]
    return float(((out - y) ** 2).mean())


def two_layer_gradients(w1, w2, x, y):
    """Back-propagation by hand, sample by sample."""
    d1, d2 = np.zeros_like(w1), np.zeros_like(w2)
    for i in range(len(x)):
        hidden, out = two_layers(w1, w2, x[i : i + 1])
        error = 2.0 * (out[0] - y[i]) / y.size
        for o in range(len(w2)):
            for h in range(len(w1)):
                d2[o, h] += error[o] * hidden[0, h]
                if hidden[0, h] > 0:
                    for j in range(x.shape[1]):
                        d1[h, j] += error[o] * w2[o, h] * x[i, j]
    return d1, d2


def fisher(weights, batches, quantize, bits):
    """Ω_l(b) = 1/2 Σ_i F_ii (w_i - Q_b(w_i))², F_ii the mean over batches of g_i²."""
    rows = []
    for layer, w in enumerate(weights):
        row = []
        for b in bits:
            omega, wq = 0.0, quantize(b, w)
            for index in np.ndindex(w.shape):
                f = np.mean([two_layer_gradients(*weights, x, y)[layer][index] ** 2 for x, y in batches])
                omega += 0.5 * f * (w[index] - wq[index]) ** 2
            row.append(omega)
        rows.append(row)
    return np.array(rows)


def loss_rise(weights, batches, quantize, bits):
    """Ω_l(b) = max(0, L(Q_b(w_l)) - L(w)), the other layers left alone."""
    base = np.mean([two_layer_loss(*weights, x, y) for x, y in batches])
    rows = []
    for layer in range(len(weights)):
        row = []
        for b in bits:
            changed = [quantize(b, w) if i == layer else w for i, w in enumerate(weights)]
            rise = np.mean([two_layer_loss(*changed, x, y) for x, y in batches]) - base
            row.append(rise if rise > 0 else 0.0)
        rows.append(row)
    return np.array(rows)
