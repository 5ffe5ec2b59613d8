"""A network's forward pass as steps: run one by one they give the network's own output, bit for bit."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qviz
from qviz.export.exported import OPS, Exported
from qviz.export.fold import layer_tables
from qviz.export.program import Program
from qviz.export.trace import trace
from qviz.nn import calibrate, convert
from qviz.nn.models import create


def exported(model: nn.Module) -> Exported:
    layers = {n: layer_tables(m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    steps, why = trace(model)
    return Exported(layers, dict(model.state_dict()), steps, why)


def assert_alike(model: nn.Module, x: Tensor) -> tuple[str, ...]:
    program = Program(exported(model))
    model.eval()
    with torch.no_grad():
        assert torch.equal(program(x), model(x))
    return tuple(step.op for step in program.exported.program)


@pytest.mark.parametrize(("name", "size"), [("resnet20", 16), ("resnet18", 32), ("mobilenet_v2", 32)])
def test_the_models_of_the_package_run_step_by_step(name: str, size: int) -> None:
    torch.manual_seed(0)
    model, x = create(name), torch.randn(2, 3, size, size)
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.running_mean, -0.3, 0.3)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
    if name == "resnet20":
        convert(model, pair=qviz.recipes.pair("lsq", 3), batch=x)
        calibrate(model, x)
    assert set(assert_alike(model, x)) <= set(OPS)
    assert model.training is False


class Odd(nn.Module):
    """All that a step stands for beside the modules, and works in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding="same", dilation=2)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.act = nn.ReLU(inplace=True)
        self.fc = nn.Linear(6 * 5 * 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        y = self.act(x)  # x changes too
        x = torch.add(x, F.relu6(y))
        x = self.pool(F.dropout(x, training=self.training))
        x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1))
        x += x.clamp(-1, 2)
        x = torch.relu_(x).view(x.size(0), -1)
        torch.clamp_(x, 0, 0.9)  # what it returns is not read
        return self.fc(x)


def test_functions_slices_and_what_works_in_place() -> None:
    torch.manual_seed(1)
    ops = assert_alike(Odd(), torch.randn(2, 3, 20, 20))
    expected = "input conv relu clip add maxpool subsample pad_channels clip add relu flatten clip linear"
    assert ops == tuple(expected.split())


class Calls(nn.Module):
    def __init__(self, body: object) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, x)


def aliased(m: Calls, x: Tensor) -> Tensor:
    i = x = m.conv(x)
    x += x.relu()
    return x + i  # i changed too


def test_an_addition_in_place_changes_all_names_of_a_map() -> None:
    assert assert_alike(Calls(aliased), torch.randn(2, 3, 4, 4)) == ("input", "conv", "relu", "add", "add")


def part(m: Calls, x: Tensor) -> Tensor:
    x = m.conv(x)
    x[:, :, ::2, ::2].relu_()
    return x + x


def base(m: Calls, x: Tensor) -> Tensor:
    x = m.conv(x)
    y = x.flatten(1)
    F.relu(x, True)
    return y


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (lambda m, x: torch.sigmoid(m.conv(x)), "sigmoid"),
        (lambda m, x: m.conv(x) if x.sum() > 0 else x, "depends on values"),
        (lambda m, x: m.conv(x) + 1, "add(conv, 1)"),
        (lambda m, x: m.conv(x) * m.conv.weight.sum(), "conv.weight"),
        (lambda m, x: (m.conv(x), x), "not one tensor"),
        (lambda m, x: m.conv(x)[:, 1:], "getitem"),
        (lambda m, x: F.pad(m.conv(x), (1, 1, 1, 1)), "pad"),
        (lambda m, x: m.conv(x).mean(1), "mean"),
        (lambda m, x: torch.add(m.conv(x), x, out=x), "out=x"),
        (part, "relu_ changes a part of conv, which is read later"),
        (base, "relu changes a part of flatten, which is read later"),
    ],
)
def test_what_cannot_be_traced_is_named(body: object, names: str) -> None:
    steps, why = trace(Calls(body))
    assert steps == ()
    assert names in why
    assert "\n" not in why


def test_modules_that_no_step_stands_for_are_named() -> None:
    hooked = nn.Sequential(nn.Conv2d(3, 3, 1))
    hooked[0].register_forward_hook(lambda module, args, output: output + 1)
    replaced = nn.Sequential(nn.Conv2d(3, 3, 1))
    replaced[0].forward = torch.sigmoid
    for model, names in (
        (nn.Sequential(nn.Conv2d(3, 3, 1), nn.AvgPool2d(2)), "the module 1 is an AvgPool2d"),
        (nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect")), "pads by reflect"),
        (nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False)), "keeps no statistics"),
        (nn.Sequential(nn.AdaptiveAvgPool2d(2)), "averages to 2"),
        (hooked, "the module 0 has hooks"),
        (replaced, "the module 0 has a forward set on the instance"),
    ):
        steps, why = trace(model)
        assert steps == ()
        assert names in why
        with pytest.raises(ValueError, match="step by step"):
            Program(Exported({}, {}, steps, why))
