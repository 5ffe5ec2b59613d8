"""Networks at the edge of what integers hold or steps do: each runner agrees with the float network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qviz import recipes
from qviz.export import describe, write
from qviz.export.agreement import REFERENCES, compare_codes
from qviz.export.cost import costs
from qviz.export.exported import Exported, Step
from qviz.export.integer import IntegerModel
from qviz.export.numpy_file import network
from qviz.export.program import Program
from qviz.export.run_numpy import Network, main
from qviz.export.size import sizes
from qviz.export.tables import InputTable, LayerTables, WeightTable
from qviz.nn import calibrate, convert

POINT = {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 1}


def quantized(net: nn.Module, x: Tensor, name: str, policy: str = "quantized") -> Exported:
    convert(net, pair=recipes.pair(name, 4, 4), first_last=policy, batch=x)
    net.train()
    calibrate(net, x)
    return describe(net.eval(), shape=tuple(x.shape[1:]))


def agree(exported: Exported, x: Tensor, folder: Path, apart: float = 2e-5) -> None:
    """See that integers and numpy have one answer, that of the float network, and its codes."""
    expected, integer = Program(exported)(x), IntegerModel(exported)
    logits = integer(x)
    assert (logits - expected).abs().max() <= apart * expected.abs().max()
    there = Network(network(write(exported, folder / "net.safetensors")))
    assert np.array_equal(there(x.numpy()), logits.numpy())
    for reference in REFERENCES:
        assert compare_codes(exported, [x, x[:0]], integer=integer, reference=reference).codes_equal == 1


@pytest.mark.parametrize(("name", "policy"), [("lsq", "quantized"), ("lsq", "fp"), ("asq", "quantized")])
def test_a_linear_layer_acts_on_the_last_axis_of_a_map(name: str, policy: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Flatten(), nn.Linear(192, 5)
    )
    with torch.no_grad():
        net[2].bias += torch.arange(6)
    x = torch.randn(5, 3, 8, 8).clamp(-2, 2)
    exported = quantized(net, x, name, policy)
    agree(exported, x, tmp_path)
    assert costs(exported).row("2").macs == 8 * 6 * 32


def test_a_linear_layer_in_floating_point_has_its_bias_along_the_last_axis(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm2d(3), nn.Flatten())
    with torch.no_grad():
        net[0].bias.copy_(torch.arange(4))
        net[1].bias.copy_(torch.arange(3))
    agree(describe(net.eval(), shape=(3, 8, 8)), torch.randn(2, 3, 8, 8), tmp_path, apart=1e-6)


def test_a_large_mean_of_large_values_does_not_overflow(tmp_path: Path) -> None:
    weight = WeightTable(torch.full((1, 16, 1, 1), 255, dtype=torch.uint8), torch.arange(256.0) / 32)
    read = InputTable((torch.arange(255.0) + 0.5) / 32, torch.arange(256.0) / 32)
    layers = {"c": LayerTables(weight, read)}
    exported = Exported(layers, {}, (Step("input"), Step("conv", (0,), "c", POINT), Step("mean", (1,))))
    agree(exported, torch.full((1, 16, 128, 128), 7.96875), tmp_path, apart=0)


def test_a_weight_with_an_offset_has_a_plane_of_its_own_and_no_products(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weight = WeightTable(
        torch.randint(4, (5, 6, 1, 1), dtype=torch.uint8), torch.arange(4.0), torch.rand(5), torch.rand(5), 0
    )
    read = InputTable(torch.arange(7.0) / 7, torch.arange(8.0) / 8)
    exported = Exported({"c": LayerTables(weight, read)}, {}, (Step("input"), Step("conv", (0,), "c", POINT)))
    agree(exported, torch.rand(9, 6, 1, 1), tmp_path)
    with pytest.raises(ValueError, match="layer c has no integer arithmetic: the weight has an offset"):
        IntegerModel(exported, how="products")


def test_a_batchnorm_that_is_not_folded_reads_what_float32_holds(tmp_path: Path) -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.fc = nn.Conv2d(3, 6, 1), nn.Conv2d(3, 6, 1), nn.Linear(6, 5)
            self.bn, self.pool = nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.pool(self.bn(self.a(x) + self.b(x)).relu()).flatten(1))

    torch.manual_seed(0)
    x = torch.randn(64, 3, 9, 9).clamp(-2, 2)
    agree(quantized(Late(), x, "post", "fp"), x, tmp_path)


def test_a_layer_used_twice_is_stored_once_and_one_that_is_not_used_is_stored(tmp_path: Path) -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc, self.unused = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 2), nn.Linear(30, 9)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.conv(self.conv(x).relu()).mean((2, 3)))

    torch.manual_seed(0)
    x = torch.randn(4, 3, 5, 5).clamp(-2, 2)
    exported = quantized(Shared(), x, "lsq")
    agree(exported, x, tmp_path)
    codes = IntegerModel(exported).run(x)[1]
    maps = dict(Program(exported).values(x))
    assert all(
        torch.equal(codes[i], exported.layers["conv"].input.codes(maps[exported.program[i].inputs[0]]))
        for i in list(codes)[:2]
    )
    stored, found = sizes(exported), costs(exported)
    assert found.totals["size"] == stored.total - stored.header
    assert [row.layer for row in found.rows if row.size] == ["conv", "fc"]


def test_no_images_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = write(describe(nn.Sequential(nn.Conv2d(3, 2, 1))), tmp_path / "net.safetensors")
    for images in (np.zeros((0, 3, 4, 4), np.uint8), np.float32(1)):
        np.save(tmp_path / "x.npy", images)
        assert main([str(net), str(tmp_path / "x.npy")]) == 2
        assert "x.npy holds no images" in capsys.readouterr().err
    (tmp_path / "x.npy").write_bytes(b"")
    assert main([str(net), str(tmp_path / "x.npy")]) == 2
