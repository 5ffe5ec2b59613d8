"""Verification: what is right is proved, and whatever is a little wrong is named."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from qviz import recipes
from qviz.cli import main
from qviz.export import describe, prove, to_onnx, write
from qviz.export.source import open_source
from qviz.nn import calibrate, convert
from qviz.nn.models import create
from qviz.nn.train.packing import pack_weights
from tests.slow import slow

IMAGES = torch.randn(40, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def network(name="adq", w_bits=3, a_bits=3):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )
    convert(net, pair=recipes.pair(name, w_bits, a_bits), first_last="quantized", batch=IMAGES)
    calibrate(net, IMAGES)
    return net.eval()


@pytest.fixture(scope="module")
def exported():
    return describe(network(), shape=(3, 12, 12))


@pytest.mark.parametrize("name", ["daq", "adq", *slow("fp32", "lsq", "lsq_plus", "asq", "aquant")])
def test_both_files_are_proved(tmp_path, name):
    if name == "fp32":
        net = create("resnet20").eval()
        made, images = describe(net, shape=(3, 32, 32)), torch.randn(2, 3, 32, 32)
    else:
        net, images = network(name, 1 if name == "daq" else 4, 4), IMAGES
        made = describe(net, shape=(3, 12, 12))
    write(made, tmp_path / "m.safetensors")
    to_onnx(made, tmp_path / "m.onnx", ties="even" if name == "lsq" else "down")
    net.train()
    for kind in ("safetensors", "onnx"):
        proof = prove(tmp_path / f"m.{kind}", made, images, model=net)
        assert net.training
        assert proof.ok, str(proof)
        assert proof.answers.agreement == 1.0
        assert (proof.codes is None) == (kind == "safetensors" or name == "fp32")
        assert proof.codes is None or proof.codes.codes_equal == 1.0
        assert {row.bits.bits for row in proof.layers} == {{"fp32": 32, "daq": 1}.get(name, 4)}
    assert ("ties go to even" in str(proof)) == (name == "lsq")


class Heads(nn.Module):
    """A head that training alone uses, and a branch that nobody reads."""

    def __init__(self):
        super().__init__()
        self.conv, self.training_head, self.unread = nn.Conv2d(3, 8, 3), nn.Linear(8, 3), nn.Linear(8, 2)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        y = self.conv(x).relu().mean((2, 3))
        self.unread(y)
        return (self.head(y), self.training_head(y)) if self.training else self.head(y)


@pytest.mark.parametrize("kind", ["safetensors", "onnx"])
def test_layers_that_no_step_uses_need_not_be_in_the_file(tmp_path, kind):
    torch.manual_seed(0)
    net, path = Heads().eval(), tmp_path / f"m.{kind}"
    convert(net, pair=recipes.pair("lsq", 4), first_last="quantized", batch=IMAGES)
    calibrate(net, IMAGES)
    made = describe(net, shape=(3, 12, 12))
    (to_onnx if kind == "onnx" else write)(made, path)
    assert prove(path, made, IMAGES, model=net).ok
    with torch.no_grad():
        net.head.weight[0, 0] += 1.0
    assert "head" in prove(path, describe(net, shape=(3, 12, 12))).problems[0]


class Inverted(nn.Module):
    """What MobileNetV2 has, in small: 1 x 1 and depthwise convolutions, ReLU6, a residual sum."""

    def __init__(self):
        super().__init__()
        self.stem, self.up, self.down = nn.Conv2d(3, 6, 3, 2), nn.Conv2d(6, 12, 1), nn.Conv2d(12, 6, 1)
        self.depthwise, self.fc = nn.Conv2d(12, 12, 3, 1, 1, groups=12, bias=False), nn.Linear(6, 5)
        self.norm, self.act, self.pool = nn.BatchNorm2d(12), nn.ReLU6(), nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        x = self.act(self.stem(x))
        x = x + self.down(self.act(self.norm(self.depthwise(self.act(self.up(x))))))
        return self.fc(self.pool(x).flatten(1))


@pytest.mark.parametrize("name", ["lsq", "post"])
def test_a_network_like_mobilenet_is_proved(tmp_path, name):
    torch.manual_seed(0)
    net = Inverted()
    convert(net, pair=recipes.pair(name, 4, 4), first_last="8bit", batch=IMAGES)
    calibrate(net, IMAGES)
    made = describe(net.eval(), shape=(3, 12, 12))
    write(made, tmp_path / "m.safetensors")
    to_onnx(made, tmp_path / "m.onnx")
    for kind, against in (("safetensors", made), ("onnx", made), ("safetensors", None)):
        proof = prove(tmp_path / f"m.{kind}", against, IMAGES, model=net if against else None)
        assert proof.ok, str(proof)
        assert proof.answers.agreement == 1.0
        assert proof.codes is None or proof.codes.codes_equal == 1.0
        assert [row.bits.bits for row in proof.layers] == [8, 4, 4, 4, 8]


def changed(exported, what):
    """A network of which one number of layer 3 is another."""
    layer = exported.layers["3"]
    weight, read, tensors = layer.weight, layer.input, exported.tensors
    if what == "level":
        levels = weight.levels.clone()
        levels[4] = torch.nextafter(levels[4], torch.tensor(9.0))
        weight = replace(weight, levels=levels)
    elif what == "code":
        codes = weight.codes.clone()
        codes[1, 2, 0, 1] ^= 1
        weight = replace(weight, codes=codes)
    elif what == "border":
        borders = read.borders.clone()
        borders[3] = torch.nextafter(borders[3], torch.tensor(9.0))
        read = replace(read, borders=borders)
    else:
        tensors = {**tensors, "1.running_mean": tensors["1.running_mean"] + torch.eye(8)[0] * 1e-3}
    return replace(
        exported, layers={**exported.layers, "3": replace(layer, weight=weight, input=read)}, tensors=tensors
    )


@pytest.mark.parametrize("what", ["level", "code", "border", "mean"])
@pytest.mark.parametrize("kind", ["safetensors", "onnx"])
def test_one_number_that_was_moved_is_found_and_named(tmp_path, exported, what, kind):
    path = tmp_path / f"m.{kind}"
    (write if kind == "safetensors" else to_onnx)(changed(exported, what), path)
    proof = prove(path, exported, IMAGES)
    assert not proof.ok
    assert any(("1" if what == "mean" else "3") in problem for problem in proof.problems), proof.problems
    assert proof.codes is None or what != "code" or proof.codes.total("other") > 0
    if what != "mean":
        assert [row.difference != "" for row in proof.layers] == [False, True, False]


def test_a_foreign_onnx_file_is_measured_and_its_answers_are_compared(tmp_path, exported):
    to_onnx(exported, tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "m.onnx")
    proof = prove(tmp_path / "m.onnx", exported, IMAGES)
    assert proof.problems == ("it names no steps",)
    assert proof.answers.agreement == 1.0
    assert [row.bits.bits for row in proof.layers] == [3, 3, 3]


def saved(model, path):
    path.write_bytes(model.SerializeToString())
    return path


def test_nodes_that_only_one_range_of_inputs_reaches_are_found(tmp_path, exported):
    to_onnx(exported, tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    nodes, make = model.graph.node, onnx.helper.make_node
    at, read = next((i, node) for i, node in enumerate(nodes) if node.output[0] == "0.read")
    read.output[0] = "right"
    for name, number in (("low", 0.123456), ("high", 0.123457), ("wrong", 99.0)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(number), name))
    nodes.insert(at + 1, make("Greater", ["images", "low"], ["above"]))
    nodes.insert(at + 2, make("Greater", ["images", "high"], ["beyond"]))
    nodes.insert(at + 3, make("Where", ["beyond", "right", "wrong"], ["chosen"]))
    nodes.insert(at + 4, make("Where", ["above", "chosen", "right"], ["0.read"]))
    proof = prove(saved(model, tmp_path / "m.onnx"), exported, IMAGES)
    assert {row.difference for row in proof.layers} == {""}
    assert proof.answers.agreement == 1.0
    assert [problem[:14] for problem in proof.problems] == ["graph: 0.read,"]


def test_what_is_compared_with_nothing_is_not_proved(tmp_path, exported, capsys):
    info = onnx.helper.make_tensor_value_info
    ends = [
        [info(name, onnx.TensorProto.FLOAT, dims)] for name, dims in (("x", list("NCHW")), ("y", list("NK")))
    ]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Flatten", ["x"], ["y"])], "empty", *ends)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    for images in (None, IMAGES):
        proof = prove(saved(model, tmp_path / "m.onnx"), images=images)
        assert not proof.ok
        assert str(proof).endswith("measured, not compared")
    path = write(exported, tmp_path / "m.safetensors")
    np.save(tmp_path / "x.npy", IMAGES.numpy())
    for data, code, end in (
        ([], 1, "measured, not compared"),
        (["--data", f"{tmp_path}/x.npy"], 0, "proved"),
    ):
        assert main(["verify", str(path), *data]) == code
        assert capsys.readouterr().out.splitlines()[-1] == end


@pytest.mark.slow
def test_a_checkpoint_says_whether_weights_are_standardized_and_of_which_data_it_is(tmp_path):
    torch.manual_seed(0)
    net, images = create("resnet20"), torch.randn(2, 3, 32, 32)
    own = replace(recipes.pair("lsq", 4), name="own", method=None, standardize=True)
    convert(net, pair=own, first_last="fp", batch=images)
    calibrate(net, images)
    path = tmp_path / "best.safetensors"
    for info, side in (({}, 32), ({"experiment": {"data": "imagenet"}}, 224)):
        path.write_bytes(pack_weights(net.eval(), info))
        source = open_source(path)
        assert source.describe().about["shape"] == [3, side, side]
    with torch.no_grad():
        assert torch.equal(source.model(images), net(images))


def test_a_state_that_a_training_saved_is_opened_and_told(tmp_path, capsys):
    net, path = create("resnet20").eval(), tmp_path / "last.pt"
    torch.save(
        {"state_dict": torch.nn.DataParallel(net).state_dict(), "optimizer": {"m": net.conv1.weight}}, path
    )
    source = open_source(path)
    assert torch.equal(source.model.fc.weight, net.fc.weight)
    assert source.note == f"Of {path}: what is under 'state_dict', names without the prefix 'module.'."
    assert main(["export", str(path), "--to", str(tmp_path / "m.safetensors"), "--model", "resnet18"]) == 2
    assert "last.pt (what is under 'state_dict', names without" in capsys.readouterr().err


@pytest.mark.slow
def test_the_commands_from_a_state_dict_to_an_accuracy(tmp_path, capsys):
    torch.manual_seed(0)
    net, images = create("resnet20"), torch.randn(8, 3, 32, 32)
    convert(net, pair=recipes.pair("post", 3, 3), first_last="8bit", batch=images)
    calibrate(net, images)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "best.safetensors").write_bytes(pack_weights(net.eval(), {}))
    np.save(tmp_path / "x.npy", images.numpy())
    with torch.no_grad():
        assert torch.equal(open_source(tmp_path / "run").model(images), net(images))
        classes = net(images).argmax(1).tolist()
    for kind in ("safetensors", "onnx"):
        to, against = f"{tmp_path}/m.{kind}", f"--against={tmp_path / 'run'}"
        assert main(["export", str(tmp_path / "run"), "--to", to]) == 0
        assert main(["verify", to, against, f"--data={tmp_path / 'x.npy'}"]) == 0
        assert capsys.readouterr().out.endswith("\nproved\n")
        assert main(["run", to, "--data", str(tmp_path / "x.npy")]) == 0
        assert [int(line) for line in capsys.readouterr().out.split()] == classes
    net.layer1[0].conv2.weight.data[0] *= -1
    torch.save(net.state_dict(), tmp_path / "other.pt")
    for kind in ("safetensors", "onnx"):
        against = f"--against={tmp_path / 'other.pt'}"
        assert main(["verify", f"{tmp_path}/m.{kind}", against, f"--data={tmp_path / 'x.npy'}"]) == 1
        assert "DIFFERS: layer1.0.conv2: " in capsys.readouterr().out


def test_what_the_commands_cannot_use_is_refused_in_a_sentence(tmp_path, exported, capsys):
    path, nan, text = write(exported, tmp_path / "m.safetensors"), tmp_path / "nan.npy", tmp_path / "text.npy"
    np.save(nan, np.full((2, 3, 12, 12), np.nan, np.float32))
    text.write_text("hello")
    for arguments, said in (
        (["run", path, "--data", nan], "nan.npy holds pixels that are NaN or infinite"),
        (["run", path, "--data", text], "text.npy is no .npy file of numbers, or is damaged"),
        (
            ["verify", path, "--against", path, "--model", "resnet18"],
            "m.safetensors is of a network without a name, not of resnet18",
        ),
    ):
        assert main([str(part) for part in arguments]) == 2
        assert capsys.readouterr().err.endswith(f"{said}\n")


@pytest.mark.parametrize("policy", ["fp", "8bit", "quantized"])
def test_the_policy_of_first_and_last_layer_is_read_from_their_levels(tmp_path, policy):
    torch.manual_seed(0)
    net, images = create("resnet20"), torch.randn(2, 3, 32, 32)
    convert(net, pair=recipes.pair("lsq", 3), first_last=policy, batch=images)
    calibrate(net, images)
    (tmp_path / "best.safetensors").write_bytes(pack_weights(net.eval(), {"epoch": 1}))
    assert open_source(tmp_path).describe().about["policy"] == policy
