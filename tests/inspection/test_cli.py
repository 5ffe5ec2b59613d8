"""``qviz inspect``: what reaches the inspection, what is written, and what is refused in one line."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import qviz.inspection
import qviz.inspection.model_explorer
from qviz import recipes, shipped
from qviz.cli import main
from qviz.nn import calibrate, convert
from qviz.nn.data import cifar10
from qviz.nn.data.augment import CIFAR10_MEAN, CIFAR10_STD, IMAGENET_MEAN, IMAGENET_STD, normalize
from qviz.nn.data.photos import photo
from qviz.nn.models import create
from qviz.nn.ptq.fold import fold_batchnorm
from qviz.nn.train.packing import pack_weights

POST = ("--recipe", "post", "--bits", "4")


def run(capsys, *args):
    """Run the command in this process: (exit code, stdout, stderr)."""
    try:
        code = main(["inspect", *map(str, args)])
    except SystemExit as stop:
        code = stop.code
    return code, *capsys.readouterr()


def shipped_weights():
    return load_file(shipped.checkpoint("resnet20_fp32.safetensors"))


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    """A folder as ``qviz train`` leaves it."""
    net, images = create("resnet20"), torch.rand(2, 3, 32, 32)
    convert(net, pair=recipes.pair("lsq", 3), batch=images)
    calibrate(net, images)
    folder = tmp_path_factory.mktemp("run")
    (folder / "best.safetensors").write_bytes(pack_weights(net.eval(), {}))
    return folder


class Bomb:
    """What unpickling it does, a test can see."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


class Found:
    """Stands for an inspection, and keeps what it was asked for."""

    def __init__(self):
        self.written, self.model, self.images, self.how = {}, None, None, {}

    def __call__(self, model, images, **how):
        self.model, self.images, self.how = model, images, how
        return self

    def text(self, top):
        return f"the worst {top}"

    def save(self, path):
        self.written["json"] = path

    def to_html(self, path):
        self.written["html"] = path

    def exported(self, model, images):
        assert (model, images) == (self.model, self.images)
        self.program = torch.export.export(torch.nn.Identity(), (torch.rand(1),))
        return self.program

    def to_model_explorer(self, path, program):
        assert program is self.program
        self.written["model-explorer"] = path


@pytest.fixture
def found(monkeypatch):
    monkeypatch.setattr(qviz.inspection, "inspect", stand_in := Found())
    monkeypatch.setattr(qviz.inspection.model_explorer, "exported", stand_in.exported)
    return stand_in


def photos(folder, *sizes):
    from PIL import Image

    folder.mkdir()
    for i, size in enumerate(sizes):
        noise = np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
    return folder


def test_the_sample_comes_with_its_classes_and_every_file_is_written(capsys, tmp_path, found):
    files = [f"--{kind}={tmp_path / kind}" for kind in ("json", "html", "model-explorer")]
    how = ("--recipe", "post", "--bits", "3,4", "--images", "5", "--top", "2", "--first-last", "fp")
    code, out, err = run(capsys, "resnet20", *how, *files)
    assert (code, err) == (0, "")
    *lines, beside, last = out.splitlines()
    assert [*lines, last] == ["the worst 2", *(str(path) for path in found.written.values())]
    network, said = beside.split("  ")
    assert (network, said) == (f"{last}.pt2", "open it in Model Explorer, and lay model-explorer over it")
    assert len(torch.export.load(network).graph.nodes) == len(found.program.graph.nodes)
    assert found.written == {kind: tmp_path / kind for kind in found.written}
    assert len(found.written) == 3
    sample = cifar10("test", source="sample")
    images, labels = found.images
    assert torch.equal(labels, sample.labels[:5])
    assert torch.equal(images, normalize(sample.images[:5], CIFAR10_MEAN, CIFAR10_STD))
    assert torch.equal(found.model.conv1.weight, shipped_weights()["conv1.weight"])
    pair = found.how["pair"]
    assert (pair.name, pair.w_bits, pair.a_bits) == ("post", 3, 4)
    assert (found.how["top"], found.how["first_last"], found.how["name"]) == (2, "fp", "resnet20")


