"""ONNX files: what onnxruntime computes is what the quantizers say."""

from dataclasses import replace

import pytest
import torch
from onnx import load
from onnxruntime import InferenceSession
from torch import nn

from qviz import recipes
from qviz.export.exported import Exported, Step
from qviz.export.fold import layer_tables
from qviz.export.onnx import to_onnx
from qviz.export.program import Program
from qviz.export.tables import InputTable
from qviz.nn import calibrate, convert

SHAPE = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1}
PROGRAM = (
    Step("input"),
    Step("conv", (0,), "0", SHAPE),
    Step("batchnorm", (1,), "1", {"eps": 1e-5}),
    Step("relu", (2,)),
    Step("conv", (3,), "3", SHAPE | {"stride": [2, 2], "groups": 2}),
    Step("relu", (4,)),
    Step("mean", (5,)),
    Step("flatten", (6,)),
    Step("linear", (7,), "7"),
)


def network(name, w_bits, a_bits):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, 2, 1, groups=2, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )
    images = torch.randn(64, 3, 8, 8)
    convert(net, pair=recipes.pair(name, w_bits, a_bits), first_last="quantized", batch=images)
    calibrate(net, images)
    net.eval()
    state = {k: v for k, v in net.state_dict().items() if k.startswith("1.") and v.is_floating_point()}
    layers = {key: layer_tables(net[int(key)]) for key in "037"}
    return net, Exported(layers, state, PROGRAM, about={"shape": [3, 8, 8]})


def answers(path, images, *names):
    """What onnxruntime gives for some tensors of the graph."""
    made = load(path)
    made.graph.output.extend(made.graph.value_info.add(name=name) for name in names)
    session = InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(v) for v in session.run(None, {"images": images.numpy()})]


@pytest.mark.parametrize(
    ("name", "w_bits", "a_bits", "stored"),
    [
        ("lsq", 4, 4, "UINT4"),
        ("lsq_plus", 5, 3, "UINT8"),
        ("post", 3, 4, "UINT4"),
        ("adq", 3, 3, "UINT4"),
        ("aquant", 2, 3, "UINT4"),
        ("daq", 1, 1, "UINT4"),
        ("asq", 4, 4, "UINT4"),
    ],
)
def test_weights_are_equal_codes_are_equal_and_answers_agree(tmp_path, name, w_bits, a_bits, stored):
    net, exported = network(name, w_bits, a_bits)
    images = torch.randn(50, 3, 8, 8)
    forms = to_onnx(exported, tmp_path / "m.onnx")
    assert [form.stored for form in forms] == [stored] * 3
    assert [form.ties for form in forms] == [0] * 3
    read = [0, 3, 7]
    with torch.no_grad():
        values = [images]
        for layer in net:
            values.append(layer(values[-1]))
    names = [f"{i}.weight" for i in read] + ["0.read"]
    y, *found = answers(tmp_path / "m.onnx", images, *names)
    for i, weight in zip(read, found, strict=False):
        assert torch.equal(weight, net[i].quantized_weight())
    close = {"rtol": 1e-6, "atol": 0} if name == "asq" else {"rtol": 0, "atol": 0}  # its step is a sum
    torch.testing.assert_close(found[3], net[0].input_quantizer(images).detach(), **close)
    assert torch.equal(y.argmax(1), values[-1].argmax(1))


def test_a_layer_named_output_and_tables_of_one_value(tmp_path):
    _, exported = network("lsq", 4, 4)
    layers, steps = dict(exported.layers), list(PROGRAM)
    layers["output"], steps[1] = layers.pop("0"), replace(PROGRAM[1], name="output")
    nothing = torch.zeros(0)
    one = replace(layers["3"].weight, codes=torch.zeros(8, 4, 3, 3, dtype=torch.uint8), levels=torch.ones(1))
    layers["3"] = replace(layers["3"], weight=one, input=InputTable(nothing, torch.tensor([0.0])))
    layers["7"] = replace(layers["7"], input=InputTable(torch.zeros(0, 8), torch.rand(1, 8)))
    exported = replace(exported, layers=layers, program=tuple(steps))
    to_onnx(exported, tmp_path / "m.onnx")
    images = torch.randn(5, 3, 8, 8)
    y, weight = answers(tmp_path / "m.onnx", images, "3.weight")
    assert torch.equal(weight, one.value())
    torch.testing.assert_close(y, Program(exported)(images))
