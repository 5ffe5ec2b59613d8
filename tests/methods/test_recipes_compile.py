"""Every recipe under torch.compile(fullgraph=True): the same values, the same gradients."""

import math

import pytest
import torch

from tests.methods.cases import CASES, gradients, ready, sample
from tests.slow import slow

QUICK = {"lsq"}


@pytest.fixture(autouse=True)
def one_recipe_at_a_time():
    """Dynamo allows eight variants of one code object; every recipe is one."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("name", [*QUICK, *slow(*sorted(set(CASES) - QUICK))])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_compiled_is_eager(name):
    case, q = CASES[name], ready(name)
    compiled = torch.compile(q, fullgraph=True)
    x = sample(case.kind, seed=0 if case.fixed else 1)
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))

    one, two = x.clone().requires_grad_(True), x.clone().requires_grad_(True)
    y, z = compiled.train()(one), q.train()(two)
    exact = not case.soft and not case.mixes
    if exact:
        assert torch.equal(y, z)
    else:
        torch.testing.assert_close(y, z, rtol=1e-5, atol=1e-5)
    got, want = gradients(y, q, one, g), gradients(z, q, two, g)
    assert got.keys() == want.keys()
    for key in got:
        scale = float(want[key].abs().max())
        torch.testing.assert_close(
            got[key], want[key], rtol=1e-4, atol=1e-4 * scale, msg=lambda m, k=key: f"{k}: {m}"
        )

    q.eval()
    if hard := not (case.soft or case.fixed or case.adapts):
        x = with_extremes(case, q, x)
    with torch.no_grad():
        y, z = compiled(x), q(x)
    if exact or hard:
        assert torch.equal(y.isnan(), z.isnan())
        assert torch.equal(y.nan_to_num(), z.nan_to_num())
    else:
        torch.testing.assert_close(y, z, rtol=1e-5, atol=1e-5)


def with_extremes(case, q, x):
    """Return the input with NaN, the infinities and the quantizer's own borders among its numbers."""
    x = x.clone()
    if not case.largest and not case.mixes:
        x.view(-1)[:3] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    if q.range.scale.ndim == 0 and not case.blind:
        borders = q.rounding.borders(q.codebook)
        if borders is not None:
            at = borders[:50].to(x) * q.range.scale.to(x)
            at = at if q.range.offset is None else at + q.range.offset.to(x)
            x.view(-1)[10 : 10 + len(at)] = at
    return x


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_moving_codebook_is_compiled_once():
    q = ready("adq_weight")
    compiled = torch.compile(q, fullgraph=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for seed in range(3):
            w = sample("weight", seed=seed)
            q.train().observe(w)
            with torch.no_grad():
                assert torch.equal(compiled(w), q(w))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_channels_last_compiles_without_a_break():
    q = ready("n2uq_activation")
    x = sample("relu", seed=1).to(memory_format=torch.channels_last)
    one, two = x.clone().requires_grad_(True), x.clone().requires_grad_(True)
    torch.compile(q, fullgraph=True)(one).square().sum().backward()
    q(two).square().sum().backward()
    torch.testing.assert_close(one.grad, two.grad)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_large_input_of_a_convolution_is_summed_whole():
    """By channel first, so that the sums join a BatchNorm's loops."""
    q = ready("lsq-unsigned")
    shape = (40, 8, 33, 33)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x = x.relu().contiguous(memory_format=torch.channels_last)
    one, two = x.clone().requires_grad_(True), x.clone().requires_grad_(True)
    y, z = torch.compile(q, fullgraph=True)(one), q(two)
    assert torch.equal(y, z)
    got, want = gradients(y, q, one, x.cos()), gradients(z, q, two, x.cos())
    assert torch.equal(got["x"], want["x"])
    # a small difference of two large sums, each of float32 numbers: measured against their size
    exact, wide = ready("lsq-unsigned", torch.float64), x.double().requires_grad_(True)
    truth = gradients(exact(wide), exact, wide, x.double().cos())["range.step"].item()
    size = float((x.cos() * z.detach() / q.range.scale).abs().sum()) / math.sqrt(x.numel() * 7)
    for found in (got, want):
        assert found["range.step"].item() == pytest.approx(truth, rel=0, abs=1e-6 * size)
