import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from qviz import MSE, Quantizer, recipes, uniform
from qviz.inspection.budget import budget, of_pair
from qviz.inspection.choices import rank_correlation
from qviz.inspection.own_loss import direction, divergence, own, own_traces, slope
from qviz.nn.allocate import fisher, hutchinson, loss_rise
from qviz.nn.hutchinson import traces
from qviz.nn.sensitivity import information

BITS = (2, 3, 5)
LAYERS = ["0", "2", "4"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def small():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 3)
    ).double()


class Named(nn.Module):
    """Returns its input under a name."""

    def __init__(self, name):
        super().__init__()
        self.name = name

    def forward(self, x):
        return {self.name: x}


def to_mse(b):
    return Quantizer(uniform(b), range=MSE(0))


def squared_error(model, name, b):
    w = model.get_submodule(name).weight.detach()
    return float((w - to_mse(b).observe(w)(w)).square().sum())


@pytest.mark.parametrize("outputs", [3, 1])
def test_the_squared_slopes_have_the_divergences_hessian_for_their_mean(outputs):
    """Over all signs there are; with classes it is KL, with one output the squared error."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, outputs)).double()
    x = torch.randn(2, 2, dtype=torch.float64)
    (batch,) = own(model, [x])
    assert batch.kind == ("kl" if outputs == 3 else "error")
    assert float(divergence(model, batch).detach()) == 0.0
    found = torch.zeros_like(model[0].weight)
    for row in itertools.product([-1.0, 1.0], repeat=2 * outputs):
        signs = torch.tensor(row, dtype=torch.float64).reshape(2, outputs)
        one = dataclasses.replace(batch, direction=direction(batch.kind, batch.outputs, signs))
        found += information(model, ["0"], [one], slope)[0] / 2 ** (2 * outputs)

    def of_weight(w):
        z = (x @ w.T + model[0].bias).tanh() @ model[2].weight.T + model[2].bias
        if outputs == 1:
            return (z - batch.outputs).square().sum() / batch.outputs.square().sum()
        return -(batch.outputs.softmax(1) * z.log_softmax(1)).sum(1).mean()

    hessian = torch.autograd.functional.hessian(of_weight, model[0].weight.detach())
    expected = hessian.reshape(4, 4).diagonal().reshape(2, 2)
    torch.testing.assert_close(found.detach(), expected, rtol=1e-6, atol=1e-12)


@pytest.mark.slow
def test_the_trace_is_the_same_from_signs_of_outputs_and_of_weights():
    model, batches = small(), torch.randn(6, 4, dtype=torch.float64, generator=seeded()).split(3)
    samples, g = own(model, batches), seeded(1)
    few = own_traces(model, LAYERS, samples, probes=400, generator=g)
    many = traces(model, LAYERS, samples, divergence, probes=400, generator=g)
    torch.testing.assert_close(few, many, rtol=0.12, atol=0.0)


def test_segments_and_tokens_are_classified_at_each_place():
    y = torch.randn(2, 5, 4, 3, generator=seeded())
    (image,) = own(nn.Identity(), [(y, torch.zeros(2, 4, 3, dtype=torch.int64))])
    (tokens,) = own(Named("logits"), [y[:, 0]])
    assert (image.outputs.shape, tokens.outputs.shape) == ((2, 4, 3, 5), (2, 4, 3))
    expected = nn.functional.kl_div(
        (2 * y).log_softmax(1), y.log_softmax(1), log_target=True, reduction="sum"
    )
    found = divergence(lambda _: 2 * y, image)
    assert float(found) == pytest.approx(float(expected) / 24, rel=1e-5)


def test_features_and_maps_are_no_scores():
    """A divergence of classes would not see them all move by the same number."""
    maps = torch.ones(2, 3, 4, 4)
    assert own(Named("features"), [torch.ones(2, 3)])[0].kind == "error"
    assert own(nn.Identity(), [maps])[0].kind == own(nn.Identity(), [(maps, maps)])[0].kind == "error"


def test_the_budget_is_made_of_the_three_sensitivities():
    model, batches = (
        small().train(),
        list(torch.randn(6, 4, dtype=torch.float64, generator=seeded()).split(3)),
    )
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = budget(model, LAYERS, batches, quantizer=to_mse, bits=BITS, rise_bits=(2, 5), probes=3)
    g = seeded()
    samples = own(model, batches, g)
    trace = own_traces(model, LAYERS, samples, probes=3, generator=g)
    per_weight = [(t / n).item() for t, n in zip(trace, found.sizes, strict=True)]
    squares = [[squared_error(model, name, b) for b in BITS] for name in LAYERS]
    for estimate, expected in (
        (found.fisher, fisher(model, LAYERS, samples, slope, to_mse, BITS).tolist()),
        (found.hutchinson, [[t * e / 2 for e in row] for t, row in zip(per_weight, squares, strict=True)]),
        (found.loss_rise, loss_rise(model, LAYERS, samples, divergence, to_mse, (2, 5)).tolist()),
    ):
        assert np.allclose(estimate, expected, rtol=1e-9, atol=0.0)
    assert (found.layers, found.sizes, found.bits) == (tuple(LAYERS), (24, 30, 15), BITS)
    assert (found.loss, found.rise_bits, found.by) == ("kl", (2, 5), "fisher")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.training
    assert all(module.training and not module._forward_hooks for module in model.modules())
    assert json.loads(json.dumps(dataclasses.asdict(found)))["sizes"] == [24, 30, 15]


def test_a_choice_says_what_it_predicts_and_what_came():
    model, batches = small(), [torch.randn(8, 4, dtype=torch.float64, generator=seeded())]
    found = budget(model, LAYERS, batches, quantizer=to_mse, bits=BITS, rise_bits=BITS, by="loss_rise")
    assert found.choices[0].bits == (2, 2, 2)
    assert found.choices[-1].bits == (5, 5, 5)
    for less, more in itertools.pairwise(found.choices):
        assert less.average < more.average
        assert less.predicted > more.predicted
    assert [set(choice.bits) for choice in found.all_equal] == [{2}, {3}, {5}]
    (batch,) = own(model, batches)
    for choice in (*found.choices, *found.all_equal):
        changed = small()
        for name, b in zip(LAYERS, choice.bits, strict=True):
            w = changed.get_submodule(name).weight.data
            w.copy_(to_mse(b).observe(w)(w).detach())
        assert choice.measured == pytest.approx(float(divergence(changed, batch).detach()), rel=1e-9)
        rises = [row[BITS.index(b)] for row, b in zip(found.loss_rise, choice.bits, strict=True)]
        assert choice.predicted == pytest.approx(sum(rises))
        spent = [n * b for n, b in zip(found.sizes, choice.bits, strict=True)]
        assert choice.average == sum(spent) / 69
        assert choice.packed == sum(math.ceil(n / 8) for n in spent)


def test_a_loss_of_ones_own_is_taken_for_all_three():
    def squared(model, x):
        return model(x).square().mean()

    x = torch.randn(5, 4, dtype=torch.float64, generator=seeded())
    found = budget(small(), LAYERS, [x], quantizer=to_mse, bits=(2, 4), loss=squared, by="hutchinson")
    assert found.loss == "given"
    assert np.allclose(found.fisher, fisher(small(), LAYERS, [x], squared, to_mse, (2, 4)), rtol=1e-9)
    expected = hutchinson(small(), LAYERS, [x], squared, to_mse, (2, 4), generator=seeded())
    assert np.allclose(found.hutchinson, expected, rtol=1e-9)
    best = min(sum(row) for row in zip(*found.hutchinson, strict=True))
    assert found.choices[-1].predicted == pytest.approx(best)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ([3.0, 1.0, 2.0], [30.0, 10.0, 20.0], 1.0),
        ([3.0, 1.0, 2.0], [1.0, 3.0, 2.0], -1.0),
        ([1.0, 2.0, 2.0, 4.0], [1.0, 2.0, 3.0, 4.0], 4.5 / math.sqrt(4.5 * 5.0)),  # ranks 1, 2.5, 2.5, 4
        ([1.0, 1.0], [1.0, 2.0], None),
        ([1.0], [1.0], None),
    ],
)
def test_ranks_are_compared_with_ties_at_their_mean(x, y, expected):
    found = rank_correlation(x, y)
    assert found is None if expected is None else found == pytest.approx(expected)


def test_the_text_has_every_choice_and_layer_and_pair_of_estimates():
    x = torch.randn(5, 4, dtype=torch.float64, generator=seeded())
    found = budget(small(), LAYERS, [x], quantizer=of_pair(recipes.pair("lsq", 4)), bits=(2, 4))
    lines = str(found).splitlines()
    for choice in (*found.choices, *found.all_equal):
        assert any(line.split()[:2] == [f"{choice.average:.2f}", f"{choice.packed}"] for line in lines)
    for name, n, row in zip(found.layers, found.sizes, found.loss_rise, strict=True):
        assert any(line.split()[:2] == [name, f"{n}"] and f"{row[0]:.3g}" in line for line in lines)
    assert len(found.agreement) == 4
    for a in found.agreement:
        (line,) = (line for line in lines if line.startswith(f"  {a.first} and {a.second}: "))
        assert f"{a.correlation:.2f} at {a.bits} bits" in line


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"by": "trace"}, "one of fisher, hutchinson, loss_rise, got 'trace'"),
        ({"by": "loss_rise"}, r"needs rise_bits=\(2, 4\), got \(2,\)"),
        ({"rise_bits": (4, 2)}, r"some of \(2, 4\), in this order, got \(4, 2\)"),
        ({"rise_bits": (3,)}, r"some of \(2, 4\), in this order, got \(3,\)"),
        ({"bits": (4, 2)}, r"increase, got \(4, 2\)"),
        ({"layers": []}, "0 layers and 1 batches"),
        ({"quantizer": recipes.daq_weight}, "daq_weight.* a unit of its own"),
    ],
)
def test_bad_budgets_are_refused(given, message):
    usual = {"layers": LAYERS, "quantizer": to_mse, "bits": (2, 4)}
    with pytest.raises(ValueError, match=message):
        budget(small(), batches=[torch.ones(2, 4, dtype=torch.float64)], **usual | given)


@pytest.mark.parametrize(
    ("name", "bits", "why"), [("daq", 4, "standardizes weights"), ("fp32", 32, "does not quantize weights")]
)
def test_pairs_without_an_error_of_weights_are_refused(name, bits, why):
    with pytest.raises(ValueError, match=f"{name} {why}"):
        of_pair(recipes.pair(name, bits))
