"""A model in one file: its output bit for bit, the size that is claimed, and nothing damaged believed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import qviz
from qviz.export import load, save
from qviz.nn import calibrate, convert
from qviz.nn.data.augment import CIFAR10_MEAN, CIFAR10_STD, normalize
from tests.nn.small_nets import SmallResNet

METHODS = [("fp32", 32), ("lsq", 2), ("daq", 1), ("daq", 2), ("pot", 4), ("post", 4), ("asq", 4), ("adq", 3)]
METHODS += [("aquant", 2), ("apot", 4), ("lsq_plus", 3), ("pact", 3), ("ste", 2)]


@pytest.fixture(scope="module")
def images() -> Tensor:
    return normalize(qviz.shipped.cifar10_sample("test")[0][:24], CIFAR10_MEAN, CIFAR10_STD).contiguous()


def network(images: Tensor, method: str, bits: int, **how: object) -> nn.Module:
    torch.manual_seed(0)
    model = SmallResNet()
    model(images)  # running statistics
    if method != "fp32":
        convert(model, pair=qviz.recipes.pair(method, bits), batch=images, **how)
        calibrate(model, images)
    return model.eval()


@torch.no_grad()
def assert_alike(model: nn.Module, path: Path, images: Tensor) -> nn.Module:
    loaded = load(path)
    for x in (images, images.contiguous(memory_format=torch.channels_last)):
        assert torch.equal(loaded(x), model(x))
    assert torch.equal(load(path, into=SmallResNet())(images), model(images))
    return loaded


@pytest.mark.parametrize(("method", "bits"), METHODS)
def test_the_loaded_model_answers_bit_for_bit(tmp_path, images, method, bits):
    model = network(images, method, bits, first_last="8bit" if method == "lsq" else "fp")
    loaded = assert_alike(model, save(model, tmp_path / "x.safetensors", name="small"), images)
    again = load(tmp_path / "x.safetensors")
    for buffer in again.buffers():
        buffer.zero_()
    again.load_state_dict(loaded.state_dict())
    assert torch.equal(again(images), loaded(images))
