"""The split of the error into clipping and rounding, against a direct computation."""

import numpy as np
import pytest
import torch

from qviz import Codebook, Summary, apot, uniform
from qviz.measure import error_parts


@pytest.mark.parametrize("book", [uniform(3), uniform(4, signed=False), apot(4)], ids=["s3", "u4", "apot"])
@pytest.mark.parametrize("axis", [None, 0])
def test_both_parts_are_those_of_a_direct_computation(book, axis):
    x = torch.randn(5, 400, generator=torch.Generator().manual_seed(2))
    x[0, :7] = 0.0
    scales = torch.tensor([0.05, 0.3, 1.0, 40.0], dtype=torch.float64)
    parts = error_parts(Summary(x, axis), book, scales)
    values, levels = x.double().numpy().ravel(), book.levels.numpy()
    for k, s in enumerate(scales.numpy()):
        error = np.abs(values[:, None] - s * levels).min(1) ** 2
        outside = (values < s * levels[0]) | (values > s * levels[-1])
        assert float(parts.clipping[k]) == pytest.approx(error[outside].sum() / values.size, rel=1e-9)
        assert float(parts.rounding[k]) == pytest.approx(error[~outside].sum() / values.size, rel=1e-9)
        assert float(parts.mse[k]) == pytest.approx(error.mean(), rel=1e-9)


def test_levels_that_are_not_knots_are_refused():
    with pytest.raises(ValueError, match="levels are knots"):
        error_parts(Summary(torch.randn(9)), Codebook([0.0, 1.0], [0.0, 2.0]), torch.ones(1))
