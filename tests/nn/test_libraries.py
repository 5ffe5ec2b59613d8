"""Networks of timm and transformers: the report says what a forward pass multiplies with."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from qviz import recipes
from qviz.nn import calibrate, convert, report

PRODUCTS = {"conv2d", "linear", "addmm", "matmul", "multi_head_attention_forward"}
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
WORDS = {"input_ids": torch.arange(24).view(2, 12) % 50}
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 50,
}


class Multiplied(TorchFunctionMode):
    """Keeps every tensor that goes into a product."""

    def __init__(self):
        super().__init__()
        self.tensors = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in PRODUCTS:
            self.tensors += [t for t in (*args, *kwargs.values()) if isinstance(t, Tensor)]
        return func(*args, **kwargs)

    def has(self, value):
        return any(t.shape == value.shape and torch.equal(t, value) for t in self.tensors)


def image_net(name):
    timm = pytest.importorskip("timm")
    return timm.create_model(name, pretrained=False, num_classes=5), IMAGES


def language_model(name, **config):
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{name}Config")(**config)
    return transformers.AutoModel.from_config(config), WORDS


# what is built; classes for also=; how many layers are quantized, and the classes of those that are not
NETS = {
    "vision transformer": (lambda: image_net("test_vit"), (), 26, {"VisionTransformer"}),
    "resnet": (lambda: image_net("test_resnet"), (), 16, set()),
    "efficientnet": (lambda: image_net("test_efficientnet"), (), 18, set()),
    "normalizer-free": (lambda: image_net("test_nfnet"), (), 9, {"ScaledStdConv2d"}),
    "own padding": (lambda: image_net("tf_mobilenetv3_small_minimal_100"), (), 30, {"Conv2dSame", "Linear"}),
    "own padding, named": (
        lambda: image_net("tf_mobilenetv3_small_minimal_100"),
        ("Conv2dSame", "Linear"),
        36,
        set(),
    ),
    "BERT": (lambda: language_model("Bert", **SIZES), (), 13, {"Embedding"}),
    "GPT-2": (
        lambda: language_model("GPT2", n_embd=16, n_layer=1, n_head=2, vocab_size=50, n_positions=32),
        (),
        0,
        {"Embedding", "Conv1D"},
    ),
    "Llama": (lambda: language_model("Llama", num_key_value_heads=1, **SIZES), (), 14, {"Embedding"}),
}


@pytest.mark.filterwarnings("ignore")  # of the libraries
@pytest.mark.parametrize("name", NETS)
def test_the_report_says_what_a_forward_pass_multiplies_with(name):
    build, also, count, others = NETS[name]
    torch.manual_seed(0)
    net, batch = build()
    net.eval()
    kinds = {type(m) for m in net.modules() if type(m).__name__ in also and type(m) is not nn.Linear}
    how = {"pair": recipes.pair("lsq", 3), "batch": batch, "first_last": "quantized", "also": kinds}
    if count:
        convert(net, **how)
        calibrate(net, batch)
    else:
        with pytest.raises(ValueError, match="only Conv2d and Linear are, this is a Conv1D"):
            convert(net, **how)
    with torch.no_grad(), Multiplied() as seen:
        net(**batch) if isinstance(batch, dict) else net(batch)
    rows = report(net).rows
    assert sum(row.quantized for row in rows) == count
    assert {row.kind.split()[-1] for row in rows if not row.quantized} == others
    for row in rows:
        layer = net.get_submodule(row.name)
        if row.quantized:
            assert seen.has(layer.quantized_weight()), row.name
            assert not seen.has(layer.weight), row.name
        elif row.kind.endswith(("Conv2dSame", "Linear", "Conv1D")):
            assert seen.has(layer.weight), row.name
