"""Named grids and rules, against the library's own quantizers."""

import pytest
import torch

from qviz import MSE, Codebook, MinMax, Percentile, Quantizer, lloyd, pot, uniform
from qviz.explore import tensors
from qviz.explore.grids import RULES, SEARCH, Grids, clip

SOURCE = tensors.own(torch.randn(6, 200, generator=torch.Generator().manual_seed(2)))
OBSERVED = {
    SEARCH: MSE,
    "min–max": MinMax,
    "percentile 99.9": lambda axis: Percentile(99.9, axis),
    "percentile 99": lambda axis: Percentile(99.0, axis),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("axis", [None, 0])
def test_a_fitted_grid_is_an_observed_quantizer(rule, axis):
    x = SOURCE.make()
    for name, book in (("POT", pot(3)), ("Lloyd", lloyd(x, 3)), ("POT paper", pot(3, grid="paper"))):
        q = Grids().fitted(name, SOURCE, 3, rule, axis)
        wanted = Quantizer(book, range=OBSERVED[rule](axis)).observe(x)
        torch.testing.assert_close(q(x), wanted(x), rtol=1e-5, atol=1e-6)


def test_a_clipped_grid_ends_at_the_clip():
    q = Grids().clipped("uniform", SOURCE, 4, 2.0)
    assert float(q(torch.tensor([-9.0]))) == -2.0
    assert clip(q) == 2.0


def test_grids_and_ranges_are_made_once_and_quantizers_are_new():
    asked = []
    grids = Grids({"mine": lambda x, bits: asked.append(bits) or uniform(bits)})
    one, other = (grids.fitted("mine", SOURCE, 3) for _ in range(2))
    assert asked == [3]
    one.range.scale.zero_()  # what is handed out is nobody's storage
    assert float(other.range.scale) == float(grids.fitted("mine", SOURCE, 3).range.scale) > 0


def test_names_end_with_ones_own_and_the_paper_grids_at_seven_bits():
    grids = Grids({"mine": Codebook([-1.0, 1.0])})
    assert grids.names(7)[-3:] == ("POT paper", "POST paper", "mine")
    assert "POT paper" not in grids.names(8)
    with pytest.raises(ValueError, match="'by hand'"):
        Grids({"by hand": pot(3)}, reserved=("by hand",))
