"""Users' models: inspect says of each module whether it is quantized and why not, whatever the model is."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from qviz import inspect

WORDS = {"input_ids": torch.arange(24).view(2, 12) % 50, "attention_mask": torch.ones(2, 12).long()}
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


class UNet(nn.Module):
    """One convolution runs twice, one is transposed."""

    def __init__(self):
        super().__init__()
        self.down, self.shared = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.up, self.out = nn.ConvTranspose2d(8, 8, 2, stride=2), nn.Conv2d(16, 2, 1)

    def forward(self, x):
        skip = functional.relu(self.down(x))
        y = self.shared(functional.relu(self.shared(functional.max_pool2d(skip, 2))))
        return self.out(torch.cat([skip, self.up(y)], 1))


class Recurrent(nn.Module):
    """An LSTM, and a cell of linear layers that runs at every step."""

    def __init__(self):
        super().__init__()
        self.lstm, self.cell, self.out = nn.LSTM(4, 8, batch_first=True), nn.Linear(16, 8), nn.Linear(8, 1)

    def forward(self, x):
        state = x.new_zeros(len(x), 8)
        for step in self.lstm(x)[0].unbind(1):
            state = torch.tanh(self.cell(torch.cat([step, state], 1)))
        return self.out(state)


class Attention(nn.Module):
    """torch's attention, and two inputs."""

    def __init__(self):
        super().__init__()
        self.attention, self.norm, self.out = nn.MultiheadAttention(8, 2), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, left, right):
        y = self.attention(left, right, right, need_weights=False)[0]
        return {"features": self.out(self.norm(left + y)), "left": left}


def normed():
    norm = nn.utils.parametrizations
    layers = [norm.weight_norm(nn.Linear(4, 8)), nn.ReLU(), norm.spectral_norm(nn.Linear(8, 8))]
    return nn.Sequential(*layers, nn.Linear(8, 2))


def language_model(name, **sizes):
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{name}Config")(**sizes)
    return getattr(transformers, f"{name}Model")(config)


# what is built; what it takes; quantized layers; the others, with a word of the reason; the loss
MODELS = {
    "U-Net": (
        UNet,
        torch.rand(4, 3, 8, 8),
        ["down", "shared", "out"],
        {"up": "ConvTranspose2d"},
        "error",
    ),
    "recurrent, one output": (Recurrent, torch.randn(4, 5, 4), ["cell", "out"], {"lstm": "LSTM"}, "error"),
    "attention, two inputs, a mapping": (
        Attention,
        {"left": torch.randn(4, 6, 8), "right": torch.randn(4, 6, 8)},
        ["out"],
        {"attention": "this is a MultiheadAttention", "attention.out_proj": "reads this weight past the"},
        "error",
    ),
    "normed weights": (normed, torch.randn(8, 4), ["3"], {"0": "parametrized", "2": "parametrized"}, "kl"),
    "ViT": (
        lambda: language_model("ViT", image_size=16, patch_size=8, **SIZES),
        torch.rand(4, 3, 16, 16),
        14,
        {"embeddings": "ViTEmbeddings"},
        "error",
    ),
    "BERT": (
        lambda: language_model("Bert", vocab_size=50, **SIZES),
        WORDS,
        13,
        {f"embeddings.{kind}_embeddings": "Embedding" for kind in ("word", "position", "token_type")},
        "error",
    ),
}


@pytest.mark.filterwarnings("ignore")  # of transformers
@pytest.mark.parametrize("name", MODELS)
def test_each_module_is_quantized_or_says_why_not(name):
    build, batch, quantized, others, loss = MODELS[name]
    torch.manual_seed(0)
    found = inspect(build(), batch, recipe="lsq", bits=4, first_last="quantized")
    names = [layer.name for layer in found.quantized]
    assert names == quantized or len(names) == quantized
    assert all(layer.outputs.local > 5 and layer.outputs.cumulative > 0 for layer in found.quantized)
    whys = {layer.name: layer.why for layer in found.layers if not layer.quantized}
    assert whys.keys() == others.keys()
    assert all(word in whys[layer] and "not quantized" in whys[layer] for layer, word in others.items())
    assert found.loss == loss
    assert all(f"{layer}: not quantized: " in found.text() for layer in others)


@pytest.mark.filterwarnings("ignore")  # of transformers
def test_the_conv1d_of_gpt2_is_named():
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 50, "n_positions": 32}
    with pytest.raises(ValueError, match="4 layers: only Conv2d and Linear are, this is a Conv1D"):
        inspect(language_model("GPT2", **sizes), WORDS, recipe="lsq", bits=4)


def test_all_calls_of_a_layer_that_is_shared_count():
    torch.manual_seed(0)
    found = inspect(UNet(), torch.rand(4, 3, 8, 8), recipe="lsq", bits=4, sensitivity=False)
    assert found["shared"].input.count == 2 * 4 * 8 * 4 * 4
    assert found["down"].input.count == 4 * 3 * 8 * 8
