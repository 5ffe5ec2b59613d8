"""What a module reads and gives, some images at a time, without the rest of the network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qviz import recipes
from qviz.nn import convert
from qviz.nn.ptq.inputs import collect, quantized_layers, reads


class Net(nn.Module):
    """A shared layer, a module that changes its input in place, and an end that must not be reached."""

    def __init__(self):
        super().__init__()
        self.shared, self.act, self.end = nn.Linear(3, 3), nn.ReLU(inplace=True), nn.Linear(3, 2)
        self.end.register_forward_pre_hook(lambda module, args: self.reached.append(len(args[0])))
        self.reached = []

    def forward(self, x):
        return self.end(self.act(self.shared(self.shared(x)))), x


def test_inputs_are_those_before_the_module_and_the_rest_is_not_run():
    torch.manual_seed(0)
    net, x = Net(), torch.randn(5, 3)
    inputs, outputs = collect(net, x, "act", batch=2)
    want = net.shared(net.shared(x)).detach()
    torch.testing.assert_close(inputs, want)
    torch.testing.assert_close(outputs, want.relu())
    assert net.reached == []
    assert net.training


def test_each_call_of_a_shared_module_is_seen():
    torch.manual_seed(0)
    net, x = Net(), torch.randn(4, 3)
    first, second, *others = reads(net, x, "shared", calls=2, batch=3)
    torch.testing.assert_close(first[0], x[:3])
    torch.testing.assert_close(second[0], first[1])
    assert [len(given) for given, _ in others] == [1, 1]
    with pytest.raises(ValueError, match="reach 'shared' 2 times in one run, not 3"):
        list(reads(net, x, "shared", calls=3))


def test_what_is_no_tensor_of_the_images_is_refused():
    net, x = Net(), torch.randn(4, 3)
    with pytest.raises(ValueError, match="no module 'nowhere'"):
        collect(net, x, "nowhere")
    with pytest.raises(ValueError, match="output of '' is a tuple"):
        collect(net, x, "")
    with pytest.raises(ValueError, match="input of '1' has 12 rows for 4 images"):
        collect(nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (1, 12))), x, "1", batch=4)
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules()]
    assert hooks == [0, 0, 0, 1]


def test_quantized_layers_come_in_running_order():
    net, x = Net(), torch.randn(4, 3)
    with pytest.raises(ValueError, match="no quantized layer"):
        quantized_layers(net, x)
    net.unused = nn.Linear(3, 3)
    convert(net, pair=recipes.pair("lsq", 4), first_last="quantized", skip="unused")
    for layer in (net.shared, net.end):
        layer.observe(x)
    assert quantized_layers(net, x) == {"shared": 2, "end": 1}
