import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from qviz.nn.hutchinson import hutchinson, traces


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def to_step(b):
    return lambda w: (w * 2**b).round() / 2**b


class Quadratic(nn.Module):
    """Two layers of 3 and 2 weights, of which a loss takes 1/2 wᵀ A w."""

    def __init__(self):
        super().__init__()
        self.a, self.b = (nn.Linear(n, 1, bias=False).double() for n in (3, 2))

    def forward(self, matrix):
        w = torch.cat([self.a.weight.flatten(), self.b.weight.flatten()])
        return w @ matrix @ w / 2


def value(model, batch):
    return model(batch)


def test_a_diagonal_hessian_is_found_by_one_probe():
    model, signs = Quadratic(), torch.tensor([1.0, -1.0, 4.0, 2.0, 3.0], dtype=torch.float64)
    batches = [torch.diag(signs), 3.0 * torch.diag(signs)]
    for seed in range(3):
        found = traces(model, ["b", "a"], batches, value, generator=seeded(seed))
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, torch.tensor([10.0, 8.0], dtype=torch.float64))


@pytest.mark.slow
def test_the_estimate_has_the_mean_and_the_variance_that_are_documented():
    g = seeded(1)
    half = torch.randn(5, 5, generator=g, dtype=torch.float64)
    hessian = half + half.T
    draws = torch.stack([traces(Quadratic(), ["a", "b"], [hessian], value, generator=g) for _ in range(600)])
    off = hessian.square() - torch.diag(hessian.diagonal().square())
    variance = torch.stack([2 * off[:3, :3].sum(), 2 * off[3:, 3:].sum()])
    expected = torch.stack([hessian.diagonal()[:3].sum(), hessian.diagonal()[3:].sum()])
    assert ((draws.mean(0) - expected).abs() < 4 * (variance / 600).sqrt()).all()
    torch.testing.assert_close(draws.var(0), variance, rtol=0.2, atol=0.0)


def test_the_sensitivity_is_that_of_the_formula_with_the_hessian_of_torch():
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Tanh(), nn.Linear(4, 2, bias=False)).double()
    x, y = torch.randn(8, 3, dtype=torch.float64), torch.randint(2, (8,))

    def loss(net, batch):
        return functional.cross_entropy(net(batch[0]), batch[1])

    def of_weights(first, second):
        return functional.cross_entropy((x @ first.T).tanh() @ second.T, y)

    weights = [model[i].weight.detach() for i in (0, 2)]
    blocks = torch.autograd.functional.hessian(of_weights, tuple(weights))
    exact = [float(blocks[i][i].reshape(w.numel(), w.numel()).trace()) for i, w in enumerate(weights)]
    omega = hutchinson(model, ["0", "2"], [(x, y)], loss, to_step, (1, 2), probes=1000, generator=seeded(3))
    for row, trace, w in zip(omega.tolist(), exact, weights, strict=True):
        errors = [float((w - to_step(b)(w)).square().sum()) for b in (1, 2)]
        assert row == pytest.approx([trace / w.numel() * e / 2 for e in errors], rel=0.05)


def test_a_loss_that_curves_downwards_has_a_negative_trace_and_no_sensitivity():
    batches = [-torch.eye(5, dtype=torch.float64)]
    assert traces(Quadratic(), ["a"], batches, value).tolist() == [-3.0]
    assert hutchinson(Quadratic(), ["a"], batches, value, to_step, (1,)).tolist() == [[0.0]]


def test_a_loss_without_curvature_has_no_trace():
    linear = nn.Linear(3, 1)
    assert traces(linear, [""], [torch.ones(2, 3)], lambda m, x: m(x).sum()).tolist() == [0.0]


class Attention(nn.Module):
    def __init__(self, plain):
        super().__init__()
        self.plain, self.read = plain, nn.Linear(4, 12, bias=False)
        nn.init.normal_(self.read.weight, generator=seeded(4))

    def forward(self, x):
        q, k, v = self.read(x).unsqueeze(1).chunk(3, -1)  # of one head: without that axis torch fuses nothing
        if self.plain:
            return (q @ k.transpose(-1, -2) / math.sqrt(4)).softmax(-1) @ v
        return functional.scaled_dot_product_attention(q, k, v)


def test_attention_has_a_second_derivative():
    x = torch.randn(2, 5, 4, generator=seeded(5))
    fused, plain = (
        traces(Attention(p), ["read"], [x], lambda m, b: m(b).square().sum(), generator=seeded())
        for p in (False, True)
    )
    torch.testing.assert_close(fused, plain, rtol=1e-4, atol=0.0)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return 2 * ctx.saved_tensors[0] * g


def test_what_has_no_second_derivative_is_named():
    """A function that torch differentiates once would be left out of the product without a word."""
    linear, bag = nn.Linear(3, 2), nn.EmbeddingBag(4, 3)
    with pytest.raises(ValueError, match="no second derivative") as refused:
        traces(linear, [""], [torch.ones(2, 3)], lambda m, x: Once.apply(m(x)).square().sum())
    assert "once_differentiable" in str(refused.value)
    with pytest.raises(ValueError, match="no second derivative") as refused:
        traces(bag, [""], [torch.tensor([[1, 2]])], lambda m, x: m(x).square().sum())
    assert "embedding_bag" in str(refused.value)


@pytest.mark.parametrize("probes", [0, True, 1.5])
def test_probes_are_counted_from_one(probes):
    with pytest.raises(ValueError, match=f"1 or more, got {probes}"):
        traces(Quadratic(), ["a"], [torch.eye(5).double()], value, probes=probes)
