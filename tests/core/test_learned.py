"""Learned ranges in general: clips and steps of any recipe, what they refuse, several processes."""

import math

import numpy as np
import pytest
import torch

from qviz import Quantizer, recipes, uniform
from qviz.core.learned import LearnedClip, scale_gradient
from qviz.methods.asq import AdaptiveStep
from qviz.methods.lsq import LearnedStep
from qviz.methods.lsq_plus import LearnedAffine
from tests.methods.checks import close, difference, normal, run


def test_scale_gradient_keeps_every_bit():
    p = torch.randn(1000, requires_grad=True)
    y = scale_gradient(p, 0.3)
    assert torch.equal(y, p)
    y.sum().backward()
    torch.testing.assert_close(p.grad, torch.full_like(p, 0.3))


def test_clips_by_finite_differences():
    x = normal((80,), 1) * 1.3
    g = normal(x.shape, 2)
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
def test_a_step_or_clip_that_is_not_positive_and_finite(make):
    for bad in [0.0, -1.0, math.nan, math.inf]:
        with pytest.raises(ValueError, match=str(bad) if not math.isnan(bad) else "nan"):
            make(bad)


@pytest.mark.parametrize("make", [lambda v: LearnedStep(v), lambda v: LearnedClip(v, 1.0)])
def test_an_outermost_knot_that_is_not_positive(make):
    for bad in [0.0, -1.0, math.nan]:
        with pytest.raises(ValueError, match=str(bad)):
            make(bad)


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
def test_bits_out_of_range(make):
    for bits in [0, 9, -1]:
        with pytest.raises(ValueError, match=str(bits)):
            make(bits)


def test_a_learned_range_is_used_before_it_has_a_scale():
    for q in (recipes.lsq(4), recipes.daq_weight(2), recipes.post_weight(4), recipes.asq_activation(4, 8)):
        with pytest.raises(RuntimeError, match="observe"):
            q(torch.randn(2, 8))


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
