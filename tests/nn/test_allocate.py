import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from qviz import MSE, Quantizer, recipes, uniform
from qviz.nn.allocate import Allocation, exact, fisher, greedy, hutchinson, loss_rise
from tests.nn import oracles

BITS = (2, 3, 4)
# ADQ, worked case: sizes, budget, Ω by layer and candidate.
SIZES, BUDGET = (100, 400, 400, 100), 2.8
OMEGA = [[8, 2, 0.5], [4, 1, 0.25], [2, 0.5, 0.125], [1, 0.25, 0.0625]]


# Solvers


@pytest.mark.parametrize("solve", [greedy, exact])
def test_the_worked_case(solve):
    found = solve(OMEGA, SIZES, BUDGET)
    assert found.bits == (4, 3, 2, 4)
    assert found.total == 3.5625
    assert found.average == 2.8
    assert found.unweighted == 3.25
    assert found.slack == 0
    assert oracles.best_allocation(OMEGA, SIZES, Fraction(14, 5), BITS) == (Fraction(57, 16), 2800)


@st.composite
def problems(draw, *, falling=False):
    candidates = draw(st.sampled_from([(2, 3, 4), (2, 4, 8), (1, 2, 3, 5), (3,), (2, 8)]))
    count = draw(st.integers(1, 5))
    numbers = st.one_of(st.integers(0, 20).map(float), st.floats(0, 1e3, allow_subnormal=False))
    row = st.lists(numbers, min_size=len(candidates), max_size=len(candidates), unique=falling)
    omega = draw(st.lists(row, min_size=count, max_size=count))
    if falling:
        omega = [sorted(r, reverse=True) for r in omega]
    sizes = draw(st.lists(st.integers(1, 30), min_size=count, max_size=count))
    tenths = draw(st.integers(10 * candidates[0], 10 * candidates[-1] + 5))
    return omega, sizes, Fraction(tenths, 10), candidates


def consistent(found, omega, sizes, budget, candidates):
    """The fields say of the bits what their documentation says, and the budget holds."""
    spent = sum(n * b for n, b in zip(sizes, found.bits, strict=True))
    assert set(found.bits) <= set(candidates)
    assert spent <= budget * sum(sizes)
    assert found.average == spent / sum(sizes)
    assert found.unweighted == sum(found.bits) / len(sizes)
    picked = sum(r[candidates.index(b)] for r, b in zip(omega, found.bits, strict=True))
    assert found.total == pytest.approx(picked, rel=1e-12)
    assert found.slack == math.floor(budget * sum(sizes)) - spent


@given(problems())
def test_the_exact_solver_finds_what_exhaustive_search_finds(problem):
    omega, sizes, budget, candidates = problem
    found = exact(omega, sizes, float(budget), candidates)
    consistent(found, omega, sizes, budget, candidates)
    total, cost = oracles.best_allocation(omega, sizes, budget, candidates)
    assert found.total == pytest.approx(float(total), rel=1e-12, abs=1e-12)
    if all(float(v).is_integer() for row in omega for v in row):  # sums are exact: so are comparisons
        assert found.average == cost / sum(sizes)
    assert found.proven


@given(problems())
def test_greedy_keeps_the_budget_and_is_optimal_where_it_says_so(problem):
    omega, sizes, budget, candidates = problem
    found = greedy(omega, sizes, float(budget), candidates)
    consistent(found, omega, sizes, budget, candidates)
    best = float(oracles.best_allocation(omega, sizes, budget, candidates)[0])
    assert found.total >= best - 1e-9 * (1 + best)
    if found.proven:
        assert found.total == pytest.approx(best, rel=1e-9, abs=1e-9)


@given(problems(falling=True), st.integers(1, 30))
def test_more_budget_never_raises_the_exact_total(problem, tenths):
    omega, sizes, budget, candidates = problem
    more = exact(omega, sizes, float(budget + Fraction(tenths, 10)), candidates)
    assert more.total <= exact(omega, sizes, float(budget), candidates).total


@pytest.mark.parametrize("solve", [greedy, exact])
@settings(max_examples=30)
@given(problems(falling=True))
def test_the_ends_of_the_budget(solve, problem):
    omega, sizes, _, candidates = problem
    least = solve(omega, sizes, candidates[0], candidates)
    assert least.bits == (candidates[0],) * len(sizes)
    most = solve(omega, sizes, candidates[-1], candidates)
    assert most.bits == (candidates[-1],) * len(sizes)
    assert (least.slack, most.slack) == (0, 0)
    assert least.proven
    assert most.proven
    assert solve(omega, sizes, candidates[-1] + 1, candidates).slack == sum(sizes)


