"""ONNX files that are not what they seem: refused before anything is run, or in a sentence."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from qviz.export import describe, prove, to_onnx

IMAGES = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def exported():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten()]
    return describe(nn.Sequential(*layers).eval(), shape=(3, 12, 12))


def saved(model, path):
    path.write_bytes(model.SerializeToString())
    return path


def external(model):
    held = next(t for t in model.graph.initializer if t.name == "3.bias")
    held.ClearField("raw_data")
    held.data_location = onnx.TensorProto.EXTERNAL
    held.external_data.add(key="location", value="../secret")


def constant(model):
    """Numbers from another file in an attribute, and an operator that makes as many as it likes."""
    external(model)
    held = next(t for t in model.graph.initializer if t.name == "3.bias")
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["3.bias"], value=held))
    model.graph.initializer.remove(held)


def says(model, key, value):
    told = json.loads(model.metadata_props[0].value)
    told["about"][key] = value
    model.metadata_props[0].value = json.dumps(told)


def padded(model):
    """Zeros around the images without end."""
    next(node for node in model.graph.node if node.op_type == "Conv").input[0] = "more"
    pads = np.array([0, 0, 0, 0, 0, 0, 2**15, 2**15])
    model.graph.initializer.append(onnx.numpy_helper.from_array(pads, "pads"))
    model.graph.node.insert(0, onnx.helper.make_node("Pad", ["images", "pads"], ["more"]))


def no_input(model):
    model.graph.initializer.append(onnx.numpy_helper.from_array(IMAGES[:1].numpy(), "images"))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (external, "in another file"),
        (constant, "Constant is no operator"),
        (no_input, "no input"),
        (padded, r"'more' has the shape \[1, 3, 32780, 32780\]"),
        (lambda model: says(model, "mean", "x"), "mean is 'x'"),
    ],
)
def test_onnx_files_that_ask_for_more_than_arithmetic_are_refused(tmp_path, exported, change, why):
    to_onnx(exported, tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    change(model)
    with pytest.raises(ValueError, match=why):
        prove(saved(model, tmp_path / "m.onnx"), exported, IMAGES)


def test_a_graph_that_onnxruntime_does_not_run_is_refused_in_a_sentence(tmp_path, exported, capfd):
    to_onnx(exported, tmp_path / "m.onnx")
    with pytest.raises(ValueError, match="onnxruntime does not run it"):
        prove(tmp_path / "m.onnx", images=torch.zeros(2, 5, 12, 12))
    assert capfd.readouterr().err == ""