def test_photos_of_many_sizes_are_prepared_as_the_network_was_trained(capsys, tmp_path, found):
    folder = photos(tmp_path / "photos", (300, 200), (90, 400), (224, 224), (60, 60))
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(pack_weights(create("resnet20"), {"experiment": {"data": "imagenet"}}))
    assert run(capsys, weights, *POST, "--data", folder)[0] == 0
    expected = torch.stack([photo(folder / f"{i}.png") for i in range(4)])
    assert torch.equal(found.images, expected)
    assert run(capsys, weights, *POST, "--data", folder, "--images", "2")[0] == 0
    assert torch.equal(found.images, expected[::2])
    small = photos(tmp_path / "small", (40, 50))
    assert run(capsys, "resnet20", *POST, "--data", small)[0] == 0
    mean, std = torch.tensor(CIFAR10_MEAN).view(3, 1, 1), torch.tensor(CIFAR10_STD).view(3, 1, 1)
    other, scale = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    pixels = photo(small / "0.png", 32) * scale + other
    torch.testing.assert_close(found.images[0], (pixels - mean) / std)


def test_a_quantized_run_is_inspected_as_it_is(capsys, quantized, found):
    assert run(capsys, quantized)[0] == 0
    assert found.how["pair"] is None
    code, out, err = run(capsys, quantized, *POST)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "is quantized already and is inspected as it is: leave out --recipe, --bits" in err


def test_a_step_for_each_channel(capsys, found):
    assert run(capsys, "resnet20", "--recipe", "lsq", "--bits", "3,8", "--per-channel")[0] == 0
    pair = found.how["pair"]
    assert (pair.name, pair.w_bits, pair.a_bits) == ("lsq per channel", 3, 8)
    assert pair.weight(torch.nn.Linear(4, 7)).range.axis == 0


def test_the_reference_is_folded_where_the_quantized_network_is(capsys, tmp_path, quantized, found):
    assert run(capsys, quantized, "--reference", "resnet20")[0] == 0
    weights = shipped_weights()
    assert torch.equal(found.how["reference"].conv1.weight, weights["conv1.weight"])
    net, images = create("resnet20"), torch.rand(2, 3, 32, 32)
    convert(fold_batchnorm(net.eval(), images), pair=recipes.pair("lsq", 3), batch=images)
    calibrate(net, images)
    folded = saved(tmp_path, net.state_dict())
    assert run(capsys, folded, "--reference", "resnet20")[0] == 0
    factor = weights["bn1.weight"] / (weights["bn1.running_var"] + 1e-5).sqrt()
    expected = weights["conv1.weight"] * factor.view(-1, 1, 1, 1)
    torch.testing.assert_close(found.how["reference"].conv1.weight, expected)
    assert run(capsys, folded)[0] == 0
    assert found.how["reference"] is None


def hostile(folder):
    (folder / "hostile.pth").write_bytes(pickle.dumps(Bomb(folder / "exploded")))
    return folder / "hostile.pth"


def saved(folder, tensors):
    save_file(tensors, folder / "w.safetensors")
    return folder / "w.safetensors"


def spoiled(folder):
    weights = shipped_weights()
    weights["layer1.0.conv2.weight"][0, 0] = torch.nan
    weights["fc.bias"][3] = torch.inf
    return saved(folder, weights)


def array(folder, shape):
    np.save(folder / "x.npy", np.zeros(shape, np.float32))
    return folder / "x.npy"


def text_only(folder):
    (folder / "notes").mkdir()
    (folder / "notes" / "photo.txt").write_text("no photo")
    return folder / "notes"


def broken_photo(folder):
    (folder / "photos").mkdir()
    (folder / "photos" / "a.jpg").write_bytes(b"\xff\xd8\xff")
    return folder / "photos"