@pytest.mark.parametrize("solve", [greedy, exact])
def test_bits_that_gain_nothing_are_not_spent(solve):
    assert solve([[1, 1, 1], [3, 0, 0], [5, 6, 7]], [10, 10, 10], 4.0).bits == (2, 3, 2)


@pytest.mark.parametrize("solve", [greedy, exact])
def test_the_budget_is_the_decimal_number_that_was_written(solve):
    """2.3 × 10 is 23; in binary 2.3 is a little less, and 22.99… would lose the last bit."""
    assert float(Fraction(2.3) * 10 - 20) < 3.0
    assert solve([[1, 0, 0]] * 3 + [[0, 0, 0]], [1, 1, 1, 7], 2.3).bits == (3, 3, 3, 2)


def test_greedy_leaves_slack_that_the_exact_solver_uses():
    omega = [[11, 8, 0], [12, 7, 3]]
    left, best = greedy(omega, [4, 2], 3.5), exact(omega, [4, 2], 3.5)
    assert (left.bits, left.slack, left.total, left.proven) == ((2, 4), 5, 14.0, False)
    assert (best.bits, best.slack, best.total, best.proven) == ((3, 4), 1, 11.0, True)


def test_greedy_climbs_equal_steps_one_by_one():
    """On a straight hull the middle candidate is a stop: half the budget reaches it."""
    assert greedy([[4, 2, 0]], [10], 3.0).bits == (3,)
    assert greedy([[4, 2, 0], [4, 2, 0]], [10, 10], 2.5).bits == (3, 2)


def test_a_network_of_fifty_layers_is_solved_exactly():
    g = np.random.default_rng(0)
    sizes = g.integers(1_000, 2_400_000, 50)
    omega = g.lognormal(0, 2, (50, 1)) * 4.0 ** -np.arange(3) * g.uniform(0.8, 1.2, (50, 3))
    best, near = exact(omega, sizes, 2.8), greedy(omega, sizes, 2.8)
    assert best.average <= 2.8
    assert near.average <= 2.8
    assert best.total <= near.total <= 1.05 * best.total
    assert dataclasses.is_dataclass(Allocation)


@pytest.mark.parametrize("solve", [greedy, exact])
@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((OMEGA, SIZES, 1.9), "average of 1.9 bits: the least is 2"),
        ((OMEGA, SIZES, math.nan), "average of nan bits"),
        ((OMEGA, SIZES, math.inf), "average of inf bits"),
        ((OMEGA, SIZES[:3], 2.8), r"\(3, 3\) .* got \(4, 3\)"),
        ((OMEGA, SIZES, 2.8, (2, 3)), r"\(4, 2\) .* got \(4, 3\)"),
        (([], [], 2.8), "one layer at least"),
        (([[1.0, -0.5, 0.0]], [3], 2.8), "not negative, got -0.5"),
        (([[1.0, math.nan, 0.0]], [3], 2.8), "finite .* got nan"),
        (([[1.0, 0.5, 0.0]], [0], 2.8), r"positive whole numbers, got \[0\]"),
        (([[1.0, 0.5, 0.0]], [2.5], 2.8), "positive whole numbers"),
        ((OMEGA, SIZES, 2.8, (2, 4, 3)), r"increase, got \(2, 4, 3\)"),
        ((OMEGA, SIZES, 2.8, (2, 2, 3)), r"increase, got \(2, 2, 3\)"),
        ((OMEGA, SIZES, 2.8, ()), r"increase, got \(\)"),
        ((OMEGA, SIZES, 2.8, (0, 2, 3)), "between 1 and 32, got 0"),
    ],
)
def test_bad_problems_are_refused_with_their_values(solve, args, message):
    with pytest.raises(ValueError, match=message):
        solve(*args)


def test_the_arguments_are_not_changed():
    omega, sizes = torch.tensor(OMEGA), list(SIZES)
    copy = omega.clone()
    greedy(omega, sizes, BUDGET)
    exact(omega, sizes, BUDGET)
    assert torch.equal(omega, copy)
    assert sizes == list(SIZES)


# Sensitivities


