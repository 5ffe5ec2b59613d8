"""Model Explorer: the node data that it documents, keyed by the nodes that its PyTorch adapter shows."""

import json

import pytest
import torch
from torch import nn

from qviz.inspection.model_explorer import exported, nodes
from qviz.nn.convert import convert
from qviz.recipes import pair
from tests.inspection.small import inspection, network

IMAGES = torch.randn(2, 3, 8, 8)


class Twice(nn.Module):
    """One convolution in two places, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.part = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
        self.last = nn.Linear(8, 2)

    def forward(self, x):
        return self.last(self.part(self.part(x)))


@pytest.fixture(scope="module")
def program():
    return exported(network(), IMAGES)


def test_every_layer_is_keyed_by_its_own_node(program, tmp_path):
    found = inspection()
    content = json.loads(found.to_model_explorer(tmp_path / "data.json", program).read_text("utf-8"))
    assert content["results"] == {
        node: {"value": found[layer].outputs.local}
        for node, layer in {"conv2d": "first", "conv2d_1": "wide", "linear": "last"}.items()
    }
    assert {node.name for node in program.graph.nodes} > set(content["results"])
    assert [stop["stop"] for stop in content["gradient"]] == [0, 1]


def test_more_of_a_cost_is_worse_and_less_of_a_ratio(tmp_path):
    found = inspection()
    files = [found.to_model_explorer(tmp_path / key, figure=key) for key in ("cumulative", "on", "off")]
    ratio, on, off = (json.loads(file.read_text("utf-8")) for file in files)
    colors = [[stop["bgColor"] for stop in one["gradient"]] for one in (ratio, on, off)]
    assert colors[0] == colors[1][::-1] == colors[2][::-1]
    assert on["results"] == {one.name: {"value": one.sensitivity.on} for one in found.quantized}
    assert on["name"] == "small, lsq W4A4: cost, quantized alone"


def test_every_call_of_a_layer_is_a_node_also_of_a_converted_network():
    torch.manual_seed(0)
    net = Twice()
    convert(net, pair=pair("lsq", 4), first_last="quantized")
    kinds = [type(module) for module in net.modules()]
    images = torch.rand(1, 3, 8, 8)
    assert nodes(exported(net, images), ["part.0", "last", "gone"]) == {
        "part.0": ["conv2d", "conv2d_1"],
        "last": ["linear"],
        "gone": [],
    }
    assert [type(module) for module in net.modules()] == kinds


def test_what_cannot_be_written_is_said_in_a_sentence(program, tmp_path):
    path = tmp_path / "data.json"
    with pytest.raises(ValueError, match="figure must be one of local, cumulative, on, off, got 'loss'"):
        inspection().to_model_explorer(path, figure="loss")
    bare = inspection("post", 3, first_last="fp", sensitivity=False)
    with pytest.raises(ValueError, match="there is no cost, quantized alone of any layer"):
        bare.to_model_explorer(path, figure="on")
    with pytest.raises(ValueError, match="the program has no node of the layer 'first', nor of any other"):
        inspection().to_model_explorer(path, exported(nn.Linear(2, 2), torch.rand(1, 2)))
    assert not path.exists()


def test_a_network_that_cannot_be_exported_is_said_in_one_line():
    class Reads(nn.Module):
        def forward(self, x):
            return x if float(x.sum()) > 0 else -x

    with pytest.raises(RuntimeError, match=r"^torch.export cannot export the network: [^\n]+$"):
        exported(Reads(), IMAGES)
