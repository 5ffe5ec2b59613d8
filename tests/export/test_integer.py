"""Integers that agree: the network in integers against the float one, in torch and in numpy alone."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qviz import recipes
from qviz.export import describe, write
from qviz.export.agreement import compare_codes
from qviz.export.arithmetic import planes
from qviz.export.exported import Exported, Step
from qviz.export.integer import IntegerModel
from qviz.export.numpy_file import network
from qviz.export.plan import plan
from qviz.export.program import Program
from qviz.export.run_numpy import Network
from qviz.export.tables import InputTable, LayerTables, WeightTable
from qviz.nn import calibrate, convert

MEAN, STD = [0.49, 0.48, 0.45], [0.25, 0.24, 0.26]


class Residual(nn.Module):
    """What a ResNet has, in small: a sum of a float map and a fixed one, a mean, a linear layer."""

    def __init__(self, depthwise: bool = False) -> None:
        super().__init__()
        groups = 6 if depthwise else 1
        self.stem, self.conv1 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1, groups=groups)
        self.conv2, self.fc = nn.Conv2d(6, 6, 3, 2, 1, bias=False), nn.Linear(6, 5)
        self.bn0, self.bn1, self.bn2 = (nn.BatchNorm2d(6) for _ in range(3))
        self.act, self.pool = nn.ReLU6(), nn.AdaptiveAvgPool2d(1)
        for norm in (self.bn0, self.bn1, self.bn2):
            nn.init.uniform_(norm.weight, 0.5, 2.0)
            nn.init.normal_(norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.bn0(self.stem(x)))
        y = self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))
        y = self.act(y + x[:, :, ::2, ::2])
        return self.fc(self.pool(y).flatten(1))


def quantized(
    name: str, w: int, a: int, policy: str = "fp", *, depthwise: bool = False
) -> tuple[Exported, Tensor]:
    torch.manual_seed(w + a)
    net, x = Residual(depthwise), torch.randn(12, 3, 9, 9).clamp(-1.5, 1.5)
    convert(net, pair=recipes.pair(name, w, a), first_last=policy, batch=x)
    net.train()
    calibrate(net, x)
    return describe(net.eval(), mean=MEAN, std=STD, shape=(3, 9, 9)), x


METHODS = [
    ("lsq", 4, 4, "8bit", "whole numbers"),
    ("daq", 1, 1, "fp", "whole numbers"),
    ("apot", 4, 4, "fp", "whole numbers"),
    ("aquant", 3, 3, "quantized", "whole numbers"),
    ("asq", 4, 4, "fp", "whole numbers"),
    ("lsq_plus", 4, 4, "quantized", "whole numbers"),
    ("pot", 4, 4, "fp", "shifts"),
    ("post", 4, 4, "fp", "even and odd"),
    ("adq", 3, 2, "fp", "levels"),
]


@pytest.mark.parametrize(("name", "w", "a", "policy", "kind"), METHODS)
def test_codes_and_logits_are_those_of_the_float_network(
    name: str, w: int, a: int, policy: str, kind: str, tmp_path: Path
) -> None:
    exported, x = quantized(name, w, a, policy)
    integer, program = IntegerModel(exported), Program(exported)
    kinds = [layer.made.planes.kind for layer in integer.layers.values()]
    assert kinds == [kind, kind] if policy == "fp" else kinds[:3] == ["whole numbers", kind, kind]
    logits, codes = integer.run(x)
    maps = dict(program.values(x))
    for i in integer.layers:
        step = exported.program[i]
        read = exported.layers[step.name].input
        assert torch.equal(codes[i], read.codes(maps[step.inputs[0]])), step.name
    assert (logits - maps[len(maps) - 1]).abs().max() < 2e-5 * logits.abs().max()
    network_there = Network(network(write(exported, tmp_path / "net.safetensors")))
    assert np.array_equal(network_there(x.numpy()), logits.numpy())


def test_an_adaptive_step_is_the_same_in_any_batch_and_for_float_weights(tmp_path: Path) -> None:
    exported, x = quantized("asq", 4, 4)
    integer = IntegerModel(exported)
    assert torch.equal(integer(x), torch.cat([integer(part) for part in x.split(1)]))
    weights = {
        name: replace(layer, weight=layer.weight.value() if layer.input else layer.weight)
        for name, layer in exported.layers.items()
    }
    exported = replace(exported, layers=weights)
    floats = IntegerModel(exported)
    assert not floats.layers
    assert (floats(x) - integer(x)).abs().max() < 1e-4
    assert np.array_equal(
        Network(network(write(exported, tmp_path / "x.safetensors")))(x.numpy()), floats(x).numpy()
    )


@pytest.mark.parametrize("how", ["levels", "products"])
def test_any_codebook_has_partial_sums_and_a_table_of_products(how: str) -> None:
    exported, x = quantized("post", 4, 4)
    integer = IntegerModel(exported, how=how)
    assert {layer.made.planes.kind for layer in integer.layers.values()} == {how}
    assert (integer(x) - Program(exported)(x)).abs().max() < 2e-5


def test_depthwise_and_32_bit_maps() -> None:
    exported, x = quantized("lsq", 4, 4, "quantized", depthwise=True)
    for width, most in ((64, 1e-5), (32, 1e-3)):
        integer = IntegerModel(exported, width=width)
        largest = max(
            v for v, is_fixed in zip(integer.plan.bounds, integer.plan.fixed, strict=True) if is_fixed
        )
        assert width == 64 or 2**29 < largest * 2**integer.plan.f <= 2**30
        for i, v in integer.values(x):
            if v.dtype == torch.int64:
                assert int(v.abs().max()) <= integer.plan.bounds[i] * 2**integer.plan.f < 2 ** (width - 1)
        assert (integer(x) - Program(exported)(x)).abs().max() < most


def test_what_does_not_fit_is_refused() -> None:
    exported, _ = quantized("lsq", 4, 4)
    grouped = WeightTable(torch.zeros(2, 4, dtype=torch.uint8), torch.ones(1), torch.ones(2, 2), None, 1, 2)
    with pytest.raises(ValueError, match="each 2 neighbors"):
        planes(grouped, np.arange(4.0))
    wide = WeightTable(torch.full((1, 2**19), 255, dtype=torch.uint8), torch.arange(256.0))
    with pytest.raises(ValueError, match="fit no int32 accumulator"):
        planes(wide, np.arange(256.0), "whole numbers")
    assert planes(wide, np.arange(256.0)).kind == "levels"
    with pytest.raises(ValueError, match="width must be 32 or 64"):
        plan(exported, width=16)
    with pytest.raises(ValueError, match="within ±"):
        IntegerModel(exported)(torch.full((1, 3, 9, 9), 9.0))
    with pytest.raises(ValueError, match="step by step: it loops"):
        IntegerModel(Exported({}, {}, (), "it loops"))


def test_numpy_alone_gives_the_same_classes(tmp_path: Path) -> None:
    exported, _ = quantized("post", 4, 4, "8bit")
    file = write(exported, tmp_path / "net.safetensors")
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 9, 9), np.uint8)
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys; from qviz.export.run_numpy import main; code = main(sys.argv[1:]);"
        "print(*(m for m in ('torch', 'safetensors') if m in sys.modules)); sys.exit(code)"
    )
    command = [
        sys.executable,
        "-c",
        code,
        str(file),
        str(tmp_path / "images.npy"),
        "--logits",
        str(tmp_path / "y.npy"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    x = (torch.from_numpy(images) / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[
        :, None, None
    ]
    expected = IntegerModel(exported)(x)
    assert done.stdout.splitlines() == [*map(str, expected.argmax(1).tolist()), ""]
    assert np.abs(np.load(tmp_path / "y.npy") - expected.numpy()).max() < 1e-4


def test_numpy_refuses_a_damaged_file(tmp_path: Path) -> None:
    exported, _ = quantized("lsq", 2, 2)
    whole = write(exported, tmp_path / "net.safetensors").read_bytes()
    bad = tmp_path / "bad.safetensors"
    rng = np.random.default_rng(0)
    for place in [*rng.integers(0, len(whole), 10).tolist(), 0, 7, len(whole) - 1]:
        data = bytearray(whole)
        data[place] ^= 1 << int(rng.integers(8))
        bad.write_bytes(data)
        with pytest.raises(ValueError, match=r"bad\.safetensors is damaged"):
            network(bad)
    bad.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"bad\.safetensors is damaged"):
        network(bad)


def test_agreement_counts_and_explains_every_difference() -> None:
    exported, x = quantized("lsq", 4, 4)
    alike = compare_codes(exported, [x, x[:3]])
    assert (alike.answers.images, alike.touched, alike.answers.flips, alike.codes_equal) == (15, 0, [], 1.0)
    assert alike.total("codes") == 15 * (6 * 81 + 6 * 81)
    assert alike.answers.largest == alike.untouched_logits < 1e-5
    assert str(alike).startswith("15 images, 14,580 codes: 100.0000% equal")
    assert compare_codes(exported, [x], reference="real").codes_equal == 1.0

    integer = IntegerModel(exported)
    first = next(iter(integer.layers.values()))
    first._offset += 3 << (integer.plan.f - 30)  # 3 × 2^-30 off: within rounding, and nowhere near a border
    assert compare_codes(exported, [x], integer=integer).touched == 0
    first._offset += 1 << (integer.plan.f - 4)  # 1 / 16 off: some codes move, for no good reason
    wrong = compare_codes(exported, [x], integer=integer)
    assert wrong.total("border") == 0
    assert 0 < wrong.total("other") == wrong.layers["conv2"].other
    assert wrong.touched > 0


@pytest.mark.parametrize("levels", [[-2, -1, 0, 1], [-1, 1], [-1, -0.5, -0.25, 0, 0.25, 0.5, 1]])
def test_where_every_scale_is_a_power_of_two_float_sums_are_exact_and_so_are_the_logits(levels: list) -> None:
    torch.manual_seed(0)
    layers = {}
    for name, shape in (("a", (6, 3, 3, 3)), ("b", (6, 6, 3, 3)), ("c", (4, 6))):
        weight = WeightTable(
            torch.randint(len(levels), shape, dtype=torch.uint8),
            torch.tensor(levels, dtype=torch.float32),
            torch.tensor(0.25),
        )
        k = torch.arange(8.0)
        layers[name] = LayerTables(weight, InputTable((k[1:] - 0.5) / 4, k / 4), torch.arange(shape[0]) / 8)
    place = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1}
    steps = [Step("input"), Step("conv", (0,), "a", place), Step("conv", (1,), "b", place)]
    steps += [Step("relu", (2,)), Step("add", (1, 3)), Step("mean", (4,)), Step("flatten", (5,))]
    exported = Exported(layers, {}, (*steps, Step("linear", (6,), "c")))
    x = torch.randn(4, 3, 8, 8)
    assert torch.equal(IntegerModel(exported)(x), Program(exported)(x))
    assert compare_codes(exported, [x]).answers.largest == 0
