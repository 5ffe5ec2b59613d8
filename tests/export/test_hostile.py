"""A file that is damaged, or made to harm, is refused in one sentence or changes no answer."""

from __future__ import annotations

import json
import random
import re
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import qviz
from qviz.export import load, read, run_numpy, save
from qviz.export.file import contents
from qviz.export.layout import arrays
from qviz.export.numpy_file import _layer, digest, network, tensors_of
from qviz.nn import calibrate, convert
from tests.slow import slow


def exported(path: Path, name: str, w_bits: int, a_bits: int) -> Path:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten()]
    model, x = nn.Sequential(*layers, nn.Linear(32, 3)), torch.rand(4, 2, 6, 6)
    if name != "fp32":
        convert(model, pair=qviz.recipes.pair(name, w_bits, a_bits), batch=x, first_last="8bit")
        calibrate(model, x)
    return save(model.eval(), path, shape=(2, 6, 6), mean=(0.5, 0.5), std=(0.2, 0.2))


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return exported(tmp_path_factory.mktemp("original") / "x.safetensors", "asq", 4, 4)


@contextmanager
def little_memory() -> Iterator[None]:
    """Let the process ask for 256 MB more than it has, where the system tells how much that is."""
    usual, pages = resource.getrlimit(resource.RLIMIT_AS), Path("/proc/self/statm")
    if pages.exists():
        held = int(pages.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + 2**28, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, usual)


def refused(path: Path) -> str:
    """Return what is said, one sentence; no memory for what the file claims is asked for."""
    with little_memory(), pytest.raises(ValueError, match=path.name) as raised:
        load(path)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 600
    return str(raised.value)


METHODS = ["fp32", "lsq", "pot", "post", "asq", "adq", "aquant", "apot", ("daq", 1, 1), ("adq", 3, 2)]


@pytest.mark.parametrize("method", [*slow(*METHODS[:-1]), METHODS[-1]], ids=str)
def test_one_changed_byte_is_refused_or_changes_nothing(method, tmp_path):
    path, draw = tmp_path / "x.safetensors", random.Random(0)
    data = exported(path, *((method, 4, 4) if isinstance(method, str) else method)).read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    half = [draw.randrange(header) for _ in range(100)]
    for place in half + [draw.randrange(header, len(data)) for _ in range(100)]:
        path.write_bytes(data[:place] + bytes([data[place] ^ draw.randrange(1, 256)]) + data[place + 1 :])
        try:
            found = read(path)
        except ValueError:
            with pytest.raises(ValueError, match="damaged"):
                network(path)
        else:
            assert contents(found) == data, f"byte {place}"


def test_a_part_of_a_file_is_refused(original, tmp_path):
    data, path = original.read_bytes(), tmp_path / "x.safetensors"
    ends = (0, 7, 8, 100, 8 + int.from_bytes(data[:8], "little"), len(data) - 1)
    for part in (*(data[:end] for end in ends), data + b"\0"):
        path.write_bytes(part)
        refused(path)
        with pytest.raises(ValueError, match="damaged"):
            network(path)


def test_a_claim_of_ten_gigabytes_is_refused(original, tmp_path):
    data, path = original.read_bytes(), tmp_path / "x.safetensors"
    path.write_bytes((10 * 2**30).to_bytes(8, "little") + data[8:])
    refused(path)
    header = json.dumps({"a": {"dtype": "U8", "shape": [10 * 2**30], "data_offsets": [0, 10 * 2**30]}})
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + data)
    refused(path)


HEADERS = {
    "digits without end": {"shape": [int("9" * 4000)] * 3},
    "axes without end": {"shape": [1] * 10**4},
    "a shape in words": {"shape": "x" * 10**5},
    "a type without end": {"dtype": "x" * 10**5},
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_of_absurd_numbers_is_refused_in_a_short_sentence(original, tmp_path, name):
    data, path = original.read_bytes(), tmp_path / "x.safetensors"
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["3.codes"].update(HEADERS[name])
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])
    refused(path)
    with pytest.raises(ValueError, match="damaged") as raised:
        network(path)
    assert ("would have the shape" in str(raised.value)) == (name != "a type without end")
    assert len(str(raised.value)) < 600


def test_the_tensors_of_a_layer_are_not_sought_among_all(original):
    class Named(dict):
        __iter__ = items = keys = None

    found = network(original)
    read = _layer(Named(tensors_of(original)[0]), "3", {"bits": 4, "shape": [8, 8, 3, 3], "mode": "paper"})
    assert (read.weight.codes == found.layers["3"].weight.codes).all()
    assert len(read.input.adapter.layers) == len(found.layers["3"].input.adapter.layers) == 2


def test_too_little_memory_is_said_in_a_sentence(original, tmp_path, capsys, monkeypatch):
    def run(net, images):
        raise MemoryError

    np.save(tmp_path / "x.npy", np.zeros((1, 2, 6, 6), np.uint8))
    monkeypatch.setattr(run_numpy.Network, "__call__", run)
    assert run_numpy.main([str(original), f"{tmp_path}/x.npy"]) == 2
    assert capsys.readouterr().err == "run_numpy: too little memory\n"


def test_what_is_no_export_is_refused_and_not_run(tmp_path):
    path = tmp_path / "x.safetensors"
    torch.save({"weight": torch.ones(2)}, path)
    refused(path)
    save_file({"weight": torch.ones(2)}, path)
    assert "its format is ''" in refused(path)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load(tmp_path)


def forge(
    original: Path, path: Path, change: Callable[[dict[str, Tensor], dict[str, object]], object]
) -> None:
    """Write the file with a change, and the hash that belongs to it."""
    data = original.read_bytes()
    texts = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    parsed = {key: json.loads(texts.pop(key)) for key in ("layers", "program", "about")}
    tensors = load_file(original)
    change(tensors, parsed)
    texts |= {key: value if isinstance(value, str) else json.dumps(value) for key, value in parsed.items()}
    texts["sha256"] = digest(arrays(tensors), texts)
    save_file(tensors, path, texts)


