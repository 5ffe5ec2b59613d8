"""What runs between the layers is counted, and a model that does not run says where."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from qviz import inspect
from qviz.inspection.beside import beside
from qviz.inspection.samples import Chunk


class Block(nn.Module):
    """Self-attention by hand, with a position table of its own, a gate and a residual."""

    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.randn(6, 8))
        self.qkv, self.out, self.norm = nn.Linear(8, 24), nn.Linear(8, 8), nn.LayerNorm(8)

    def forward(self, x):
        x = x + self.place
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        y = (q @ k.mT).softmax(-1) @ v
        z = functional.scaled_dot_product_attention(*(t.unsqueeze(1) for t in (q, k, v))).squeeze(1)
        own = x @ self.place.mT
        return x + self.out(y) * torch.sigmoid(z) + own.mean()


def test_products_of_activations_and_what_else_runs_between_layers():
    (note,) = beside(Block().eval(), Chunk(torch.randn(2, 6, 8)))
    assert note == (
        "In floating point between the layers, in one run: 1 attention (products of activations and a "
        "softmax), 2 matrix products of activations with each other, 1 softmax, 1 normalization, 1 sum of "
        "activations, 1 elementwise product of activations."
    )


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.Linear, nn.Embedding])
def test_what_happens_inside_a_layer_is_not_counted(kind):
    x = torch.arange(6).view(1, 6) if kind is nn.Embedding else torch.randn(1, 6, 8)
    assert beside(nn.Sequential(kind(8, 8)), Chunk(x)) == ()


def test_torchs_own_encoder_counts_whichever_way_it_runs():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    (note,) = beside(layer, Chunk(torch.randn(2, 6, 8)))
    assert "1 attention" in note
    assert "2 normalizations, 2 sums of activations" in note


def test_a_model_that_does_not_run_says_in_which_layer():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(5, 4))
    with pytest.raises(ValueError, match=r"samples of shape \(4,\): in layer '2': mat1 and mat2"):
        beside(net, Chunk(torch.randn(3, 4)))
    two = nn.Bilinear(4, 4, 1)
    with pytest.raises(ValueError, match=r"samples of shape input1 \(4,\): .*'input2'"):
        beside(two, Chunk({"input1": torch.randn(3, 4)}))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_batchnorm_that_was_folded_does_not_count():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2)).eval()
    for how, words in (("lsq", ()), ("daq", ("1 normalization",))):
        found = inspect(net, torch.rand(2, 1, 4, 4), recipe=how, bits=4, sensitivity=False, top=0)
        assert tuple(n.split(": ")[1][:-1] for n in found.notes if n.startswith("In floating")) == words


def test_a_lazy_model_stays_lazy():
    net = nn.Sequential(nn.LazyLinear(4))
    with pytest.raises(ValueError, match=r"0\.weight is lazy"):
        beside(net, Chunk(torch.randn(3, 4)))
    assert nn.parameter.is_lazy(net[0].weight)


def test_a_model_without_a_tensor_to_compare():
    class Words(nn.Module):
        def forward(self, x):
            return ["cat"] * len(x)

    with pytest.raises(TypeError, match="returned a list, in which there is no tensor"):
        beside(Words(), Chunk(torch.randn(3, 4)))
