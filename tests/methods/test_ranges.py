"""One range for each output channel of a weight."""

import pytest
import torch
from torch import nn

from qviz.methods.pairs import METHODS, pair
from qviz.methods.ranges import EITHER, each_channel


@pytest.mark.parametrize("name", EITHER)
def test_each_channel_has_a_range_at_any_bits(name: str) -> None:
    layer = nn.Conv2d(3, 5, 3)
    layer.weight.data *= torch.logspace(0, 2, 5).view(5, 1, 1, 1)
    made = each_channel(pair(name, 4))
    assert (made.w_bits, made.a_bits, made.act.name) == (4, 4, pair(name, 4).act.name)
    for bits, weight in ((4, made.weight), (3, made.with_bits(3).weight)):
        q = weight(layer)
        q.observe(layer.weight)
        assert (q.bits, q.scale.numel()) == (bits, 5)
        assert len(set(q.scale.flatten().tolist())) == 5


def test_weights_without_such_a_range_are_refused() -> None:
    for name in METHODS.keys() - EITHER.keys():
        with pytest.raises(ValueError, match=f"weights of {name} have ranges of their own; per channel goes"):
            each_channel(pair(name, 4))
