"""A model in one file: its output bit for bit, and the size that is claimed."""

from __future__ import annotations

import re

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load as safetensors_load
from torch import Tensor, nn
from torch.nn.utils import prune

import qviz
from qviz.core.groups import mxfp4
from qviz.export import load, read, save, sizes
from qviz.nn import calibrate, convert
from qviz.nn.data.augment import CIFAR10_MEAN, CIFAR10_STD, normalize
from qviz.nn.layers import QuantConv2d
from tests.nn.small_nets import SmallResNet

METHODS = [
    ("fp32", 32),
    ("lsq", 2),
    ("daq", 1),
    ("daq", 2),
    ("pot", 4),
    ("post", 4),
    ("asq", 4),
    ("aquant", 2),
]


@pytest.fixture(scope="module")
def images() -> Tensor:
    return normalize(qviz.shipped.cifar10_sample("test")[0][:16], CIFAR10_MEAN, CIFAR10_STD).contiguous()


def network(images: Tensor, method: str = "lsq", w_bits: int = 2, **how: object) -> nn.Module:
    torch.manual_seed(0)
    model = SmallResNet()
    model(images)  # running statistics
    if method != "fp32":
        convert(model, pair=qviz.recipes.pair(method, w_bits), batch=images, **how)
        calibrate(model, images)
    return model.eval()


@torch.no_grad()
def assert_alike(model: nn.Module, path: object, images: Tensor) -> None:
    loaded, into = load(path), load(path, into=SmallResNet(model.conv1.out_channels))
    for x in (images, images.contiguous(memory_format=torch.channels_last), images[:0]):
        assert torch.equal(loaded(x), model(x))
        assert torch.equal(into(x), model(x))


@pytest.mark.parametrize(
    ("method", "bits"), [*(pytest.param(*m, marks=pytest.mark.slow) for m in METHODS[:-1]), METHODS[-1]]
)
def test_the_loaded_model_answers_bit_for_bit(tmp_path, images, method, bits):
    model = network(images, method, bits, first_last="8bit" if method == "lsq" else "fp")
    assert_alike(model, save(model, tmp_path / "x.safetensors"), images)


