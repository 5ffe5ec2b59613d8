"""Learned ranges and the recipes on them, against slow loops written from the papers."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from qviz import Quantizer, recipes, uniform
from qviz.core.learned import LearnedClip, scale_gradient
from qviz.methods.asq import AdaptiveStep
from qviz.methods.daq import LearnedBounds
from qviz.methods.lsq import LearnedAffine, LearnedStep
from qviz.methods.n2uq import InOutScale
from tests import recipe_oracles as oracle

VALUE, GRADIENT = 1e-12, 1e-9
KINDS = ("normal", "ties", "integers", "bounds", "subnormal", "saturated", "constant", "zeros")


def numbers(kind: str, scale: float, low: float, high: float, offset: float = 0.0, seed: int = 0) -> Tensor:
    """64 values of one kind for a grid of that step and those end levels, float64."""
    g = torch.Generator().manual_seed(seed)
    normal = torch.randn(64, generator=g, dtype=torch.float64)
    k = torch.arange(64, dtype=torch.float64)
    ends = torch.tensor([low, high], dtype=torch.float64)
    near = torch.cat([ends, torch.nextafter(ends, ends + 1), torch.nextafter(ends, ends - 1)])
    u = {
        "normal": normal * (high - low) / 3 + (high + low) / 2,
        "ties": low - 2 + k % (high - low + 4) + 0.5,
        "integers": low - 2 + k % (high - low + 4),
        "bounds": near.repeat(11)[:64],
        "subnormal": normal * 1e-309,
        "saturated": normal.sign() * torch.exp2(10 * normal.abs()) * (high - low),
        "constant": torch.full_like(normal, low + 0.3),
        "zeros": torch.where(k % 2 == 0, 0.0, -0.0).double(),
    }[kind]
    return u * scale + offset


def weights(shape: tuple[int, ...], seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def run(q, x: Tensor, g: Tensor) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """y, the gradient of x, and those of the parameters by their own names."""
    leaf = x.clone().requires_grad_(True)
    q.zero_grad()
    y = q(leaf)
    y.backward(g)
    named = {k.split(".", 1)[1]: p.grad.numpy() for k, p in q.named_parameters() if p.grad is not None}
    return y.detach().numpy(), leaf.grad.numpy(), named


def close(got, want, tolerance: float, size: float = 1.0) -> None:
    """|got − want| ≤ tolerance (size + |want|)."""
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * size)


# --- STE, DoReFa, PACT -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("bits", "signed"), [(2, True), (4, True), (3, False), (8, False)])
@pytest.mark.parametrize("clipped", [True, False])
def test_ste(kind, bits, signed, clipped):
    from qviz import Fixed

    q = recipes.ste(bits, signed=signed, clipped=clipped, range=Fixed(0.25)).double()
    low, high = q.codebook.lo, q.codebook.hi
    x = numbers(kind, 0.25, low, high)
    g = weights(x.shape)
    want = oracle.ste(x.numpy(), g.numpy(), int(low), int(high), 0.25, clipped=clipped)
    y, dx, _ = run(q, x, g)
    close(y, want.y, VALUE)
    close(dx, want.dx, GRADIENT)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("seed", range(3))
def test_dorefa_weight(bits, seed):
    q = recipes.dorefa_weight(bits).double()
    w = weights((6, 5), seed)
    g = weights(w.shape, seed + 10)
    want = oracle.dorefa_weight(w.numpy(), g.numpy(), bits)
    y, dw, _ = run(q, w, g)
    close(y, want.y, VALUE)
    close(dw, want.dx, GRADIENT)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dorefa_sends_zero_down_and_the_largest_to_the_end(bits, dtype):
    # tanh(0) is midway between two levels at every bit width: a tie, and a tie goes down
    n = 2**bits - 1
    y = recipes.dorefa_weight(bits)(torch.tensor([0.0, -0.0, 2.0, -2.0], dtype=dtype))
    np.testing.assert_allclose(y.numpy(), [-1 / n, -1 / n, 1, -1], rtol=0, atol=1e-6)


def test_dorefa_of_zeros_is_finite():
    w = torch.zeros(3, requires_grad=True)
    y = recipes.dorefa_weight(2)(w)
    y.sum().backward()
    assert y.isfinite().all()
    assert w.grad.isfinite().all()


def test_dorefa_shares_the_largest_weights_gradient_between_equals():
    w = torch.tensor([0.3, -0.9, 0.9], dtype=torch.float64)
    g = torch.tensor([1.0, 2.0, -0.5], dtype=torch.float64)
    want = oracle.dorefa_weight(w.numpy(), g.numpy(), 3)
    _, dw, _ = run(recipes.dorefa_weight(3).double(), w, g)
    close(dw, want.dx, GRADIENT)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_pact(kind, bits):
    top = 2**bits - 1
    alpha = 0.25 * top
    q = recipes.pact_activation(bits, alpha=alpha).double()
    x = numbers(kind, 0.25, 0, top)
    g = weights(x.shape)
    want = oracle.pact(x.numpy(), g.numpy(), alpha, bits)
    y, dx, grads = run(q, x, g)
    close(y, want.y, VALUE)
    close(dx, want.dx, GRADIENT)
    close(grads["clip"], want.grads["alpha"], GRADIENT, float(g.abs().sum()))


def test_pact_has_no_bits_in_its_clip_gradient():
    x = torch.tensor([0.3, 1.7, 2.0, 2.5, 9.0], dtype=torch.float64)
    for bits in (1, 2, 4, 8):
        q = recipes.pact_activation(bits, alpha=2.0).double()
        q(x).sum().backward()
        assert q.range.clip.grad.item() == pytest.approx(2.0)  # 2.5 and 9.0 lie above


# --- LSQ, LSQ+ ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("bits", "signed"), [(2, True), (4, True), (3, False), (8, True)])
def test_lsq(kind, bits, signed):
    q = recipes.lsq(bits, signed=signed, step=0.25).double()
    low, high = int(q.codebook.lo), int(q.codebook.hi)
    x = numbers(kind, 0.25, low, high)
    g = weights(x.shape)
    scale = 1 / math.sqrt(x.numel() * high)
    want = oracle.lsq(x.numpy(), g.numpy(), 0.25, low, high, scale)
    y, dx, grads = run(q, x, g)
    close(y, want.y, VALUE)
    close(dx, want.dx, GRADIENT)
    close(grads["step"], want.grads["step"], GRADIENT, scale * high * float(g.abs().sum()))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_lsq_per_channel(axis):
    w = weights((5, 5, 5))
    step = torch.tensor([0.1, 0.2, 0.31, 0.5, 0.07])
    q = recipes.lsq(3, step=step, channels=5, axis=axis).double()
    g = weights(w.shape, 2)
    scale = 1 / math.sqrt(25 * 3)  # values that share a step

    def one(part, up, c):
        return oracle.lsq(part, up, float(step[c].double()), -4, 3, scale)

    want = oracle.join(oracle.per_channel(w.numpy(), g.numpy(), axis, one), axis)
    y, dw, grads = run(q, w, g)
    close(y, want.y, VALUE)
    close(dw, want.dx, GRADIENT)
    close(grads["step"], want.grads["step"], GRADIENT)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("bits", "signed"), [(2, True), (4, False)])
@pytest.mark.parametrize("offset", [0.0, -0.625, 3.0])
def test_lsq_plus(kind, bits, signed, offset):
    q = recipes.lsq_plus(bits, signed=signed, step=0.25, offset=offset).double()
    low, high = int(q.codebook.lo), int(q.codebook.hi)
    x = numbers(kind, 0.25, low, high, offset)
    g = weights(x.shape)
    scale = 1 / math.sqrt(x.numel() * high)
    want = oracle.lsq(x.numpy(), g.numpy(), 0.25, low, high, scale, offset)
    y, dx, grads = run(q, x, g)
    close(y, want.y, VALUE)
    close(dx, want.dx, GRADIENT)
    close(grads["step"], want.grads["step"], GRADIENT, scale * high * float(g.abs().sum()))
    close(grads["shift"], want.grads["offset"], GRADIENT, scale * float(g.abs().sum()))


def test_lsq_plus_per_channel():
    x = weights((4, 3, 6))
    step, offset = torch.tensor([0.3, 0.11, 0.7]), torch.tensor([0.1, -0.4, 0.0])
    q = recipes.lsq_plus(3, step=step, offset=offset, channels=3, axis=1).double()
    g = weights(x.shape, 2)

    def one(part, up, c):
        scale = 1 / math.sqrt(24 * 3)
        return oracle.lsq(part, up, float(step[c].double()), -4, 3, scale, float(offset[c].double()))

    want = oracle.join(oracle.per_channel(x.numpy(), g.numpy(), 1, one), 1)
    y, dx, grads = run(q, x, g)
    close(y, want.y, VALUE)
    close(dx, want.dx, GRADIENT)
    close(grads["step"], want.grads["step"], GRADIENT)
    close(grads["shift"], want.grads["offset"], GRADIENT)


def test_the_step_is_observed_as_twice_the_mean_over_the_root_of_the_top():
    w = weights((6, 10)).float()
    q = recipes.lsq(4, channels=6).observe(w)
    want = 2 * w.abs().mean(1) / math.sqrt(7)
    torch.testing.assert_close(q.range.step.data, want)
    x = w.abs()
    assert recipes.lsq(3, signed=False).observe(x).range.step.item() == pytest.approx(
        2 * x.mean().item() / math.sqrt(7)
    )
    assert recipes.asq_activation(3, 10).observe(x).range.step.item() == pytest.approx(
        2 * x.mean().item() / math.sqrt(7)
    )


def test_lsq_plus_puts_minimum_and_maximum_on_the_end_levels():
    x = weights((4, 9)).float() + 3
    q = recipes.lsq_plus(4).observe(x)
    low = q.range.shift + q.range.step * q.codebook.lo
    high = q.range.shift + q.range.step * q.codebook.hi
    assert (low.item(), high.item()) == pytest.approx((x.min().item(), x.max().item()), rel=1e-5)


@pytest.mark.parametrize("start", [-0.25, 0.0, 1e-12])
def test_a_step_that_training_moved_to_zero_or_below_is_still_a_step(start):
    q = recipes.lsq(4, step=1.0)
    with torch.no_grad():
        q.range.step.fill_(start)
    x = torch.tensor([0.3, -0.2, 0.0], requires_grad=True)
    y = q(x)
    y.sum().backward()
    assert q.range.scale > 0
    assert y.isfinite().all()
    assert x.grad.isfinite().all()
    assert q.range.step.grad.isfinite()
    if start < 0:
        assert y.tolist() == recipes.lsq(4, step=-start)(x).tolist()


def test_scale_gradient_keeps_every_bit():
    p = torch.randn(1000, requires_grad=True)
    y = scale_gradient(p, 0.3)
    assert torch.equal(y, p)
    y.sum().backward()
    torch.testing.assert_close(p.grad, torch.full_like(p, 0.3))


# --- POT, POST, APoT ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "ties"])
@pytest.mark.parametrize("family", ["pot", "post"])
@pytest.mark.parametrize(("bits", "grid"), [(2, "strict"), (3, "strict"), (4, "strict"), (4, "paper")])
def test_pot_and_post(kind, family, bits, grid):
    alpha = 0.75
    q = getattr(recipes, f"{family}_weight")(bits, grid=grid, alpha=alpha).double()
    w = numbers(kind, alpha, -1, 1)
    g = weights(w.shape)
    levels = oracle.pot_levels(bits, {"pot": 2.0, "post": math.sqrt(2)}[family], grid)
    scale = 1 / math.sqrt(w.numel())
    want = oracle.project(w.numpy(), g.numpy(), alpha, levels, scale)
    y, dw, grads = run(q, w, g)
    close(y, want.y, VALUE)
    close(dw, want.dx, GRADIENT)
    close(grads["clip"], want.grads["alpha"], GRADIENT, scale * float(g.abs().sum()))


@pytest.mark.parametrize("axis", [0, 1])
def test_post_per_channel(axis):
    w = weights((4, 4, 3))
    alpha = torch.tensor([0.5, 1.1, 2.0, 0.9])
    q = recipes.post_weight(4, channels=4, axis=axis, alpha=alpha).double()
    g = weights(w.shape, 2)
    levels = oracle.pot_levels(4, math.sqrt(2), "strict")

    def one(part, up, c):
        return oracle.project(part, up, float(alpha[c].double()), levels, 1 / math.sqrt(12))

    want = oracle.join(oracle.per_channel(w.numpy(), g.numpy(), axis, one), axis)
    y, dw, grads = run(q, w, g)
    close(y, want.y, VALUE)
    close(dw, want.dx, GRADIENT)
    close(grads["clip"], want.grads["alpha"], GRADIENT)


def test_a_tie_of_pot_goes_down():
    q = recipes.pot_weight(3, alpha=1.0)
    w = torch.tensor([-0.75, -0.375, -0.125, 0.125, 0.375, 0.75])
    assert q(w).tolist() == [-1.0, -0.5, -0.25, 0.0, 0.25, 0.5]


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_apot(bits):
    q = recipes.apot_weight(bits, alpha=2.5).double()
    w = 1.5 * weights((50,))
    g = weights(w.shape, 2)
    want = oracle.project(w.numpy(), g.numpy(), 2.5, oracle.APOT_LEVELS[bits])  # no factor on the gradient
    y, dw, grads = run(q, w, g)
    close(y, want.y, VALUE)
    close(dw, want.dx, GRADIENT)
    close(grads["clip"], want.grads["alpha"], GRADIENT)


def test_apot_starts_at_three():
    assert recipes.apot_weight(4).range.clip.item() == 3.0


def test_the_quantile_start_is_the_99th_percentile_of_each_channel():
    w = weights((5, 200)).float()
    q = recipes.post_weight(4, channels=5, start="quantile").observe(w)
    want = np.quantile(w.abs().double().numpy(), 0.99, axis=1)
    np.testing.assert_allclose(q.range.clip.detach().numpy(), want, rtol=1e-5)
    whole = recipes.pot_weight(4, start="quantile").observe(w)
    assert whole.range.clip.item() == pytest.approx(np.quantile(w.abs().double().numpy(), 0.99), rel=1e-5)


def test_the_search_start_has_no_larger_error_than_any_clip():
    w = weights((3, 500)).float()
    q = recipes.post_weight(3, channels=3).observe(w)
    levels = oracle.pot_levels(3, math.sqrt(2), "strict")
    for c in range(3):
        row = w[c].double().numpy()

        def error(alpha, row=row):
            return float(np.mean((oracle.project(row, row, alpha, levels).y - row) ** 2))

        best = min(error(a) for a in np.linspace(0.2, 4.0, 200))
        assert error(q.range.clip[c].item()) <= 1.01 * best


def test_pact_starts_at_the_largest_activation():
    x = weights((50,)).float()
    assert recipes.pact_activation(4).observe(x).range.clip.item() == pytest.approx(x.max().item())


# --- DAQ ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("gamma", "sigma"), [(2.0, 1.0), (2.0, 2.0), (0.5, 0.6), (4.0, 3.0)])
@pytest.mark.parametrize("bits", [1, 2, 3])
def test_daq_weight(kind, gamma, sigma, bits):
    top = 2**bits - 1
    low, high = -top * 0.5, top * 0.5  # one step is exactly 1
    q = recipes.daq_weight(bits, gamma=gamma, sigma=sigma, bounds=(low, high)).double()
    w = numbers(kind, 1.0, 0, top, low)
    g = weights(w.shape)
    want = oracle.daq(w.numpy(), g.numpy(), low, high, bits, weight=True, gamma=gamma, sigma=sigma)
    y, dw, grads = run(q, w, g)
    close(y, want.y, VALUE)
    close(dw, want.dx, GRADIENT)
    size = float(g.abs().sum())
    close(grads["lower"], want.grads["low"], GRADIENT, size)
    close(grads["upper"], want.grads["high"], GRADIENT, size)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_daq_activation(kind, bits):
    top = 2**bits - 1
    q = recipes.daq_activation(bits, bounds=(0.0, top * 0.25)).double()
    x = numbers(kind, 0.25, 0, top)
    g = weights(x.shape)
    want = oracle.daq(x.numpy(), g.numpy(), 0.0, top * 0.25, bits, weight=False, sigma=2.0)
    y, dx, grads = run(q, x, g)
    close(y, want.y, VALUE)
    close(dx, want.dx, GRADIENT)
    close(grads["upper"], want.grads["high"], GRADIENT, 4 * float(g.abs().sum()))
    assert "lower" not in grads


@pytest.mark.parametrize("bounds", [(-2.7, 3.1), (-0.3, 0.9)])
def test_daq_with_bounds_that_are_not_round(bounds):
    bounds = tuple(float(torch.tensor(b)) for b in bounds)  # as float32 parameters hold them
    x = weights((300,))
    g = weights(x.shape, 2)
    for q, weight, sigma in (
        (recipes.daq_weight(3, bounds=bounds), True, 1.0),
        (recipes.daq_activation(3, signed=True, bounds=bounds), True, 2.0),
    ):
        want = oracle.daq(x.numpy(), g.numpy(), *bounds, 3, weight=weight, sigma=sigma)
        y, dx, grads = run(q.double(), x, g)
        close(y, want.y, VALUE)
        close(dx, want.dx, GRADIENT)
        close(grads["lower"], want.grads["low"], GRADIENT)
        close(grads["upper"], want.grads["high"], GRADIENT)


@pytest.mark.parametrize(("beta", "sigma"), [(1.0, 1.0), (5.0, 1.0), (20.0, 2.0), (3.0, 1e9)])
@pytest.mark.parametrize("signed", [True, False])
def test_soft_argmax_at_a_fixed_temperature(beta, sigma, signed):
    bounds = (-1.5, 1.5) if signed else (0.0, 3.0)
    q = recipes.soft_argmax(2, beta=beta, sigma=sigma, signed=signed, bounds=bounds).double()
    g = torch.Generator().manual_seed(0)
    x = bounds[0] + 3 * torch.rand(300, generator=g, dtype=torch.float64)
    x = torch.cat([x, bounds[0] + torch.arange(3.0) + 0.5, torch.tensor([bounds[0] - 1])]).double()
    g = weights(x.shape)
    want = oracle.daq(x.numpy(), g.numpy(), *bounds, 2, weight=signed, sigma=sigma, beta=beta)
    y, dx, grads = run(q, x, g)
    close(y, want.y, VALUE)
    close(dx, want.dx, GRADIENT)
    close(grads["upper"], want.grads["high"], GRADIENT, float(g.abs().sum()))


@pytest.mark.parametrize("at", [1.0, 2.0, 3.0, 4.0])
def test_soft_argmax_at_a_level_takes_the_cell_below(at):
    # ties go down here: the mirror image of the formula with q_f = floor(x), which would score R + 1 at R
    q = recipes.soft_argmax(2, beta=1.0, signed=False, bounds=(0.0, 3.0)).double()
    x = torch.tensor([at], dtype=torch.float64)
    level = min(at, 3.0)
    want = (2 * level - oracle.daq_phi(level, 1.0, 1.0)[0]) / 3
    assert want <= 1
    assert q(x).item() == pytest.approx(want, abs=1e-12)


def test_daq_bounds_are_observed():
    w = (weights((400,)) * 0.7 + 0.2).float()
    mean, std = w.mean().item(), w.std().item()
    q = recipes.daq_weight(2).observe(w)
    assert (q.range.lower.item(), q.range.upper.item()) == pytest.approx(
        (mean - 3 * std, mean + 3 * std), rel=1e-5
    )
    x = w.clamp(min=0)
    q = recipes.daq_activation(2).observe(x)
    assert (q.range.lower.item(), q.range.upper.item()) == pytest.approx((0, 3 * x.std().item()), rel=1e-5)
    q = recipes.daq_activation(2, signed=True).observe(w)
    assert (q.range.lower.item(), q.range.upper.item()) == pytest.approx((-3 * std, 3 * std), rel=1e-5)


@pytest.mark.parametrize("x", [torch.full((7,), 0.4), torch.tensor([0.4]), torch.tensor(0.4)])
def test_daq_bounds_of_a_constant_are_bounds(x):
    for q in (recipes.daq_weight(2), recipes.daq_activation(2)):
        q.observe(x)
        assert q.range.lower < q.range.upper
        assert q(x).isfinite().all()


# --- ASQ ---------------------------------------------------------------------------------------------------


def adapter_of(r: AdaptiveStep) -> oracle.Adapter:
    layers = [m for m in r.adapter if hasattr(m, "weight")]
    return oracle.Adapter(
        [(m.weight.detach().double().numpy(), m.bias.detach().double().numpy()) for m in layers],
        "relu" if r.mode == "paper" else "softplus",
    )


def asq(channels: int, mode: str, bits: int = 3, seed: int = 0):
    torch.manual_seed(seed)
    q = recipes.asq_activation(bits, channels, mode=mode, step=0.3).double()
    with torch.no_grad():
        for p in q.range.adapter.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return q


def images(channels: int, ndim: int, n: int = 3, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, channels, *(4, 3, 2)[: ndim - 2], generator=g, dtype=torch.float64).clamp(min=-0.2)


@pytest.mark.parametrize("mode", ["paper", "softplus"])
@pytest.mark.parametrize(("channels", "ndim"), [(3, 4), (7, 2), (8, 4), (8, 2), (16, 3), (9, 5)])
def test_beta_is_the_adapters_answer_one_a_sample(channels, ndim, mode):
    q = asq(channels, mode)
    x = images(channels, ndim)
    beta = q.range.beta(x)
    assert beta.shape == (3,) + (1,) * (ndim - 1)
    close(beta.detach().reshape(-1).numpy(), adapter_of(q.range).beta(x.numpy()), VALUE)


@pytest.mark.parametrize(("channels", "hidden"), [(1, None), (7, None), (8, 2), (64, 16)])
def test_the_adapter_has_the_papers_shape_and_start(channels, hidden):
    torch.manual_seed(0)
    r = recipes.asq_activation(4, channels).range
    shapes = [tuple(m.weight.shape) for m in r.adapter if hasattr(m, "weight")]
    assert shapes == ([(1, channels)] if hidden is None else [(hidden, channels), (1, hidden)])
    count = channels + 1 if hidden is None else channels * hidden + 2 * hidden + 1
    assert sum(p.numel() for p in r.adapter.parameters()) == count
    assert r.adapter[-1].bias.item() == 1.0
    assert r.adapter[-1].weight.abs().max() < 0.06  # N(0, 0.01²)
    assert r.beta(torch.rand(5, channels, 2, 2)).sub(1).abs().max() < 0.1
    assert AdaptiveStep(7.0, 64).adapter[0].weight.numel() + 33 == 1057


@pytest.mark.parametrize("kind", [*KINDS])
def test_asq_given_beta(kind):
    q = asq(2, "paper", bits=2)
    with torch.no_grad():
        q.range.step.fill_(0.25)
        q.range.adapter[-1].weight.zero_()
        q.range.adapter[-1].bias.fill_(2.0)  # β = 2: s_a = 0.5
    x = numbers(kind, 0.5, 0, 3).reshape(4, 2, 8)
    g = weights(x.shape)
    scale = 1 / math.sqrt(3 * x.numel())
    want = oracle.asq(x.numpy(), g.numpy(), 0.25, np.full(4, 2.0), 0, 3, scale)
    y, dx, grads = run(q, x, g)
    close(y, want.y, VALUE)
    close(dx, want.dx, GRADIENT)  # the adapter's weight is 0: the direct path only
    size = 6 * scale * float(g.abs().sum())
    close(grads["step"], want.grads["step"], GRADIENT, size)
    close(grads["adapter.0.bias"].sum(), want.extra["beta"].sum(), GRADIENT, size / scale)


@pytest.mark.parametrize("mode", ["paper", "softplus"])
@pytest.mark.parametrize(("channels", "ndim"), [(3, 4), (8, 4), (8, 2)])
def test_asq(channels, ndim, mode):
    q = asq(channels, mode)
    x = images(channels, ndim)
    g = weights(x.shape)
    net = adapter_of(q.range)
    step, beta = q.range.step.item(), net.beta(x.numpy())
    scale = 1 / math.sqrt(7 * x.numel())
    want = oracle.asq(x.numpy(), g.numpy(), step, beta, 0, 7, scale)
    y, dx, grads = run(q, x, g)
    close(y, want.y, VALUE)
    close(grads["step"], want.grads["step"], GRADIENT)

    # β's gradient reaches the adapter and x: differentiate the composition with the decisions frozen
    sa = step * beta.reshape((-1,) + (1,) * (ndim - 1))
    v = np.clip(x.numpy() / sa, 0, 7)
    decided = np.round(want.y / sa) - v

    def loss(at, net):
        return float((g.numpy() * oracle.asq_frozen(at, step, net, decided, 0, 7)).sum())

    close(dx, oracle.numeric_gradient(lambda a: loss(a, net), x.numpy(), 1e-5), 1e-7)
    direct = want.dx
    assert np.abs(dx - direct).max() > 1e-6  # the path through β is there
    names = [k for k in grads if k.startswith("adapter")]
    assert len(names) == 2 * len(net.layers)
    for depth, key in enumerate(sorted({k.rsplit(".", 1)[0] for k in names})):
        for part, name in enumerate(("weight", "bias")):

            def moved(value, depth=depth, part=part):
                layers = [list(pair) for pair in net.layers]
                layers[depth][part] = value
                return loss(x.numpy(), oracle.Adapter([tuple(p) for p in layers], net.last))

            numeric = oracle.numeric_gradient(moved, net.layers[depth][part], 1e-5)
            close(grads[f"{key}.{name}"], numeric, 1e-7)


def test_the_step_gradient_is_scaled_and_betas_is_not():
    q = asq(3, "paper")
    x = images(3, 4)
    g = weights(x.shape)
    want = oracle.asq(
        x.numpy(), g.numpy(), q.range.step.item(), adapter_of(q.range).beta(x.numpy()), 0, 7, 1.0
    )
    _, _, grads = run(q, x, g)
    close(grads["adapter.0.bias"].sum(), want.extra["beta"].sum(), GRADIENT)
    close(grads["step"] * math.sqrt(7 * x.numel()), want.grads["step"], GRADIENT)


def test_softplus_has_no_dead_zone_and_the_paper_has():
    slopes = {}
    for mode in ("paper", "softplus"):
        r = AdaptiveStep(7.0, 2, mode=mode, init=0.5)
        with torch.no_grad():
            r.adapter[-1].weight.zero_()
            r.adapter[-1].bias.fill_(-3.0)
        beta = r.beta(torch.ones(1, 2))
        assert beta.item() > 0
        beta.sum().backward()
        slopes[mode] = r.adapter[-1].bias.grad.item()
    assert slopes["paper"] == 0
    assert slopes["softplus"] == pytest.approx(oracle.sigmoid(-3.0), rel=1e-5)
    assert AdaptiveStep(7.0, 8, mode="softplus").adapter[-1].bias.item() == pytest.approx(0.541325, abs=1e-6)


@pytest.mark.parametrize("mode", ["paper", "softplus"])
@pytest.mark.parametrize("bias", [-3.0, -50.0, -200.0, -1e6])
def test_a_dead_sample_is_still_finite(mode, bias):
    q = recipes.asq_activation(3, 2, mode=mode, step=0.5)
    with torch.no_grad():
        q.range.adapter[-1].weight.zero_()
        q.range.adapter[-1].bias.fill_(bias)
    x = torch.tensor([[0.0, 1.0]], requires_grad=True)
    assert q.range.beta(x).min() >= 1e-8  # the floor
    if mode == "paper":
        assert q.range.beta(x).item() == pytest.approx(1e-8)
    y = q(x)
    y.sum().backward()
    assert y.isfinite().all()
    assert x.grad.isfinite().all()


def test_beta_one_is_lsq_bit_for_bit():
    q, plain = asq(4, "paper"), recipes.lsq(3, signed=False, step=0.3).double()
    with torch.no_grad():
        q.range.adapter[-1].weight.zero_()
        q.range.adapter[-1].bias.fill_(1.0)
    x = images(4, 4)
    a, b = run(q, x, torch.ones_like(x)), run(plain, x, torch.ones_like(x))
    assert (a[0] == b[0]).all()
    assert (a[1] == b[1]).all()
    close(a[2]["step"], b[2]["step"], VALUE)


def test_permuting_the_batch_permutes_the_output():
    q = asq(8, "paper")
    x = images(8, 4, n=5)
    order = torch.tensor([3, 0, 4, 1, 2])
    assert torch.equal(q(x)[order], q(x[order]))


def test_scaling_input_and_step_together_keeps_the_codes_while_beta_is_held():
    q = asq(4, "paper")
    with torch.no_grad():
        q.range.adapter[-1].weight.zero_()
    x = images(4, 4)
    before = q.codes(x)
    with torch.no_grad():
        q.range.step.mul_(4.0)
    assert torch.equal(q.codes(4 * x), before)


# --- finite differences on every learned number, the decisions frozen --------------------------------------


def difference(f, at: float, h: float = 1e-5) -> float:
    return float(oracle.numeric_gradient(lambda a: f(float(a[0])), np.array([at]), h)[0])


def test_lsq_step_and_offset_by_finite_differences():
    q = recipes.lsq_plus(3, step=0.37, offset=0.11).double()
    x = weights((80,)) * 1.3
    g = weights(x.shape, 2)
    y, _, grads = run(q, x, g)
    s, o = q.range.step.item(), q.range.shift.item()
    decided = np.round((y - o) / s) - np.clip((x.numpy() - o) / s, -4, 3)

    def f(s, o):
        return float((g.numpy() * (s * (np.clip((x.numpy() - o) / s, -4, 3) + decided) + o)).sum())

    scale = 1 / math.sqrt(80 * 3)
    close(grads["step"], scale * difference(lambda v: f(v, o), s), 1e-7)
    close(grads["shift"], scale * difference(lambda v: f(s, v), o), 1e-7)


def test_clips_by_finite_differences():
    x = weights((80,)) * 1.3
    g = weights(x.shape, 2)
    pact = recipes.pact_activation(3, alpha=1.1).double()
    _, _, grads = run(pact, x, g)
    a = pact.range.clip.item()
    close(grads["clip"], difference(lambda v: float((g.numpy() * np.clip(x.numpy(), 0, v)).sum()), a), 1e-7)
    post = recipes.post_weight(4, alpha=1.1).double()
    y, _, grads = run(post, x, g)
    decided = y / a - np.clip(x.numpy() / a, -1, 1)

    def f(v):
        return float((g.numpy() * v * (np.clip(x.numpy() / v, -1, 1) + decided)).sum())

    close(grads["clip"], difference(f, a) / math.sqrt(80), 1e-7)


@pytest.mark.parametrize("weight", [True, False])
def test_daq_bounds_by_finite_differences_of_the_softmax_with_its_temperature_frozen(weight):
    low, high = (-1.7, 2.1) if weight else (0.0, 2.1)
    low, high = float(torch.tensor(low)), float(torch.tensor(high))
    make = recipes.daq_weight if weight else recipes.daq_activation
    q = make(2, bounds=(low, high), sigma=1.0).double()
    x = weights((60,)) * 1.5
    g = weights(x.shape, 2)
    _, dx, grads = run(q, x, g)

    def z(a, low, high):
        return oracle.clip(3 * (a - low) / (high - low), 0, 3)

    frozen = [oracle.daq_controlled(z(a, low, high), 2.0, 1.0)[0] for a in x.tolist()]
    lam = 1 / (1 + math.exp(2.0))

    def f(low, high, xs):
        total = 0.0
        for a, beta, up in zip(xs, frozen, g.tolist(), strict=True):
            at = z(a, low, high)
            turn = math.floor(at) + 0.5
            out = (oracle.daq_phi(at, beta, 1.0)[0] - turn) / (1 - 2 * lam) + turn
            total += up * ((2 * out - 3) / 3 if weight else out / 3)
        return total

    close(grads["upper"], difference(lambda v: f(low, v, x.tolist()), high, 1e-6), 1e-6)
    if weight:
        close(grads["lower"], difference(lambda v: f(v, high, x.tolist()), low, 1e-6), 1e-6)
    numeric = oracle.numeric_gradient(lambda a: f(low, high, a.tolist()), x.numpy(), 1e-6)
    close(dx, numeric, 1e-6)


# --- worked numbers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [False, True])
def test_worked_post_projection(rows):
    w = torch.tensor([-2, -0.6, -0.04, 0.05, 0.3, 0.43, 0.9, 1.3], dtype=torch.float64)
    q = recipes.post_weight(4, grid="paper", alpha=1.0).double()
    want = [-1, -0.5, 0, 0.08838835, 0.25, 0.5, 1, 1]
    np.testing.assert_allclose(q(w).detach().numpy(), want, atol=1e-6)
    slopes = [-1, 0.1, 0.04, 0.038388, -0.05, 0.07, 0.1, 1]
    for i in range(8):
        one = w[i].reshape(1)
        q.zero_grad()
        q(one).sum().backward()  # one value: g = 1
        assert q.range.clip.grad.item() == pytest.approx(slopes[i], abs=1e-6)
    q.zero_grad()
    q(w).sum().backward()
    assert q.range.clip.grad.item() == pytest.approx(sum(slopes) / math.sqrt(8), abs=1e-5)
    strict = recipes.post_weight(4, alpha=1.0)
    assert strict(w[3:4]).item() == 0


@pytest.mark.parametrize("family", ["pot_weight", "post_weight"])
@pytest.mark.parametrize("grid", ["strict", "paper"])
def test_projection_is_idempotent_odd_and_equivariant(family, grid):
    make = getattr(recipes, family)
    w = weights((500,)) * 0.8
    q = make(4, grid=grid, alpha=1.3).double()
    y = q(w)
    assert torch.equal(q(y.detach()), y)
    assert torch.equal(q(-w), -y)
    for c in (2.0, 3.7):
        scaled = make(4, grid=grid, alpha=1.3).double()
        with torch.no_grad():
            scaled.range.clip.mul_(c)
        torch.testing.assert_close(scaled(c * w), c * y, rtol=1e-14, atol=0)


def test_two_strict_bits_are_uniform_ternary_for_both():
    w = weights((500,))
    a, b = recipes.pot_weight(2, alpha=1.0).double(), recipes.post_weight(2, alpha=1.0).double()
    assert a.codebook.levels.tolist() == b.codebook.levels.tolist() == [-1.0, 0.0, 1.0]
    assert torch.equal(a(w), b(w))
    assert torch.equal(a(w), oracle_ternary(w))


def oracle_ternary(w: Tensor) -> Tensor:
    return torch.from_numpy(oracle.lsq(w.numpy(), w.numpy(), 1.0, -1, 1, 1.0).y)


def test_worked_asq():
    q = recipes.asq_activation(3, 4, step=0.25).double()
    with torch.no_grad():
        q.range.adapter[-1].weight.zero_()
        q.range.adapter[-1].bias.fill_(1.2)
    x = torch.tensor([[-0.2, 0.3, 0.9, 3.0]], dtype=torch.float64)
    want = oracle.asq(x.numpy(), np.ones((1, 4)), 0.25, np.array([1.2]), 0, 7, 1.0)
    np.testing.assert_allclose(want.y[0], [0, 0.3, 0.9, 2.1], rtol=1e-12)
    assert want.grads["step"] == pytest.approx(8.4)
    assert want.extra["beta"][0] == pytest.approx(1.75)
    y, dx, grads = run(q, x, torch.ones_like(x))
    np.testing.assert_allclose(y[0], [0, 0.3, 0.9, 2.1], rtol=1e-12)
    assert dx[0].tolist() == [0, 1, 1, 0]
    assert grads["step"] == pytest.approx(1.587451, abs=1e-6)
    assert grads["adapter.0.bias"][0] == pytest.approx(1.75, rel=1e-9)


def test_daq_one_bit_levels():
    w = weights((100,))
    assert recipes.daq_weight(1, bounds=(-3.0, 3.0)).double()(w).unique().tolist() == [-1.0, 1.0]
    levels = recipes.daq_weight(2).codebook.levels.tolist()
    np.testing.assert_allclose(levels, [-1, -1 / 3, 1 / 3, 1], rtol=1e-15)
    for bits in range(1, 9):
        top = 2**bits - 1
        assert recipes.daq_activation(bits).codebook.levels.tolist() == [k / top for k in range(top + 1)]
        assert 0 not in recipes.daq_weight(bits).codebook.levels.tolist()


# --- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize(
    "make",
    [
        lambda v: recipes.lsq(4, step=v),
        lambda v: recipes.lsq(4, step=torch.tensor([1.0, v]), channels=2),
        lambda v: recipes.lsq_plus(4, step=v),
        lambda v: recipes.pact_activation(4, alpha=v),
        lambda v: recipes.apot_weight(4, alpha=v),
        lambda v: recipes.pot_weight(4, alpha=v),
        lambda v: recipes.post_weight(4, alpha=v),
        lambda v: recipes.asq_activation(4, 8, step=v),
        lambda v: recipes.aquant_activation(4, step=v),
    ],
)
def test_a_step_or_clip_that_is_not_positive_and_finite(make, bad):
    with pytest.raises(ValueError, match=str(bad) if not math.isnan(bad) else "nan"):
        make(bad)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
@pytest.mark.parametrize("make", [lambda v: LearnedStep(v), lambda v: LearnedClip(v, 1.0)])
def test_an_outermost_knot_that_is_not_positive(make, bad):
    with pytest.raises(ValueError, match=str(bad)):
        make(bad)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_offset_that_is_not_finite(bad):
    with pytest.raises(ValueError, match=str(bad)):
        recipes.lsq_plus(4, step=1.0, offset=bad)


@pytest.mark.parametrize(
    "bounds", [(1.0, 1.0), (2.0, -1.0), (math.nan, 1.0), (0.0, math.nan), (-math.inf, 1.0)]
)
@pytest.mark.parametrize(
    "make",
    [
        lambda b: recipes.daq_weight(2, bounds=b),
        lambda b: recipes.daq_activation(2, signed=True, bounds=b),
        lambda b: recipes.soft_argmax(2, beta=1.0, bounds=b),
    ],
)
def test_bounds_that_are_no_interval(make, bounds):
    with pytest.raises(ValueError, match=str(bounds[0])):
        make(bounds)


def test_an_unsigned_range_starts_at_zero():
    with pytest.raises(ValueError, match=r"-1\.0"):
        recipes.daq_activation(2, bounds=(-1.0, 1.0))
    with pytest.raises(ValueError, match=r"1\.0"):
        LearnedBounds(3, signed=False, init=(1.0, 2.0))


@pytest.mark.parametrize("bad", ["min", "MSE", ""])
def test_an_unknown_start(bad):
    for make in (recipes.pot_weight, recipes.post_weight):
        with pytest.raises(ValueError, match=f"'{bad}'"):
            make(4, start=bad)


def test_an_unknown_mode_and_grid():
    with pytest.raises(ValueError, match="'relu'"):
        recipes.asq_activation(4, 8, mode="relu")
    with pytest.raises(ValueError, match="'loose'"):
        recipes.post_weight(4, grid="loose")
    with pytest.raises(ValueError, match="257"):
        recipes.post_weight(8, grid="paper")


@pytest.mark.parametrize("bad", [0, -2])
def test_a_number_of_channels_that_is_not_positive(bad):
    for make in (
        lambda: recipes.lsq(4, channels=bad),
        lambda: recipes.lsq_plus(4, channels=bad),
        lambda: recipes.post_weight(4, channels=bad),
        lambda: recipes.asq_activation(4, bad),
        lambda: recipes.aquant_activation(4, channels=bad),
    ):
        with pytest.raises(ValueError, match=str(bad)):
            make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: recipes.lsq(4, channels=3),
        lambda: recipes.post_weight(4, channels=3),
        lambda: recipes.lsq_plus(4, channels=3, axis=0),
    ],
)
def test_another_number_of_channels_than_the_range_was_made_for(make):
    for rows in (5, 1):  # one row must not be spread over three channels
        q = make()
        before = {k: v.clone() for k, v in q.state_dict().items()}
        with pytest.raises(ValueError, match="3"):
            q.observe(torch.randn(rows, 4))
        assert not q.range.calibrated
        assert all(torch.equal(v, before[k]) for k, v in q.state_dict().items())
    with pytest.raises(ValueError, match="5"):
        make().observe(torch.randn(3, 4))(torch.randn(5, 4))


def test_asq_of_another_number_of_channels():
    q = recipes.asq_activation(4, 8, step=1.0)
    for x in (torch.rand(2, 7, 3, 3), torch.rand(8), torch.rand(())):
        with pytest.raises(ValueError, match=r"8.*\(" + ", ".join(map(str, x.shape))):
            q(x)


@pytest.mark.parametrize(
    "make",
    [
        lambda: recipes.lsq(4, channels=3, step=torch.ones(4)),
        lambda: recipes.lsq(4, step=torch.ones(2)),
        lambda: recipes.post_weight(4, channels=2, alpha=torch.ones(3)),
        lambda: recipes.lsq_plus(4, channels=3, step=1.0, offset=torch.zeros(2)),
    ],
)
def test_starting_values_of_the_wrong_shape(make):
    with pytest.raises(ValueError, match=r"shape|channels"):
        make()


@pytest.mark.parametrize("bits", [0, 9, -1])
@pytest.mark.parametrize(
    "make",
    [
        recipes.ste,
        recipes.lsq,
        recipes.lsq_plus,
        recipes.pact_activation,
        recipes.dorefa_weight,
        recipes.apot_weight,
        recipes.pot_weight,
        recipes.post_weight,
        recipes.daq_weight,
        recipes.daq_activation,
        recipes.adq_weight,
        recipes.n2uq_activation,
        recipes.aquant_activation,
        lambda bits: recipes.asq_activation(bits, 8),
        lambda bits: recipes.soft_argmax(bits, beta=1.0),
    ],
)
def test_bits_out_of_range(make, bits):
    with pytest.raises(ValueError, match=str(bits)):
        make(bits)


def test_a_learned_range_is_used_before_it_has_a_scale():
    for q in (recipes.lsq(4), recipes.daq_weight(2), recipes.post_weight(4), recipes.asq_activation(4, 8)):
        with pytest.raises(RuntimeError, match="observe"):
            q(torch.randn(2, 8))


def test_input_and_output_scale_start_at_one():
    r = InOutScale()
    assert r.calibrated
    assert (r.scale_in.item(), r.scale_out.item()) == (1.0, 1.0)
    assert isinstance(recipes.lsq_plus(4).range, LearnedAffine)


# --- several processes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "scaled"),
    [
        (lambda: LearnedStep(7.0, 0.3), True),
        (lambda: LearnedStep(7.0, 0.3, channels=3, axis=1), True),
        (lambda: LearnedAffine(7.0, 0.3, 0.1), True),
        (lambda: AdaptiveStep(7.0, 3, init=0.3), True),
        (lambda: LearnedClip(1.0, 0.9, normalize=True), True),
        (lambda: LearnedClip(1.0, 0.9), False),
    ],
)
def test_the_values_of_all_processes_count(make, scaled):
    torch.manual_seed(0)
    range = make()
    part = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(1))

    def gradients(x, replicas):
        range.replicas = replicas
        range.zero_grad()
        sum(t.mean() for t in range(x) if t is not None).backward()
        return {k: p.grad.clone() for k, p in range.named_parameters() if "adapter" not in k}

    assert range.replicas == 1
    whole, alone, shared = gradients(part.repeat(4, 1, 1), 1), gradients(part, 1), gradients(part, 4)
    assert whole.keys() & {"step", "clip"}
    for key, grad in whole.items():
        torch.testing.assert_close(shared[key], grad)
        torch.testing.assert_close(alone[key], 2 * grad if scaled else grad)


@pytest.mark.parametrize("value", [0.0, -1e-38, 1e-33])
def test_a_scale_at_its_lower_bound_can_return(value):
    # with a clamp in the forward pass alone its gradient would be zero for ever
    q = Quantizer(uniform(4), range=LearnedStep(7.0, 0.1))
    with torch.no_grad():
        q.range.step.fill_(value)
    q(torch.tensor([0.5, -0.3])).sum().backward()
    assert q.range.scale.item() == pytest.approx(1e-30)
    assert q.range.step.grad.item() != 0


@pytest.mark.parametrize("name", ["lsq", "pact_activation", "post_weight", "lsq_plus"])
def test_data_of_any_size_keep_their_levels(name):
    q = getattr(recipes, name)(4)
    x = torch.rand(500, generator=torch.Generator().manual_seed(0)) + 0.01
    few, many = q.observe(x * 1e-20)(x * 1e-20), q.observe(x)(x)
    assert len(few.unique()) == len(many.unique()) > 3