def quantize(b, w):
    """A plain grid of step 2^-b, for arrays and tensors alike."""
    return (w * 2**b).round() / 2**b


def factory(b):
    return lambda w: quantize(b, w)


def squared(model, batch):
    return (model(batch[0]) - batch[1]).square().mean()


@pytest.fixture
def network():
    g = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5, bias=False), nn.ReLU(), nn.Linear(5, 3, bias=False)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g))
    shapes = (6, 4), (6, 3)
    batches = [tuple(torch.randn(s, generator=g, dtype=torch.float64) for s in shapes) for _ in range(3)]
    return model, batches


@pytest.mark.parametrize(("measure", "oracle"), [(fisher, oracles.fisher), (loss_rise, oracles.loss_rise)])
def test_the_sensitivities_are_those_of_the_formula(network, measure, oracle):
    model, batches = network
    got = measure(model, ["0", "2"], batches, squared, factory)
    weights = [model[i].weight.detach().numpy() for i in (0, 2)]
    expected = oracle(weights, [(x.numpy(), y.numpy()) for x, y in batches], quantize, BITS)
    assert got.dtype == torch.float64
    assert np.allclose(got.numpy(), expected, rtol=1e-12, atol=1e-15)
    assert (got > 0).any()
    assert torch.equal(measure(model, ["2"], iter(batches), squared, factory), got[1:])


def test_the_sensitivities_of_activations_are_those_of_the_formula(network):
    model, batches = network
    first, second = (model[i].weight.detach() for i in (0, 2))
    estimated, measured = (torch.zeros(2, len(BITS), dtype=torch.float64) for _ in range(2))
    for x, y in batches:
        z = x @ first.T
        error = (z.relu() @ second.T - y) * 2 / y.numel()  # dL/doutput, L = mean of squares
        to_hidden = error @ second
        to_input = (to_hidden * (z > 0)) @ first
        for i, b in enumerate(BITS):
            for at, (g, v) in enumerate([(to_input, x), (to_hidden, z.relu())]):
                estimated[at, i] += (g.square() * (v - quantize(b, v)).square()).sum() / 2 / len(batches)
            rough = (quantize(b, x) @ first.T).relu() @ second.T, quantize(b, z.relu()) @ second.T
            rise = [(out - y).square().mean() - (z.relu() @ second.T - y).square().mean() for out in rough]
            measured[:, i] += torch.stack(rise) / len(batches)
    for measure, expected in ((fisher, estimated), (loss_rise, measured.clamp(min=0.0))):
        got = measure(model, ["0", "2"], iter(batches), squared, factory, what="activation")
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-15)
        assert (got > 0).any()
    assert all(not m._forward_pre_hooks for m in model.modules())


def test_a_layer_that_reads_a_keyword_and_has_no_weight_has_a_sensitivity_of_activations():
    class Keyword(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.Identity()

        def forward(self, x):
            return self.act(input=x)

    x = torch.tensor([0.3, 0.2], dtype=torch.float64)  # Q at one bit: 0.5, 0; L = Σ x², dL/dx = 2 x
    for measure, expected in ((fisher, (0.6**2 + 0.4**2) * 0.04 / 2), (loss_rise, 0.25 - 0.13)):
        got = measure(
            Keyword(), ["act"], [x], lambda m, b: m(b).square().sum(), factory, (1,), what="activation"
        )
        assert got.item() == pytest.approx(expected)


def test_loss_rise_is_clipped_at_zero(network):
    """Weights that quantization improves: their loss falls, their sensitivity is 0 and not negative."""
    model, batches = network
    x = batches[0][0]
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(quantize(2, p))
        y = model(x)
        model[0].weight += 0.05
    got = loss_rise(model, ["0", "2"], [(x, y)], squared, factory, bits=(2,))
    assert squared(model, (x, y)) > 0.001
    assert got[0] == 0


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.drop(self.norm(self.stem(x)).relu()).mean((2, 3)))


