"""Every recipe of the table: its output is levels, its parameters learn."""

import pytest
import torch

from qviz import recipes
from tests.methods.cases import CASES, gradients, ready, sample


def test_every_recipe_has_a_case():
    assert set(dir(recipes)) == {name.split("-")[0] for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_output_is_levels_in_the_shape_and_dtype_of_x(name):
    case, q = CASES[name], ready(name)
    x = sample(case.kind, seed=1)
    y = q(x)
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    assert y.isfinite().all()
    if not case.soft and q.range.scale.ndim == 0 and q.range.axis is None and not case.adapts:
        assert min(len(q.codebook), 8) // 2 <= len(y.unique()) <= len(q.codebook)


@pytest.mark.parametrize("name", CASES)
def test_every_parameter_gets_a_gradient(name):
    case, q = CASES[name], ready(name)
    x = (1.5 * sample(case.kind, seed=1)).requires_grad_(True)
    got = gradients(q(x), q, x, torch.ones_like(x))
    unused = {k for k, _ in q.named_parameters()} - got.keys()
    assert not unused
    for key, value in got.items():
        assert value.isfinite().all(), key
        if (name, key) not in [("adaround_weight", "x")]:
            assert value.abs().max() > 0, key