REFUSED = {
    "no such file": (lambda f: (f / "absent.pth", *POST), "absent.pth: no such file"),
    "no such name": (lambda f: ("resnet21", *POST), "resnet21 is no file, no folder and none of resnet20"),
    "two names": (lambda f: ("resnet20", "--model", "resnet18", *POST), "leave out --model resnet18"),
    "code in a pickle": (lambda f: (hostile(f), *POST), "hostile.pth"),
    "another architecture": (
        lambda f: (saved(f, shipped_weights()), "--model", "resnet18", *POST),
        "not of resnet18: conv1.weight is (16, 3, 3, 3) and should be (64, 3, 7, 7), layer1.0.conv1",
    ),
    "no known architecture": (
        lambda f: (saved(f, {"norm.weight": torch.ones(4)}), *POST),
        "resnet20 is the nearest: conv1.weight is not there and should be (16, 3, 3, 3)",
    ),
    "an unknown architecture": (
        lambda f: (saved(f, shipped_weights()), "--model", "resnet21", *POST),
        "model must be one of resnet20",
    ),
    "NaN": (
        lambda f: (spoiled(f), *POST),
        "layer1.0.conv2.weight has 9 of 2,304, fc.bias has 1 of 10",
    ),
    "no recipe": (lambda f: ("resnet20",), "say how to quantize it, such as --recipe post --bits 4"),
    "no bits": (lambda f: ("resnet20", "--recipe", "post"), "--recipe post needs --bits"),
    "nothing to quantize": (lambda f: ("resnet20", "--recipe", "fp32", "--bits", "8"), "quantizes nothing"),
    "bits without a recipe": (lambda f: ("resnet20", "--bits", "4"), "--bits belongs to a --recipe"),
    "channels without a recipe": (
        lambda f: ("resnet20", "--per-channel"),
        "--per-channel belongs to a --recipe",
    ),
    "no ranges by channel": (
        lambda f: ("resnet20", "--recipe", "adq", "--bits", "4", "--per-channel"),
        "weights of adq have ranges of their own; per channel goes with ste, lsq",
    ),
    "a reference for nothing": (
        lambda f: ("resnet20", *POST, "--reference", "resnet20"),
        "--reference belongs to a quantized network, and resnet20 is in floating point",
    ),
    "too many bits": (lambda f: ("resnet20", "--recipe", "post", "--bits", "12"), "12"),
    "bits in words": (lambda f: ("resnet20", "--recipe", "post", "--bits", "four"), "whole numbers"),
    "an unknown recipe": (lambda f: ("resnet20", "--recipe", "posst", "--bits", "4"), "got 'posst'"),
    "an unknown policy": (lambda f: ("resnet20", *POST, "--first-last", "none"), "'none'"),
    "no images": (lambda f: ("resnet20", *POST, "--images", "0"), "--images must be at least 1, got 0"),
    "an empty folder": (lambda f: ("resnet20", *POST, "--data", f), "holds no photos (.jpeg, .jpg, .png)"),
    "no photos": (lambda f: ("resnet20", *POST, "--data", text_only(f)), "holds no photos"),
    "a broken photo": (lambda f: ("resnet20", *POST, "--data", broken_photo(f)), "a.jpg cannot be decoded"),
    "another shape": (
        lambda f: ("resnet20", *POST, "--data", array(f, (2, 1, 32, 32))),
        "has the shape (2, 1, 32, 32); the network takes images of (3, 32, 32)",
    ),
    "an empty array": (lambda f: ("resnet20", *POST, "--data", array(f, (0, 3, 32, 32))), "(0, 3, 32, 32)"),
    "no data": (
        lambda f: (saved(f, create("resnet20", num_classes=7).state_dict()), *POST),
        "give --data, images for resnet20: a folder of photos or a .npy file",
    ),
    "no folder for the page": (lambda f: ("x", "--html", f / "no" / "a.html"), "there is no folder"),
    "a folder for the page": (lambda f: ("x", "--html", f), "--html takes a file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_line_and_exit_code_2(capsys, tmp_path, case):
    args, says = REFUSED[case]
    code, out, err = run(capsys, *args(tmp_path))
    assert (code, out) == (2, "")
    assert err.startswith("qviz inspect: ")
    assert err.count("\n") == 1
    assert says in err
    assert len(err.replace(str(tmp_path), "")) < 440
    assert not (tmp_path / "exploded").exists()


def test_the_hostile_file_is_no_dud(tmp_path):
    pickle.loads(hostile(tmp_path).read_bytes())
    assert (tmp_path / "exploded").exists()
