"""AQuant's border as a function of the activation."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from qviz import Fixed, Quantizer, recipes, uniform
from qviz.methods.aquant import AdaptiveBorder
from qviz.methods.aquant_cells import CellwiseBorder
from tests import oracles
from tests.methods.checks import GRADIENT, VALUE, close, normal, run
from tests.nn.ptq import oracles as ptq


def aquant(bits: int, b, *, step: float = 0.25, **kwargs) -> Quantizer:
    """AQuant with coefficients b: three numbers, or three rows of one a channel."""
    q = recipes.aquant_activation(bits, step=step, **kwargs)
    with torch.no_grad():
        q.rounding.b.copy_(torch.as_tensor(b, dtype=torch.float32))
    return q.double()


KINDS = ("normal", "ties", "integers", "subnormal", "saturated", "constant", "zeros")


def inputs(kind: str, step: float, high: int) -> Tensor:
    k = torch.arange(60, dtype=torch.float64)
    u = {
        "normal": normal(60).abs() * high / 2 - 0.3,
        "ties": k % (high + 2) - 0.5,
        "integers": k % (high + 3) - 1,
        "subnormal": normal(60) * 1e-309,
        "saturated": normal(60) * 1e9,
        "constant": torch.full((60,), 0.7, dtype=torch.float64),
        "zeros": torch.where(k % 2 == 0, 0.0, -0.0).double(),
    }[kind]
    return u * step


@pytest.mark.parametrize("kind", KINDS)
def test_aquant(kind):
    for bits, b in itertools.product(
        [1, 2, 4], [(0.0, 0.0, 0.0), (0.4, -1.8, 1.35), (-2.0, 3.0, 0.5), (5.0, -4.0, 1.0)]
    ):
        q = aquant(bits, b)
        b = q.rounding.b.tolist()
        high = 2**bits - 1
        x = inputs(kind, 0.25, high)
        g = normal(60, 1)
        scale = 1 / math.sqrt(60 * high)
        want = oracles.aquant(x.numpy(), g.numpy(), 0.25, high, b, scale)
        y, dx, grads = run(q, x, g)
        close(y, want.y, VALUE)
        close(dx, want.dx, GRADIENT)
        size = float(g.abs().sum())
        close(grads["b"], want.grads["b"], GRADIENT, size / 10)
        close(grads["step"], want.grads["step"], GRADIENT, scale * high * size)
        u = torch.from_numpy(np.clip(x.numpy() / 0.25, 0, high))
        close(q.rounding.element(u, q.codebook).detach().numpy(), want.extra["border"], VALUE)


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_aquant_per_channel_and_degree(degree):
    g = torch.Generator().manual_seed(0)
    b = torch.rand(3, 5, generator=g) * 4 - 2
    q = aquant(3, b, channels=5, degree=degree)
    x = normal((4, 5, 3, 2)).abs()
    up = normal(x.shape, 2)
    b = q.rounding.b.detach().numpy()[: degree + 1]

    def one(part, g, c):
        return oracles.aquant(part, g, 0.25, 7, b[:, c].tolist(), 1 / math.sqrt(x.numel() * 7))

    parts = oracles.per_channel(x.numpy(), up.numpy(), 1, one)
    want = oracles.join(parts, 1)
    y, dx, grads = run(q, x, up)
    close(y, want.y, VALUE)
    close(dx, want.dx, GRADIENT)
    close(grads["b"][: degree + 1], want.grads["b"].T, GRADIENT)
    assert (grads["b"][degree + 1 :] == 0).all()
    close(grads["step"], want.grads["step"].sum(), GRADIENT)


def test_aquant_by_finite_differences_with_the_decisions_frozen():
    q = aquant(2, (0.4, -1.8, 1.35), step=0.3)
    x, g = normal(50).abs() * 0.6, normal(50, 1)
    y, _, grads = run(q, x, g)
    s, b = q.range.step.item(), np.array(q.rounding.b.tolist())
    u = np.clip(x.numpy() / s, 0, 3)
    free = x.numpy() / s == u

    def border(b, u=u):
        v = u / 3  # the border is not differentiated to x or to the step
        return 1 / (1 + np.exp(-(b[0] + b[1] * v + b[2] * v * v)))

    decided = y / s - u

    def loss(s, b):
        moved = (
            np.clip(x.numpy() / s, 0, 3)
            + decided
            - (border(b) - border(np.array(q.rounding.b.tolist()))) * free
        )
        return float((g.numpy() * s * moved).sum())

    close(grads["b"], oracles.numeric_gradient(lambda v: loss(s, v), b, 1e-4), 1e-7)
    step = oracles.numeric_gradient(lambda v: loss(float(v[0]), b), np.array([s]), 1e-6)[0]
    close(grads["step"], step / math.sqrt(50 * 3), 1e-7)


def test_the_fused_kernel_starts_as_the_identity_and_learns():
    b = torch.rand(3, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1
    plain, fused = aquant(3, b, channels=4), aquant(3, b, channels=4, fused=True)
    x, g = normal((2, 4, 5, 5)).abs(), normal((2, 4, 5, 5), 1)
    one, two = run(plain, x, g), run(fused, x, g)
    close(one[0], two[0], VALUE)
    close(one[2]["b"], two[2]["b"], GRADIENT)
    kernel = two[2]["kernel"]
    assert kernel.shape == (4, 1, 3, 3)

    # its gradient by hand: dL/dk = −Σ g s B (1 − B) z, z the neighbour's logit, in range
    u = np.clip(x.numpy() / 0.25, 0, 7)
    free = u == x.numpy() / 0.25
    v = u / 7
    bb = fused.rounding.b.detach().numpy()[:, None, :, None, None]
    z = bb[0] + bb[1] * v + bb[2] * v * v
    big = 1 / (1 + np.exp(-z))
    weight = -g.numpy() * 0.25 * big * (1 - big) * free
    padded = np.pad(z, ((0, 0), (0, 0), (1, 1), (1, 1)))
    want = [
        [(weight * padded[:, :, i : i + 5, j : j + 5]).sum((0, 2, 3)) for j in range(3)] for i in range(3)
    ]
    close(kernel[:, 0], np.moveaxis(np.array(want), 2, 0), GRADIENT)


@pytest.mark.parametrize("degree", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_coefficients_are_nearest_rounding(degree, dtype):
    q = recipes.aquant_activation(4, step=0.25, degree=degree)
    plain = recipes.lsq(4, signed=False, step=0.25)
    x = torch.cat([normal(500).to(dtype), torch.arange(-3, 40, dtype=dtype) / 8])
    assert torch.equal(q(x), plain(x))
    g = torch.ones_like(x)
    a, b = x.clone().requires_grad_(True), x.clone().requires_grad_(True)
    q(a).backward(g)
    plain(b).backward(g)
    assert torch.equal(a.grad, b.grad)
    torch.testing.assert_close(q.range.step.grad, plain.range.step.grad)


def test_equal_weights_keep_the_border_at_one_half():
    r = AdaptiveBorder(15)
    with torch.no_grad():
        r.b.fill_(3.0)
    r.analytic(1.0)
    assert r.b.tolist() == [0.0, 0.0, 0.0]


def test_worked_border():
    q = aquant(2, (0.4, -0.6 * 3, 0.15 * 9), step=1.0)
    u = torch.tensor([0.4, 0.55, 1.5, 2.5], dtype=torch.float64)
    border = q.rounding.element(u, q.codebook).detach().numpy()
    np.testing.assert_allclose(border, [0.545871, 0.528812, 0.459464, 0.459464], atol=1e-6)
    u = torch.tensor([0.4, 0.55, 1.45, 1.5, 2.45, 2.5], dtype=torch.float64)
    assert q.codes(u).tolist() == [0, 1, 1, 2, 2, 3]
    assert q(u).tolist() == [0, 1, 1, 2, 2, 3]
    for n, want in enumerate([0.530896, 1.460975, 2.457964]):
        at = torch.tensor([want - 2e-6, want + 2e-6], dtype=torch.float64)
        assert q.codes(at).tolist() == [n, n + 1]


def guarded(seed: int, bits: int) -> Quantizer:
    g = torch.Generator().manual_seed(seed)
    q = recipes.aquant_activation(bits, step=1.0)
    with torch.no_grad():
        q.rounding.b.copy_((torch.rand(3, generator=g) - 0.5) * 40)
    q.rounding.guard()
    return q.double()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_the_integer_is_floor_or_ceiling_and_rises_with_the_input(bits):
    for seed in range(5):
        q = guarded(seed, bits)
        top = 2**bits - 1
        u = torch.linspace(-1, top + 1, 20_001, dtype=torch.float64)
        code = q.codes(u).double()
        v = u.clamp(0, top)
        assert ((code == v.floor()) | (code == v.ceil())).all()
        assert (code.diff() >= 0).all()
        assert code.min() == 0
        assert code.max() == top


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_an_integer_stays_itself_however_high_the_border(bits):
    # f = 0 is above no border in [0, 1]; at 8 bits the analytic start reaches logits of 4 · 255 · (1 − ρ)
    for b0, dtype in itertools.product(
        [-200.0, -20.0, -3.0, 3.0, 12.0, 20.0, 200.0], [torch.float32, torch.float64]
    ):
        q = recipes.aquant_activation(bits, step=1.0)
        with torch.no_grad():
            q.rounding.b[0] = b0
        top = 2**bits - 1
        u = torch.cat([torch.arange(top + 1), torch.tensor([top + 0.5, top + 100])]).to(dtype)
        want = u.clamp(max=top)
        assert torch.equal(q(u), want)
        assert torch.equal(q.reference(u), want)
        assert torch.equal(q.codes(u).to(dtype), want)


@pytest.mark.parametrize("rho", [0.8, 0.9, 1.1, 1.2])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_analytic_start_keeps_integers(rho, bits):
    q = recipes.aquant_activation(bits, step=1.0)
    q.rounding.analytic(rho)
    u = torch.arange(2.0**bits)
    assert torch.equal(q(u), u)


def test_the_analytic_start_approximates_one_half_plus_the_ratio():
    q = recipes.aquant_activation(2, step=1.0)
    q.rounding.analytic(0.98)
    u = torch.linspace(0, 3, 50)
    border = q.rounding.element(u, q.codebook).detach()
    torch.testing.assert_close(border, 0.5 + 0.02 * u, rtol=0, atol=4e-4)
    q.rounding.analytic(0.98, zero_point=2.0)
    assert q.rounding.b.tolist() == pytest.approx([-4 * 2 * 0.02, 4 * 3 * 0.02, 0], rel=1e-5)
    border = q.rounding.element(u, q.codebook).detach()
    torch.testing.assert_close(border, 0.5 + 0.02 * (u - 2), rtol=0, atol=4e-4)
    r = AdaptiveBorder(3, channels=2).analytic(torch.tensor([0.9, 1.1]))
    torch.testing.assert_close(r.b.data, torch.tensor([[0.0, 0.0], [1.2, -1.2], [0.0, 0.0]]))


def test_a_higher_border_never_raises_the_integer():
    u = torch.linspace(0, 15, 5001, dtype=torch.float64)
    before = None
    for b0 in (-4.0, -1.0, 0.0, 0.5, 2.0, 6.0):
        code = aquant(4, (b0, 1.0, -0.5), step=1.0).codes(u).double()
        if before is not None:
            assert (code <= before).all()
        before = code


@pytest.mark.parametrize("fast", [True, False])
def test_the_gradient_of_the_constant_coefficient(fast):
    x = torch.tensor([0.1, 0.4, 0.7, -0.2, 9.0], dtype=torch.float64)
    q = aquant(2, (0.0, 0.0, 0.0), step=0.25)
    for i, inside in enumerate([True, True, True, False, False]):
        q.zero_grad()
        (q if fast else q.reference)(x[i : i + 1]).sum().backward()
        assert q.rounding.b.grad[0].item() == pytest.approx(-0.25 * 0.25 if inside else 0.0, abs=1e-12)
    q = aquant(2, (1.3, 0.0, 0.0), step=0.25)
    q(x[1:2]).sum().backward()
    b = oracles.sigmoid(q.rounding.b[0].item())
    assert q.rounding.b.grad[0].item() == pytest.approx(-0.25 * b * (1 - b), rel=1e-9)


def test_a_border_goes_through_three_points_unless_it_would_be_too_steep():
    v = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    for channels in (None, 2):
        r = AdaptiveBorder(7, channels=channels).through(0.2, 0.6, 0.35)
        heights = torch.sigmoid(r.double().logits(v if channels is None else v.expand(1, 2, -1)))
        assert heights.reshape(-1, 3)[-1].tolist() == pytest.approx([0.2, 0.6, 0.35], abs=1e-6)
    steep = AdaptiveBorder(1).through(0.02, 0.98, 0.02)
    assert steep.b[1].abs() < 4.0
    with pytest.raises(ValueError, match=r"1\.0"):
        AdaptiveBorder(3).through(0.5, 0.5, 1.0)


def test_the_guard_shrinks_only_what_is_too_steep():
    r = AdaptiveBorder(3)
    with torch.no_grad():
        r.b.copy_(torch.tensor([0.3, 2.0, -1.0]))
    r.guard()
    torch.testing.assert_close(r.b.data, torch.tensor([0.3, 2.0, -1.0]))
    with torch.no_grad():
        r.b.copy_(torch.tensor([0.3, 30.0, 20.0]))
    r.guard()
    v = torch.linspace(0, 1, 101)
    assert (r.b[1] + 2 * r.b[2] * v).abs().max() < 12
    assert r.b[0].item() == pytest.approx(0.3)
    assert (r.b[2] / r.b[1]).item() == pytest.approx(20 / 30)


@pytest.mark.parametrize("bad", [-1, 3, 1.5, None])
def test_an_unknown_degree(bad):
    with pytest.raises(ValueError, match=str(bad)):
        recipes.aquant_activation(4, degree=bad)


def test_fusion_without_channels():
    with pytest.raises(ValueError, match="channels"):
        recipes.aquant_activation(4, fused=True)


def test_another_number_of_channels():
    q = recipes.aquant_activation(4, channels=3, step=1.0)
    with pytest.raises(ValueError, match="3"):
        q(torch.rand(2, 5, 4, 4))
    with pytest.raises(ValueError, match="3"):
        q(torch.rand(2, 1, 4, 4))  # must not be spread over three
    with pytest.raises(ValueError):
        q(torch.rand(()))


def test_aquants_border_gets_no_gradient_from_values_on_the_ends():
    q = recipes.aquant_activation(2, step=1.0)
    q(torch.tensor([0.0] * 90 + [1.5] * 10 + [3.0] * 50)).sum().backward()
    assert q.rounding.b.grad[0].item() == pytest.approx(-2.5)


@pytest.mark.parametrize("window", [math.inf, 0.15])
@pytest.mark.parametrize("path", ["forward", "reference"])
def test_the_borders_gradient_comes_from_inside_its_window(window, path):
    b = (0.4, -1.8, 1.35)
    q = aquant(2, b, window=window)
    x = torch.cat([torch.zeros(20).double(), normal(400).abs() * 0.5])  # many exact zeros, as after a ReLU
    g = normal(420, 1)
    getattr(q, path)(x).backward(g)
    b = q.rounding.b.tolist()
    want = ptq.border_gradient(x.numpy(), g.numpy(), 0.25, 3, b, within=window)
    close(q.rounding.b.grad.numpy(), want, GRADIENT, 10)
    whole = ptq.border_gradient(x.numpy(), g.numpy(), 0.25, 3, b)
    assert np.allclose(want, whole) == (window == math.inf)


@pytest.mark.parametrize("channels", [None, 4])
def test_a_border_for_each_cell(channels):
    book = uniform(2, signed=False)
    rounding = CellwiseBorder(3, channels=channels)
    q = Quantizer(book, rounding, range=Fixed(0.5))
    x = normal((40, 4)) * 0.8 + 0.6
    x[:3] = torch.tensor([[0.0, 0.5, 1.0, 1.5]]).double()  # levels stay
    assert torch.equal(q(x), Quantizer(book, range=Fixed(0.5))(x))  # zeros: to nearest
    with torch.no_grad():
        rounding.b.copy_(normal(rounding.b.shape, 1) * 2)
    q.double()
    border = torch.sigmoid(rounding.b.detach()).double()
    u = (x / 0.5).clamp(0, 3)
    cell = u.floor().clamp(0, 2).long()
    own = border[cell] if channels is None else border[cell, torch.arange(4).expand(40, 4)]
    want = 0.5 * (cell + (u - cell > own)).double()
    torch.testing.assert_close(q(x).detach(), want, rtol=0, atol=0)
    g = normal((40, 4), 2)
    q(x).backward(g)
    pulled = -0.5 * g * own * (1 - own) * ((u > 0) & (u < 3))
    found = (
        torch.zeros(3, 4).double().index_put_((cell, torch.arange(4).expand(40, 4)), pulled, accumulate=True)
    )
    torch.testing.assert_close(rounding.b.grad.double(), found.sum(1) if channels is None else found)
    codes = q.codes(x)
    q.rounding = rounding.freeze(book)
    assert torch.equal(q.codes(x), codes)


@torch.no_grad()
def test_without_a_gradient_borders_by_channel_give_the_composition_bit_for_bit():
    torch.manual_seed(0)
    q = recipes.aquant_activation(3, channels=4, step=0.3)
    q.rounding.b.normal_()
    q.rounding.guard()
    q.rounding = q.rounding.freeze(q.codebook)
    x = torch.randn(5, 4, 6, 6)
    x[0, 0, 0, :3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    for given in (x, x.contiguous(memory_format=torch.channels_last), x.half(), x.double()):
        torch.testing.assert_close(q(given), q.reference(given), rtol=0, atol=0, equal_nan=True)
