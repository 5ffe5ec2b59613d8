"""Shipped data: it is what the card says, it is what the official files say, and damage is noticed."""

from __future__ import annotations

import builtins
import dataclasses
import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from qviz import shipped

ORIGINALS = Path(os.environ.get("QVIZ_DATA") or Path.home() / ".cache" / "qviz")
NOT_DATA = {".md", ".py", ".txt"}  # what data/ holds besides data
PIXELS = {  # sha256 of the images as stored in memory, taken when they were equal to the official files
    "train": "3454c9b8c2a855b6bf53987b2e4b678020f1de1514afbefe8c9854407d58b479",
    "test": "982fe64a2cf7a89282fda5ae8fcd0dfdb2f6d125d9bb8d0b79bf0e19f6b206e5",
}
WEIGHTS = {
    "stem": (32, 3, 3, 3),
    "depthwise_early": (32, 1, 3, 3),
    "depthwise_stride": (576, 1, 3, 3),
    "depthwise_late": (960, 1, 3, 3),
    "project_early": (16, 32, 1, 1),
    "expand": (576, 96, 1, 1),
    "project": (96, 576, 1, 1),
    "classifier": (48, 1280),
}
ACTIVATIONS = {
    "act_stem": (2048, 32),
    "act_depthwise": (2048, 32),
    "act_bottleneck": (682, 96),
    "act_outlier": (409, 160),
    "act_expand": (68, 960),
    "act_pooled": (20, 1280),
}


