"""Float formats against torch's own dtypes."""

import pytest
import torch

from qviz.core import formats


@pytest.mark.parametrize(
    ("book", "dtype"),
    [(formats.fp8_e4m3(), torch.float8_e4m3fn), (formats.fp8_e5m2(), torch.float8_e5m2)],
)
def test_fp8_holds_every_finite_number_that_torch_decodes(book, dtype):
    decoded = torch.arange(256, dtype=torch.uint8).view(dtype).double()
    assert torch.equal(book.levels, decoded[decoded.isfinite()].unique())


def test_fp4_is_the_specifications_table():
    magnitudes = [0.5, 1, 1.5, 2, 3, 4, 6]
    assert formats.fp4().levels.tolist() == [-v for v in reversed(magnitudes)] + [0.0, *magnitudes]


def test_nf4_is_what_its_construction_gives():
    """Quantiles of N(0, 1) at even shares, 8 above and 7 below zero, scaled to 1 (QLoRA, section 3)."""
    edge = 0.9677083  # the released code's offset: the mean of 1 - 1/32 and 1 - 1/30, to seven digits
    above = torch.special.ndtri(torch.linspace(edge, 0.5, 9, dtype=torch.float64)[:-1])
    below = -torch.special.ndtri(torch.linspace(edge, 0.5, 8, dtype=torch.float64)[:-1])
    levels = torch.cat([above, torch.zeros(1), below]).sort().values / above[0]
    assert formats.nf4().levels.tolist() == pytest.approx(levels.tolist(), abs=2e-7)


def test_e4m3_rounds_as_torch_does():
    x = torch.cat([torch.linspace(0, 500, 20_001), torch.arange(4096.0) * 2.0**-13])
    assert torch.equal(formats.to_e4m3(x), x.clamp(max=448).to(torch.float8_e4m3fn).double())


def test_e8m0_is_the_exponent_of_each_scale():
    just_below = 8.0 - 2.0**-50  # its log2 rounds up to 3
    x = torch.tensor([0.125, 7.999, just_below, 8.0, 12.0], dtype=torch.float64)
    assert formats.to_e8m0(x).tolist() == [0.125, 4.0, 4.0, 8.0, 8.0]
    assert formats.to_e8m0(torch.tensor([1e-44, 3e38])).tolist() == [2.0**-127, 2.0**127]
