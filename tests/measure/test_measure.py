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
    uniform,
)
from qviz.measure import measured as measure


def weights(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


QUANTIZERS = {
    "uniform": lambda: Quantizer(uniform(4)),
    "post": lambda: Quantizer(post(4), range=Fixed(2.5)),
    "apot": lambda: Quantizer(apot(8), range=MinMax()),
    "log": lambda: Quantizer(pot(4), CellBorder.logarithmic(pot(4)), range=Fixed(1.7)),
    "channels": lambda: Quantizer(post(3), range=MSE(axis=0)),
}


@pytest.mark.parametrize("kind", QUANTIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_figures_are_those_of_the_quantizer(kind, dtype):
    x = weights(20, 500).to(dtype)
    q = QUANTIZERS[kind]().observe(x)
    data = Summary(x, axis=q.range.axis)
    error, codes = (q(x) - x).double(), q.codes(x).long()
    stats = measure.cell_stats(q, data)
    assert torch.equal(stats.count, metrics.occupancy(q, x))
    sse = torch.zeros(len(q.codebook), dtype=torch.float64).index_add_(
        0, codes.flatten(), error.flatten().square()
    )
    assert stats.sse.tolist() == pytest.approx(sse.tolist(), rel=1e-4, abs=1e-9)
    for k in codes.unique().tolist():
        assert float(stats.max_error[k]) == pytest.approx(
            float(error[codes == k].abs().max()), rel=1e-4, abs=1e-6
        )
    edges = torch.linspace(-1.003, 1.001, 24, dtype=torch.float64)
    counts = measure.error_counts(q, data, edges)
    assert int((counts - torch.from_numpy(np.histogram(error, bins=edges.numpy())[0])).abs().sum()) <= 2
    row = measure.row("name", q, data)
    assert (row.method, row.levels, row.bits) == ("name", len(q.codebook), q.codebook.bits)
    assert row.mse == pytest.approx(metrics.mse(x, q(x)), rel=1e-6)
    assert row.sqnr_db == pytest.approx(metrics.sqnr_db(x, q(x)), rel=1e-6)
    assert row.entropy == pytest.approx(metrics.entropy_bits(metrics.occupancy(q, x)), rel=1e-9)
    assert row.scale == (None if q.range.axis is not None else pytest.approx(float(q.range.scale)))


def test_its_row_is_compares_row():
    x = weights(5000).float()
    q = Quantizer(post(4)).observe(x)
    ours, theirs = measure.row("POST", q, Summary(x)), compare(x, ["POST"])["POST"]
    assert ours.mse == pytest.approx(theirs.mse, rel=1e-5)
    assert ours.entropy == pytest.approx(theirs.entropy, rel=1e-6)


def test_an_exact_quantizer_has_infinite_sqnr():
    x = torch.tensor([-2.0, 0.0, 3.0, 3.0])
    q = Quantizer(uniform(3), range=Fixed(1.0))
    assert measure.row("exact", q, Summary(x)).mse == 0
    assert measure.row("exact", q, Summary(x)).sqnr_db == math.inf


@pytest.mark.parametrize(
    "make",
    [
        lambda: Quantizer(post(3), Stochastic(), range=Fixed(1.0)),
        lambda: Quantizer(post(3), range=Fixed(1.0, 0.5)),
        lambda: Quantizer(post(3)),
        lambda: Quantizer(post(3), range=Fixed(torch.ones(3), axis=0)),
    ],
    ids=["random", "offset", "uncalibrated", "channels"],
)
def test_refuses_what_a_summary_cannot_stand_for(make):
    q = make()
    with pytest.raises(ValueError, match=r"random|channels"):
        measure.cell_stats(q, Summary(weights(2, 9), axis=0))
    assert measure.searchable(q) == (q.range.scale is not None and q.range.scale.ndim == 1)
