"""ASQ's adaptive step and the POT and POST weights against slow loops written from the paper."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from qviz import recipes
from qviz.methods.asq import AdaptiveStep
from tests import oracles
from tests.methods.checks import GRADIENT, KINDS, VALUE, close, normal, numbers, run

# --- POT and POST ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "ties"])
def test_pot_and_post(kind):
    for (bits, grid), family in itertools.product(
        [(2, "strict"), (3, "strict"), (4, "strict"), (4, "paper")], ["pot", "post"]
    ):
        alpha = 0.75
        q = getattr(recipes, f"{family}_weight")(bits, grid=grid, alpha=alpha).double()
        w = numbers(kind, alpha, -1, 1)
        g = normal(w.shape, 1)
        levels = oracles.power_levels(bits, {"pot": 2.0, "post": math.sqrt(2)}[family], grid)
        scale = 1 / math.sqrt(w.numel())
        want = oracles.project(w.numpy(), g.numpy(), alpha, levels, scale)
        y, dw, grads = run(q, w, g)
        close(y, want.y, VALUE)
        close(dw, want.dx, GRADIENT)
        close(grads["clip"], want.grads["alpha"], GRADIENT, scale * float(g.abs().sum()))


@pytest.mark.parametrize("axis", [0, 1])
def test_post_per_channel(axis):
    w = normal((4, 4, 3), 1)
    alpha = torch.tensor([0.5, 1.1, 2.0, 0.9])
    q = recipes.post_weight(4, channels=4, axis=axis, alpha=alpha).double()
    g = normal(w.shape, 2)
    levels = oracles.power_levels(4, math.sqrt(2), "strict")

    def one(part, up, c):
        return oracles.project(part, up, float(alpha[c].double()), levels, 1 / math.sqrt(12))

    want = oracles.join(oracles.per_channel(w.numpy(), g.numpy(), axis, one), axis)
    y, dw, grads = run(q, w, g)
    close(y, want.y, VALUE)
    close(dw, want.dx, GRADIENT)
    close(grads["clip"], want.grads["alpha"], GRADIENT)


def test_a_tie_of_pot_goes_down():
    q = recipes.pot_weight(3, alpha=1.0)
    w = torch.tensor([-0.75, -0.375, -0.125, 0.125, 0.375, 0.75])
    assert q(w).tolist() == [-1.0, -0.5, -0.25, 0.0, 0.25, 0.5]


def test_the_quantile_start_is_the_99th_percentile_of_each_channel():
    w = normal((5, 200), 1).float()
    q = recipes.post_weight(4, channels=5, start="quantile").observe(w)
    want = np.quantile(w.abs().double().numpy(), 0.99, axis=1)
    np.testing.assert_allclose(q.range.clip.detach().numpy(), want, rtol=1e-5)
    whole = recipes.pot_weight(4, start="quantile").observe(w)
    assert whole.range.clip.item() == pytest.approx(np.quantile(w.abs().double().numpy(), 0.99), rel=1e-5)


def test_the_search_start_has_no_larger_error_than_any_clip():
    w = normal((3, 500), 1).float()
    q = recipes.post_weight(3, channels=3).observe(w)
    levels = oracles.power_levels(3, math.sqrt(2), "strict")
    for c in range(3):
        row = w[c].double().numpy()

        def error(alpha, row=row):
            return float(np.mean((oracles.project(row, row, alpha, levels).y - row) ** 2))

        best = min(error(a) for a in np.linspace(0.2, 4.0, 200))
        assert error(q.range.clip[c].item()) <= 1.01 * best


def test_worked_post_projection():
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
    w = normal((500,), 1) * 0.8
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
    w = normal((500,), 1)
    a, b = recipes.pot_weight(2, alpha=1.0).double(), recipes.post_weight(2, alpha=1.0).double()
    assert a.codebook.levels.tolist() == b.codebook.levels.tolist() == [-1.0, 0.0, 1.0]
    assert torch.equal(a(w), b(w))
    assert torch.equal(a(w), oracle_ternary(w))


def oracle_ternary(w: Tensor) -> Tensor:
    return torch.from_numpy(oracles.lsq(w.numpy(), w.numpy(), 1.0, -1, 1, 1.0).y)


# --- ASQ ---------------------------------------------------------------------------------------------------


def adapter_of(r: AdaptiveStep) -> oracles.Adapter:
    layers = [m for m in r.adapter if hasattr(m, "weight")]
    return oracles.Adapter(
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
    g = normal(x.shape, 1)
    scale = 1 / math.sqrt(3 * x.numel())
    want = oracles.asq(x.numpy(), g.numpy(), 0.25, np.full(4, 2.0), 0, 3, scale)
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
    g = normal(x.shape, 1)
    net = adapter_of(q.range)
    step, beta = q.range.step.item(), net.beta(x.numpy())
    scale = 1 / math.sqrt(7 * x.numel())
    want = oracles.asq(x.numpy(), g.numpy(), step, beta, 0, 7, scale)
    y, dx, grads = run(q, x, g)
    close(y, want.y, VALUE)
    close(grads["step"], want.grads["step"], GRADIENT)

    # β's gradient reaches the adapter and x: differentiate the composition with the decisions frozen
    sa = step * beta.reshape((-1,) + (1,) * (ndim - 1))
    v = np.clip(x.numpy() / sa, 0, 7)
    decided = np.round(want.y / sa) - v

    def loss(at, net):
        return float((g.numpy() * oracles.asq_frozen(at, step, net, decided, 0, 7)).sum())

    close(dx, oracles.numeric_gradient(lambda a: loss(a, net), x.numpy(), 1e-5), 1e-7)
    direct = want.dx
    assert np.abs(dx - direct).max() > 1e-6  # the path through β is there
    names = [k for k in grads if k.startswith("adapter")]
    assert len(names) == 2 * len(net.layers)
    for depth, key in enumerate(sorted({k.rsplit(".", 1)[0] for k in names})):
        for part, name in enumerate(("weight", "bias")):

            def moved(value, depth=depth, part=part):
                layers = [list(pair) for pair in net.layers]
                layers[depth][part] = value
                return loss(x.numpy(), oracles.Adapter([tuple(p) for p in layers], net.last))

            numeric = oracles.numeric_gradient(moved, net.layers[depth][part], 1e-5)
            close(grads[f"{key}.{name}"], numeric, 1e-7)


def test_the_step_gradient_is_scaled_and_betas_is_not():
    q = asq(3, "paper")
    x = images(3, 4)
    g = normal(x.shape, 1)
    want = oracles.asq(
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
    assert slopes["softplus"] == pytest.approx(oracles.sigmoid(-3.0), rel=1e-5)
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


def test_worked_asq():
    q = recipes.asq_activation(3, 4, step=0.25).double()
    with torch.no_grad():
        q.range.adapter[-1].weight.zero_()
        q.range.adapter[-1].bias.fill_(1.2)
    x = torch.tensor([[-0.2, 0.3, 0.9, 3.0]], dtype=torch.float64)
    want = oracles.asq(x.numpy(), np.ones((1, 4)), 0.25, np.array([1.2]), 0, 7, 1.0)
    np.testing.assert_allclose(want.y[0], [0, 0.3, 0.9, 2.1], rtol=1e-12)
    assert want.grads["step"] == pytest.approx(8.4)
    assert want.extra["beta"][0] == pytest.approx(1.75)
    y, dx, grads = run(q, x, torch.ones_like(x))
    np.testing.assert_allclose(y[0], [0, 0.3, 0.9, 2.1], rtol=1e-12)
    assert dx[0].tolist() == [0, 1, 1, 0]
    assert grads["step"] == pytest.approx(1.587451, abs=1e-6)
    assert grads["adapter.0.bias"][0] == pytest.approx(1.75, rel=1e-9)


# --- bad input ---------------------------------------------------------------------------------------------


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


def test_asq_of_another_number_of_channels():
    q = recipes.asq_activation(4, 8, step=1.0)
    for x in (torch.rand(2, 7, 3, 3), torch.rand(8), torch.rand(())):
        with pytest.raises(ValueError, match=r"8.*\(" + ", ".join(map(str, x.shape))):
            q(x)