def test_mixed_bits_have_their_size_each(tmp_path, images):
    bits = {f"layer{stage}.0.conv{k}": stage + k for stage in (1, 2, 3) for k in (1, 2)}
    model = network(images, "adq", 3, bits=bits)
    path = save(model, tmp_path / "x.safetensors")
    assert_alike(model, path, images)
    found = {row.name: row for row in sizes(path).rows}
    for name, b in bits.items():
        assert (found[name].bits, found[name].codes) == (b, model.get_submodule(name).weight.numel() * b // 8)


def test_scales_of_groups(tmp_path, images):
    model = network(images, "fp32")
    for name in ("layer2.0.conv1", "layer3.0.conv2"):  # 8 and 32 input channels, 3 x 3
        conv = model.get_submodule(name)
        size = 4 if name == "layer2.0.conv1" else 32
        q = mxfp4(axis=1) if size == 32 else qviz.Quantizer(qviz.nf4(), range=qviz.Grouped(size, axis=1))
        QuantConv2d.adopt(conv, weight_quantizer=q).observe(torch.ones(1, conv.in_channels, 8, 8))
    assert_alike(model, save(model, tmp_path / "x.safetensors"), images)


def test_the_size_is_that_of_the_codes_and_a_stated_header(tmp_path, images):
    model = network(images, "lsq", 3)
    made = sizes(save(model, tmp_path / "x.safetensors"))
    size = (tmp_path / "x.safetensors").stat().st_size
    weights = sum(m.weight.numel() for m in model.modules() if isinstance(m, QuantConv2d))
    floats = sum(v.numel() for name, v in network(images, "fp32").state_dict().items() if "num_b" not in name)
    length = int.from_bytes((tmp_path / "x.safetensors").read_bytes()[:8], "little")
    assert sum(row.codes for row in made.rows) == weights * 3 // 8
    assert (made.total, made.header, made.parameters) == (size, 8 + length, floats)
    assert made == sizes(read(tmp_path / "x.safetensors"))
    assert f"{size:,} bytes" in str(made)
    assert "adapter" not in str(made)


def test_the_network_of_an_adaptive_step_has_its_own_column(images):
    model = network(images, "asq", 4)
    made = sizes(qviz.export.describe(model))
    adapter = model.layer2[0].conv1.input_quantizer.range.adapter
    bytes_ = 4 * sum(p.numel() for p in adapter.parameters()) + 4  # and the step
    assert {row.name: row.adapter for row in made.rows}["layer2.0.conv1"] == bytes_
    assert "adapter" in str(made).splitlines()[0]


def test_bits_are_those_of_the_codes_and_not_of_the_quantizer(images):
    model = network(images, "lsq", 8)
    with torch.no_grad():
        model.layer1[0].conv1.weight_quantizer.range.step.fill_(1e3)  # all weights round to the middle, 128
        model.layer1[0].conv2.weight.clamp_(max=-1e3)  # all have the lowest code
    rows = {row.name: row for row in sizes(qviz.export.describe(model)).rows}
    assert (rows["layer1.0.conv1"].bits, rows["layer1.0.conv1"].used) == (8, 1)
    assert (rows["layer1.0.conv2"].bits, rows["layer1.0.conv2"].codes) == (1, 8 * 8 * 9 // 8)


def texts(path: object) -> dict[str, str]:
    """Return the texts of a file, the hash of all that is in it among them."""
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def test_a_loaded_model_is_exported_again(tmp_path, images):
    about = {"shape": (3, 32, 32), "policy": "fp"}
    model, plain = network(images, "asq", 4), network(images, "fp32")
    path = save(model, tmp_path / "x.safetensors", **about)
    again, into = tmp_path / "again.safetensors", load(path, into=SmallResNet())
    assert texts(save(load(path), again)) == texts(path)
    assert texts(save(into, again, **about)) == texts(path)
    load(save(plain, again), into=into)
    assert torch.equal(into(images), plain(images))


def test_a_state_dict_makes_the_weight_anew(tmp_path, images):
    model = network(images, "asq", 4)
    path = save(model, tmp_path / "x.safetensors")
    loaded, empty = load(path), load(path)
    for buffer in empty.buffers():
        buffer.zero_()
    empty.load_state_dict(loaded.state_dict())
    assert torch.equal(empty(images), loaded(images))
    assert "net.layer1.0.conv1.codes" in loaded.state_dict()


def test_a_loaded_model_does_not_follow_its_file(tmp_path, images):
    model = network(images, "fp32")
    loaded = load(save(model, tmp_path / "x.safetensors"))
    with (tmp_path / "x.safetensors").open("r+b") as file:
        file.write(bytes(sizes(qviz.export.describe(model)).total))
    assert torch.equal(loaded(images), model(images))


def test_a_model_of_another_shape_stays_as_it_was(tmp_path, images):
    path = save(network(images), tmp_path / "x.safetensors")
    other = SmallResNet(16)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(ValueError, match=r"other shapes bn1.bias \(8,\) there, \(16,\) here"):
        load(path, into=other)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


class Scaled(SmallResNet):
    """What no step stands for."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


def test_a_network_that_cannot_be_traced_needs_its_model(tmp_path, images):
    model = Scaled().eval()
    path = save(model, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="into=model"):
        load(path)
    assert torch.equal(load(path, into=Scaled())(images), model(images))


class Sly(SmallResNet):
    """Another network where it is looked at than where it is run."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if isinstance(x, Tensor) else x.relu())


def test_steps_that_do_not_answer_as_the_model_are_left_out():
    made = qviz.export.describe(Sly(), shape=(3, 32, 32))
    assert made.program == ()
    assert re.fullmatch(
        r"on random images its steps answer up to [\d.]+ from what Sly answers", made.untraceable
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.double(), "layer 'conv1' is torch.float64; call model.float()"),
        (lambda m: m.bn1.half(), "'bn1.weight' is torch.float16; call model.float()"),
        (lambda m: setattr(m.layer1[0].conv1.weight_quantizer, "soft", True), "'layer1.0.conv1'.* is soft"),
        (lambda m: setattr(m, "a/b", nn.Linear(1, 1)), "'a/b' is no name"),
        (lambda m: prune.random_unstructured(m.fc, "weight", 0.5), "'fc': a hook computes its weight"),
    ],
)
def test_what_cannot_be_exported_is_said(tmp_path, images, change, words):
    model = network(images)
    change(model)
    with pytest.raises(ValueError, match=words):
        save(model, tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_equal_networks_have_equal_bytes_which_the_library_reads(tmp_path, images):
    model = network(images, "asq", 4)
    first, second = (save(model, tmp_path / f"{i}.safetensors").read_bytes() for i in (0, 1))
    assert first == second
    held, tables = safetensors_load(first), read(tmp_path / "0.safetensors").layers["layer1.0.conv1"]
    assert torch.equal(held["layer1.0.conv1.levels"], tables.weight.levels)
    assert torch.equal(held["layer1.0.conv1.borders"], tables.input.borders)


@pytest.mark.parametrize("kind", ["Linear", "QuantLinear"])
def test_a_layer_that_is_the_whole_model_has_no_name_in_a_file(tmp_path, kind):
    layer, x = nn.Linear(4, 2), torch.rand(3, 4)
    if kind == "QuantLinear":
        convert(layer, pair=qviz.recipes.pair("lsq", 4), first_last="quantized", batch=x)
        calibrate(layer, x)
    with pytest.raises(ValueError, match=f"is a {kind} itself, .* put it into an nn.Sequential"):
        save(layer, tmp_path / "layer.safetensors")