def entropy(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def seeded(*args, **kwargs):
    return hutchinson(*args, **kwargs, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("measure", [fisher, loss_rise, seeded])
@pytest.mark.parametrize("fail", [False, True])
def test_the_model_is_left_as_it_was(measure, fail):
    torch.manual_seed(1)
    model = Convolutional().train()
    model.norm.eval()  # a mixed state
    model.stem.weight.requires_grad_(False)
    batches = [(torch.randn(5, 2, 6, 6), torch.randint(3, (5,))) for _ in range(2)]
    entropy(model, batches[0]).backward()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    grads = {k: None if p.grad is None else p.grad.clone() for k, p in model.named_parameters()}
    storage = model.stem.weight.data_ptr()
    calls = []

    def loss(model, batch):
        calls.append(any(m.training for m in model.modules()))
        if fail and len(calls) == (4 if measure is loss_rise else 2):
            raise RuntimeError("out of memory")
        return entropy(model, batch)

    def run():
        layers = ["stem", "head"]
        return measure(model, layers, batches, loss, lambda b: Quantizer(uniform(b), range=MSE(0)))

    if fail:
        with pytest.raises(RuntimeError, match="out of memory"):
            run()
    else:
        assert torch.equal(run(), run())  # dropout is off
    assert not any(calls)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.stem.weight.data_ptr() == storage
    assert [m.training for m in (model, model.stem, model.norm, model.drop)] == [True, True, False, True]
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True, True, True]
    for name, p in model.named_parameters():
        assert (p.grad is None) if grads[name] is None else torch.equal(p.grad, grads[name])


def test_recipes_serve_as_factories_and_the_whole_way_works():
    torch.manual_seed(2)
    model = Convolutional()
    batches = [(torch.randn(8, 2, 6, 6), torch.randint(3, (8,))) for _ in range(2)]
    layers = ["stem", "head"]
    sizes = [model.get_submodule(name).weight.numel() for name in layers]
    for make in (
        recipes.adq_weight,
        lambda b: recipes.lsq(b, channels=None),
        lambda b: recipes.post_weight(b),
    ):
        omega = fisher(model, layers, batches, entropy, make, bits=(2, 3))
        assert bool((omega[:, 0] > omega[:, 1]).all())
        found = exact(omega, sizes, 2.5, (2, 3))
        assert found.average <= 2.5
        assert found.total == pytest.approx(
            min(float(omega[0, 0] + omega[1, 1]), float(omega[0, 1] + omega[1, 0]))
        )


def test_a_layer_that_the_loss_ignores_has_no_sensitivity(network):
    model, batches = network
    model.add_module("spare", nn.Linear(2, 2))

    def first(m, batch):
        return m[0](batch[0]).square().mean()

    for measure in (fisher, loss_rise, seeded):
        got = measure(model, ["0", "spare"], batches, first, factory)
        assert (got[0] > 0).any()
        assert got[1].tolist() == [0.0] * 3
    for measure in (fisher, seeded):
        with pytest.raises(ValueError, match=r"none of the layers \['spare'\]"):
            measure(model, ["spare"], batches, lambda m, batch: torch.ones(()), factory)


@pytest.mark.parametrize("measure", [fisher, loss_rise, seeded])
def test_bad_calls_are_refused(network, measure):
    model, batches = network
    if measure is not seeded:
        with pytest.raises(ValueError, match='weight" or "activation", got \'input\''):
            measure(model, ["0"], batches, squared, factory, what="input")
    with pytest.raises(ValueError, match="1 layers and 0 batches"):
        measure(model, ["0"], [], squared, factory)
    with pytest.raises(ValueError, match="0 layers and 3 batches"):
        measure(model, [], batches, squared, factory)
    with pytest.raises(TypeError, match="'1' has no parameter weight, got NoneType"):
        measure(model, ["1"], batches, squared, factory)
    with pytest.raises(ValueError, match=r"shape \(5, 4\) of w, got \(20,\)"):
        measure(model, ["0"], batches, squared, lambda b: torch.flatten)
    with pytest.raises(ValueError, match="NaN or infinite"):
        measure(model, ["0"], batches, lambda m, b: squared(m, b) * math.nan, factory)
    with pytest.raises(TypeError, match="scalar tensor"):
        measure(model, ["0"], batches, lambda m, b: m(b[0]), factory)
    with pytest.raises(ValueError, match=r"increase, got \(3, 2\)"):
        measure(model, ["0"], batches, squared, factory, bits=(3, 2))


@pytest.mark.parametrize("recipe", [recipes.daq_weight, recipes.dorefa_weight])
def test_levels_in_another_unit_are_refused(recipe):
    model = nn.Linear(8, 2)
    for measure in (fisher, loss_rise):
        with pytest.raises(ValueError, match=recipe.__name__):
            measure(model, [""], [torch.ones(3, 8)], lambda m, x: m(x).sum(), recipe)