@pytest.fixture
def copied_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of data/ that the loader reads and that a test may damage."""
    folder = tmp_path / "data"
    shutil.copytree(shipped.data_dir(), folder)
    monkeypatch.setattr(shipped, "data_dir", lambda: folder)
    return folder


def flip_last_byte(path: Path) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(bytes(damaged))


def index() -> dict:
    return json.loads((shipped.data_dir() / "cifar10_sample.json").read_text(encoding="utf-8"))


def official_records(split: str) -> np.ndarray:
    folder = ORIGINALS / "cifar-10-batches-bin"
    files = [folder / name for name in index()[split]["source_files"]]
    if not all(path.is_file() for path in files):
        pytest.skip("the official CIFAR-10 binary files are not in QVIZ_DATA")
    return np.concatenate([np.fromfile(path, np.uint8).reshape(-1, 3073) for path in files])


def official_weights() -> dict[str, torch.Tensor]:
    path = ORIGINALS / "weights" / "mobilenet_v2-b0353104.pth"
    if not path.is_file():
        pytest.skip("the official MobileNetV2 weights are not in QVIZ_DATA")
    return torch.load(path, map_location="cpu", weights_only=True)


def test_manifest_has_every_file_with_its_size_and_hash() -> None:
    folder = shipped.data_dir()
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    files = (p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))  # locks, attributes
    present = {p.name for p in files if p.suffix not in NOT_DATA}
    # results.json is the ledger: it grows with every run, so no hash of it is kept
    assert {*manifest, "manifest.json"} == present - {"results.json"}
    for name, entry in manifest.items():
        content = (folder / name).read_bytes()
        assert entry["bytes"] == len(content), name
        assert entry["sha256"] == hashlib.sha256(content).hexdigest(), name


def test_readme_states_the_hashes_of_the_manifest() -> None:
    folder = shipped.data_dir()
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    text = (folder / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| ([\d,]+) \| `([0-9a-f]{64})` \|$", text, flags=re.MULTILINE)
    stated = {name: (int(size.replace(",", "")), digest) for name, size, digest in rows}
    assert stated == {name: (entry["bytes"], entry["sha256"]) for name, entry in manifest.items()}


def test_readme_states_the_shape_of_every_tensor() -> None:
    text = (shipped.data_dir() / "README.md").read_text(encoding="utf-8")
    for name in shipped.names():
        shape = " × ".join(str(n) for n in shipped.info(name).shape)
        assert f"| `{name}` | {shape} |" in text


def test_files_stay_small() -> None:
    sizes = {p.name: p.stat().st_size for p in shipped.data_dir().iterdir() if p.is_file()}
    assert max(v for k, v in sizes.items() if k.startswith("cifar10_sample")) < 5e6
    assert max(v for k, v in sizes.items() if k.startswith("mobilenet_v2_")) < 1e6


def test_verify_checks_every_file_of_the_manifest() -> None:
    manifest = json.loads((shipped.data_dir() / "manifest.json").read_text(encoding="utf-8"))
    assert set(shipped.verify()) == set(manifest)


@pytest.mark.parametrize("find", [shipped.data_dir, shipped.notebooks_dir])
def test_folders_are_found_in_a_checkout_and_in_a_wheel(find, tmp_path: Path, monkeypatch) -> None:
    folder = find.__name__.removesuffix("_dir")
    package = tmp_path / "qviz"
    package.mkdir()
    monkeypatch.setattr(shipped, "_PACKAGE", package)
    with pytest.raises(FileNotFoundError, match=folder):
        find()
    (tmp_path / folder).mkdir()
    with pytest.raises(FileNotFoundError, match=folder):  # without pyproject.toml it may be anyone's folder
        find()
    (package / "_share" / folder).mkdir(parents=True)
    assert find() == package / "_share" / folder
    (tmp_path / "pyproject.toml").touch()
    assert find() == tmp_path / folder


def test_names_and_shapes() -> None:
    assert shipped.names("weights") == tuple(WEIGHTS)
    assert shipped.names("activations") == tuple(ACTIVATIONS)
    assert shipped.names() == tuple(WEIGHTS | ACTIVATIONS)
    for name, shape in (WEIGHTS | ACTIVATIONS).items():
        assert shipped.info(name).shape == shape
        assert tuple(shipped.tensor(name).shape) == shape


@pytest.mark.parametrize("name", [*WEIGHTS, *ACTIVATIONS])
def test_tensor_is_a_fresh_finite_float32_copy(name: str) -> None:
    first = shipped.tensor(name)
    assert first.dtype == torch.float32
    assert first.is_contiguous()
    assert not first.requires_grad
    assert torch.isfinite(first).all()
    assert first.std() > 0.01
    kept = first.clone()
    first.zero_()
    assert torch.equal(shipped.tensor(name), kept)


def test_info_is_frozen_and_complete() -> None:
    for name in shipped.names():
        about = shipped.info(name)
        assert about.name == name
        assert about.kind == ("activations" if name.startswith("act_") else "weights")
        assert about.channel_axis == (1 if about.kind == "activations" else 0)
        assert about.source
        assert len(about.description) > 20
        assert "\n" not in about.description
        with pytest.raises(dataclasses.FrozenInstanceError):
            about.name = "other"


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_equal_the_official_file(name: str) -> None:
    key, _, rows = shipped.info(name).source.partition("[")
    official = official_weights()[key]
    if rows:
        official = official[: int(rows.strip(":]"))]
    assert torch.equal(shipped.tensor(name), official)


@pytest.mark.parametrize("name", ["act_stem", "act_depthwise", "act_expand"])
def test_relu6_outputs_lie_in_zero_to_six_and_hold_zeros(name: str) -> None:
    x = shipped.tensor(name)
    assert x.min() == 0
    assert x.max() <= 6
    assert 0.2 < (x == 0).float().mean() < 0.8


def test_descriptions_of_activations_are_true() -> None:
    assert shipped.tensor("act_stem").max() < 6
    assert (shipped.tensor("act_depthwise") == 6).any()
    for name in ("act_bottleneck", "act_outlier"):
        negative = (shipped.tensor(name) < 0).float().mean()
        assert 0.4 < negative < 0.6
    peaks = shipped.tensor("act_outlier").abs().amax(1).sort(descending=True).values
    assert peaks[1] > 2.5 * peaks[2]  # two positions dwarf all the others
    assert shipped.tensor("act_pooled").min() >= 0


def test_descriptions_of_weights_are_true() -> None:
    kurtosis = {}
    for name in WEIGHTS:
        z = shipped.tensor(name).double().flatten()
        z = (z - z.mean()) / z.std()
        kurtosis[name] = float(z.pow(4).mean())
    by_tails = sorted(kurtosis, key=kurtosis.__getitem__)
    assert by_tails[0] == "depthwise_stride"
    assert by_tails[-1] == "depthwise_early"
    assert kurtosis["depthwise_stride"] < 2.5
    assert kurtosis["depthwise_early"] > 10
    assert 3 < kurtosis["expand"] < 4
    assert 2 < kurtosis["classifier"] < 3
    widths = shipped.tensor("depthwise_early").flatten(1).abs().amax(1)
    assert round(float(widths.max() / widths.min())) == 741
    narrow = shipped.tensor("stem").flatten(1).abs().amax(1) < 0.02
    assert narrow.sum() == 5
    kernels = shipped.tensor("depthwise_stride").flatten(1)
    assert (kernels.sign().sum(1).abs() == 9).float().mean() > 0.9  # nearly every kernel has one sign


@pytest.mark.parametrize("split", ["train", "test"])
def test_sample_is_balanced_and_takes_turns(split: str) -> None:
    images, labels = shipped.cifar10_sample(split)
    assert images.shape == (2000, 3, 32, 32)
    assert images.dtype == torch.uint8
    assert labels.shape == (2000,)
    assert labels.dtype == torch.int64
    assert torch.bincount(labels).tolist() == [200] * 10
    assert torch.equal(labels, torch.arange(2000) % 10)


@pytest.mark.parametrize("split", PIXELS)
def test_decoded_pixels_and_their_layout_never_change(split: str) -> None:
    images, _ = shipped.cifar10_sample(split)
    assert hashlib.sha256(images.numpy().tobytes()).hexdigest() == PIXELS[split]


def test_class_names_are_those_of_the_index() -> None:
    assert list(shipped.CIFAR10_CLASSES) == index()["classes"]


def test_train_and_test_never_mix() -> None:
    listed = index()
    assert listed["train"]["source_files"] == [f"data_batch_{n}.bin" for n in range(1, 6)]
    assert listed["test"]["source_files"] == ["test_batch.bin"]
    for split, size in (("train", 50000), ("test", 10000)):
        chosen = listed[split]["source_index"]
        assert len(set(chosen)) == 2000
        assert min(chosen) >= 0
        assert max(chosen) < size
    train, test = (shipped.cifar10_sample(split)[0] for split in ("train", "test"))
    train_pixels, test_pixels = ({x.numpy().tobytes() for x in images} for images in (train, test))
    assert len(train_pixels) == len(test_pixels) == 2000
    assert not train_pixels & test_pixels


@pytest.mark.parametrize("split", ["train", "test"])
def test_sample_equals_the_official_files_bit_for_bit(split: str) -> None:
    records = official_records(split)[index()[split]["source_index"]]
    images, labels = shipped.cifar10_sample(split)
    assert np.array_equal(images.numpy().reshape(2000, 3072), records[:, 1:])
    assert np.array_equal(labels.numpy(), records[:, 0])


def test_without_pillow_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def no_pillow(name: str, *args, **kwargs):
        if name.split(".")[0] == "PIL":
            raise ImportError("No module named 'PIL'")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_pillow)
    with pytest.raises(ImportError, match=re.escape("pip install 'qviz-quantization[plot]'")):
        shipped.cifar10_sample()


def test_unknown_names_are_named_with_the_choices() -> None:
    for call in (shipped.info, shipped.tensor):
        with pytest.raises(ValueError, match=r"'stemm'.*stem, depthwise_early.*act_pooled"):
            call("stemm")
    with pytest.raises(ValueError, match=r"'weight'.*weights, activations"):
        shipped.names("weight")
    with pytest.raises(ValueError, match=r"'val'.*train, test"):
        shipped.cifar10_sample("val")


@pytest.mark.parametrize(
    ("file", "use"),
    [
        ("mobilenet_v2_weights.safetensors", lambda: shipped.tensor("stem")),
        ("mobilenet_v2_activations.safetensors", lambda: shipped.tensor("act_stem")),
        ("cifar10_sample_train.webp", lambda: shipped.cifar10_sample("train")),
        ("cifar10_sample_test.webp", lambda: shipped.cifar10_sample("test")),
        ("cifar10_sample.json", lambda: shipped.cifar10_sample("train")),
    ],
)
def test_a_damaged_file_is_refused_until_it_is_repaired(copied_data: Path, file: str, use) -> None:
    intact = (copied_data / file).read_bytes()
    flip_last_byte(copied_data / file)
    right = hashlib.sha256(intact).hexdigest()
    wrong = hashlib.sha256((copied_data / file).read_bytes()).hexdigest()
    for attempt in (use, shipped.verify):
        with pytest.raises(ValueError, match=rf"{re.escape(file)}.*{wrong}.*{right}.*reinstall"):
            attempt()
    (copied_data / file).write_bytes(intact)
    use()
    shipped.verify()


def test_a_file_is_hashed_once_per_process(copied_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []
    file_sha256 = shipped.file_sha256
    monkeypatch.setattr(shipped, "file_sha256", lambda path: hashed.append(path) or file_sha256(path))
    shipped.tensor("stem")
    assert len(hashed) == 2  # weights and activations, whose headers make the list of names
    shipped.tensor("stem")
    shipped.tensor("act_pooled")
    assert len(hashed) == 2


def test_missing_and_unlisted_files_are_named(copied_data: Path) -> None:
    (copied_data / "cifar10_sample_test.webp").unlink()
    with pytest.raises(FileNotFoundError, match=r"cifar10_sample_test\.webp.*missing"):
        shipped.cifar10_sample("test")
    with pytest.raises(FileNotFoundError, match=r"cifar10_sample_test\.webp.*missing"):
        shipped.verify()
    manifest = json.loads((copied_data / "manifest.json").read_text(encoding="utf-8"))
    del manifest["cifar10_sample_train.webp"]
    (copied_data / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ValueError, match=r"cifar10_sample_train\.webp is not listed"):
        shipped.cifar10_sample("train")