def rename(tensors: dict[str, Tensor], parsed: dict, name: str) -> None:
    parsed["layers"][name] = parsed["layers"].pop("3")
    for key in [key for key in tensors if key.startswith("3.")]:
        tensors[name + key[1:]] = tensors.pop(key)
    for step in parsed["program"]:
        step[2] = name if step[2] == "3" else step[2]


FORGED = {
    "another schema": (
        lambda t, p: p.update(schema="2"),
        "its schema is '2'; this version of qviz reads '1'",
    ),
    "another format": (lambda t, p: p.update(format="x"), "format is 'x'"),
    "no program": (lambda t, p: p.pop("program"), "it has no 'program'"),
    "a path": (lambda t, p: rename(t, p, "../../3"), "'../../3' is no name"),
    "a method": (lambda t, p: rename(t, p, "3.__class__"), "'3.__class__' is no name"),
    "a huge shape": (
        lambda t, p: p["layers"]["3"].update(shape=[2**19, 2**19, 3, 3]),
        "are not those of codes",
    ),
    "an absurd shape": (lambda t, p: p["layers"]["3"].update(shape=[8, -8, 3, 3]), r"has the shape \[8, -8"),
    "one bit more": (lambda t, p: p["layers"]["3"].update(bits=5), "are not those of codes"),
    "deep nesting": (lambda t, p: p.update(layers="[" * 10**5), "recursion"),
    "NaN": (lambda t, p: p["program"][2][3].update(eps=float("nan")), "eps"),
    "an eps without end": (lambda t, p: p["program"][2][3].update(eps=10**400), "arguments"),
    "a negative eps": (lambda t, p: p["program"][2][3].update(eps=-2.0), "variance below 0"),
    "a negative variance": (lambda t, p: t["1.running_var"].neg_(), "'1' has a variance below 0"),
    "another axis": (lambda t, p: p["layers"]["3"].update(axis=7), "axis is 7"),
    "no level": (lambda t, p: t.update({"3.levels": t["3.levels"][:3].clone()}), "levels"),
    "an infinite scale": (lambda t, p: t["3.scale"].fill_(torch.inf), "scale is not made of finite"),
    "falling borders": (lambda t, p: t["3.borders"].neg_(), "borders fall"),
    "no values": (lambda t, p: t.pop("3.values"), "it has no '3.values'"),
    "half of the codes": (
        lambda t, p: t.update({"3.codes": t["3.codes"][: len(t["3.codes"]) // 2].clone()}),
        "are not those of codes",
    ),
    "no codes": (lambda t, p: t.pop("3.codes"), "it has no '3.codes'"),
    "a wide adapter": (lambda t, p: t.update({"3.adapter.0.weight": torch.ones(2, 9)}), "does not fit"),
    "a step of its own": (lambda t, p: p["program"].append(["eval", [0], "", {}]), "is 'eval'"),
    "a step ahead": (lambda t, p: p["program"][1][1].__setitem__(0, 5), r"reads \[5\]"),
    "channels without end": (
        lambda t, p: p["program"].insert(1, ["pad_channels", [0], "", {"before": 0, "after": 10**9}]),
        "arguments",
    ),
    "rows without end": (lambda t, p: p["program"][1][3].update(padding=[10**5, 10**5]), "more than"),
    "padding without end": (
        lambda t, p: p["program"][1][3].update(padding=[6000, 6000], stride=[6000, 6000]),
        r"makes \(2, 12006, 12006\) of one image",
    ),
    "a layer used in two ways": (
        lambda t, p: p["program"].insert(2, ["conv", [0], "0", {**p["program"][1][3], "padding": [1, 1]}]),
        r"step 2 \(conv\) uses '0' in another way",
    ),
    "a convolution as linear": (
        lambda t, p: p["program"].append(["linear", [0], "0", {}]),
        "names '0', which the file does not have",
    ),
    "a name of torch": (lambda t, p: rename(t, p, "forward"), "'forward' is no name"),
    "a layer inside of another": (lambda t, p: rename(t, p, "0.3"), "'0.3' lies inside of '0'"),
    "an endless mean": (lambda t, p: p["about"].update(mean=[float("inf"), 0.0]), "mean is"),
    "a mean in words": (lambda t, p: p["about"].update(mean="x"), "mean is 'x'"),
    "a mean for each of three": (
        lambda t, p: p["about"].update(mean=[0.5, 0.5, 0.5]),
        "mean has 3 numbers, and an image 2 channels",
    ),
    "a shape of one number": (lambda t, p: p["about"].update(shape=7), "shape of an image is 7"),
    "a small image": (lambda t, p: p["about"].update(shape=[2, 2, 6]), "does not fit what it reads"),
    "a std of 0": (lambda t, p: p["about"].update(std=[0.0, 1.0]), "std is"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_file_with_the_right_hash_is_refused_all_the_same(original, tmp_path, name):
    change, words = FORGED[name]
    forge(original, tmp_path / "x.safetensors", change)
    said = refused(tmp_path / "x.safetensors")
    assert re.search(words, said), said
    if name != "a name of torch":
        with pytest.raises(ValueError, match=r"x\.safetensors is damaged, or no network"):
            network(tmp_path / "x.safetensors")


def test_images_of_a_size_that_does_not_fit_are_refused_before_they_are_run(original):
    with pytest.raises(ValueError, match=r"step 1 \(conv '0'\) does not fit what it reads, \(3, 6, 6\)"):
        load(original)(torch.zeros(1, 3, 6, 6))
