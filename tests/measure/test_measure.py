import math

import numpy as np
import pytest
import torch

from qviz import (
    MSE,
    CellBorder,
    Fixed,
    MinMax,
    Quantizer,
    Stochastic,
    Summary,
    apot,
    compare,
    metrics,
    post,
    pot,
    recipes,
    uniform,
)
from qviz.measure import Measured


def weights(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


SUMMARIZED = {
    "uniform": lambda: Quantizer(uniform(4)),
    "post": lambda: Quantizer(post(4), range=Fixed(2.5)),
    "apot": lambda: Quantizer(apot(8), range=MinMax()),
    "log": lambda: Quantizer(pot(4), CellBorder.logarithmic(pot(4)), range=Fixed(1.7)),
    "channels": lambda: Quantizer(post(3), range=MSE(axis=0)),
}
RUN = {
    "affine": lambda: Quantizer(uniform(4), range=MinMax(symmetric=False)),
    "soft": lambda: Quantizer(uniform(4), range=Fixed(0.5), soft=True),
    "lsq+": lambda: recipes.lsq_plus(4),
    "asq": lambda: recipes.asq_activation(4, 5),
    "aquant": lambda: recipes.aquant_activation(4),
}


@pytest.mark.parametrize("kind", [*SUMMARIZED, *RUN])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_figures_are_those_of_the_quantizer(kind, dtype):
    x = weights(20, 500).to(dtype)
    x = x.abs().view(20, 5, 10, 10) if kind in ("asq", "aquant") else x
    q = (SUMMARIZED | RUN)[kind]().observe(x)
    measured = Measured(q, Summary(x, axis=q.range.axis))
    assert measured.summarized == (kind in SUMMARIZED)
    error, codes = (q(x) - x).double().detach(), q.codes(x).long()
    cells = measured.cells
    assert torch.equal(cells.count, metrics.occupancy(q, x))
    sse = torch.zeros(len(q.codebook), dtype=torch.float64)
    sse.index_add_(0, codes.flatten(), error.flatten().square())
    assert cells.sse.tolist() == pytest.approx(sse.tolist(), rel=1e-4, abs=1e-9)
    for k in codes.unique().tolist():
        assert float(cells.max_error[k]) == pytest.approx(
            float(error[codes == k].abs().max()), rel=1e-4, abs=1e-6
        )
    edges = np.linspace(-1.003, 1.001, 24)
    assert np.abs(measured.error_counts(edges) - np.histogram(error, bins=edges)[0]).sum() <= 2
    row = measured.row("name")
    assert (row.method, row.levels, row.bits) == ("name", len(q.codebook), q.codebook.bits)
    assert row.mse == pytest.approx(metrics.mse(x, q(x)), rel=1e-6)
    assert row.sqnr_db == pytest.approx(metrics.sqnr_db(x, q(x)), rel=1e-6)
    assert row.entropy == pytest.approx(metrics.entropy_bits(metrics.occupancy(q, x)), rel=1e-9)


@pytest.mark.parametrize(
    ("make", "x"),
    [
        (lambda: recipes.daq_weight(3), weights(4000)),
        (lambda: recipes.daq_activation(3), weights(4000).abs()),
        (lambda: recipes.n2uq_activation(3), weights(4000).abs()),
    ],
    ids=["daq weight", "daq activation", "n2uq"],
)
def test_outputs_in_another_unit_are_measured_at_their_knots(make, x):
    """Uniform quantization between the data's ends, whatever the levels [0, 1] or [-1, 1] are called."""
    q = make().observe(x)
    knots = q.codebook.knots.detach().double()
    if q.range.scale is not None:
        knots = knots * float(q.range.scale) + float(0.0 if q.range.offset is None else q.range.offset)
    nearest = (x[:, None] - knots).abs().argmin(1)
    row = compare(x, {"q": q})["q"]
    assert row.mse == pytest.approx(float((x - knots[nearest]).square().mean()), rel=1e-6)
    assert "unit of their own" in row.note


def test_dorefa_is_measured_against_what_its_range_makes_of_x():
    x = weights(500)
    q = recipes.dorefa_weight(4)
    row = compare(x, {"dorefa": q})["dorefa"]
    z = torch.tanh(x) / torch.tanh(x).abs().max()
    assert row.mse == pytest.approx(metrics.mse(z, q(x)), rel=1e-6)
    assert row.sqnr_db == pytest.approx(metrics.sqnr_db(z, q(x)), rel=1e-6)
    assert "transformed" in row.note


def test_random_rounding_is_drawn_once():
    x = weights(500)
    measured = Measured(Quantizer(post(3), Stochastic(), range=Fixed(1.0)), x)
    assert measured.row("q") == measured.row("q")
    assert measured.cells.sse.sum() / 500 == pytest.approx(measured.mse)
    assert "one draw" in measured.note


def test_every_recipe_can_be_measured():
    x = weights(8, 4, 5, 5)
    for name in dir(recipes):
        make = getattr(recipes, name)
        if name in ("pair", "register") or not callable(make) or isinstance(make, type):
            continue
        second = {"adaround_weight": [x], "asq_activation": [x.shape[1]]}.get(name, [])
        q = make(3, *second, **({"beta": 4.0} if name == "soft_argmax" else {})).observe(
            x.abs() if "activation" in name else x
        )
        row = compare(x.abs() if "activation" in name else x, {name: q})[name]
        assert 0 < row.mse < 1, name
        assert (row.levels, row.bits) == (len(q.codebook), 3), name


def test_the_figures_are_computed_once(monkeypatch):
    calls = []
    cells = Summary.cells
    monkeypatch.setattr(Summary, "cells", lambda *args: calls.append(1) or cells(*args))
    measured = Measured(Quantizer(post(4), range=Fixed(1.0)), weights(100))
    measured.row("a")
    assert measured.mse < measured.largest_error
    assert measured.counts.sum() == 100
    assert len(calls) == 1


def test_an_exact_quantizer_has_infinite_sqnr():
    row = Measured(Quantizer(uniform(3), range=Fixed(1.0)), torch.tensor([-2.0, 0.0, 3.0, 3.0])).row("exact")
    assert (row.mse, row.sqnr_db) == (0.0, math.inf)


def test_refuses_what_cannot_be_measured():
    with pytest.raises(ValueError, match="observe"):
        Measured(Quantizer(post(3)), weights(9))
    with pytest.raises(ValueError, match="made for 3"):
        Measured(Quantizer(post(3), range=Fixed(torch.ones(3), axis=0)), weights(2, 9)).row("q")
